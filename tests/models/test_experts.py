"""The networks of three experts: what they share, their shapes, their names, their mean."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.three_experts import pixels, small

from deitlt_tf import models
from deitlt_tf.models.weights import torch_name


def parameters(model: keras.Model) -> int:
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


def test_experts_share_the_trunk_and_nothing_else():
    names = [torch_name(v) for v in small().variables]
    assert len(set(names)) == len(names)
    trunk = [name for name in names if not name.startswith("expert")]
    assert {name.split(".")[0] for name in trunk} == {"conv1", "bn1", "layer1"}
    own = [{name.removeprefix(f"expert{k}.") for name in names if name.startswith(f"expert{k}.")} for k in range(3)]
    assert own[0] == own[1] == own[2] and {"layer2.0.conv1.weight", "layer3.0.bn2.bias", "fc.weight"} < own[0]
    for k in range(3):
        second, third = small().get_layer(f"expert{k}.layer2.0"), small().get_layer(f"expert{k}.layer3.0")
        assert (second.extra, third.extra) == (4, 12)  # zero channels on each side of the shortcut
        assert second.output.shape == (None, 4, 4, 24) and third.output.shape == (None, 2, 2, 48)
        assert small().get_layer(f"expert{k}.fc").scale == 30


# Counted by hand from the official code, without its unused heads and `mlp`.
def test_parameter_count_of_the_small_network():
    assert parameters(small()) == 125_952


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "num_classes", "classifier", "count"),
    [
        ("mdcs_resnet8", 10, "cosine", 126_672),
        ("mdcs_resnet8", 10, "linear", 126_702),
        ("mdcs_resnet32", 10, "cosine", 770_896),
        ("mdcs_resnet32", 100, "cosine", 783_856),
        ("mdcs_resnet50", 1000, "cosine", 43_677_248),
    ],
)
def test_parameter_counts(name, num_classes, classifier, count):
    with keras.StatelessScope():
        model = models.build(name, num_classes=num_classes, image_size=64, classifier=classifier)
    assert parameters(model) == count and model.output.shape == (None, num_classes)


@pytest.mark.slow
def test_resnet50_experts_have_three_quarters_of_the_width():
    with keras.StatelessScope():
        model = models.build("mdcs_resnet50", num_classes=3, image_size=75)
    shapes = [model.get_layer(name).output.shape for name in ("layer2.3", "expert2.layer3.5", "expert0.layer4.2")]
    assert shapes == [(None, 10, 10, 512), (None, 5, 5, 768), (None, 3, 3, 1536)]


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
def test_a_saved_network_comes_back(tmp_path):
    small().save(tmp_path / "teacher.keras")
    loaded = keras.models.load_model(tmp_path / "teacher.keras")
    np.testing.assert_array_equal(loaded(pixels()), small()(pixels()))


def test_the_output_is_the_mean_of_the_experts_raw_logits():
    experts = keras.Model(small().input, [small().get_layer(f"expert{k}.fc").output for k in range(3)])
    logits = small()(pixels())
    assert logits.shape == (3, 5) and logits.dtype == tf.float32
    np.testing.assert_allclose(logits, np.mean(experts(pixels()), 0), rtol=1e-5, atol=1e-5)


def test_an_unknown_classifier_is_refused():
    with pytest.raises(ValueError, match="classifier=round is unknown: choose linear or cosine"):
        models.build("mdcs_resnet8", num_classes=3, image_size=8, classifier="round")
