"""The numbers of each section of a report, from predictions, probes and the journal, as dicts and lists for JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deitlt_tf.data.taxonomy import Taxonomy
from deitlt_tf.evaluation import hierarchy, intervals, metrics, probes, rollup
from deitlt_tf.evaluation.predictions import (
    MixedViews,
    Predictions,
    destinations,
    mistaken_for,
    per_class,
    reliability,
    shifted,
    spread,
)
from deitlt_tf.evaluation.tables import describe_heights

HEADS = {"cls": "CLS", "dist": "DIST", "mean": "mean"}
RATIOS = (50, 25, 10, 5, 2)
SHARE = 0.95  # of the variance, for ranks; the paper does not state its own
MOST = {"tail classes": 20, "taken for": 3, "pairs of nodes": 15}


def rows_of(name: str, predictions: Predictions) -> dict[str, str]:
    """{row of a table: head of the network}: "student CLS", ...; the name alone where there is one head."""
    heads = predictions.predicted
    return {f"{name} {HEADS[head]}": head for head in heads} if len(heads) > 1 else {name: "cls"}


def hits(predictions: Predictions, head: str, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """(right, total), int [C] each: right answers of a head, and test images, of each class."""
    labels = predictions.labels
    right = per_class(labels, predictions.right(head), num_classes)
    return right, per_class(labels, np.ones(len(labels), bool), num_classes)


def table(
    by_model: Mapping[str, Predictions], class_counts: np.ndarray, *, resamples: int, seed: int, level: float
) -> dict[str, dict]:
    """{convention: {row: {each of `metrics.COLUMNS`: {value, low, high} or None}}}, percent.

    by_model: {name: predictions}. Other arguments: see `intervals.accuracy`.
    """
    rows = {}
    for name, predictions in by_model.items():
        for row, head in rows_of(name, predictions).items():
            right, total = hits(predictions, head, len(class_counts))
            rows[row] = intervals.accuracy(right, total, class_counts, resamples=resamples, seed=seed, level=level)
    return {convention: {row: rows[row][convention] for row in rows} for convention in ("shots", "paper")}


def by_rank(
    by_model: Mapping[str, Predictions],
    class_counts: np.ndarray,
    taxonomy: Taxonomy,
    *,
    answering: str | None = None,
    **bootstrap: Any,
) -> dict[str, Any]:
    """Accuracy by rank and severity of mistakes: `hierarchy.facts`, "heights" in words, and "rows", {row: summary}.

    by_model: {name: predictions}. answering: of them, the one whose least-risk answers get a row, too; None: none.
    bootstrap: see `intervals.accuracy`. A summary is that of `hierarchy.summary`.
    """

    def summary(labels: np.ndarray, predicted: np.ndarray) -> hierarchy.Summary:
        total = np.bincount(labels, minlength=len(class_counts))
        return hierarchy.summary(
            hierarchy.hits(labels, predicted, taxonomy), total, class_counts, taxonomy, **bootstrap
        )

    rows = {}
    for name, predictions in by_model.items():
        for row, head in rows_of(name, predictions).items():
            rows[row] = summary(predictions.labels, predictions.predicted[head])
        if name == answering:
            row, head = [*rows_of(name, predictions).items()][-1]
            rows[f"{row}, least risk"] = summary(predictions.labels, predictions.by_rank[head].least_risk)
    return hierarchy.facts(taxonomy) | {"heights": describe_heights(taxonomy.ranks), "rows": rows}


def answers_by_rank(
    predictions: Predictions,
    validation: Predictions | None,
    class_counts: np.ndarray,
    taxonomy: Taxonomy,
    *,
    target: float,
    most: int,
    resamples: int,
    seed: int,
    level: float,
) -> dict[str, Any]:
    """What the head that answers confuses at a rank, and its answers at the rank that is sure.

    {"nearer": {"DIST - CLS": `hierarchy.nearer`}, "head", "confused": {"rank", "pairs": `hierarchy.confused`},
    "rollup": `rollup.measured`}.
    predictions, validation: of one network on the test and the validation split. target: see `rollup.choose`.
    most: pairs that are listed. Others: see `intervals.accuracy`.
    """
    head = [*predictions.predicted][-1]  # the mean of CLS and DIST, or the only head
    rank = hierarchy.family_rank(taxonomy.ranks)
    pairs = hierarchy.confused(predictions.labels, predictions.predicted[head], taxonomy, rank, most=most)

    def judged(answers: Predictions) -> rollup.Judged:
        return rollup.judged(answers.by_rank[head], answers.labels, taxonomy)

    predicted = predictions.predicted
    nearer = {}
    if "dist" in predicted:
        nearer["DIST - CLS"] = hierarchy.nearer(
            predictions.labels,
            predicted["dist"],
            predicted["cls"],
            class_counts,
            taxonomy,
            resamples=resamples,
            seed=seed,
            level=level,
        )
    return {
        "nearer": nearer,
        "head": HEADS[head] if len(predictions.predicted) > 1 else "",
        "confused": {"rank": taxonomy.ranks[rank], "pairs": pairs},
        "rollup": rollup.measured(
            judged(predictions),
            taxonomy.ranks,
            class_counts,
            validation=None if validation is None else judged(validation),
            target=target,
        ),
    }


def by_class(predictions: Predictions, class_counts: np.ndarray, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """For each class, most frequent first: name, training and test images, accuracy (percent) of each head."""
    counted = {head: hits(predictions, head, len(class_counts)) for head in predictions.predicted}
    return [
        {"name": class_names[c], "train": int(class_counts[c]), "test": int(counted["cls"][1][c])}
        | {head: float(100 * right[c] / total[c]) if total[c] else None for head, (right, total) in counted.items()}
        for c in np.argsort(-np.asarray(class_counts), kind="stable")
    ]


def history(journal: Sequence[Mapping[str, Any]], *, reweight_epoch: int | None, unit: str = "epoch") -> dict[str, Any]:
    """Columns of metrics.jsonl: epoch, loss parts, agreement, cosine, accuracy by group and head (raw weights).

    journal: its lines. reweight_epoch: K, after which the loss is weighted by class; None: never.
    unit: what a line stands for, "epoch" or "round". Defaults to "epoch".
    """
    keys_of = {
        "loss": {"loss": "loss", "cls_loss": "CLS", "dist_loss": "DIST", "guidance": "guidance, before its weight"},
        "agreement": {"agreement": "agreement"},
        "cosine": {"cosine": "cosine"},
    }
    split = next((s for s in ("val", "test") if any(key.startswith(f"{s}/") for line in journal for key in line)), None)
    for group in metrics.COLUMNS:
        keys_of[f"accuracy, {group}"] = {f"{split}/raw/paper/{head}/{group}": name for head, name in HEADS.items()}
    curves = {}
    for part, names in keys_of.items():
        columns = {name: [line.get(key) for line in journal] for key, name in names.items()}
        columns = {name: values for name, values in columns.items() if any(v is not None for v in values)}
        if columns:
            curves[part] = columns
    return {
        "unit": unit,
        "epoch": [line["epoch"] + 1 for line in journal],
        "reweight_epoch": reweight_epoch,
        "split": split,
        "curves": curves,
    }


def inside(results: probes.Probes) -> dict[str, Any]:
    """Attention distance of each block and head [L][H], ranks by token [L], 1 - cosine of CLS and DIST."""
    names = ("CLS", "DIST")[: results.tokens.shape[2]]
    blocks = range(results.tokens.shape[1])
    ranks = {
        name: [probes.feature_rank(results.tokens[:, block, i], share=SHARE) for block in blocks]
        for i, name in enumerate(names)
    }
    diversity = float(probes.diversity(results.final).mean()) if len(names) == 2 else None
    return {"distance": results.distance.mean(0).tolist(), "rank": ranks, "diversity": diversity}


def confusions(predictions: Predictions, class_counts: np.ndarray, class_names: Sequence[str]) -> dict[str, Any] | None:
    """What each head answers to images of tail classes: by group, and class by class. None without such images."""
    groups = metrics.groups(class_counts, "paper")
    labels = predictions.labels
    ends = {head: destinations(labels, predicted, groups) for head, predicted in predictions.predicted.items()}
    if None in ends.values():
        return None
    into_head = np.isin(predictions.predicted["cls"], groups["head"])
    lost = per_class(labels, into_head, len(class_counts))
    worst = sorted(groups["tail"], key=lambda c: -lost[c])[: MOST["tail classes"]]
    classes = []
    for c in worst:
        taken_for = {
            head: [
                {"name": class_names[other], "train": int(class_counts[other]), "share": share}
                for other, share in mistaken_for(labels, predicted, c, most=MOST["taken for"])
            ]
            for head, predicted in predictions.predicted.items()
        }
        classes.append({"name": class_names[c], "train": int(class_counts[c]), "taken_for": taken_for})
    return {"ends": ends, "classes": classes, "tail_classes": len(groups["tail"])}


def calibration(by_model: Mapping[str, Predictions], class_counts: np.ndarray) -> dict[str, dict[str, dict | None]]:
    """{row: {overall, head, mid, tail: `predictions.reliability` or None}}."""
    groups = metrics.groups(class_counts, "paper")
    rows = {}
    for name, predictions in by_model.items():
        marks = {"overall": np.ones(len(predictions.labels), bool)}
        marks |= {group: np.isin(predictions.labels, members) for group, members in groups.items()}
        for row, head in rows_of(name, predictions).items():
            confidence, right = predictions.confidence[head], predictions.right(head)
            rows[row] = {group: reliability(confidence[m], right[m]) for group, m in marks.items()}
    return rows


def shifts(by_model: Mapping[str, Predictions], class_counts: np.ndarray) -> dict[str, dict[str, float]]:
    """{row: {"backward 50": percent, ..., "uniform": ..., "forward 50": ...}}, see `predictions.shifted`."""
    rows = {}
    for name, predictions in by_model.items():
        for row, head in rows_of(name, predictions).items():
            counted = (*hits(predictions, head, len(class_counts)), class_counts)
            rows[row] = {f"backward {r}": shifted(*counted, ratio=r, backward=True) for r in RATIOS}
            rows[row]["uniform"] = shifted(*counted, ratio=1)
            rows[row] |= {f"forward {r}": shifted(*counted, ratio=r) for r in reversed(RATIOS)}
    return rows


def duel(predictions: Predictions, class_counts: np.ndarray, *, most: int) -> dict[str, dict] | None:
    """Tail images that only DIST, or only CLS, classifies correctly: their number, and indices of at most `most`.

    The indices are those of the images with the highest confidence, of each class in turn. None without tail images.
    """
    members = metrics.groups(class_counts, "paper")["tail"]
    tail = np.isin(predictions.labels, members)
    cls, dist = predictions.right("cls"), predictions.right("dist")
    if not tail.any():
        return None
    won = {"DIST alone": tail & dist & ~cls, "CLS alone": tail & cls & ~dist}
    rest = {"both": tail & cls & dist, "neither": tail & ~cls & ~dist}
    winner = {"DIST alone": "dist", "CLS alone": "cls"}
    return {
        "images": {name: int(marks.sum()) for name, marks in (won | rest).items()},
        "shown": {
            name: spread(predictions.labels, marks, predictions.confidence[winner[name]], most=most)
            for name, marks in won.items()
        },
    }


def mixed(views: MixedViews, class_counts: np.ndarray) -> dict[str, Any]:
    """How often the teacher predicts the larger label of a view, the smaller or neither; and both sides by group.

    "labels": the share of each group in the labels of the views. "answers": its share in the teacher's answers.
    """
    larger = views.predicted == views.targets.argmax(-1)
    either = views.targets[np.arange(len(larger)), views.predicted] > 0
    return {
        "views": len(larger),
        "says": {
            "the stronger label": float(larger.mean()),
            "the weaker label": float((either & ~larger).mean()),
            "neither": float((~either).mean()),
        },
        "groups": {
            group: {
                "labels": float(views.targets[:, members].sum(-1).mean()),
                "answers": float(np.isin(views.predicted, members).mean()),
            }
            for group, members in metrics.groups(class_counts, "paper").items()
            if len(members)
        },
    }


def clients(results: Mapping[str, Any] | None, journal: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The clients of a federated run, by name: images, class shares, accuracy before and after personalisation.

    Also the mean and spread of every reading over clients, and the saved readings by round.
    results: what results.json holds, None where there is none. journal: lines of metrics.jsonl.
    None for a run of one owner.
    """
    federated = (results or {}).get("federated")
    if federated is None:
        return None
    saved, personal = federated["saved"], federated["personal"]
    before = personal.get("generic model", {}).get("clients", {})
    after = personal[saved["personal"]]["clients"]
    measured = [line for line in journal if f"personal/{saved['personal']}" in line]
    curves = {name: [line.get(f"{name}/{saved[name]}") for line in measured] for name in ("generic", "personal")}
    return {
        "method": federated["method"],
        "rounds": federated["rounds"],
        "saved": saved,
        "class_names": federated["class_names"],
        "clients": {
            name: client | {"before": before.get(name), "after": after.get(name)}
            for name, client in federated["clients"].items()
        },
        "personal": {
            reading: {"mean": row["mean"]["shots"]["overall"], "spread": row["spread"]["shots"]["overall"]}
            for reading, row in personal.items()
        },
        "curves": {
            "round": [line["step"] for line in measured],
            "accuracy": {name: values for name, values in curves.items() if any(v is not None for v in values)},
        },
    }


def compared(
    reference: Predictions,
    other: Predictions,
    class_counts: np.ndarray,
    *,
    nodes: np.ndarray | None = None,
    resamples: int,
    seed: int,
    level: float,
) -> dict[str, intervals.Bounds]:
    """{row: {convention: {group: {value, low, high}}}} of other - reference, points, in pairs on the same images.

    CLS is compared with CLS, DIST with DIST, mean with mean. The only head of a network is compared with each head of
    the other network. nodes: int [C], a row of `Taxonomy.ancestors`, to compare accuracies at that rank; None: of the
    classes. Other arguments: see `intervals.difference`.
    """
    heads = list(dict.fromkeys([*reference.predicted, *other.predicted]))
    labels, rows = reference.labels, {}
    for head in heads:
        chosen = (x.predicted[head if head in x.predicted else "cls"] for x in (other, reference))
        a, b = (x == labels if nodes is None else nodes[x] == nodes[labels] for x in chosen)
        gained, lost, total = (
            per_class(labels, marks, len(class_counts)) for marks in (a & ~b, b & ~a, np.ones(len(a), bool))
        )
        rows[HEADS[head] if len(heads) > 1 else "accuracy"] = intervals.difference(
            gained, lost, total, class_counts, resamples=resamples, seed=seed, level=level
        )
    return rows
