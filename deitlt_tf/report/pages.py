"""From the numbers and images of a report to what its page shows: every picture with its words."""

from collections.abc import Sequence

import numpy as np

from deitlt_tf.evaluation import metrics
from deitlt_tf.evaluation.predictions import MixedViews, Predictions
from deitlt_tf.report import plots, sections

UNITS = {"loss": "loss", "agreement": "teacher agrees with the label, share", "cosine": "cosine of CLS and DIST"}


def figure(src: str, *, alt: str, caption: str = "", lines: Sequence[str] = ()) -> dict:
    """A picture with the words that stand for it and those below it."""
    return {"src": src, "alt": alt, "caption": caption, "lines": lines}


def listed(values: dict[str, object], form: str = "{}") -> str:
    return ", ".join(f"{name} {form.format(value)}" for name, value in values.items())


def short(row: str) -> str:
    return row.removeprefix("student ")


def clouds(numbers: dict) -> list[dict]:
    tested = [c for c in numbers["classes"] if c["test"]]
    heads = numbers["run"]["heads"]
    shown = {sections.HEADS[h] if len(heads) > 1 else "ViT": [c[h] for c in tested] for h in heads if h != "mean"}
    ahead = sum(c["dist"] > c["cls"] for c in tested) if len(shown) == 2 else 0
    return [
        figure(
            plots.clouds(np.array([c["train"] for c in tested]), {k: np.array(v) for k, v in shown.items()}),
            caption=f"DIST is ahead of CLS in {ahead} of {len(tested)} classes." if len(shown) == 2 else "",
            alt=f"Accuracy of each of {len(tested)} classes against its training images: " + " and ".join(shown),
        )
    ]


def curves(numbers: dict) -> list[dict]:
    history = numbers["curves"]
    found = []
    for part, named in history["curves"].items():
        last = {name: [v for v in values if v is not None][-1] for name, values in named.items()}
        title = UNITS.get(part, f"{part}, %")
        plot = plots.curves(history["epoch"], named, y=title, mark=history["reweight_epoch"])
        found.append(figure(plot, alt=f"{title}, by epoch; at the end {listed(last, '{:.3g}')}"))
    return found


def inside(numbers: dict) -> list[dict]:
    """Attention distance and rank by block; the plain ViT beside the student."""
    models, share = numbers["probes"]["models"], numbers["probes"]["share"]
    uniform = numbers["probes"]["uniform_distance"]
    if not models:
        return []
    distance = {name: np.array(found["distance"]) for name, found in models.items()}
    rank = models.get("student", {"rank": {}})["rank"]
    rank = rank | ({"ViT": models["ViT"]["rank"]["CLS"]} if "ViT" in models else {})
    first, last = ({name: d[i].mean() for name, d in distance.items()} for i in (0, -1))
    return [
        figure(
            plots.distances(distance, uniform=uniform),
            caption=f"How far each head looks; uniform attention would be {uniform:.1f} px.",
            alt="Mean attention distance by block, pixels: first "
            + f"{listed(first, '{:.1f}')}; last {listed(last, '{:.1f}')}",
        ),
        figure(
            plots.ranks(rank, share=share),
            caption=f"Principal components that hold {share:.0%} of the variance of each token.",
            alt=f"Rank of token features by block; after the last {listed({name: r[-1] for name, r in rank.items()})}",
        ),
    ]


def calibration(numbers: dict) -> list[dict]:
    found = []
    for name, row in numbers["calibration"].items():
        groups = {group: row[group] for group in metrics.GROUPS if row[group]}
        ece = listed({group: 100 * x["ece"] for group, x in groups.items()}, "{:.1f} %")
        found.append(figure(plots.reliability(groups), caption=short(name), alt=f"Reliability of {name}; ECE {ece}"))
    return found


def shifts(numbers: dict) -> list[dict]:
    rows = {short(name): row for name, row in numbers["shifts"].items()}
    ends = ", ".join(f"{name} {row['backward 50']:.1f} to {row['forward 50']:.1f}" for name, row in rows.items())
    return [
        figure(
            plots.shifts(rows),
            caption="Left: the tail is frequent in the test; right: the head is.",
            alt=f"Accuracy by test distribution, %, from backward 50 to forward 50: {ends}",
        )
    ]


def figures_of_sections(numbers: dict) -> dict[str, list[dict]]:
    """{section: figures} of a report, from its numbers alone."""
    return {part.__name__: part(numbers) for part in (clouds, curves, inside, calibration, shifts)}


def differences(numbers: dict) -> list[dict]:
    """Of a comparison, one figure for each head of the networks: the paper's groups."""
    reference, runs = numbers["compared"]["reference"], numbers["compared"]["differences"]
    found = []
    for head in dict.fromkeys(head for rows in runs.values() for head in rows):
        rows = {name: row[head]["paper"] for name, row in runs.items() if head in row}
        words = [
            f"{name} {group} {b['value']:+.1f} ({b['low']:+.1f} to {b['high']:+.1f})"
            for name, row in rows.items()
            for group, b in row.items()
            if b
        ]
        title = f"{head}: difference from {reference}"
        found.append(figure(plots.differences(rows), caption=title, alt=f"{title}, points: {'; '.join(words)}"))
    return found


def percent(share: float) -> str:
    """A share as it is written below pictures, where a line must not end between the number and its sign."""
    return f"{100 * share:.0f}\N{NO-BREAK SPACE}%"


def said(given: Predictions, head: str, index: int, class_names: Sequence[str]) -> str:
    return f"{head.upper()}: {class_names[given.predicted[head][index]]} {percent(given.confidence[head][index])}"


def rollouts(
    images: np.ndarray,
    maps: np.ndarray,
    indices: Sequence[int],
    given: Predictions,
    counts: np.ndarray,
    names: Sequence[str],
) -> list[dict]:
    """Each image with the attention rollout of each token over it: {panels, caption}.

    images: uint8 [n, S, S, 3]; maps: [n, P, g, g]; indices: [n] of the test images.
    """
    groups = metrics.groups(counts, "paper")
    found = []
    for image, heats, index in zip(images, maps, indices, strict=True):
        label = given.labels[index]
        group = next(group for group, members in groups.items() if label in members)
        panels = [figure(plots.picture(image), alt=f"test image of {names[label]}", caption="image")]
        panels += [
            figure(
                plots.overlay(image, heat),
                alt=f"attention rollout of {head.upper()} over the image of {names[label]}",
                caption=said(given, head, index, names),
            )
            for head, heat in zip(("cls", "dist"), heats, strict=False)
        ]
        found.append({"panels": panels, "caption": f"{names[label]} ({group}, {counts[label]} training images)"})
    return found


def duel(images: np.ndarray, indices: Sequence[int], given: Predictions, names: Sequence[str]) -> list[dict]:
    return [
        figure(
            plots.picture(image),
            alt=f"test image of {names[given.labels[index]]}",
            caption=names[given.labels[index]],
            lines=[said(given, head, index, names) for head in ("cls", "dist")],
        )
        for image, index in zip(images, indices, strict=True)
    ]


def mixed(found: MixedViews, names: Sequence[str]) -> list[dict]:
    """The views that were kept, with what they are mixed of and what the teacher says."""
    pictures = []
    for image, i in zip(found.images, found.kept, strict=True):
        parts = [c for c in np.argsort(-found.targets[i], kind="stable")[:2] if found.targets[i, c] > 0]
        of = [f"{names[c]} {percent(found.targets[i, c])}" for c in parts]
        pictures.append(
            figure(
                plots.picture(image),
                alt="mixed training view of " + " and ".join(names[c] for c in parts),
                caption=" + ".join(of),
                lines=[f"teacher: {names[found.predicted[i]]} {percent(found.confidence[i])}"],
            )
        )
    return pictures
