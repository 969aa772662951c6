"""What every training step of ours shares: one network, weights by class, loss scaling, one optimiser step."""

import keras
import numpy as np
import tensorflow as tf

from deitlt_tf import losses
from deitlt_tf.devices import loss_scale, replicas
from deitlt_tf.losses import NEVER
from deitlt_tf.models import interface


class TrainingStep(keras.Model):
    """A network in training. `distill.Distiller` and `teacher.Teacher` say what a step computes; this, how it is taken.

    Args:
      network: keras.Model, images in pixels -> logits. What is trained, saved and served.
      class_counts: training images of each class, [C].
      reweight_step: int. From this step on losses are weighted by class (DRW). Defaults to never.
      beta: float. Of the class-balanced weights. Defaults to 0.9999.
      clip_norm: float. Largest global norm of the gradient, 0 = not clipped. Defaults to 0.
      seed: int. Of everything that a step draws. Defaults to 0.
    """

    def __init__(
        self,
        network: keras.Model,
        class_counts: np.ndarray | list[int] | tuple[int, ...],
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
        """What a checkpoint has to hold besides weights and optimiser."""
        return self.scaling.variables if self.scaling else []

    def compile(self, optimizer, *, jit_compile=False, **options):
        """As Keras does, but without XLA by default: mixing draws from Gamma, for which XLA has no kernel.

        The losses of float16 are scaled here; Keras would wrap the optimiser and divide the gradients a second time.
        """
        super().compile(optimizer, jit_compile=jit_compile, auto_scale_loss=False, **options)

    def call(self, images, training=False):
        return self.network(images, training=training)

    def reweighted(self, by_class: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """Weights of the examples: `by_class` from `reweight_step` on, 1 before."""
        return tf.where(step >= self.reweight_step, by_class, tf.ones_like(by_class))

    def scaled(self, loss: tf.Tensor) -> tf.Tensor:
        """The loss as its gradient is taken: times the loss scale, in float16."""
        return loss * self.scaling.scale if self.scaling else loss

    def apply(self, gradients: list, variables: list) -> None:
        """One optimiser step with the gradients of all replicas, clipped."""
        replicas.apply_summed(self.optimizer, gradients, variables, clip_norm=self.clip_norm, scaling=self.scaling)

    def test_step(self, batch):
        """Accuracy of each head; a third element of the batch marks images (1) and padding (0)."""
        images, labels, mask = (*batch, None)[:3]
        for head, logits in interface.heads(self.network(images, training=False)).items():
            self.accuracy[head].update_state(labels, logits, sample_weight=mask)
        return {head: metric.result() for head, metric in self.accuracy.items()}

    def get_config(self):
        raise NotImplementedError(
            f"a {type(self).__name__} is not saved: save its `network`, which is a plain Keras model."
        )
