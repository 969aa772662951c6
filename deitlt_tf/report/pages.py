"""The figures of a page, each with its caption and a text for readers who cannot see it."""

from collections.abc import Mapping, Sequence

import numpy as np

from deitlt_tf.evaluation import metrics
from deitlt_tf.evaluation.predictions import MixedViews, Predictions
from deitlt_tf.report import plots, sections

UNITS = {"loss": "loss", "agreement": "teacher agrees with the label, share", "cosine": "cosine of CLS and DIST"}


def figure(src: str, *, alt: str, caption: str = "", lines: Sequence[str] = ()) -> dict:
    """A picture as the page shows it. src: data URI. alt: text instead of it. caption, lines: text below it."""
    return {"src": src, "alt": alt, "caption": caption, "lines": lines}


def listed(values: Mapping[str, object], form: str = "{}") -> str:
    """ "name value, name value"; form: of a value."""
    return ", ".join(f"{name} {form.format(value)}" for name, value in values.items())


def short(row: str) -> str:
    """The name of a row without "student"."""
    return row.removeprefix("student ")


def clouds(numbers: dict) -> list[dict]:
    """Accuracy of each class against its training images, for CLS and DIST."""
    tested = [c for c in numbers["classes"] if c["test"]]
    heads = numbers["run"]["heads"]
    name_of = sections.HEADS if len(heads) > 1 else {heads[0]: numbers["run"]["network"]}
    columns = {name_of[head]: [c[head] for c in tested] for head in heads if head != "mean"}
    ahead = sum(c["dist"] > c["cls"] for c in tested) if len(columns) == 2 else 0
    return [
        figure(
            plots.clouds(np.array([c["train"] for c in tested]), {k: np.array(v) for k, v in columns.items()}),
            caption=f"DIST is ahead of CLS in {ahead} of {len(tested)} classes." if len(columns) == 2 else "",
            alt=f"Accuracy of each of {len(tested)} classes against its training images: " + " and ".join(columns),
        )
    ]


def curves(numbers: dict) -> list[dict]:
    """A plot for each part of the journal, by epoch or round."""
    history = numbers["curves"]
    figures = []
    for part, named in history["curves"].items():
        last = {name: [v for v in values if v is not None][-1] for name, values in named.items()}
        title = UNITS.get(part, f"{part}, %")
        unit = history["unit"]
        plot = plots.curves(history["epoch"], named, y=title, mark=history["reweight_epoch"], unit=unit)
        figures.append(figure(plot, alt=f"{title}, by {unit}; at the end {listed(last, '{:.3g}')}"))
    return figures


def inside(numbers: dict) -> list[dict]:
    """Attention distance and rank by block, of the student and the plain ViT."""
    models, share = numbers["probes"]["models"], numbers["probes"]["share"]
    uniform = numbers["probes"]["uniform_distance"]
    if not models:
        return []
    distance = {name: np.array(results["distance"]) for name, results in models.items()}
    rank = models.get("student", {"rank": {}})["rank"]
    rank = rank | ({"ViT": models["ViT"]["rank"]["CLS"]} if "ViT" in models else {})
    first, last = ({name: d[i].mean() for name, d in distance.items()} for i in (0, -1))
    return [
        figure(
            plots.distances(distance, uniform=uniform),
            caption=f"Attention distance of each head. With uniform attention it would be {uniform:.1f} px.",
            alt="Mean attention distance by block, pixels: first "
            + f"{listed(first, '{:.1f}')}; last {listed(last, '{:.1f}')}",
        ),
        figure(
            plots.ranks(rank, share=share),
            caption=f"Principal components that hold {percent(share)} of the variance of each token.",
            alt=f"Rank of token features by block; after the last {listed({name: r[-1] for name, r in rank.items()})}",
        ),
    ]


def calibration(numbers: dict) -> list[dict]:
    """A reliability plot for each row."""
    figures = []
    for name, row in numbers["calibration"].items():
        groups = {group: row[group] for group in metrics.GROUPS if row[group]} or {"overall": row["overall"]}
        ece = listed({group: 100 * x["ece"] for group, x in groups.items()}, "{:.1f} %")
        figures.append(figure(plots.reliability(groups), caption=short(name), alt=f"Reliability of {name}; ECE {ece}"))
    return figures


def shifts(numbers: dict) -> list[dict]:
    """Accuracy by test distribution."""
    rows = {short(name): row for name, row in numbers["shifts"].items()}
    ends = ", ".join(f"{name} {row['backward 50']:.1f} to {row['forward 50']:.1f}" for name, row in rows.items())
    return [
        figure(
            plots.shifts(rows),
            caption="On the left the tail is frequent in the test set, on the right the head is.",
            alt=f"Accuracy by test distribution, %, from backward 50 to forward 50: {ends}",
        )
    ]


def taxonomy(numbers: dict) -> list[dict]:
    """Accuracy against rank of each head, and the answers at the rank that is sure; none without a taxonomy."""
    found = numbers["taxonomy"]
    if not found:
        return []
    ranks, figures = found["ranks"], []
    names = [row for row in found["rows"] if row == found["model"] or row.startswith(f"{found['model']} ")]
    for name in names:
        if name.endswith("least risk"):
            continue
        accuracy = found["rows"][name]["accuracy"]
        columns = {g: [accuracy[rank]["paper"][g] for rank in ranks] for g in metrics.GROUPS}
        named = {g: bounds for g, bounds in columns.items() if any(bounds)}
        named = named or {"overall": [accuracy[rank]["paper"]["overall"] for rank in ranks]}
        values = {g: " to ".join(f"{b['value']:.1f}" for b in row if b) for g, row in named.items()}
        alt = f"Accuracy of {name} by rank, %, from {ranks[0]} to {ranks[-1]}: {listed(values)}"
        figures.append(figure(plots.by_rank(ranks, named), caption=short(name), alt=alt))
    curve, chosen = found["rollup"]["curve"], found["rollup"]["threshold"]
    ends = [f"{row['threshold']:g}: {'-' if row['accuracy'] is None else percent(row['accuracy'])}" for row in curve]
    figures.append(
        figure(
            plots.coverage(curve, finest=ranks[0], chosen=chosen),
            caption="Answers at the finest rank whose probability reaches a threshold.",
            alt=f"Share of the answers that is right, by threshold: {', '.join(ends)}",
        )
    )
    return figures


def clients(numbers: dict) -> list[dict]:
    """Class shares of each client, accuracies before and after personalisation, and the curves by round."""
    section = numbers["clients"]
    if section is None:
        return []
    rows = section["clients"]
    pairs = {name: (row["before"], row["after"]) for name, row in rows.items()}
    counts = {f"{name} ({row['images']})": row["counts"] for name, row in rows.items()}
    better = [after > before for before, after in pairs.values() if before is not None and after is not None]
    figures = [
        figure(
            plots.shares(counts, section["class_names"]),
            caption="Training images of each client, in brackets, and of each class there; darker: more.",
            alt=f"Training images of {len(section['class_names'])} classes at {len(rows)} clients",
        ),
        figure(
            plots.before_and_after(pairs),
            caption=f"The personal model is better at {sum(better)} of {len(better)} clients." if better else "",
            alt="Accuracy of each client with the generic and with its personal model",
        ),
    ]
    curves = section["curves"]
    if curves["round"]:
        plot = plots.curves(curves["round"], curves["accuracy"], y="accuracy, %", unit="round")
        last = {name: values[-1] for name, values in curves["accuracy"].items()}
        caption = "Generic: on the images of all classes. Personal: mean over clients, each on its own images."
        figures.append(figure(plot, caption=caption, alt=f"Accuracy by round; at the end {listed(last, '{:.3g}')}"))
    return figures


def figures_of_sections(numbers: dict) -> dict[str, list[dict]]:
    """{section: figures} of a report, from its numbers alone."""
    return {part.__name__: part(numbers) for part in (clouds, taxonomy, clients, curves, inside, calibration, shifts)}


def differences(numbers: dict) -> list[dict]:
    """The figures of a comparison: for each head, the differences in the groups of the second table."""
    reference, runs = numbers["compared"]["reference"], numbers["compared"]["differences"]
    figures = []
    for head in dict.fromkeys(head for rows in runs.values() for head in rows):
        rows = {name: row[head]["paper"] for name, row in runs.items() if head in row}
        words = [
            f"{name} {group} {b['value']:+.1f} ({b['low']:+.1f} to {b['high']:+.1f})"
            for name, row in rows.items()
            for group, b in row.items()
            if b
        ]
        title = f"{head}: difference from {reference}"
        figures.append(figure(plots.differences(rows), caption=title, alt=f"{title}, points: {'; '.join(words)}"))
    return figures


def percent(share: float) -> str:
    """A share in percent. A no-break space keeps the number and its sign on one line."""
    return f"{100 * share:.0f}\N{NO-BREAK SPACE}%"


def answer(predictions: Predictions, head: str, index: int, class_names: Sequence[str]) -> str:
    """The answer of a head to one test image: "CLS: cat 93 %"."""
    name, share = class_names[predictions.predicted[head][index]], predictions.confidence[head][index]
    return f"{head.upper()}: {name} {percent(share)}"


def rollouts(
    images: np.ndarray,
    maps: np.ndarray,
    indices: Sequence[int] | np.ndarray,
    predictions: Predictions,
    counts: np.ndarray,
    names: Sequence[str],
) -> list[dict]:
    """For each image the attention rollout of each token: {panels, caption}.

    images: uint8 [n, S, S, 3]. maps: [n, P, g, g]. indices: [n], places of the images in `predictions`.
    counts: [C], training images of each class. names: [C].
    """
    groups = metrics.groups(counts, "paper")
    samples = []
    for image, heats, index in zip(images, maps, indices, strict=True):
        label = predictions.labels[index]
        words = [group for group, members in groups.items() if label in members]
        words.append(f"{counts[label]} training images")
        panels = [figure(plots.picture(image), alt=f"test image of {names[label]}", caption="image")]
        panels += [
            figure(
                plots.overlay(image, heat),
                alt=f"attention rollout of {head.upper()} over the image of {names[label]}",
                caption=answer(predictions, head, index, names),
            )
            for head, heat in zip(("cls", "dist"), heats, strict=False)
        ]
        samples.append({"panels": panels, "caption": f"{names[label]} ({', '.join(words)})"})
    return samples


def duel(images: np.ndarray, indices: Sequence[int], predictions: Predictions, names: Sequence[str]) -> list[dict]:
    """Test images with the answers of CLS and DIST. Arguments: as of `rollouts`."""
    return [
        figure(
            plots.picture(image),
            alt=f"test image of {names[predictions.labels[index]]}",
            caption=names[predictions.labels[index]],
            lines=[answer(predictions, head, index, names) for head in ("cls", "dist")],
        )
        for image, index in zip(images, indices, strict=True)
    ]


def mixed(views: MixedViews, names: Sequence[str]) -> list[dict]:
    """The pictured views, with their labels and the teacher's answer."""
    pictures = []
    for image, i in zip(views.images, views.pictured, strict=True):
        parts = [c for c in np.argsort(-views.targets[i], kind="stable")[:2] if views.targets[i, c] > 0]
        labels = [f"{names[c]} {percent(views.targets[i, c])}" for c in parts]
        pictures.append(
            figure(
                plots.picture(image),
                alt="mixed training view of " + " and ".join(names[c] for c in parts),
                caption=" + ".join(labels),
                lines=[f"teacher: {names[views.predicted[i]]} {percent(views.confidence[i])}"],
            )
        )
    return pictures
