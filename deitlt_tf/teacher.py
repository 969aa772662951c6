"""The flat teacher: a CNN trained on the long-tailed data with SAM, over one of the long-tail losses."""

import keras
import tensorflow as tf

from deitlt_tf import devices, losses
from deitlt_tf.losses import NEVER
from deitlt_tf.sam import gradient, sam_gradient

LOSSES = ("ce", "ldam", "balanced_softmax")


class Teacher(keras.Model):
    """SAM x {cross-entropy, LDAM, balanced softmax}, with deferred class-balanced re-weighting.

    `compile(optimizer)` and `fit(batches)` train `network` in place; batches are (images [B, H, W, 3], labels [B]).

    Args:
      network: keras.Model, images in pixels -> logits [B, C]; cosines from a cosine classifier for "ldam".
      class_counts: training images of each class, [C].
      loss: "ce", "ldam" or "balanced_softmax". Defaults to "ldam".
      rho: float. Radius of SAM, 0 = plain gradient. Defaults to 0.8.
      reweight_step: int. From this step on losses are weighted by class (DRW). Defaults to never.
      beta: float. Of the class-balanced weights. Defaults to 0.9999.
      max_margin, scale: floats. Of LDAM. Default to 0.5 and 30.
      clip_norm: float. Cut of the global gradient norm, 0 = none. Defaults to 0.

    Source: Cao et al., NeurIPS 2019 (LDAM-DRW); Rangwani et al., NeurIPS 2022 (SAM for long tails), Saddle-LongTail.
    """

    def __init__(
        self,
        network: keras.Model,
        class_counts,
        *,
        loss: str = "ldam",
        rho: float = 0.8,
        reweight_step: int = NEVER,
        beta: float = 0.9999,
        max_margin: float = 0.5,
        scale: float = 30.0,
        clip_norm: float = 0.0,
    ):
        super().__init__()
        if loss not in LOSSES:
            raise ValueError(f"teacher loss {loss!r} is unknown: choose one of {', '.join(LOSSES)}.")
        self.network = network
        self.class_counts = class_counts
        self.class_weights = tf.constant(losses.class_balanced_weights(class_counts, beta))
        self.kind, self.rho, self.reweight_step, self.clip_norm = loss, rho, reweight_step, clip_norm
        self.margin = {"max_margin": max_margin, "scale": scale}
        self.accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
        self.built = True

    def call(self, images, training=False):
        return self.network(images, training=training)

    def loss_of(self, labels, logits):
        """Per-example loss [B], not weighted."""
        if self.kind == "ldam":
            return losses.ldam(labels, logits, self.class_counts, **self.margin)
        if self.kind == "balanced_softmax":
            return losses.balanced_softmax(labels, logits, self.class_counts)
        return losses.cross_entropy(labels, logits)

    def train_step(self, batch):
        images, labels = batch[:2]
        variables = self.network.trainable_variables
        late = tf.cast(self.optimizer.iterations, tf.int64) >= self.reweight_step
        by_class = tf.gather(self.class_weights, labels)
        weight = tf.where(late, by_class, tf.ones_like(by_class))
        share = weight / devices.all_sum(tf.reduce_sum(weight))

        def loss():
            return tf.reduce_sum(share * self.loss_of(labels, self.network(images, training=True)))

        if self.rho:
            value, slopes = sam_gradient(loss, variables, rho=self.rho, all_reduce=devices.all_sum)
        else:
            value, slopes = gradient(loss, variables)
        devices.apply_summed(self.optimizer, slopes, variables, clip_norm=self.clip_norm)
        return {"loss": devices.all_sum(value)}

    def test_step(self, batch):
        """Accuracy; a third element of the batch marks images (1) and padding (0)."""
        images, labels, mask = (*batch, None)[:3]
        self.accuracy.update_state(labels, self.network(images, training=False), sample_weight=mask)
        return {"accuracy": self.accuracy.result()}

    def get_config(self):
        raise NotImplementedError("a Teacher is not saved: save `teacher.network`, which is a plain Keras model.")
