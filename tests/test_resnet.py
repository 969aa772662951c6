"""CIFAR ResNets against the official code; ResNet-50's geometry against torch's rules."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from deitlt_tf import models
from deitlt_tf.models import resnet

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize(("file", "classifier"), [("resnet32_forward", "linear"), ("resnet32_norm_forward", "cosine")])
def test_resnet32_equals_the_official_one(file, classifier):
    golden = np.load(GOLDEN / f"{file}.npz")
    model = models.build(
        "resnet32", num_classes=10, image_size=32, classifier=classifier, mean=(0, 0, 0), std=(1, 1, 1)
    )
    models.load_state(model, {k.removeprefix("param/"): golden[k] for k in golden.files if k.startswith("param/")})
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
    np.testing.assert_array_equal(conv(resnet._pad(x, 2)), x[:, ::2, ::2])


def test_resnet50_halves_five_times_as_torch_does():
    with keras.StatelessScope():
        model = models.build("resnet50", num_classes=3, image_size=75)
    sizes = [model.get_layer(name).output.shape[1] for name in ("conv1", "maxpool", "layer2.0", "layer3.0", "layer4.2")]
    assert sizes == [38, 19, 10, 5, 3]  # (n + 1) // 2 each time
    strides = [model.get_layer("layer2.0").conv1.strides, model.get_layer("layer2.0").conv2.strides]
    assert strides == [(1, 1), (2, 2)]  # v1.5
    assert model.get_layer("avgpool").output.shape == (None, 2048)


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
