"""Sharpness-aware minimisation: the gradient is taken at the worst point of a small ball around the weights."""

from collections.abc import Callable

import keras
import tensorflow as tf


def gradient(loss: Callable[[], tf.Tensor], variables: list) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """L(w) and grad L(w). loss: computes a scalar from the current variables."""
    with tf.GradientTape() as tape:
        value = loss()
    return value, tape.gradient(value, variables)


def sam_gradient(
    loss: Callable[[], tf.Tensor],
    variables: list,
    *,
    rho: float,
    all_reduce: Callable[[list[tf.Tensor]], list[tf.Tensor]] = list,
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """L(w) and grad L(w + rho g / |g|), where g = grad L(w) over the global batch and |g| its norm over all weights.

    The weights are never moved: the second pass reads w + e through a StatelessScope, which also drops what layers
    write, so BatchNorm keeps the statistics of the first pass and nothing has to be restored.
    all_reduce: sums the first gradient over replicas. The gradient returned is this replica's own, not yet summed.
    Source: Foret et al., ICLR 2021, equation 2; Saddle-LongTail sam.py.
    """
    value, ascent = gradient(loss, variables)
    ascent = all_reduce(ascent)
    step = rho / (tf.linalg.global_norm(ascent) + 1e-12)
    perturbed = [variable + step * slope for variable, slope in zip(variables, ascent, strict=True)]
    with keras.StatelessScope(state_mapping=list(zip(variables, perturbed, strict=True))), tf.GradientTape() as tape:
        tape.watch(perturbed)
        there = loss()
    return value, tape.gradient(there, perturbed)
