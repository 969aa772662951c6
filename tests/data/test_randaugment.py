"""RandAugment: each operation against Pillow, eagerly and inside tf.data; what is drawn and how it is written."""

import math

import numpy as np
import pytest
import tensorflow as tf
from helpers.photos import SIZE, in_tf_data, photo
from PIL import Image, ImageEnhance, ImageOps

from deitlt_tf.data import augment, randaugment

FILL = (124, 116, 104)


def affine(image, *coefficients):
    return image.transform(image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR, fillcolor=FILL)


def enhanced(enhancer, image, m, sign):
    return enhancer(image).enhance(max(0.1, 1 + sign * m / 10 * 0.9))


def posterized(image, m, sign):
    bits = 4 - int(m / 10 * 4)
    return ImageOps.posterize(image, bits) if bits else Image.new("RGB", image.size)  # Pillow 13 refuses 0


def solarize_added(image, m, sign):
    amount = min(128, int(m / 10 * 110))
    return image.point([min(255, value + amount) if value < 128 else value for value in range(256)] * 3)


# timm's meaning of each name, in Pillow
PILLOW = {
    "AutoContrast": lambda image, m, sign: ImageOps.autocontrast(image),
    "Equalize": lambda image, m, sign: ImageOps.equalize(image),
    "Invert": lambda image, m, sign: ImageOps.invert(image),
    "Rotate": lambda image, m, sign: image.rotate(sign * m / 10 * 30, Image.Resampling.BILINEAR, fillcolor=FILL),
    "PosterizeIncreasing": posterized,
    "SolarizeIncreasing": lambda image, m, sign: ImageOps.solarize(image, 256 - min(256, int(m / 10 * 256))),
    "SolarizeAdd": solarize_added,
    "ColorIncreasing": lambda image, m, sign: enhanced(ImageEnhance.Color, image, m, sign),
    "ContrastIncreasing": lambda image, m, sign: enhanced(ImageEnhance.Contrast, image, m, sign),
    "BrightnessIncreasing": lambda image, m, sign: enhanced(ImageEnhance.Brightness, image, m, sign),
    "SharpnessIncreasing": lambda image, m, sign: enhanced(ImageEnhance.Sharpness, image, m, sign),
    "ShearX": lambda image, m, sign: affine(image, 1, sign * m / 10 * 0.3, 0, 0, 1, 0),
    "ShearY": lambda image, m, sign: affine(image, 1, 0, 0, sign * m / 10 * 0.3, 1, 0),
    "TranslateXRel": lambda image, m, sign: affine(image, 1, 0, sign * m / 10 * 0.45 * image.size[0], 0, 1, 0),
    "TranslateYRel": lambda image, m, sign: affine(image, 1, 0, 0, 0, 1, sign * m / 10 * 0.45 * image.size[1]),
}
EXACT = {"Equalize", "Invert", "PosterizeIncreasing", "SolarizeIncreasing", "SolarizeAdd", "SharpnessIncreasing"}


def test_the_operations_are_timms_in_timms_order():
    assert list(randaugment.OPERATIONS) == list(PILLOW)


@pytest.mark.parametrize("name", PILLOW)
def test_operation_equals_pillow_eagerly_and_in_tf_data(name):
    operation = randaugment.OPERATIONS[name]
    changed = False
    for image, magnitudes in ((photo(32, 32), (0.0, 0.7, 4.3, 9.2, 10.0)), (photo(33, 33, seed=1, noise=0), (8.3,))):
        for magnitude in magnitudes:
            for sign in (-1.0, 1.0):
                ours = operation(tf.constant(image), tf.constant(magnitude), tf.constant(sign), FILL).numpy()
                theirs = np.asarray(PILLOW[name](Image.fromarray(image), magnitude, sign))
                difference = np.abs(ours.astype(int) - theirs)
                assert ours.dtype == np.uint8
                # never two levels, borders included; one where float32 instead of double falls just below an integer
                assert difference.max() <= (name not in EXACT) and difference.mean() < 0.15, (magnitude, sign)
                changed |= bool((ours != image).any())
    assert changed
    shape, strength = image.shape, (np.float32(9.2), np.float32(-1.0))
    inside = in_tf_data(lambda x, m, s: operation(tf.ensure_shape(x, shape), m, s, FILL), image, *strength)
    np.testing.assert_array_equal(inside, operation(tf.constant(image), *map(tf.constant, strength), FILL))


@pytest.mark.parametrize("name", ["AutoContrast", "Equalize", "ContrastIncreasing"])
def test_statistics_of_flat_channels(name):
    image = photo()
    image[..., 0], image[..., 1] = 77, np.where(image[..., 1] > 128, 250, 3)
    ours = randaugment.OPERATIONS[name](tf.constant(image), tf.constant(9.0), tf.constant(1.0), FILL).numpy()
    theirs = np.asarray(PILLOW[name](Image.fromarray(image), 9.0, 1.0)).astype(int)
    assert np.abs(ours - theirs).max() <= 1


def test_extreme_magnitudes_have_timms_meaning():
    image = tf.constant(photo())
    posterize, solarize = randaugment.OPERATIONS["PosterizeIncreasing"], randaugment.OPERATIONS["SolarizeIncreasing"]
    assert not posterize(image, tf.constant(10.0), 1.0, FILL).numpy().any()
    np.testing.assert_array_equal(solarize(image, tf.constant(10.0), 1.0, FILL), randaugment.invert(image))
    np.testing.assert_array_equal(solarize(image, tf.constant(0.0), 1.0, FILL), image)


def applied(draws, **changes):
    policy = randaugment.RandAugment(**changes)
    return randaugment.apply_randaugment(tf.constant(photo()), tf.constant(draws, tf.float32), settings=policy).numpy()


def test_draws_choose_the_operation_its_strength_and_its_sign():
    image = photo()
    half = 0.5  # the median of N(9, .5)
    for index, name in enumerate(randaugment.OPERATIONS):
        for side, sign in ((0.2, -1.0), (0.8, 1.0)):
            expected = randaugment.OPERATIONS[name](tf.constant(image), tf.constant(9.0), tf.constant(sign), FILL)
            np.testing.assert_array_equal(applied([(index + 0.5) / 15, 0.4, half, side], layers=1), expected)
    np.testing.assert_array_equal(applied([0.1, 0.5, half, 0.2], layers=1), image)  # not applied
    twice = applied([2.5 / 15, 0.0, half, 0.0] * 2)
    np.testing.assert_array_equal(twice, image)  # Invert after Invert
    stronger = 0.5 * (1 + math.erf(1 / math.sqrt(2)))  # one standard deviation above: 9.5
    expected = randaugment.brightness(tf.constant(image), tf.constant(1 + 0.95 * 0.9))
    np.testing.assert_allclose(applied([9.5 / 15, 0.0, stronger, 0.9], layers=1), expected, atol=1)
    np.testing.assert_array_equal(applied([4.5 / 15, 0.0, 1 - 1e-6, 0.9], layers=1), 0)  # clipped to 10: 0 bits
    np.testing.assert_array_equal(applied([5.5 / 15, 0.0, 0.0, 0.9], layers=1), image)  # clipped to 0: threshold 256


def test_only_drawn_operations_run():
    image = tf.TensorSpec([SIZE, SIZE, 3], tf.uint8)

    @tf.function
    def view(image, seed):
        return augment.train_view(image, seed, size=SIZE, crop="padded", randaugment=randaugment.RandAugment())

    graph = view.get_concrete_function(image, tf.TensorSpec([2], tf.int64)).graph
    cases = [op for op in graph.get_operations() if op.type in ("Case", "StatelessCase")]
    assert [len(op.get_attr("branches")) for op in cases] == [16, 16]  # 15 operations and none, per layer
    outside = {op.type for op in graph.get_operations()}
    warps = {"StatefulPartitionedCall", "PartitionedCall"}  # of their own, because XLA compiles them
    assert not outside & {*warps, "DenseBincount", "Bincount", "StatelessRandomNormalV2"}


# ---- timm's notation ----


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("rand-m9-mstd0.5-inc1", randaugment.RandAugment()),
        ("rand-inc1", randaugment.RandAugment()),
        ("rand-m7-n3-p0.25-inc1-mstd1", randaugment.RandAugment(layers=3, magnitude=7, std=1, probability=0.25)),
        ("", None),
    ],
)
def test_timms_notation_is_read(text, settings):
    assert randaugment.parse(text) == settings


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rand-m9", r"randaugment=rand-m9: only `rand-\.\.\.-inc1` is offered"),
        ("augmix-m9-inc1", "only `rand-"),
        ("rand-w0-inc1", "'w0' is unknown; an example is rand-m9-mstd0.5-inc1"),
        ("rand-m-inc1", "'m' is unknown"),
    ],
)
def test_what_the_notation_does_not_have_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        randaugment.parse(text)
