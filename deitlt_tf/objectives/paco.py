"""PaCo: one softmax over class centres and over other images; a momentum encoder and a queue supply those images."""

import keras
import numpy as np
import tensorflow as tf

from deitlt_tf import losses
from deitlt_tf.devices import replicas

EMPTY = -1  # label of a place in the queue that no key has taken yet


def paco_loss(
    labels: tf.Tensor,
    logits: tf.Tensor,
    queries: tf.Tensor,
    contrast: tf.Tensor,
    contrast_labels: tf.Tensor,
    class_counts,
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
    The sums over j leave out the query itself and what is EMPTY; gradients flow through q and through f.

    labels, logits, queries: [B], [B, C], [B, D], of unit length. contrast: f, [M, D], of unit length, with its labels
    [M] of the same type as `labels`: the queries of the whole batch first (those above from row `first` on), then keys
    and queue. base_temperature: the loss is multiplied by temperature / base_temperature, if given, which no
    official program does.
    Source: Cui et al., ICCV 2021; Parametric-Contrastive-Learning LT/losses.py (PaCoLoss, its supt = 1).
    """
    row = first + tf.range(tf.shape(queries)[0])
    other = (tf.range(tf.shape(contrast)[0]) != row[:, None]) & (contrast_labels != EMPTY)  # (B, M)
    positive = other & (contrast_labels == labels[:, None])

    similarity = tf.matmul(queries, contrast, transpose_b=True) / temperature
    exponents = tf.concat([logits + losses.log_prior(class_counts), similarity], axis=1)  # (B, C + M)
    counted = tf.concat([tf.ones_like(logits), gamma * tf.cast(other, tf.float32)], axis=1)
    wanted = tf.concat([beta * tf.one_hot(labels, logits.shape[1]), alpha * tf.cast(positive, tf.float32)], axis=1)
    mean = tf.reduce_sum(wanted * exponents, axis=1) / tf.reduce_sum(wanted, axis=1)
    loss = tf.reduce_logsumexp(exponents + tf.math.log(counted), axis=1) - mean  # log 0: not counted
    return loss if base_temperature is None else loss * temperature / base_temperature


def projection(width: int, dim: int) -> keras.Sequential:
    """Features [B, width] -> unit vectors [B, dim]: linear, BatchNorm, ReLU, linear, L2, all in float32.

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
    """Parametric contrastive learning: `paco_loss` of the first view, against keys made from the second.

    An objective of `Teacher`. views = 2: (query, key) of every image. The query encoder is `network` up to its layer
    "avgpool" and a projection; the class centres are the network's own classifier, so its logits are what is served.
    The key encoder is a copy that follows by k <- m k + (1 - m) q; its keys join a queue of the last `queue` of them,
    whatever the batch size; EMPTY at first. SAM asks for the losses twice a step, of the same keys and queue.

    Args:
      network: keras.Model, pixels -> logits, with a layer "avgpool" that gives features [B, D].
      class_counts: training images of each class, [C].
      temperature, queue, dim, alpha: of similarities; keys remembered; their length; weight of a positive image.
        Default to CIFAR's 0.05, 1024, 32, 0.02. ImageNet-LT and iNaturalist: 0.2, 8192, 128, 0.05.
      beta, gamma: weights of the class as a positive, and of images in the denominator. Default to 1.
      momentum: float. m. Defaults to 0.999.

    Raises ValueError for a network without "avgpool", and for numbers that have to be above 0 and are not.

    Deviations from the official code: an empty queue does not count (there: random keys with random labels, normalised
    over the wrong axis); all queries and keys of the global batch are contrasted, so that replicas change nothing
    (there: each device's own); BatchNorm over all replicas takes the place of shuffling the keys between them.
    The official classifier is linear; a cosine one has to bring its scale, as CosineClassifier(C, scale=30) does.
    Source: Cui et al., ICCV 2021; Parametric-Contrastive-Learning LT/moco/builder.py (MoCo), LT/paco_cifar.py.
    """

    views = 2
    ascent_losses = None

    def __init__(
        self,
        network: keras.Model,
        class_counts,
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
            raise ValueError(f"PaCo projects the output of a layer named avgpool, and {network.name} has none.")
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
        self.class_counts, self.momentum = class_counts, momentum
        self.constants = {"alpha": alpha, "beta": beta, "gamma": gamma, "temperature": temperature}
        self.trainable = network.trainable_variables + head.trainable_variables
        self.state = [*self.key_encoder.weights, *head.non_trainable_variables, self.queue, self.queue_labels]

    def prepare(self, views: tuple, labels: tf.Tensor, *, seed: tf.Tensor, step: tf.Tensor) -> dict[str, tf.Tensor]:
        """The key encoder's step, the keys of the global batch, and what queries are contrasted with besides queries.

        Nothing is drawn from `seed`.
        """
        query, key = views
        self.follow()
        labels = tf.cast(labels, tf.int64)
        # In training mode, so never `trainable = False`, which would make its BatchNorm use moving averages.
        keys, key_labels = replicas.gathered(self.key_encoder(key, training=True)), replicas.gathered(labels)
        return {
            "images": query,
            "labels": labels,
            "keys": keys,
            "key_labels": key_labels,
            "contrast": tf.concat([keys, self.queue], axis=0),
            "contrast_labels": tf.concat([key_labels, key_labels, self.queue_labels], axis=0),  # queries come first
        }

    def follow(self) -> None:
        """k <- m k + (1 - m) q, for weights; batch statistics are each encoder's own."""
        m, old, new = self.momentum, self.key_encoder.trainable_variables, self.query_encoder.trainable_variables
        replicas.assign(old, [m * k + (1 - m) * q for k, q in zip(old, new, strict=True)])

    def losses(self, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        """Per example, [B]."""
        labels, output = inputs["labels"], self.outputs(inputs["images"], training=True)
        # Meant inside the tape: a query is a contrast of the other replicas' queries, too, and gets gradients there.
        contrast = tf.concat([replicas.gathered(output["query"]), inputs["contrast"]], axis=0)
        first = replicas.replica()[0] * tf.size(labels)
        arguments = labels, output["logits"], output["query"], contrast, inputs["contrast_labels"], self.class_counts
        return paco_loss(*arguments, first=first, **self.constants)

    def finish(self, inputs: dict[str, tf.Tensor]) -> None:
        """queue <- its last rows after the keys of this step were appended: oldest first."""
        size = self.queue.shape[0]
        keys = tf.concat([self.queue, inputs["keys"]], axis=0)
        labels = tf.concat([self.queue_labels, inputs["key_labels"]], axis=0)
        replicas.assign([self.queue, self.queue_labels], [keys[-size:], labels[-size:]])
