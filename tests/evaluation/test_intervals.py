"""The bootstrap against one that really draws images, and against what is known of binomials."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deitlt_tf.evaluation import intervals, metrics

COUNTS = np.array([500, 300, 90, 30, 10])


@st.composite
def hit_counts(draw):
    total = np.array(draw(st.lists(st.integers(0, 30), min_size=5, max_size=5).filter(any)))
    return np.array([draw(st.integers(0, int(n))) for n in total]), total


@given(hit_counts())
@settings(max_examples=20, deadline=None)
def test_values_are_those_of_metrics_and_lie_in_bounds(counted):
    right, total = counted
    bounds = intervals.accuracy(right, total, COUNTS, resamples=50)
    expected = metrics.accuracies({"cls": right, "total": total}, COUNTS)
    for convention in ("shots", "paper"):
        for group, value in expected[convention]["cls"].items():
            bound = bounds[convention][group]
            assert (bound is None) == (value is None)
            if bound:
                assert bound["value"] == pytest.approx(value)
                assert 0 <= bound["low"] <= bound["high"] <= 100


def drawn_images(labels, marks, *, resamples, seed):
    """[resamples, C]: the sum of marks of each class, image by image, drawn again with replacement."""
    rng = np.random.default_rng(seed)
    sums = []
    for c in range(labels.max() + 1):
        mine = marks[labels == c]
        sums.append(mine[rng.integers(0, len(mine), (resamples, len(mine)))].sum(1))
    return np.stack(sums, 1)


def test_counting_draws_is_drawing_images():
    labels = np.repeat(np.arange(3), (40, 10, 3))
    a, b = np.random.default_rng(0).random((2, len(labels))) < [[0.6], [0.5]]
    total = np.bincount(labels)
    counted = intervals.resample_hits(np.bincount(labels[a], minlength=3), total, resamples=5000, seed=1)
    really = drawn_images(labels, a, resamples=5000, seed=2)
    np.testing.assert_allclose(counted.mean(0), really.mean(0), atol=0.2)
    np.testing.assert_allclose(counted.std(0), really.std(0), atol=0.1)

    gained, lost = (np.bincount(labels[m], minlength=3) for m in (a & ~b, b & ~a))
    counted = intervals.resample_gains(gained, lost, total, resamples=5000, seed=1)
    really = drawn_images(labels, a.astype(int) - b, resamples=5000, seed=2)
    np.testing.assert_allclose(counted.mean(0), really.mean(0), atol=0.2)
    np.testing.assert_allclose(counted.std(0), really.std(0), atol=0.1)
    # Pairs: what both get right or wrong moves nothing, so the spread is less than that of two sets of images.
    apart = intervals.resample_hits(np.bincount(labels[a], minlength=3), total, resamples=5000, seed=3)
    apart = apart - intervals.resample_hits(np.bincount(labels[b], minlength=3), total, resamples=5000, seed=4)
    assert counted[:, 0].std() < apart[:, 0].std()


def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    rng, total, truth = np.random.default_rng(0), np.array([100, 100]), np.array([0.7, 0.4])
    covered = 0
    for seed in range(100):
        bounds = intervals.accuracy(rng.binomial(total, truth), total, np.array([9, 3]), resamples=200, seed=seed)
        covered += bounds["shots"]["overall"]["low"] <= 55 <= bounds["shots"]["overall"]["high"]
    assert 88 <= covered <= 99


def test_intervals_repeat_with_their_seed_and_narrow_with_images():
    right, total = np.array([30, 20, 10, 4, 1]), np.full(5, 40)
    first = intervals.accuracy(right, total, COUNTS, seed=3)
    assert first == intervals.accuracy(right, total, COUNTS, seed=3)
    assert first != intervals.accuracy(right, total, COUNTS, seed=4)

    def width(k):
        bound = intervals.accuracy(right * k, total * k, COUNTS)["paper"]["overall"]
        return bound["high"] - bound["low"]

    assert width(1) / width(100) == pytest.approx(10, rel=0.2)


def test_a_run_against_itself_differs_by_nothing_and_a_gain_is_the_difference_of_the_accuracies():
    total, none = np.full(5, 40), np.zeros(5, int)
    for bound in intervals.difference(none, none, total, COUNTS)["paper"].values():
        assert bound == {"value": 0, "low": 0, "high": 0}
    a, b = np.array([30, 20, 10, 4, 1]), np.array([20, 25, 10, 0, 0])
    gained, lost = np.maximum(a - b, 0), np.maximum(b - a, 0)
    bounds = intervals.difference(gained, lost, total, COUNTS)["paper"]
    better, worse = (intervals.accuracy(x, total, COUNTS)["paper"] for x in (a, b))
    for group, bound in bounds.items():
        assert bound["value"] == pytest.approx(better[group]["value"] - worse[group]["value"])
        assert bound["low"] <= bound["value"] <= bound["high"]
    assert bounds["overall"]["low"] < bounds["overall"]["value"] < bounds["overall"]["high"]
