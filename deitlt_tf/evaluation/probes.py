"""What the paper plots: how far heads look, the rank of features, what a token rests on, how far two tokens differ.

Each probe is a function of arrays; `probe` runs them over images, and keeps per-image results only.
Source: DeiT-LT (arXiv 2404.02900) section 4 and its figures.
"""

import math
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from deitlt_tf.models import vit


class Probes(NamedTuple):
    """Of N images; L blocks, H heads, P = 2 tokens [CLS, DIST] or 1 [CLS], D channels, g x g patches.

    distance: [N, L, H] pixels, `attention_distance` of each block.
    tokens: [N, L, P, D] after each block. final: [N, P, D] after the last norm, what the heads read.
    rollout: [N, P, g, g], the row of each token in `rollout` of all blocks, its patches alone.
    """

    distance: np.ndarray
    tokens: np.ndarray
    final: np.ndarray
    rollout: np.ndarray


def attention_distance(attention: tf.Tensor, *, patch_size: int, prefix: int) -> tf.Tensor:
    """Mean over queries i of sum_j a_ij |x_i - x_j|, in pixels: how far a head looks. [..., T, T] -> [...].

    attention: rows = queries, columns = keys, T = prefix + g * g. Tokens in front have no place, so their rows and
    columns are left out and what remains of a row is scaled to sum 1; x_i are patch centres on the grid.
    Uniform attention over 14 x 14 patches of 16 px gives 116.5 px, attention of each patch to itself 0.
    """
    grid = math.isqrt(attention.shape[-1] - prefix)
    places = np.stack(np.divmod(np.arange(grid * grid), grid), -1) * patch_size  # (g*g, 2)
    apart = np.linalg.norm(places[:, None] - places[None], axis=-1)
    among = attention[..., prefix:, prefix:]
    among = tf.math.divide_no_nan(among, tf.reduce_sum(among, -1, keepdims=True))
    return tf.reduce_mean(tf.reduce_sum(among * tf.constant(apart, among.dtype), -1), -1)


def uniform_distance(model: keras.Model) -> float:
    """`attention_distance` of uniform attention in this model's grid, pixels: as far as looking nowhere reaches."""
    patches = model.get_layer("tokens").patches
    patch_size = model.get_layer("patch_embed.proj").kernel_size[0]
    return float(attention_distance(tf.ones((patches, patches)), patch_size=patch_size, prefix=0))


def rollout(attention: list[tf.Tensor]) -> tf.Tensor:
    """A_L ... A_2 A_1, A_l = (mean over heads of the attention + I) / 2: what each token rests on. -> [B, T, T].

    attention: of each block in order, [B, heads, T, T]. Rows sum to 1, for they do in every factor.
    Source: Abnar and Zuidema 2020 (arXiv 2005.00928), section 4.
    """
    whole = tf.eye(attention[0].shape[-1])
    for a in attention:
        whole = tf.matmul((tf.reduce_mean(a, 1) + tf.eye(a.shape[-1])) / 2, whole)
    return whole


def feature_rank(features: np.ndarray, *, share: float) -> int:
    """The least number of principal components that hold `share` of the variance. features: [N, D]; 0 where all equal.

    Squared singular values of the centred features are the variances. At most min(N - 1, D): use more images than D.
    """
    centred = np.asarray(features, np.float64) - np.mean(features, 0, dtype=np.float64)
    held = np.cumsum(np.linalg.svd(centred, compute_uv=False) ** 2)
    if held[-1] <= np.finfo(np.float32).eps ** 2 * np.square(features, dtype=np.float64).sum():
        return 0
    return int(np.searchsorted(held, share * held[-1] * (1 - 1e-12)) + 1)


def diversity(final: np.ndarray) -> np.ndarray:
    """1 - cosine of CLS and DIST: 0 = the two experts are one, 1 = at right angles. [N, 2, D] -> [N]."""
    unit = final / np.linalg.norm(final, axis=-1, keepdims=True)
    return 1 - np.sum(unit[:, 0] * unit[:, 1], axis=-1)


def has_attention(model: keras.Model) -> bool:
    """Whether `model` is one of our Vision Transformers, which is what `probe` can look into."""
    return any(isinstance(layer, vit.Block) for layer in model.layers)


def probe(model: keras.Model, batches: tf.data.Dataset, *, title: str | None = None) -> Probes:
    """All probes of a ViT or DeiT over batches of (images, labels, mask), padding left out.

    title: of a progress bar; None: no bar. Attention is [B, heads, T, T] a block, all blocks at once: at 224 pixels
    and Base 22 MB an image, so batches should be small.
    """
    tokens = model.get_layer("tokens")
    blocks = [layer for layer in model.layers if isinstance(layer, vit.Block)]
    size = {"patch_size": model.get_layer("patch_embed.proj").kernel_size[0], "prefix": tokens.prefix}
    stations = [tokens.output, *(block.output for block in blocks), model.get_layer("norm").output]
    inside = keras.Model(model.input, stations)

    @tf.function(reduce_retracing=True)
    def step(images):
        *hidden, final = inside(images, training=False)
        seen = [block.attn.probabilities(block.norm1(x)) for block, x in zip(blocks, hidden[:-1], strict=True)]
        rests_on = rollout(seen)[:, : tokens.prefix, tokens.prefix :]
        side = math.isqrt(tokens.patches)
        return Probes(
            distance=tf.stack([attention_distance(a, **size) for a in seen], 1),
            tokens=tf.cast(tf.stack([x[:, : tokens.prefix] for x in hidden[1:]], 1), tf.float32),
            final=tf.cast(final[:, : tokens.prefix], tf.float32),
            rollout=tf.reshape(rests_on, (-1, tokens.prefix, side, side)),
        )

    shown = {"desc": title, "total": int(batches.cardinality()), "disable": None if title else True, "leave": False}
    found = []
    for images, _, mask in tqdm(batches, **shown):
        found.append([part.numpy()[mask.numpy() > 0] for part in step(images)])
    return Probes(*(np.concatenate(parts) for parts in zip(*found, strict=True)))
