"""EfficientNet-Lite under the names of its PyTorch port, with drawn weights, as golden numbers were made with."""

import importlib.metadata
import zlib

import keras
import numpy as np
import pytest

from deitlt_tf.interop import backbones
from deitlt_tf.interop.torch_weights import to_torch


def torch_names(model: keras.Model) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a network's weights in the PyPI package efficientnet_lite_pytorch."""

    def official(name: str) -> str:
        *layers, part = name.replace("mbconv.", "blocks.").split(".")
        return ".".join([*(layer if layer.isdigit() else f"_{layer}" for layer in layers), part])

    return {official(name): value.shape for name, value in to_torch(model).items()}


def drawn(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """float32 weights that depend on name and shape alone, of sizes with which neither ReLU6 nor a norm is trivial."""

    def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
        random = np.random.default_rng(zlib.crc32(name.encode()))
        if len(shape) > 1:
            return random.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        if name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1):
            return random.uniform(0.5, 1.5, shape)
        return random.normal(0, 0.2, shape)

    return {name: draw(name, shape).astype(np.float32) for name, shape in shapes.items()}


def pixels(size: int) -> np.ndarray:
    """Two images of smooth noise, uint8 [2, size, size, 3]."""
    random = np.random.default_rng(size)
    coarse = random.integers(0, 256, (2, 8, 8, 3))
    rows = np.arange(size) * 8 // size
    noise = random.integers(-20, 21, (2, size, size, 3))
    return np.clip(coarse[:, rows][:, :, rows] + noise, 0, 255).astype(np.uint8)


def skip_without_weights(name: str) -> None:
    """Skip where the package of the weights is not installed. A file that is damaged or of another network fails."""
    try:
        importlib.metadata.distribution(backbones.PACKAGES[name])
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{backbones.PACKAGES[name]} is not installed")
