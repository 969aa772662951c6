"""What review.csv lists: improbable labels, test images that are training images, confused and small classes."""

import csv
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deitlt_tf.evaluation import review

NAMES = ("cat", "dog", "owl")


@given(st.lists(st.integers(0, 4), min_size=1, max_size=80), st.integers(0, 3))
def test_every_fold_trains_on_every_class(labels, seed):
    labels = np.array(labels)
    fold = review.folds(labels, seed=seed)
    for number in range(review.FOLDS):
        assert {*labels[fold != number]} == {*labels}
    counts = np.bincount(labels)
    assert {*labels[fold == -1]} == {*np.flatnonzero(counts == 1)}
    for c in np.flatnonzero(counts > 1):
        sizes = np.bincount(fold[labels == c], minlength=review.FOLDS)
        assert sizes.max() - sizes.min() <= 1


def clusters(count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors around three directions, and their classes; class 2 is rare."""
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [count, count // 2, count // 6])
    x = np.eye(3)[labels] + random.normal(0, 0.1, (len(labels), 3))
    return x / np.linalg.norm(x, axis=1, keepdims=True), labels


def nearest_mean(x: np.ndarray, labels: np.ndarray):
    def fit(chosen):
        means = np.stack([x[chosen][labels[chosen] == c].mean(0) for c in range(3)])
        return lambda indices: 25 * x[indices] @ means.T

    return fit


def test_wrong_labels_are_found_by_classifiers_that_have_not_seen_them():
    x, true = clusters()
    labels = true.copy()
    labels[[3, 70, 95]] = [1, 2, 0]
    judged = review.out_of_fold(labels, fit=nearest_mean(x, labels), seed=0)
    assert sorted(judged.indices) == [*range(len(labels))]
    names = [f"{i}.jpg" for i in range(len(labels))]
    rows = review.mislabelled(judged, labels, names, NAMES)
    assert {row.path for row in rows} == {"3.jpg", "70.jpg", "95.jpg"}
    by_path = {row.path: (row.label, row.guess) for row in rows}
    assert by_path == {"3.jpg": ("dog", "cat"), "70.jpg": ("owl", "dog"), "95.jpg": ("cat", "owl")}
    assert all(row.split == "train" and 0.98 <= row.score <= 1 for row in rows)
    assert [row.score for row in rows] == sorted((row.score for row in rows), reverse=True)


def test_the_only_image_of_a_class_is_not_judged():
    x, labels = clusters()
    labels = np.append(labels[labels < 2], 2)
    x = x[: len(labels)]
    judged = review.out_of_fold(labels, fit=nearest_mean(x, labels), seed=0)
    assert len(labels) - 1 not in judged.indices and len(judged.indices) == len(labels) - 1


def test_confused_classes_are_pairs_of_shares():
    labels = np.repeat([0, 1, 2], [10, 10, 10])
    guess = labels.copy()
    guess[:4] = 1  # four of ten cats are dogs
    guess[10:12] = 0  # and two of ten dogs are cats
    guess[20] = 0  # one owl in ten: 5 %
    judged = review.Judged(np.arange(30), guess, np.ones(30))
    rows = review.confused(judged, labels, NAMES)
    assert [(row.label, row.guess, round(row.score, 3)) for row in rows] == [("cat", "dog", 0.3), ("owl", "cat", 0.05)]


def test_confused_classes_of_more_than_int32_holds_in_a_square():
    names = [f"c{c}" for c in range(50_000)]
    labels = np.repeat(np.int32([49_000, 3]), 20)
    judged = review.Judged(np.arange(40), np.where(labels == 3, 3, 48_999), np.ones(40))
    (row,) = review.confused(judged, labels, names)
    assert {row.label, row.guess} == {"c48999", "c49000"}
    assert row.score == 0.5


def test_small_classes_of_either_split():
    counts = {"train": np.array([50, 9, 10]), "test": np.array([2, 30, 0])}
    rows = review.too_small(counts, NAMES)
    assert [(r.split, r.label, r.score) for r in rows] == [("test", "owl", 0), ("test", "cat", 2), ("train", "dog", 9)]


def test_test_images_that_are_training_images(monkeypatch):
    monkeypatch.setattr(review, "BLOCK", 2)
    random = np.random.default_rng(0)
    train = random.normal(size=(7, 64))
    train /= np.linalg.norm(train, axis=1, keepdims=True)
    test = np.concatenate([train[[4]], train[[2]] + 0.03, random.normal(size=(1, 64))])
    test /= np.linalg.norm(test, axis=1, keepdims=True)
    index, cosine = review.nearest(test, train)
    assert index[:2].tolist() == [4, 2] and cosine[0] == pytest.approx(1)
    rows = review.duplicates(
        index,
        cosine,
        labels=(np.array([0, 1, 2, 0, 1, 2, 0]), np.array([1, 0, 2])),
        names=([f"train/{i}" for i in range(7)], ["x", "y", "z"]),
        class_names=NAMES,
    )
    assert [(row.path, row.label, row.guess, row.other_path) for row in rows] == [
        ("x", "dog", "dog", "train/4"),
        ("y", "cat", "owl", "train/2"),  # the same picture under two classes
    ]


def test_the_table_survives_names_with_commas_quotes_and_line_ends():
    rows = [review.Row("mislabelled", "train", 'a,"b"\n.jpg', "cät", "dog", 0.98765)]
    (line,) = csv.DictReader(io.StringIO(review.as_csv(rows)))
    assert line == {
        "kind": "mislabelled",
        "split": "train",
        "path": 'a,"b"\n.jpg',
        "label": "cät",
        "guess": "dog",
        "score": "0.9877",
        "other_path": "",
    }
