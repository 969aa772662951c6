"""What the server holds: its arrays go out and come back, and its start depends on the recipe alone."""

import functools

import numpy as np
from helpers.federation import recipe_in, tiny_network

from deitlt_tf.federated import etf, shared


def test_arrays_come_back_and_only_what_is_averaged_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(etf, "sse_c", functools.partial(etf.sse_c, steps=3))
    network = tiny_network()
    ours = shared.start(recipe_in(tmp_path), network, num_classes=3)
    arrays = ours.arrays()
    again = shared.of_arrays(dict(reversed(arrays.items())))  # in any order
    assert [*again.arrays()] == [*arrays] and [*again.weights] == [*ours.weights]
    assert all(np.array_equal(a, arrays[name]) for name, a in again.arrays().items())
    assert {*arrays} - {*ours.averaged()} == {"fixed/kernel", "fixed/bias"}
    moved = ours.replaced({name: array + 1 for name, array in ours.averaged().items()})
    np.testing.assert_array_equal(moved.fixed.kernel, ours.fixed.kernel)
    np.testing.assert_array_equal(moved.aux.bias, ours.aux.bias + 1)
    np.testing.assert_array_equal(next(iter(moved.weights.values())), network.features.get_weights()[0] + 1)

    same, other = (shared.start(recipe_in(tmp_path, f"--seed={seed}"), network, num_classes=3) for seed in (0, 1))
    np.testing.assert_array_equal(same.fixed.kernel, ours.fixed.kernel)
    np.testing.assert_array_equal(same.aux.kernel, ours.aux.kernel)
    assert not np.array_equal(other.fixed.kernel, ours.fixed.kernel)
    plain = shared.start(recipe_in(tmp_path, "--federated_method=fedavg"), network, num_classes=3)
    assert plain.fixed is None and plain.arrays().keys() == plain.averaged().keys()
