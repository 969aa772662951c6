"""The flat teacher: a CNN trained on the long-tailed data with SAM, towards one of several objectives."""

import keras
import numpy as np
import tensorflow as tf

from deitlt_tf.devices import replicas
from deitlt_tf.losses import NEVER
from deitlt_tf.objectives import Objective
from deitlt_tf.objectives.labels import FromLabels
from deitlt_tf.sam import gradient, imbsam_gradient, sam_gradient
from deitlt_tf.step import TrainingStep


class Teacher(TrainingStep):
    """One step of a flat teacher: SAM (or plain SGD) over an objective, with deferred class-balanced re-weighting.

    `compile(optimizer)` and `fit(batches)` train `network` in place; batches are (images [B, H, W, 3], labels [B]), or
    ((first views, second views), labels) for an objective of two views.

    Args:
      network: keras.Model, images in pixels -> logits [B, C]. What is saved and served.
      class_counts: training images of each class, [C].
      objective: what the network is trained towards, see `objectives`. Defaults to LDAM, FromLabels(network, counts).
      rho: float. Radius of SAM, 0 = plain gradient. Defaults to 0.8.
      rho_steps: dict. {step: radius from that step on}. Defaults to {}.
      flat_below: int. ImbSAM: SAM acts on the losses of classes with fewer training images than this only; 0 = on all.
        Defaults to 0.
      reweight_step: int. From this step on losses are weighted by class (DRW). Defaults to never.
      beta: float. Of the class-balanced weights. Defaults to 0.9999.
      clip_norm: float. Largest global norm of the gradient, 0 = not clipped. Defaults to 0.
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
        reweight_step: int = NEVER,
        beta: float = 0.9999,
        clip_norm: float = 0.0,
        seed: int = 0,
    ):
        shared = {"reweight_step": reweight_step, "beta": beta, "clip_norm": clip_norm, "seed": seed}
        super().__init__(network, class_counts, **shared)
        self.objective = objective or FromLabels(network, class_counts)
        if flat_below and self.objective.ascent_losses is not None:
            raise ValueError(f"{type(self.objective).__name__} has its own ascent: it does not go with ImbSAM.")
        self.is_tail = tf.constant((np.asarray(class_counts) < flat_below).astype(np.float32)) if flat_below else None
        self.rho, self.rho_steps = rho, dict(sorted((rho_steps or {}).items()))

    @property
    def state(self) -> list[keras.Variable]:
        return [*self.objective.state, *super().state]

    def train_step(self, batch):
        images, labels = batch[:2]
        step = tf.cast(self.optimizer.iterations, tf.int64)
        inputs = self.objective.prepare(
            images if isinstance(images, tuple) else (images,),
            labels,
            seed=replicas.step_seed(self.seed, step),
            step=step,
        )
        weights = self.reweighted(tf.gather(self.class_weights, labels), step)
        share = weights / replicas.global_sum(weights)  # [B]
        scale = self.scaled(tf.constant(1.0))

        value, slopes = self.gradient(inputs, labels, share * scale, step)
        self.apply(slopes, self.objective.trainable)
        self.objective.finish(inputs)
        return {"loss": replicas.all_sum(value) / scale}

    def gradient(self, inputs: dict, labels: tf.Tensor, share: tf.Tensor, step: tf.Tensor):
        """Loss and gradient of this replica's part of the batch, taken where SAM says; both times a scale in `share`.

        SAM's direction is g / |g|, which a scale leaves alone; an overflow in g makes the second gradient NaN.
        """
        objective, variables = self.objective, self.objective.trainable

        def loss():
            return tf.reduce_sum(share * objective.losses(inputs))

        if not self.rho and not self.rho_steps:
            return gradient(loss, variables)
        settings = {"rho": self.radius(step), "all_reduce": replicas.all_sum}
        if self.is_tail is not None:
            tail = tf.gather(self.is_tail, labels)

            def head_and_tail():
                each = share * objective.losses(inputs)
                return tf.reduce_sum((1 - tail) * each), tf.reduce_sum(tail * each)

            return imbsam_gradient(head_and_tail, variables, **settings)
        climb = objective.ascent_losses
        return sam_gradient(loss, variables, climb=climb and (lambda: tf.reduce_sum(share * climb(inputs))), **settings)

    def radius(self, step: tf.Tensor) -> tf.Tensor:
        """rho at this step."""
        rho = tf.constant(self.rho, tf.float32)
        for start, radius in self.rho_steps.items():
            rho = tf.where(step >= start, tf.constant(radius, tf.float32), rho)
        return rho

    def test_step(self, batch):
        """Accuracy; a third element of the batch marks images (1) and padding (0)."""
        return {"accuracy": super().test_step(batch)["cls"]}
