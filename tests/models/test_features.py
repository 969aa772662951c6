"""Features of a network, their class means, and a cosine classifier on centred features."""

import keras
import numpy as np
import pytest
from helpers.tiny_models import pixels, tiny

from deitlt_tf.models import features

# Keras' own way of reading a variable for a file, under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


@pytest.mark.parametrize("kind", ["linear", "vit"])
def test_the_backbone_ends_before_the_classifier(kind):
    model = tiny(kind)
    inner = features.backbone(model)
    classifier = model.layers[-1]
    np.testing.assert_allclose(classifier(inner(pixels())), model(pixels()), rtol=1e-5, atol=1e-6)
    assert inner.layers[1] is model.layers[1]  # the same weights, not copies


def test_a_network_of_two_heads_or_without_features_has_no_backbone():
    images = keras.Input((4, 4, 3))
    for model in (tiny("deit"), keras.Model(images, keras.layers.Softmax()(images))):
        with pytest.raises(ValueError, match="does not end in a classifier of features"):
            features.backbone(model)


def test_a_cosine_head_counts_angles_from_the_mean_and_survives_its_file(tmp_path):
    model = features.with_cosine_head(features.backbone(tiny("linear")), num_classes=4, scale=25.0)
    random = np.random.default_rng(0)
    mean, weight = random.normal(size=64).astype(np.float32), random.normal(size=(64, 4)).astype(np.float32)
    model.get_layer("centre").set_weights([mean])
    model.get_layer("fc").set_weights([weight])
    x = keras.Model(model.input, model.get_layer("centre").input)(pixels()).numpy() - mean
    unit = weight / np.linalg.norm(weight, axis=0)
    expected = 25 * x / np.linalg.norm(x, axis=1, keepdims=True) @ unit
    np.testing.assert_allclose(model(pixels()), expected, rtol=1e-4, atol=1e-4)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(pixels()), model(pixels()))
    assert not model.get_layer("centre").trainable_weights


def test_class_means():
    random = np.random.default_rng(0)
    x, labels = random.normal(size=(9000, 3)).astype(np.float32), random.integers(0, 4, 9000)
    means = features.class_means(x, labels, 5)
    for c in range(4):
        np.testing.assert_allclose(means[c], x[labels == c].mean(0, dtype=float))
    assert not means[4].any()
