"""What one client does in a round: SGD on features and heads, with three losses that never mix."""

from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deitlt_tf import optimizers
from deitlt_tf.federated.heads import Head
from deitlt_tf.models import vit

# Heads by name: `fixed` is never trained, `aux` is averaged over clients, `local` stays at its client.
HEADS = ("fixed", "aux", "local")


def weights_by_place(features: keras.Model) -> dict[str, keras.Variable]:
    """{"features/PLACE NAME": variable}. Named by place, because Keras numbers layers through a process."""
    return {f"features/{i:05d} {v.name}": v for i, v in enumerate(features.weights)}


class ClientUpdate:
    """Trains features and heads on the batches of a client; one object serves all clients, one after the other.

    For each batch, with f = features(images) in training mode, and stop(f) the same numbers without a gradient:

        fixed head:     CE(fixed(f), labels) trains the features; CE(aux(stop(f)), labels) trains aux (FedLoGe)
        no fixed head:  CE(aux(f), labels) trains features and aux (FedAvg)
        local head:     CE(local(stop(f)), labels) trains local

    So no loss reaches what another one trains, and the three optimisers of the official code are one. FedProx adds
    proximal / 2 |w - w_start|^2 over features and aux; w_start are the weights at the beginning of the round.

    features: keras.Model, pixels [B, S, S, 3] -> [B, D]; it is trained in place.
    num_classes: C. fixed, local: whether there is a fixed head, and a local one.
    learning_rate, momentum: of SGD, whose momentum starts at 0 in every round. proximal: FedProx's mu. Defaults to 0.
    Source: official util/update_baseline.py (update_weights_gaux); Li et al., MLSys 2020 (FedProx), equation 2.
    """

    def __init__(
        self,
        features: keras.Model,
        num_classes: int,
        *,
        fixed: bool,
        local: bool,
        learning_rate: float,
        momentum: float,
        proximal: float = 0.0,
    ):
        self.features, self.proximal = features, proximal
        width = features.output_shape[-1]
        names = [name for name in HEADS if {"fixed": fixed, "local": local}.get(name, True)]
        self.heads = {
            name: (
                keras.Variable(np.zeros((width, num_classes), np.float32), trainable=name != "fixed", name="kernel"),
                keras.Variable(np.zeros(num_classes, np.float32), trainable=name != "fixed", name="bias"),
            )
            for name in names
        }
        self.shared = [*features.trainable_variables, *self.heads["aux"]]
        self.trained = [*self.shared, *self.heads.get("local", ())]
        self.start = [keras.Variable(v, trainable=False) for v in self.shared]
        self.optimizer = optimizers.SGD(learning_rate, momentum=momentum)
        self.optimizer.build(self.trained)
        self.weights = weights_by_place(features)
        # One trace for batches of any size, because the last batch of an epoch is smaller.
        signature = [((None, *features.input_shape[1:]), tf.float32), ((None,), tf.int32), ((2,), tf.int32)]
        self.step = tf.function(
            self._step, input_signature=[tf.TensorSpec(*spec) for spec in signature], autograph=False
        )
        self.infer = tf.function(
            lambda images: tf.cast(features(images, training=False), tf.float32),
            input_signature=[tf.TensorSpec(*signature[0])],
            autograph=False,
        )

    def read(self) -> dict[str, np.ndarray]:
        """The features' weights, in their order: {name: array}."""
        return {name: np.array(v) for name, v in self.weights.items()}

    def write(self, weights: Mapping[str, np.ndarray]) -> None:
        """Set the features' weights."""
        for name, variable in self.weights.items():
            variable.assign(weights[name])

    def train(
        self,
        weights: Mapping[str, np.ndarray],
        heads: Mapping[str, Head],
        batches: Iterable[tuple[Any, Any]],
        *,
        seed: int = 0,
    ) -> tuple[dict[str, np.ndarray], dict[str, Head], float]:
        """(weights, heads, mean over batches of the sum of the losses) after all batches, from these.

        weights: of `read`. heads: those this object was made with. batches: of (pixels [B, S, S, 3], labels int [B]).
        seed: of drop path. Raises FloatingPointError at a loss that is not finite.
        """
        self.write(weights)
        for name, pair in self.heads.items():
            for variable, value in zip(pair, heads[name], strict=True):
                variable.assign(value)
        for buffer in self.optimizer.buffers:
            buffer.assign(tf.zeros_like(buffer))
        for start, variable in zip(self.start, self.shared, strict=True):
            start.assign(variable)
        losses = []
        for number, (images, labels) in enumerate(batches):
            losses.append(self.step(tf.cast(images, tf.float32), labels, tf.constant([seed, number], tf.int32)))
        values = [float(loss) for loss in losses]
        if not np.isfinite(values).all():
            bad = int(np.argmin(np.isfinite(values)))
            raise FloatingPointError(f"the loss is {values[bad]} in batch {bad + 1} of {len(values)}.")
        trained = {name: Head(*(np.array(v) for v in pair)) for name, pair in self.heads.items()}
        return self.read(), trained, float(np.mean(values))

    def _step(self, images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """One batch; returns the sum of its losses before the step."""

        def loss_of(name: str, features: tf.Tensor) -> tf.Tensor:
            kernel, bias = (tf.convert_to_tensor(v) for v in self.heads[name])
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, features @ kernel + bias)
            return tf.reduce_mean(losses)

        guide = "fixed" if "fixed" in self.heads else "aux"
        with tf.GradientTape() as tape, vit.drawing_from(seed):
            features = tf.cast(self.features(images, training=True), tf.float32)
            detached = tf.stop_gradient(features)
            loss = tf.add_n([loss_of(name, features if name == guide else detached) for name in self.heads])
        gradients = tape.gradient(loss, [v.value for v in self.trained])
        if self.proximal:
            for i, (variable, start) in enumerate(zip(self.shared, self.start, strict=True)):
                gradients[i] += self.proximal * (variable - start)
        self.optimizer.apply_gradients(zip(gradients, self.trained, strict=True))
        return loss
