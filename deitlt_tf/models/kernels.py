"""GELU, layer normalisation and attention with gradients written by hand: the same functions in less time and memory.

The gradients that TensorFlow derives keep every intermediate result, four to six arrays of the size of the input. These
keep one. Name scopes show in a profile to which function a gradient belongs. Measured by `benchmarks/train_step.py`.
"""

import math

import tensorflow as tf

from deitlt_tf import graphs


def gelu(x: tf.Tensor) -> tf.Tensor:
    """x Phi(x) = x (1 + erf(x / sqrt 2)) / 2, exactly. Keras' GELU becomes an Erfc op, which ONNX does not have."""
    return x * 0.5 * (1 + tf.math.erf(x * math.sqrt(0.5)))  # LiteRT's converter recognises GELU by this order


def quick_gelu(x: tf.Tensor) -> tf.Tensor:
    """x sigmoid(1.702 x), the approximation of GELU in OpenAI's CLIP."""
    return x * tf.sigmoid(1.702 * x)


@tf.custom_gradient
def dense_of_gelu(x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """gelu(x) kernel + bias, for training: [N, 4D] -> [N, D]. The gradient keeps x and computes gelu(x) again.

    XLA computes GELU in one pass over memory instead of eleven. Inference does not use this function, so exported
    models hold no XLA.
    """

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        with tf.name_scope("mlp"):
            y, slope = _gelu_and_gradient(x, tf.matmul(upstream, kernel, transpose_b=True))
            return slope, tf.matmul(y, upstream, transpose_a=True), tf.raw_ops.BiasAddGrad(out_backprop=upstream)

    return tf.nn.bias_add(tf.matmul(_compiled_gelu(x), kernel), bias), gradient


@graphs.compiled
def _compiled_gelu(x: tf.Tensor) -> tf.Tensor:
    return tf.cast(gelu(_wide(x)), x.dtype)


@graphs.compiled
def _gelu_and_gradient(x: tf.Tensor, upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """x Phi(x), and upstream times its derivative Phi(x) + x phi(x)."""
    dtype, x = x.dtype, _wide(x)
    cdf = 0.5 * (1 + tf.math.erf(x * math.sqrt(0.5)))
    slope = _wide(upstream) * (cdf + x * tf.exp(-0.5 * tf.square(x)) * (1 / math.sqrt(2 * math.pi)))
    return tf.cast(x * cdf, dtype), tf.cast(slope, dtype)


def _wide(x: tf.Tensor) -> tf.Tensor:
    """Half precision as float32, because XLA would round after every operation, in nearly twice the time."""
    return tf.cast(x, tf.float32) if x.dtype.size < 4 else x


def layer_norm(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, *, epsilon: float) -> tf.Tensor:
    """normalized(x) gamma + beta, float32."""
    return normalized(x, epsilon=epsilon) * gamma + beta


def normalized(x: tf.Tensor, *, epsilon: float) -> tf.Tensor:
    """n = (x - mean) / sqrt(variance + epsilon) over the last axis, float32.

    Its gradient is (u - mean(u) - n mean(u n)) / sqrt(variance + epsilon) for the upstream gradient u.
    """

    @tf.custom_gradient
    def normal_of(x: tf.Tensor) -> tuple:
        centred = x - tf.reduce_mean(x, -1, keepdims=True)
        inverse = tf.math.rsqrt(tf.reduce_mean(tf.square(centred), -1, keepdims=True) + epsilon)
        normal = centred * inverse

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            with tf.name_scope("norm"):
                along = tf.reduce_mean(upstream * normal, -1, keepdims=True)
                return inverse * (upstream - tf.reduce_mean(upstream, -1, keepdims=True) - normal * along)

        return normal, gradient

    return normal_of(x)


def probabilities(q: tf.Tensor, k: tf.Tensor) -> tf.Tensor:
    """softmax(q k^T), float32 [..., T, T]. q is scaled before."""
    return tf.nn.softmax(tf.cast(tf.matmul(q, k, transpose_b=True), tf.float32))


def attention(q: tf.Tensor, k: tf.Tensor, v: tf.Tensor, *, training: bool | None = False) -> tf.Tensor:
    """softmax(q k^T) v of each head, heads next to each other: (B, heads, T, d) -> (B, T, heads, d).

    q, k, v: queries, which are scaled before, keys and values.
    training: the gradient computes the probabilities a second time instead of keeping them. They are as large as all
      other arrays that attention keeps. Defaults to False.
    """
    if training:
        return _attention_of_training(q, k, v)
    return _swap_heads(tf.matmul(tf.cast(probabilities(q, k), v.dtype), v))


@tf.custom_gradient
def _attention_of_training(q: tf.Tensor, k: tf.Tensor, v: tf.Tensor) -> tuple:
    y = attention(q, k, v)

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        with tf.name_scope("attn"):
            # Without this dependency TensorFlow would keep the probabilities of the forward pass for this place.
            with tf.control_dependencies([upstream]):
                p = probabilities(tf.identity(q), k)
            along = tf.reduce_sum(tf.cast(upstream * y, tf.float32), -1, keepdims=True)  # = sum_k p_k dp_k
            upstream = _swap_heads(upstream)
            slope = p * (tf.cast(tf.matmul(upstream, v, transpose_b=True), tf.float32) - _swap_heads(along))
            slope, p = tf.cast(slope, q.dtype), tf.cast(p, v.dtype)
            return tf.matmul(slope, k), tf.matmul(slope, q, transpose_a=True), tf.matmul(p, upstream, transpose_a=True)

    return y, gradient


def _swap_heads(x: tf.Tensor) -> tf.Tensor:
    """(B, heads, T, d) <-> (B, T, heads, d)."""
    return tf.transpose(x, (0, 2, 1, 3))
