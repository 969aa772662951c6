"""What may stand in place of a Vision Transformer's patch projection: a convolutional stem."""

import math
from typing import Any

import keras
import tensorflow as tf

from deitlt_tf.models.convolutions import BatchNorm, convolution, maps, normed, pad


@keras.saving.register_keras_serializable(package="deitlt_tf")
class ConvStem(keras.layers.Layer):
    """Normalised images [B, S, S, 3] -> patches [B, S / p, S / p, D], from convolutions that see over their borders.

    At each halving of the side there are a 3x3 convolution of stride 1 and one of stride 2, each with BatchNorm and
    ReLU. Their width is D after the last halving, and half of the next one's before it. At the end there is a 1x1
    convolution with a bias. Neighbouring pixels belong together from the first step on, which patches of pixels would
    have to learn.

    In inference BatchNorm uses its moving statistics. In training it normalises by the batch of all replicas, and with
    `accumulation` by each part of it.

    dim: int. D, a multiple of p / 2.
    patch_size: int. p, a power of 2 above 1.
    Raises ValueError for another p or D.
    Source: Xiao et al. 2021 (arXiv 2106.14881), which has one convolution for each halving.
    """

    def __init__(self, dim: int, patch_size: int, **kwargs: Any):
        super().__init__(**kwargs)
        halvings = int(math.log2(patch_size))
        if halvings < 1 or 2**halvings != patch_size:
            raise ValueError(
                f"stem=conv halves the image several times: patch_size={patch_size} has to be 2, 4, 8, 16 or so."
            )
        if dim % (patch_size // 2):
            raise ValueError(
                f"stem=conv begins with embed_dim * 2 / patch_size channels: embed_dim={dim} has to be a multiple of "
                f"{patch_size // 2}."
            )
        self.dim, self.patch_size = dim, patch_size
        self.widths = [dim >> k for k in reversed(range(halvings))]

    def build(self, input_shape: tuple) -> None:
        channels, policy = input_shape[-1], self.dtype_policy
        self.halvings: list[tuple[keras.layers.Conv2D, BatchNorm]] = []
        for k, width in enumerate(self.widths):
            for i, stride in enumerate((1, 2)):
                conv = convolution(width, 3, stride=stride, mode="fan_out", name=f"{k}.conv{i + 1}", dtype=policy)
                norm = BatchNorm(name=f"{k}.bn{i + 1}", dtype=policy)
                conv.build(maps(channels))
                norm.build(maps(width))
                self.halvings.append((conv, norm))
                channels = width
        uniform = keras.initializers.RandomUniform
        bound = 1 / math.sqrt(channels)  # torch's default for a convolution, as in the patch projection
        self.proj = keras.layers.Conv2D(
            self.dim,
            1,
            kernel_initializer=uniform(-bound, bound),
            bias_initializer=uniform(-bound, bound),
            name="proj",
            dtype=policy,
        )
        self.proj.build(maps(channels))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (input_shape[0], *(side // self.patch_size for side in input_shape[1:3]), self.dim)

    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        for conv, norm in self.halvings:
            x = tf.nn.relu(normed(conv, norm, pad(x, conv.strides[0]), training=training))
        return self.proj(x)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"dim": self.dim, "patch_size": self.patch_size}
