"""float16: losses are scaled up and gradients down again; a step that overflows moves nothing."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.strategies import strategy_of

from deitlt_tf.devices import loss_scale
from deitlt_tf.devices.replicas import apply_summed, replica


def scaled_step(
    gradients: list[float], scaling: loss_scale.LossScale, *, replicas: int = 1
) -> tuple[float, float, int]:
    """One step of SGD with momentum; replica i brings the i-th gradient, times scale: weight, momentum, iterations."""
    strategy = strategy_of(replicas)
    with strategy.scope():
        weight = keras.Variable(1.0)
        optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
        optimizer.build([weight])

        @tf.function
        def step():
            def one_replica():
                mine = tf.constant(gradients)[replica()[0]] * scaling.scale
                apply_summed(optimizer, [mine], [weight], clip_norm=0.5, scaling=scaling)

            strategy.run(one_replica)

        step()
        return float(weight.numpy()), float(optimizer.variables[-1].numpy()), int(optimizer.iterations.numpy())


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_finite_step_is_that_of_unscaled_gradients_clipped_after_the_sum(replicas):
    with strategy_of(replicas).scope():
        scaling = loss_scale.LossScale(initial=1024.0, growth_steps=1)
    weight, momentum, iterations = scaled_step([0.75] * replicas, scaling, replicas=replicas)
    assert weight == pytest.approx(1 - 0.1 * 0.5) and momentum == pytest.approx(-0.05) and iterations == 1
    assert scaling.scale.numpy() == 2048 and scaling.good_steps.numpy() == 0


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_an_overflow_on_the_second_replica_alone_moves_nothing_but_the_step_number(bad):
    with strategy_of(2).scope():
        scaling = loss_scale.LossScale(initial=1024.0)
    assert scaled_step([0.1, bad], scaling, replicas=2) == (1.0, 0.0, 1)
    assert scaling.scale.numpy() == 512 and scaling.good_steps.numpy() == 0


def test_only_float16_is_scaled():
    def network(policy):
        return keras.Sequential([keras.Input([4]), keras.layers.Dense(2, dtype=policy)])

    assert loss_scale.of(network("float32")) is None and loss_scale.of(network("mixed_bfloat16")) is None
    assert loss_scale.of(network("mixed_float16")).scale.numpy() == 2**15
