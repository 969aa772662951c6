"""Which images and classes a person should look at, judged from features of a frozen network: the rows of review.csv.

mislabelled   training images whose label a classifier that has not seen them finds improbable
duplicate     test images that are, or nearly are, training images
confused      two classes that are taken for each other
too_small     classes with too few images to judge
"""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from deitlt_tf.data import decode

FOLDS = 5
# Probability of the label, at most. Of 12,406 images with 5 % wrong labels, 88 % of those listed were wrong ones, and
# 83 % of the wrong ones were listed (benchmarks/label_noise.py).
IMPROBABLE = 0.02
# Cosine of centred features, at least. On CIFAR-10 nearly all pairs above it show one photograph, half of those at 0.8.
SAME = 0.85
CONFUSED = 0.05  # share of the images of two classes that are taken for the other one, at least
SMALL = 10  # images; a class with fewer is too small to judge
MOST_CLASSES = 100  # pairs of confused classes that are listed
PAIRS = 3e9  # test images x training images that are compared; more would take longer than all else together
BLOCK = 1024  # images that are compared or judged at once


class Row(NamedTuple):
    """A line of review.csv.

    kind: see the top of this file. split, path: of the image; empty for rows on classes.
    label: class of the image. guess: what it seems to be. score: see the function that makes the row.
    other_path: the training image that a duplicate equals.
    """

    kind: str
    split: str = ""
    path: str = ""
    label: str = ""
    guess: str = ""
    score: float = 0.0
    other_path: str = ""


@dataclass(frozen=True, eq=False)
class Judged:
    """What classifiers that have not seen an image say of it.

    indices: int [M], the images that were judged. guess: int [M], the most probable class.
    label_probability: float [M], the probability of the label.
    """

    indices: np.ndarray
    guess: np.ndarray
    label_probability: np.ndarray


def folds(labels: np.ndarray, *, seed: int) -> np.ndarray:
    """The fold of each image, int [N]: 0 .. FOLDS - 1, each class spread evenly; -1 for the only image of a class.

    Such an image stays with the training images of every fold, because its class would have none without it.
    """
    random = np.random.default_rng(seed)
    places = np.empty(len(labels), int)
    order = np.lexsort([random.random(len(labels)), labels])
    _, first, counts = np.unique(labels[order], return_index=True, return_counts=True)
    for start, count in zip(first, counts, strict=True):
        places[order[start : start + count]] = np.arange(count) % FOLDS if count > 1 else -1
    return places


def out_of_fold(
    labels: np.ndarray,
    *,
    fit: Callable[[np.ndarray], Callable[[np.ndarray], np.ndarray]],
    seed: int,
    title: str | None = None,
) -> Judged:
    """Every image judged by a classifier of the other folds.

    fit: (indices to train on) -> a classifier, (indices to judge) -> logits [n, C], with the training images' class
      shares as the prior. title: of a progress bar; None: no bar.
    """
    fold = folds(labels, seed=seed)
    parts = [(np.zeros(0, int), np.zeros(0, int), np.zeros(0))]
    for number in tqdm(range(FOLDS), unit="fold", leave=False, **decode.bar_of(title)):
        judged = np.flatnonzero(fold == number)
        if len(judged):
            classifier = fit(np.flatnonzero(fold != number))
            parts += [
                _judge(classifier(block), labels, block) for block in np.split(judged, range(BLOCK, len(judged), BLOCK))
            ]
    return Judged(*map(np.concatenate, zip(*parts, strict=True)))


def _judge(values: np.ndarray, labels: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices, most probable classes, probabilities of the labels. values: logits [n, C] of the images at `indices`."""
    powers = np.exp(values - values.max(-1, keepdims=True))
    return indices, values.argmax(-1), powers[np.arange(len(indices)), labels[indices]] / powers.sum(-1)


def mislabelled(judged: Judged, labels: np.ndarray, names: Sequence[str], class_names: Sequence[str]) -> list[Row]:
    """Training images with an improbable label, most improbable first. score: 1 - probability of the label."""
    doubtful = (judged.guess != labels[judged.indices]) & (judged.label_probability <= IMPROBABLE)
    order = np.flatnonzero(doubtful)[np.argsort(judged.label_probability[doubtful], kind="stable")]
    return [
        Row(
            "mislabelled",
            "train",
            names[judged.indices[i]],
            class_names[labels[judged.indices[i]]],
            class_names[judged.guess[i]],
            1 - float(judged.label_probability[i]),
        )
        for i in order
    ]


def confused(judged: Judged, labels: np.ndarray, class_names: Sequence[str]) -> list[Row]:
    """Pairs of classes, most confused first. score: the mean share of one class's images that is taken for the other.

    label: the class whose images are mistaken more often.
    """
    own, count = labels[judged.indices].astype(np.int64), len(class_names)  # int32 holds 46,340 classes squared
    totals = np.bincount(own, minlength=count)
    pairs, numbers = np.unique(own * count + judged.guess, return_counts=True)
    shares = {divmod(int(pair), count): n / totals[pair // count] for pair, n in zip(pairs, numbers, strict=True)}
    rows = []
    for (a, b), share in shares.items():
        back = shares.get((b, a), 0.0)
        if a != b and (share > back or (share == back and a < b)) and (share + back) / 2 >= CONFUSED:
            rows.append(Row("confused", "train", "", class_names[a], class_names[b], (share + back) / 2))
    return sorted(rows, key=lambda row: -row.score)[:MOST_CLASSES]


def too_small(counts: dict[str, np.ndarray], class_names: Sequence[str]) -> list[Row]:
    """Classes of fewer than SMALL images, smallest first. counts: {split: int [C]}. score: the number of images.

    With so few training images nothing that is said about the class means much; with so few test images, its accuracy.
    """
    rows = [
        Row("too_small", split, "", class_names[int(c)], "", float(numbers[c]))
        for split, numbers in counts.items()
        for c in np.flatnonzero(numbers < SMALL)
    ]
    return sorted(rows, key=lambda row: row.score)


def nearest(test: np.ndarray, train: np.ndarray, *, title: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The training image nearest to each test image, int [T], and the cosine of the two, float [T].

    test, train: unit vectors [T, D] and [N, D]. title: of a progress bar; None: no bar.
    """
    index, cosine = np.empty(len(test), int), np.empty(len(test), np.float32)
    starts = range(0, len(test), BLOCK)
    for start in tqdm(starts, leave=False, **decode.bar_of(title)):
        block = test[start : start + BLOCK] @ train.T
        index[start : start + BLOCK] = block.argmax(-1)
        cosine[start : start + BLOCK] = block.max(-1)
    return index, cosine


def duplicates(
    index: np.ndarray,
    cosine: np.ndarray,
    *,
    labels: tuple[np.ndarray, np.ndarray],
    names: tuple[Sequence[str], Sequence[str]],
    class_names: Sequence[str],
) -> list[Row]:
    """Test images that nearly equal a training image, nearest first. score: the cosine; 1 for equal images.

    index, cosine: of `nearest`. labels, names: of the training images, of the test images. guess: the class of the
    training image.
    """
    (train_labels, test_labels), (train_names, test_names) = labels, names
    order = np.argsort(-cosine, kind="stable")
    return [
        Row(
            "duplicate",
            "test",
            test_names[i],
            class_names[test_labels[i]],
            class_names[train_labels[index[i]]],
            min(1.0, float(cosine[i])),
            train_names[index[i]],
        )
        for i in order[: int((cosine >= SAME).sum())]
    ]


def as_csv(rows: Sequence[Row]) -> str:
    """The text of review.csv: a header, then a line for each row."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Row._fields)
    writer.writerows([f"{x:.4f}" if isinstance(x, float) else x for x in row] for row in rows)
    return text.getvalue()
