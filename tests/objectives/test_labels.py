"""Objectives on one view and its label: each is its loss on the network's logits."""

from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf

from deitlt_tf import losses
from deitlt_tf.models import resnet
from deitlt_tf.objectives.labels import FromLabels

COUNTS = np.array([40, 20, 10, 5])
LABELS = tf.constant([0, 3, 1])
IMAGES = tf.constant(np.random.default_rng(0).uniform(-1, 1, (3, 4)), tf.float32)


def network() -> keras.Model:
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input([4]), keras.layers.Dense(4), keras.layers.UnitNormalization()])


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("ce", losses.cross_entropy),
        ("ldam", partial(losses.ldam, class_counts=COUNTS, max_margin=0.5, scale=30.0)),
        ("balanced_softmax", partial(losses.balanced_softmax, class_counts=COUNTS)),
    ],
)
def test_each_is_its_loss_of_the_first_view(loss, expected):
    net = network()
    objective = FromLabels(net, COUNTS, loss=loss)
    inputs = objective.prepare((IMAGES,), LABELS, seed=tf.constant([0, 0]), step=tf.constant(0))
    each = objective.losses(inputs)
    assert each.shape == LABELS.shape
    np.testing.assert_allclose(each, expected(LABELS, net(IMAGES)), rtol=1e-6)
    objective.finish(inputs)
    assert objective.trainable == net.trainable_variables
    assert (objective.views, objective.ascent_losses, list(objective.state)) == (1, None, [])


def test_margin_and_scale_are_those_of_ldam():
    net = network()
    objective = FromLabels(net, COUNTS, max_margin=0.2, scale=10.0)
    inputs = {"images": IMAGES, "labels": LABELS}
    expected = losses.ldam(LABELS, net(IMAGES), COUNTS, max_margin=0.2, scale=10.0)
    np.testing.assert_allclose(objective.losses(inputs), expected, rtol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_the_margin_of_ldam_is_one_of_cosines_whatever_the_scale_of_the_network(scale):
    keras.utils.set_random_seed(1)
    net = keras.Sequential([keras.Input([4]), resnet.CosineClassifier(4, scale=scale)])
    objective = FromLabels(net, COUNTS, max_margin=0.3, scale=30.0)
    expected = losses.ldam(LABELS, net(IMAGES) / scale, COUNTS, max_margin=0.3, scale=30.0)
    np.testing.assert_allclose(objective.losses({"images": IMAGES, "labels": LABELS}), expected, rtol=1e-5)


def test_other_losses_take_the_logits_as_they_are():
    net = keras.Sequential([keras.Input([4]), resnet.CosineClassifier(4, scale=30.0)])
    each = FromLabels(net, COUNTS, loss="ce").losses({"images": IMAGES, "labels": LABELS})
    np.testing.assert_allclose(each, losses.cross_entropy(LABELS, net(IMAGES)), rtol=1e-6)


def test_an_unknown_loss_is_refused():
    with pytest.raises(ValueError, match=r"loss=focal is unknown: choose one of ce, ldam, balanced_softmax"):
        FromLabels(network(), COUNTS, loss="focal")
