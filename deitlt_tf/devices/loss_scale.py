"""float16: losses are scaled up, so that small gradients do not become zero; a step that overflows is skipped."""

import keras
import tensorflow as tf


class LossScale:
    """The loss is multiplied by `scale`, and the gradients are divided by it.

    scale: a power of two; halved when a gradient overflows, doubled after `growth_steps` steps without an overflow.

    Keras' LossScaleOptimizer does not fit, for two reasons. It does not count a step that it skips, but here the number
    of a step decides which images the step sees and what it draws. And it checks only the gradients of the first
    replica.

    initial: float. First value of `scale`. Defaults to 2^15. growth_steps: int. Defaults to 2000.
    Source: Micikevicius et al., ICLR 2018 (mixed precision training).
    """

    def __init__(self, *, initial: float = 2.0**15, growth_steps: int = 2000):
        self.growth_steps = growth_steps
        self.scale = keras.Variable(initial, dtype="float32", trainable=False, name="loss_scale")
        # int64: TensorFlow keeps int32 variables off the GPU.
        self.good_steps = keras.Variable(0, dtype="int64", trainable=False, name="steps_since_overflow")

    @property
    def variables(self) -> list[keras.Variable]:
        return [self.scale, self.good_steps]

    def next_values(self, finite: tf.Tensor) -> list[tf.Tensor]:
        """The values of `variables` after a step. finite: bool, whether the step's gradients were finite."""
        scale, good_steps = tf.convert_to_tensor(self.scale), tf.convert_to_tensor(self.good_steps) + 1
        grows = good_steps >= self.growth_steps
        scale = tf.where(finite, tf.where(grows, scale * 2, scale), scale / 2)
        return [tf.clip_by_value(scale, 1.0, 2.0**24), tf.where(finite & ~grows, good_steps, 0)]


def of(network: keras.Model) -> LossScale | None:
    """A new LossScale for a network with a layer that computes in float16; None for other networks."""
    return LossScale() if any(layer.compute_dtype == "float16" for layer in network.layers) else None
