"""Every layer of the networks answers the same questions."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deitlt_tf.models import adapters, convolutions, efficientnet, features, interface, resnet, stems, vit


@pytest.fixture(autouse=True)
def seeded():
    """Outside of a Distiller, drop path draws from TensorFlow's generator; deterministic operations need its seed."""
    keras.utils.set_random_seed(0)


LAYERS = {
    "normalize": (lambda **kw: interface.Normalize((0.1, 0.2, 0.3), (0.5, 0.6, 0.7), **kw), (2, 4, 4, 3)),
    "drop_path": (lambda **kw: vit.DropPath(0.5, 3, **kw), (2, 5, 8)),
    "tokens": (lambda **kw: vit.Tokens(True, **kw), (2, 2, 2, 8)),
    "tokens_cls": (lambda **kw: vit.Tokens(False, **kw), (2, 2, 2, 8)),
    "tokens_registers": (lambda **kw: vit.Tokens(True, 3, **kw), (2, 2, 2, 8)),
    "layer_scale": (lambda **kw: vit.LayerScale(0.1, **kw), (2, 5, 8)),
    "adaptformer": (lambda **kw: adapters.AdaptFormer(2, **kw), (2, 5, 8)),
    "lora": (lambda **kw: adapters.Lora(2, **kw), (10, 8)),
    "attention": (lambda **kw: vit.Attention(2, **kw), (2, 5, 8)),
    "layer_norm": (vit.LayerNorm, (2, 5, 8)),
    "block": (lambda **kw: vit.Block(2, 0.5, 1, **kw), (2, 5, 8)),
    "block_tokens": (lambda **kw: vit.Block(2, 0.5, 1, 2, **kw), (2, 5, 8)),
    "block_options": (lambda **kw: vit.Block(2, 0, 1, 2, "quick_gelu", 0.5, 1e-5, 2, 2, **kw), (2, 5, 8)),
    "batch_norm": (convolutions.BatchNorm, (2, 6, 6, 4)),
    "conv_stem": (lambda **kw: stems.ConvStem(8, 4, **kw), (2, 8, 8, 3)),
    "basic": (lambda **kw: resnet.BasicBlock(8, 2, **kw), (2, 6, 6, 4)),
    "basic_projected": (lambda **kw: resnet.BasicBlock(8, 2, projection=True, **kw), (2, 7, 7, 4)),
    "bottleneck": (lambda **kw: resnet.Bottleneck(4, 2, **kw), (2, 7, 7, 8)),
    "bottleneck_plain": (lambda **kw: resnet.Bottleneck(2, **kw), (2, 4, 4, 8)),
    "bottleneck_grouped": (lambda **kw: resnet.Bottleneck(8, 2, groups=4, width_per_group=16, **kw), (2, 2, 2, 8)),
    "depthwise": (lambda **kw: efficientnet.DepthwiseConv(3, 2, **kw), (2, 5, 5, 4)),
    "mbconv": (lambda **kw: efficientnet.MBConv(4, 5, **kw), (2, 6, 6, 4)),
    "mbconv_first": (lambda **kw: efficientnet.MBConv(6, 3, 2, 1, **kw), (2, 5, 5, 4)),
    "centre": (features.Centre, (2, 8)),
    "cosine": (lambda **kw: resnet.CosineClassifier(5, 30.0, **kw), (2, 8)),
}


def test_every_layer_is_tested():
    ours = {
        value
        for module in (adapters, interface, vit, convolutions, stems, resnet, efficientnet, features)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, keras.Layer) and value.__module__ == module.__name__
    }
    assert ours == {type(make()) for make, _ in LAYERS.values()}


@pytest.mark.parametrize("name", LAYERS)
def test_layer(name):
    """Build, symbolic call, eager call, training step, bfloat16, config round trip."""
    make, shape = LAYERS[name]
    x = tf.random.stateless_uniform(shape, (1, 2))
    layer = make()
    layer.build(shape)
    symbolic = layer(keras.Input(shape[1:]))
    y = layer(x)
    assert symbolic.shape == (None, *y.shape[1:]) and symbolic.dtype == "float32"

    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x, training=True) ** 2)
    for slope in tape.gradient(loss, [v.value for v in layer.trainable_variables]):
        assert slope is not None and np.isfinite(slope).all()

    copy = type(layer).from_config(layer.get_config())
    copy.build(shape)
    copy.set_weights(layer.get_weights())
    assert copy.get_config() == layer.get_config()
    np.testing.assert_array_equal(copy(x), layer(x))

    half = make(dtype="mixed_bfloat16")
    half.build(shape)
    half.set_weights(layer.get_weights())
    assert {v.dtype for v in half.variables} <= {"float32"}
    expected = layer(x)
    np.testing.assert_allclose(tf.cast(half(x), tf.float32), expected, atol=0.05 * np.abs(expected).max())
    assert half(x).dtype == half.compute_dtype
