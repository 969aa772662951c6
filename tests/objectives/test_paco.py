"""PaCo: the reference's loss; queue and momentum; two replicas are one; resuming; what is served and what is not."""

from collections.abc import Callable

import hypothesis.strategies as st
import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.strategies import strategy_of
from hypothesis import given, settings

from deitlt_tf import models, optimizers
from deitlt_tf.devices.replicas import replica
from deitlt_tf.models import resnet
from deitlt_tf.objectives.paco import EMPTY, Paco, paco_loss
from deitlt_tf.teacher import Teacher

COUNTS = np.array([40, 20, 10, 5])
WEIGHTS = {"alpha": 0.02, "beta": 1.0, "gamma": 1.0, "temperature": 0.05}


def network(*, classifier: str = "linear", seed: int = 1) -> keras.Model:
    keras.utils.set_random_seed(seed)
    x = keras.Input((8, 8, 3))
    y = keras.layers.Rescaling(1 / 128, offset=-1)(x)
    y = keras.layers.Conv2D(8, 3, strides=2, use_bias=False)(y)
    y = keras.layers.BatchNormalization(momentum=0.9, synchronized=True)(y)
    y = keras.layers.GlobalAveragePooling2D(name="avgpool")(keras.layers.ReLU()(y))
    fc = (
        resnet.CosineClassifier(4, scale=30.0, name="fc")
        if classifier == "cosine"
        else keras.layers.Dense(4, name="fc")
    )
    return keras.Model(x, fc(y))


def teacher_of(net: keras.Model, *, rho: float = 0.5, lr: float = 0.1, **options) -> Teacher:
    """queue = 20 holds two batches of 8 and a half."""
    paco = Paco(net, COUNTS, **{"temperature": 0.2, "queue": 20, "dim": 6, "alpha": 0.1, "momentum": 0.9} | options)
    teacher = Teacher(net, COUNTS, paco, rho=rho)
    optimizer = optimizers.SGD(lr, momentum=0.9)
    optimizer.build(paco.trainable)
    teacher.compile(optimizer, jit_compile=False)
    return teacher


def batch(seed: int = 0, size: int = 8) -> tuple[tuple, tf.Tensor]:
    generator = np.random.default_rng(seed)
    first, second = (tf.constant(generator.integers(0, 256, (size, 8, 8, 3)), tf.float32) for _ in range(2))
    return (first, second), tf.constant(generator.integers(0, 4, size), tf.int32)


def variables(teacher: Teacher) -> list:
    """All that a checkpoint holds."""
    paco = teacher.objective
    every = teacher.network.weights + paco.trainable + paco.state + teacher.optimizer.variables
    return list({id(v): v for v in every}.values())


def values(several: list) -> list[np.ndarray]:
    return [np.array(v) for v in several]


def changes(teacher: Teacher) -> Callable[[], set[str]]:
    """Call it after a step: names of what is to be trained and has stayed as it is now."""
    trained = teacher.objective.trainable
    before = values(trained)
    return lambda: {v.path for v, b in zip(trained, before, strict=True) if np.abs(np.array(v) - b).max() < 1e-6}


def units(generator: np.random.Generator, *shape: int) -> tf.Tensor:
    return tf.math.l2_normalize(tf.constant(generator.normal(size=shape), tf.float32), axis=-1)


def fill(paco: Paco) -> None:
    """The queue with random keys of all classes, some places EMPTY."""
    size, dim = paco.queue.shape
    paco.queue.assign(units(np.random.default_rng(0), size, dim))
    paco.queue_labels.assign(np.arange(size) % 5 + EMPTY)


def test_loss_equals_the_reference(golden):
    case = golden("paco_loss")
    config, features, labels = case.config, tf.constant(case["features"]), tf.constant(case["labels"])
    size = config["batch"]
    names = ("alpha", "beta", "gamma", "temperature", "base_temperature")
    each = paco_loss(
        labels[:size], tf.constant(case["logits"]), features[:size], features, labels, config["counts"],
        **{name: config[name] for name in names},
    )  # fmt: skip
    assert each.shape == (size,)
    assert np.mean(each) == pytest.approx(config["loss"], rel=1e-5)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), alpha=st.floats(0, 2), beta=st.floats(0.1, 2), gamma=st.sampled_from([0.0, 0.3, 1.0]))
def test_loss_is_its_formula(seed, alpha, beta, gamma):
    """In plain NumPy, image by image; the last rows of the contrast are an empty part of the queue."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 4, 5)
    contrast_labels = np.concatenate([labels, generator.integers(0, 4, 4), [EMPTY, EMPTY]])
    contrast, logits = units(generator, 11, 3), generator.normal(size=(5, 4))
    losses = paco_loss(
        tf.constant(labels[2:]), tf.constant(logits[2:], tf.float32), contrast[2:5], contrast,
        tf.constant(contrast_labels), COUNTS, first=2, alpha=alpha, beta=beta, gamma=gamma, temperature=0.3,
    )  # fmt: skip
    u = logits + np.log(COUNTS / COUNTS.sum())
    s = contrast.numpy() @ contrast.numpy().T / 0.3
    for i, loss in zip((2, 3, 4), losses.numpy(), strict=True):
        others = [j for j in range(9) if j != i]
        same = [s[i, j] for j in others if contrast_labels[j] == labels[i]]
        mean = (beta * u[i, labels[i]] + alpha * sum(same)) / (beta + alpha * len(same))
        everything = np.exp(u[i]).sum() + gamma * sum(np.exp(s[i, j]) for j in others)
        assert loss == pytest.approx(np.log(everything) - mean, rel=1e-4, abs=1e-5)


def test_what_does_not_count_has_no_gradient():
    """Neither an empty place (gradients are finite, too: it enters as log 0) nor, with gamma = 0, other classes."""
    generator = np.random.default_rng(0)
    queries, keys = tf.Variable(units(generator, 2, 3)), tf.Variable(units(generator, 3, 3))
    labels, key_labels = tf.constant([0, 1]), tf.constant([0, 3, EMPTY])
    with tf.GradientTape() as tape:
        contrast = tf.concat([queries, keys], 0)
        every = tf.concat([labels, key_labels], 0)
        loss = paco_loss(labels, tf.zeros((2, 4)), queries, contrast, every, COUNTS, **WEIGHTS | {"gamma": 0.0})
    slopes = tape.gradient(loss, [queries, keys])
    assert np.isfinite(slopes[0]).all()
    np.testing.assert_array_equal(np.any(slopes[1], axis=1), [True, False, False])


@pytest.fixture(scope="module")
def short_queue() -> Paco:
    return Paco(network(), COUNTS, queue=5, dim=6)


@settings(deadline=None, max_examples=15)
@given(sizes=st.lists(st.integers(1, 9), max_size=6))
def test_queue_holds_the_last_keys_in_order(short_queue, sizes):
    """Whatever the batches: also ones that are larger than the queue, or that do not divide it."""
    short_queue.queue.assign(np.zeros((5, 6)))
    short_queue.queue_labels.assign(np.full(5, EMPTY))
    numbers = np.arange(sum(sizes))
    for part in np.split(numbers, np.cumsum(sizes)):
        keys = np.repeat(part[:, None], 6, axis=1)
        short_queue.finish({"keys": tf.constant(keys, tf.float32), "key_labels": tf.constant(part, tf.int64)})
    last = np.concatenate([[EMPTY] * 5, numbers])[-5:]
    np.testing.assert_array_equal(short_queue.queue_labels, last)
    np.testing.assert_array_equal(short_queue.queue[:, 0], np.where(last == EMPTY, 0, last))


def test_a_step_moves_queue_and_momentum_branch_once_although_sam_asks_twice():
    teacher, (views, labels) = teacher_of(network(), momentum=0.5), batch()
    paco, unmoved = teacher.objective, changes(teacher)
    teacher.train_step((views, labels))
    assert unmoved() <= {"projection/hidden/bias"}  # BatchNorm takes it out again
    old, new = values(paco.key_encoder.trainable_variables), values(paco.query_encoder.trainable_variables)
    queue, statistics = paco.queue.numpy(), values(paco.key_encoder.non_trainable_variables)
    np.testing.assert_array_equal(paco.queue_labels, [EMPTY] * 12 + labels.numpy().tolist())

    teacher.train_step((views, labels))
    assert any(np.abs(a - b).max() > 1e-2 for a, b in zip(old, new, strict=True))
    for key, a, b in zip(paco.key_encoder.trainable_variables, old, new, strict=True):
        np.testing.assert_allclose(key, 0.5 * a + 0.5 * b, rtol=1e-5, atol=1e-6)
    after = values(paco.key_encoder.non_trainable_variables)
    keys = paco.key_encoder(views[1], training=True).numpy()  # the second view, with the statistics of its batch
    np.testing.assert_allclose(paco.queue[-8:], keys, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(keys, axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(paco.queue[4:12], queue[12:])
    for a, b in zip(statistics, after, strict=True):
        assert np.abs(a - b).max() > 0


def test_a_step_is_the_gradient_through_queries_on_both_sides():
    """Of the mean of `paco_loss`, put together by hand; keys and queue are constants, `fc` is a cosine one."""
    teacher, ((first, second), labels) = teacher_of(network(classifier="cosine"), rho=0.0), batch()
    unmoved = changes(teacher)
    paco, variables = teacher.objective, teacher.objective.trainable
    fill(paco)
    every = tf.concat([labels, labels, tf.cast(paco.queue_labels, tf.int32)], 0)
    keys = tf.stop_gradient(paco.key_encoder(second, training=True))
    with tf.GradientTape() as tape:
        queries, logits = paco.query_encoder(first, training=True), teacher.network(first, training=True)
        contrast = tf.concat([queries, keys, paco.queue], 0)
        loss = tf.reduce_mean(paco.loss(labels, logits, queries, contrast, every))
    before = values(variables)
    reported = teacher.train_step(((first, second), labels))["loss"]
    assert float(reported) == pytest.approx(float(loss), rel=1e-5)
    for slope, a, b in zip(tape.gradient(loss, variables), before, values(variables), strict=True):
        np.testing.assert_allclose((a - b) / 0.1, slope, rtol=1e-3, atol=1e-5)
    assert unmoved() <= {"projection/hidden/bias"}


def after_steps(count: int, *, replicas: int, rho: float, eagerly: bool) -> tuple[list[float], list[np.ndarray]]:
    """The losses and all variables after some steps on the same batches, cut in equal parts."""
    strategy, size = strategy_of(replicas), 8 // replicas
    with strategy.scope():
        teacher = teacher_of(network(), rho=rho)
        fill(teacher.objective)

    def step(images: tuple, labels: tf.Tensor) -> dict:
        first = replica()[0] * size
        return teacher.train_step(tf.nest.map_structure(lambda x: x[first : first + size], (images, labels)))

    def run(*data) -> float:
        return strategy.experimental_local_results(strategy.run(step, args=data)["loss"])[0]

    run = run if eagerly else tf.function(run)
    return [float(run(*batch(number))) for number in range(count)], values(variables(teacher))


@pytest.mark.parametrize(
    "how",
    [
        {"count": 1, "rho": 0.0, "eagerly": True},  # takes less time than tracing it
        pytest.param({"count": 2, "rho": 0.5, "eagerly": False}, marks=pytest.mark.slow),
    ],
)
def test_two_replicas_equal_one(how):
    """Weights, momentum branch, queue, optimiser: every query saw all queries and keys of the global batch."""
    (losses_of_one, one), (losses_of_two, two) = after_steps(**how, replicas=1), after_steps(**how, replicas=2)
    np.testing.assert_allclose(losses_of_two, losses_of_one, rtol=1e-4)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)


def test_resumed_is_uninterrupted_bit_by_bit():
    """A new teacher with other random weights goes on from the arrays of a checkpoint, as the old one does."""
    old, new = (teacher_of(network(seed=seed), rho=0.0, queue=12) for seed in (1, 2))
    old.train_step(batch(0))
    for target, source in zip(variables(new), values(variables(old)), strict=True):
        target.assign(source)
    for teacher in (old, new):
        teacher.train_step(batch(1))
    for a, b in zip(values(variables(old)), values(variables(new)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (new.objective.queue_labels.numpy() != EMPTY).all()


def test_the_network_that_is_served_has_nothing_of_the_momentum_branch(tmp_path):
    net, images = models.build("resnet8", num_classes=4, image_size=8), batch()[0][0]
    names = [v.path for v in net.weights]
    paco = Paco(net, COUNTS)
    np.testing.assert_array_equal(paco.key_encoder(images, training=False), paco.query_encoder(images, training=False))
    logits = net(images, training=False)
    kernel, bias = net.get_layer("fc").get_weights()
    feature = keras.Model(net.input, net.get_layer("avgpool").output)(images, training=False)
    np.testing.assert_allclose(logits, feature @ kernel + bias, rtol=1e-4, atol=1e-5)
    net.save(tmp_path / "teacher.keras")
    again = keras.models.load_model(tmp_path / "teacher.keras")
    np.testing.assert_array_equal(again(images, training=False), logits)
    assert [v.path for v in net.weights] == [v.path for v in again.weights] == names


def test_a_network_without_pooled_features_is_refused():
    x = keras.Input((8, 8, 3))
    flat = keras.Model(x, keras.layers.Dense(4)(keras.layers.Flatten()(x)), name="flat")
    with pytest.raises(ValueError, match="a layer named avgpool, and flat has none"):
        Paco(flat, COUNTS)


def test_numbers_that_must_be_above_zero_are_named():
    net = network()
    for name in ("temperature", "queue", "dim", "beta"):
        with pytest.raises(ValueError, match=f"needs a {name} above 0, not 0"):
            Paco(net, COUNTS, **{name: 0})


@pytest.mark.slow
def test_learns_two_colours_and_draws_keys_together():
    colours = np.array([[255, 0, 0], [0, 0, 255]], np.float32)
    labels = np.tile(np.arange(2, dtype=np.int32), 8)
    noise = np.random.default_rng(0).normal(scale=20, size=(2, 16, 8, 8, 3))
    first, second = tf.constant(np.clip(colours[labels][:, None, None] + noise, 0, 255), tf.float32)
    teacher = teacher_of(network(), rho=0.1, queue=32)
    step = tf.function(teacher.train_step)
    losses = [float(step(((first, second), tf.constant(labels)))["loss"]) for _ in range(60)]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[2:7])  # the loss has a floor: positives share the softmax
    assert float(teacher.test_step((first, labels))["accuracy"]) == 1
    paco = teacher.objective
    similarity, same = paco.queue @ tf.transpose(paco.queue), np.equal.outer(*[paco.queue_labels.numpy()] * 2)
    assert similarity.numpy()[same].min() > similarity.numpy()[~same].max()
