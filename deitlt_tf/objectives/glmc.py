"""GLMC: the Mixup view and the CutMix view of the same images learn to agree; the labels are re-weighted gradually."""

import keras
import numpy as np
import tensorflow as tf

from deitlt_tf import mixing
from deitlt_tf.losses import ClassCounts


def soft_cross_entropy(targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """-sum_c t_c log softmax(z)_c for targets that need not sum to 1: [B, C] twice -> [B].

    Written out, because TensorFlow's own operation has the gradient softmax(z) - t, which is right only for targets
    that sum to 1. (With deterministic operations, which tests use, its gradient is right for all targets.)
    """
    return -tf.reduce_sum(targets * tf.nn.log_softmax(logits), axis=-1)


def disagreement(prediction: tf.Tensor, projection: tf.Tensor) -> tf.Tensor:
    """-cos(p, z); z is the target and gets no gradient. [B, D] twice -> [B]. Source: SimSiam, Chen and He 2021."""
    target = tf.stop_gradient(tf.math.l2_normalize(projection, axis=-1))
    return -tf.reduce_sum(tf.math.l2_normalize(prediction, axis=-1) * target, axis=-1)


def label_weights(class_counts: ClassCounts, power: float) -> np.ndarray:
    """w_c ~ n_c^-power, scaled to sum to C: float32 [C]. Raises ValueError for a class without images."""
    counts = np.asarray(class_counts, np.float64)
    if counts.min() < 1:
        raise ValueError(f"class {int(counts.argmin())} has no training image: GLMC needs one in every class.")
    weights = counts**-power
    return (weights / weights.sum() * len(counts)).astype(np.float32)


def mix(
    first: tf.Tensor, second: tf.Tensor, targets: tf.Tensor, seed: tf.Tensor, *, alpha: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Mixup of the first views, CutMix of the second ones, and the targets of both, lambda y_i + (1 - lambda) y_j.

    lambda ~ Beta(alpha, alpha) is the same for all images, and both mix the same pairs, i and j = B - 1 - i. So image i
    of both results shows the same mixture.
    first, second: both views, float32 [B, H, W, 3]. targets: [B, C]. seed: int [2], everything drawn derives from it.
    """
    height, width = second.shape[1:3]
    lam = mixing.beta_draw(tf.random.experimental.stateless_fold_in(seed, 1), alpha)
    box = mixing.cutmix_box(lam, tf.random.stateless_uniform([2], seed), height=height, width=width)
    pasted, _ = mixing.cutmix(second, targets, box)
    return *mixing.mixup(first, targets, lam), pasted


class Glmc:
    """sum over both views { a CE(fc, y) + (1 - a) CE(fc_cb, w y) } - lambda_c { cos(p, sg(z')) + cos(p', sg(z)) }.

    An objective of `Teacher`. views = 2: Mixup mixes one, CutMix the other (see `mix`). y are the mixed targets and
    w ~ n^-power. z is the projection of a view's pooled feature, p the prediction from z, z' and p' those of the other
    view; sg stops the gradient. a = 1 - (epoch / epochs)^2 moves the weight from the labels to the re-weighted labels.
    SAM ascends the loss without its consistency term.

    The network's own classifier is fc_cb, which predicts. In the first epoch a = 1, so fc_cb does not learn there.
    fc, projector and predictor are linear maps that belong to the objective and are not served.

    Args:
      network: keras.Model with a layer `avgpool`, its pooled feature, and a layer `fc`, its linear classifier.
      class_counts: training images of each class, n, [C].
      epochs: int. Epochs of the whole training; for a.
      steps_per_epoch: int. Optimiser steps of an epoch; for a.
      consistency: float. lambda_c: 1 or 4 for CIFAR-10-LT, 4 or 6 for CIFAR-100-LT, 10 for ImageNet-LT in the official
        commands. Defaults to 4.
      power: float. Exponent of the label weights: 1.2 for CIFAR-LT, 1 for ImageNet-LT. Defaults to 1.2.
      alpha: float. lambda ~ Beta(alpha, alpha); 0 = no mixing. Defaults to 1.
      dim: int. Length of projection and prediction. Defaults to 256, as in the official ResNet-34 and ResNeXt-50.

    Raises ValueError for another network, for a class without images.

    As in the official code: each view passes through the network alone, so it has batch statistics of its own; the
    targets of CutMix keep lambda where the box is clipped at the border; lambda ~ Beta(1, 1) (the official option
    `beta` has no effect).
    Unlike the official code, the partner of an image comes from the same batch of its replica, so a class is a partner
    as often as it has images. The official commands for CIFAR-LT at rho 100 sample partners in the same way; the others
    sample an image with probability ~ n^-0.2 of its class.
    Deferred re-weighting is not part of the method.
    Source: Du et al., CVPR 2023, section 3; ynu-yangpeng/GLMC Trainer.py, utils/util.py (GLMC_mixed).
    """

    views = 2

    def __init__(
        self,
        network: keras.Model,
        class_counts: ClassCounts,
        *,
        epochs: int,
        steps_per_epoch: int,
        consistency: float = 4.0,
        power: float = 1.2,
        alpha: float = 1.0,
        dim: int = 256,
    ):
        layers = {layer.name: layer for layer in network.layers}
        if "avgpool" not in layers or not isinstance(layers.get("fc"), keras.layers.Dense):
            raise ValueError(
                f"GLMC needs a pooled feature `avgpool` and a linear classifier `fc`, which {network.name} does not "
                "have: as the teacher's model choose a resnet* with a linear classifier."
            )
        feature = layers["avgpool"].output
        self.num_classes, self.weights = len(class_counts), tf.constant(label_weights(class_counts, power))
        self.epochs, self.steps_per_epoch, self.consistency, self.alpha = epochs, steps_per_epoch, consistency, alpha
        self.network = keras.Model(network.input, [feature, network.output])
        self.head = linear(self.num_classes, inputs=feature.shape[-1], name="fc")
        self.projector = linear(dim, inputs=feature.shape[-1], name="projector")
        self.predictor = linear(dim, inputs=dim, name="predictor")
        own = [v for layer in (self.head, self.projector, self.predictor) for v in layer.trainable_variables]
        self.trainable: list[keras.Variable] = network.trainable_variables + own
        self.state: list[keras.Variable] = []

    def prepare(self, views: tuple, labels: tf.Tensor, *, seed: tf.Tensor, step: tf.Tensor) -> dict[str, tf.Tensor]:
        """Both mixed views [B, H, W, 3], their targets [B, C], and the value of a at this step."""
        first, second = (tf.cast(view, tf.float32) for view in views)
        targets = tf.one_hot(labels, self.num_classes)
        if self.alpha:
            first, targets, second = mix(first, second, targets, seed, alpha=self.alpha)
        return {"first": first, "second": second, "targets": targets, "a": self.share_of_labels(step)}

    def share_of_labels(self, step: tf.Tensor) -> tf.Tensor:
        """a = 1 - (epoch / epochs)^2, constant within an epoch."""
        return 1 - (tf.cast(step // self.steps_per_epoch, tf.float32) / self.epochs) ** 2

    def losses(self, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        """Per example, [B]."""
        outputs = self.outputs(inputs)
        z, other_z = (self.projector(feature) for feature, _ in outputs)
        consistency = disagreement(self.predictor(z), other_z) + disagreement(self.predictor(other_z), z)
        return self.from_labels(inputs, outputs) + self.consistency * consistency

    def ascent_losses(self, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        """`losses` without the consistency term, [B]."""
        return self.from_labels(inputs, self.outputs(inputs))

    def outputs(self, inputs: dict[str, tf.Tensor]) -> list[list[tf.Tensor]]:
        """Pooled feature [B, D] and logits [B, C] of each view."""
        return [self.network(inputs[view], training=True) for view in ("first", "second")]

    def from_labels(self, inputs: dict[str, tf.Tensor], outputs: list[list[tf.Tensor]]) -> tf.Tensor:
        """a CE(fc, y) + (1 - a) CE(fc_cb, w y), summed over both views, [B]."""
        a, targets = inputs["a"], inputs["targets"]
        each = [
            a * soft_cross_entropy(targets, self.head(feature))
            + (1 - a) * soft_cross_entropy(self.weights * targets, logits)
            for feature, logits in outputs
        ]
        return tf.add_n(each)

    def finish(self, inputs: dict[str, tf.Tensor]) -> None:
        """Nothing outlives a step."""
        return  # AutoGraph cannot read a function that is a docstring alone


def linear(units: int, *, inputs: int, name: str) -> keras.layers.Dense:
    """A built linear map in float32, initialised as torch does it: U(-1, 1) / sqrt(inputs), bias too."""
    kernel, bias = (keras.initializers.RandomUniform(-(inputs**-0.5), inputs**-0.5) for _ in range(2))
    layer = keras.layers.Dense(units, kernel_initializer=kernel, bias_initializer=bias, name=name, dtype="float32")
    layer.build((None, inputs))
    return layer
