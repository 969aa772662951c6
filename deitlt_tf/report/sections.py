"""The numbers of each section of a report, from answers, probes and the journal: dicts and lists, ready for JSON."""

import numpy as np

from deitlt_tf.evaluation import intervals, metrics, predictions, probes

HEADS = {"cls": "CLS", "dist": "DIST", "mean": "mean"}
RATIOS = (50, 25, 10, 5, 2)
SHARE = 0.95  # of the variance, for ranks; the paper does not state its own
MOST = {"tail classes": 20, "taken for": 3}


def rows_of(name: str, given: predictions.Predictions) -> dict[str, str]:
    """{row of a table: head of the network}: "student CLS", ...; the name alone where there is one head."""
    return {f"{name} {HEADS[h]}": h for h in given.predicted} if len(given.predicted) > 1 else {name: "cls"}


def hits(given: predictions.Predictions, head: str, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """right, total: int [C]."""
    everything = np.ones(len(given.labels), bool)
    return tuple(predictions.per_class(given.labels, m, num_classes) for m in (given.right(head), everything))


def table(
    asked: dict[str, predictions.Predictions], class_counts: np.ndarray, *, resamples: int, seed: int, level: float
) -> dict:
    """{convention: {row: {overall, head, mid, tail: {value, low, high} or None}}}, percent."""
    found = {}
    for name, given in asked.items():
        for row, head in rows_of(name, given).items():
            right, total = hits(given, head, len(class_counts))
            found[row] = intervals.accuracy(right, total, class_counts, resamples=resamples, seed=seed, level=level)
    return {convention: {row: found[row][convention] for row in found} for convention in ("shots", "paper")}


def by_class(given: predictions.Predictions, class_counts: np.ndarray, class_names: tuple[str, ...]) -> list[dict]:
    """Of each class, most frequent first: name, training and test images, accuracy (percent) by head of the network."""
    right = {head: hits(given, head, len(class_counts)) for head in given.predicted}
    return [
        {"name": class_names[c], "train": int(class_counts[c]), "test": int(right["cls"][1][c])}
        | {head: float(100 * r[c] / n[c]) if n[c] else None for head, (r, n) in right.items()}
        for c in np.argsort(-np.asarray(class_counts), kind="stable")
    ]


def history(journal: list[dict], *, reweight_epoch: int | None) -> dict:
    """Columns of metrics.jsonl: epoch, loss parts, agreement, cosine, accuracy by group and head (raw weights)."""
    columns = {
        "loss": {"loss": "loss", "cls_loss": "CLS", "dist_loss": "DIST"},
        "agreement": {"agreement": "agreement"},
        "cosine": {"cosine": "cosine"},
    }
    split = next((s for s in ("val", "test") if any(key.startswith(f"{s}/") for line in journal for key in line)), None)
    for group in ("overall", *metrics.GROUPS):
        columns[f"accuracy, {group}"] = {f"{split}/raw/paper/{head}/{group}": name for head, name in HEADS.items()}
    found = {
        part: {name: [line.get(key) for line in journal] for key, name in names.items()}
        for part, names in columns.items()
    }
    known = {
        part: {name: values for name, values in named.items() if any(v is not None for v in values)}
        for part, named in found.items()
    }
    return {
        "epoch": [line["epoch"] + 1 for line in journal],
        "reweight_epoch": reweight_epoch,
        "split": split,
        "curves": {part: named for part, named in known.items() if named},
    }


def inside(found: probes.Probes) -> dict:
    """Attention distance of each block and head [L][H], ranks by token [L], 1 - cosine of CLS and DIST."""
    names = ("CLS", "DIST")[: found.tokens.shape[2]]
    ranks = {
        name: [probes.feature_rank(found.tokens[:, block, i], share=SHARE) for block in range(found.tokens.shape[1])]
        for i, name in enumerate(names)
    }
    apart = float(probes.diversity(found.final).mean()) if len(names) == 2 else None
    return {"distance": found.distance.mean(0).tolist(), "rank": ranks, "diversity": apart}


def confusions(given: predictions.Predictions, class_counts: np.ndarray, class_names: tuple[str, ...]) -> dict | None:
    """Where the images of the tail end, by head of the network: by group, and class by class. None without a tail."""
    groups = metrics.groups(class_counts, "paper")
    ends = {h: predictions.destinations(given.labels, p, groups) for h, p in given.predicted.items()}
    if None in ends.values():
        return None
    into_head = np.isin(given.predicted["cls"], groups["head"])
    lost = predictions.per_class(given.labels, into_head, len(class_counts))
    worst = sorted(groups["tail"], key=lambda c: -lost[c])[: MOST["tail classes"]]
    classes = []
    for c in worst:
        taken = {
            head: predictions.mistaken_for(given.labels, predicted, c, most=MOST["taken for"])
            for head, predicted in given.predicted.items()
        }
        named = {
            head: [{"name": class_names[to], "train": int(class_counts[to]), "share": share} for to, share in pairs]
            for head, pairs in taken.items()
        }
        classes.append({"name": class_names[c], "train": int(class_counts[c]), "taken_for": named})
    return {"ends": ends, "classes": classes, "tail_classes": len(groups["tail"])}


def calibration(asked: dict[str, predictions.Predictions], class_counts: np.ndarray) -> dict:
    """{row: {overall, head, mid, tail: `answers.reliability` or None}}."""
    groups = metrics.groups(class_counts, "paper")
    found = {}
    for name, given in asked.items():
        for row, head in rows_of(name, given).items():
            where = {"overall": np.ones(len(given.labels), bool)}
            where |= {group: np.isin(given.labels, members) for group, members in groups.items()}
            found[row] = {
                group: predictions.reliability(given.confidence[head][marks], given.right(head)[marks])
                for group, marks in where.items()
            }
    return found


def shifts(asked: dict[str, predictions.Predictions], class_counts: np.ndarray) -> dict[str, dict[str, float]]:
    """{row: {"backward 50": percent, ..., "uniform": ..., "forward 50": ...}}."""
    found = {}
    for name, given in asked.items():
        for row, head in rows_of(name, given).items():
            counted = (*hits(given, head, len(class_counts)), class_counts)
            found[row] = {f"backward {r}": predictions.shifted(*counted, ratio=r, backward=True) for r in RATIOS}
            found[row]["uniform"] = predictions.shifted(*counted, ratio=1)
            found[row] |= {f"forward {r}": predictions.shifted(*counted, ratio=r) for r in reversed(RATIOS)}
    return found


def duel(given: predictions.Predictions, class_counts: np.ndarray, *, most: int) -> dict | None:
    """Tail images that DIST alone, or CLS alone, gets right: how many, and the indices of those it is surest of."""
    members = metrics.groups(class_counts, "paper")["tail"]
    tail = np.isin(given.labels, members)
    cls, dist = given.right("cls"), given.right("dist")
    if not tail.any():
        return None
    won = {"DIST alone": tail & dist & ~cls, "CLS alone": tail & cls & ~dist}
    both = {"both": tail & cls & dist, "neither": tail & ~cls & ~dist}
    winner = {"DIST alone": "dist", "CLS alone": "cls"}
    return {
        "images": {name: int(marks.sum()) for name, marks in (won | both).items()},
        "shown": {
            name: predictions.spread(given.labels, marks, given.confidence[winner[name]], most=most)
            for name, marks in won.items()
        },
    }


def mixed(found: predictions.MixedViews, class_counts: np.ndarray) -> dict:
    """How often the teacher names a view's stronger label, its weaker, neither; the groups of labels and answers."""
    strong = found.predicted == found.targets.argmax(-1)
    there = found.targets[np.arange(len(strong)), found.predicted] > 0
    return {
        "views": len(strong),
        "says": {
            "the stronger label": float(strong.mean()),
            "the weaker label": float((there & ~strong).mean()),
            "neither": float((~there).mean()),
        },
        "groups": {
            group: {
                "labels": float(found.targets[:, members].sum(-1).mean()),
                "answers": float(np.isin(found.predicted, members).mean()),
            }
            for group, members in metrics.groups(class_counts, "paper").items()
        },
    }


def compared(
    reference: predictions.Predictions,
    other: predictions.Predictions,
    class_counts: np.ndarray,
    *,
    resamples: int,
    seed: int,
    level: float,
) -> dict[str, dict]:
    """{row: {convention: {group: {value, low, high}}}} of other - reference, points, on the same images in pairs.

    CLS with CLS, DIST with DIST, mean with mean; a network of one head meets each head of the other with its only one.
    """
    heads = list(dict.fromkeys([*reference.predicted, *other.predicted]))
    found = {}
    for head in heads:
        a, b = (x.right(head if head in x.predicted else "cls") for x in (other, reference))
        marks = (a & ~b, b & ~a, np.ones(len(a), bool))
        gained, lost, total = (predictions.per_class(reference.labels, m, len(class_counts)) for m in marks)
        found[HEADS[head] if len(heads) > 1 else "accuracy"] = intervals.difference(
            gained, lost, total, class_counts, resamples=resamples, seed=seed, level=level
        )
    return found
