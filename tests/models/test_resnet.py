"""CIFAR ResNets against the official code; the larger ones' geometry and names against torch's rules."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import GOLDEN

from deitlt_tf import models
from deitlt_tf.models import convolutions, resnet
from deitlt_tf.models.weights import load_state, state_dict


@pytest.mark.parametrize(("file", "classifier"), [("resnet32_forward", "linear"), ("resnet32_norm_forward", "cosine")])
def test_resnet32_equals_the_official_one(file, classifier):
    golden = np.load(GOLDEN / f"{file}.npz")
    model = models.build(
        "resnet32", num_classes=10, image_size=32, classifier=classifier, mean=(0, 0, 0), std=(1, 1, 1)
    )
    load_state(model, {k.removeprefix("param/"): golden[k] for k in golden.files if k.startswith("param/")})
    logits = model(golden["images_nchw"].transpose(0, 2, 3, 1) * 255)
    np.testing.assert_allclose(logits, golden["logits"], rtol=1e-4, atol=1e-4 * np.abs(golden["logits"]).max())


def test_option_a_shortcut_subsamples_and_pads_channels_on_both_sides():
    block = resnet.BasicBlock(8, 2)
    x = tf.random.stateless_uniform((2, 6, 6, 4), (0, 1))
    block.build(x.shape)
    block.bn2.gamma.assign(tf.zeros(8))  # only the shortcut is left
    y = block(x).numpy()
    np.testing.assert_array_equal(y[..., 2:6], x[:, ::2, ::2])
    assert not y[..., :2].any() and not y[..., 6:].any()


@pytest.mark.parametrize("size", [6, 7])
@pytest.mark.parametrize("block", [resnet.BasicBlock(4, 2), resnet.Bottleneck(1, 2)])
def test_strided_convolutions_are_centred_on_every_second_pixel_as_in_torch(block, size):
    """An identity kernel with padding 1 and stride 2 gives x[::2, ::2]; Keras' "same" would shift even sizes."""
    layer = type(block).from_config(block.get_config())
    layer.build((None, size, size, 4))
    conv = layer.conv1 if isinstance(layer, resnet.BasicBlock) else layer.conv2
    channels = conv.kernel.shape[2]
    kernel = np.zeros(conv.kernel.shape)
    kernel[1, 1] = np.eye(channels)
    conv.kernel.assign(kernel)
    x = tf.random.stateless_uniform((1, size, size, channels), (0, 1))
    np.testing.assert_array_equal(conv(convolutions.pad(x, 2)), x[:, ::2, ::2])


@pytest.mark.parametrize(("size", "expected"), [(75, [38, 19, 10, 5, 3]), (32, [16, 8, 4, 2, 1])])
def test_resnet50_halves_five_times_as_torch_does(size, expected):
    with keras.StatelessScope(initialize_variables=False):
        model = models.build("resnet50", num_classes=3, image_size=size)
    sizes = [model.get_layer(name).output.shape[1] for name in ("conv1", "maxpool", "layer2.0", "layer3.0", "layer4.2")]
    assert sizes == expected  # (n + 1) // 2 each time
    strides = [model.get_layer("layer2.0").conv1.strides, model.get_layer("layer2.0").conv2.strides]
    assert strides == [(1, 1), (2, 2)]  # v1.5
    assert model.get_layer("avgpool").output.shape == (None, 2048)


def test_groups_do_not_see_each_other():
    """torch's kernel [out, in / groups, 3, 3]: each group of outputs is a convolution of its own group of inputs."""
    block = resnet.Bottleneck(8, groups=4, width_per_group=16, name="layer1.0")
    block.build((None, 5, 5, 4))
    model = keras.Sequential([keras.Input((5, 5, 8)), block.conv2])
    weight = np.random.default_rng(0).normal(size=(8, 2, 3, 3)).astype(np.float32)
    load_state(model, {"layer1.0.conv2.weight": weight})
    x = tf.random.stateless_uniform((2, 5, 5, 8), (0, 1))
    parts = [
        tf.nn.conv2d(part, kernel.transpose(2, 3, 1, 0), 1, "SAME")
        for part, kernel in zip(tf.split(x, 4, axis=-1), np.split(weight, 4), strict=True)
    ]
    np.testing.assert_allclose(model(x), tf.concat(parts, -1), rtol=1e-4, atol=1e-5)


def test_projected_shortcut_is_every_second_pixel_through_a_1x1_convolution():
    block = resnet.BasicBlock(8, 2, projection=True)
    x = tf.random.stateless_uniform((2, 6, 6, 4), (0, 1))
    block.build(x.shape)
    block.bn2.gamma.assign(tf.zeros(8))  # only the shortcut is left
    kernel = tf.convert_to_tensor(block.downsample.kernel)[0, 0]
    expected = tf.nn.relu(x[:, ::2, ::2] @ kernel) / np.sqrt(1 + 1e-5)
    np.testing.assert_allclose(block(x), expected, rtol=1e-4, atol=1e-6)
    same = resnet.BasicBlock(4, projection=True)
    same.build(x.shape)
    same.bn2.gamma.assign(tf.zeros(4))
    np.testing.assert_array_equal(same(x), x)


@pytest.mark.parametrize(
    ("name", "blocks", "convolutions", "shapes"),
    [
        (
            "resnext50",
            (3, 4, 6, 3),
            3,
            {"layer1.0.conv2": (3, 3, 4, 128), "layer4.2.conv3": (1, 1, 1024, 2048), "conv1": (7, 7, 3, 64)},
        ),
        (
            "resnet18_cifar",
            (2, 2, 2, 2),
            2,
            {"layer1.0.conv1": (3, 3, 64, 64), "layer4.0.downsample.0": (1, 1, 256, 512), "conv1": (3, 3, 3, 64)},
        ),
    ],
)
def test_weights_have_torchvisions_names(name, blocks, convolutions, shapes):
    with keras.StatelessScope(initialize_variables=False):
        state = state_dict(models.build(name, num_classes=3, image_size=32))
    places = [f"layer{stage}.{i}." for stage, count in enumerate(blocks, 1) for i in range(count)]
    layers = {place + f"{kind}{k}" for place in places for kind in ("conv", "bn") for k in range(1, convolutions + 1)}
    projected = [f"layer{stage}.0." for stage in range(1 if convolutions == 3 else 2, 5)]
    layers |= {place + f"downsample.{k}" for place in projected for k in (0, 1)} | {"conv1", "bn1", "fc"}
    assert {key.rpartition(".")[0] for key in state} == layers
    assert {layer: tuple(state[layer + ".weight"].shape) for layer in shapes} == shapes
    norm = [key.rpartition(".")[2] for key in state if key.startswith("layer2.0.downsample.1.")]
    assert norm == ["weight", "bias", "running_mean", "running_var"]


def test_cosine_classifier_sees_directions_only():
    layer = resnet.CosineClassifier(5)
    x = tf.random.stateless_normal((4, 8), (0, 1))
    cosines = layer(x)
    np.testing.assert_allclose(tf.norm(tf.convert_to_tensor(layer.weight), axis=0), np.ones(5), atol=1e-6)
    np.testing.assert_allclose(layer(3 * x), cosines, atol=1e-6)
    layer.weight.assign(layer.weight * 7)
    np.testing.assert_allclose(layer(x), cosines, atol=1e-6)
    assert np.abs(cosines).max() <= 1
    scaled = resnet.CosineClassifier(5, scale=30.0)
    scaled.build(x.shape)
    scaled.set_weights(layer.get_weights())
    np.testing.assert_allclose(scaled(x), 30 * cosines, atol=1e-4)


def test_cosine_classifier_gives_cosines():
    layer = resnet.CosineClassifier(4)
    x = tf.constant(np.random.default_rng(0).normal(size=(5, 3)), tf.float32)
    cosines = layer(x).numpy()
    unit = lambda v, axis: v / np.linalg.norm(v, axis=axis, keepdims=True)  # noqa: E731
    np.testing.assert_allclose(cosines, unit(x.numpy(), 1) @ unit(layer.weight.numpy(), 0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer(7 * x), cosines, rtol=1e-5, atol=1e-6)
    assert np.abs(cosines).max() <= 1


def test_initial_convolutions_have_kaiming_variance():
    keras.utils.set_random_seed(0)
    kernel = models.build("resnet20", num_classes=10, image_size=8).get_layer("layer3.2").conv1.kernel
    values = np.asarray(kernel)
    assert values.std() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)
    assert np.abs(values).max() > 3 * values.std()  # a normal distribution with its tails, as torch's


def test_training_moves_the_running_statistics_by_a_tenth():
    model = models.build("resnet20", num_classes=3, image_size=8, mean=(0, 0, 0), std=(1, 1, 1))
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    bn = model.get_layer("bn1")
    batch = keras.Model(model.input, model.get_layer("conv1").output)(images).numpy()
    model(images)
    assert not np.asarray(bn.moving_mean).any()
    model(images, training=True)
    np.testing.assert_allclose(bn.moving_mean, 0.1 * batch.mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(bn.moving_variance, 0.9 + 0.1 * batch.var((0, 1, 2)), atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize(
    "block",
    [
        lambda **kw: resnet.BasicBlock(8, 2, **kw),
        lambda **kw: resnet.BasicBlock(8, 2, projection=True, **kw),
        lambda **kw: resnet.Bottleneck(2, 2, **kw),
        lambda **kw: resnet.Bottleneck(8, groups=4, width_per_group=16, **kw),
    ],
)
def test_statistics_folded_into_kernels_answer_as_normalisation_does(block, precision, monkeypatch):
    block, x = block(dtype=precision), tf.random.stateless_normal((2, 6, 6, 8), (1, 2))
    block.build(x.shape)
    draw = np.random.default_rng(0)
    for variable in block.variables:
        if len(variable.shape) == 1:
            variable.assign(draw.uniform(0.5, 2, variable.shape))
    inference = tf.function(block).get_concrete_function(x)
    folded = inference(x)
    assert "FusedBatchNormV3" not in {op.type for op in inference.graph.get_operations()}
    monkeypatch.setattr(resnet, "normed", lambda conv, norm, x, training: norm(conv(x), training=training))
    expected = tf.cast(block(x), tf.float32)
    atol = (1e-5 if precision == "float32" else 0.03) * np.abs(expected).max()
    np.testing.assert_allclose(tf.cast(folded, tf.float32), expected, atol=atol)
