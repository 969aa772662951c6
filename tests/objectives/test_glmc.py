"""GLMC: its loss by hand, one mixture in two views, labels giving way to re-weighted ones; two replicas are one."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.strategies import strategy_of
from hypothesis import given, settings
from hypothesis import strategies as st

from deitlt_tf import models, optimizers
from deitlt_tf.models import resnet
from deitlt_tf.objectives import glmc
from deitlt_tf.teacher import Teacher

COUNTS = np.array([400, 50, 12, 4])
SEED = tf.constant([3, 5])
TIMES = {"epochs": 10, "steps_per_epoch": 4}


def network(classifier: type = keras.layers.Dense) -> keras.Model:
    """Batch statistics, a pooled feature, a linear classifier: all that the objective looks for, in a moment."""
    keras.utils.set_random_seed(2)
    x = keras.Input((8, 8, 3))
    y = keras.layers.Rescaling(1 / 128, offset=-1)(x)
    y = keras.layers.Conv2D(6, 3, strides=2, use_bias=False)(y)
    y = keras.layers.BatchNormalization(momentum=0.9, synchronized=True)(y)
    y = keras.layers.GlobalAveragePooling2D(name="avgpool")(keras.layers.ReLU()(y))
    return keras.Model(x, classifier(4, name="fc")(y), name="toy")


def objective(net: keras.Model | None = None, *, counts=COUNTS, **options) -> glmc.Glmc:
    return glmc.Glmc(net or network(), counts, dim=5, **TIMES | options)


def batch(size: int = 8, seed: int = 0) -> tuple[tuple[tf.Tensor, tf.Tensor], tf.Tensor]:
    """((first, second), labels): two different views, bytes as the pipeline delivers them."""
    generator = np.random.default_rng(seed)
    first, second = (tf.constant(generator.integers(0, 256, (size, 8, 8, 3)), tf.uint8) for _ in range(2))
    return (first, second), tf.constant(generator.choice(4, size, p=[0.4, 0.3, 0.2, 0.1]), tf.int32)


def prepared(aim: glmc.Glmc, *, step: int = 22, seed: tf.Tensor = SEED) -> dict[str, tf.Tensor]:
    return aim.prepare(*batch(), seed=seed, step=tf.constant(step, tf.int64))


def compiled(aim_options: dict, *, counts=COUNTS, lr: float = 0.1, **options) -> Teacher:
    net = network()
    aim = objective(net, counts=counts, **aim_options)
    teacher = Teacher(net, counts, aim, **options)
    optimizer = optimizers.SGD(lr, momentum=0.9)
    optimizer.build(aim.trainable)
    teacher.compile(optimizer, jit_compile=False)
    return teacher


def log_softmax(z: np.ndarray) -> np.ndarray:
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def by_hand(aim: glmc.Glmc, inputs: dict, *, a: float, consistency: float) -> np.ndarray:
    """The official trainer's sum, in float64, from the features of each view."""
    features = [np.array(aim.network(inputs[view], training=True)[0], np.float64) for view in ("first", "second")]
    layer = lambda of, x: x @ np.array(of.kernel, np.float64) + np.array(of.bias)  # noqa: E731
    weights = COUNTS**-1.2 / (COUNTS**-1.2).sum() * 4
    y = np.array(inputs["targets"], np.float64)
    total = np.zeros(len(y))
    for feature in features:
        total -= a * (y * log_softmax(layer(aim.head, feature))).sum(1)
        total -= (1 - a) * (weights * y * log_softmax(layer(aim.network.get_layer("fc"), feature))).sum(1)
    z = [layer(aim.projector, feature) for feature in features]
    p = [layer(aim.predictor, x) for x in z]
    for prediction, target in ((p[0], z[1]), (p[1], z[0])):
        norms = np.linalg.norm(prediction, axis=1) * np.linalg.norm(target, axis=1)
        total -= consistency * (prediction * target).sum(1) / norms
    return total


def test_the_loss_is_the_official_sum():
    aim = objective()
    inputs = prepared(aim)
    np.testing.assert_allclose(aim.losses(inputs), by_hand(aim, inputs, a=0.75, consistency=4.0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        aim.ascent_losses(inputs), by_hand(aim, inputs, a=0.75, consistency=0.0), rtol=1e-4, atol=1e-5
    )


def test_labels_give_way_to_weighted_ones_by_epoch():
    aim = objective()
    steps = tf.constant([0, 3, 4, 19, 20, 23, 24, 39], tf.int64)
    epochs = np.array([0, 0, 1, 4, 5, 5, 6, 9])
    np.testing.assert_allclose(aim.share_of_labels(steps), 1 - (epochs / 10) ** 2, rtol=1e-6)


def slopes_of(aim: glmc.Glmc, losses, inputs: dict) -> dict[str, bool]:
    """Whether the gradient of `losses` reaches each part."""
    parts = {
        "fc": aim.head.kernel,
        "fc_cb": aim.network.get_layer("fc").kernel,
        "projector": aim.projector.kernel,
        "predictor": aim.predictor.kernel,
        "network": aim.trainable[0],
    }
    with tf.GradientTape() as tape:
        value = tf.reduce_mean(losses(inputs))
    slopes = tape.gradient(value, [v.value for v in parts.values()], unconnected_gradients="zero")
    return {name: bool(np.abs(slope).max() > 0) for name, slope in zip(parts, slopes, strict=True)}


@pytest.mark.parametrize(("step", "head", "served"), [(0, True, False), (40, False, True)])
def test_which_head_learns_when(step, head, served):
    aim = objective()
    expected = {"fc": head, "fc_cb": served, "projector": True, "predictor": True, "network": True}
    inputs = prepared(aim, step=step)
    assert slopes_of(aim, aim.losses, inputs) == expected
    without = {"projector": False, "predictor": False}
    assert slopes_of(aim, aim.ascent_losses, inputs) == expected | without


@settings(max_examples=10, deadline=None)
@given(
    st.lists(st.floats(0, 20), min_size=3, max_size=3),
    st.lists(st.floats(-5, 5), min_size=3, max_size=3),
)
def test_gradient_of_targets_that_do_not_sum_to_one(targets, logits):
    """softmax(z) sum(t) - t."""
    z, t = tf.constant([logits]), np.array([targets])
    with tf.GradientTape() as tape:
        tape.watch(z)
        value = glmc.soft_cross_entropy(tf.constant(t, tf.float32), z)
    np.testing.assert_allclose(value, -(t * log_softmax(z.numpy())).sum(1), rtol=1e-4, atol=1e-4)
    expected = np.exp(log_softmax(z.numpy())) * t.sum() - t
    np.testing.assert_allclose(tape.gradient(value, z), expected, rtol=1e-4, atol=1e-4)


def test_the_target_of_consistency_gets_no_gradient():
    p, z = (tf.random.stateless_normal((4, 6), (0, k)) for k in (1, 2))
    with tf.GradientTape() as tape:
        tape.watch([p, z])
        value = glmc.disagreement(p, z)
    to_p, to_z = tape.gradient(value, [p, z])
    assert to_z is None
    np.testing.assert_allclose(tf.reduce_sum(to_p * p, 1), np.zeros(4), atol=1e-6)  # only directions count
    np.testing.assert_allclose(glmc.disagreement(3 * z, z), -np.ones(4), rtol=1e-6)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=20), st.floats(0, 2))
def test_label_weights(counts, power):
    weights = glmc.label_weights(counts, power).astype(np.float64)
    assert weights.sum() == pytest.approx(len(counts), rel=1e-5)
    np.testing.assert_allclose(weights * np.array(counts, float) ** power, weights[0] * counts[0] ** power, rtol=1e-4)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**31 - 1))
def test_both_views_show_one_mixture(number):
    """Image i of the first views is all i, of the second all 100 + i: what is left of it can be read from a pixel."""
    count = 4
    numbers = tf.range(count, dtype=tf.float32)[:, None, None, None]
    first, second = (tf.broadcast_to(start + numbers, (count, 16, 16, 3)) for start in (0, 100))
    mixed, targets, pasted = glmc.mix(first, second, tf.eye(count), tf.constant([number, 1]), alpha=1.0)
    lam, partner = targets[0, 0].numpy(), np.arange(count)[::-1]
    expected = lam * np.eye(count) + (1 - lam) * np.eye(count)[partner]
    np.testing.assert_allclose(targets, expected, atol=1e-6)
    np.testing.assert_allclose(mixed[:, 0, 0, 0], expected @ np.arange(count), atol=1e-5)
    others = (np.array(pasted) == 100 + partner[:, None, None, None]).mean((1, 2, 3))
    assert set(np.unique(pasted)) <= {100.0, 101.0, 102.0, 103.0}
    assert others.max() == others.min() <= 1 - lam + 1e-6  # smaller where the box is rounded or clipped


def test_without_alpha_nothing_is_mixed():
    (first, second), labels = batch()
    inputs = prepared(objective(alpha=0.0))
    np.testing.assert_array_equal(inputs["first"], tf.cast(first, tf.float32))
    np.testing.assert_array_equal(inputs["second"], tf.cast(second, tf.float32))
    np.testing.assert_array_equal(inputs["targets"], np.eye(4)[labels])


def test_mixing_follows_the_seed():
    aim = objective()
    once, again, other = (prepared(aim, seed=tf.constant(seed))["second"] for seed in ([3, 5], [3, 5], [3, 6]))
    np.testing.assert_array_equal(once, again)
    assert np.abs(once - other).max() > 1


def after_a_step(*, replicas: int) -> list[np.ndarray]:
    """Everything that a step changes, mixing off: its pairs are made within a replica and would differ."""
    strategy, ((first, second), labels) = strategy_of(replicas), batch()
    with strategy.scope():
        teacher = compiled({"alpha": 0.0}, rho=0.3)
        teacher.optimizer.iterations.assign(20)  # half way: both heads learn
    first, second, labels = (tf.split(x, replicas) for x in (first, second, labels))
    parts = list(zip(zip(first, second, strict=True), labels, strict=True))
    if replicas == 1:
        teacher.train_step(parts[0])
    else:
        part = strategy.experimental_distribute_values_from_function(lambda c: parts[c.replica_id_in_sync_group])
        strategy.run(teacher.train_step, args=(part,))
    return [np.array(v) for v in [*teacher.objective.trainable, *teacher.network.weights, *teacher.optimizer.variables]]


def test_two_replicas_equal_one():
    one, two = (after_a_step(replicas=replicas) for replicas in (1, 2))
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)
    start = [np.array(v) for v in objective().trainable]
    assert all(np.abs(a - b).max() > 1e-4 for a, b in zip(start, one[: len(start)], strict=True))


@pytest.mark.slow
def test_learns_two_colours():
    colours = np.array([[255, 0, 0], [0, 0, 255]], np.float32)
    labels = np.tile(np.arange(2, dtype=np.int32), 8)
    images = tf.constant(np.broadcast_to(colours[labels][:, None, None], (16, 8, 8, 3)))
    teacher = compiled({"epochs": 4, "steps_per_epoch": 10}, counts=[8, 8, 1, 1], lr=0.05, rho=0.05)
    step = tf.function(teacher.train_step)
    for _ in range(40):
        value = step(((images, images), tf.constant(labels)))["loss"]
    assert np.isfinite(value)
    assert float(teacher.test_step((images, labels))["accuracy"]) == 1


def test_it_takes_our_resnets_and_names_what_it_cannot_take():
    net = models.build("resnet8", num_classes=4, image_size=8)
    aim = objective(net)
    assert aim.losses(prepared(aim)).shape == (8,)
    shared = len(net.trainable_variables)
    assert [id(v) for v in aim.trainable[:shared]] == [id(v) for v in net.trainable_variables]
    assert len({id(v) for v in aim.trainable}) == len(aim.trainable) == shared + 6
    bare = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(4)], name="bare")
    for other in (network(resnet.CosineClassifier), bare):
        with pytest.raises(ValueError, match=f"{other.name} does not have: as the teacher's model choose a resnet"):
            objective(other)
    with pytest.raises(ValueError, match="class 1 has no training image"):
        glmc.Glmc(net, [5, 0, 3, 2], **TIMES)
