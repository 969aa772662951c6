"""Finished networks: whatever precision they were trained in, they answer in float32, and know their classes."""

import keras
import numpy as np
import pytest
from helpers.files import NAMES, tiny_model

from deitlt_tf import models
from deitlt_tf.runs import finished
from deitlt_tf.runs.files import write_json
from deitlt_tf.runs.models import save_model


def test_a_network_comes_with_names_and_training_counts(tmp_path):
    save_model(tiny_model(), tmp_path / "student.keras", class_names=NAMES)
    model, names, counts, _ = finished.load(tmp_path, weights="student")
    assert names == NAMES and counts is None and model.output_shape == (None, 3)
    write_json(tmp_path / "results.json", {"class_counts": [5, 3, 1]})
    assert finished.load(tmp_path, weights="student").class_counts.tolist() == [5, 3, 1]


def test_names_may_lie_next_to_the_model(tmp_path):
    tiny_model().save(tmp_path / "teacher.keras")
    with pytest.raises(FileNotFoundError, match=r"class_names\.txt: neither the model file nor the run"):
        finished.load(tmp_path, weights="teacher")
    (tmp_path / "class_names.txt").write_text("a\nb\nc\n")
    assert finished.load(tmp_path, weights="teacher").class_names == ("a", "b", "c")
    (tmp_path / "class_names.txt").write_text("a\nb\n")
    with pytest.raises(ValueError, match=r"teacher\.keras has 3 classes"):
        finished.load(tmp_path, weights="teacher")


@pytest.mark.parametrize(("weights", "file"), finished.FILES.items())
def test_a_run_that_has_not_ended_is_named(tmp_path, weights, file):
    with pytest.raises(FileNotFoundError, match=f"{file}: this run has no such finished model"):
        finished.load(tmp_path, weights=weights)


@pytest.mark.parametrize("name", ["deit_nano", "resnet8"])
def test_half_precision_becomes_float32_with_the_same_weights(name):
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    options = {"patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 2} if name == "deit_nano" else {}
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        half = models.build(name, num_classes=3, image_size=8, **options)
    finally:
        keras.config.set_dtype_policy("float32")
    full = finished.in_float32(half)
    assert {layer.compute_dtype for layer in full.layers} == {"float32"} and finished.in_float32(full) is full
    for ours, theirs in zip(full.get_weights(), half.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for ours, theirs in zip(keras.tree.flatten(full(images)), keras.tree.flatten(half(images)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=0.1)
