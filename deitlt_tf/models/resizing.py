"""Bicubic resizing as in torch: of the teacher's input, of position embeddings, and of a model's input size."""

import keras
import numpy as np
import tensorflow as tf

from deitlt_tf.models import vit


def bicubic_matrix(size_from: int, size_to: int) -> np.ndarray:
    """The matrix [to, from] of cubic interpolation, a = -0.75, pixel centres aligned, no antialias, border repeated."""
    centre = (np.arange(size_to) + 0.5) * size_from / size_to - 0.5
    tap = np.floor(centre)[:, None] + np.arange(-1, 3)  # (to, 4)
    t, a = np.abs(centre[:, None] - tap), -0.75
    near = (a + 2) * t**3 - (a + 3) * t**2 + 1
    far = a * (t**3 - 5 * t**2 + 8 * t - 4)
    matrix = np.zeros((size_to, size_from))
    rows = np.arange(size_to)[:, None]
    np.add.at(matrix, (rows, np.clip(tap, 0, size_from - 1).astype(int)), np.where(t <= 1, near, far))
    return matrix


def resize_position(pos_embed: np.ndarray, *, grid_from: int, grid_to: int, prefix: int) -> np.ndarray:
    """[1, prefix + from^2, D] -> [1, prefix + to^2, D]: positions of patches are resized, those of tokens stay.

    grid_from, grid_to: patches along one side, before and after. prefix: number of tokens before the patches.
    Equals torch's F.interpolate(mode="bicubic", align_corners=False); TensorFlow's kernel is another, a = -0.5.
    Raises ValueError where the length does not fit `prefix` and `grid_from`.
    Source: timm resize_pos_embed. Deviation: the official interpolate_pos_encoding adds 0.1 patch to the new size
    against rounding, which shifts every sample.
    """
    pos_embed = np.asarray(pos_embed)
    if pos_embed.shape[1] != prefix + grid_from**2:
        raise ValueError(
            f"pos_embed has {pos_embed.shape[1]} rows, not {prefix} tokens + {grid_from} x {grid_from} patches."
        )
    grid = pos_embed[0, prefix:].reshape(grid_from, grid_from, -1)
    matrix = bicubic_matrix(grid_from, grid_to)
    grid = np.einsum("yh,xw,hwd->yxd", matrix, matrix, grid, optimize=True).reshape(1, grid_to**2, -1)
    return np.concatenate([pos_embed[:, :prefix], grid.astype(pos_embed.dtype)], axis=1)


def resized(model: keras.Model, image_size: int) -> keras.Model:
    """A new Vision Transformer for `image_size`: the same weights, positions resized.

    Raises ValueError where the patches do not tile the image.
    """
    patch_size = vit.patch_size(model)
    if image_size % patch_size:
        raise ValueError(f"image_size={image_size} is not a multiple of patch_size={patch_size}: change one of them.")
    old = model.input
    new = keras.models.clone_model(model, keras.Input((image_size, image_size, 3), dtype=old.dtype, name=old.name))
    sizes = {"grid_from": old.shape[1] // patch_size, "grid_to": image_size // patch_size}
    for source, target in zip(model.variables, new.variables, strict=True):
        value = source.numpy()
        if source.name == "pos_embed":
            value = resize_position(value, prefix=model.get_layer("tokens").prefix, **sizes)
        target.assign(value)
    return new


def resize(images: tf.Tensor, size: int) -> tf.Tensor:
    """[B, S, S, 3] -> [B, size, size, 3], bicubic (a = -0.75), not antialiased: torch's F.interpolate.

    Computed as two matrix products, because TensorFlow's bicubic has another kernel (a = -0.5) and runs only on CPUs.
    Source: official engine.py, the teacher's input.
    """
    if images.shape[1] == size:
        return images
    matrix = tf.constant(bicubic_matrix(images.shape[1], size), images.dtype)
    return tf.einsum("yh,bhwc,xw->byxc", matrix, images, matrix, optimize="optimal")
