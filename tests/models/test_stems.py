"""The convolutional stem: its shapes, what it sees, and a Vision Transformer on top of it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.tiny_models import tiny

from deitlt_tf import models
from deitlt_tf.models import resizing, stems, vit
from deitlt_tf.models.weights import state_dict

SMALL = {
    "num_classes": 5,
    "image_size": 8,
    "patch_size": 4,
    "embed_dim": 16,
    "depth": 2,
    "num_heads": 2,
    "drop_path": 0.0,
}


def student(name="deit_nano", **options):
    return models.build(name, **SMALL | {"stem": "conv"} | options)


def pixels(size=8):
    return np.random.default_rng(0).integers(0, 256, (2, size, size, 3))


@pytest.mark.parametrize(("size", "patch", "widths"), [(32, 8, [16, 32, 64]), (224, 16, [8, 16, 32, 64]), (6, 2, [64])])
def test_patches_of_every_size(size, patch, widths):
    stem = stems.ConvStem(64, patch)
    stem.build((None, size, size, 3))
    assert (
        [conv.filters for conv, _ in stem.halvings[::2]] == [conv.filters for conv, _ in stem.halvings[1::2]] == widths
    )
    assert stem.compute_output_shape((None, size, size, 3)) == (None, size // patch, size // patch, 64)
    assert stem(tf.zeros((1, size, size, 3))).shape == (1, size // patch, size // patch, 64)


@pytest.mark.parametrize(
    ("dim", "patch", "message"), [(64, 6, "patch_size=6"), (64, 1, "patch_size=1"), (12, 16, "multiple of 8")]
)
def test_patches_that_are_no_halvings_are_refused(dim, patch, message):
    with pytest.raises(ValueError, match=message):
        stems.ConvStem(dim, patch)
    with pytest.raises(ValueError, match="stem=dense is unknown"):
        models.build("deit_nano", num_classes=2, image_size=8, patch_size=4, stem="dense")


def test_a_patch_sees_over_its_border():
    """The first of four patches depends on pixels of its neighbour, which a patch projection does not."""
    stem = student("vit_nano").get_layer("patch_embed")
    images = tf.random.stateless_normal((1, 8, 8, 3), (1, 2))
    with tf.GradientTape() as tape:
        tape.watch(images)
        first = stem(images)[0, 0, 0]
    slope = tape.gradient(first, images)[0].numpy()
    assert np.abs(slope[:4, 4]).max() > 0 and np.abs(slope[:4, :4]).max() > 0


def test_inference_folds_the_statistics_and_equals_training_with_the_same_ones():
    stem, x = stems.ConvStem(8, 4, dtype="float32"), tf.random.stateless_normal((3, 8, 8, 3), (1, 2))
    stem.build(x.shape)
    for _ in range(200):
        expected = stem(x, training=True)
    np.testing.assert_allclose(stem(x), expected, rtol=1e-3, atol=1e-4)
    graph = tf.function(stem).get_concrete_function(x).graph
    assert "FusedBatchNormV3" not in {op.type for op in graph.get_operations()}


def test_a_transformer_on_a_stem_knows_its_patches_and_names_its_weights():
    model = student()
    assert vit.patch_size(model) == vit.patch_size(student(stem="patch")) == 4
    assert vit.has_conv_stem(model) and not vit.has_conv_stem(tiny("deit"))
    names = {name for name in state_dict(model) if name.startswith("patch_embed")}
    parts = {"conv1.weight", *(f"bn1.{part}" for part in ("weight", "bias", "running_mean", "running_var"))}
    both = {part.replace("1.", f"{i}.") for part in parts for i in (1, 2)}
    assert names == {f"patch_embed.{k}.{part}" for k in (0, 1) for part in both} | {
        "patch_embed.proj.weight",
        "patch_embed.proj.bias",
    }


def test_another_image_size_keeps_the_stem():
    model = student()
    larger = resizing.resized(model, 16)
    assert vit.patch_size(larger) == 4 and larger.get_layer("tokens").patches == 16
    for name, value in state_dict(model).items():
        if name != "pos_embed":
            np.testing.assert_array_equal(state_dict(larger)[name], value)
    assert larger(pixels(16))["cls"].shape == (2, 5)


def test_a_saved_student_with_a_stem_is_the_same_network(tmp_path):
    model = student()
    model(pixels(), training=True)  # moves its statistics
    model.save(tmp_path / "student.keras")
    loaded = keras.models.load_model(tmp_path / "student.keras")
    np.testing.assert_array_equal(loaded(pixels())["dist"], model(pixels())["dist"])
