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
