"""Objectives on one view and its label: cross-entropy, LDAM, balanced softmax."""

from functools import partial

import keras
import tensorflow as tf

from deitlt_tf import losses


class FromLabels:
    """Cross-entropy or its long-tail kin, on one view: "ce", "ldam" (of a cosine classifier) or "balanced_softmax".

    max_margin, scale: floats. Of LDAM. Default to 0.5 and 30.
    Source: Cao et al., NeurIPS 2019 (LDAM); Ren et al., NeurIPS 2020 (balanced softmax).
    """

    views, ascent_losses, state = 1, None, ()

    def __init__(
        self, network: keras.Model, class_counts, *, loss: str = "ldam", max_margin: float = 0.5, scale: float = 30.0
    ):
        offered = {
            "ce": losses.cross_entropy,
            "ldam": partial(losses.ldam, class_counts=class_counts, max_margin=max_margin, scale=scale),
            "balanced_softmax": partial(losses.balanced_softmax, class_counts=class_counts),
        }
        if loss not in offered:
            raise ValueError(f"teacher loss {loss!r} is unknown: choose one of {', '.join(offered)}.")
        self.network, self.loss, self.trainable = network, offered[loss], network.trainable_variables

    def prepare(self, views: tuple, labels: tf.Tensor, *, seed: tf.Tensor, step: tf.Tensor) -> dict:
        return {"images": views[0], "labels": labels}

    def losses(self, inputs: dict) -> tf.Tensor:
        return self.loss(inputs["labels"], self.network(inputs["images"], training=True))

    def finish(self, inputs: dict) -> None:
        pass
