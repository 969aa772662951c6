"""Convolution and BatchNorm as one operation: what ResNets and the students' stems are built of.

Padding is torch's. BatchNorm statistics are synchronised, so that two replicas equal one; the running variance is
biased, as in Keras.
"""

from typing import Any

import keras
import tensorflow as tf


def convolution(
    filters: int, kernel: int, *, stride: int = 1, groups: int = 1, mode: str, name: str, dtype: object = None
) -> keras.layers.Conv2D:
    """A convolution without bias, kaiming normal over `mode`. With a stride it does not pad: `pad` does."""
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
    """keras.layers.BatchNormalization over the batches of all replicas, computed by TensorFlow's fused kernel.

    In training the kernel takes a quarter of the time. In inference the blocks fold the layer into the convolution
    before it (`normed`). With several replicas training uses Keras' own operations, because the kernel sees only the
    batch of one replica.

    keeps_statistics: whether training normalises by the moving statistics, too, and leaves them as they are. A program
      that freezes the convolutions before the layer sets it; no file holds it.
    """

    def __init__(self, momentum: float = 0.9, epsilon: float = 1e-5, synchronized: bool = True, **kwargs: Any):
        super().__init__(momentum=momentum, epsilon=epsilon, synchronized=synchronized, **kwargs)
        self.keeps_statistics = False

    def by_batch(self, training: bool | None) -> bool:
        """Whether it normalises by the batch's own statistics."""
        return bool(training and self.trainable and not self.keeps_statistics)

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None) -> tf.Tensor:
        training = self.by_batch(training)
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
            variance *= (count - 1) / count  # from the kernel's unbiased variance to the biased one that Keras keeps
            for old, new in zip(moving, (mean, variance), strict=True):
                old.assign(old * self.momentum + new * (1 - self.momentum))
        return tf.cast(y, self.compute_dtype)


def batch_norms(model: keras.Model) -> list[BatchNorm]:
    """All of a model, those inside its layers too."""
    return [layer for layer in model._flatten_layers() if isinstance(layer, BatchNorm)]


def normed(conv: keras.layers.Conv2D, norm: BatchNorm, x: tf.Tensor, *, training: bool | None) -> tf.Tensor:
    """norm(conv(x)). In inference the moving statistics are folded into the kernel: a convolution with a bias.

    On a CPU TensorFlow then fuses convolution, bias, sum and ReLU into one operation. With FusedBatchNorm it fuses only
    in float32, and without the sum.
    """
    if norm.by_batch(training):
        return norm(conv(x), training=True)
    scale = norm.gamma * tf.math.rsqrt(norm.moving_variance + norm.epsilon)
    y = conv.convolution_op(x, tf.cast(conv.kernel * scale, x.dtype))
    return tf.nn.bias_add(y, tf.cast(norm.beta - norm.moving_mean * scale, x.dtype))


def maps(channels: int) -> tuple:
    """The shape to build a layer with. It has no size, because Keras would check it before padding and refuse 2x2."""
    return (None, None, None, channels)


def pad(x: tf.Tensor, stride: int) -> tf.Tensor:
    """x with one pixel on each side, for a 3x3 convolution with stride. Keras' "same" would pad only one side."""
    return x if stride == 1 else tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
