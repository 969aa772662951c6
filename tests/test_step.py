"""What student and teacher share: weights by class from a step on, loss scaling, accuracy, no saving."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.strategies import strategy_of

from deitlt_tf import losses
from deitlt_tf.devices.loss_scale import LossScale
from deitlt_tf.step import TrainingStep, class_labels, weights_of_samples

COUNTS = [40, 20, 10]


def network(*, heads: int = 1) -> keras.Model:
    keras.utils.set_random_seed(1)
    x = keras.Input([3])
    if heads == 1:
        return keras.Model(x, keras.layers.Dense(3)(x))
    return keras.Model(x, {name: keras.layers.Dense(3, name=name)(x) for name in ("cls", "dist")})


class Counting(TrainingStep):
    """Its loss is the number of the step; the weights of the samples and the labels of the last step are kept."""

    def step(self, batch, *, sample_weight=None, teacher_classes=None):
        self.last = (batch[1], sample_weight)
        number = tf.cast(self.optimizer.iterations, tf.float32)
        self.optimizer.iterations.assign_add(1)
        return {"loss": number}, batch[1]


def counting() -> Counting:
    step = Counting(network(), COUNTS)
    step.compile(keras.optimizers.SGD())
    return step


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


LABELS = np.array([2, 0, 1, 1], np.int32)
ONE_HOT = np.eye(3)[LABELS]


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "int16", "uint64", "float32", "float64"])
def test_labels_of_any_number_in_a_vector_or_a_column(dtype, columns, traced):
    labels = (LABELS[:, None] if columns else LABELS).astype(dtype)
    run = (lambda x: class_labels(x, 3)) if not traced else tf.function(lambda x: class_labels(x, 3))
    np.testing.assert_array_equal(run(tf.constant(labels)), LABELS)
    assert run(tf.constant(labels)).dtype == (tf.int32 if dtype == "int32" else tf.int64)


@pytest.mark.parametrize("dtype", ["float32", "int64", "bool", "uint8"])
def test_one_hot_labels(dtype):
    np.testing.assert_array_equal(class_labels(tf.constant(ONE_HOT.astype(dtype)), 3), LABELS)


def test_labels_whose_shape_is_known_only_in_the_run():
    """As Keras traces `evaluate` after labels of two shapes."""
    run = tf.function(lambda x: class_labels(x, 3), input_signature=[tf.TensorSpec(None, tf.int64)])
    for labels in (LABELS, LABELS[:, None], ONE_HOT):
        np.testing.assert_array_equal(run(tf.constant(labels, tf.int64)), LABELS)
    with pytest.raises(tf.errors.InvalidArgumentError, match="one-hot"):
        run(tf.zeros([4, 2], tf.int64))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 3, 1], "label.*3.*is not one of 0 to 2"),
        ([0, -1, 1], "label.*-1.*is not one of 0 to 2"),
        ([[0], [7]], "label.*7.*is not one of 0 to 2"),
        ([0.0, 1.5], "whole numbers"),
        ([0.0, np.nan], "whole numbers"),
        ([[0.1, 0.9, 0.0]], "have to be one-hot .*soft labels are not offered"),
        ([[1.0, 1.0, 0.0]], "have to be one-hot"),
        ([[0, 0, 0]], "have to be one-hot"),
    ],
)
def test_wrong_labels_are_named_with_their_range(labels, message):
    labels = tf.constant(labels)
    with pytest.raises(ValueError, match=message):
        class_labels(labels, 3)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        tf.function(lambda: class_labels(labels, 3))()


@pytest.mark.parametrize("shape", [[], [4, 2], [4, 4], [4, 3, 1]])
def test_labels_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"labels have the shape .*\[B\], \[B, 1\], or one-hot \[B, 3\]"):
        class_labels(tf.zeros(shape, tf.int32), 3)
    with pytest.raises(ValueError, match="labels are of type string"):
        class_labels(tf.constant(["cat"]), 3)


@pytest.mark.parametrize("weights", [[1, 2, 0], [[1], [2], [0]], [True, True, False]])
def test_weights_of_samples_of_any_number(weights):
    values = weights_of_samples(tf.constant(weights))
    assert values.dtype == tf.float32
    np.testing.assert_array_equal(values, np.ravel(weights))


@pytest.mark.parametrize("weights", [[1.0, -0.5], [1.0, np.nan], [np.inf, 1.0], [[1.0, 2.0]]])
def test_weights_of_samples_that_weigh_nothing_sensible_are_refused(weights):
    with pytest.raises(ValueError, match="sample weights have"):
        weights_of_samples(tf.constant(weights))


def test_history_has_the_mean_over_the_images_of_an_epoch_and_callbacks_the_loss_of_each_step():
    step, reports = counting(), []
    log = keras.callbacks.LambdaCallback(on_train_batch_end=lambda _, logs: reports.append(logs["loss"]))
    data = (np.zeros((5, 3), np.float32), np.zeros(5, np.int32))
    history = step.fit(*data, batch_size=2, epochs=2, verbose=0, callbacks=[log], validation_data=data).history
    assert reports == [0, 1, 2, 3, 4, 5]
    np.testing.assert_allclose(history["loss"], [(2 * 0 + 2 * 1 + 1 * 2) / 5, (2 * 3 + 2 * 4 + 1 * 5) / 5], rtol=1e-6)
    assert set(history) == {"loss", "val_cls"}


def test_fit_hands_labels_and_weights_of_samples_to_the_step():
    step, images = counting(), tf.zeros([4, 3])
    step.train_step((images, LABELS[:, None], [3, 1, 1, 0]))
    np.testing.assert_array_equal(step.last[0], LABELS)
    np.testing.assert_array_equal(step.last[1], [3.0, 1, 1, 0])
    step.train_step((images, ONE_HOT))
    np.testing.assert_array_equal(step.last[0], LABELS)
    assert step.last[1] is None
    for wrong in (images, (images,), (images, {"cls": LABELS, "dist": LABELS})):
        with pytest.raises(ValueError, match="a Counting needs labels, one tensor"):
            step.train_step(wrong)


def test_evaluate_takes_the_same_labels_and_weights():
    step = counting()
    images = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    labels = np.argmax(step.network(images), -1)
    labels = np.where([1, 1, 0, 0], labels, (labels + 1) % 3)
    for same in (labels, labels[:, None], np.eye(3)[labels]):
        assert step.evaluate(images, same, verbose=0) == 0.5
        assert step.evaluate(images, same, sample_weight=np.array([1, 1, 1, 0]), verbose=0) == pytest.approx(2 / 3)
    with pytest.raises(tf.errors.InvalidArgumentError, match="is not one of 0 to 2"):
        step.evaluate(images, labels + 3, verbose=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "mse"}, "loss='mse': the losses and metrics of a TrainingStep are its own .*Leave the argument out"),
        ({"metrics": ["accuracy"]}, r"metrics=\['accuracy'\]: the losses and metrics"),
        ({"weighted_metrics": ["accuracy"]}, "weighted_metrics="),
        ({"loss_weights": [0.5, 0.5]}, "loss_weights="),
        ({"auto_scale_loss": True}, "scales the losses of float16 itself"),
    ],
)
def test_what_compile_does_not_offer_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TrainingStep(network(), COUNTS).compile(keras.optimizers.SGD(), **options)


def test_xla_and_several_steps_at_once_are_for_one_device():
    step = TrainingStep(network(), COUNTS)
    step.compile("sgd", jit_compile="auto", steps_per_execution=2)
    assert not step.jit_compile and step.steps_per_execution == 2
    with strategy_of(2).scope():
        step = TrainingStep(network(), COUNTS)
        for option in ({"jit_compile": True}, {"steps_per_execution": 2}):
            with pytest.raises(ValueError, match="work on one device, and the strategy has 2"):
                step.compile("sgd", **option)


def test_a_share_of_weights_that_are_all_zero_is_zero():
    step = TrainingStep(network(), COUNTS)
    np.testing.assert_array_equal(step.share(tf.constant([1.0, 3.0])), [0.25, 0.75])
    np.testing.assert_array_equal(step.share(tf.zeros([2])), [0, 0])


def test_a_network_of_other_classes_is_refused():
    with pytest.raises(ValueError, match="the network has 3 classes and class_counts 2"):
        TrainingStep(network(), [2, 1])
