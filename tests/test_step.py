"""What student and teacher share: weights by class from a step on, loss scaling, accuracy, no saving."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deitlt_tf import losses
from deitlt_tf.devices.loss_scale import LossScale
from deitlt_tf.step import TrainingStep

COUNTS = [40, 20, 10]


def network(*, heads: int = 1) -> keras.Model:
    keras.utils.set_random_seed(1)
    x = keras.Input([3])
    if heads == 1:
        return keras.Model(x, keras.layers.Dense(3)(x))
    return keras.Model(x, {name: keras.layers.Dense(3, name=name)(x) for name in ("cls", "dist")})


def test_losses_are_weighted_by_class_from_a_step_on():
    step = TrainingStep(network(), COUNTS, reweight_step=5, beta=0.999)
    np.testing.assert_allclose(step.class_weights, losses.class_balanced_weights(COUNTS, 0.999))
    by_class = tf.constant([0.5, 2.0])
    np.testing.assert_array_equal(step.reweighted(by_class, tf.constant(4, tf.int64)), [1, 1])
    np.testing.assert_array_equal(step.reweighted(by_class, tf.constant(5, tf.int64)), by_class)
    never = TrainingStep(network(), COUNTS)
    np.testing.assert_array_equal(never.reweighted(by_class, tf.constant(10**9, tf.int64)), [1, 1])


def test_only_float16_has_a_state_and_a_scale():
    step = TrainingStep(network(), COUNTS)
    assert step.state == [] and float(step.scaled(tf.constant(3.0))) == 3.0
    step.scaling = LossScale(initial=8.0)
    assert step.state == step.scaling.variables and float(step.scaled(tf.constant(3.0))) == 24.0


def test_accuracy_is_measured_for_every_head_without_padding():
    step = TrainingStep(network(heads=2), COUNTS)
    step.compile(keras.optimizers.SGD())
    images = tf.constant(np.random.default_rng(0).normal(size=(4, 3)), tf.float32)
    labels = np.argmax(step(images)["dist"], -1)
    mask = tf.constant([1.0, 1.0, 1.0, 0.0])
    accuracy = step.test_step((images, np.where([1, 1, 0, 0], labels, (labels + 1) % 3), mask))
    assert set(accuracy) == {"cls", "dist", "mean"} and float(accuracy["dist"]) == pytest.approx(2 / 3)


def test_an_optimiser_step_is_clipped():
    step = TrainingStep(network(), COUNTS, clip_norm=1.0)
    step.compile(keras.optimizers.SGD(1.0))
    kernel = step.network.trainable_variables[0]
    before = kernel.numpy()
    step.apply([tf.fill(kernel.shape, 5.0)], [kernel])
    np.testing.assert_allclose(before - kernel.numpy(), np.full((3, 3), 1 / 3), rtol=1e-5)


def test_it_is_the_network_that_is_saved(tmp_path):
    step = TrainingStep(network(), COUNTS)
    with pytest.raises(NotImplementedError, match="a TrainingStep is not saved: save its `network`"):
        step.get_config()
