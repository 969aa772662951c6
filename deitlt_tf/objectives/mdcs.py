"""MDCS: experts for the head, for all classes and for the tail, each consistent over a weak and a strong view."""

import re

import keras
import numpy as np
import tensorflow as tf

from deitlt_tf import losses
from deitlt_tf.devices import replicas

NETWORKS = ("mdcs_resnet8", "mdcs_resnet32", "mdcs_resnet50")  # the models that have experts


def consistency(strong: tf.Tensor, weak: tf.Tensor) -> tf.Tensor:
    """KL(softmax(weak) || softmax(strong)): [B, C] twice -> [B]. The weak view is the target and gets no gradient."""
    target = tf.stop_gradient(tf.nn.log_softmax(weak))
    return tf.reduce_sum(tf.exp(target) * (target - tf.nn.log_softmax(strong)), axis=-1)


def recognised(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """1 where the largest logit is the label's, else 0: float32 [B]."""
    return tf.cast(tf.argmax(logits, -1, tf.int32) == tf.cast(labels, tf.int32), tf.float32)


class Mdcs:
    """sum_k { mean CE(z_k + lambda_k log n) of both views + w(t) mean KL(weak || strong) of recognised weak views }.

    An objective of `Teacher`. views = 2: (strong, weak) of every image; both go through the network as one batch.
    With lambda_k < 0 expert k favours the head more than the data do; with lambda_k > 1 it favours the tail. The
    lambdas have the mean 1, so the mean of the raw logits, which predicts, is that of a balanced softmax.

    Args:
      network: keras.Model, pixels -> mean of the experts' logits; its layer `expert{k}.fc` has those of expert k.
      class_counts: training images of each class, n, [C].
      ramp_steps: int. Optimiser steps over which w grows linearly from 0 to `weight`: 20 epochs in the paper.
      lambdas: a float for each expert. Defaults to (-0.5, 1, 2.5).
      weight: float. Final weight of the consistency. Defaults to 0.6.

    Raises ValueError unless the network has one expert for each lambda; for a class without images; for ramp_steps < 1.

    As in the official code: the experts' losses are summed, not averaged. KL, and the test whether a weak view is
    recognised, use the adjusted logits z_k + lambda_k log n at temperature 1 (the official option `tau` has no effect).
    KL is averaged over those views of the global batch that the expert recognises, and 0 where it recognises none.
    Unlike the official code, w grows by step and not by epoch (1/20 in its whole first epoch, 2/20 in its second).
    Deferred re-weighting is not part of the method: with it the shares of the recognised views do not sum to 1.
    Source: Zhao et al., ICCV 2023; fistyee/MDCS model/loss.py (MDCSLoss), trainer/trainer.py.
    """

    views = 2
    ascent_losses = None

    def __init__(
        self,
        network: keras.Model,
        class_counts: losses.ClassCounts,
        *,
        ramp_steps: int,
        lambdas: tuple[float, ...] = (-0.5, 1.0, 2.5),
        weight: float = 0.6,
    ):
        heads = [layer.output for layer in network.layers if re.fullmatch(r"expert\d+\.fc", layer.name)]
        if len(heads) != len(lambdas):
            raise ValueError(
                f"MDCS trains {len(lambdas)} experts and {network.name} has {len(heads) or 'none'}: "
                f"as the teacher's model choose one of {', '.join(NETWORKS)}."
            )
        counts = np.asarray(class_counts, np.float64)
        if counts.min() < 1:
            raise ValueError(f"class {int(counts.argmin())} has no training image: MDCS needs one in every class.")
        if ramp_steps < 1:
            raise ValueError(
                f"ramp_steps={ramp_steps} is too small: the consistency of MDCS needs at least 1 step to grow."
            )
        self.experts = keras.Model(network.input, heads)
        self.shifts = [tf.constant(exponent * np.log(counts), tf.float32) for exponent in lambdas]
        self.ramp_steps, self.weight = ramp_steps, weight
        self.trainable: list[keras.Variable] = network.trainable_variables
        self.state: list[keras.Variable] = []

    def prepare(self, views: tuple, labels: tf.Tensor, *, seed: tf.Tensor, step: tf.Tensor) -> dict[str, tf.Tensor]:
        """Both views as one batch [2B, H, W, C], strong first, and w(t) of this step. Nothing is drawn from `seed`."""
        ramp = tf.minimum(tf.cast(step, tf.float32) / self.ramp_steps, 1.0)
        return {"images": tf.concat(views, 0), "labels": labels, "weight": self.weight * ramp}

    def losses(self, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        """Per example, [B]. KL is multiplied by global batch / recognised views, so that the mean is the loss."""
        labels = inputs["labels"]

        def terms(logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            strong, weak = tf.split(logits, 2)
            entropy = (losses.cross_entropy(labels, strong) + losses.cross_entropy(labels, weak)) / 2
            return entropy, consistency(strong, weak), recognised(labels, weak)

        logits = [
            z + shift for z, shift in zip(self.experts(inputs["images"], training=True), self.shifts, strict=True)
        ]
        entropy, divergence, correct = (tf.stack(term) for term in zip(*map(terms, logits), strict=True))  # (K, B)
        # Inside the tape on purpose: counts have no gradient.
        count, batch = replicas.all_sum(
            [tf.reduce_sum(correct, 1, keepdims=True), tf.cast(tf.size(labels), tf.float32)]
        )
        share = correct * batch / tf.maximum(count, 1.0)
        return tf.reduce_sum(entropy + inputs["weight"] * share * divergence, 0)

    def finish(self, inputs: dict[str, tf.Tensor]) -> None:
        """Nothing outlives a step."""
        return  # AutoGraph cannot read a function that is a docstring alone
