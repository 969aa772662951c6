import keras
import numpy as np
import tensorflow as tf

from deitlt_tf import losses, optimizers
from deitlt_tf.sam import sam_gradient


def test_sam_steps_equal_the_reference(golden):
    case = golden("sam_steps")
    c = case.config
    w, b = keras.Variable(case["w0"]), keras.Variable(case["b0"])
    x, y = tf.constant(case["x"]), tf.constant(case["y"])

    def loss():
        return tf.reduce_mean(losses.cross_entropy(y, x @ tf.transpose(w.value) + b.value))

    sgd = optimizers.SGD(c["lr"], momentum=c["momentum"], l2=c["weight_decay"])
    seen = []
    for _ in range(c["steps"]):
        value, slopes = sam_gradient(loss, [w, b], rho=c["rho"])
        sgd.apply_gradients(list(zip(slopes, [w, b], strict=True)))
        seen.append(float(value))
    np.testing.assert_allclose(seen, case["losses"], rtol=1e-4)
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
    sam_gradient(loss, norm.trainable_variables, rho=1.0)
    for after, expected in zip(norm.weights, once, strict=True):
        np.testing.assert_array_equal(after, expected)  # moved by the first pass, and by it only


def test_without_a_ball_it_is_the_plain_gradient():
    w = keras.Variable([2.0, -1.0])
    loss = lambda: tf.reduce_sum(w.value**3)  # noqa: E731
    _, slopes = sam_gradient(loss, [w], rho=0.0)
    np.testing.assert_allclose(slopes[0], [12.0, 3.0], rtol=1e-6)
