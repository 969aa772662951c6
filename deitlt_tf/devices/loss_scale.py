"""float16: losses are scaled up, so that small gradients do not vanish; a step that overflows moves nothing."""

import keras
import tensorflow as tf


class LossScale:
    """The loss is multiplied by `scale`, and the gradients are divided by it.

    scale: a power of two; halved when a gradient overflows, doubled after `growth_steps` steps without.
    Not Keras' LossScaleOptimizer: it stands still for a step that it skips, and here a step's number says which images
    it shows and what is drawn; and it asks the first replica alone whether gradients are finite.
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

    def after(self, finite: tf.Tensor) -> list[tf.Tensor]:
        """The variables' values after a step."""
        scale, good = tf.convert_to_tensor(self.scale), tf.convert_to_tensor(self.good_steps) + 1
        grown = good >= self.growth_steps
        scale = tf.where(finite, tf.where(grown, scale * 2, scale), scale / 2)
        return [tf.clip_by_value(scale, 1.0, 2.0**24), tf.where(finite & ~grown, good, 0)]


def of(network: keras.Model) -> LossScale | None:
    """A new LossScale for a network that computes in float16; None for others, which need none."""
    return LossScale() if any(layer.compute_dtype == "float16" for layer in network.layers) else None
