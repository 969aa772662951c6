"""MDCS: what each expert is inputs, consistency on recognised weak views; two replicas are one."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.strategies import strategy_of
from helpers.three_experts import pixels, small
from hypothesis import given, settings
from hypothesis import strategies as st

from deitlt_tf import models, optimizers
from deitlt_tf.models import resnet
from deitlt_tf.objectives import mdcs
from deitlt_tf.teacher import Teacher

COUNTS = np.array([400, 50, 12, 4])
LAMBDAS = np.array([-0.5, 1.0, 2.5])
SEED = tf.constant([0, 0])


def network(*, heads: int = 3) -> keras.Model:
    """Batch statistics, then three cosine heads, their mean: all that the objective looks for, in a moment."""
    keras.utils.set_random_seed(2)
    x = keras.Input((4, 4, 3))
    y = keras.layers.Rescaling(1 / 128, offset=-1)(x)
    y = keras.layers.Conv2D(6, 3, use_bias=False)(y)
    y = keras.layers.BatchNormalization(momentum=0.9, synchronized=True)(y)
    y = keras.layers.Flatten()(keras.layers.ReLU()(y))
    logits = [resnet.CosineClassifier(4, scale=30.0, name=f"expert{k}.fc")(y) for k in range(heads)]
    return keras.Model(x, keras.layers.Average(name="mean")(logits), name="toy")


def batch(size: int = 16, seed: int = 0) -> tuple[tuple[tf.Tensor, tf.Tensor], tf.Tensor]:
    """((strong, weak), labels): the strong view is the weak one with noise."""
    generator = np.random.default_rng(seed)
    weak = generator.integers(0, 256, (size, 4, 4, 3))
    strong = np.clip(weak + generator.normal(0, 60, weak.shape), 0, 255)
    labels = generator.choice(4, size, p=[0.1, 0.2, 0.3, 0.4])
    return (tf.constant(strong, tf.float32), tf.constant(weak, tf.float32)), tf.constant(labels, tf.int32)


def log_softmax(z: np.ndarray) -> np.ndarray:
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def adjusted(objective: mdcs.Mdcs, views) -> np.ndarray:
    """z_k + lambda_k log n, [3, 2B, C], in float64."""
    logits = np.stack(objective.experts(tf.concat(views, 0), training=True)).astype(np.float64)
    return logits + (LAMBDAS[:, None] * np.log(COUNTS))[:, None, :]


def by_hand(z: np.ndarray, labels: np.ndarray, *, weight: float) -> float:
    """The official code's sum, written as it is: indexing by mask, `batchmean`, cross-entropy over 2B rows."""
    total, size = 0.0, len(labels)
    for expert in z:
        strong, weak = log_softmax(expert[:size]), log_softmax(expert[size:])
        right = weak.argmax(-1) == labels
        if right.any():
            total += weight * np.sum(np.exp(weak[right]) * (weak[right] - strong[right])) / right.sum()
        both = np.concatenate([labels, labels])
        total -= log_softmax(expert)[np.arange(2 * size), both].mean()
    return total


def mean_loss(objective: mdcs.Mdcs, views, labels, *, step: int) -> float:
    inputs = objective.prepare(views, labels, seed=SEED, step=tf.constant(step, tf.int64))
    each = objective.losses(inputs)
    assert each.shape == labels.shape and each.dtype == tf.float32
    return float(tf.reduce_mean(each))


def test_loss_is_the_formula_and_consistency_comes_in_over_the_ramp():
    objective, (views, labels) = mdcs.Mdcs(network(), COUNTS, ramp_steps=10), batch()
    z = adjusted(objective, views)
    right = (z[:, 16:].argmax(-1) == labels.numpy()).sum(1)
    assert right.min() > 0 and right.max() < 16 and len(set(right)) > 1  # each expert recognises others
    for step, weight in ((0, 0.0), (5, 0.3), (10, 0.6), (1000, 0.6)):
        expected = by_hand(z, labels.numpy(), weight=weight)
        assert mean_loss(objective, views, labels, step=step) == pytest.approx(expected, rel=1e-5)
    assert by_hand(z, labels.numpy(), weight=0.6) > by_hand(z, labels.numpy(), weight=0.3) + 0.01


def test_where_no_weak_view_is_recognised_only_cross_entropy_is_left():
    """One head thrice with no prior, so that all experts are wrong of the same images."""
    objective, (views, _) = mdcs.Mdcs(network(), np.ones(4), ramp_steps=1), batch()
    head = objective.trainable[-1]
    for other in objective.trainable[-3:-1]:
        other.assign(head)
    weak = objective.experts(tf.concat(views, 0), training=True)[0][16:]
    wrong = tf.argmin(weak, -1, tf.int32)
    late, early = (mean_loss(objective, views, wrong, step=step) for step in (1, 0))
    assert late == early and np.isfinite(late)
    right = tf.argmax(weak, -1, tf.int32)
    assert mean_loss(objective, views, right, step=1) > mean_loss(objective, views, right, step=0) + 0.01


def test_the_mean_of_the_priors_is_the_one_of_a_balanced_softmax():
    shifts = mdcs.Mdcs(network(), COUNTS, ramp_steps=1).shifts
    np.testing.assert_allclose(np.mean(shifts, 0), np.log(COUNTS), rtol=1e-6)


def test_the_experts_are_of_the_head_of_all_and_of_the_tail():
    """Of images that tell nothing expert k learns (1 - lambda_k) log n, where its loss is flat; their mean nothing."""
    counts = np.array([8, 4, 2])
    x = keras.Input((1, 1, 3))
    flat = keras.layers.Flatten()(x)
    heads = [keras.layers.Dense(3, kernel_initializer="zeros", name=f"expert{k}.fc") for k in range(3)]
    net = keras.Model(x, keras.layers.Average()([head(flat) for head in heads]))
    objective = mdcs.Mdcs(net, counts, ramp_steps=1)
    images, labels = tf.ones((14, 1, 1, 3)), tf.constant(np.repeat(np.arange(3), counts), tf.int32)
    inputs = objective.prepare((images, images), labels, seed=SEED, step=tf.constant(1, tf.int64))

    def slopes():
        biases = [head.bias.value for head in heads]
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(objective.losses(inputs))
        return np.abs(tape.gradient(loss, biases)).max(1)

    np.testing.assert_array_equal(slopes() > 0.1, [True, False, True])
    for head, exponent in zip(heads, LAMBDAS, strict=True):
        head.bias.assign((1 - exponent) * np.log(counts))
    np.testing.assert_allclose(slopes(), 0, atol=1e-6)
    np.testing.assert_allclose(net(images[:1]), np.zeros((1, 3)), atol=1e-5)


logits_of_two_views = st.lists(st.floats(-20, 20, width=32), min_size=6, max_size=6)


@settings(max_examples=20, deadline=None)
@given(logits_of_two_views, st.floats(-50, 50, width=32))
def test_consistency_is_a_divergence_of_probabilities(values, shift):
    strong, weak = tf.constant(values[:3], shape=(1, 3)), tf.constant(values[3:], shape=(1, 3))
    divergence = mdcs.consistency(strong, weak)
    assert float(divergence[0]) >= -1e-5
    np.testing.assert_allclose(mdcs.consistency(strong + shift, weak - shift), divergence, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(mdcs.consistency(weak, weak), [0], atol=1e-5)


def test_the_weak_view_is_a_target_and_learns_nothing():
    strong, weak = tf.constant([[1.0, 2.0, 0.0]]), tf.constant([[3.0, 0.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch([strong, weak])
        value = mdcs.consistency(strong, weak)
    slope, none = tape.gradient(value, [strong, weak])
    np.testing.assert_allclose(slope, tf.nn.softmax(strong) - tf.nn.softmax(weak), rtol=1e-5)
    assert none is None


def after_steps(steps: int, *, replicas: int, rho: float, traced: bool) -> tuple[list[np.ndarray], list[float]]:
    """Weights, statistics, momentum; and losses, of a few steps of the real Teacher.

    Expert 1 recognises one weak view of the first half of the batch and all of the second: an average over each
    replica's own recognised views would be another loss.
    """
    strategy, (views, labels) = strategy_of(replicas), batch()
    guess = adjusted(mdcs.Mdcs(network(), COUNTS, ramp_steps=1), views)[1, 16:].argmax(-1)
    labels = tf.constant(np.where(np.arange(16) < 7, (guess + 1) % 4, guess), tf.int32)
    with strategy.scope():
        net = network()
        teacher = Teacher(net, COUNTS, mdcs.Mdcs(net, COUNTS, ramp_steps=1), rho=rho, clip_norm=5.0)
        optimizer = optimizers.SGD(0.1, momentum=0.9)
        optimizer.build(teacher.objective.trainable)
        optimizer.iterations.assign(1)  # at step 0 there is no consistency yet
        teacher.compile(optimizer, jit_compile=False)

    def share(context):
        part = slice(*(16 * (context.replica_id_in_sync_group + i) // replicas for i in (0, 1)))
        return (views[0][part], views[1][part]), labels[part]

    shares = strategy.experimental_distribute_values_from_function(share)
    run = (tf.function if traced else lambda f: f)(lambda: strategy.run(teacher.train_step, args=(shares,)))
    losses = [float(strategy.experimental_local_results(run()["loss"])[0]) for _ in range(steps)]
    return [np.array(v) for v in net.weights + optimizer.variables], losses


@pytest.mark.parametrize(
    ("steps", "rho", "traced"), [(1, 0.0, False), pytest.param(3, 0.1, True, marks=pytest.mark.slow)]
)
def test_two_replicas_equal_one(steps, rho, traced):
    one, losses_of_one = after_steps(steps, replicas=1, rho=rho, traced=traced)
    two, losses_of_two = after_steps(steps, replicas=2, rho=rho, traced=traced)
    np.testing.assert_allclose(losses_of_two, losses_of_one, rtol=1e-4)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)
    start = network().get_weights()
    assert all(np.abs(a - b).max() > 1e-4 for a, b in zip(one[: len(start)], start, strict=True))


def test_the_prediction_is_the_mean_of_the_experts_raw_logits():
    objective = mdcs.Mdcs(small(), np.array([9, 7, 5, 3, 1]), ramp_steps=1)
    experts = [z.numpy() for z in objective.experts(pixels())]
    logits = small()(pixels())
    assert logits.shape == (3, 5) and logits.dtype == tf.float32
    np.testing.assert_allclose(logits, np.mean(experts, 0), rtol=1e-5, atol=1e-5)
    assert min(np.abs(experts[k] - experts[k - 1]).max() for k in range(3)) > 1
    assert objective.trainable == small().trainable_variables and objective.state == []


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
def test_a_saved_network_comes_back_with_its_experts(tmp_path):
    small().save(tmp_path / "teacher.keras")
    loaded = keras.models.load_model(tmp_path / "teacher.keras")
    np.testing.assert_array_equal(loaded(pixels()), small()(pixels()))
    experts = [mdcs.Mdcs(model, np.ones(5), ramp_steps=1).experts for model in (small(), loaded)]
    for a, b in zip(*(model(pixels()) for model in experts), strict=True):
        np.testing.assert_array_equal(a, b)


def test_logits_and_losses_are_float32_in_mixed_precision():
    assert (
        small().get_layer("layer1.0").compute_dtype == small().get_layer("expert2.layer3.0").compute_dtype == "bfloat16"
    )
    objective, labels = mdcs.Mdcs(small(), np.ones(5), ramp_steps=1), tf.constant([0, 1, 2])
    inputs = objective.prepare((pixels(), pixels()), labels, seed=SEED, step=tf.constant(1, tf.int64))
    each = objective.losses(inputs)
    assert small()(pixels()).dtype == each.dtype == tf.float32 and np.isfinite(each).all()


def test_networks_without_experts_are_refused_and_those_with_are_named():
    ordinary = models.build("resnet8", num_classes=4, image_size=8)
    message = "resnet8 has none: as the teacher's model choose one of mdcs_resnet8, mdcs_resnet32, mdcs_resnet50"
    with pytest.raises(ValueError, match=message):
        mdcs.Mdcs(ordinary, COUNTS, ramp_steps=1)
    with pytest.raises(ValueError, match="trains 3 experts and toy has 2"):
        mdcs.Mdcs(network(heads=2), COUNTS, ramp_steps=1)
    assert list(mdcs.NETWORKS) == [name for name in models.MODELS if name.startswith("mdcs_")]


def test_bad_options_are_named():
    with pytest.raises(ValueError, match="class 2 has no training image"):
        mdcs.Mdcs(network(), np.array([4, 3, 0, 1]), ramp_steps=1)
    with pytest.raises(ValueError, match="ramp_steps=0"):
        mdcs.Mdcs(network(), COUNTS, ramp_steps=0)
