"""Objectives on one view and its label: cross-entropy, LDAM, balanced softmax."""

from collections.abc import Callable
from functools import partial

import keras
import tensorflow as tf

from deitlt_tf import losses


class FromLabels:
    """Cross-entropy, LDAM or balanced softmax of one view. An objective of `Teacher`.

    network: keras.Model, images in pixels -> logits [B, C]. For LDAM they are cosines, times the `scale` of its last
      layer where that has one (`CosineClassifier`).
    class_counts: training images of each class, [C].
    loss: "ce", "ldam" or "balanced_softmax". Defaults to "ldam".
    max_margin: float. Largest margin of LDAM, for the rarest class. Defaults to 0.5.
    scale: float. LDAM multiplies the cosines by it, whatever the scale of the network is. Defaults to 30.
    Raises ValueError for another `loss`.
    Source: Cao et al., NeurIPS 2019 (LDAM); Ren et al., NeurIPS 2020 (balanced softmax).
    """

    views = 1
    ascent_losses = None

    def __init__(
        self,
        network: keras.Model,
        class_counts: losses.ClassCounts,
        *,
        loss: str = "ldam",
        max_margin: float = 0.5,
        scale: float = 30.0,
    ):
        functions: dict[str, Callable[..., tf.Tensor]] = {
            "ce": losses.cross_entropy,
            "ldam": self.ldam,
            "balanced_softmax": partial(losses.balanced_softmax, class_counts=class_counts),
        }
        if loss not in functions:
            raise ValueError(f"loss={loss} is unknown: choose one of {', '.join(functions)}.")
        self.network, self.loss = network, functions[loss]
        self.network_scale = getattr(network.layers[-1], "scale", 1.0)
        self.margins = partial(losses.ldam, class_counts=class_counts, max_margin=max_margin, scale=scale)
        self.trainable: list[keras.Variable] = network.trainable_variables
        self.state: list[keras.Variable] = []

    def prepare(self, views: tuple, labels: tf.Tensor, *, seed: tf.Tensor, step: tf.Tensor) -> dict:
        """The images and their labels. Nothing is drawn from `seed`."""
        return {"images": views[0], "labels": labels}

    def losses(self, inputs: dict) -> tf.Tensor:
        """Per example, [B]."""
        return self.loss(inputs["labels"], self.network(inputs["images"], training=True))

    def ldam(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """LDAM of the cosines in these logits, [B]."""
        return self.margins(labels, logits / self.network_scale)

    def finish(self, inputs: dict) -> None:
        """Nothing outlives a step."""
        return  # AutoGraph cannot read a function that is a docstring alone
