"""EfficientNet-Lite0, 1 and 2: small pre-trained networks without squeeze-and-excitation, with ReLU6.

    stem 3x3, stride 2 -> seven stages of inverted bottlenecks (`MBConv`) -> 1x1 to 1280 channels -> classifier

Padding is TensorFlow's SAME, which the PyTorch port computes as well. Weights have the names of that port without
underscores, and its `_blocks.3` is `mbconv.3`, because `blocks.3` is a block of a Vision Transformer here.
Deviation: no dropout and no drop connect. The networks serve as frozen backbones and as teachers that SAM fine-tunes.
Source: tensorflow/tpu efficientnet/lite/efficientnet_lite_builder.py; Tan and Le, ICML 2019, arXiv 1905.11946.
"""

import math
from typing import Any

import keras
import tensorflow as tf

from deitlt_tf.models.convolutions import BatchNorm, maps, normed
from deitlt_tf.models.resnet import _classify, _linear_kernel

# {number of the network: (factor of the widths, factor of the depths, side of its images in pixels)}
SIZES = {0: (1.0, 1.0, 224), 1: (1.0, 1.1, 240), 2: (1.1, 1.2, 260)}
# Stages of Lite0: blocks, side of the depthwise kernel, stride of the first block, expansion, channels.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM, FEATURES = 32, 1280  # channels after the first and the last convolution, the same in every size
# (pixels - 127) / 128, as statistics of pixels in 0..1.
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3
EPSILON, MOMENTUM = 1e-3, 0.99  # of the batch norms


def _conv(filters: int, kernel: int, *, stride: int = 1, name: str, dtype: object = None) -> keras.layers.Conv2D:
    """A convolution without bias, He normal over its outputs, padded as TensorFlow's SAME."""
    init = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
    return keras.layers.Conv2D(
        filters, kernel, stride, padding="same", use_bias=False, kernel_initializer=init, name=name, dtype=dtype
    )


def _norm(name: str, dtype: object = None) -> BatchNorm:
    return BatchNorm(momentum=MOMENTUM, epsilon=EPSILON, name=name, dtype=dtype)


@keras.saving.register_keras_serializable(package="deitlt_tf")
class DepthwiseConv(keras.layers.Layer):
    """A convolution of each channel with a kernel of its own, without bias: [B, H, W, C] -> [B, H/s, W/s, C].

    The kernel is [k, k, 1, C], which is torch's [C, 1, k, k] transposed as that of any convolution.

    kernel_size: int. k.
    stride: int. s. Defaults to 1.
    """

    def __init__(self, kernel_size: int, stride: int = 1, **kwargs: Any):
        super().__init__(**kwargs)
        self.kernel_size, self.stride = kernel_size, stride

    def build(self, input_shape: tuple) -> None:
        shape = (self.kernel_size, self.kernel_size, 1, input_shape[-1])
        init = keras.initializers.VarianceScaling(2.0, "fan_in", "untruncated_normal")
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer=init)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return _shape(input_shape, self.stride, input_shape[-1])

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return self.convolution_op(x, tf.convert_to_tensor(self.kernel))

    def convolution_op(self, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """The convolution with another kernel of the same shape."""
        k, strides = self.kernel_size, (1, self.stride, self.stride, 1)
        return tf.nn.depthwise_conv2d(x, tf.reshape(kernel, (k, k, -1, 1)), strides, "SAME")

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"kernel_size": self.kernel_size, "stride": self.stride}


def _shape(shape: tuple, stride: int, channels: int) -> tuple:
    return (shape[0], *(None if n is None else -(-n // stride) for n in shape[1:3]), channels)


@keras.saving.register_keras_serializable(package="deitlt_tf")
class MBConv(keras.layers.Layer):
    """Inverted bottleneck: 1x1 convolution to expansion * C channels, k x k depthwise, 1x1 to F: [B, H/s, W/s, F].

    Each has its batch norm; ReLU6 follows the first two. Where the shape does not change, x is added.

    filters: int. F.
    kernel_size: int. k.
    stride: int. s. Defaults to 1.
    expansion: int. 1: there is no first convolution. Defaults to 6.
    """

    def __init__(self, filters: int, kernel_size: int, stride: int = 1, expansion: int = 6, **kwargs: Any):
        super().__init__(**kwargs)
        self.filters, self.kernel_size, self.stride, self.expansion = filters, kernel_size, stride, expansion

    def build(self, input_shape: tuple) -> None:
        policy, channels = self.dtype_policy, input_shape[-1]
        inner = channels * self.expansion
        self.residual = self.stride == 1 and channels == self.filters
        self.expand_conv: keras.layers.Conv2D | None = None
        self.bn0: BatchNorm | None = None
        if self.expansion > 1:
            self.expand_conv = _conv(inner, 1, name="expand_conv", dtype=policy)
            self.bn0 = _norm("bn0", policy)
            self.expand_conv.build(maps(channels))
            self.bn0.build(maps(inner))
        self.depthwise_conv = DepthwiseConv(self.kernel_size, self.stride, name="depthwise_conv", dtype=policy)
        self.project_conv = _conv(self.filters, 1, name="project_conv", dtype=policy)
        self.bn1, self.bn2 = _norm("bn1", policy), _norm("bn2", policy)
        for layer in (self.depthwise_conv, self.bn1, self.project_conv):
            layer.build(maps(inner))
        self.bn2.build(maps(self.filters))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return _shape(input_shape, self.stride, self.filters)

    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        y = x
        if self.bn0 is not None:
            y = tf.nn.relu6(normed(self.expand_conv, self.bn0, y, training=training))
        y = tf.nn.relu6(normed(self.depthwise_conv, self.bn1, y, training=training))
        y = normed(self.project_conv, self.bn2, y, training=training)
        return y + x if self.residual else y

    def get_config(self) -> dict[str, Any]:
        own = {"filters": self.filters, "kernel_size": self.kernel_size}
        return super().get_config() | own | {"stride": self.stride, "expansion": self.expansion}


def channels(width: int, factor: float) -> int:
    """width * factor, rounded to a multiple of 8 that is not more than a tenth smaller. Source: round_filters."""
    scaled = width * factor
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def blocks(number: int) -> list[tuple[int, int, int, int]]:
    """(channels, side of the kernel, stride, expansion) of each `MBConv` of EfficientNet-Lite<number>, in order.

    The first and the last stage keep their depth.
    """
    widths, depths, _ = SIZES[number]
    listed = []
    for stage, (count, kernel, stride, expansion, filters) in enumerate(STAGES):
        repeats = count if stage in (0, len(STAGES) - 1) else math.ceil(count * depths)
        first = (channels(filters, widths), kernel, stride, expansion)
        listed += [first] + [(first[0], kernel, 1, expansion)] * (repeats - 1)
    return listed


def geometry(number: int) -> tuple[int, int]:
    """Number of blocks and channels of the last one: what tells one size from another."""
    return len(blocks(number)), blocks(number)[-1][0]


def efficientnet_lite(
    x: keras.KerasTensor, *, num_classes: int, number: int, classifier: str = "linear", scale: float = 1.0
) -> keras.KerasTensor:
    """Normalised images [B, S, S, 3] -> float32 logits [B, C].

    The pre-trained weights expect (pixels - 127) / 128: `MEAN` and `STD` of this module.
    number: 0, 1 or 2, of `SIZES`.
    classifier, scale: "linear", or "cosine" with the factor of its cosines. Default to "linear" and 1.
    Source: efficientnet_lite_builder.py, with fix_head_stem.
    """
    x = _conv(STEM, 3, stride=2, name="conv_stem")(x)
    x = keras.layers.ReLU(6.0, name="stem_relu")(_norm("bn0")(x))
    for i, (filters, kernel, stride, expansion) in enumerate(blocks(number)):
        x = MBConv(filters, kernel, stride, expansion, name=f"mbconv.{i}")(x)
    x = _conv(FEATURES, 1, name="conv_head")(x)
    x = keras.layers.ReLU(6.0, name="head_relu")(_norm("bn1")(x))
    return _classify(x, num_classes=num_classes, classifier=classifier, scale=scale, kernel=_linear_kernel())
