"""What the steps of student and teacher share: one network, weights by class, loss scaling, one optimiser step."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deitlt_tf import losses
from deitlt_tf.devices import loss_scale, replicas
from deitlt_tf.losses import NEVER, ClassCounts
from deitlt_tf.models import interface

SMALLEST = float(np.finfo(np.float32).tiny)  # the smallest sum by which losses are divided: all weights may be 0


class TrainingStep(keras.Model):
    """A network in training: what its subclasses `distill.Distiller` and `teacher.Teacher` have in common.

    A subclass computes the losses of a step and their gradient in `step`; this class weighs, scales and applies them,
    and is what Keras' `fit` and `evaluate` call. Both take labels int [B], int [B, 1] or one-hot [B, C], and
    `sample_weight` or `class_weight`. The loss of a step is then sum_i s_i w_i l_i / sum_i s_i w_i over the global
    batch, with s_i the weight of sample i and w_i its weight by class. `fit` reports the losses of every step to its
    callbacks, and their means over the images of an epoch in its history.

    Args:
      network: keras.Model, images in pixels -> logits. It is trained, saved and served.
      class_counts: training images of each class, [C].
      reweight_step: int. From this step on losses are weighted by class (DRW). Defaults to never.
      beta: float. beta of the class-balanced weights. Defaults to 0.9999.
      clip_norm: float. Largest global norm of the gradient, 0 = not clipped. Defaults to 0.
      seed: int. Seed of everything random in a step. Defaults to 0.
      loss_names: names of the losses that `step` returns. Defaults to ("loss",).

    Raises ValueError for a class without images, and for a network of another number of classes.
    """

    def __init__(
        self,
        network: keras.Model,
        class_counts: ClassCounts,
        *,
        reweight_step: int = NEVER,
        beta: float = 0.9999,
        clip_norm: float = 0.0,
        seed: int = 0,
        loss_names: Sequence[str] = ("loss",),
    ):
        super().__init__()
        self.network = network
        self.num_classes = len(class_counts)
        for logits in interface.heads(network.output).values():
            if logits.shape[-1] != self.num_classes:
                raise ValueError(
                    f"the network has {logits.shape[-1]} classes and class_counts {self.num_classes}: "
                    "class_counts has the number of training images of each class of the network."
                )
        self.class_weights = tf.constant(losses.class_balanced_weights(class_counts, beta))
        self.reweight_step, self.clip_norm, self.seed = reweight_step, clip_norm, seed
        self.scaling = loss_scale.of(network)
        self.accuracy = {
            head: keras.metrics.SparseCategoricalAccuracy(name=head) for head in interface.heads(network.output)
        }
        self.means = {name: keras.metrics.Mean(name=name) for name in loss_names}
        self.built = True

    @property
    def trained(self) -> list[keras.Variable]:
        """The variables that the optimiser changes."""
        return self.network.trainable_variables

    @property
    def state(self) -> list[keras.Variable]:
        """Variables that a checkpoint has to hold besides those of network and optimiser."""
        return self.scaling.variables if self.scaling else []

    @property
    def draws_gamma(self) -> bool:
        """Whether a step draws from Gamma, for which XLA has no kernel."""
        return False

    def compile(
        self,
        optimizer: keras.optimizers.Optimizer,
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        *,
        jit_compile: bool | str = False,
        auto_scale_loss: bool = False,
        **options: Any,
    ) -> None:
        """keras.Model.compile, of which the losses are fixed and XLA is off by default.

        jit_compile: with True XLA compiles the step, on one device. "auto" is False. Defaults to False.
        Raises ValueError for what this class has of its own: losses, metrics, loss scaling; and for XLA or
        `steps_per_execution` where they cannot be had.
        """
        name, devices = type(self).__name__, self.distribute_strategy.num_replicas_in_sync
        own = {"loss": loss, "loss_weights": loss_weights, "metrics": metrics, "weighted_metrics": weighted_metrics}
        for option, value in own.items():
            if value is not None:
                raise ValueError(
                    f"{option}={value!r}: the losses and metrics of a {name} are its own ({', '.join(self.means)}; "
                    "accuracies in evaluate). Leave the argument out."
                )
        if auto_scale_loss:  # Keras would wrap the optimiser and divide the gradients a second time
            raise ValueError(f"auto_scale_loss=True: a {name} scales the losses of float16 itself. Leave it out.")
        if jit_compile is True and self.draws_gamma:
            raise ValueError(
                "jit_compile=True: mixing draws from Gamma, for which XLA has no kernel. Leave jit_compile out, or "
                "switch mixing off (an alpha of 0)."
            )
        if devices > 1 and (jit_compile is True or options.get("steps_per_execution", 1) != 1):
            raise ValueError(
                f"jit_compile=True and steps_per_execution above 1 work on one device, and the strategy has {devices}: "
                "leave them out."
            )
        super().compile(optimizer, jit_compile=jit_compile is True, auto_scale_loss=False, **options)

    def step(
        self, batch: tuple, *, sample_weight: tf.Tensor | None = None, teacher_classes: tf.Tensor | None = None
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """One step: its named losses of the global batch, and the classes int [B] from which the images were learnt.

        batch: (images, labels int [B]). sample_weight: float32 [B]. Defaults to None, all 1.
        teacher_classes: int64 [B], the teacher's classes where they are known. Defaults to None, the teacher is asked.
        """
        raise NotImplementedError

    def train_step(self, data: tuple) -> dict[str, tf.Tensor]:
        """What Keras' `fit` calls: `step`, for a batch (images, labels) or (images, labels, sample weights)."""
        images, labels, sample_weight = self.unpacked(data)
        if self.distribute_strategy.num_replicas_in_sync > 1:
            message = "a device has no image of this batch: batch with drop_remainder=True."
            images = tf.nest.map_structure(lambda x: checked(x, tf.size(labels) > 0, message), images)
        values, _ = self.step((images, labels), sample_weight=sample_weight)
        for name, value in values.items():
            self.means[name].update_state(value, sample_weight=tf.size(labels))
        return self.reported(values)

    def test_step(self, data: tuple) -> dict[str, tf.Tensor]:
        """What Keras' `evaluate` calls: accuracy of each head. Sample weights mark images (1) and padding (0)."""
        images, labels, sample_weight = self.unpacked(data)
        for head, logits in interface.heads(self.network(images, training=False)).items():
            self.accuracy[head].update_state(labels, logits, sample_weight=sample_weight)
        return self.reported({metric.name: metric.result() for metric in self.accuracy.values()})

    def unpacked(self, data: tuple) -> tuple[Any, tf.Tensor, tf.Tensor | None]:
        """Images, labels int [B] and sample weights float32 [B] (or None) of a batch as Keras has it, all checked."""
        images, labels, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if labels is None or isinstance(labels, (dict, list, tuple)):
            raise ValueError(
                f"a {type(self).__name__} needs labels, one tensor for all heads: batches are (images, labels)."
            )
        images = tuple(images) if isinstance(images, list) else images
        if sample_weight is not None:
            sample_weight = weights_of_samples(sample_weight)
        return images, class_labels(labels, self.num_classes), sample_weight

    def reported(self, values: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Scalars in the shape in which Keras takes them: with several workers it averages over their first axis."""
        strategy = self.distribute_strategy
        several = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
        return {name: tf.reshape(value, [1]) for name, value in values.items()} if several else values

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """All that `fit` and `evaluate` report."""
        return [*self.means.values(), *self.accuracy.values()]

    def get_metrics_result(self) -> dict[str, Any]:
        """Results of the metrics that have been updated: losses in an epoch of `fit`, accuracies in `evaluate`."""
        return {metric.name: metric.result() for metric in self.metrics if tf.convert_to_tensor(metric.count) > 0}

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Builds the optimiser; all else is built. Keras would average a batch over workers, which fails."""
        if self.compiled and not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trained)

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor | dict[str, tf.Tensor]:
        return self.network(images, training=training)

    def reweighted(self, by_class: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """Weights of the examples, [B]: `by_class` from `reweight_step` on, 1 before."""
        return tf.where(step >= self.reweight_step, by_class, tf.ones_like(by_class))

    def share(self, weights: tf.Tensor) -> tf.Tensor:
        """Weights [B] of the examples divided by the sum over the global batch; 0 where that sum is 0."""
        return weights / tf.maximum(replicas.global_sum(weights), SMALLEST)

    def scaled(self, loss: tf.Tensor) -> tf.Tensor:
        """The loss whose gradient is taken: in float16 multiplied by the loss scale, elsewhere the loss itself."""
        return loss * self.scaling.scale if self.scaling else loss

    def apply(self, gradients: list, variables: list) -> None:
        """One optimiser step with the gradients of all replicas, clipped."""
        replicas.apply_summed(self.optimizer, gradients, variables, clip_norm=self.clip_norm, scaling=self.scaling)

    def get_config(self) -> dict[str, Any]:
        raise NotImplementedError(
            f"a {type(self).__name__} is not saved: save its `network`, which is a plain Keras model."
        )


def class_labels(labels: tf.Tensor, num_classes: int) -> tf.Tensor:
    """Labels int [B], checked, of labels as Keras users pass them: [B], [B, 1] or one-hot [B, C], int or float.

    Raises ValueError for another shape or type. Raises for a label that is not one of 0..C-1, for one that is not whole
    and for a row that is not one-hot: ValueError, or inside a graph InvalidArgumentError when it runs.
    """
    labels = tf.convert_to_tensor(labels)
    shape = labels.shape
    if not any(shape.is_compatible_with(right) for right in ([None], [None, 1], [None, num_classes])):
        raise ValueError(
            f"labels have the shape {shape}: with {num_classes} classes they have to be [B], [B, 1], or one-hot "
            f"[B, {num_classes}]."
        )
    if not (labels.dtype.is_integer or labels.dtype.is_floating or labels.dtype == tf.bool):
        raise ValueError(f"labels are of type {labels.dtype.name}: they have to be numbers 0 to {num_classes - 1}.")
    if shape.rank == 1:
        return _from_numbers(labels, num_classes)
    rows = tf.reshape(labels, [tf.shape(labels)[0], -1]) if shape.rank is None else labels
    if rows.shape[1] is None:  # Keras traces `evaluate` so after batches of labels [B] and [B, 1]
        one_column = tf.shape(rows)[1] == 1
        branches = [
            lambda: tf.cast(_from_numbers(rows[:, 0], num_classes), tf.int64),
            lambda: _from_one_hot(rows, num_classes),
        ]
        return tf.cond(one_column, *branches)
    return _from_numbers(rows[:, 0], num_classes) if rows.shape[1] == 1 else _from_one_hot(rows, num_classes)


def _from_numbers(labels: tf.Tensor, num_classes: int) -> tf.Tensor:
    """Labels [B] of any type of number -> int [B], checked."""
    if labels.dtype.is_floating:
        labels = checked(labels, tf.reduce_all(labels == tf.round(labels)), "labels have to be whole numbers.")
    if labels.dtype not in (tf.int32, tf.int64):
        labels = tf.cast(labels, tf.int64)
    lowest, highest = (tf.cast(reduce(labels), tf.int32) for reduce in (tf.reduce_min, tf.reduce_max))
    return checked(
        labels,
        tf.reduce_all((labels >= 0) & (labels < num_classes)),
        "label",
        tf.where(lowest < 0, lowest, highest),
        f"is not one of 0 to {num_classes - 1}, the classes of class_counts.",
    )


def _from_one_hot(labels: tf.Tensor, num_classes: int) -> tf.Tensor:
    """One-hot labels [B, C] of any type of number -> int64 [B], checked."""
    labels = tf.cast(labels, tf.float32)
    one_hot = tf.reduce_all((labels == 0) | (labels == 1)) & tf.reduce_all(tf.reduce_sum(labels, 1) == 1)
    message = f"labels of several columns have to be one-hot [B, {num_classes}]: soft labels are not offered."
    return checked(tf.argmax(labels, -1), one_hot & (tf.shape(labels)[1] == num_classes), message)


def weights_of_samples(weights: tf.Tensor) -> tf.Tensor:
    """float32 [B], of sample weights [B] or [B, 1] of any type of number. Raises as `class_labels` does."""
    weights = tf.convert_to_tensor(weights)
    if not any(weights.shape.is_compatible_with(right) for right in ([None], [None, 1])):
        raise ValueError(f"sample weights have the shape {weights.shape}: they have to be [B], one for each image.")
    weights = tf.reshape(tf.cast(weights, tf.float32), [-1])
    valid = tf.reduce_all((weights >= 0) & tf.math.is_finite(weights))
    return checked(weights, valid, "sample weights have to be finite and not below 0.")


def checked(x: tf.Tensor, condition: tf.Tensor, *message: str | tf.Tensor) -> tf.Tensor:
    """x, where the condition holds. Otherwise ValueError, or inside a graph InvalidArgumentError when it runs.

    message: parts of a sentence, text or int32 scalars.
    """
    if tf.executing_eagerly():
        if not condition:
            raise ValueError(" ".join(str(part if isinstance(part, str) else part.numpy()) for part in message))
        return x
    with tf.control_dependencies([tf.debugging.Assert(condition, list(message))]):
        return tf.identity(x)
