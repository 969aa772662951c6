"""The flat teacher: a CNN trained on the long-tailed data with SAM, towards one of several objectives.

An objective says what a batch is asked; the Teacher says how a step is taken. Objectives: FromLabels (one view) here,
`paco.Paco`, `mdcs.Mdcs` and `glmc.Glmc` (two views) in files of their own. Each is a plain object with

    views       how many images of an example the pipeline has to deliver, 1 or 2
    trainable   what is trained: the network's weights, then its own
    state       what else a checkpoint has to hold: momentum branch, queue, statistics
    prepare(views, labels, seed=, step=) -> dict    once a step, nothing to differentiate: keys, mixing
    losses(asked) -> [B]                            per example, inside a tape; SAM calls it twice
    ascent_losses                                   the same for what SAM climbs, or None: the losses themselves
    finish(asked)                                   once a step, after the optimiser: the queue
"""

import keras
import numpy as np
import tensorflow as tf

from deitlt_tf import losses, sam
from deitlt_tf.devices import loss_scale, replicas
from deitlt_tf.objectives import Objective
from deitlt_tf.objectives.labels import FromLabels


class Teacher(keras.Model):
    """One step of a flat teacher: SAM (or plain SGD) over an objective, with deferred class-balanced re-weighting.

    `compile(optimizer)` and `fit(batches)` train `network` in place; batches are (images [B, H, W, 3], labels [B]), or
    ((first views, second views), labels) for an objective of two views.

    Args:
      network: keras.Model, images in pixels -> logits [B, C]. What is saved and served.
      class_counts: training images of each class, [C].
      objective: what is learnt. Defaults to FromLabels(network, class_counts), LDAM.
      rho: float. Radius of SAM, 0 = plain gradient. Defaults to 0.8.
      rho_steps: dict. {step: radius from that step on}. Defaults to {}.
      flat_below: int. ImbSAM: SAM acts on the losses of classes with fewer training images than this only; 0 = on all.
        Defaults to 0.
      reweight_step: int. From this step on losses are weighted by class (DRW). Defaults to never.
      beta: float. Of the class-balanced weights. Defaults to 0.9999.
      clip_norm: float. Cut of the global gradient norm, 0 = none. Defaults to 0.
      seed: int. Of what an objective draws. Defaults to 0.

    Source: Rangwani et al., NeurIPS 2022 (SAM for long tails), Saddle-LongTail; Zhou et al., ICCV 2023 (ImbSAM).
    """

    def __init__(
        self,
        network: keras.Model,
        class_counts,
        objective: Objective | None = None,
        *,
        rho: float = 0.8,
        rho_steps: dict[int, float] | None = None,
        flat_below: int = 0,
        reweight_step: int = losses.NEVER,
        beta: float = 0.9999,
        clip_norm: float = 0.0,
        seed: int = 0,
    ):
        super().__init__()
        self.network = network
        self.objective = objective or FromLabels(network, class_counts)
        if flat_below and self.objective.ascent_losses is not None:
            raise ValueError(f"{type(self.objective).__name__} has its own ascent: it does not go with ImbSAM.")
        self.class_weights = tf.constant(losses.class_balanced_weights(class_counts, beta))
        self.is_tail = tf.constant((np.asarray(class_counts) < flat_below).astype(np.float32)) if flat_below else None
        self.rho, self.rho_steps = rho, dict(sorted((rho_steps or {}).items()))
        self.reweight_step, self.clip_norm, self.seed = reweight_step, clip_norm, seed
        self.scaling = loss_scale.of(network)
        # For a checkpoint, beside weights and optimiser.
        self.state = [*self.objective.state, *(self.scaling.variables if self.scaling else ())]
        self.accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
        self.built = True

    def compile(self, optimizer, *, jit_compile=False, **options):
        """As Keras', but not through XLA unless asked: GLMC draws from Gamma, for which XLA has no kernel.

        float16's losses are scaled here; Keras would wrap the optimiser, and divide the gradients a second time.
        """
        super().compile(optimizer, jit_compile=jit_compile, auto_scale_loss=False, **options)

    def call(self, images, training=False):
        return self.network(images, training=training)

    def train_step(self, batch):
        images, labels = batch[:2]
        step = tf.cast(self.optimizer.iterations, tf.int64)
        asked = self.objective.prepare(
            images if isinstance(images, tuple) else (images,),
            labels,
            seed=replicas.step_seed(self.seed, step),
            step=step,
        )
        by_class = tf.gather(self.class_weights, labels)
        weight = tf.where(step >= self.reweight_step, by_class, tf.ones_like(by_class))
        share = weight / replicas.all_sum(tf.reduce_sum(weight))
        scale = tf.convert_to_tensor(self.scaling.scale) if self.scaling else 1.0

        value, slopes = self.gradient(asked, labels, share * scale, step)
        replicas.apply_summed(
            self.optimizer, slopes, self.objective.trainable, clip_norm=self.clip_norm, scaling=self.scaling
        )
        self.objective.finish(asked)
        return {"loss": replicas.all_sum(value) / scale}

    def gradient(self, asked: dict, labels: tf.Tensor, share: tf.Tensor, step: tf.Tensor):
        """Loss and gradient of this replica's part of the batch, taken where SAM says; both times a scale in `share`.

        SAM's direction is g / |g|, which a scale leaves alone; an overflow in g makes the second gradient NaN.
        """
        objective, variables = self.objective, self.objective.trainable

        def loss():
            return tf.reduce_sum(share * objective.losses(asked))

        if not self.rho and not self.rho_steps:
            return sam.gradient(loss, variables)
        how = {"rho": self.radius(step), "all_reduce": replicas.all_sum}
        if self.is_tail is not None:
            tail = tf.gather(self.is_tail, labels)

            def head_and_tail():
                each = share * objective.losses(asked)
                return tf.reduce_sum((1 - tail) * each), tf.reduce_sum(tail * each)

            return sam.imbsam_gradient(head_and_tail, variables, **how)
        climb = objective.ascent_losses
        return sam.sam_gradient(loss, variables, climb=climb and (lambda: tf.reduce_sum(share * climb(asked))), **how)

    def radius(self, step: tf.Tensor) -> tf.Tensor:
        """rho at this step."""
        rho = tf.constant(self.rho, tf.float32)
        for start, radius in self.rho_steps.items():
            rho = tf.where(step >= start, tf.constant(radius, tf.float32), rho)
        return rho

    def test_step(self, batch):
        """Accuracy; a third element of the batch marks images (1) and padding (0)."""
        images, labels, mask = (*batch, None)[:3]
        self.accuracy.update_state(labels, self.network(images, training=False), sample_weight=mask)
        return {"accuracy": self.accuracy.result()}

    def get_config(self):
        raise NotImplementedError("a Teacher is not saved: save `teacher.network`, which is a plain Keras model.")
