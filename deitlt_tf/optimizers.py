"""Learning-rate schedules of the official recipes, AdamW with its no-decay rule, and SGD as PyTorch defines it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="deitlt_tf")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Linear from `warmup_lr` to `peak` in `warmup_epochs`, then min + (peak - min)(1 + cos(pi t / T)) / 2; t: epochs.

    t is fractional and grows with every optimiser step. As in timm, the cosine counts t from step 0 and not from the
    end of the warm-up, so the curve joins the ramp slightly below the peak. Source: timm CosineLRScheduler.

    peak, warmup_lr, min_lr: learning rates. The last two default to 1e-6 and 1e-5.
    epochs: T, epochs of the whole training. steps_per_epoch: optimiser steps of an epoch.
    warmup_epochs: length of the ramp, which may be a fraction. Defaults to 5.
    per_epoch: bool. Whether t is rounded down, so that the rate changes between epochs only. Defaults to False.
    """

    def __init__(
        self,
        *,
        peak: float,
        epochs: float,
        steps_per_epoch: int,
        warmup_epochs: float = 5.0,
        warmup_lr: float = 1e-6,
        min_lr: float = 1e-5,
        per_epoch: bool = False,
    ):
        super().__init__()
        self.settings = {
            "peak": float(peak),
            "epochs": float(epochs),
            "steps_per_epoch": int(steps_per_epoch),
            "warmup_epochs": float(warmup_epochs),
            "warmup_lr": float(warmup_lr),
            "min_lr": float(min_lr),
            "per_epoch": bool(per_epoch),
        }

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        s = self.settings
        t = tf.cast(step, tf.float32) / s["steps_per_epoch"]
        if s["per_epoch"]:
            t = tf.cast(step // s["steps_per_epoch"], tf.float32)
        ramp = s["warmup_lr"] + t * (s["peak"] - s["warmup_lr"]) / max(s["warmup_epochs"], 1e-9)
        curve = s["min_lr"] + (s["peak"] - s["min_lr"]) * (1 + tf.cos(math.pi * t / s["epochs"])) / 2
        return tf.where(t < s["warmup_epochs"], ramp, curve)

    def get_config(self) -> dict[str, Any]:
        return dict(self.settings)


@keras.saving.register_keras_serializable(package="deitlt_tf")
class WarmupDrops(keras.optimizers.schedules.LearningRateSchedule):
    """peak (e + 1) / warmup in epoch e < warmup, then peak times the factor of the last drop; constant in an epoch.

    In the last epoch of a warm-up that ends within an epoch, the rate rises with every step: peak (t + 1/S) / warmup,
    t: epochs, S: steps_per_epoch.
    peak: highest learning rate. steps_per_epoch: optimiser steps of an epoch.
    drops: {epoch: factor of the peak}, e.g. {160: 0.01, 180: 0.0001}.
    warmup_epochs: length of the ramp, which may be a fraction. Defaults to 5.
    Source: Saddle-LongTail adjust_learning_rate.
    """

    def __init__(
        self,
        *,
        peak: float,
        steps_per_epoch: int,
        drops: Mapping[int, float] | Mapping[str, float],
        warmup_epochs: float = 5,
    ):
        super().__init__()
        self.settings: dict[str, Any] = {
            "peak": float(peak),
            "steps_per_epoch": int(steps_per_epoch),
            "drops": {str(epoch): float(factor) for epoch, factor in drops.items()},
            "warmup_epochs": float(warmup_epochs),
        }

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        s = self.settings
        step, steps_per_epoch, warmup = tf.cast(step, tf.int32), s["steps_per_epoch"], s["warmup_epochs"]
        epoch = step // steps_per_epoch
        factor = tf.constant(1.0)
        for start, dropped in sorted((int(e), f) for e, f in s["drops"].items()):
            factor = tf.where(epoch >= start, dropped, factor)
        last_epoch = tf.cast(step + 1, tf.float32) / steps_per_epoch
        ramp = tf.where(epoch < int(warmup), tf.cast(epoch + 1, tf.float32), last_epoch) / max(warmup, 1e-9)
        warming = tf.cast(step, tf.float32) < warmup * steps_per_epoch
        return s["peak"] * tf.where(warming, tf.minimum(ramp, 1.0), factor)

    def get_config(self) -> dict[str, Any]:
        return dict(self.settings)


def without_decay(variables: list) -> list:
    """The variables that AdamW does not decay: biases, other 1-D weights, both tokens and the position embedding."""
    exempt = ("cls_token", "dist_token", "pos_embed")
    return [v for v in variables if len(v.shape) <= 1 or v.path.endswith(exempt)]


@keras.saving.register_keras_serializable(package="deitlt_tf")
class AdamW(keras.optimizers.AdamW):
    """w <- (1 - lr wd) w - lr m^ / (sqrt(v^) + eps), with m^ and v^ corrected for their start: PyTorch's AdamW.

    keras.optimizers.AdamW adds eps to the uncorrected sqrt(v). In the terms of this formula that is
    eps / sqrt(1 - beta_2^t), thirty times as much in the first step: after eight steps the weights differ from the
    reference by a thousandth.
    """

    def update_step(self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor) -> None:
        index = self._get_variable_index(variable)
        m, v = self._momentums[index], self._velocities[index]
        t = tf.cast(self.iterations + 1, tf.float32)
        # One pass over memory. TensorFlow's kernel also adds epsilon to the uncorrected sqrt(v), so epsilon is
        # corrected before it is passed.
        beta_1_power, beta_2_power = self.beta_1**t, self.beta_2**t
        tf.raw_ops.ResourceApplyAdam(
            var=_handle(variable),
            m=_handle(m),
            v=_handle(v),
            beta1_power=beta_1_power,
            beta2_power=beta_2_power,
            lr=tf.cast(learning_rate, tf.float32),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon * tf.sqrt(1 - beta_2_power),
            grad=tf.cast(gradient, tf.float32),
        )


def _handle(variable: keras.Variable | tf.Variable) -> tf.Tensor:
    """The resource handle of a Keras or TensorFlow variable, on the current replica."""
    return (variable.value if isinstance(variable, keras.Variable) else variable).handle


def adamw(
    student: keras.Model,
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
    *,
    weight_decay: float = 0.05,
    epsilon: float = 1e-8,
    also: Sequence[keras.Variable] = (),
) -> keras.optimizers.Optimizer:
    """AdamW built for `student`, with the official no-decay rule. Source: timm param_groups_weight_decay.

    also: variables that are trained beside the student, such as the projections of `guidance.Guide`. Defaults to none.
    The exemption holds for this optimiser object only. Keras does not save it, so every run makes its own optimiser.
    """
    optimizer = AdamW(learning_rate, weight_decay=weight_decay, epsilon=epsilon)
    variables = [*student.trainable_variables, *also]
    optimizer.exclude_from_weight_decay(var_list=without_decay(variables))
    optimizer.build(variables)
    return optimizer


@keras.saving.register_keras_serializable(package="deitlt_tf")
class SGD(keras.optimizers.Optimizer):
    """b <- mu b + (g + wd w);  w <- w - lr b: PyTorch's SGD, with coupled L2 decay.

    The published teachers were trained so. keras.optimizers.SGD differs in two ways: it keeps lr inside its velocity,
    so after a drop of lr the old gradients still act at the old rate; and its weight decay is decoupled.

    momentum: mu. Defaults to 0.9. l2: wd. Defaults to 0.
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 0.1,
        *,
        momentum: float = 0.9,
        l2: float = 0.0,
        name: str = "sgd",
        **kwargs: Any,
    ):
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.momentum, self.l2 = momentum, l2

    def build(self, variables: Sequence[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self.buffers = self.add_optimizer_variables(variables, "momentum")

    def update_step(self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor) -> None:
        buffer = self.buffers[self._get_variable_index(variable)]
        learning_rate = keras.ops.cast(learning_rate, variable.dtype)
        gradient = keras.ops.cast(gradient, variable.dtype) + self.l2 * variable
        self.assign(buffer, self.momentum * buffer + gradient)
        self.assign_sub(variable, learning_rate * buffer)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"momentum": self.momentum, "l2": self.l2}
