"""Answers with the taxonomy: least risk against all answers tried, roll-up by hand, thresholds and coverage."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from deitlt_tf.data.taxonomy import from_lineages
from deitlt_tf.evaluation import rollup

RANKS = ("species", "genus", "family")
BIRDS = from_lineages(
    [("a", "A", "F"), ("b", "A", "F"), ("c", "B", "F"), ("d", "C", "G"), ("e", None, "G")], RANKS
)  # fmt: skip


def distances() -> np.ndarray:
    """[C, C]: height of each answer to each class."""
    return (BIRDS.ancestors[:, :, None] != BIRDS.ancestors[:, None]).sum(0)


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=30)
def test_the_least_risk_answer_has_the_smallest_expected_height(seed):
    p = np.random.default_rng(seed).dirichlet(np.full(5, 0.7), 6).astype(np.float32)
    answers = rollup.by_rank(tf.constant(p), BIRDS)
    risk = p @ distances()
    np.testing.assert_allclose(risk[np.arange(6), answers.least_risk.numpy()], risk.min(1), atol=1e-5)


def test_nodes_have_the_sum_of_their_classes():
    p = np.float32([[0.3, 0.25, 0.05, 0.4, 0.0], [0.1, 0.1, 0.1, 0.1, 0.6]])
    by_rank = rollup.node_probabilities(tf.constant(p), BIRDS)
    np.testing.assert_allclose(by_rank[1], [[0.55, 0.05, 0.4, 0], [0.2, 0.1, 0.1, 0.6]], atol=1e-6)
    np.testing.assert_allclose(by_rank[2], [[0.6, 0.4], [0.3, 0.7]], atol=1e-6)
    answers = rollup.by_rank(tf.constant(p), BIRDS)
    assert answers.node.numpy().tolist() == [[3, 0, 0], [4, 3, 1]]
    assert answers.least_risk.numpy().tolist() == [
        0,
        4,
    ]  # d is the likeliest class of the first image, but all else is F
    ranks = [rollup.sure(answers.confidence, t).tolist() for t in (0.35, 0.5, 0.58, 0.65, 0.9)]
    assert ranks == [[0, 0], [1, 0], [2, 0], [3, 2], [3, 3]]


def judged(seed: int = 0, images: int = 400) -> rollup.Judged:
    """Answers of a model that is right about as often as its probabilities say."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(5, 0.6), images).astype(np.float32)
    labels = np.array([rng.choice(5, p=row / row.sum()) for row in p.astype(np.float64)])
    answers = rollup.by_rank(tf.constant(p), BIRDS)
    return rollup.judged(rollup.ByRank(*(x.numpy() for x in answers)), labels, BIRDS)


def test_a_higher_threshold_is_right_more_often_and_answers_less():
    answers = judged()
    rows = rollup.curve(answers, RANKS)
    assert [row["threshold"] for row in rows] == [*rollup.SHOWN]
    for row in rows:
        assert list(row["coverage"]) == [*RANKS, "nothing"] and sum(row["coverage"].values()) == pytest.approx(1)
    species = [row["coverage"]["species"] for row in rows]
    nothing = [row["coverage"]["nothing"] for row in rows]
    assert species == sorted(species, reverse=True) and nothing == sorted(nothing) and species[0] > species[-1]
    accuracy = [row["accuracy"] for row in rows]
    assert accuracy[0] < 0.75 and accuracy[-1] > 0.97


def test_accuracy_is_that_of_the_answered_rank():
    answers = rollup.Judged(
        np.array([[0.9, 1], [0.4, 0.9], [0.4, 0.9], [0.1, 0.2]]),
        np.array([[False, True], [False, True], [False, False], [True, True]]),
        np.array([0, 0, 1, 1]),
        2,
    )
    (row,) = rollup.curve(answers, ("s", "g"), [0.5])
    assert row == {
        "threshold": 0.5, "coverage": {"s": 0.25, "g": 0.5, "nothing": 0.25}, "accuracy": pytest.approx(1 / 3),
    }  # fmt: skip
    assert rollup.curve(answers, ("s", "g"), [1.1])[0]["accuracy"] is None
    columns = rollup.by_column(answers, ("s", "g"), [100, 5], 0.5)
    assert columns["head"]["accuracy"] == 0.5 and columns["tail"]["accuracy"] == 0 and columns["mid"] is None
    assert columns["tail"]["coverage"] == {"s": 0, "g": 0.5, "nothing": 0.5}


def test_the_threshold_is_the_lowest_that_is_right_often_enough_with_all_classes_alike():
    answers = judged(1, 3000)
    for target in (0.7, 0.9):
        chosen = rollup.choose(answers, target=target)
        accuracy = [answers.at(t, answers.balanced())[1] for t in (chosen, chosen - 0.01)]
        assert accuracy[0] >= target > accuracy[1] and judged(2, 3000).at(chosen, np.ones(3000))[1] > target - 0.04
    # The rare class is always wrong: it counts as much as the other.
    rare = rollup.Judged(
        np.full((10, 1), 0.99), np.array([[True]] * 9 + [[False]]), np.array([0] * 9 + [1]), 2
    )  # fmt: skip
    assert rollup.choose(rare, target=0.8) is None and rollup.choose(rare, target=0.5) == 0.01


def test_answers_of_a_file_are_compared_with_its_own_probabilities():
    p = np.random.default_rng(0).dirichlet(np.ones(5), 50).astype(np.float32)
    outputs = {name: x.numpy() for name, x in rollup.outputs(tf.constant(p), BIRDS, 0.6).items()}
    answers, rank = rollup.by_rank(tf.constant(p), BIRDS), outputs["sure_rank"]
    assert rank.tolist() == rollup.sure(answers.confidence, 0.6).tolist() and set(rank) == {0, 1, 2, 3}
    best = answers.confidence.numpy()[np.arange(50), np.minimum(rank, 2)]
    assert outputs["sure_probability"].tolist() == best.tolist() and (outputs["sure_node"][rank == 3] == -1).all()
    assert rollup.disagreeing(p, outputs, BIRDS, 0.6, tie=1e-6) == 0
    for name, at in (("least_risk", slice(None)), ("sure_node", rank < 3), ("sure_rank", rank < 3)):
        changed = {key: value.copy() for key, value in outputs.items()}
        changed[name][at] = (changed[name][at] + 1) % {"least_risk": 5, "sure_node": 2, "sure_rank": 4}[name]
        assert rollup.disagreeing(p, changed, BIRDS, 0.6, tie=1e-6) > 0, name
