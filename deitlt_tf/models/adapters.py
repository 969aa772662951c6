"""Small trained additions to the blocks of a frozen Vision Transformer. At their start they change nothing.

Source: Shi et al., ICML 2024 (LIFT, arXiv 2309.10019); Chen et al., NeurIPS 2022 (AdaptFormer, arXiv 2205.13535); Hu et
al., ICLR 2022 (LoRA, arXiv 2106.09685).
"""

import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from deitlt_tf.models import kernels
from deitlt_tf.models.convolutions import batch_norms

EPSILON = 1e-5  # of AdaptFormer's own LayerNorm


def rank_by_rule(num_classes: int, *, depth: int) -> int:
    """2^max(0, floor(log2(C / (2 L)))): the more classes, the wider the adapters. Source: LIFT, section 4.

    num_classes: C. depth: L, blocks of the network.

    >>> [rank_by_rule(classes, depth=12) for classes in (10, 100, 365, 1000, 8142)]
    [1, 4, 8, 32, 256]
    """
    return 2 ** max(0, math.floor(math.log2(num_classes / (2 * depth))))


def _kaiming() -> keras.Initializer:
    """U(-a, a) with a = 1 / sqrt(inputs): torch's Kaiming uniform with a = sqrt 5."""
    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")


HEADS = ("head", "head_dist", "fc")  # layers that answer
NORMS = ("gamma", "beta")  # weights of LayerNorm and BatchNorm


def freeze(model: keras.Model, *, tune: str) -> None:
    """Set `trainable` of every weight: the heads are trained, and what `tune` names; all else is frozen.

    tune: "adaptformer" or "lora", which the network has to have; "bias", all biases, those of norms too; "norm",
      factors and biases of all norms; "head", nothing besides; "all".
    BatchNorm normalises by its moving statistics, which stay as they are: they fit, because the kernels before it stay.
    With "all" it goes by each batch. Under the old statistics, kernels that are trained would grow until all images
    answer alike.
    Raises ValueError where the network has nothing of the kind.
    """
    tuned: dict[str, Callable[[list[str], str], bool]] = {
        "adaptformer": lambda layers, name: "adapter" in layers,
        "lora": lambda layers, name: "lora" in layers,
        "bias": lambda layers, name: name in ("bias", "beta"),
        "norm": lambda layers, name: name in NORMS,
        "head": lambda layers, name: False,
        "all": lambda layers, name: True,
    }
    count = 0
    for variable in model.trainable_variables:
        *layers, name = variable.path.split("/")
        in_head, wanted = layers[0] in HEADS, tuned[tune](layers, name)
        variable.trainable = in_head or wanted
        count += wanted and not in_head
    if not count and tune != "head":
        raise ValueError(f"{model.name} has nothing that tune={tune} could train: choose bias, norm, head or all.")
    for norm in batch_norms(model):
        norm.keeps_statistics = tune != "all"


@keras.saving.register_keras_serializable(package="deitlt_tf")
class AdaptFormer(keras.layers.Layer):
    """s Up(ReLU(Down(LN x))), which a block adds next to its MLP: [..., T, D] -> [..., T, D]; 0 at the start.

    rank: int. r, channels between Down [D, r] and Up [r, D]. The layer has D (2 r + 3) + r + 1 weights.
    """

    def __init__(self, rank: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.rank = rank

    def build(self, input_shape: tuple) -> None:
        d, r = input_shape[-1], self.rank
        self.gamma = self.add_weight(name="norm_gamma", shape=(d,), initializer="ones")
        self.beta = self.add_weight(name="norm_beta", shape=(d,), initializer="zeros")
        self.down = self.add_weight(name="down", shape=(d, r), initializer=_kaiming())
        self.down_bias = self.add_weight(name="down_bias", shape=(r,), initializer="zeros")
        self.up = self.add_weight(name="up", shape=(r, d), initializer="zeros")
        self.up_bias = self.add_weight(name="up_bias", shape=(d,), initializer="zeros")
        self.scale = self.add_weight(name="scale", shape=(1,), initializer="ones")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        wide = (tf.cast(v, tf.float32) for v in (x, self.gamma, self.beta))
        normal = tf.cast(kernels.layer_norm(*wide, epsilon=EPSILON), self.compute_dtype)
        down, down_bias, up, up_bias, scale = (
            tf.cast(v, self.compute_dtype) for v in (self.down, self.down_bias, self.up, self.up_bias, self.scale)
        )
        rows = tf.nn.relu(tf.matmul(tf.reshape(normal, (-1, x.shape[-1])), down) + down_bias)
        return tf.reshape(scale * (tf.matmul(rows, up) + up_bias), (-1, *x.shape[1:]))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"rank": self.rank}


@keras.saving.register_keras_serializable(package="deitlt_tf")
class Lora(keras.layers.Layer):
    """x [A_q B_q, 0, A_v B_v] / r, which an attention adds to its q, k and v: rows [N, D] -> [N, 3 D]; 0 at the start.

    rank: int. r, columns of A_q and A_v. The layer has 4 D r weights.
    """

    def __init__(self, rank: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.rank = rank

    def build(self, input_shape: tuple) -> None:
        d, r = input_shape[-1], self.rank
        self.q_down = self.add_weight(name="q_down", shape=(d, r), initializer=_kaiming())
        self.q_up = self.add_weight(name="q_up", shape=(r, d), initializer="zeros")
        self.v_down = self.add_weight(name="v_down", shape=(d, r), initializer=_kaiming())
        self.v_up = self.add_weight(name="v_up", shape=(r, d), initializer="zeros")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        q_down, q_up, v_down, v_up = (
            tf.cast(v, self.compute_dtype) for v in (self.q_down, self.q_up, self.v_down, self.v_up)
        )
        q, v = tf.matmul(tf.matmul(x, q_down), q_up), tf.matmul(tf.matmul(x, v_down), v_up)
        return tf.concat([q, tf.zeros_like(q), v], -1) / self.rank

    def product(self) -> tf.Tensor:
        """The matrix [D, 3 D] by which `call` multiplies, float32: an export adds it to the kernel of q, k and v."""
        q, v = tf.matmul(self.q_down, self.q_up), tf.matmul(self.v_down, self.v_up)
        return tf.concat([q, tf.zeros_like(q), v], -1) / self.rank

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"rank": self.rank}
