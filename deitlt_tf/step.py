"""What the steps of student and teacher share: one network, weights by class, loss scaling, one optimiser step."""

from typing import Any

import keras
import tensorflow as tf

from deitlt_tf import losses
from deitlt_tf.devices import loss_scale, replicas
from deitlt_tf.losses import NEVER, ClassCounts
from deitlt_tf.models import interface


class TrainingStep(keras.Model):
    """A network in training: what its subclasses `distill.Distiller` and `teacher.Teacher` have in common.

    A subclass computes the losses of a step and their gradient; this class weighs, scales and applies them.

    Args:
      network: keras.Model, images in pixels -> logits. It is trained, saved and served.
      class_counts: training images of each class, [C].
      reweight_step: int. From this step on losses are weighted by class (DRW). Defaults to never.
      beta: float. beta of the class-balanced weights. Defaults to 0.9999.
      clip_norm: float. Largest global norm of the gradient, 0 = not clipped. Defaults to 0.
      seed: int. Seed of everything random in a step. Defaults to 0.

    Raises ValueError for a class without images.
    """

    def __init__(
        self,
        network: keras.Model,
        class_counts: ClassCounts,
        *,
        reweight_step: int = NEVER,
        beta: float = 0.9999,
        clip_norm: float = 0.0,
        seed: int = 0,
    ):
        super().__init__()
        self.network = network
        self.num_classes = len(class_counts)
        self.class_weights = tf.constant(losses.class_balanced_weights(class_counts, beta))
        self.reweight_step, self.clip_norm, self.seed = reweight_step, clip_norm, seed
        self.scaling = loss_scale.of(network)
        self.accuracy = {
            head: keras.metrics.SparseCategoricalAccuracy(name=head) for head in interface.heads(network.output)
        }
        self.built = True

    @property
    def state(self) -> list[keras.Variable]:
        """Variables that a checkpoint has to hold besides those of network and optimiser."""
        return self.scaling.variables if self.scaling else []

    def compile(self, optimizer: keras.optimizers.Optimizer, *, jit_compile: bool = False, **options: Any) -> None:
        """keras.Model.compile, without XLA by default: mixing draws from Gamma, for which XLA has no kernel.

        Keras' own loss scaling is off: this class scales the losses of float16 itself, and Keras would wrap the
        optimiser and divide the gradients a second time.
        """
        super().compile(optimizer, jit_compile=jit_compile, auto_scale_loss=False, **options)

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor | dict[str, tf.Tensor]:
        return self.network(images, training=training)

    def reweighted(self, by_class: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """Weights of the examples, [B]: `by_class` from `reweight_step` on, 1 before."""
        return tf.where(step >= self.reweight_step, by_class, tf.ones_like(by_class))

    def scaled(self, loss: tf.Tensor) -> tf.Tensor:
        """The loss whose gradient is taken: in float16 multiplied by the loss scale, elsewhere the loss itself."""
        return loss * self.scaling.scale if self.scaling else loss

    def apply(self, gradients: list, variables: list) -> None:
        """One optimiser step with the gradients of all replicas, clipped."""
        replicas.apply_summed(self.optimizer, gradients, variables, clip_norm=self.clip_norm, scaling=self.scaling)

    def test_step(self, batch: tuple) -> dict[str, tf.Tensor]:
        """Accuracy of each head. A third element of the batch marks images (1) and padding (0)."""
        images, labels, mask = (*batch, None)[:3]
        for head, logits in interface.heads(self.network(images, training=False)).items():
            self.accuracy[head].update_state(labels, logits, sample_weight=mask)
        return {head: metric.result() for head, metric in self.accuracy.items()}

    def get_config(self) -> dict[str, Any]:
        raise NotImplementedError(
            f"a {type(self).__name__} is not saved: save its `network`, which is a plain Keras model."
        )
