"""Intervals against test sets whose truth is known, against draws of real images, and at the size of iNaturalist."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deitlt_tf.evaluation import intervals, metrics

COUNTS = np.array([500, 300, 90, 30, 10])
FREQUENT = 1000  # training images of a class, where all classes are to be in one group ("head" of shots)


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
    values = intervals.scores(right, total, COUNTS)
    for convention in ("shots", "paper"):
        assert list(bounds[convention]) == list(metrics.COLUMNS)
        for column, value in expected[convention]["cls"].items():
            bound = bounds[convention][column]
            assert (bound is None) == (value is None) and values[convention][column] == (value and pytest.approx(value))
            if bound:
                assert bound["value"] == pytest.approx(value)
                assert 0 <= bound["low"] <= bound["high"] <= 100


# ---- how often an interval holds the truth


def one_group(bounds: intervals.Bounds) -> intervals.Bound:
    """The interval of the group that all FREQUENT classes are in."""
    bound = bounds["shots"]["head"]
    assert bound
    return bound


TRUTHS = {"middling": (2, 2), "high": (4, 1), "all or nothing": (0.5, 0.5), "low": (1, 8)}  # of a beta distribution


@pytest.mark.parametrize("images", [1, 2, 3, 5, 10, 50])
@pytest.mark.parametrize("classes", [3, 10, 30, 100])
def test_an_interval_covers_the_truth_about_as_often_as_it_says(classes, images):
    """Each class has a true accuracy, and its test images are drawn with it."""
    rng, total, counts = np.random.default_rng(classes + images), np.full(classes, images), np.full(classes, FREQUENT)
    covered = dict.fromkeys(TRUTHS, 0)
    for name, beta in TRUTHS.items():
        for seed in range(60):
            truth = rng.beta(*beta, classes)
            bound = one_group(intervals.accuracy(rng.binomial(total, truth), total, counts, resamples=200, seed=seed))
            covered[name] += bound["low"] - 1e-9 <= 100 * truth.mean() <= bound["high"] + 1e-9
    assert 0.9 <= sum(covered.values()) / 240 <= 1 and min(covered.values()) >= 0.85 * 60, covered


@pytest.mark.parametrize("images", [1, 2, 3, 10])
@pytest.mark.parametrize("classes", [10, 30, 100])
def test_equally_good_models_are_seldom_called_different(classes, images):
    """Two models with the same accuracy in each class, which are right on images of their own."""
    rng, total, counts = np.random.default_rng(classes + images), np.full(classes, images), np.full(classes, FREQUENT)
    different = 0
    for seed in range(240):
        accuracy = rng.beta(2, 2, classes)
        alone = accuracy * (1 - accuracy)  # P(only the first is right) = P(only the second is right)
        gained = rng.binomial(total, alone)
        lost = rng.binomial(total - gained, alone / (1 - alone))
        bound = one_group(intervals.difference(gained, lost, total, counts, resamples=200, seed=seed))
        different += bound["low"] > 0 or bound["high"] < 0
    assert 0.01 <= different / 240 <= 0.12


def test_models_that_differ_are_told_apart():
    total, counts = np.full(30, 3), np.full(30, FREQUENT)
    bound = one_group(intervals.difference(np.full(30, 1), np.zeros(30, int), total, counts))
    assert 0 < bound["low"] < bound["value"] == pytest.approx(100 / 3)


def test_one_class_with_one_test_image_has_a_width():
    for right in (0, 1):
        bound = intervals.accuracy(np.array([right]), np.array([1]), np.array([5]))["shots"]["tail"]
        assert bound["value"] == 100 * right and bound["high"] - bound["low"] > 50
    bound = intervals.difference(np.array([1]), np.array([0]), np.array([1]), np.array([5]))["shots"]["tail"]
    assert bound["low"] < 0 < bound["high"] == 100


def test_a_group_of_right_answers_only_has_a_width():
    bound = intervals.accuracy(np.full(5, 4), np.full(5, 4), COUNTS)["shots"]["overall"]
    assert bound["value"] == bound["high"] == 100 and 80 < bound["low"] < 99


# ---- what the draws are


def drawn_images(labels, marks, *, resamples, seed):
    """[resamples, C]: the sum of marks of each class, image by image, drawn again with replacement."""
    rng = np.random.default_rng(seed)
    sums = []
    for c in range(labels.max() + 1):
        mine = marks[labels == c]
        sums.append(mine[rng.integers(0, len(mine), (resamples, len(mine)))].sum(1))
    return np.stack(sums, 1)


def test_with_many_images_the_interval_is_that_of_drawing_images():
    total, counts = np.array([400, 900, 600]), np.full(3, FREQUENT)
    labels = np.repeat(np.arange(3), total)
    a, b = np.random.default_rng(0).random((2, len(labels))) < [[0.6], [0.5]]
    by_class = {name: np.bincount(labels[m], minlength=3) for name, m in (("a", a), ("g", a & ~b), ("l", b & ~a))}
    options = {"resamples": 5000, "seed": 1}
    for marks, bounds in (
        (a, intervals.accuracy(by_class["a"], total, counts, **options)),
        (a.astype(int) - b, intervals.difference(by_class["g"], by_class["l"], total, counts, **options)),
    ):
        really = 100 * (drawn_images(labels, marks, resamples=5000, seed=2) / total).mean(1)
        bound = one_group(bounds)
        assert bound["value"] == pytest.approx(really.mean(), abs=0.1)
        np.testing.assert_allclose([bound["low"], bound["high"]], np.quantile(really, [0.025, 0.975]), atol=0.15)


def test_pairs_are_narrower_than_two_sets_of_images():
    """What both models get right or wrong moves nothing."""
    total, none = np.full(5, 100), np.zeros(5, int)
    pair = intervals.difference(none + 5, none, total, COUNTS)["shots"]["overall"]
    single = intervals.accuracy(none + 50, total, COUNTS)["shots"]["overall"]
    assert pair["high"] - pair["low"] < 0.5 * (single["high"] - single["low"])


@pytest.mark.parametrize("images", [1, 2, 20])
def test_at_its_threshold_the_formula_agrees_with_the_draws(images, monkeypatch):
    classes = intervals.NORMAL
    rng, total, counts = np.random.default_rng(0), np.full(classes, images), np.full(classes, FREQUENT)
    gained = rng.binomial(total, 0.2)
    lost = rng.binomial(total - gained, 0.1)

    def both() -> list[float]:
        bounds = (intervals.accuracy(gained, total, counts), intervals.difference(gained, lost, total, counts))
        return [one_group(bound)[side] for bound in bounds for side in ("low", "high")]

    formula = both()
    monkeypatch.setattr(intervals, "NORMAL", classes + 1)
    draws = both()
    widths = np.diff(np.reshape(draws, (2, 2)), axis=1).repeat(2, axis=1).ravel()
    assert np.all(np.abs(np.subtract(formula, draws)) < 0.06 * widths)


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
    for column, bound in bounds.items():
        assert bound["value"] == pytest.approx(better[column]["value"] - worse[column]["value"])
        assert bound["low"] <= bound["value"] <= bound["high"]
    assert bounds["overall"]["low"] < bounds["overall"]["value"] < bounds["overall"]["high"]


LARGE = """
import re, time
import numpy as np
from deitlt_tf.evaluation import intervals
classes = 300_000
rng, total = np.random.default_rng(0), np.full(classes, 3)
counts = np.sort(rng.integers(1, 1000, classes))
def peak():  # MiB; not ru_maxrss, which starts at the size of the process that started this one
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
before, start = peak(), time.perf_counter()
intervals.accuracy(rng.binomial(total, 0.5), total, counts)
intervals.difference(rng.binomial(1, 0.3, classes), rng.binomial(1, 0.3, classes), total, counts)
from deitlt_tf.data.taxonomy import from_lineages
from deitlt_tf.evaluation import hierarchy
ranks = ("species", "genus", "family", "order", "class", "phylum", "kingdom")
parts = (1, 3, 20, 200, 2000, 20_000, 100_000)
taxonomy = from_lineages([[str(c // part) for part in parts] for c in range(classes)], ranks)
tree = peak()
labels, predicted = rng.integers(0, classes, (2, 900_000))
predicted = np.where(rng.random(900_000) < 0.5, labels, np.where(rng.random(900_000) < 0.5, labels // 3 * 3, predicted))
right, total = hierarchy.hits(labels, predicted, taxonomy), np.bincount(labels, minlength=classes)
hierarchy.summary(right, total, counts, taxonomy)
hierarchy.nearer(labels, predicted, rng.permutation(predicted), counts, taxonomy)
print(before, peak(), time.perf_counter() - start, tree)
"""


@pytest.mark.slow
def test_300_000_classes_take_little_memory_and_time():
    program = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, check=True)
    before, after, seconds, tree = map(float, program.stdout.split())
    print(f"{before:.0f} MiB before, {tree:.0f} with the taxonomy, {after:.0f} at most, {seconds:.0f} s")
    assert after < 1024 and seconds < 120, (before, tree, after, seconds)
