"""Residual networks, the teachers, in three families.

    cifar_resnet     ResNet-8/20/32         3x3 stem, 16/32/64 channels, shortcuts without weights
    basic_resnet     ResNet-18/34 of CIFAR  3x3 stem, 64/128/256/512 channels, projected shortcuts
    resnet           ResNet-50/101/152 v1.5, ResNeXt-50

Weights have the names of the official checkpoint (`layer1.0.conv1` ...), so layer names contain dots.
Source: val-iisc/DeiT-LT teacher_models/resnet_cifar.py; torchvision models/resnet.py; He et al. 2015, arXiv 1512.03385;
Xie et al., CVPR 2017 (ResNeXt).
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import tensorflow as tf

from deitlt_tf.models.convolutions import BatchNorm, convolution, maps, normed, pad


def _projection(channels: int, out: int, *, stride: int, mode: str, dtype: object) -> tuple:
    """The shortcut where the shape changes, a built 1x1 convolution and its BatchNorm; (None, None) elsewhere."""
    if stride == 1 and channels == out:
        return None, None
    conv = convolution(out, 1, stride=stride, mode=mode, name="downsample.0", dtype=dtype)
    norm = BatchNorm(name="downsample.1", dtype=dtype)
    conv.build(maps(channels))
    norm.build(maps(out))
    return conv, norm


def _shape(shape: tuple, stride: int, channels: int) -> tuple:
    """Output shape of a block for its input [B, H, W, C]. With this formula Keras need not trace each block."""
    return (shape[0], *(None if n is None else -(-n // stride) for n in shape[1:3]), channels)


@keras.saving.register_keras_serializable(package="deitlt_tf")
class BasicBlock(keras.layers.Layer):
    """relu(x + bn2(conv2(relu(bn1(conv1(x)))))), 3x3 each: [B, H, W, C] -> [B, H/s, W/s, F].

    The shortcut of option A has no weights: it takes every s-th pixel, and new channels are zero, half of them on each
    side. The shortcut of option B is a 1x1 convolution with BatchNorm (`downsample`) where the shape changes.

    filters: int. F.
    stride: int. s, in the first convolution. Defaults to 1.
    projection: bool. True: option B. Defaults to False, option A.
    """

    def __init__(self, filters: int, stride: int = 1, projection: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.filters, self.stride, self.projection = filters, stride, projection

    def build(self, input_shape: tuple) -> None:
        policy, channels, f = self.dtype_policy, input_shape[-1], self.filters
        self.conv1 = convolution(f, 3, stride=self.stride, mode="fan_in", name="conv1", dtype=policy)
        self.conv2 = convolution(f, 3, mode="fan_in", name="conv2", dtype=policy)
        self.bn1, self.bn2 = BatchNorm(name="bn1", dtype=policy), BatchNorm(name="bn2", dtype=policy)
        self.extra = (f - channels) // 2
        self.conv1.build(maps(channels))
        for layer in (self.bn1, self.conv2, self.bn2):
            layer.build(maps(f))
        if self.projection:
            common = {"mode": "fan_in", "dtype": policy}
            self.downsample, self.downsample_bn = _projection(channels, f, stride=self.stride, **common)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return _shape(input_shape, self.stride, self.filters)

    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        y = tf.nn.relu(normed(self.conv1, self.bn1, pad(x, self.stride), training=training))
        return tf.nn.relu(normed(self.conv2, self.bn2, y, training=training) + self.shortcut(x, training))

    def shortcut(self, x: tf.Tensor, training: bool | None) -> tf.Tensor:
        """x with the shape of the block's output."""
        if not self.projection:
            if self.stride > 1:
                x = tf.nn.avg_pool2d(x, 1, self.stride, "VALID")  # = x[:, ::s, ::s], in a fifth of the time
            return tf.pad(x, [[0, 0], [0, 0], [0, 0], [self.extra, self.extra]])
        return x if self.downsample is None else normed(self.downsample, self.downsample_bn, x, training=training)

    def get_config(self) -> dict[str, Any]:
        own = {"filters": self.filters, "stride": self.stride, "projection": self.projection}
        return super().get_config() | own


@keras.saving.register_keras_serializable(package="deitlt_tf")
class Bottleneck(keras.layers.Layer):
    """relu(shortcut(x) + 1x1, 3x3, 1x1 convolutions, each with BatchNorm): [B, H, W, C] -> [B, H/s, W/s, 4F].

    The shortcut is a 1x1 convolution with BatchNorm (`downsample`) where the shape changes.

    filters: int. F.
    stride: int. s, in the 3x3 convolution (v1.5). Defaults to 1.
    groups: int. Groups of the 3x3 convolution. Defaults to 1.
    width_per_group: int. Channels of a group where F is 64; the 3x3 convolution has F / 64 * groups * width_per_group
      channels. Defaults to 64.
    """

    def __init__(self, filters: int, stride: int = 1, groups: int = 1, width_per_group: int = 64, **kwargs: Any):
        super().__init__(**kwargs)
        self.filters, self.stride, self.groups, self.width_per_group = filters, stride, groups, width_per_group

    def build(self, input_shape: tuple) -> None:
        policy, channels, out = self.dtype_policy, input_shape[-1], 4 * self.filters
        inner = self.filters * self.width_per_group // 64 * self.groups
        common = {"mode": "fan_out", "dtype": policy}
        self.conv1, self.bn1 = convolution(inner, 1, name="conv1", **common), BatchNorm(name="bn1", dtype=policy)
        self.conv2 = convolution(inner, 3, stride=self.stride, groups=self.groups, name="conv2", **common)
        self.bn2 = BatchNorm(name="bn2", dtype=policy)
        self.conv3, self.bn3 = convolution(out, 1, name="conv3", **common), BatchNorm(name="bn3", dtype=policy)
        self.conv1.build(maps(channels))
        for layer in (self.bn1, self.conv2, self.bn2, self.conv3):
            layer.build(maps(inner))
        self.bn3.build(maps(out))
        self.downsample, self.downsample_bn = _projection(channels, out, stride=self.stride, **common)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return _shape(input_shape, self.stride, 4 * self.filters)

    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        y = tf.nn.relu(normed(self.conv1, self.bn1, x, training=training))
        y = tf.nn.relu(normed(self.conv2, self.bn2, pad(y, self.stride), training=training))
        y = normed(self.conv3, self.bn3, y, training=training)
        if self.downsample is not None:
            x = normed(self.downsample, self.downsample_bn, x, training=training)
        return tf.nn.relu(y + x)

    def get_config(self) -> dict[str, Any]:
        own = {"filters": self.filters, "stride": self.stride}
        return super().get_config() | own | {"groups": self.groups, "width_per_group": self.width_per_group}


@keras.saving.register_keras_serializable(package="deitlt_tf")
class CosineClassifier(keras.layers.Layer):
    """scale * cos(x, w_c) for each class c, float32: [B, D] -> [B, C].

    num_classes: int. C.
    scale: float. Factor of the cosines, which makes them logits for every loss. Defaults to 1: bare cosines, as in the
      official code, where LDAM's 30 is part of the loss. A softmax of bare cosines is nearly even.
    Source: NormedLinear, resnet_cifar.py; its weight is [D, C], unlike that of torch's Linear.
    """

    def __init__(self, num_classes: int, scale: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs | {"dtype": "float32"})
        self.num_classes, self.scale = num_classes, scale

    def build(self, input_shape: tuple) -> None:
        uniform = keras.initializers.RandomUniform(-1.0, 1.0)

        def unit_columns(shape: tuple, dtype: str | None = None) -> tf.Tensor:
            return tf.math.l2_normalize(uniform(shape, dtype=dtype), axis=0)

        self.weight = self.add_weight(
            name="weight", shape=(input_shape[-1], self.num_classes), initializer=unit_columns
        )

    def call(self, x: tf.Tensor) -> tf.Tensor:
        x, weight = tf.math.l2_normalize(x, axis=1), tf.math.l2_normalize(tf.convert_to_tensor(self.weight), axis=0)
        return self.scale * tf.matmul(x, weight)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"num_classes": self.num_classes, "scale": self.scale}


def _classify(
    x: keras.KerasTensor, *, num_classes: int, classifier: str, scale: float, kernel: keras.Initializer
) -> keras.KerasTensor:
    """Feature maps -> pooled features [B, D] -> float32 logits [B, C]. Pooling is in float32 for every dtype policy."""
    x = keras.layers.GlobalAveragePooling2D(name="avgpool", dtype="float32")(x)
    if classifier == "cosine":
        return CosineClassifier(num_classes, scale=scale, name="fc")(x)
    if classifier != "linear":
        raise ValueError(f"classifier={classifier} is unknown: choose linear or cosine.")
    bound = 1 / math.sqrt(x.shape[-1])
    bias = keras.initializers.RandomUniform(-bound, bound)  # torch's default, also in the official code
    return keras.layers.Dense(
        num_classes, kernel_initializer=kernel, bias_initializer=bias, name="fc", dtype="float32"
    )(x)


def cifar_resnet(
    x: keras.KerasTensor, *, num_classes: int, blocks: int, classifier: str = "linear", scale: float = 1.0
) -> keras.KerasTensor:
    """Normalised images [B, S, S, 3] -> float32 logits [B, C]; 6 * blocks + 2 layers, 16/32/64 channels.

    blocks: blocks of each stage.
    classifier, scale: "linear", or "cosine" for LDAM with the factor of its cosines. Default to "linear" and 1.
    Source: resnet_cifar.py; He et al. 2015, section 4.2.
    """
    x = convolution(16, 3, mode="fan_in", name="conv1")(x)
    x = keras.layers.ReLU(name="relu")(BatchNorm(name="bn1")(x))
    for stage, filters in enumerate((16, 32, 64), 1):
        for i in range(blocks):
            x = BasicBlock(filters, 2 if i == 0 and stage > 1 else 1, name=f"layer{stage}.{i}")(x)
    kernel = keras.initializers.VarianceScaling(2.0, "fan_in", "untruncated_normal")
    return _classify(x, num_classes=num_classes, classifier=classifier, scale=scale, kernel=kernel)


def basic_resnet(
    x: keras.KerasTensor,
    *,
    num_classes: int,
    blocks: tuple[int, int, int, int],
    classifier: str = "linear",
    scale: float = 1.0,
) -> keras.KerasTensor:
    """Normalised small images [B, S, S, 3] -> float32 logits [B, C]: ResNet-18/34 with a stem for small images.

    The stem is one 3x3 convolution, so that 32 pixels become 4 and not 1. All else is torchvision's ResNet-18/34.
    blocks: blocks of each stage; (3, 4, 6, 3) is the ResNet-34 of GLMC.
    classifier, scale: "linear", or "cosine" for LDAM with the factor of its cosines. Default to "linear" and 1.
    Source: ynu-yangpeng/GLMC model/ResNet_cifar.py (class ResNet).
    """
    x = convolution(64, 3, mode="fan_in", name="conv1")(x)
    x = keras.layers.ReLU(name="relu")(BatchNorm(name="bn1")(x))
    x = _stages(x, partial(BasicBlock, projection=True), blocks)
    return _classify(x, num_classes=num_classes, classifier=classifier, scale=scale, kernel=_linear_kernel())


def resnet(
    x: keras.KerasTensor,
    *,
    num_classes: int,
    blocks: tuple[int, int, int, int],
    groups: int = 1,
    width_per_group: int = 64,
    classifier: str = "linear",
    scale: float = 1.0,
) -> keras.KerasTensor:
    """Normalised images [B, S, S, 3] -> float32 logits [B, C]: ResNet of bottleneck blocks, or ResNeXt.

    blocks: blocks of each stage; (3, 4, 6, 3) is ResNet-50.
    groups, width_per_group: of the 3x3 convolutions, see `Bottleneck`. Default to 1 and 64. ResNeXt has 32 and 4, Wide
      ResNet 1 and 128.
    classifier, scale: "linear", or "cosine" for LDAM with the factor of its cosines. Default to "linear" and 1.
    Source: torchvision models/resnet.py (v1.5).
    """
    x = keras.layers.ZeroPadding2D(3, name="pad1")(x)
    x = convolution(64, 7, stride=2, mode="fan_out", name="conv1")(x)
    x = keras.layers.ReLU(name="relu")(BatchNorm(name="bn1")(x))
    x = keras.layers.ZeroPadding2D(1, name="pad2")(x)  # no value is below 0 after the ReLU, so zeros never win
    x = keras.layers.MaxPooling2D(3, strides=2, name="maxpool")(x)
    x = _stages(x, partial(Bottleneck, groups=groups, width_per_group=width_per_group), blocks)
    return _classify(x, num_classes=num_classes, classifier=classifier, scale=scale, kernel=_linear_kernel())


def _stages(x: keras.KerasTensor, block: Callable[..., keras.Layer], blocks: tuple) -> keras.KerasTensor:
    """layer1 .. layer4 of 64, 128, 256 and 512 filters; each of them except the first halves the image."""
    for stage, (filters, count) in enumerate(zip((64, 128, 256, 512), blocks, strict=True), 1):
        for i in range(count):
            x = block(filters, 2 if i == 0 and stage > 1 else 1, name=f"layer{stage}.{i}")(x)
    return x


def _linear_kernel() -> keras.Initializer:
    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")  # torch's default for Linear
