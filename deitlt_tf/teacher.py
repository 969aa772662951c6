"""The flat teacher: a CNN trained on the long-tailed data with SAM, towards one of several objectives."""

from collections.abc import Callable
from functools import partial

import keras
import numpy as np
import tensorflow as tf

from deitlt_tf.devices import replicas
from deitlt_tf.losses import NEVER, ClassCounts
from deitlt_tf.objectives import Glmc, Objective
from deitlt_tf.objectives.labels import FromLabels
from deitlt_tf.sam import gradient, imbsam_gradient, sam_gradient
from deitlt_tf.step import TrainingStep


class Teacher(TrainingStep):
    """One step of a flat teacher: SAM (or plain SGD) over an objective, with deferred class-balanced re-weighting.

    `compile(optimizer)` and `fit(batches)` train `network` in place. Batches are (images [B, H, W, 3], labels [B]), or
    ((first views, second views), labels) for an objective of two views. Both may have sample weights [B]. They multiply
    the rows of the objective's losses (GLMC, which mixes: the row of the first of two images), and the loss of a batch
    is sum s w l / sum s w.

    Args:
      network: keras.Model, images in pixels -> logits [B, C]. It is saved and served.
      class_counts: training images of each class, [C].
      objective: the losses that train the network, see `objectives`. Defaults to LDAM, FromLabels(network, counts).
      rho: float. Radius of SAM, 0 = plain gradient. Defaults to 0.8.
      rho_steps: dict. {step: radius from that step on}. Defaults to {}.
      flat_below: int. ImbSAM: SAM acts only on the losses of classes with fewer training images than this; 0 = on all.
        Defaults to 0.
      reweight_step: int. From this step on losses are weighted by class (DRW). Defaults to never.
      beta: float. beta of the class-balanced weights. Defaults to 0.9999.
      clip_norm: float. Largest global norm of the gradient, 0 = not clipped. Defaults to 0.
      seed: int. Seed of everything that an objective draws. Defaults to 0.

    Raises ValueError for `flat_below` with an objective whose ascent has losses of its own, and for a class without
    images.
    Source: Rangwani et al., NeurIPS 2022 (SAM for long tails), Saddle-LongTail; Zhou et al., ICCV 2023 (ImbSAM).
    """

    def __init__(
        self,
        network: keras.Model,
        class_counts: ClassCounts,
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
        super().__init__(network, class_counts, reweight_step=reweight_step, beta=beta, clip_norm=clip_norm, seed=seed)
        self.accuracy = {"cls": keras.metrics.SparseCategoricalAccuracy(name="accuracy")}
        self.objective: Objective = objective or FromLabels(network, class_counts)
        if flat_below and self.objective.ascent_losses is not None:
            raise ValueError(
                f"flat_below={flat_below} does not go with {type(self.objective).__name__}, "
                "which has ascent losses of its own: leave it at 0."
            )
        self.is_tail = tf.constant((np.asarray(class_counts) < flat_below).astype(np.float32)) if flat_below else None
        self.rho, self.rho_steps = rho, dict(sorted((rho_steps or {}).items()))

    @property
    def trained(self) -> list[keras.Variable]:
        return self.objective.trainable

    @property
    def state(self) -> list[keras.Variable]:
        return [*self.objective.state, *super().state]

    @property
    def draws_gamma(self) -> bool:
        return isinstance(self.objective, Glmc) and self.objective.alpha > 0

    def step(
        self, batch: tuple, *, sample_weight: tf.Tensor | None = None, teacher_classes: tf.Tensor | None = None
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """One step: its loss, and the labels. sample_weight: float32 [B]. teacher_classes: none, it has no teacher."""
        images, labels = batch
        step = tf.cast(self.optimizer.iterations, tf.int64)
        inputs = self.objective.prepare(
            images if isinstance(images, tuple) else (images,),
            labels,
            seed=replicas.step_seed(self.seed, step),
            step=step,
        )
        weights = self.reweighted(tf.gather(self.class_weights, labels), step)
        if sample_weight is not None:
            weights *= sample_weight
        scale = self.scaled(tf.constant(1.0))

        value, gradients = self.gradient(inputs, labels, self.share(weights) * scale, step)
        self.apply(gradients, self.trained)
        self.objective.finish(inputs)
        return {"loss": replicas.all_sum(value) / scale}, labels

    def gradient(
        self, inputs: dict, labels: tf.Tensor, share: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """The loss of this replica's images and its gradient, at the point that SAM chooses.

        share: [B], the weight of each example, times the loss scale: both results are scaled. SAM's direction g / |g|
        does not depend on the scale. An overflow in g makes the second gradient NaN, so the step is skipped.
        """
        objective, variables = self.objective, self.objective.trainable

        def total(losses: Callable[[dict], tf.Tensor]) -> tf.Tensor:
            return tf.reduce_sum(share * losses(inputs))

        loss = partial(total, objective.losses)
        if not self.rho and not self.rho_steps:
            return gradient(loss, variables)
        rho = self.radius(step)
        if self.is_tail is not None:
            tail = tf.gather(self.is_tail, labels)

            def head_and_tail() -> tuple[tf.Tensor, tf.Tensor]:
                each = share * objective.losses(inputs)
                return tf.reduce_sum((1 - tail) * each), tf.reduce_sum(tail * each)

            return imbsam_gradient(head_and_tail, variables, rho=rho, all_reduce=replicas.all_sum)
        climb = partial(total, objective.ascent_losses) if objective.ascent_losses else None
        return sam_gradient(loss, variables, rho=rho, climb=climb, all_reduce=replicas.all_sum)

    def radius(self, step: tf.Tensor) -> tf.Tensor:
        """rho at this step, a float32 scalar."""
        rho = tf.constant(self.rho, tf.float32)
        for start, radius in self.rho_steps.items():
            rho = tf.where(step >= start, tf.constant(radius, tf.float32), rho)
        return rho
