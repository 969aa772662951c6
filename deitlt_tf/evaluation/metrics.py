"""7 NUMBERS. Integer hits per class, summed over batches and replicas, divided once; head / mid / tail from counts."""

import functools

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from deitlt_tf.data import pipeline
from deitlt_tf.data.dataset import Source
from deitlt_tf.devices.strategy import distributed, is_chief
from deitlt_tf.models.interface import heads

GROUPS = ("head", "mid", "tail")

# Sizes of head, mid and tail after sorting the classes by frequency, for the data sets that the paper reports, by C.
# Source: DeiT-LT, official engine.py:358-404.
PAPER_CUTS = {10: (3, 4, 3), 100: (36, 35, 29), 1000: (390, 445, 165), 8142: (842, 3701, 3599)}


def groups(class_counts, convention: str) -> dict[str, np.ndarray]:
    """Indices of the head, mid and tail classes.

    `shots`: many > 100, medium 20..100, few < 20 training images.
    `paper`: fixed numbers of classes sorted by frequency (stable), as DeiT-LT reports them; for a number of classes
    that the paper has not, 30 % head, 40 % mid, 30 % tail.
    """
    counts = np.asarray(class_counts)
    if convention == "shots":
        return {
            "head": np.flatnonzero(counts > 100),
            "mid": np.flatnonzero((counts >= 20) & (counts <= 100)),
            "tail": np.flatnonzero(counts < 20),
        }
    if convention == "paper":
        ends = round(0.3 * len(counts))
        head, mid, _ = PAPER_CUTS.get(len(counts), (ends, len(counts) - 2 * ends, ends))
        order = np.argsort(-counts, kind="stable")
        return dict(zip(GROUPS, np.split(order, [head, head + mid]), strict=True))
    raise ValueError(f"group convention {convention!r} is unknown: choose shots or paper.")


def hits(outputs, labels: tf.Tensor, mask: tf.Tensor, *, num_classes: int) -> dict[str, tf.Tensor]:
    """Correct predictions per class and head, and how many images each class had (`total`): int64 [C] each.

    mask: 1 for an image, 0 for padding of the last batch.
    """
    mask = tf.cast(mask, tf.int64)
    labels = tf.cast(labels, tf.int64)

    def count(marks):
        return tf.math.unsorted_segment_sum(marks, labels, num_classes)

    right = {name: tf.argmax(logits, -1) == labels for name, logits in heads(outputs).items()}
    return {name: count(mask * tf.cast(marks, tf.int64)) for name, marks in right.items()} | {"total": count(mask)}


@functools.lru_cache(maxsize=4)  # a run measures the same few models again and again; tracing takes seconds
def counting_step(model: keras.Model, num_classes: int, strategy: tf.distribute.Strategy):
    """(images, labels, mask) of all replicas -> `hits` of `model`, summed over them."""

    @tf.function(reduce_retracing=True)
    def step(batch):
        def one_replica(images, labels, mask):
            return hits(model(images, training=False), labels, mask, num_classes=num_classes)

        partial = strategy.run(one_replica, args=batch)
        return {name: strategy.reduce(tf.distribute.ReduceOp.SUM, x, axis=None) for name, x in partial.items()}

    return step


def count_hits(model: keras.Model, batches, *, num_classes: int, title: str | None = None) -> dict[str, np.ndarray]:
    """`hits` over a whole evaluation set: batches of (images, labels, mask). Every image counts exactly once.

    Runs on the current strategy's replicas. batches: a tf.data.Dataset, or what `devices.distributed` makes of one,
    which it has to be where there are several workers. title: of a progress bar; None: no bar.
    """
    strategy = tf.distribute.get_strategy()
    step = counting_step(model, num_classes, strategy)
    totals: dict[str, np.ndarray] = {}
    if isinstance(batches, tf.data.Dataset):
        total, batches = int(batches.cardinality()), strategy.experimental_distribute_dataset(batches)
    else:
        total = int(batches.cardinality) // len(strategy.extended.worker_devices)
    for batch in tqdm(batches, desc=title, total=total, disable=None if title else True, leave=False):
        for name, value in step(batch).items():
            totals[name] = totals.get(name, 0) + value.numpy()
    if not totals:
        raise ValueError("the evaluation set is empty: there is nothing to measure.")
    return totals


def measure(
    model: keras.Model, source: Source, *, eval_resize: int, max_pixels: int, class_counts: np.ndarray, title: str
) -> dict[str, dict[str, dict[str, float | None]]]:
    """`accuracies` of a network on one split, with a progress bar. The view's size is that of the network's input."""
    size = model.input_shape[1]
    batch = evaluation_batch(size)
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    batch = max(1, batch // replicas) * replicas
    view = {"size": size, "resize": eval_resize, "batch": batch, "max_pixels": max_pixels}
    batches = distributed(lambda **share: pipeline.evaluation_batches(source, **view, **share))
    counted = count_hits(model, batches, num_classes=len(class_counts), title=title if is_chief() else None)
    return accuracies(counted, class_counts)


def evaluation_batch(size: int) -> int:
    """Images of a batch in evaluation: more of them where they are small."""
    return 500 if size <= 64 else 100


def accuracies(counted: dict[str, np.ndarray], class_counts) -> dict[str, dict[str, dict[str, float | None]]]:
    """{convention: {head of the network: {overall, head, mid, tail}}} in percent, from `count_hits`.

    overall = hits / images; a group = mean of its classes' accuracies, over classes that have test images;
    None for a group without any.
    """
    total = counted["total"]
    seen = total > 0

    def of_group(right, members):
        members = members[seen[members]]
        return float(100 * np.mean(right[members] / total[members])) if len(members) else None

    return {
        convention: {
            name: {"overall": float(100 * right.sum() / total.sum())}
            | {group: of_group(right, members) for group, members in groups(class_counts, convention).items()}
            for name, right in counted.items()
            if name != "total"
        }
        for convention in ("shots", "paper")
    }


def flatten(measured: dict, *, prefix: str) -> dict[str, float]:
    """{"prefix/convention/head/group": percent} of `accuracies`, groups without test images left out."""
    return {
        f"{prefix}/{convention}/{name}/{group}": value
        for convention, rows in measured.items()
        for name, row in rows.items()
        for group, value in row.items()
        if value is not None
    }
