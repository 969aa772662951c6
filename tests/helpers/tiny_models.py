"""The smallest model of each kind: 16 x 16 pixels, seven classes."""

import keras
import numpy as np

from deitlt_tf import models

TINY = {"num_classes": 7, "image_size": 16}
TINY_VIT = TINY | {"patch_size": 8, "embed_dim": 8, "depth": 2, "num_heads": 2}
KINDS = ("deit", "vit", "linear", "cosine")


def tiny(kind: str) -> keras.Model:
    """A new model of one of KINDS."""
    return {
        "deit": lambda: models.build("deit_nano", **TINY_VIT),
        "vit": lambda: models.build("vit_nano", **TINY_VIT),
        "linear": lambda: models.build("resnet8", **TINY),
        "cosine": lambda: models.build("resnet8", classifier="cosine", **TINY),
    }[kind]()


def pixels() -> np.ndarray:
    """Three random images, uint8 [3, 16, 16, 3]."""
    return np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)


def other_cnn(size: int, *, num_classes: int = 3) -> keras.Model:
    """A network that is none of ours, built as those of keras.applications: pixels of `size` x `size` -> logits."""
    layers = keras.layers
    pixels = keras.Input((size, size, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1)(pixels)
    x = layers.Activation("hard_swish")(layers.BatchNormalization()(layers.Conv2D(8, 3, strides=2, padding="same")(x)))
    x = layers.ReLU(6.0)(layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same")(x)))
    x = layers.Multiply()(
        [x, layers.Conv2D(8, 1, activation="hard_sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(x))]
    )
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
    inner = keras.Model(pixels, layers.Dense(num_classes)(x), name="mobile")
    images = keras.Input((size, size, 3), dtype="float32")
    return keras.Model(images, layers.Activation("linear", dtype="float32")(inner(images)), name="other")
