"""SAM against the reference, its relatives and its measure against parabolas worked by hand."""

import keras
import numpy as np
import tensorflow as tf

from deitlt_tf import losses, optimizers, sam


def test_sam_steps_equal_the_reference(golden):
    case = golden("sam_steps")
    c = case.config
    w, b = keras.Variable(case["w0"]), keras.Variable(case["b0"])
    x, y = tf.constant(case["x"]), tf.constant(case["y"])

    def loss():
        return tf.reduce_mean(losses.cross_entropy(y, x @ tf.transpose(w.value) + b.value))

    sgd = optimizers.SGD(c["lr"], momentum=c["momentum"], l2=c["weight_decay"])
    values = []
    for _ in range(c["steps"]):
        value, slopes = sam.sam_gradient(loss, [w, b], rho=c["rho"])
        sgd.apply_gradients(list(zip(slopes, [w, b], strict=True)))
        values.append(float(value))
    np.testing.assert_allclose(values, case["losses"], rtol=1e-4)
    np.testing.assert_allclose(w, case["w_final"], rtol=1e-3)
    np.testing.assert_allclose(b, case["b_final"], rtol=1e-3)


def test_second_pass_leaves_weights_and_batch_statistics_alone():
    norm = keras.layers.BatchNormalization()
    norm.build((None, 3))
    x = tf.random.stateless_normal([8, 3], [1, 2]) + 3

    def loss():
        return tf.reduce_sum(norm(x, training=True) ** 4)

    norm(x, training=True)
    once = [v.numpy() for v in norm.weights]
    fresh = keras.layers.BatchNormalization()
    fresh.build((None, 3))
    norm.set_weights(fresh.get_weights())
    sam.sam_gradient(loss, norm.trainable_variables, rho=1.0)
    for after, expected in zip(norm.weights, once, strict=True):
        np.testing.assert_array_equal(after, expected)  # moved by the first pass, and by it only


def test_without_a_ball_it_is_the_plain_gradient():
    w = keras.Variable([2.0, -1.0])
    loss = lambda: tf.reduce_sum(w.value**3)  # noqa: E731
    _, slopes = sam.sam_gradient(loss, [w], rho=0.0)
    np.testing.assert_allclose(slopes[0], [12.0, 3.0], rtol=1e-6)


def test_the_ascent_may_follow_a_part_of_the_loss():
    """L = w^3 + 4 v^2, the ascent along w^3 alone: v stays where it is, w goes to 2 + rho."""
    w, v = keras.Variable(2.0), keras.Variable(1.0)
    part = lambda: w.value**3  # noqa: E731
    loss = lambda: w.value**3 + 4 * v.value**2  # noqa: E731
    value, slopes = sam.sam_gradient(loss, [w, v], rho=0.5, climb=part)
    np.testing.assert_allclose([value, *slopes], [8.0, 3 * 2.5**2, 8.0], rtol=1e-6)
    assert (float(w), float(v)) == (2.0, 1.0)


def test_imbsam_is_flat_for_the_tail_alone():
    """Head w^3, tail w^2: 3 w^2 + 2 (w + rho)."""
    w = keras.Variable(2.0)
    value, slopes = sam.imbsam_gradient(lambda: (w.value**3, w.value**2), [w], rho=0.5)
    np.testing.assert_allclose([value, *slopes], [12.0, 12.0 + 5.0], rtol=1e-6)


def test_sharpness_of_a_parabola():
    """L = a w^2 over two batches, |grad| = 2 a w: at w + rho a (2 w rho + rho^2) more; a plane has slope rho."""
    w = keras.Variable(2.0)
    batches = [(tf.constant([1.0, 3.0]),), (tf.constant([8.0]),)]  # a = 4 on average
    value, rise = sam.sharpness(lambda batch: batch[0] * w.value**2, [w], batches, rho=0.5)
    np.testing.assert_allclose([value, rise], [16.0, 4 * (2 * 2 * 0.5 + 0.25)], rtol=1e-5)
    v = keras.Variable([3.0, 4.0])
    _, rise = sam.sharpness(lambda batch: batch[0] * tf.reduce_sum(v.value), [v], [(tf.ones(2),)], rho=0.1)
    np.testing.assert_allclose(rise, 0.1 * np.sqrt(2), rtol=1e-5)
    assert float(w) == 2.0
