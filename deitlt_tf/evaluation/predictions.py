"""Predictions of networks for every test image, and what follows from them: hits, confusions, calibration, shifts.

For each image we keep the predicted class and its confidence, because the logits of 24,426 images x 8,142 classes
would take 800 MB.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from deitlt_tf import mixing
from deitlt_tf.data import pipeline
from deitlt_tf.data.dataset import Source
from deitlt_tf.data.taxonomy import Taxonomy
from deitlt_tf.devices import replicas
from deitlt_tf.evaluation import rollup
from deitlt_tf.evaluation.metrics import evaluation_batch
from deitlt_tf.models import interface, resizing

MIXED_BATCH = 32  # views that share one lambda


@dataclass(frozen=True, eq=False)
class Predictions:
    """The answers of one network to N test images, in their order.

    labels: int [N].
    predicted, confidence: {head of the network: [N]}, the class of the largest logit and its softmax probability. The
      heads are cls, dist and mean, or cls alone.
    by_rank: {head: answers at every rank of the taxonomy}; empty without a taxonomy.
    """

    labels: np.ndarray
    predicted: dict[str, np.ndarray]
    confidence: dict[str, np.ndarray]
    by_rank: dict[str, rollup.ByRank] = field(default_factory=dict)

    def right(self, head: str) -> np.ndarray:
        """bool [N]: whether that head predicts the label."""
        return self.predicted[head] == self.labels


def predict(
    model: keras.Model, batches: tf.data.Dataset, *, taxonomy: Taxonomy | None = None, title: str | None = None
) -> Predictions:
    """The `Predictions` of `model` for batches of (images, labels, mask), without the padding.

    taxonomy: of the classes, for answers at every rank. title: of a progress bar; None: no bar.
    Raises ValueError for an empty set.
    """

    @tf.function(reduce_retracing=True)
    def step(images: tf.Tensor) -> dict[str, tuple]:
        heads = interface.heads(model(images, training=False))
        shares = {name: interface.shares(z) for name, z in heads.items()}
        best = {name: (tf.argmax(z, -1), tf.reduce_max(shares[name], -1)) for name, z in heads.items()}
        if taxonomy is None:
            return best
        return {name: (*best[name], *rollup.by_rank(p, taxonomy)) for name, p in shares.items()}

    labels, answers = [], []
    for images, batch_labels, mask in progress(batches, title):
        real = mask.numpy() > 0
        labels.append(batch_labels.numpy()[real])
        answers.append(tf.nest.map_structure(lambda x, real=real: x.numpy()[real], step(images)))
    if not labels:
        raise ValueError("the evaluation set is empty: there is nothing to report.")
    joined = tf.nest.map_structure(lambda *parts: np.concatenate(parts), *answers)
    return Predictions(
        np.concatenate(labels),
        {name: answer[0] for name, answer in joined.items()},
        {name: answer[1] for name, answer in joined.items()},
        {name: rollup.ByRank(*answer[2:]) for name, answer in joined.items()} if taxonomy else {},
    )


def predict_split(
    model: keras.Model,
    source: Source,
    *,
    eval_resize: int,
    max_pixels: int,
    taxonomy: Taxonomy | None = None,
    title: str | None = None,
) -> Predictions:
    """`predict` for a whole split, in the evaluation view of `model`.

    eval_resize: short side before the centre crop, pixels; 0: no crop. max_pixels: largest image that is decoded.
    """
    size = model.input_shape[1]
    batches = pipeline.evaluation_batches(
        source, size=size, resize=eval_resize, batch=evaluation_batch(size), max_pixels=max_pixels
    )
    return predict(model, batches, taxonomy=taxonomy, title=title)


def progress(batches: tf.data.Dataset, title: str | None) -> Iterable:
    """The batches, with a progress bar of this title that disappears at the end; None: without one."""
    return tqdm(batches, desc=title, total=int(batches.cardinality()), disable=None if title else True, leave=False)


@dataclass(frozen=True, eq=False)
class MixedViews:
    """The answers of a teacher to V mixed training views.

    targets: [V, C], the share of each label in a view.
    predicted, confidence: [V], as in `Predictions`.
    images: uint8 [n, S, S, 3], pixels of a few of the views. pictured: [n], which views these are.
    """

    targets: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    images: np.ndarray
    pictured: list[int]


def training_batches(
    source: Source, *, view: Callable, views: int, seed: int, max_pixels: int, sampling: str = "instance"
) -> tf.data.Dataset:
    """Batches of (images, labels) with about this many training views, as a run of this seed draws them.

    view, sampling, max_pixels: see `pipeline.train`.
    """
    steps = max(1, views // MIXED_BATCH)
    return pipeline.train(
        source,
        view=view,
        batch=MIXED_BATCH,
        steps=steps,
        steps_per_epoch=pipeline.steps_per_epoch(len(source), batch=MIXED_BATCH),
        seed=seed,
        sampling=sampling,
        max_pixels=max_pixels,
    )


def mixed_batches(
    stream: tf.data.Dataset, *, num_classes: int, mixing_options: dict, seed: int, title: str | None = None
) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
    """(pixels float32 [B, S, S, 3], targets [B, C]) of each batch of (images, labels) after `mixing.mix`.

    Labels are not smoothed. mixing_options: keywords of `mixing.mix`. seed: of the training run. title: of a progress
    bar; None: no bar.
    """

    @tf.function(reduce_retracing=True)
    def mix(images: tf.Tensor, labels: tf.Tensor, step_seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        options = mixing_options | {"num_classes": num_classes, "smoothing": 0.0}
        return mixing.mix(tf.cast(images, tf.float32), labels, step_seed, **options)

    for number, (images, labels) in enumerate(progress(stream, title)):
        yield mix(images, labels, replicas.step_seed(seed, number))


def predict_mixed(
    teacher: keras.Model,
    stream: tf.data.Dataset,
    *,
    num_classes: int,
    mixing_options: dict,
    seed: int,
    pictures: int,
    title: str | None = None,
) -> MixedViews:
    """The answers of a teacher to batches of (images, labels) after `mixing.mix`, without smoothing.

    mixing_options: keywords of `mixing.mix`. seed: of the training run.
    pictures: how many views to keep the pixels of: the first two of each batch, because a batch has one lambda.
    title: of a progress bar; None: no bar.
    """

    @tf.function(reduce_retracing=True)
    def step(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits = teacher(resizing.resize(images, teacher.input_shape[1]), training=False)
        probabilities = interface.shares(logits)
        return tf.argmax(probabilities, -1), tf.reduce_max(probabilities, -1)

    answers, count = [], 0
    pictured: list[int] = []
    batches = mixed_batches(stream, num_classes=num_classes, mixing_options=mixing_options, seed=seed, title=title)
    for images, targets in batches:
        answers.append([x.numpy() for x in (targets, *step(images), images[:2])])
        pictured += [count, count + 1][: min(len(targets), pictures - len(pictured))]
        count += len(targets)
    targets, predicted, confidence, views = (np.concatenate(parts) for parts in zip(*answers, strict=True))
    views = views[: len(pictured)].round().clip(0, 255).astype(np.uint8)
    return MixedViews(targets, predicted, confidence, views, pictured)


def per_class(labels: np.ndarray, marks: np.ndarray, num_classes: int) -> np.ndarray:
    """int [C]: how many images of each class are marked. labels: [N]; marks: bool [N]."""
    return np.bincount(labels[marks], minlength=num_classes)


def destinations(
    labels: np.ndarray, predicted: np.ndarray, groups: dict[str, np.ndarray], *, source: str = "tail"
) -> dict[str, float] | None:
    """How the images of the `source` classes are answered: the share of right answers, and of wrong ones by group.

    {"right", "head", "mid", "tail"}, sum 1; None where there are no such images.
    labels, predicted: int [N]. groups: {group: class indices}, see `metrics.groups`.
    """
    members_of_source = np.isin(labels, groups[source])
    images = members_of_source.sum()
    if not images:
        return None
    predicted, labels = predicted[members_of_source], labels[members_of_source]
    wrong = predicted[predicted != labels]
    shares = {group: float(np.isin(wrong, members).sum() / images) for group, members in groups.items()}
    return {"right": float(1 - len(wrong) / images)} | shares


def mistaken_for(labels: np.ndarray, predicted: np.ndarray, true_class: int, *, most: int) -> list[tuple[int, float]]:
    """The wrong classes that are predicted most often for images of `true_class`: (class, share of these images).

    labels, predicted: int [N]. most: how many classes to return at most.
    """
    answers = predicted[labels == true_class]
    classes, counts = np.unique(answers[answers != true_class], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    return [(int(classes[i]), float(counts[i] / len(answers))) for i in order]


def reliability(confidence: np.ndarray, right: np.ndarray, *, bins: int = 15) -> dict | None:
    """ECE = sum over bins of n_b / n |accuracy_b - confidence_b|, in bins of equal width; and the terms of this sum.

    {"ece", "confidence", "accuracy", "images"} over all images, and "bins": a list of {"confidence", "accuracy",
    "images"} for each bin that has images. None without images.
    confidence: [N] in 0..1. right: bool [N].
    Source: Guo et al. 2017 (arXiv 1706.04599), equation 3.
    """
    if not len(right):
        return None

    def means(marks: np.ndarray) -> dict:
        return {
            "confidence": float(confidence[marks].mean()),
            "accuracy": float(right[marks].mean()),
            "images": int(marks.sum()),
        }

    bin_of_image = np.minimum((confidence * bins).astype(int), bins - 1)
    filled = [means(bin_of_image == b) for b in np.unique(bin_of_image)]
    ece = sum(b["images"] * abs(b["accuracy"] - b["confidence"]) for b in filled) / len(right)
    return {"ece": ece} | means(np.ones(len(right), bool)) | {"bins": filled}


def shifted(
    right: np.ndarray, total: np.ndarray, class_counts: np.ndarray, *, ratio: float, backward: bool = False
) -> float:
    """Accuracy in percent if the test images were long-tailed: sum_c p_c right_c / total_c.

    p_c is proportional to ratio^(-r/(C-1)), where r is the rank of class c by training images (0 = most frequent). This
    is the expectation over test sets from which images are removed at random until they have that profile.
    right, total, class_counts: [C], hits, test images and training images. Classes without test images are left out.
    ratio: most frequent to rarest class of the test; 1: uniform. backward: reverses the ranks.
    Source: test sets of Hong et al. 2021 (LADE, arXiv 2012.00321), ratios 2 to 50.
    """
    rank = np.argsort(np.argsort(-np.asarray(class_counts), kind="stable"))
    last = max(len(total) - 1, 1)
    share = float(ratio) ** (-(last - rank if backward else rank) / last) * (total > 0)
    return float(100 * np.sum(share * right / np.maximum(total, 1)) / share.sum())


def spread(labels: np.ndarray, marks: np.ndarray, order: np.ndarray, *, most: int) -> list[int]:
    """Indices of at most `most` marked images: one of each class in turn, within a class by falling `order`.

    labels: int [N]. marks: bool [N]. order: [N].
    """
    marked = np.flatnonzero(marks)
    marked = marked[np.lexsort((-order[marked], labels[marked]))]  # class by class, within a class by falling `order`
    queues = np.split(marked, np.flatnonzero(np.diff(labels[marked])) + 1)
    turns = itertools.chain.from_iterable(itertools.zip_longest(*queues))
    return [int(i) for i in turns if i is not None][:most]
