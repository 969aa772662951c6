"""Bicubic resizing against torch's numbers: of images, of position embeddings, of a whole model's input."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.tiny_models import pixels, tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from deitlt_tf.models import resizing

# Keras' own way of reading a variable for a file, under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def test_positions_are_resized_as_by_torch():
    """Numbers of torch 2.13: F.interpolate(p, size, mode="bicubic", align_corners=False)."""
    grid = (np.arange(9.0, dtype=np.float32) ** 2).reshape(1, 9, 1)
    up = resizing.resize_position(grid, grid_from=3, grid_to=5, prefix=0).reshape(5, 5)
    expected = [
        [-0.9047, -0.8740, -0.4400, 1.0740, 2.2167],
        [1.2700, 2.3191, 4.4440, 7.6489, 9.8100],
        [8.3280, 11.0680, 16.0000, 22.0120, 25.8640],
        [25.1060, 29.5369, 37.2760, 46.0951, 51.6380],
        [37.2887, 42.7380, 52.1680, 62.6780, 69.2393],
    ]
    np.testing.assert_allclose(up, expected, atol=1e-3)
    down = resizing.resize_position(grid, grid_from=3, grid_to=2, prefix=0).reshape(2, 2)
    np.testing.assert_allclose(down, [[1.4308, 6.5224], [32.3974, 53.1808]], atol=1e-3)


@settings(max_examples=30, deadline=None)
@given(grid_from=st.integers(1, 9), grid_to=st.integers(1, 9), prefix=st.integers(0, 2))
def test_resizing_keeps_tokens_constants_and_the_same_grid(grid_from, grid_to, prefix):
    pos = np.random.default_rng(0).normal(size=(1, prefix + grid_from**2, 3)).astype(np.float32)
    new = resizing.resize_position(pos, grid_from=grid_from, grid_to=grid_to, prefix=prefix)
    assert new.shape == (1, prefix + grid_to**2, 3) and new.dtype == np.float32
    np.testing.assert_array_equal(new[:, :prefix], pos[:, :prefix])
    if grid_from == grid_to:
        np.testing.assert_allclose(new, pos, atol=1e-6)
    constant = resizing.resize_position(np.ones_like(pos), grid_from=grid_from, grid_to=grid_to, prefix=prefix)
    np.testing.assert_allclose(constant, np.ones_like(new), atol=1e-6)


def test_resize_position_refuses_another_grid():
    with pytest.raises(ValueError, match="not 2 tokens"):
        resizing.resize_position(np.zeros((1, 17, 4)), grid_from=4, grid_to=2, prefix=2)


@pytest.mark.parametrize("size", [8, 24])
def test_resized_model_has_the_same_weights_and_other_positions(size, tmp_path):
    before = tiny("deit")
    model = resizing.resized(before, size)
    for old, new in zip(before.variables, model.variables, strict=True):
        assert old.path == new.path and old is not new
        if old.name != "pos_embed":
            np.testing.assert_array_equal(old, new)
    positions = before.get_layer("tokens").pos_embed.numpy()
    expected = resizing.resize_position(positions, grid_from=2, grid_to=size // 8, prefix=2)
    np.testing.assert_array_equal(model.get_layer("tokens").pos_embed, expected)
    images = tf.image.resize(pixels(), (size, size))
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    for head in ("cls", "dist"):
        np.testing.assert_array_equal(loaded(images)[head], model(images)[head])


def test_resized_to_the_same_size_is_the_same_model():
    model = tiny("deit")
    np.testing.assert_allclose(resizing.resized(model, 16)(pixels())["cls"], model(pixels())["cls"], atol=1e-5)


def test_resized_refuses_a_size_that_patches_do_not_tile():
    with pytest.raises(ValueError, match="image_size=33 is not a multiple of patch_size=8"):
        resizing.resized(tiny("deit"), 33)


def test_images_are_resized_as_by_torch():
    """By hand, 4 -> 2 pixels: a new pixel lies half way between two old ones, whose weights are .59375 (a = -.75)."""
    rows = tf.reshape(tf.constant([0.0, 100.0, 200.0, 50.0]), [1, 4, 1, 1]) * tf.ones([1, 4, 4, 3])
    outer, inner = -0.09375, 0.59375
    expected = [
        outer * 0 + inner * 0 + inner * 100 + outer * 200,
        outer * 100 + inner * 200 + inner * 50 + outer * 50,
    ]
    np.testing.assert_allclose(resizing.resize(rows, 2)[0, :, 0, 0], expected, rtol=1e-5)
    assert resizing.resize(rows, 4) is rows
