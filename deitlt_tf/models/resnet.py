"""Residual networks, the teachers, in three families.

    cifar_resnet     ResNet-8/20/32         3x3 stem, 16/32/64 channels, shortcuts without weights
    basic_resnet     ResNet-18/34 of CIFAR  3x3 stem, 64/128/256/512 channels, projected shortcuts
    resnet           ResNet-50/101/152 v1.5, ResNeXt-50

Weights carry the official checkpoint's names (`layer1.0.conv1` ...), hence the dots in layer names. Padding is torch's.
BatchNorm statistics are synchronised, so that two replicas equal one; the running variance is Keras' biased one.
Source: val-iisc/DeiT-LT teacher_models/resnet_cifar.py; torchvision models/resnet.py; He et al. 2015, arXiv 1512.03385;
Xie et al., CVPR 2017 (ResNeXt).
"""

import math
from collections.abc import Callable
from functools import partial

import keras
import tensorflow as tf


def _conv(
    filters: int, kernel: int, *, stride: int = 1, groups: int = 1, mode: str, name: str, dtype: object = None
) -> keras.layers.Conv2D:
    """Bias-free convolution, kaiming normal over `mode`. With a stride it does not pad: `_pad` does."""
    return keras.layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        groups=groups,
        padding="same" if stride == 1 else "valid",
        use_bias=False,
        kernel_initializer=keras.initializers.VarianceScaling(2.0, mode, "untruncated_normal"),
        name=name,
        dtype=dtype,
    )


@keras.saving.register_keras_serializable(package="deitlt_tf")
class BatchNorm(keras.layers.BatchNormalization):
    """keras.layers.BatchNormalization over the batches of all replicas, by TensorFlow's fused kernel.

    In training it takes a quarter of the time; in inference blocks fold it into the convolution before it (`_normed`).
    What several replicas train with is Keras' own: the kernel knows of one only.
    """

    def __init__(self, momentum=0.9, epsilon=1e-5, synchronized=True, **kwargs):
        super().__init__(momentum=momentum, epsilon=epsilon, synchronized=synchronized, **kwargs)

    def call(self, inputs, training=None, mask=None):
        training = bool(training and self.trainable)
        if training and tf.distribute.get_strategy().num_replicas_in_sync > 1:
            return super().call(inputs, training=True, mask=mask)
        moving = (self.moving_mean, self.moving_variance)
        y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=tf.cast(inputs, tf.float32) if training else inputs,
            scale=tf.cast(self.gamma, tf.float32),
            offset=tf.cast(self.beta, tf.float32),
            mean=[] if training else tf.cast(moving[0], tf.float32),
            variance=[] if training else tf.cast(moving[1], tf.float32),
            epsilon=self.epsilon,
            is_training=training,
        )
        if training:
            count = tf.cast(tf.size(inputs) // inputs.shape[-1], tf.float32)
            variance *= (count - 1) / count  # from the unbiased one to what Keras, on replicas too, keeps
            for old, new in zip(moving, (mean, variance), strict=True):
                old.assign(old * self.momentum + new * (1 - self.momentum))
        return tf.cast(y, self.compute_dtype)


def _normed(conv: keras.layers.Conv2D, norm: BatchNorm, x: tf.Tensor, *, training: bool | None) -> tf.Tensor:
    """norm(conv(x)). In inference the moving statistics are taken into the kernel: a convolution with a bias.

    On a CPU TensorFlow then makes one operation of it, the sum and the ReLU that follow; with FusedBatchNorm it does so
    in float32 only, and without the sum.
    """
    if training and norm.trainable:
        return norm(conv(x), training=True)
    scale = norm.gamma * tf.math.rsqrt(norm.moving_variance + norm.epsilon)
    y = conv.convolution_op(x, tf.cast(conv.kernel * scale, x.dtype))
    return tf.nn.bias_add(y, tf.cast(norm.beta - norm.moving_mean * scale, x.dtype))


def _maps(channels: int) -> tuple:
    """The shape to build a layer with: no size, because Keras would check it before padding, and refuse 2x2."""
    return (None, None, None, channels)


def _projection(channels: int, out: int, *, stride: int, mode: str, dtype: object) -> tuple:
    """The shortcut where the shape changes: a built 1x1 convolution and its BatchNorm; (None, None) elsewhere."""
    if stride == 1 and channels == out:
        return None, None
    conv = _conv(out, 1, stride=stride, mode=mode, name="downsample.0", dtype=dtype)
    norm = BatchNorm(name="downsample.1", dtype=dtype)
    conv.build(_maps(channels))
    norm.build(_maps(out))
    return conv, norm


def _pad(x: tf.Tensor, stride: int) -> tf.Tensor:
    """One pixel on each side for a 3x3 convolution with stride; Keras' "same" would put it on one side only."""
    return x if stride == 1 else tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])


def _shape(shape: tuple, stride: int, channels: int) -> tuple:
    """A block's output for its input [B, H, W, C]. Known by formula, it spares Keras a trace of each block."""
    return (shape[0], *(None if n is None else -(-n // stride) for n in shape[1:3]), channels)


@keras.saving.register_keras_serializable(package="deitlt_tf")
class BasicBlock(keras.layers.Layer):
    """relu(x + bn2(conv2(relu(bn1(conv1(x)))))), 3x3 each: [B, H, W, C] -> [B, H/s, W/s, F].

    The shortcut has no weights (option A): every s-th pixel, new channels zero, half of them on each side; or, where
    the shape changes, it is a 1x1 convolution with BatchNorm (option B, `downsample`).
    filters: int. F.
    stride: int. s, in the first convolution. Defaults to 1.
    projection: bool. Option B. Defaults to False.
    """

    def __init__(self, filters: int, stride: int = 1, projection: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.filters, self.stride, self.projection = filters, stride, projection

    def build(self, input_shape):
        policy, channels, f = self.dtype_policy, input_shape[-1], self.filters
        self.conv1 = _conv(f, 3, stride=self.stride, mode="fan_in", name="conv1", dtype=policy)
        self.conv2 = _conv(f, 3, mode="fan_in", name="conv2", dtype=policy)
        self.bn1, self.bn2 = BatchNorm(name="bn1", dtype=policy), BatchNorm(name="bn2", dtype=policy)
        self.extra = (f - channels) // 2
        self.conv1.build(_maps(channels))
        for layer in (self.bn1, self.conv2, self.bn2):
            layer.build(_maps(f))
        if self.projection:
            common = {"mode": "fan_in", "dtype": policy}
            self.downsample, self.downsample_bn = _projection(channels, f, stride=self.stride, **common)

    def compute_output_shape(self, input_shape):
        return _shape(input_shape, self.stride, self.filters)

    def call(self, x, training=None):
        y = tf.nn.relu(_normed(self.conv1, self.bn1, _pad(x, self.stride), training=training))
        return tf.nn.relu(_normed(self.conv2, self.bn2, y, training=training) + self.shortcut(x, training))

    def shortcut(self, x, training):
        if not self.projection:
            if self.stride > 1:
                x = tf.nn.avg_pool2d(x, 1, self.stride, "VALID")  # x[:, ::s, ::s], which takes five times as long
            return tf.pad(x, [[0, 0], [0, 0], [0, 0], [self.extra, self.extra]])
        return x if self.downsample is None else _normed(self.downsample, self.downsample_bn, x, training=training)

    def get_config(self):
        own = {"filters": self.filters, "stride": self.stride, "projection": self.projection}
        return super().get_config() | own


@keras.saving.register_keras_serializable(package="deitlt_tf")
class Bottleneck(keras.layers.Layer):
    """relu(shortcut(x) + 1x1, 3x3, 1x1 convolutions, each with BatchNorm): [B, H, W, C] -> [B, H/s, W/s, 4F].

    The shortcut is a 1x1 convolution with BatchNorm (`downsample`) where the shape changes.
    filters: int. F.
    stride: int. s, in the 3x3 convolution (v1.5). Defaults to 1.
    groups: int. Of the 3x3 convolution, which works within each of them. Defaults to 1.
    width_per_group: int. Channels of a group where F is 64; the 3x3 has F / 64 * groups * that many. Defaults to 64.
    """

    def __init__(self, filters: int, stride: int = 1, groups: int = 1, width_per_group: int = 64, **kwargs):
        super().__init__(**kwargs)
        self.filters, self.stride, self.groups, self.width_per_group = filters, stride, groups, width_per_group

    def build(self, input_shape):
        policy, channels, out = self.dtype_policy, input_shape[-1], 4 * self.filters
        inner = self.filters * self.width_per_group // 64 * self.groups
        common = {"mode": "fan_out", "dtype": policy}
        self.conv1, self.bn1 = _conv(inner, 1, name="conv1", **common), BatchNorm(name="bn1", dtype=policy)
        self.conv2 = _conv(inner, 3, stride=self.stride, groups=self.groups, name="conv2", **common)
        self.bn2 = BatchNorm(name="bn2", dtype=policy)
        self.conv3, self.bn3 = _conv(out, 1, name="conv3", **common), BatchNorm(name="bn3", dtype=policy)
        self.conv1.build(_maps(channels))
        for layer in (self.bn1, self.conv2, self.bn2, self.conv3):
            layer.build(_maps(inner))
        self.bn3.build(_maps(out))
        self.downsample, self.downsample_bn = _projection(channels, out, stride=self.stride, **common)

    def compute_output_shape(self, input_shape):
        return _shape(input_shape, self.stride, 4 * self.filters)

    def call(self, x, training=None):
        y = tf.nn.relu(_normed(self.conv1, self.bn1, x, training=training))
        y = tf.nn.relu(_normed(self.conv2, self.bn2, _pad(y, self.stride), training=training))
        y = _normed(self.conv3, self.bn3, y, training=training)
        if self.downsample is not None:
            x = _normed(self.downsample, self.downsample_bn, x, training=training)
        return tf.nn.relu(y + x)

    def get_config(self):
        own = {"filters": self.filters, "stride": self.stride}
        return super().get_config() | own | {"groups": self.groups, "width_per_group": self.width_per_group}


@keras.saving.register_keras_serializable(package="deitlt_tf")
class CosineClassifier(keras.layers.Layer):
    """scale * cos(x, w_c) for each class c, float32: [B, D] -> [B, C].

    num_classes: int. C.
    scale: float. Defaults to 1, as in the official code: LDAM's 30 belongs to the loss.
    Source: NormedLinear, resnet_cifar.py; its weight is [D, C], unlike torch's Linear.
    """

    def __init__(self, num_classes: int, scale: float = 1.0, **kwargs):
        super().__init__(**kwargs | {"dtype": "float32"})
        self.num_classes, self.scale = num_classes, scale

    def build(self, input_shape):
        uniform = keras.initializers.RandomUniform(-1.0, 1.0)

        def unit_columns(shape, dtype=None):
            return tf.math.l2_normalize(uniform(shape, dtype=dtype), axis=0)

        self.weight = self.add_weight(
            name="weight", shape=(input_shape[-1], self.num_classes), initializer=unit_columns
        )

    def call(self, x):
        x, weight = tf.math.l2_normalize(x, axis=1), tf.math.l2_normalize(tf.convert_to_tensor(self.weight), axis=0)
        return self.scale * tf.matmul(x, weight)

    def get_config(self):
        return super().get_config() | {"num_classes": self.num_classes, "scale": self.scale}


def _classify(
    x: keras.KerasTensor, *, num_classes: int, classifier: str, kernel: keras.Initializer
) -> keras.KerasTensor:
    """Feature maps -> pooled features [B, D] -> float32 logits [B, C], pooled in float32 whatever the precision."""
    x = keras.layers.GlobalAveragePooling2D(name="avgpool", dtype="float32")(x)
    if classifier == "cosine":
        return CosineClassifier(num_classes, name="fc")(x)
    if classifier != "linear":
        raise ValueError(f"unknown classifier {classifier!r}: choose linear or cosine")
    bound = 1 / math.sqrt(x.shape[-1])
    bias = keras.initializers.RandomUniform(-bound, bound)  # torch's default, which the official code keeps
    return keras.layers.Dense(
        num_classes, kernel_initializer=kernel, bias_initializer=bias, name="fc", dtype="float32"
    )(x)


def cifar_resnet(
    x: keras.KerasTensor, *, num_classes: int, blocks: int, classifier: str = "linear"
) -> keras.KerasTensor:
    """Normalised images [B, S, S, 3] -> float32 logits [B, C]; 6 * blocks + 2 layers, 16/32/64 channels.

    classifier: "linear", or "cosine" for LDAM. Source: resnet_cifar.py; He et al. 2015, section 4.2.
    """
    x = _conv(16, 3, mode="fan_in", name="conv1")(x)
    x = keras.layers.ReLU(name="relu")(BatchNorm(name="bn1")(x))
    for stage, filters in enumerate((16, 32, 64), 1):
        for i in range(blocks):
            x = BasicBlock(filters, 2 if i == 0 and stage > 1 else 1, name=f"layer{stage}.{i}")(x)
    kernel = keras.initializers.VarianceScaling(2.0, "fan_in", "untruncated_normal")
    return _classify(x, num_classes=num_classes, classifier=classifier, kernel=kernel)


def basic_resnet(
    x: keras.KerasTensor, *, num_classes: int, blocks: tuple[int, int, int, int], classifier: str = "linear"
) -> keras.KerasTensor:
    """Normalised small images [B, S, S, 3] -> float32 logits [B, C]; (3, 4, 6, 3) is the ResNet-34 of GLMC.

    torchvision's ResNet-18/34 but for the stem, one 3x3 convolution, so that 32 pixels become 4 and not 1.
    classifier: "linear", or "cosine" for LDAM. Source: ynu-yangpeng/GLMC model/ResNet_cifar.py (class ResNet).
    """
    x = _conv(64, 3, mode="fan_in", name="conv1")(x)
    x = keras.layers.ReLU(name="relu")(BatchNorm(name="bn1")(x))
    x = _stages(x, partial(BasicBlock, projection=True), blocks)
    return _classify(x, num_classes=num_classes, classifier=classifier, kernel=_linear_kernel())


def resnet(
    x: keras.KerasTensor,
    *,
    num_classes: int,
    blocks: tuple[int, int, int, int],
    groups: int = 1,
    width_per_group: int = 64,
    classifier: str = "linear",
) -> keras.KerasTensor:
    """Normalised images [B, S, S, 3] -> float32 logits [B, C]; bottleneck blocks per stage, (3, 4, 6, 3) is ResNet-50.

    groups, width_per_group: of a bottleneck's 3x3 convolution; 32 and 4 are ResNeXt's, 1 and 128 Wide ResNet's.
    classifier: "linear", or "cosine" for LDAM. Source: torchvision models/resnet.py (v1.5).
    """
    x = keras.layers.ZeroPadding2D(3, name="pad1")(x)
    x = _conv(64, 7, stride=2, mode="fan_out", name="conv1")(x)
    x = keras.layers.ReLU(name="relu")(BatchNorm(name="bn1")(x))
    x = keras.layers.ZeroPadding2D(1, name="pad2")(x)  # after relu nothing is below zero
    x = keras.layers.MaxPooling2D(3, strides=2, name="maxpool")(x)
    x = _stages(x, partial(Bottleneck, groups=groups, width_per_group=width_per_group), blocks)
    return _classify(x, num_classes=num_classes, classifier=classifier, kernel=_linear_kernel())


def _stages(x: keras.KerasTensor, block: Callable[..., keras.Layer], blocks: tuple) -> keras.KerasTensor:
    """layer1 .. layer4 of 64, 128, 256 and 512 filters; each but the first halves the image."""
    for stage, (filters, count) in enumerate(zip((64, 128, 256, 512), blocks, strict=True), 1):
        for i in range(count):
            x = block(filters, 2 if i == 0 and stage > 1 else 1, name=f"layer{stage}.{i}")(x)
    return x


def _linear_kernel() -> keras.Initializer:
    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")  # torch's default for Linear
