"""PaCo: one softmax over class centres and other images, which come from the batch, a momentum encoder and a queue."""

from functools import partial

import keras
import numpy as np
import tensorflow as tf

from deitlt_tf import losses
from deitlt_tf.devices import replicas

EMPTY = -1  # label of a place in the queue that holds no key yet


def paco_loss(
    labels: tf.Tensor,
    logits: tf.Tensor,
    queries: tf.Tensor,
    contrast: tf.Tensor,
    contrast_labels: tf.Tensor,
    class_counts: losses.ClassCounts,
    *,
    alpha: float,
    beta: float,
    gamma: float,
    temperature: float,
    base_temperature: float | None = None,
    first: int | tf.Tensor = 0,
) -> tf.Tensor:
    """log(sum_c e^u_c + gamma sum_j e^s_j) - (beta u_y + alpha sum_{j: y_j = y} s_j) / (beta + alpha #{j: y_j = y}).

    With u_c = z_c + log(n_c / n) and s_j = q . f_j / temperature: cross-entropy over C classes and all other images.
    The sums over j leave out the query itself and EMPTY places; gradients flow through q and through f.

    labels: int [B]. logits: z, [B, C]. queries: q, [B, D], of unit length.
    contrast: f, [M, D], of unit length: the queries of the global batch, then keys and queue.
    contrast_labels: [M], of the same type as `labels`.
    class_counts: training images of each class, n, [C].
    alpha, beta, gamma, temperature: floats of the formula.
    base_temperature: float. The loss is multiplied by temperature / base_temperature, which no official program does.
      Defaults to None, no factor.
    first: int. Row of `contrast` that holds the first of `queries`. Defaults to 0.
    Source: Cui et al., ICCV 2021; Parametric-Contrastive-Learning LT/losses.py (PaCoLoss, its supt = 1).
    """
    row = first + tf.range(tf.shape(queries)[0])
    other = (tf.range(tf.shape(contrast)[0]) != row[:, None]) & (contrast_labels != EMPTY)  # (B, M)
    positive = other & (contrast_labels == labels[:, None])

    similarity = tf.matmul(queries, contrast, transpose_b=True) / temperature
    exponents = tf.concat([logits + losses.log_prior(class_counts), similarity], axis=1)  # (B, C + M)
    factors = tf.concat([tf.ones_like(logits), gamma * tf.cast(other, tf.float32)], axis=1)
    weights = tf.concat([beta * tf.one_hot(labels, logits.shape[1]), alpha * tf.cast(positive, tf.float32)], axis=1)
    mean = tf.reduce_sum(weights * exponents, axis=1) / tf.reduce_sum(weights, axis=1)
    loss = tf.reduce_logsumexp(exponents + tf.math.log(factors), axis=1) - mean  # a factor of 0 is left out: log 0
    return loss if base_temperature is None else loss * temperature / base_temperature


def projection(width: int, dim: int) -> keras.Sequential:
    """Features [B, width] -> vectors of unit length [B, dim]: linear, BatchNorm, ReLU, linear, L2, all in float32.

    Source: Parametric-Contrastive-Learning LT/moco/builder.py, mlp=True.
    """

    def linear(units: int, name: str) -> keras.layers.Dense:
        uniform = keras.initializers.RandomUniform(-(width**-0.5), width**-0.5)  # torch's default for both
        return keras.layers.Dense(
            units, kernel_initializer=uniform, bias_initializer=uniform, dtype="float32", name=name
        )

    norm = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, synchronized=True, dtype="float32", name="bn")
    relu, unit = keras.layers.ReLU(dtype="float32"), keras.layers.UnitNormalization(dtype="float32")
    return keras.Sequential(
        [keras.Input((width,)), linear(width, "hidden"), norm, relu, linear(dim, "out"), unit], name="projection"
    )


class Paco:
    """Parametric contrastive learning: `paco_loss` of the first view, against keys of the second.

    An objective of `Teacher`. views = 2: (query, key) of every image. The query encoder is `network` up to its layer
    "avgpool", then a projection. The class centres are the network's own classifier, so its logits are served.
    The key encoder is a copy of the query encoder, updated by k <- m k + (1 - m) q. Its keys go into a queue, which
    holds the last `queue` keys for any batch size and is EMPTY at first. SAM computes the losses twice a step, with the
    same keys and queue.

    Args:
      network: keras.Model, pixels -> logits, with a layer "avgpool" whose output is features [B, D].
      class_counts: training images of each class, [C].
      temperature: float. Similarities are divided by it. Defaults to 0.05, for CIFAR; ImageNet-LT, iNaturalist: 0.2.
      queue: int. Number of keys in the queue. Defaults to 1024, for CIFAR; ImageNet-LT, iNaturalist: 8192.
      dim: int. Length of queries and keys. Defaults to 32, for CIFAR; ImageNet-LT, iNaturalist: 128.
      alpha: float. Weight of a positive image. Defaults to 0.02, for CIFAR; ImageNet-LT, iNaturalist: 0.05.
      beta: float. Weight of the class as a positive. Defaults to 1.
      gamma: float. Weight of images in the denominator. Defaults to 1.
      momentum: float. m. Defaults to 0.999.

    Raises ValueError for a network without "avgpool", and for a temperature, queue, dim or beta that is not above 0.

    Deviations from the official code: empty places of the queue do not count (there they are random keys with random
    labels, normalised over the wrong axis). All queries and keys of the global batch are contrasted, so the number of
    replicas changes nothing (there each device contrasts its own). BatchNorm over all replicas replaces the shuffling
    of keys between them.
    The official classifier is linear; a cosine one needs a scale of its own, e.g. CosineClassifier(C, scale=30).
    Source: Cui et al., ICCV 2021; Parametric-Contrastive-Learning LT/moco/builder.py (MoCo), LT/paco_cifar.py.
    """

    views = 2
    ascent_losses = None

    def __init__(
        self,
        network: keras.Model,
        class_counts: losses.ClassCounts,
        *,
        temperature: float = 0.05,
        queue: int = 1024,
        dim: int = 32,
        alpha: float = 0.02,
        beta: float = 1.0,
        gamma: float = 1.0,
        momentum: float = 0.999,
    ):
        if "avgpool" not in {layer.name for layer in network.layers}:
            raise ValueError(
                f"PaCo projects the output of a layer named avgpool, and {network.name} has none: "
                "as the teacher's model choose a resnet*."
            )
        for name, value in {"temperature": temperature, "queue": queue, "dim": dim, "beta": beta}.items():
            if value <= 0:
                raise ValueError(f"PaCo needs a {name} above 0, not {value}.")
        feature = network.get_layer("avgpool").output
        head = projection(feature.shape[-1], dim)
        self.query_encoder = keras.Model(network.input, head(feature))
        self.key_encoder = keras.models.clone_model(self.query_encoder)
        self.key_encoder.set_weights(self.query_encoder.get_weights())
        self.outputs = keras.Model(network.input, {"logits": network.output, "query": self.query_encoder.output})
        self.queue = keras.Variable(np.zeros((queue, dim), np.float32), trainable=False, name="queue")
        # int64: TensorFlow keeps int32 variables off the GPU.
        self.queue_labels = keras.Variable(np.full(queue, EMPTY, np.int64), trainable=False, name="queue_labels")
        self.momentum = momentum
        self.loss = partial(
            paco_loss, class_counts=class_counts, alpha=alpha, beta=beta, gamma=gamma, temperature=temperature
        )
        self.trainable = network.trainable_variables + head.trainable_variables
        self.state = [*self.key_encoder.weights, *head.non_trainable_variables, self.queue, self.queue_labels]

    def prepare(self, views: tuple, labels: tf.Tensor, *, seed: tf.Tensor, step: tf.Tensor) -> dict[str, tf.Tensor]:
        """Updates the key encoder; returns the query images, the keys of the global batch, and keys and queue together.

        Nothing is drawn from `seed`.
        """
        query, key = views
        self.update_key_encoder()
        labels = tf.cast(labels, tf.int64)
        # The key encoder runs in training mode. `trainable = False` would make its BatchNorm use moving averages.
        keys, key_labels = replicas.gathered(self.key_encoder(key, training=True)), replicas.gathered(labels)
        return {
            "images": query,
            "labels": labels,
            "keys": keys,
            "key_labels": key_labels,
            "contrast": tf.concat([keys, self.queue], axis=0),
            "contrast_labels": tf.concat([key_labels, key_labels, self.queue_labels], axis=0),  # queries come first
        }

    def update_key_encoder(self) -> None:
        """k <- m k + (1 - m) q, for weights; each encoder has batch statistics of its own."""
        m, old, new = self.momentum, self.key_encoder.trainable_variables, self.query_encoder.trainable_variables
        replicas.assign(old, [m * k + (1 - m) * q for k, q in zip(old, new, strict=True)])

    def losses(self, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        """Per example, [B]."""
        labels, output = inputs["labels"], self.outputs(inputs["images"], training=True)
        # Inside the tape on purpose: the queries of other replicas are contrasted with this replica's queries, which
        # get gradients from there, too.
        contrast = tf.concat([replicas.gathered(output["query"]), inputs["contrast"]], axis=0)
        first = replicas.replica()[0] * tf.size(labels)
        return self.loss(labels, output["logits"], output["query"], contrast, inputs["contrast_labels"], first=first)

    def finish(self, inputs: dict[str, tf.Tensor]) -> None:
        """Appends the keys of this step to the queue and drops the oldest: the first row is always the oldest key."""
        size = self.queue.shape[0]
        keys = tf.concat([self.queue, inputs["keys"]], axis=0)
        labels = tf.concat([self.queue_labels, inputs["key_labels"]], axis=0)
        replicas.assign([self.queue, self.queue_labels], [keys[-size:], labels[-size:]])
