"""Made-up photographs, and an image operation inside tf.data, where its result can differ from the eager one."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf
from PIL import Image

SIZE = 32


def photo(height: int = SIZE, width: int = SIZE, seed: int = 0, noise: int = 12) -> np.ndarray:
    """Smooth colours with some noise, as photographs have: uint8 [height, width, 3]."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(20, 235, (max(height // 8, 1), max(width // 8, 1), 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return np.clip(smooth + rng.integers(-noise, noise + 1, smooth.shape), 0, 255).astype(np.uint8)


def in_tf_data(function: Callable, *inputs) -> np.ndarray:
    """function(*inputs) computed inside tf.data."""
    return next(iter(tf.data.Dataset.from_tensors(inputs).map(function))).numpy()
