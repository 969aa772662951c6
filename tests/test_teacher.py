"""The teacher's step: SAM over each loss, re-weighting, clipping, batch statistics; two replicas are one."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.strategies import strategy_of

from deitlt_tf import losses, models, optimizers
from deitlt_tf.models import resnet
from deitlt_tf.objectives import glmc
from deitlt_tf.objectives.labels import FromLabels
from deitlt_tf.teacher import Teacher

COUNTS = np.array([40, 20, 10, 5])


def network() -> keras.Model:
    """A convolution with synchronised batch statistics, then cosines to four classes."""
    keras.utils.set_random_seed(1)
    x = keras.Input((8, 8, 3))
    y = keras.layers.Rescaling(1 / 128, offset=-1)(x)
    y = keras.layers.Conv2D(8, 3, strides=2, use_bias=False)(y)
    y = keras.layers.BatchNormalization(momentum=0.9, synchronized=True)(y)
    y = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(y))
    return keras.Model(x, resnet.CosineClassifier(4)(y))


def compiled(*, lr: float = 0.1, loss: str = "ldam", **options) -> Teacher:
    net = network()
    teacher = Teacher(net, COUNTS, FromLabels(net, COUNTS, loss=loss), **options)
    optimizer = optimizers.SGD(lr, momentum=0.9)
    optimizer.build(teacher.network.trainable_variables)
    teacher.compile(optimizer, jit_compile=False)
    return teacher


def each_loss(teacher: Teacher, images, labels) -> tf.Tensor:
    return teacher.objective.losses({"images": images, "labels": labels})


def batch(size: int = 8, seed: int = 0) -> tuple[tf.Tensor, tf.Tensor]:
    generator = np.random.default_rng(seed)
    return (
        tf.constant(generator.integers(0, 256, (size, 8, 8, 3)), tf.float32),
        tf.constant(generator.integers(0, 4, size), tf.int32),
    )


def values(variables: list) -> list[np.ndarray]:
    return [np.array(v) for v in variables]


def after_three_steps(*, replicas: int) -> tuple[list[np.ndarray], list[float]]:
    """Everything that a step changes, through Keras' own fit: SAM, LDAM, re-weighting from step 1 on, clipping."""
    images, labels = (tf.concat(parts, 0) for parts in zip(*(batch(seed=k) for k in range(3)), strict=True))
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    stream = tf.data.Dataset.from_tensor_slices((images, labels)).batch(8, drop_remainder=True).with_options(options)
    reports = []
    log = keras.callbacks.LambdaCallback(on_train_batch_end=lambda _, logs: reports.append(logs["loss"]))
    with strategy_of(replicas).scope():
        teacher = compiled(loss="ldam", rho=0.5, reweight_step=1, clip_norm=2.0)
        teacher.fit(stream, verbose=0, shuffle=False, callbacks=[log])
    return values(teacher.network.weights + teacher.optimizer.variables), reports


def test_two_replicas_equal_one():
    one, losses_of_one = after_three_steps(replicas=1)
    two, losses_of_two = after_three_steps(replicas=2)
    np.testing.assert_allclose(losses_of_two, losses_of_one, rtol=1e-4)
    for a, b in zip(one, two, strict=True):  # weights, moving mean and variance, momentum
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)
    start = values(network().weights)
    assert all(np.abs(a - b).max() > 1e-3 for a, b in zip(one[: len(start)], start, strict=True))


def plain_slopes(teacher: Teacher, images, labels) -> list[np.ndarray]:
    with tf.GradientTape() as tape:
        value = tf.reduce_mean(each_loss(teacher, images, labels))
    return values(tape.gradient(value, teacher.network.trainable_variables))


def moved(teacher: Teacher, data) -> list[np.ndarray]:
    """(w before - w after) / lr of one step: the gradient that the optimiser was given."""
    before = values(teacher.network.trainable_variables)
    teacher.train_step(data)
    after = values(teacher.network.trainable_variables)
    return [(a - b) / float(teacher.optimizer.learning_rate) for a, b in zip(before, after, strict=True)]


@pytest.mark.parametrize("loss", ["ce", "ldam", "balanced_softmax"])
def test_without_a_radius_a_step_is_the_plain_gradient(loss):
    expected = plain_slopes(compiled(loss=loss), *batch())
    for slope, same in zip(moved(compiled(loss=loss, rho=0.0), batch()), expected, strict=True):
        np.testing.assert_allclose(slope, same, rtol=1e-3, atol=1e-5)


def test_with_a_radius_it_is_the_gradient_at_the_worst_point_of_the_ball():
    """Done by hand: move all weights by rho g / |g|, take the gradient there, move back."""
    teacher, rho = compiled(loss="ce"), 0.5
    variables = teacher.network.trainable_variables
    ascent = plain_slopes(teacher, *batch())
    norm = np.sqrt(sum(np.sum(slope**2) for slope in ascent))
    for variable, slope in zip(variables, ascent, strict=True):
        variable.assign_add(rho * slope / norm)
    expected = plain_slopes(teacher, *batch())
    for slope, there, here in zip(moved(compiled(loss="ce", rho=rho), batch()), expected, ascent, strict=True):
        np.testing.assert_allclose(slope, there, rtol=1e-3, atol=1e-5)
        assert np.abs(there - here).max() > 1e-3


def test_the_radius_rises_at_its_steps():
    """Without a gradient of its own (lr 0) a step's gradient depends on the radius alone."""
    expected = [moved(compiled(loss="ce", rho=rho), batch()) for rho in (0.1, 0.5)]
    teacher = compiled(loss="ce", rho=0.1, rho_steps={2: 1.0, 1: 0.5})
    assert [float(teacher.radius(tf.constant(step, tf.int64))) for step in range(4)] == pytest.approx([0.1, 0.5, 1, 1])
    later = compiled(loss="ce", rho=0.1, rho_steps={0: 0.5})
    for slope, small, large in zip(moved(later, batch()), *expected, strict=True):
        np.testing.assert_allclose(slope, large, rtol=1e-3, atol=1e-5)
        assert np.abs(small - large).max() > 1e-4


def test_imbsam_perturbs_for_the_tail_alone():
    """By hand: the head's gradient here, the tail's at the worst point of the tail's own loss."""
    images, labels = batch()
    tail = (COUNTS[labels.numpy()] < 15).astype(np.float32)
    assert 0 < tail.sum() < len(tail)

    def part(teacher, mask):
        with tf.GradientTape() as tape:
            value = tf.reduce_mean(mask * each_loss(teacher, images, labels))
        return values(tape.gradient(value, teacher.network.trainable_variables))

    teacher, rho = compiled(loss="ce"), 0.5
    stay, ascent = part(teacher, 1 - tail), part(teacher, tail)
    norm = np.sqrt(sum(np.sum(slope**2) for slope in ascent))
    for variable, slope in zip(teacher.network.trainable_variables, ascent, strict=True):
        variable.assign_add(rho * slope / norm)
    flat = part(teacher, tail)
    for slope, a, b in zip(
        moved(compiled(loss="ce", rho=rho, flat_below=15), (images, labels)), stay, flat, strict=True
    ):
        np.testing.assert_allclose(slope, a + b, rtol=1e-3, atol=1e-5)


def test_imbsam_without_a_tail_image_is_the_plain_gradient():
    plain, none = (moved(compiled(loss="ce", **options), batch()) for options in ({"rho": 0.0}, {"flat_below": 1}))
    for a, b in zip(plain, none, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-6)


def test_batch_statistics_are_those_of_the_first_pass():
    plain, sharp = compiled(rho=0.0), compiled(rho=2.0)
    for teacher in (plain, sharp):
        teacher.train_step(batch())
    statistics = [values(teacher.network.non_trainable_variables) for teacher in (plain, sharp)]
    for a, b in zip(*statistics, strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(statistics[0]) == 2 and not np.array_equal(statistics[0][0], np.zeros(8))


def test_reweighting_starts_at_its_step():
    """Loss of the very step: a plain mean before, sum(w l) / sum(w) from `reweight_step` on."""
    teacher = compiled(loss="ldam", reweight_step=1, lr=0.0)
    images, labels = batch()
    each = each_loss(teacher, images, labels).numpy()
    weight = losses.class_balanced_weights(COUNTS)[labels.numpy()]
    for expected in (each.mean(), (weight * each).sum() / weight.sum()):
        assert float(teacher.train_step((images, labels))["loss"]) == pytest.approx(expected, rel=1e-5)
    assert abs(each.mean() - expected) > 1e-3


def test_weights_of_samples_multiply_those_by_class():
    """sum(s w l) / sum(s w), and `class_weight` is a weight of each sample."""
    images, labels = batch()
    samples = np.arange(8, dtype=np.int64)
    weight = samples * losses.class_balanced_weights(COUNTS)[labels.numpy()]
    teacher = compiled(loss="ldam", reweight_step=0, lr=0.0)
    each = each_loss(teacher, images, labels).numpy()
    loss = teacher.train_step((images, labels, samples))["loss"]
    assert float(loss) == pytest.approx((weight * each).sum() / weight.sum(), rel=1e-5)

    teacher = compiled(loss="ldam", lr=0.0)
    weight = np.array([3.0, 1, 2, 0])[labels.numpy()]
    history = teacher.fit(
        images, labels, class_weight={0: 3.0, 1: 1.0, 2: 2.0, 3: 0.0}, batch_size=8, verbose=0
    ).history
    assert history["loss"][0] == pytest.approx((weight * each).sum() / weight.sum(), rel=1e-5)


def test_weights_of_samples_of_one_change_no_bit():
    plain, weighted = (moved(compiled(reweight_step=0), (*batch(), *extra)) for extra in ((), (np.ones(8),)))
    for a, b in zip(plain, weighted, strict=True):
        np.testing.assert_array_equal(a, b)


def test_labels_in_a_column_train_as_those_in_a_vector():
    images, labels = batch()
    plain, column = (moved(compiled(), (images, x)) for x in (labels, labels[:, None]))
    for a, b in zip(plain, column, strict=True):
        np.testing.assert_array_equal(a, b)


def test_xla_has_no_kernel_for_the_mixing_of_glmc():
    net = models.build("resnet8", num_classes=4, image_size=8, classifier="linear")
    for alpha in (0.0, 1.0):
        teacher = Teacher(net, COUNTS, glmc.Glmc(net, COUNTS, epochs=1, steps_per_epoch=1, dim=4, alpha=alpha))
        assert teacher.draws_gamma == bool(alpha)
    with pytest.raises(ValueError, match="jit_compile=True: mixing draws from Gamma"):
        teacher.compile(optimizers.SGD(0.1), jit_compile=True)
    assert not compiled().draws_gamma


def test_clip_norm_cuts_the_global_norm():
    free, cut = (moved(compiled(rho=0.0, clip_norm=clip), batch()) for clip in (0.0, 0.5))
    norm = np.sqrt(sum(np.sum(slope**2) for slope in free))
    assert norm > 0.6
    for a, b in zip(free, cut, strict=True):
        np.testing.assert_allclose(b, a * 0.5 / norm, rtol=1e-3, atol=1e-5)


def test_learns_two_colours():
    colours = np.array([[255, 0, 0], [0, 0, 255]], np.float32)
    labels = np.tile(np.arange(2, dtype=np.int32), 8)
    images = tf.constant(np.broadcast_to(colours[labels][:, None, None], (16, 8, 8, 3)))
    teacher = compiled(loss="ldam", rho=0.1)
    step = tf.function(teacher.train_step)
    reports = [float(step((images, tf.constant(labels)))["loss"]) for _ in range(40)]
    assert reports[-1] < 0.5 * reports[0]
    assert float(teacher.test_step((images, labels))["accuracy"]) == 1


def test_padding_does_not_count_in_accuracy():
    teacher, (images, _) = compiled(), batch()
    guess = np.argmax(teacher.network(images, training=False), -1)
    half = np.where(np.arange(8) < 4, guess, (guess + 1) % 4)
    assert float(teacher.test_step((images, half))["accuracy"]) == 0.5
    teacher.accuracy["cls"].reset_state()
    assert float(teacher.test_step((images, half, tf.constant([1.0] * 4 + [0.0] * 4)))["accuracy"]) == 1
