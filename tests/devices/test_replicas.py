"""What replicas do together inside a step: sums, gathering, seeds, assignments, one optimiser step."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.strategies import strategy_of

from deitlt_tf.devices import replicas
from deitlt_tf.devices.replicas import gathered, own_part


def test_parts_of_replicas_are_gathered_in_the_order_of_the_batch():
    strategy = strategy_of(2)

    @tf.function
    def there_and_back():
        def one_replica():
            mine = tf.constant([[7, 3], [-1, 2**40]], tf.int64)[replicas.replica()[0]]
            everything = gathered(mine)
            return mine, everything, own_part(everything)

        return strategy.run(one_replica)

    mine, everything, own = (strategy.experimental_local_results(x) for x in there_and_back())
    for replica in range(2):
        assert everything[replica].numpy().tolist() == [7, 3, -1, 2**40]
        np.testing.assert_array_equal(own[replica], mine[replica])


def test_a_sum_over_replicas_is_on_every_one_of_them():
    strategy = strategy_of(2)

    @tf.function
    def summed():
        def one_replica():
            mine = tf.constant([[1.0, 2.0], [3.0, 5.0]])[replicas.replica()[0]]
            return replicas.all_sum({"mine": mine}), replicas.global_sum(mine)

        return strategy.run(one_replica)

    sums, total = summed()
    for one, all_of_it in zip(*(strategy.experimental_local_results(x) for x in (sums["mine"], total)), strict=True):
        assert one.numpy().tolist() == [4.0, 7.0] and float(all_of_it) == 11.0


def test_one_replica_sums_and_gathers_nothing():
    x = tf.constant([1, 2])
    assert replicas.all_sum(x) is x and gathered(x) is x
    assert replicas.replica()[1] == 1


def test_variables_are_assigned_from_inside_a_step():
    """Keras weights are mirrored without an aggregation rule: TensorFlow refuses a plain assignment there."""
    strategy = strategy_of(2)
    with strategy.scope():
        variable = keras.Variable([1.0, 2.0], trainable=False)
    strategy.run(lambda: replicas.assign([variable], [tf.constant([5.0, 7.0])]))
    np.testing.assert_array_equal(variable.numpy(), [5.0, 7.0])


def test_two_replicas_draw_what_one_with_two_parts_does():
    strategy, step = strategy_of(2), tf.constant(4, tf.int64)
    on_replicas = strategy.experimental_local_results(strategy.run(lambda: replicas.step_seed(3, step)))
    in_parts = [replicas.step_seed(3, step, part=part, parts=2) for part in range(2)]
    np.testing.assert_array_equal(on_replicas, in_parts)
    assert not np.array_equal(in_parts[0], in_parts[1])
    assert not np.array_equal(in_parts[0], replicas.step_seed(3, step + 1, parts=2))
    assert not np.array_equal(in_parts[0], replicas.step_seed(4, step, parts=2))


@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_an_optimiser_step_takes_the_clipped_sum_of_all_gradients(clip_norm):
    strategy = strategy_of(2)
    with strategy.scope():
        weights = [keras.Variable([1.0, 1.0]), keras.Variable(1.0)]
        optimizer = keras.optimizers.SGD(0.5)
        optimizer.build(weights)

    @tf.function
    def step():
        def one_replica():
            mine = [tf.constant([[1.0, 0.0], [2.0, 0.0]]), tf.constant([4.0, 0.0])]
            slopes = [slope[replicas.replica()[0]] for slope in mine]
            replicas.apply_summed(optimizer, slopes, weights, clip_norm=clip_norm)

        strategy.run(one_replica)

    step()
    share = 1 / 5 if clip_norm else 1  # the norm of (3, 0) and 4
    np.testing.assert_allclose(weights[0].numpy(), [1 - 0.5 * 3 * share, 1], rtol=1e-6)
    np.testing.assert_allclose(weights[1].numpy(), 1 - 0.5 * 4 * share, rtol=1e-6)
