"""Probes that the paper plots: attention distance, rank of features, attention rollout, difference of CLS and DIST.

Each probe is a function of arrays; `probe` computes them over images and keeps results per image only.
Source: DeiT-LT (arXiv 2404.02900) section 4 and its figures.
"""

import math
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from deitlt_tf.evaluation.predictions import progress
from deitlt_tf.models import vit


class Probes(NamedTuple):
    """Results for N images; L blocks, H heads, P = 2 tokens [CLS, DIST] or 1 [CLS], D channels, g x g patches.

    distance: [N, L, H] pixels, `attention_distance` of each block.
    tokens: [N, L, P, D], the tokens after each block.
    final: [N, P, D], the tokens after the last norm, which the classification heads read.
    rollout: [N, P, g, g], the row of each token in `rollout` of all blocks, columns of patches only.
    """

    distance: np.ndarray
    tokens: np.ndarray
    final: np.ndarray
    rollout: np.ndarray


def attention_distance(attention: tf.Tensor, *, patch_size: int, prefix: int) -> tf.Tensor:
    """Mean over queries i of sum_j a_ij |x_i - x_j|, in pixels: how far a head looks. [..., T, T] -> [...].

    attention: rows = queries, columns = keys, T = prefix + g * g; x_i are patch centres on the grid. The `prefix`
    tokens in front have no position: their rows and columns are left out, and the rest of a row is scaled to sum 1.
    patch_size: pixels.
    Uniform attention over 14 x 14 patches of 16 px gives 116.5 px, attention of each patch to itself 0.
    """
    grid = math.isqrt(attention.shape[-1] - prefix)
    centres = np.stack(np.divmod(np.arange(grid * grid), grid), -1) * patch_size  # (g*g, 2)
    distances = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
    patches = attention[..., prefix:, prefix:]
    patches = tf.math.divide_no_nan(patches, tf.reduce_sum(patches, -1, keepdims=True))
    return tf.reduce_mean(tf.reduce_sum(patches * tf.constant(distances, patches.dtype), -1), -1)


def uniform_distance(model: keras.Model) -> float:
    """`attention_distance` of uniform attention over this model's patches, pixels: that of a head without focus."""
    patches = model.get_layer("tokens").patches
    patch_size = vit.patch_size(model)
    return float(attention_distance(tf.ones((patches, patches)), patch_size=patch_size, prefix=0))


def rollout(attention: list[tf.Tensor]) -> tf.Tensor:
    """A_L ... A_2 A_1 with A_l = (mean over heads of the attention + I) / 2: the inputs of each token. [B, T, T].

    attention: one [B, heads, T, T] for each block, in order. Rows sum to 1, because those of every factor do.
    Source: Abnar and Zuidema 2020 (arXiv 2005.00928), section 4.
    """
    whole = tf.eye(attention[0].shape[-1])
    for a in attention:
        whole = tf.matmul((tf.reduce_mean(a, 1) + tf.eye(a.shape[-1])) / 2, whole)
    return whole


def feature_rank(features: np.ndarray, *, share: float) -> int:
    """The smallest number of principal components that hold `share` of the variance; 0 where all features are equal.

    features: [N, D]. The squared singular values of the centred features are the variances. The rank cannot exceed
    min(N - 1, D), so take more images than channels.
    """
    centred = np.asarray(features, np.float64) - np.mean(features, 0, dtype=np.float64)
    held = np.cumsum(np.linalg.svd(centred, compute_uv=False) ** 2)
    if held[-1] <= np.finfo(np.float32).eps ** 2 * np.square(features, dtype=np.float64).sum():
        return 0
    return int(np.searchsorted(held, share * held[-1] * (1 - 1e-12)) + 1)


def diversity(final: np.ndarray) -> np.ndarray:
    """1 - cosine of CLS and DIST: 0 = the same direction, 1 = orthogonal. [N, 2, D] -> [N]."""
    unit = final / np.linalg.norm(final, axis=-1, keepdims=True)
    return 1 - np.sum(unit[:, 0] * unit[:, 1], axis=-1)


def has_attention(model: keras.Model) -> bool:
    """Whether `model` is one of our Vision Transformers, the only networks that `probe` accepts."""
    return any(isinstance(layer, vit.Block) for layer in model.layers)


def probe(model: keras.Model, batches: tf.data.Dataset, *, title: str | None = None) -> Probes:
    """All probes of a ViT or DeiT over batches of (images, labels, mask), without the padding.

    title: of a progress bar; None: no bar. Keep batches small: the attention of all blocks is in memory at once,
    [B, heads, T, T] for each block, which is 22 MB an image for Base at 224 pixels.
    """
    tokens = model.get_layer("tokens")
    blocks = [layer for layer in model.layers if isinstance(layer, vit.Block)]
    size = {"patch_size": vit.patch_size(model), "prefix": tokens.leading}
    outputs = [blocks[0].input, *(block.output for block in blocks), model.get_layer("norm").output]
    hidden_states = keras.Model(model.input, outputs)

    @tf.function(reduce_retracing=True)
    def step(images: tf.Tensor) -> Probes:
        *hidden, final = hidden_states(images, training=False)
        attention = [block.attn.probabilities(block.norm1(x)) for block, x in zip(blocks, hidden[:-1], strict=True)]
        patches = rollout(attention)[:, : tokens.prefix, tokens.leading :]
        side = math.isqrt(tokens.patches)
        return Probes(
            distance=tf.stack([attention_distance(a, **size) for a in attention], 1),
            tokens=tf.cast(tf.stack([x[:, : tokens.prefix] for x in hidden[1:]], 1), tf.float32),
            final=tf.cast(final[:, : tokens.prefix], tf.float32),
            rollout=tf.reshape(patches, (-1, tokens.prefix, side, side)),
        )

    results = []
    for images, _, mask in progress(batches, title):
        results.append([part.numpy()[mask.numpy() > 0] for part in step(images)])
    return Probes(*(np.concatenate(parts) for parts in zip(*results, strict=True)))
