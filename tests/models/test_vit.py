"""The Vision Transformers against the official code; stochastic depth, tokens, initial weights."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import GOLDEN
from hypothesis import given, settings
from hypothesis import strategies as st

from deitlt_tf import models
from deitlt_tf.models import vit
from deitlt_tf.models.weights import load_state, state_dict

VECTORS = np.load(GOLDEN / "vit_forward.npz")
IMAGES = VECTORS["images_nchw"].transpose(0, 2, 3, 1) * 255
SMALL = {"num_classes": 5, "image_size": 16, "patch_size": 4, "embed_dim": 8, "depth": 2, "num_heads": 2}
# Keras' own way of reading a variable for a file, under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


@pytest.fixture(scope="module")
def official() -> keras.Model:
    """The reference vectors' model with its weights; their images are already normalised."""
    config = json.loads(str(VECTORS["config"]))
    options = {
        key: config[key] for key in ("num_classes", "image_size", "patch_size", "embed_dim", "depth", "num_heads")
    }
    model = models.build("deit_tiny", mean=(0, 0, 0), std=(1, 1, 1), **options)
    load_state(model, {k.removeprefix("param/"): VECTORS[k] for k in VECTORS.files if k.startswith("param/")})
    return model


def test_forward_equals_the_official_one(official):
    logits, tokens = vit.with_tokens(official)(IMAGES)
    for head in ("cls", "dist"):
        np.testing.assert_allclose(logits[head], VECTORS[f"{head}_logits"], rtol=1e-4, atol=1e-4)
    cosine = -keras.losses.cosine_similarity(tokens[:, 0], tokens[:, 1])
    np.testing.assert_allclose(cosine, VECTORS["cls_dist_cosine"], rtol=1e-4)


def test_with_tokens_shares_layers_and_works_on_a_loaded_model(official, tmp_path):
    official.save(tmp_path / "m.keras")
    for model in (official, keras.models.load_model(tmp_path / "m.keras")):
        both = vit.with_tokens(model)
        assert all(a is b for a, b in zip(both.variables, model.variables, strict=True))
        logits, tokens = both(IMAGES)
        for head, index in (("cls", 0), ("dist", 1)):
            np.testing.assert_array_equal(logits[head], model(IMAGES)[head])
            layer = model.get_layer({"cls": "head", "dist": "head_dist"}[head])
            np.testing.assert_allclose(layer(tokens[:, index]), logits[head], atol=1e-6)


def test_with_tokens_of_a_plain_vit_has_cls_alone():
    logits, tokens = vit.with_tokens(models.build("vit_nano", **SMALL))(np.zeros((2, 16, 16, 3), np.uint8))
    assert logits.shape == (2, 5) and tokens.shape == (2, 1, 8)


def test_attention_probabilities_are_those_of_the_call(official):
    block = official.get_layer("blocks.1")
    x = block.norm1(keras.Model(official.input, block.input)(IMAGES))
    p = block.attn.probabilities(x)
    assert p.shape == (4, 3, 66, 66)
    np.testing.assert_allclose(tf.reduce_sum(p, -1), np.ones((4, 3, 66)), atol=1e-5)
    v = tf.reshape(block.attn.qkv(x), (4, 66, 3, 3, 16))[:, :, 2]
    mixed = tf.reshape(tf.einsum("bhqk,bkhd->bqhd", p, v), (4, 66, 48))
    np.testing.assert_allclose(block.attn.proj(mixed), block.attn(x), atol=1e-5)


def test_inference_graph_asks_for_no_shapes_and_has_no_erfc(official):
    signature = tf.TensorSpec([None, 32, 32, 3], tf.float32)
    graph = tf.function(official, input_signature=[signature]).get_concrete_function().graph
    operations = {node.op for node in graph.as_graph_def().node}
    assert "MatMul" in operations and not operations & {"Shape", "Erfc", "GatherV2", "Range"}


def test_inference_ignores_drop_path():
    model = models.build("deit_nano", drop_path=0.9, **SMALL)
    images = np.zeros((2, 16, 16, 3), np.uint8)
    with vit.drawing_from(tf.constant([1, 2])):
        first = model(images)["cls"]
    np.testing.assert_array_equal(first, model(images)["cls"])


def test_drop_path_grows_linearly_and_every_layer_draws_its_own():
    model = models.build("deit_nano", drop_path=0.3, **SMALL | {"depth": 4})
    drops = [
        drop for i in range(4) for drop in (model.get_layer(f"blocks.{i}").drop1, model.get_layer(f"blocks.{i}").drop2)
    ]
    assert [drop.rate for drop in drops] == pytest.approx([0, 0, 0.1, 0.1, 0.2, 0.2, 0.3, 0.3])
    assert [drop.index for drop in drops] == list(range(8))


def test_drop_path_of_rate_0_is_identity():
    x = tf.random.stateless_normal((4, 3, 2), (0, 1))
    np.testing.assert_array_equal(vit.DropPath(0.0)(x, training=True), x)


@pytest.mark.parametrize("seeded", [True, False])
def test_drop_path_keeps_the_expectation_and_drops_whole_examples(seeded):
    x = tf.ones((20_000, 3, 2))
    if seeded:
        with vit.drawing_from(tf.constant([5, 6])):
            y = vit.DropPath(0.25)(x, training=True).numpy()
    else:
        tf.random.set_seed(0)
        y = vit.DropPath(0.25)(x, training=True).numpy()
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    assert (y == y[:, :1, :1]).all()
    assert y.mean() == pytest.approx(1, abs=0.02)  # five standard deviations


def masks(seed: tf.Tensor, index: int) -> tf.Tensor:
    with vit.drawing_from(seed):
        return vit.DropPath(0.5, index)(tf.ones((64, 1, 1)), training=True)[:, 0, 0]


@settings(max_examples=20, deadline=None)
@given(
    a=st.integers(0, 2**31 - 1),
    b=st.integers(0, 2**31 - 1),
    index=st.integers(0, 50),
    dtype=st.sampled_from(["int32", "int64"]),
)
def test_masks_are_a_function_of_seed_and_layer(a, b, index, dtype):
    seed = tf.constant([a, b], dtype)
    first = masks(seed, index)
    np.testing.assert_array_equal(first, masks(seed, index))
    assert not np.array_equal(first, masks(seed, index + 1))
    assert not np.array_equal(first, masks(tf.stack([seed[0] ^ 1, seed[1]]), index))


def test_masks_in_a_loop_are_those_of_eager_calls():
    seeds = tf.constant([[1, 2], [3, 4], [5, 6]])
    looped = tf.function(lambda: tf.foldl(lambda total, seed: total + masks(seed, 7), seeds, tf.zeros(64)))
    np.testing.assert_array_equal(looped(), sum(masks(seed, 7).numpy() for seed in seeds))


def test_compiled_masks_are_a_function_of_seed_and_layer_too():
    draw = tf.function(lambda seed: [masks(seed, 0), masks(seed, 0), masks(seed, 1)], jit_compile=True)
    (first, again, layer), (other, *_) = draw(tf.constant([1, 2])), draw(tf.constant([1, 3]))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, draw(tf.constant([1, 2]))[0])
    assert not np.array_equal(first, layer) and not np.array_equal(first, other)
    assert set(np.unique(first)) == {0, 2}


def test_the_seed_ends_with_its_block():
    with pytest.raises(RuntimeError), vit.drawing_from(tf.constant([1, 2])):
        raise RuntimeError
    assert vit._seed.get() is None


def test_training_step_under_one_seed_is_repeatable_and_reaches_every_weight():
    model = models.build("deit_nano", drop_path=0.2, **SMALL)
    images = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8)

    @tf.function
    def slopes(seed):
        with vit.drawing_from(seed), tf.GradientTape() as tape:
            logits = model(images, training=True)
            loss = tf.reduce_sum(logits["cls"] ** 2) + tf.reduce_sum(logits["dist"] ** 3)
        return tape.gradient(loss, [v.value for v in model.trainable_variables])

    first, again, other = slopes(tf.constant([1, 2])), slopes(tf.constant([1, 2])), slopes(tf.constant([1, 3]))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert any(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    for slope, v in zip(first, model.trainable_variables, strict=True):
        assert np.abs(slope).max() > 0, v.path


def test_initial_weights_have_the_official_scale():
    keras.utils.set_random_seed(0)
    state = state_dict(models.build("deit_nano", num_classes=100, image_size=64, patch_size=8))
    scale = {name: float(np.std(v)) for name, v in state.items()}
    for name in ("pos_embed", "dist_token", "blocks.0.attn.qkv.weight", "blocks.5.mlp.fc2.weight", "head_dist.weight"):
        assert scale[name] == pytest.approx(0.02, rel=0.2), name
    assert scale["cls_token"] < 2e-6
    assert scale["patch_embed.proj.weight"] == pytest.approx(1 / 24, rel=0.1)  # uniform(-a, a), a = 3 ** -0.5 / 8
    for name in ("blocks.0.attn.qkv.bias", "head.bias", "blocks.0.norm1.bias"):
        assert scale[name] == 0
