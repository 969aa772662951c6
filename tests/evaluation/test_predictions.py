"""What is read off predictions, against predictions written by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from deitlt_tf import mixing
from deitlt_tf.evaluation import predictions

LABELS = np.array([0, 0, 0, 1, 1, 2, 2, 2])
GROUPS = {"head": np.array([0]), "mid": np.array([1]), "tail": np.array([2])}


@pytest.fixture(autouse=True)
def eagerly():
    """Tracing takes longer than these few images."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def test_predictions_are_the_argmax_and_its_probability_without_padding():
    logits = tf.math.log([[[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]], [[0.2, 0.2, 0.6], [0.9, 0.05, 0.05]]])
    batches = tf.data.Dataset.from_tensor_slices((logits, [[0, 0], [2, 2]], [[1.0, 1.0], [1.0, 0.0]]))
    answers = predictions.predict(lambda x, training: {"cls": x, "dist": -x}, batches)
    assert answers.labels.tolist() == [0, 0, 2]
    assert answers.predicted["cls"].tolist() == [0, 1, 2] and answers.predicted["dist"].tolist() == [2, 0, 0]
    np.testing.assert_allclose(answers.confidence["cls"], [0.7, 0.6, 0.6], rtol=1e-6)
    np.testing.assert_allclose(answers.confidence["mean"], 1 / 3, rtol=1e-6)
    assert answers.right("cls").tolist() == [True, False, True]
    of_softmax = predictions.predict(lambda x, training: tf.nn.softmax(x), batches)
    np.testing.assert_allclose(of_softmax.confidence["cls"], answers.confidence["cls"], rtol=1e-6)
    with pytest.raises(ValueError, match="empty"):
        predictions.predict(lambda x, training: x, batches.take(0))


def test_the_teacher_is_asked_about_the_views_that_training_mixes():
    """A teacher whose logits are mean colours; class c is an image of colour c."""
    keras.utils.set_random_seed(0)
    images = keras.Input((4, 4, 3))
    teacher = keras.Model(images, keras.layers.GlobalAveragePooling2D()(images))
    labels = np.array([0, 1, 2, 0, 1, 2])
    pixels = np.broadcast_to(np.eye(3)[labels][:, None, None] * 255, (6, 8, 8, 3)).astype(np.uint8)
    stream = tf.data.Dataset.from_tensors((pixels, labels)).repeat(3)
    off = {"mixup_alpha": 0.0, "cutmix_alpha": 0.0}
    plain = predictions.predict_mixed(teacher, stream, num_classes=3, mixing_options=off, seed=0, pictures=5)
    assert plain.predicted.tolist() == 3 * labels.tolist() and plain.pictured == [0, 1, 6, 7, 12]
    np.testing.assert_array_equal(plain.images, pixels[[0, 1, 0, 1, 0]])
    np.testing.assert_array_equal(plain.targets, np.tile(np.eye(3)[labels], (3, 1)))

    mixed = predictions.predict_mixed(
        teacher, stream, num_classes=3, mixing_options={"cutmix_alpha": 0.0}, seed=0, pictures=4
    )
    # image i meets image 5 - i, so a view's shares are the two labels', and pixels are mixed as they are
    np.testing.assert_allclose(mixed.targets.sum(-1), 1, rtol=1e-6)
    np.testing.assert_allclose(mixed.images[:, 0, 0] / 255, mixed.targets[mixed.pictured], atol=0.003)
    assert (mixed.targets.max(-1) < 1).any() and len(np.unique(mixed.targets[::6, 0])) == 3
    np.testing.assert_array_equal(mixed.predicted, mixed.targets.argmax(-1))
    assert mixing.smooth_one_hot([0], num_classes=3, smoothing=0.0).numpy().tolist() == [[1, 0, 0]]


def test_where_the_tail_ends():
    predicted = np.array([0, 0, 0, 1, 1, 2, 0, 1])
    assert predictions.destinations(LABELS, predicted, GROUPS) == pytest.approx(
        {"right": 1 / 3, "head": 1 / 3, "mid": 1 / 3, "tail": 0}
    )
    assert predictions.destinations(LABELS[:5], predicted[:5], GROUPS) is None
    assert predictions.mistaken_for(LABELS, predicted, 2, most=1) == [(0, pytest.approx(1 / 3))]
    assert predictions.mistaken_for(LABELS, predicted, 1, most=3) == []
    assert predictions.per_class(LABELS, predicted == LABELS, 4).tolist() == [3, 2, 1, 0]


@given(st.integers(0, 999))
@settings(max_examples=30, deadline=None)
def test_ends_sum_to_one(seed):
    predicted = np.random.default_rng(seed).integers(0, 3, len(LABELS))
    assert sum(predictions.destinations(LABELS, predicted, GROUPS).values()) == pytest.approx(1)


def test_calibration_of_a_known_network():
    confidence = np.array([0.95] * 10 + [0.55] * 10)
    right = np.array([True] * 9 + [False] + [True] * 3 + [False] * 7)
    calibration = predictions.reliability(confidence, right)
    assert calibration["ece"] == pytest.approx((0.05 + 0.25) / 2)
    assert (calibration["confidence"], calibration["accuracy"], calibration["images"]) == (pytest.approx(0.75), 0.6, 20)
    assert [b["images"] for b in calibration["bins"]] == [10, 10] and calibration["bins"][0]["accuracy"] == 0.3
    assert predictions.reliability(np.ones(4), np.ones(4, bool))["ece"] == 0
    assert predictions.reliability(confidence[:0], right[:0]) is None


@given(st.integers(0, 999), st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_calibration_error_is_at_least_the_gap_of_the_means_and_equal_in_one_bin(seed, bins):
    rng = np.random.default_rng(seed)
    confidence, right = rng.random(50), rng.random(50) < 0.5
    calibration = predictions.reliability(confidence, right, bins=bins)
    gap = abs(calibration["confidence"] - calibration["accuracy"])
    assert gap - 1e-9 <= calibration["ece"] <= 1
    assert predictions.reliability(confidence, right, bins=1)["ece"] == pytest.approx(gap)


def test_a_shifted_test_set_weighs_the_classes():
    counts, right, total = np.array([10, 1000, 100]), np.array([0, 8, 4]), np.array([8, 8, 8])
    weights = np.array([1, 100, 10]) / 111  # of ratio 100: the order of training, whatever that of the labels
    assert predictions.shifted(right, total, counts, ratio=100) == pytest.approx(100 * weights @ [0, 1, 0.5])
    assert predictions.shifted(right, total, counts, ratio=100, backward=True) == pytest.approx(
        100 * np.array([100, 1, 10]) / 111 @ [0, 1, 0.5]
    )
    assert predictions.shifted(right, total, counts, ratio=1) == pytest.approx(50)
    assert predictions.shifted(right, np.array([8, 8, 0]), counts, ratio=1) == pytest.approx(50)


def test_a_shifted_test_set_is_the_expectation_of_a_thinned_one():
    rng = np.random.default_rng(0)
    hit = rng.random((3, 400)) < [[0.9], [0.5], [0.2]]
    sizes, means = (400, 40, 4), []
    for _ in range(1000):
        means.append(np.concatenate([rng.permutation(h)[:n] for h, n in zip(hit, sizes, strict=True)]).mean())
    expected = predictions.shifted(hit.sum(1), np.full(3, 400), np.array([900, 90, 9]), ratio=100)
    assert 100 * np.mean(means) == pytest.approx(expected, abs=0.3)


def test_spread_takes_every_class_in_turn_and_the_surest_first():
    marks = np.array([True, True, True, False, True, True, True, False])
    order = np.array([0.1, 0.9, 0.5, 1.0, 0.2, 0.3, 0.4, 1.0])
    assert predictions.spread(LABELS, marks, order, most=9) == [1, 4, 6, 2, 5, 0]
    assert predictions.spread(LABELS, marks, order, most=2) == [1, 4]
    assert predictions.spread(LABELS, ~marks & marks, order, most=2) == []
