"""What networks answer to every test image, and what can be read off that: hits, confusions, calibration, shifts.

Kept are the class and the confidence of each image, not the logits: 24,426 images x 8,142 classes would be 800 MB.
"""

import itertools
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from deitlt_tf import mixing
from deitlt_tf.devices import replicas
from deitlt_tf.models import interface, resizing


@dataclass(frozen=True, eq=False)
class Predictions:
    """labels: int [N]. predicted, confidence: {cls, dist, mean: [N]} (cls alone where there is one head):
    the class of the largest logit and its softmax probability, in the order of the test images.
    """

    labels: np.ndarray
    predicted: dict[str, np.ndarray]
    confidence: dict[str, np.ndarray]

    def right(self, head: str) -> np.ndarray:
        """bool [N]: whether that head answers with the label."""
        return self.predicted[head] == self.labels


def predict(model: keras.Model, batches: tf.data.Dataset, *, title: str | None = None) -> Predictions:
    """The `Answers` of `model` to batches of (images, labels, mask), padding left out.

    title: of a progress bar; None: no bar. Raises ValueError for an empty set.
    """

    @tf.function(reduce_retracing=True)
    def step(images):
        heads = interface.heads(model(images, training=False))
        return {name: (tf.argmax(z, -1), tf.reduce_max(tf.nn.softmax(z), -1)) for name, z in heads.items()}

    shown = {"desc": title, "total": int(batches.cardinality()), "disable": None if title else True, "leave": False}
    labels, answers = [], []
    for images, truth, mask in tqdm(batches, **shown):
        real = mask.numpy() > 0
        labels.append(truth.numpy()[real])
        answers.append(tf.nest.map_structure(lambda x, real=real: x.numpy()[real], step(images)))
    if not labels:
        raise ValueError("the evaluation set is empty: there is nothing to report.")
    joined = tf.nest.map_structure(lambda *parts: np.concatenate(parts), *answers)
    return Predictions(
        np.concatenate(labels),
        {name: predicted for name, (predicted, _) in joined.items()},
        {name: confidence for name, (_, confidence) in joined.items()},
    )


@dataclass(frozen=True, eq=False)
class MixedViews:
    """A teacher's answers to V mixed training views. targets: [V, C] shares of the labels in each; predicted,
    confidence: [V] as in `Answers`; images: uint8 [n, S, S, 3] of the few views `kept`.
    """

    targets: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    images: np.ndarray
    kept: list[int]


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
    """The `Mixed` answers to batches of (images, labels) after `mixing.mix`, not smoothed, as the teacher gets them.

    A batch has one lambda: the first two views of each are kept, up to `pictures`. title: as in `ask`.
    """

    @tf.function(reduce_retracing=True)
    def step(images, labels, step_seed):
        images = tf.cast(images, tf.float32)
        options = mixing_options | {"num_classes": num_classes, "smoothing": 0.0}
        images, targets = mixing.mix(images, labels, step_seed, **options)
        logits = teacher(resizing.resize(images, teacher.input_shape[1]), training=False)
        answer = tf.nn.softmax(tf.cast(logits, tf.float32))
        return targets, tf.argmax(answer, -1), tf.reduce_max(answer, -1), images[:2]

    shown = {"desc": title, "total": int(stream.cardinality()), "disable": None if title else True, "leave": False}
    found, kept, count = [], [], 0
    for number, (images, labels) in enumerate(tqdm(stream, **shown)):
        found.append([x.numpy() for x in step(images, labels, replicas.step_seed(seed, number))])
        kept += [count, count + 1][: min(len(labels), pictures - len(kept))]
        count += len(labels)
    targets, predicted, confidence, views = (np.concatenate(parts) for parts in zip(*found, strict=True))
    views = views[: len(kept)].round().clip(0, 255).astype(np.uint8)
    return MixedViews(targets, predicted, confidence, views, kept)


def per_class(labels: np.ndarray, marks: np.ndarray, num_classes: int) -> np.ndarray:
    """int [C]: how many images of each class are marked. labels: [N]; marks: bool [N]."""
    return np.bincount(labels[marks], minlength=num_classes)


def destinations(
    labels: np.ndarray, predicted: np.ndarray, groups: dict[str, np.ndarray], *, source: str = "tail"
) -> dict[str, float] | None:
    """Where the images of the `source` classes end: shares of right, and of wrong answers by the group they fall in.

    {"right", "head", "mid", "tail"}, sum 1; None where there are no such images. groups: {group: class indices}.
    """
    ours = np.isin(labels, groups[source])
    if not ours.any():
        return None
    wrong = predicted[ours][predicted[ours] != labels[ours]]
    found = {group: float(np.isin(wrong, members).sum() / ours.sum()) for group, members in groups.items()}
    return {"right": float(1 - len(wrong) / ours.sum())} | found


def mistaken_for(labels: np.ndarray, predicted: np.ndarray, true_class: int, *, most: int) -> list[tuple[int, float]]:
    """The classes that images of `true_class` are most often taken for, each with the share of them; at most `most`."""
    answers = predicted[labels == true_class]
    classes, counts = np.unique(answers[answers != true_class], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    return [(int(classes[i]), float(counts[i] / len(answers))) for i in order]


def reliability(confidence: np.ndarray, right: np.ndarray, *, bins: int = 15) -> dict | None:
    """ECE = sum over bins of n_b / n |accuracy_b - confidence_b|, in equal bins of the confidence; and what it sums.

    {"ece", "confidence", "accuracy", "images"} over all, and "bins": a list of the same for each bin that has images.
    None without images. confidence: [N] in 0..1; right: bool [N].
    Source: Guo et al. 2017 (arXiv 1706.04599), equation 3.
    """
    if not len(right):
        return None

    def of(marks):
        mine, hit = float(confidence[marks].mean()), float(right[marks].mean())
        return {"confidence": mine, "accuracy": hit, "images": int(marks.sum())}

    place = np.minimum((confidence * bins).astype(int), bins - 1)
    filled = [of(place == b) for b in np.unique(place)]
    ece = sum(b["images"] * abs(b["accuracy"] - b["confidence"]) for b in filled) / len(right)
    return {"ece": ece} | of(np.ones(len(right), bool)) | {"bins": filled}


def shifted(
    right: np.ndarray, total: np.ndarray, class_counts: np.ndarray, *, ratio: float, backward: bool = False
) -> float:
    """Accuracy in percent if the test images were long-tailed: sum_c p_c right_c / total_c.

    p_c is proportional to ratio^(-r/(C-1)), r = rank of class c by training images (0 = most frequent); `backward`
    turns the ranks round, ratio 1 is uniform. Equals the expectation over test sets thinned out to that profile.
    Classes without test images are left out. right, total, class_counts: [C].
    Source: test sets of Hong et al. 2021 (LADE, arXiv 2012.00321), ratios 2 to 50.
    """
    rank = np.argsort(np.argsort(-np.asarray(class_counts), kind="stable"))
    last = max(len(total) - 1, 1)
    share = float(ratio) ** (-(last - rank if backward else rank) / last) * (total > 0)
    return float(100 * np.sum(share * right / np.maximum(total, 1)) / share.sum())


def spread(labels: np.ndarray, marks: np.ndarray, order: np.ndarray, *, most: int) -> list[int]:
    """Indices of at most `most` marked images: of every class in turn one, within a class by falling `order`."""
    marked = np.flatnonzero(marks)
    queues = [sorted(marked[labels[marked] == c], key=lambda i: -order[i]) for c in np.unique(labels[marked])]
    turns = itertools.chain.from_iterable(itertools.zip_longest(*queues))
    return [int(i) for i in turns if i is not None][:most]
