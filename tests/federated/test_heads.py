"""Heads: GLA-FR, priors and masks, against the official numbers and against their formulas."""

import numpy as np
import pytest
from helpers.golden import Golden
from hypothesis import given
from hypothesis import strategies as st

from deitlt_tf.evaluation import metrics
from deitlt_tf.federated import heads
from deitlt_tf.federated.heads import Head


@pytest.fixture(scope="module")
def official():
    return Golden("fedloge_realign")


def head_of(golden, name: str) -> Head:
    return Head(golden[f"{name}_weight"].T, golden[f"{name}_bias"])


def accuracy(features, labels, head):
    return np.mean(heads.logits(features, head).argmax(1) == labels)


def group_accuracies(features, labels, head, counts) -> list[float]:
    right, total = (
        np.bincount(x, minlength=5) for x in (labels[heads.logits(features, head).argmax(1) == labels], labels)
    )
    return [right[members].sum() / total[members].sum() for members in metrics.groups(counts, "share").values()]


def test_the_generic_head_is_realigned_as_officially(official):
    features, labels = official["features"], official["labels"]
    aux = head_of(official, "aux")
    ours = heads.rescaled(aux, length=official.config["global_norm"])
    np.testing.assert_allclose(ours.kernel, official["global_weight"].T, rtol=1e-5)
    np.testing.assert_allclose(heads.logits(features, ours), official["global_logits"], rtol=1e-4, atol=1e-5)
    for name, head in (("global", ours), ("unaligned", aux)):
        assert accuracy(features, labels, head) == pytest.approx(official[f"{name}_accuracy"])
        np.testing.assert_allclose(
            group_accuracies(features, labels, head, official["global_counts"]), official[f"{name}_groups"], rtol=1e-6
        )


def test_the_personal_head_is_realigned_as_officially(official):
    features, labels, own = official["features"], official["labels"], official["own_indices"]
    counts, aux, local = official["local_counts"], head_of(official, "aux"), head_of(official, "local")
    part = Head(aux.kernel * heads.lengths(local), aux.bias)
    np.testing.assert_allclose(part.kernel, official["personal_aux_weight"].T, rtol=1e-5)
    present = counts > 0
    for name, head in (("personal", heads.realigned(local, aux)), ("plain", heads.added(local, aux))):
        head = heads.masked(head, counts)
        ours = heads.logits(features, head)
        np.testing.assert_allclose(ours[:, present], official[f"{name}_logits"][:, present], rtol=1e-4, atol=1e-5)
        assert np.isneginf(ours[:, ~present]).all()
        predicted = ours[own].argmax(1)
        np.testing.assert_array_equal(predicted, official[f"{name}_predicted"])
        assert np.mean(predicted == labels[own]) == pytest.approx(official[f"{name}_accuracy"])


def test_absent_classes_are_masked_where_features_are_negative():
    head = Head(np.ones((2, 3), np.float32), np.zeros(3, np.float32))
    ours = heads.logits(np.array([[-5.0, -5.0], [1.0, 1.0]], np.float32), heads.masked(head, [4, 0, 1]))
    assert np.isneginf(ours[:, 1]).all() and np.isfinite(ours[:, [0, 2]]).all()


def test_one_length_keeps_directions_and_bias():
    head = heads.new_head(6, 4, seed=0)
    ours = heads.rescaled(head)
    np.testing.assert_allclose(heads.lengths(ours), heads.lengths(head).mean(), rtol=1e-5)
    np.testing.assert_array_equal(ours.bias, head.bias)
    empty = heads.rescaled(Head(np.zeros((6, 4), np.float32), head.bias), length=1.7)
    assert np.isfinite(empty.kernel).all()


def test_a_new_head_starts_as_torchs_linear_layer():
    head = heads.new_head(16, 500, seed=3)
    assert head.kernel.shape == (16, 500) and head.kernel.dtype == head.bias.dtype == np.float32
    assert 0.24 < np.abs(head.kernel).max() <= 0.25 and abs(head.kernel.mean()) < 0.01
    np.testing.assert_array_equal(head.kernel, heads.new_head(16, 500, seed=3).kernel)
    assert not np.array_equal(head.kernel, heads.new_head(16, 500, seed=4).kernel)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=2, max_size=6))
def test_the_prior_of_a_client_turns_shared_posteriors_into_its_own(counts):
    ours, others = np.array(counts).T
    ours = ours + (ours.sum() == 0)
    everyone = ours + others
    head = heads.with_prior(Head(np.zeros((1, len(ours)), np.float32), np.zeros(len(ours), np.float32)), ours, everyone)
    # A model whose posterior is the share of a class over all clients has the client's share after the correction.
    posterior = everyone / everyone.sum() * np.exp(head.bias)
    np.testing.assert_allclose(posterior, ours / ours.sum(), rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(np.isneginf(head.bias), ours == 0)
