"""Probes against answers known beforehand."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from deitlt_tf import models
from deitlt_tf.evaluation import probes


def attention(seed: int, *shape: int) -> np.ndarray:
    return tf.nn.softmax(np.random.default_rng(seed).normal(size=shape, scale=3).astype(np.float32)).numpy()


@pytest.mark.parametrize("prefix", [0, 1, 2])
def test_uniform_attention_over_14_x_14_patches_of_16_pixels_reaches_116_5(prefix):
    uniform = tf.ones((1, 3, 196 + prefix, 196 + prefix)) / (196 + prefix)
    distance = probes.attention_distance(uniform, patch_size=16, prefix=prefix)
    assert distance.shape == (1, 3)
    np.testing.assert_allclose(distance, 116.5, atol=0.05)


def test_attention_to_itself_reaches_nowhere_and_to_the_right_neighbour_one_patch():
    assert probes.attention_distance(tf.eye(18), patch_size=16, prefix=2) == 0
    right = np.roll(np.eye(16), 1, axis=1)  # the last of a row of 4 looks at the first of the next row
    expected = 8 * (12 + 3 * np.hypot(3, 1) + np.hypot(3, 3)) / 16
    assert float(probes.attention_distance(right, patch_size=8, prefix=0)) == pytest.approx(expected)


@given(st.integers(0, 9), st.integers(0, 2))
@settings(max_examples=10, deadline=None)
def test_distance_knows_no_direction_and_scales_with_the_patch(seed, prefix):
    a = attention(seed, 2, 16 + prefix, 16 + prefix)
    grid = np.arange(16).reshape(4, 4).T.ravel() + prefix
    turned = a[:, np.r_[:prefix, grid]][:, :, np.r_[:prefix, grid]]
    distance = probes.attention_distance(a, patch_size=4, prefix=prefix)
    np.testing.assert_allclose(distance, probes.attention_distance(turned, patch_size=4, prefix=prefix), rtol=1e-5)
    np.testing.assert_allclose(2 * distance, probes.attention_distance(a, patch_size=8, prefix=prefix), rtol=1e-6)


def test_rollout_of_identity_is_identity_and_of_uniform_tends_to_uniform():
    one = tf.eye(5, batch_shape=[2, 3])
    np.testing.assert_array_equal(probes.rollout([one, one, one]), tf.eye(5, batch_shape=[2]))
    layers = 4  # half of what is left stays where it is in each block
    expected = np.eye(5) / 2**layers + (1 - 1 / 2**layers) / 5
    np.testing.assert_allclose(probes.rollout([tf.ones((2, 3, 5, 5)) / 5] * layers)[0], expected, rtol=1e-6)


def test_rollout_multiplies_the_last_block_first():
    first, last = attention(0, 1, 2, 4, 4), attention(1, 1, 2, 4, 4)
    expected = (last[0].mean(0) + np.eye(4)) / 2 @ (first[0].mean(0) + np.eye(4)) / 2
    np.testing.assert_allclose(probes.rollout([first, last])[0], expected, rtol=1e-5)
    np.testing.assert_allclose(tf.reduce_sum(probes.rollout([first, last]), -1), 1, rtol=1e-5)


def features(variances, seed=0, images=40) -> np.ndarray:
    """[images, D] whose centred columns have exactly these variances along hidden directions."""
    rng = np.random.default_rng(seed)
    left = rng.normal(size=(images, len(variances)))
    left = np.linalg.qr(left - left.mean(0))[0]
    right = np.linalg.qr(rng.normal(size=(len(variances), len(variances))))[0]
    return left * np.sqrt(variances) @ right + rng.normal(size=len(variances))


@pytest.mark.parametrize(
    ("variances", "share", "rank"),
    [
        ([5, 3, 1, 1], 0.5, 1),
        ([5, 3, 1, 1], 0.79, 2),
        ([5, 3, 1, 1], 0.81, 3),
        ([5, 3, 1, 1], 1.0, 4),
        ([1, 1, 1, 1, 1, 1, 1, 1, 1, 1], 0.95, 10),
        ([7, 0, 0], 1.0, 1),
        ([0, 0, 0], 0.95, 0),
    ],
)
def test_rank_of_a_known_spectrum(variances, share, rank):
    assert probes.feature_rank(features(variances), share=share) == rank


@given(st.integers(0, 99))
@settings(max_examples=10, deadline=None)
def test_rank_does_not_change_with_place_and_scale_and_grows_with_the_share(seed):
    x = np.random.default_rng(seed).normal(size=(12, 6)) * [9, 5, 3, 1, 0.5, 0.1]
    ranks = [probes.feature_rank(x, share=s) for s in (0.5, 0.9, 0.99)]
    assert ranks == [probes.feature_rank(3 * x + 100, share=s) for s in (0.5, 0.9, 0.99)]
    assert ranks == sorted(ranks) and ranks[-1] <= 6


def test_diversity_of_equal_orthogonal_and_opposite_tokens():
    pairs = np.array([[[3, 4], [6, 8]], [[1, 0], [0, 2]], [[1, 1], [-2, -2]]], np.float32)
    np.testing.assert_allclose(probes.diversity(pairs), [0, 1, 2], atol=1e-6)


@pytest.mark.parametrize(("stem", "prefix"), [("patch", 2), ("patch", 1), ("conv", 2)])
def test_probe_sees_what_the_model_computes(stem, prefix):
    name = "deit_nano" if prefix == 2 else "vit_nano"
    small = {
        "num_classes": 3,
        "stem": stem,
        "image_size": 12,
        "patch_size": 4,
        "embed_dim": 16,
        "depth": 2,
        "num_heads": 4,
    }
    model = models.build(name, **small)
    images = np.random.default_rng(0).integers(0, 256, (3, 12, 12, 3)).astype(np.uint8)
    padded = [np.concatenate([images, images[:1]])[i : i + 2] for i in (0, 2)]
    batches = tf.data.Dataset.from_tensor_slices((padded, np.zeros((2, 2), np.int32), [[1.0, 1.0], [1.0, 0.0]]))
    tf.config.run_functions_eagerly(True)
    try:
        result = probes.probe(model, batches)
    finally:
        tf.config.run_functions_eagerly(False)
    assert [x.shape for x in result] == [(3, 2, 4), (3, 2, prefix, 16), (3, prefix, 16), (3, prefix, 3, 3)]

    # The same, layer by layer.
    x = model.get_layer("normalize")(images)
    x = model.get_layer("tokens")(model.get_layer("patch_embed" if stem == "conv" else "patch_embed.proj")(x))
    attentions = []
    for i in range(2):
        block = model.get_layer(f"blocks.{i}")
        attentions.append(block.attn.probabilities(block.norm1(x)))
        x = block(x)
        np.testing.assert_allclose(result.tokens[:, i], x[:, :prefix], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(result.final, model.get_layer("norm")(x)[:, :prefix], rtol=1e-4, atol=1e-5)
    rows = probes.rollout(attentions)[:, :prefix, prefix:]
    np.testing.assert_allclose(result.rollout.reshape(3, prefix, 9), rows, rtol=1e-4)
    near = probes.attention_distance(attentions[1], patch_size=4, prefix=prefix)
    np.testing.assert_allclose(result.distance[:, 1], near, rtol=1e-4)
    # The heads read what `final` holds.
    head = model.get_layer("head_dist" if prefix == 2 else "head")
    logits = model(images)["dist"] if prefix == 2 else model(images)
    np.testing.assert_allclose(head(result.final[:, -1]), logits, rtol=1e-4, atol=1e-5)
    assert probes.uniform_distance(model) == pytest.approx(
        float(probes.attention_distance(tf.ones((9, 9)), patch_size=4, prefix=0))
    )
    assert probes.has_attention(model) and not probes.has_attention(keras.Model(model.input, model.layers[1].output))
