"""Accuracy by group: integer hits of each class, summed over batches and replicas, divided once.

Head, mid and tail follow from the number of training images of each class.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike
from tqdm import tqdm

from deitlt_tf.data import pipeline
from deitlt_tf.data.dataset import Source
from deitlt_tf.data.taxonomy import Taxonomy
from deitlt_tf.devices.strategy import distributed, is_chief
from deitlt_tf.models.interface import heads

GROUPS = ("head", "mid", "tail")
CONVENTIONS = ("shots", "paper")  # of the tables; `groups` knows a third one, "share"
COLUMNS = ("overall", "balanced", *GROUPS)

# {convention: {head of the network: {each of COLUMNS: percent}}}; None for a group without test images.
Accuracies = dict[str, dict[str, dict[str, float | None]]]

# Sizes of head, mid and tail after sorting the classes by frequency, for the data sets that the paper reports, by C.
# Source: DeiT-LT, official engine.py:358-404.
PAPER_CUTS = {10: (3, 4, 3), 100: (36, 35, 29), 1000: (390, 445, 165), 8142: (842, 3701, 3599)}
CIFAR_LARGEST = {10: 5000, 100: 500}  # images of the most frequent class, by C
LISTS = {1000: (1280, 5, 115_846), 8142: (1000, 2, 437_513)}  # by C: largest and smallest class, images in all
SHARES = (75, 95)  # percent of all images, for "share". Source: FedLoGe, official util.py (shot_split)
LONG_TAILED = 2  # largest to smallest class, from which on we speak of a head and a tail


def groups(class_counts: ArrayLike, convention: str) -> dict[str, np.ndarray]:
    """Indices of the head, mid and tail classes.

    class_counts: [C], training images of each class.
    convention: "shots" divides by training images: many > 100, medium 20..100, few < 20. "paper" sorts the classes by
      frequency (stable). The data sets of the paper (see `paper_cuts`) are cut where DeiT-LT cuts them. Of all other
      data the 30 % most frequent classes are head, 40 % mid and the 30 % rarest ones tail. All three groups are empty
      where the classes are about equally frequent (see `is_long_tailed`), because there is no head and no tail then.
      "share" sorts in the same way: the most frequent classes are head, up to and with the class at which their images
      reach 75 % of all; the next ones are mid until 95 % are reached, the rest is tail. It is FedLoGe's.
    Raises ValueError for another convention.

    >>> {group: members.tolist() for group, members in groups([500, 8, 60, 3], "shots").items()}
    {'head': [0], 'mid': [2], 'tail': [1, 3]}
    >>> {group: members.tolist() for group, members in groups([500, 8, 60, 3], "paper").items()}
    {'head': [0], 'mid': [2, 1], 'tail': [3]}
    >>> {group: members.tolist() for group, members in groups([60, 8, 30, 2], "share").items()}
    {'head': [0, 2], 'mid': [1], 'tail': [3]}
    """
    counts = np.asarray(class_counts)
    if convention == "shots":
        return {
            "head": np.flatnonzero(counts > 100),
            "mid": np.flatnonzero((counts >= 20) & (counts <= 100)),
            "tail": np.flatnonzero(counts < 20),
        }
    if convention == "paper":
        if not is_long_tailed(counts):
            return {group: np.zeros(0, int) for group in GROUPS}
        ends = round(0.3 * len(counts))
        head, mid, _ = paper_cuts(counts) or (ends, len(counts) - 2 * ends, ends)
        order = np.argsort(-counts, kind="stable")
        return dict(zip(GROUPS, np.split(order, [head, head + mid]), strict=True))
    if convention == "share":
        order = np.argsort(-counts, kind="stable")
        before = 100 * (np.cumsum(counts[order]) - counts[order])  # of each class: the images of all before it
        borders = [int(np.sum(before < share * counts.sum())) for share in SHARES]
        return dict(zip(GROUPS, np.split(order, borders), strict=True))
    raise ValueError(f"group convention {convention!r} is unknown: choose shots, paper or share.")


def is_long_tailed(class_counts: ArrayLike) -> bool:
    """Whether the most frequent class has at least LONG_TAILED times the images of the rarest one."""
    counts = np.asarray(class_counts)
    return bool(counts.max() >= LONG_TAILED * counts.min())


def paper_cuts(class_counts: ArrayLike) -> tuple[int, int, int] | None:
    """Sizes of head, mid and tail in the paper, if these are the training counts of one of its data sets; else None.

    CIFAR-LT is recognised by its profile n_i = int(n_0 mu^(i / (C - 1))) with n_0 = 5000 or 500, for any mu.
    ImageNet-LT and iNaturalist 2018 are recognised by their largest class, their smallest class and their number of
    images, of which 1 % may be missing (unreadable files).
    class_counts: [C], in any order.

    >>> paper_cuts([int(5000 * 0.01 ** (i / 9)) for i in range(10)])
    (3, 4, 3)
    >>> paper_cuts(range(100, 110)) is None
    True
    """
    counts = np.sort(np.asarray(class_counts))[::-1]
    num_classes = len(counts)
    if num_classes in CIFAR_LARGEST:
        largest = CIFAR_LARGEST[num_classes]
        if counts[0] != largest:
            return None
        # n_i <= n_0 mu^(i / (C - 1)) < n_i + 1 bounds mu from both sides, for every class i.
        power = (num_classes - 1) / np.arange(1, num_classes)
        low, high = (counts[1:] / largest) ** power, ((counts[1:] + 1) / largest) ** power
        recognised = low.max() <= high.min() * (1 + 1e-9)
    elif num_classes in LISTS:
        largest, smallest, images = LISTS[num_classes]
        in_bounds = counts[0] <= largest and 0 <= counts[-1] <= smallest
        recognised = in_bounds and 0.99 * images <= counts.sum() <= images
    else:
        return None
    return PAPER_CUTS[num_classes] if recognised else None


def hits(
    outputs: tf.Tensor | Mapping[str, tf.Tensor],
    labels: tf.Tensor,
    mask: tf.Tensor,
    *,
    num_classes: int,
    ancestors: np.ndarray | None = None,
) -> dict[str, tf.Tensor]:
    """Correct predictions per class and head, and how many images each class had (`total`): int64 [C] each.

    outputs: logits [B, C], or {"cls", "dist"} of them. labels: int [B].
    mask: [B], 1 for an image, 0 for padding of the last batch.
    ancestors: int32 [R, C] of a `Taxonomy`. With it, the predictions of a head are int64 [R, C]: how many have the
      right node of each rank. Row 0 is what is counted without it.

    >>> logits = tf.constant([[2.0, 1.0], [0.5, 1.5], [3.0, 1.0]])
    >>> result = hits(logits, tf.constant([0, 1, 1]), tf.constant([1, 1, 0]), num_classes=2)
    >>> {name: counts.numpy().tolist() for name, counts in result.items()}
    {'cls': [1, 1], 'total': [1, 1]}
    """
    mask = tf.cast(mask, tf.int64)
    labels = tf.cast(labels, tf.int64)

    def count(marks):
        return tf.math.unsorted_segment_sum(marks, labels, num_classes)

    def right(logits):
        predicted = tf.argmax(logits, -1)
        if ancestors is None:
            return count(mask * tf.cast(predicted == labels, tf.int64))
        node_of = tf.constant(ancestors.T)  # [C, R]
        marks = tf.gather(node_of, predicted) == tf.gather(node_of, labels)  # [B, R]
        return tf.transpose(count(mask[:, None] * tf.cast(marks, tf.int64)))

    return {name: right(logits) for name, logits in heads(outputs).items()} | {"total": count(mask)}


@functools.lru_cache(maxsize=4)  # a run measures the same few models again and again; tracing takes seconds
def counting_step(
    model: keras.Model,
    num_classes: int,
    strategy: tf.distribute.Strategy,
    crops: int = 1,
    taxonomy: Taxonomy | None = None,
) -> Callable:
    """(images, labels, mask) of all replicas -> `hits` of `model`, summed over them. crops: see `count_hits`."""

    @tf.function(reduce_retracing=True)
    def step(batch):
        def one_replica(images, labels, mask):
            logits = logits_of(model, images, crops=crops)
            return hits(logits, labels, mask, num_classes=num_classes, ancestors=taxonomy and taxonomy.ancestors)

        partial = strategy.run(one_replica, args=batch)
        return {name: strategy.reduce(tf.distribute.ReduceOp.SUM, x, axis=None) for name, x in partial.items()}

    return step


def logits_of(model: keras.Model, images: tf.Tensor, *, crops: int) -> tf.Tensor | dict[str, tf.Tensor]:
    """The output of a network for images [B, S, S, 3]; for `crops` K above 1 their mean over crops [B, K, S, S, 3]."""
    if crops == 1:
        return model(images, training=False)
    logits = model(tf.reshape(images, (-1, *images.shape[2:])), training=False)
    return tf.nest.map_structure(lambda z: tf.reduce_mean(tf.reshape(z, (-1, crops, z.shape[-1])), 1), logits)


def count_hits(
    model: keras.Model,
    batches: tf.data.Dataset | tf.distribute.DistributedDataset,
    *,
    num_classes: int,
    taxonomy: Taxonomy | None = None,
    title: str | None = None,
    crops: int = 1,
) -> dict[str, np.ndarray]:
    """`hits` over a whole evaluation set: batches of (images, labels, mask). Every image counts exactly once.

    The replicas of the current strategy share the work.
    taxonomy: of the classes, for hits of each rank.
    batches: a tf.data.Dataset, or what `devices.strategy.distributed` makes of one; with several workers the latter.
    title: of a progress bar; None: no bar.
    crops: K above 1: images are [B, K, S, S, 3], and the logits of the K crops of an image are averaged. Defaults to 1.
    Raises ValueError for an empty set.
    """
    strategy = tf.distribute.get_strategy()
    step = counting_step(model, num_classes, strategy, crops, taxonomy)
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


def count(
    model: keras.Model,
    source: Source,
    *,
    eval_resize: int,
    max_pixels: int,
    num_classes: int,
    title: str,
    taxonomy: Taxonomy | None = None,
    five_crops: int = 0,
) -> dict[str, np.ndarray]:
    """`count_hits` of a network on one split, with a progress bar. The network's input sets the size of the view.

    eval_resize: short side before the centre crop, pixels; 0: no crop. max_pixels: largest image that is decoded.
    title: of the progress bar, which the chief worker shows. taxonomy: of the classes, for hits of each rank.
    five_crops: pixels by which the short side of an image is longer than its crops, `augment.five_crops`, over which
      logits are averaged; 0: the evaluation view alone. Defaults to 0.
    """
    size = model.input_shape[1]
    crops = 5 if five_crops else 1
    batch = evaluation_batch(size) // crops
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    batch = max(1, batch // replicas) * replicas
    view = {"size": size, "resize": size + five_crops if five_crops else eval_resize, "five_crops": five_crops > 0}
    view |= {"batch": batch, "max_pixels": max_pixels}
    batches = distributed(lambda **share: pipeline.evaluation_batches(source, **view, **share))
    counting: dict[str, Any] = {"num_classes": num_classes, "crops": crops, "taxonomy": taxonomy}
    return count_hits(model, batches, **counting, title=title if is_chief() else None)


def evaluation_batch(size: int) -> int:
    """Images in a batch of evaluation, for inputs of size x size pixels: 500 small ones or 100 large ones."""
    return 500 if size <= 64 else 100


def accuracies(
    class_hits: Mapping[str, np.ndarray], class_counts: ArrayLike, conventions: Sequence[str] = CONVENTIONS
) -> Accuracies:
    """{convention: {head of the network: {overall, balanced, head, mid, tail}}} in percent, from `count_hits`.

    overall = hits / images; balanced = mean of all classes' accuracies; a group = mean of its classes' accuracies.
    These means are over classes that have test images; None for a group without any.
    class_hits: {head of the network: int [C], or [R, C] with a taxonomy, "total": int [C]}.
    class_counts: [C], training images of each class.
    conventions: see `groups`. Defaults to those of the tables, shots and paper.

    >>> class_hits = {"cls": np.array([9, 4, 2]), "total": np.array([10, 10, 10])}
    >>> accuracies(class_hits, [500, 60, 8])["shots"]["cls"]
    {'overall': 50.0, 'balanced': 50.0, 'head': 90.0, 'mid': 40.0, 'tail': 20.0}
    """
    total = class_hits["total"]
    tested = total > 0

    def of_group(right: np.ndarray, members: np.ndarray) -> float | None:
        members = members[tested[members]]
        return float(100 * np.mean(right[members] / total[members])) if len(members) else None

    return {
        convention: {
            name: {
                "overall": float(100 * right.sum() / total.sum()),
                "balanced": of_group(right, np.arange(len(total))),
                **{group: of_group(right, members) for group, members in groups(class_counts, convention).items()},
            }
            for name, right in of_classes(class_hits).items()
        }
        for convention in conventions
    }


def of_classes(class_hits: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """{head of the network: hits of the classes themselves, [C]}: the finest rank of what `count_hits` has counted."""
    return {name: right if right.ndim == 1 else right[0] for name, right in class_hits.items() if name != "total"}


def flatten(table: Accuracies, *, prefix: str) -> dict[str, float]:
    """{"prefix/convention/head/group": percent} of `accuracies`, without the groups that have no test images.

    >>> flatten({"shots": {"cls": {"overall": 50.0, "head": 90.0, "mid": None}}}, prefix="test/raw")
    {'test/raw/shots/cls/overall': 50.0, 'test/raw/shots/cls/head': 90.0}
    """
    return {
        f"{prefix}/{convention}/{name}/{group}": value
        for convention, rows in table.items()
        for name, row in rows.items()
        for group, value in row.items()
        if value is not None
    }
