"""Adapters: their published numbers of weights, no effect at the start, and what they compute afterwards."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deitlt_tf import models
from deitlt_tf.models import adapters, weights

# Keras' own way of reading a variable for a file, under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

SMALL = {"drop_path": 0, "num_classes": 5, "image_size": 8, "patch_size": 4, "embed_dim": 8, "depth": 2, "num_heads": 2}


@pytest.mark.parametrize(
    ("num_classes", "rank", "millions"),
    [(10, 1, 0.05), (100, 4, 0.10), (365, 8, 0.18), (1000, 32, 0.62), (8142, 256, 4.75)],
)
def test_adapters_of_vit_base_have_as_many_weights_as_published(num_classes, rank, millions):
    """LIFT, learned parameters: 0.10 M (CIFAR-100), 0.18 M (Places), 0.62 M (ImageNet), 4.75 M (iNaturalist); ViT-B."""
    assert adapters.rank_by_rule(num_classes, depth=12) == rank
    with keras.StatelessScope(initialize_variables=False):
        layer = adapters.AdaptFormer(rank)
        layer.build((None, 197, 768))
        count = 12 * layer.count_params()
    assert count == 12 * (768 * (2 * rank + 3) + rank + 1)
    assert round(count / 1e6, 2) == millions


@pytest.mark.slow
@pytest.mark.parametrize("adapted", [{"adapter": 2}, {"lora": 2}])
def test_an_adapted_network_begins_as_the_network_without_adapters(adapted):
    plain = models.build("vit_nano", **SMALL)
    network = models.build("vit_nano", **SMALL, **adapted)
    own = {v.path: v for v in network.variables}
    for variable in plain.variables:
        own.pop(variable.path).assign(variable)
    assert own and all(("adapter" if "adapter" in adapted else "lora") in path for path in own)
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    for training in (False, True):
        np.testing.assert_allclose(network(images, training=training), plain(images, training=training), atol=1e-5)
    draw = np.random.default_rng(1)
    for variable in own.values():
        variable.assign(draw.normal(size=variable.shape))
    assert np.abs(network(images) - plain(images)).max() > 1e-3


def test_adaptformer_is_its_formula():
    layer = adapters.AdaptFormer(2)
    layer.build((None, 3, 4))
    draw = np.random.default_rng(0)
    layer.set_weights([draw.normal(size=v.shape) for v in layer.weights])
    gamma, beta, down, down_bias, up, up_bias, scale = (np.array(v) for v in layer.weights)
    x = draw.normal(size=(2, 3, 4)).astype(np.float32)
    normal = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * gamma + beta
    expected = scale * (np.maximum(normal @ down + down_bias, 0) @ up + up_bias)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_lora_is_the_product_that_an_export_adds_to_the_kernel():
    layer = adapters.Lora(2)
    layer.build((None, 4))
    draw = np.random.default_rng(0)
    layer.set_weights([draw.normal(size=v.shape) for v in layer.weights])
    x = draw.normal(size=(6, 4)).astype(np.float32)
    rows = layer(x)
    np.testing.assert_allclose(rows, tf.matmul(x, layer.product()), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(rows[:, 4:8], np.zeros((6, 4)))  # the key stays as it is
    np.testing.assert_allclose(rows[:, :4], x @ np.array(layer.q_down) @ np.array(layer.q_up) / 2, rtol=1e-4, atol=1e-5)


# ---- what is trained -------------------------------------------------------------------------------------------------


def trained(model: keras.Model) -> set[str]:
    return {"/".join(v.path.split("/")[-2:]) for v in model.trainable_variables}


HEAD = {"head/weight"}
NORMS = {f"{norm}/{part}" for norm in ("norm1", "norm2", "norm") for part in ("gamma", "beta")}
BIASES = {"qkv/bias", "proj/bias", "mlp.fc1/bias", "mlp.fc2/bias", "patch_embed.proj/bias"}


@pytest.mark.parametrize(
    ("tune", "options", "expected"),
    [
        ("head", {}, HEAD),
        ("norm", {}, HEAD | NORMS),
        ("bias", {}, HEAD | BIASES | {name for name in NORMS if name.endswith("beta")}),
        ("lora", {"lora": 1}, HEAD | {f"lora/{which}_{part}" for which in "qv" for part in ("down", "up")}),
    ],
)
def test_what_is_tuned_is_trained_and_the_head(tune, options, expected):
    model = models.build("vit_nano", **SMALL | {"depth": 1}, classifier="cosine", **options)
    adapters.freeze(model, tune=tune)
    assert trained(model) == expected
    assert {id(v) for v in weights.changing(model)} == {id(v) for v in model.trainable_variables}


def test_everything_may_be_trained_and_what_a_network_lacks_is_named():
    model = models.build("vit_nano", **SMALL | {"depth": 1})
    before = len(model.trainable_variables)
    with pytest.raises(ValueError, match="vit_nano has nothing that tune=adaptformer could train: choose bias, norm"):
        adapters.freeze(model, tune="adaptformer")
    model = models.build("vit_nano", **SMALL | {"depth": 1})
    adapters.freeze(model, tune="all")
    assert len(model.trainable_variables) == before


def test_statistics_of_batch_norm_are_not_frozen_weights():
    model = models.build("resnet8", num_classes=3, image_size=8)
    adapters.freeze(model, tune="norm")
    names = {v.name for v in weights.changing(model)}
    assert names == {"gamma", "beta", "moving_mean", "moving_variance", "kernel", "bias"}  # the last two: of the head
    assert [v.path for v in model.trainable_variables if v.name == "kernel"] == ["fc/kernel"]


@pytest.mark.parametrize(("tune", "kept"), [("norm", True), ("head", True), ("all", False)])
def test_a_frozen_stem_keeps_the_statistics_that_fit_its_kernels(tune, kept):
    model = models.build("vit_nano", **SMALL | {"depth": 1, "stem": "conv", "patch_size": 4})
    adapters.freeze(model, tune=tune)
    images = np.random.default_rng(0).integers(0, 256, (4, *model.input_shape[1:])).astype(np.float32)
    before, expected = model.get_weights(), model(images, training=False)
    same = np.allclose(model(images, training=True), expected, atol=1e-6)
    assert same == kept == all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
