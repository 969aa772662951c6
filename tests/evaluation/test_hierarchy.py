"""Accuracy by rank and severity, against trees walked by hand; what rises with the rank; what a uniform answer gets."""

import numpy as np
import pytest
import tensorflow as tf
from helpers.strategies import strategy_of
from hypothesis import given, settings
from hypothesis import strategies as st

from deitlt_tf.data.taxonomy import from_lineages
from deitlt_tf.evaluation import hierarchy, intervals, metrics

RANKS = ("species", "genus", "family")
BIRDS = from_lineages(
    [("a", "A", "F"), ("b", "A", "F"), ("c", "B", "F"), ("d", "C", "G"), ("e", None, "G")], RANKS
)  # fmt: skip
COUNTS = np.array([500, 300, 90, 30, 10])
# Height of the answer (column) to an image of a class (row).
HEIGHTS = np.array([[0, 1, 2, 3, 3], [1, 0, 2, 3, 3], [2, 2, 0, 3, 3], [3, 3, 3, 0, 2], [3, 3, 3, 2, 0]])


@st.composite
def taxonomies(draw):
    rows = draw(
        st.lists(
            st.tuples(st.integers(0, 99), st.none() | st.sampled_from("AB"), st.sampled_from(["", "F", "G"])),
            min_size=2, max_size=8, unique=True,
        )
    )  # fmt: skip
    return from_lineages([(str(number), genus, family) for number, genus, family in rows], RANKS)


@given(taxonomies(), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=15)
def test_accuracy_never_falls_from_the_finest_rank_to_the_coarsest(taxonomy, seed):
    rng, classes = np.random.default_rng(seed), len(taxonomy.class_names)
    labels, predicted = rng.integers(0, classes, (2, 20))
    right = hierarchy.hits(labels, predicted, taxonomy)
    total = np.bincount(labels, minlength=classes)
    assert (np.diff(right, axis=0) >= 0).all() and (right <= total).all()
    counts = rng.integers(1, 300, classes)
    row = hierarchy.summary(right, total, counts, taxonomy, resamples=20)
    for convention, columns in row["accuracy"]["species"].items():
        for column in columns:
            by_rank = [row["accuracy"][rank][convention][column] for rank in RANKS]
            assert len({bound is None for bound in by_rank}) == 1
            if by_rank[0]:
                values = [bound["value"] for bound in by_rank]
                assert np.all(np.diff(values) >= -1e-9)
                # The mean height of all images is what the accuracies of all ranks leave.
                height = row["images"][convention][column]["value"]
                assert height == pytest.approx(len(RANKS) - sum(values) / 100)
                assert (row["mistakes"][convention][column] is None) == (values[0] == pytest.approx(100))


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30))
@settings(deadline=None, max_examples=15)
def test_heights_are_those_of_the_tree(pairs):
    labels, predicted = np.array(pairs).T
    right, total = hierarchy.hits(labels, predicted, BIRDS), np.bincount(labels, minlength=5)
    heights = HEIGHTS[labels, predicted]
    for height, row in enumerate(hierarchy.by_height(right, total), start=1):
        np.testing.assert_array_equal(row, np.bincount(labels[heights == height], minlength=5))
    row = hierarchy.summary(right, total, COUNTS, BIRDS, resamples=20)
    assert row["images"]["paper"]["overall"]["value"] == pytest.approx(heights.mean())
    for column, classes in (("overall", range(5)), ("head", (0, 1)), ("tail", (3, 4))):
        # In a group every class counts alike.
        weights = np.ones(len(labels)) if column == "overall" else 1 / total[labels]
        wrong = (heights > 0) & np.isin(labels, classes)
        bound, uniform = row["mistakes"]["paper"][column], row["uniform"]["paper"][column]
        if not wrong.any():
            assert bound is None and uniform is None
        else:
            assert bound["value"] == pytest.approx(np.average(heights[wrong], weights=weights[wrong]))
            expected = HEIGHTS.sum(1)[labels] / 4
            assert uniform == pytest.approx(np.average(expected[wrong], weights=weights[wrong]))
            rounding = 1e-9
            assert 1 - rounding <= bound["low"] <= bound["value"] + rounding
            assert bound["value"] - rounding <= bound["high"] <= 3 + rounding


def test_a_uniformly_wrong_answer_needs_no_matrix():
    np.testing.assert_allclose(hierarchy.uniform_heights(BIRDS), HEIGHTS.sum(1) / 4)
    assert np.isnan(hierarchy.uniform_heights(from_lineages([("a", "A", "F")], RANKS))).all()


def test_hits_of_ranks_are_summed_over_replicas():
    labels, predicted = np.random.default_rng(0).integers(0, 5, (2, 13))
    index = np.minimum(np.arange(16), 12)
    images = np.eye(5, dtype=np.float32)[predicted]
    mask = (np.arange(16) < 13).astype(np.float32)
    batches = tf.data.Dataset.from_tensor_slices((images[index], labels[index], mask)).batch(4)
    with strategy_of(2).scope():
        model = tf.keras.Sequential([tf.keras.Input([5]), tf.keras.layers.Activation("linear")])
        counted = metrics.count_hits(model, batches, num_classes=5, taxonomy=BIRDS)
    np.testing.assert_array_equal(counted["cls"], hierarchy.hits(labels, predicted, BIRDS))
    np.testing.assert_array_equal(counted["total"], np.bincount(labels, minlength=5))
    of_classes = {"cls": counted["cls"][0], "total": counted["total"]}
    assert metrics.accuracies(counted, COUNTS) == metrics.accuracies(of_classes, COUNTS)
    rows = hierarchy.summaries(counted, COUNTS, BIRDS, resamples=20)
    value = rows["cls"]["accuracy"]["species"]["paper"]["overall"]["value"]
    assert list(rows) == ["cls"] and value == metrics.accuracies(counted, COUNTS)["paper"]["cls"]["overall"]


def test_a_model_is_as_near_as_itself_and_nothing_is_said_where_nothing_is_wrong():
    rng, counts = np.random.default_rng(0), np.full(5, 1000)
    labels, predicted = rng.integers(0, 5, (2, 50))
    np.testing.assert_array_equal(hierarchy.heights(labels, predicted, BIRDS), HEIGHTS[labels, predicted])
    draws = {"resamples": 20, "seed": 0, "level": 0.95}
    same = hierarchy.nearer(labels, predicted, predicted, counts, BIRDS, **draws)
    assert same["mistakes"]["shots"]["overall"] == {"value": 0, "low": 0, "high": 0}
    right = hierarchy.nearer(labels, labels, predicted, counts, BIRDS, **draws)
    assert right["mistakes"]["shots"]["overall"] is None and right["images"]["shots"]["overall"]["value"] < 0


@pytest.mark.slow
def test_a_difference_of_heights_is_that_of_drawing_images():
    rng, counts = np.random.default_rng(0), np.full(5, 1000)  # all in one group
    labels = np.repeat(np.arange(5), (300, 200, 400, 100, 500))
    first = np.where(rng.random(1500) < 0.5, labels, rng.integers(0, 5, 1500))
    second = np.where(rng.random(1500) < 0.6, first, rng.integers(0, 5, 1500))
    bounds = hierarchy.nearer(labels, first, second, counts, BIRDS, resamples=2000, seed=1, level=0.95)
    a, b = hierarchy.heights(labels, first, BIRDS), hierarchy.heights(labels, second, BIRDS)
    drawn = []
    for _ in range(2000):
        chosen = np.concatenate([rng.choice(np.flatnonzero(labels == c), (labels == c).sum()) for c in range(5)])
        x, y = a[chosen], b[chosen]
        drawn.append((x.mean() - y.mean(), x.sum() / (x > 0).sum() - y.sum() / (y > 0).sum()))
    for column, name in enumerate(("images", "mistakes")):
        bound, values = bounds[name]["shots"]["overall"], np.array(drawn)[:, column]
        assert bound["value"] == pytest.approx(values.mean(), abs=0.01)
        width = np.subtract(*np.quantile(values, [0.975, 0.025]))
        assert bound["high"] - bound["low"] == pytest.approx(width, rel=0.1)


@pytest.mark.slow
def test_the_formula_for_many_classes_agrees_with_the_draws(monkeypatch):
    rng, classes = np.random.default_rng(0), 300
    taxonomy = from_lineages([(str(c), str(c // 3), str(c // 30)) for c in range(classes)], RANKS)
    labels, counts = np.repeat(np.arange(classes), 5), np.full(classes, 1000)
    near = labels // 3 * 3 + rng.integers(0, 3, len(labels))
    first = np.where(rng.random(len(labels)) < 0.5, near, rng.integers(0, classes, len(labels)))
    second = np.where(rng.random(len(labels)) < 0.5, first, near)

    def widths() -> list[float]:
        right, total = hierarchy.hits(labels, first, taxonomy), np.full(classes, 5)
        row = hierarchy.summary(right, total, counts, taxonomy)
        both = hierarchy.nearer(labels, first, second, counts, taxonomy)
        bounds = [table[name]["shots"]["head"] for table in (row, both) for name in ("mistakes", "images")]
        return [side for bound in bounds for side in (bound["low"], bound["high"])]

    draws = widths()
    monkeypatch.setattr(intervals, "NORMAL", 1)
    monkeypatch.setattr(intervals, "BLOCK", 7)
    formula = widths()
    reach = np.repeat(np.diff(np.reshape(draws, (4, 2)), axis=1), 2)
    assert np.all(np.abs(np.subtract(formula, draws)) < 0.08 * reach), (formula, draws)


def test_the_families_that_are_confused_most():
    labels = np.array([0, 0, 1, 2, 3, 3, 4, 4, 4])
    predicted = np.array([0, 3, 4, 3, 3, 0, 4, 3, 3])
    assert hierarchy.confused(labels, predicted, BIRDS, 2, most=5) == [
        {"of": "F", "taken_for": "G", "images": 3, "share": 0.75},
        {"of": "G", "taken_for": "F", "images": 1, "share": 0.2},
    ]
    first = {"of": "no genus (species e)", "taken_for": "C", "images": 2, "share": pytest.approx(2 / 3)}
    assert hierarchy.confused(labels, predicted, BIRDS, 1, most=1) == [first]
    assert hierarchy.family_rank(RANKS) == 2 and hierarchy.family_rank(("class", "group", "kind")) == 1


def test_what_a_file_says_about_the_taxonomy():
    assert hierarchy.facts(BIRDS) == {"ranks": [*RANKS], "names": {"species": 5, "genus": 3, "family": 2}}
