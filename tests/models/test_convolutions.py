"""BatchNorm as TensorFlow's fused kernel computes it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deitlt_tf.models import convolutions


@pytest.mark.parametrize("shape", [(3, 5, 4, 6), (1, 1, 2, 6)])
def test_batch_norm_is_keras(shape):
    draw = np.random.default_rng(0)
    x, upstream = (tf.constant(draw.normal(2, 3, shape), tf.float32) for _ in range(2))
    results = []
    for layer in (convolutions.BatchNorm(), keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)):
        layer.build(shape)
        layer.gamma.assign(np.linspace(0.5, 2, 6))
        layer.beta.assign(np.linspace(-1, 1, 6))
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        results.append(
            [y, layer(x), *layer.weights, *tape.gradient(y, [x, layer.gamma.value, layer.beta.value], upstream)]
        )
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
