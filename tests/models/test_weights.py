"""State dicts with the official names: every variable is set once, or nothing is."""

import numpy as np
import pytest
import tensorflow as tf
from helpers.tiny_models import KINDS, tiny

from deitlt_tf.interop.torch_weights import to_torch
from deitlt_tf.models import weights
from deitlt_tf.models.weights import load_state


@pytest.mark.parametrize("kind", KINDS)
def test_load_state_restores_every_variable(kind):
    source, target = tiny(kind), tiny(kind)
    for v in source.variables:
        v.assign(tf.random.stateless_uniform(v.shape, (len(v.path), sum(map(ord, v.path)))))
    load_state(target, to_torch(source) | {"bn1.num_batches_tracked": np.array(3)})
    for a, b in zip(source.variables, target.variables, strict=True):
        np.testing.assert_array_equal(a, b)


def test_load_state_lists_what_is_missing_left_over_and_misshapen_and_assigns_nothing():
    model = tiny("deit")
    state = {name: value + 1 for name, value in to_torch(model).items()}
    del state["norm.weight"], state["blocks.1.attn.qkv.bias"]
    state |= {"head_distillation.bias": np.zeros(7), "pos_embed": np.zeros((1, 198, 8))}
    before = model.get_weights()
    with pytest.raises(ValueError, match="do not fit deit_nano") as error:
        load_state(model, state)
    assert "missing: blocks.1.attn.qkv.bias, norm.weight;" in str(error.value)
    assert "left over: head_distillation.bias;" in str(error.value)
    assert "shape: pos_embed (1, 198, 8), needs (1, 6, 8)" in str(error.value)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_names_are_the_official_ones():
    state = weights.state_dict(tiny("deit"))
    for name in ("cls_token", "pos_embed", "blocks.0.attn.qkv.weight", "blocks.1.norm2.bias", "head_dist.weight"):
        assert name in state
    statistics = {name for name in weights.state_dict(tiny("linear")) if name.startswith("bn1.")}
    assert statistics == {f"bn1.{part}" for part in ("weight", "bias", "running_mean", "running_var")}
