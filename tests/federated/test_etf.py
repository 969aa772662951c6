"""SSE-C: zeros, lengths and angles of the official head, and its first steps."""

import numpy as np
import pytest
from helpers.golden import Golden

from deitlt_tf.federated import etf


@pytest.fixture(scope="module")
def official():
    return Golden("fedloge_etf")


def test_the_dense_frame_is_the_official_one(official):
    dense = etf.dense_etf(official["uniform"])
    np.testing.assert_allclose(dense, official["dense"], atol=1e-6)
    np.testing.assert_allclose(etf.angles(dense), np.degrees(np.arccos(-1 / 9)), atol=1e-4)


@pytest.mark.parametrize("steps", [1, 10, 100])
def test_adam_goes_the_official_way(official, steps):
    ours = etf.optimised(official["dense"].astype(np.float64), official["zero_indices"], norm=0.1, steps=steps)
    np.testing.assert_allclose(ours, official[f"step{steps}"], atol=1e-5)


def test_the_objective_is_the_official_one(official):
    for number, name in ((0, "start"), (1, "step100")):
        loss, _ = etf.loss_and_gradient(official[name].astype(np.float64), norm=0.1)
        assert loss == pytest.approx(official["losses"][number], rel=1e-5)


def test_the_gradient_is_that_of_the_objective():
    weight = np.random.default_rng(0).normal(size=(6, 4))
    _, gradient = etf.loss_and_gradient(weight, norm=0.1)
    for place in [(0, 0), (3, 1), (5, 3)]:
        change = np.zeros_like(weight)
        change[place] = 1e-6
        up, down = (etf.loss_and_gradient(weight + sign * change, norm=0.1)[0] for sign in (1, -1))
        assert gradient[place] == pytest.approx((up - down) / 2e-6, rel=1e-4)


@pytest.mark.slow
def test_the_whole_head_has_the_official_zeros_lengths_and_angles(official):
    ours = etf.optimised(official["dense"].astype(np.float64), official["zero_indices"], norm=0.1, steps=10_000)
    config = official.config
    assert np.sum(ours == 0) == config["zeros"] == 384
    assert not ours.ravel()[official["zero_indices"]].any()
    lengths, angles = np.linalg.norm(ours, axis=0), etf.angles(ours)
    assert lengths.mean() == pytest.approx(config["norm_mean"], abs=1e-4)
    assert angles.mean() == pytest.approx(config["angle_mean"], abs=0.02)
    assert angles.min() == pytest.approx(config["angle_min"], abs=0.1)


def test_sparsity_norm_and_seed_act():
    first = etf.sse_c(32, 4, seed=1, sparsity=0.5, steps=1)
    assert first.dtype == np.float32 and np.sum(first == 0) == 64
    assert not np.array_equal(first, etf.sse_c(32, 4, seed=2, sparsity=0.5, steps=1))
    head = etf.sse_c(32, 4, seed=1, sparsity=0.5, norm=0.3, steps=3000, learning_rate=1e-3)
    assert not head[first == 0].any()
    np.testing.assert_allclose(np.linalg.norm(head, axis=0), 0.3, atol=0.02)
    assert etf.angles(head).min() > 95


@pytest.mark.parametrize(("features", "classes"), [(4, 5), (4, 1)])
def test_a_head_that_cannot_be_equiangular_is_refused(features, classes):
    with pytest.raises(ValueError, match=f"{classes} classes does not fit {features} features"):
        etf.sse_c(features, classes)


def test_a_mask_that_leaves_nothing_of_a_class_is_refused():
    with pytest.raises(ValueError, match=r"sparsity=0.9 has a class without any entry"):
        etf.sse_c(4, 3, sparsity=0.9)
