"""The interface of every model: pixels 0..255 in, named float32 logits out."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@keras.saving.register_keras_serializable(package="deitlt_tf")
class Normalize(keras.layers.Layer):
    """(pixels / 255 - mean) / std, per channel, in float32 for every dtype policy. Pixels: uint8 or float, 0..255.

    mean, std: three floats each, of pixels scaled to 0..1. Default to those of ImageNet.
    Raises ValueError for another number of floats, or a std that is not above 0.
    """

    def __init__(self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD, **kwargs: Any):
        super().__init__(**kwargs | {"dtype": "float32"})
        self.mean, self.std = tuple(mean), tuple(std)
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(
                f"mean and std have to be three numbers each, std above 0. Here they are {self.mean} and {self.std}."
            )

    def build(self, input_shape: tuple) -> None:
        pass

    def call(self, x: tf.Tensor) -> tf.Tensor:
        # Broadcast to a row of pixels first: TensorFlow takes four times as long to broadcast only three numbers.
        mean, std = (tf.broadcast_to(tf.constant(three, tf.float32), x.shape[-2:]) for three in (self.mean, self.std))
        return (tf.cast(x, tf.float32) / 255 - mean) / std

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"mean": self.mean, "std": self.std}


def heads(outputs: tf.Tensor | dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Named logits of a model's output: cls, dist and their mean (f_c + f_d) / 2; only cls where there is one head."""
    if not isinstance(outputs, dict):
        return {"cls": outputs}
    return {"cls": outputs["cls"], "dist": outputs["dist"], "mean": (outputs["cls"] + outputs["dist"]) / 2}


def view_size(model: keras.Model, *, resize: int, flag: str) -> int:
    """S, the side of a network's evaluation view: that of its input, pixels.

    resize: short side before the central crop of S, pixels; 0: no crop. flag: the argument that sets it, for messages.
    Raises ValueError for a network that does not take [B, S, S, 3] with a fixed S, and for 0 < resize < S.
    """
    shape = model.input_shape
    size = shape[1] if isinstance(shape, tuple) and len(shape) == 4 else None
    if not size or shape[1:] != (size, size, 3):
        raise ValueError(
            f"{model.name} takes {shape}, not [B, S, S, 3] with a fixed S. Give it a size: with "
            "images = keras.Input((S, S, 3)), save keras.Model(images, model(images)) instead."
        )
    if 0 < resize < size:
        raise ValueError(
            f"{flag}={resize} is smaller than the input of {model.name}, {size} pixels, which the view at test time is "
            f"cut to. Choose at least {size}, or 0 for no crop."
        )
    return size


def main_head(heads: str) -> str:
    """The head whose probabilities are served. heads: "all", of which it is the mean, or the name of one head."""
    return "mean" if heads == "all" else heads


def are_probabilities(outputs: tf.Tensor) -> tf.Tensor:
    """Whether all rows of [B, C] are probabilities: none below 0, and of the sum 1 up to float16's rounding."""
    return tf.reduce_all(outputs >= 0) & tf.reduce_all(tf.abs(tf.reduce_sum(outputs, -1) - 1) < 0.01)


def shares(outputs: tf.Tensor) -> tf.Tensor:
    """float32 [B, C], the probabilities of outputs that are logits, or probabilities already as a teacher's may be."""
    outputs = tf.cast(outputs, tf.float32)
    return tf.where(are_probabilities(outputs), outputs, tf.nn.softmax(outputs))
