"""Hand-written kernels and their gradients against plain formulas and against Keras."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from deitlt_tf import models
from deitlt_tf.models import kernels, vit


def test_gelu_is_exact_and_so_is_its_slope():
    x = np.linspace(-6, 6, 97)
    phi = np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in x])
    slope = phi + x * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    for dtype, near in ((tf.float64, 1e-12), (tf.float32, 1e-6)):
        inputs, one, zero = tf.constant(x[:, None], dtype), tf.ones((1, 1), dtype), tf.zeros(1, dtype)
        for of in (kernels.gelu, lambda x, one=one, zero=zero: kernels.dense_of_gelu(x, one, zero)):
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                y = of(inputs)
            np.testing.assert_allclose(y[:, 0], x * phi, atol=near)
            np.testing.assert_allclose(tape.gradient(y, inputs)[:, 0], slope, atol=near)


def test_a_dense_layer_of_gelu_has_the_gradients_of_both():
    draw = np.random.default_rng(0)
    inputs = [tf.constant(draw.normal(size=shape), tf.float32) for shape in ((5, 8), (8, 3), (3,))]
    upstream = tf.constant(draw.normal(size=(5, 3)), tf.float32)
    results = []
    for of in (lambda x, kernel, bias: tf.matmul(kernels.gelu(x), kernel) + bias, kernels.dense_of_gelu):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            y = of(*inputs)
        results.append([y, *tape.gradient(y, inputs, output_gradients=upstream)])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_what_is_exported_is_not_compiled():
    model = models.build("deit_nano", num_classes=3, image_size=16, patch_size=8)
    spec = tf.TensorSpec([None, 16, 16, 3], tf.float32)
    graph = tf.function(model, input_signature=[spec]).get_concrete_function().graph
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


def test_attention_of_training_is_that_of_inference_with_its_gradient():
    draw = np.random.default_rng(0)
    rows = (5, 7, 7)  # fewer queries than keys
    inputs = [tf.constant(draw.normal(size=(2, 3, count, 4)), tf.float32) for count in rows]
    upstream = tf.constant(draw.normal(size=(2, 5, 3, 4)), tf.float32)
    results = []
    for training in (False, True):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            y = kernels.attention(*inputs, training=training)
        results.append([y, *tape.gradient(y, inputs, output_gradients=upstream)])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_a_dense_layer_with_the_norm_in_its_weights_is_the_same(dtype):
    draw = np.random.default_rng(0)
    norm, dense = vit.LayerNorm(epsilon=1e-6, dtype=dtype), keras.layers.Dense(6, dtype=dtype)
    norm.build((None, 3, 8))
    dense.build((None, 8))
    for variable in (*norm.weights, *dense.weights):
        variable.assign(draw.normal(1, 0.3, variable.shape))
    x, upstream = (tf.constant(draw.normal(2, 3, shape), tf.float32) for shape in ((4, 3, 8), (12, 6)))
    results = []
    for training in (False, True):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.cast(vit.normed_dense(x, norm, dense, training=training), tf.float32)
        over = [x, *(v.value for v in (*norm.weights, *dense.weights))]
        results.append([y, *tape.gradient(y, over, output_gradients=upstream)])
    near = 1e-4 if dtype == "float32" else 0.06
    for one, other in zip(*results, strict=True):
        size = float(tf.reduce_max(tf.abs(tf.cast(one, tf.float32))))
        np.testing.assert_allclose(tf.cast(one, tf.float32), tf.cast(other, tf.float32), atol=near * size)


@pytest.mark.parametrize("training", [False, True])
def test_a_block_that_only_tokens_leave_computes_the_same(training):
    whole, short = (vit.Block(2, 0.5, 1, tokens) for tokens in (None, 2))
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
