"""All that `evaluate` prints about the models of a run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from deitlt_tf.data.dataset import Source, Splits
from deitlt_tf.data.taxonomy import Taxonomy
from deitlt_tf.devices.strategy import is_chief
from deitlt_tf.evaluation import hierarchy, intervals, metrics, rollup, tables, thresholds
from deitlt_tf.evaluation.predictions import Predictions, predict_split


@dataclass
class Tables:
    """The rows of the tables, {name of the row: numbers}.

    rows: by convention, see `tables.print_tables`. by_rank: `hierarchy.summary`; empty without a taxonomy.
    differences: `hierarchy.nearer` of DIST and CLS. rollups: `rollup.measured`, of the head that answers for the model.
    """

    rows: dict[str, dict[str, dict[str, float | None]]] = field(default_factory=dict)
    by_rank: dict[str, hierarchy.Summary] = field(default_factory=dict)
    differences: dict[str, dict[str, intervals.Bounds]] = field(default_factory=dict)
    rollups: dict[str, dict[str, Any]] = field(default_factory=dict)


def add_hits(
    printed: Tables,
    class_hits: Mapping[str, np.ndarray],
    title: str,
    class_counts: np.ndarray,
    taxonomy: Taxonomy | None,
) -> None:
    """Adds the rows of what `metrics.count` has counted, and those of each rank. Arguments: as of `add_model`."""
    printed.rows |= tables.rows_of(title, metrics.accuracies(class_hits, class_counts))
    by_rank = hierarchy.results({title: class_hits}, class_counts, taxonomy)
    printed.by_rank |= tables.by_rank_rows(by_rank, {title: title})


def add_model(
    printed: Tables,
    model: keras.Model,
    path: Path,
    title: str,
    splits: Splits,
    class_counts: np.ndarray,
    *,
    eval_resize: int,
    max_pixels: int,
    target: float,
    five_crops: int = 0,
) -> None:
    """Adds the rows of one model. With a taxonomy and a validation split, its thresholds are written.

    path: of its file, in the folder of the run. title: start of the names of its rows. class_counts: [C], training
    images of each class. eval_resize, max_pixels: see `metrics.count`. target: see `rollup.choose`.
    five_crops: see `metrics.count`; above 0, rows of "five crops" are added.
    """
    view = {"eval_resize": eval_resize, "max_pixels": max_pixels}
    taxonomy = splits.taxonomy
    counting: dict[str, Any] = {"num_classes": len(class_counts), "taxonomy": taxonomy} | view

    def add_counted(row: str, *, five_crops: int = 0) -> None:
        class_hits = metrics.count(model, splits.test, title=row, five_crops=five_crops, **counting)
        add_hits(printed, class_hits, row, class_counts, taxonomy)

    add_counted(title)
    if five_crops:
        add_counted("five crops", five_crops=five_crops)
    if taxonomy is None:
        return

    def answers(source: Source, split: str) -> Predictions:
        return predict_split(model, source, taxonomy=taxonomy, title=f"{title}, {split} by rank", **view)

    predictions = answers(splits.test, "test")
    labels, tested, predicted = predictions.labels, predictions.by_rank, predictions.predicted
    if "dist" in predicted:
        both = hierarchy.nearer(labels, predicted["dist"], predicted["cls"], class_counts, taxonomy)
        printed.differences[f"{title} DIST - CLS"] = both
    names = tables.names_of(title, predicted)
    head = [*names][-1]  # the mean of CLS and DIST, or the only head
    printed.by_rank[f"{names[head]}, least risk"] = least_risk(labels, tested[head], class_counts, taxonomy)
    validation = None
    if splits.val is not None:
        held_out = answers(splits.val, "validation")
        of_head = {name: rollup.judged(x, held_out.labels, taxonomy) for name, x in held_out.by_rank.items()}
        validation = of_head[head]
        if is_chief():
            chosen = {name: rollup.choose(x, target=target) for name, x in of_head.items()}
            thresholds.write(path.parent, path.stem, chosen, target=target, taxonomy=taxonomy)
    printed.rollups[names[head]] = rollup.measured(
        rollup.judged(tested[head], labels, taxonomy),
        taxonomy.ranks,
        class_counts,
        validation=validation,
        target=target,
    )


def least_risk(
    labels: np.ndarray, answers: rollup.ByRank, class_counts: np.ndarray, taxonomy: Taxonomy
) -> hierarchy.Summary:
    """`hierarchy.summary` of the least-risk answers. labels: int [N]. class_counts: [C], training images."""
    total = np.bincount(labels, minlength=len(class_counts))
    return hierarchy.summary(hierarchy.hits(labels, answers.least_risk, taxonomy), total, class_counts, taxonomy)
