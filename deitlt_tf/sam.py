"""Sharpness-aware minimisation: the gradient is taken at the worst point of a small ball around the weights."""

from collections.abc import Callable, Iterable
from functools import partial

import keras
import tensorflow as tf


def gradient(loss: Callable[[], tf.Tensor], variables: list) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """L(w) and grad L(w), zero where L does not depend on a variable. loss: a scalar from the current variables."""
    with tf.GradientTape() as tape:
        value = loss()
    return value, slopes(tape, value, variables)


def slopes(tape: tf.GradientTape, value: tf.Tensor, variables: list) -> list[tf.Tensor]:
    """The tape's gradient of `value` with respect to each variable, zero where `value` does not depend on it."""
    gradients = tape.gradient(value, variables)
    return [tf.zeros_like(v) if slope is None else slope for slope, v in zip(gradients, variables, strict=True)]


def gradient_at(
    loss: Callable[[], tf.Tensor], variables: list, *, ascent: list[tf.Tensor], rho: float | tf.Tensor
) -> list[tf.Tensor]:
    """grad L(w + rho g / |g|), g = `ascent` and |g| its norm over all weights.

    The weights are never moved: the pass reads w + e through a StatelessScope, which also drops what layers write, so
    BatchNorm keeps the statistics of the pass before and nothing has to be restored.
    """
    step = rho / (tf.linalg.global_norm(ascent) + 1e-12)
    perturbed = [variable + step * slope for variable, slope in zip(variables, ascent, strict=True)]
    with keras.StatelessScope(state_mapping=list(zip(variables, perturbed, strict=True))), tf.GradientTape() as tape:
        tape.watch(perturbed)
        value = loss()
    return slopes(tape, value, perturbed)


def sam_gradient(
    loss: Callable[[], tf.Tensor],
    variables: list,
    *,
    rho: float | tf.Tensor,
    climb: Callable[[], tf.Tensor] | None = None,
    all_reduce: Callable[[list[tf.Tensor]], list[tf.Tensor]] = list,
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """L(w) and grad L(w + rho g / |g|), where g = grad L(w) over the global batch.

    climb: what the ascent follows, if not the whole loss: g = grad climb(w). The value returned is then climb(w).
    all_reduce: sums g over replicas. The gradient returned is this replica's own, not yet summed.
    Source: Foret et al., ICLR 2021, equation 2; Saddle-LongTail sam.py.
    """
    value, ascent = gradient(climb or loss, variables)
    return value, gradient_at(loss, variables, ascent=all_reduce(ascent), rho=rho)


def imbsam_gradient(
    head_and_tail: Callable[[], tuple[tf.Tensor, tf.Tensor]],
    variables: list,
    *,
    rho: float | tf.Tensor,
    all_reduce: Callable[[list[tf.Tensor]], list[tf.Tensor]] = list,
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """L(w) and grad L_head(w) + grad L_tail(w + rho g / |g|), g = grad L_tail(w): only the tail has to be flat.

    head_and_tail: the two parts of L, from the current variables.
    Source: Zhou et al., ICCV 2023 (ImbSAM), imbsam.py.
    """
    with tf.GradientTape(persistent=True) as tape:
        head, tail = head_and_tail()
    stay, ascent = (slopes(tape, part, variables) for part in (head, tail))
    flat = gradient_at(lambda: head_and_tail()[1], variables, ascent=all_reduce(ascent), rho=rho)
    return head + tail, [a + b for a, b in zip(stay, flat, strict=True)]


def sharpness(
    loss: Callable[[tuple], tf.Tensor], variables: list, batches: Iterable[tuple], *, rho: float
) -> tuple[float, float]:
    """L(w) and max L(w + e) - L(w) over |e| <= rho, to first order: e = rho g / |g|, g = grad L(w).

    loss: batch -> per-example losses [B], the network in inference mode. L is their mean over all `batches`, which are
    read twice. Source: Foret et al., ICLR 2021, equation 1.
    """

    def batch_sum(batch: tuple) -> tf.Tensor:
        return tf.reduce_sum(loss(batch))

    count, value, ascent = 0, 0.0, [tf.zeros_like(v) for v in variables]
    for batch in batches:
        batch_value, gradients = gradient(partial(batch_sum, batch), variables)
        count, value = count + len(batch[-1]), value + float(batch_value)
        ascent = [total + slope for total, slope in zip(ascent, gradients, strict=True)]
    step = rho / (tf.linalg.global_norm(ascent) + 1e-12)
    perturbed = [v + step * slope for v, slope in zip(variables, ascent, strict=True)]
    with keras.StatelessScope(state_mapping=list(zip(variables, perturbed, strict=True))):
        worst = sum(float(batch_sum(batch)) for batch in batches)
    return value / count, (worst - value) / count
