"""What every model is from outside: pixels are normalised inside, logits have the names of their heads."""

import numpy as np
import pytest
import tensorflow as tf

from deitlt_tf.models import interface


def test_pixels_are_normalised_in_float32_whatever_their_type():
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    layer = interface.Normalize(mean, std, dtype="bfloat16")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), np.uint8)
    expected = (pixels / 255 - mean) / std
    for images in (tf.constant(pixels), tf.cast(pixels, tf.float32)):
        normalised = layer(images)
        assert normalised.dtype == tf.float32
        np.testing.assert_allclose(normalised, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("mean", "std"), [((0, 0), (1, 1, 1)), ((0, 0, 0), (1, 0, 1)), ((0, 0, 0), (1, 1))])
def test_statistics_that_cannot_be_are_refused(mean, std):
    with pytest.raises(ValueError, match="mean and std have to be three numbers each, std above 0"):
        interface.Normalize(mean, std)


def test_the_main_head_of_all_is_the_mean():
    assert [interface.main_head(heads) for heads in ("all", "mean", "cls", "dist")] == ["mean", "mean", "cls", "dist"]


def test_mean_head_is_half_of_the_sum():
    cls, dist = tf.constant([[1.0, 2.0]]), tf.constant([[5.0, -2.0]])
    heads = interface.heads({"cls": cls, "dist": dist})
    np.testing.assert_array_equal(heads["mean"], [[3.0, 0.0]])
    assert list(heads) == ["cls", "dist", "mean"]
    assert list(interface.heads(cls)) == ["cls"]
