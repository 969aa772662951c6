"""The smallest network of three experts, and images for it."""

import functools

import keras
import numpy as np

from deitlt_tf import models


@functools.cache
def small() -> keras.Model:
    """One real network for many tests; in mixed precision, where float32 logits are not a matter of course."""
    keras.utils.set_random_seed(0)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        return models.build("mdcs_resnet8", num_classes=5, image_size=8)
    finally:
        keras.config.set_dtype_policy(before)


def pixels() -> np.ndarray:
    """Three random images, uint8 [3, 8, 8, 3]."""
    return np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
