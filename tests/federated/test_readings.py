"""What one training offers: the readings of each method, and which one it saves."""

import numpy as np
import pytest
from helpers.federation import recipe_in

from deitlt_tf.federated import heads, readings

AUX, FIXED, LOCAL = (heads.new_head(4, 3, seed=seed) for seed in range(3))
METHODS = ["fedavg", "fedavg_rescaled", "fedavg_prior", "fedprox", "local", "central", "fedloge"]
PARTS = ["--nofederated_fixed_head", "--nofederated_local_head", "--nofederated_realign"]


def of(tmp_path, *flags):
    settings = recipe_in(tmp_path, *flags).federated
    fixed = FIXED if settings.has_fixed_head else None
    local = LOCAL if settings.has_local_heads else None
    counts = {"local_counts": np.array([3, 0, 1]), "global_counts": np.array([9, 5, 1])}
    generic = readings.generic(settings, aux=AUX, fixed=fixed)
    return generic, readings.personal(settings, aux=AUX, local=local, **counts), readings.saved(settings)


@pytest.mark.parametrize("flags", [*[(f"--federated_method={m}",) for m in METHODS], *[(p,) for p in PARTS], PARTS])
def test_what_is_saved_is_among_the_readings_and_absent_classes_are_masked(tmp_path, flags):
    generic, personal, (shared, own) = of(tmp_path, *flags)
    assert shared in generic if shared else not generic
    assert own in personal
    for head in personal.values():
        assert np.isneginf(head.bias[1]) and np.isfinite(head.bias[[0, 2]]).all()
    assert all(np.isfinite(head.bias).all() for head in generic.values())


def test_each_part_of_fedloge_can_be_left_out(tmp_path):
    generic, personal, saved = of(tmp_path)
    assert saved == ("GLA-FR", "GLA-FR")
    np.testing.assert_array_equal(generic["GLA-FR"].kernel, heads.rescaled(AUX, length=1.7).kernel)
    np.testing.assert_array_equal(personal["GLA-FR"].kernel, heads.realigned(LOCAL, AUX).kernel)
    generic, personal, saved = of(tmp_path, "--nofederated_realign")
    assert saved == ("SSE-C", "local + aux") and generic["SSE-C"] is FIXED
    generic, _, saved = of(tmp_path, "--nofederated_realign", "--nofederated_fixed_head")
    assert saved == ("aux", "local + aux") and "SSE-C" not in generic
    _, personal, saved = of(tmp_path, "--nofederated_local_head")
    assert saved == ("GLA-FR", "aux") and personal.keys() == {"aux", "prior"}
    generic, _, _ = of(tmp_path, "--federated_length=3")
    np.testing.assert_allclose(heads.lengths(generic["GLA-FR"]), 3, rtol=1e-5)


def test_fedavg_with_equal_lengths_has_the_mean_length(tmp_path):
    generic, personal, _ = of(tmp_path, "--federated_method=fedavg_rescaled")
    np.testing.assert_allclose(heads.lengths(generic["rescaled"]), heads.lengths(AUX).mean(), rtol=1e-5)
    np.testing.assert_array_equal(personal["rescaled"].kernel, generic["rescaled"].kernel)
