import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from deitlt_tf.models import kernels, vit


@pytest.mark.parametrize("training", [False, True])
def test_gelu_is_exact_and_so_is_its_slope(training):
    x = np.linspace(-6, 6, 97)
    phi = np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in x])
    slope = phi + x * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    for dtype, near in ((tf.float64, 1e-12), (tf.float32, 1e-6)):
        given = tf.constant(x, dtype)
        with tf.GradientTape() as tape:
            tape.watch(given)
            y = kernels.gelu(given, training=training)
        np.testing.assert_allclose(y, x * phi, atol=near)
        np.testing.assert_allclose(tape.gradient(y, given), slope, atol=near)


def test_what_is_exported_is_not_compiled():
    spec = tf.TensorSpec([None, 3], tf.float32)
    graph = tf.function(kernels.gelu, input_signature=[spec]).get_concrete_function().graph
    assert not any("_XlaMustCompile" in node.attr for node in graph.as_graph_def().node)


def test_layer_norm_and_its_gradient_are_keras():
    draw = np.random.default_rng(0)
    x, gamma, beta, upstream = (tf.constant(draw.normal(2, 3, s), tf.float32) for s in ((4, 5, 8), 8, 8, (4, 5, 8)))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([x, gamma, beta])
        ours = kernels.layer_norm(x, gamma, beta, epsilon=1e-6)
        theirs = keras.ops.layer_normalization(x, gamma, beta, epsilon=1e-6)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    both = (tape.gradient(y, [x, gamma, beta], output_gradients=upstream) for y in (ours, theirs))
    for our, their in zip(*both, strict=True):
        np.testing.assert_allclose(our, their, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_a_block_that_only_tokens_leave_works_out_the_same(training):
    whole, short = (vit.Block(2, 0.5, 1, asking) for asking in (None, 2))
    x = tf.constant(np.random.default_rng(0).normal(size=(3, 6, 8)), tf.float32)
    assert short.compute_output_shape((3, 6, 8)) == (3, 2, 8)
    for block in (whole, short):
        block.build(x.shape)
    short.set_weights([w + 0.1 for w in whole.get_weights()])
    whole.set_weights(short.get_weights())
    with vit.drawing_from(tf.constant([1, 2])), tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        a, b = whole(x, training=training)[:, :2], short(x, training=training)
    np.testing.assert_allclose(a, b, atol=1e-6)
    np.testing.assert_allclose(tape.gradient(a, x), tape.gradient(b, x), rtol=1e-5, atol=1e-5)
