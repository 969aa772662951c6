"""models.build and what holds for every model: counts, pixels, precision, saving, official names, lazy imports."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import deitlt_tf
from deitlt_tf import models
from deitlt_tf.models import interface, resnet, vit
from deitlt_tf.models.weights import load_state, state_dict

# Trainable weights of every model at 1000 classes, those for SMALL images at 10; ViTs at 224 px with patches of 16.
# DeiT: the official checkpoints; resnet50 and larger, resnext50, and resnet18/34_cifar (given a 3x3 stem): torchvision;
# resnet20/32 (and 8, by the same rule): the official CIFAR code; mdcs: its own, less what it never uses. nano is ours.
SMALL = ("resnet8", "resnet20", "resnet32", "resnet18_cifar", "resnet34_cifar", "mdcs_resnet8", "mdcs_resnet32")
COUNTS = {
    "deit_nano": 1_571_920,
    "deit_tiny": 5_910_800,
    "deit_small": 22_436_432,
    "deit_base": 87_338_192,
    "vit_nano": 1_442_664,
    "vit_tiny": 5_717_416,
    "vit_small": 22_050_664,
    "vit_base": 86_567_656,
    "resnet8": 75_290,
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet18_cifar": 11_173_962,
    "resnet34_cifar": 21_282_122,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnext50": 25_028_904,
    "mdcs_resnet8": 126_672,
    "mdcs_resnet32": 770_896,
    "mdcs_resnet50": 43_677_248,
}
# A process of its own finds the package where this one did, installed or not.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(deitlt_tf.__file__).parents[1])}
TINY = {"num_classes": 7, "image_size": 16}
TINY_VIT = TINY | {"patch_size": 8, "embed_dim": 8, "depth": 2, "num_heads": 2}

# Keras' own way of reading a variable for a file, under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def tiny(kind: str) -> keras.Model:
    """The smallest model of each kind."""
    return {
        "deit": lambda: models.build("deit_nano", **TINY_VIT),
        "vit": lambda: models.build("vit_nano", **TINY_VIT),
        "linear": lambda: models.build("resnet8", **TINY),
        "cosine": lambda: models.build("resnet8", classifier="cosine", **TINY),
    }[kind]()


KINDS = ("deit", "vit", "linear", "cosine")


@pytest.fixture(autouse=True)
def seeded():
    """Outside of a Distiller drop path draws from TensorFlow's generator; deterministic ops want that seeded."""
    keras.utils.set_random_seed(0)


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)


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
def test_pixels_may_be_bytes_or_floats_also_after_saving(kind, pixels, tmp_path):
    model = tiny(kind)
    floats = tf.constant(pixels, tf.float32)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    expected = keras.tree.flatten(model(floats))
    for images in (tf.constant(pixels), pixels, floats):
        for found in (model(images), loaded(images)):
            for a, b in zip(keras.tree.flatten(found), expected, strict=True):
                np.testing.assert_array_equal(a, b)
    traced = tf.function(loaded)
    for images in (tf.constant(pixels), floats):
        for a, b in zip(keras.tree.flatten(traced(images)), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    assert [v.path for v in loaded.variables] == [v.path for v in model.variables]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", [False, True])
def test_logits_are_float32_in_mixed_precision(kind, training, pixels):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = tiny(kind)
    finally:
        keras.config.set_dtype_policy(before)
    assert any(layer.compute_dtype == "bfloat16" for layer in model.layers)
    logits = model(tf.cast(pixels, tf.float32) + 0.3, training=training)
    assert isinstance(logits, dict) == (kind == "deit")
    for value in keras.tree.flatten(logits):
        assert value.dtype == tf.float32 and value.shape == (3, 7)
    # The images are not rounded to bfloat16, whose steps are 1 at 128..255, on their way to the first layer.
    normalized = keras.Model(model.input, model.get_layer("normalize").output)(tf.fill((1, 16, 16, 3), 200.3))
    expected = (200.3 / 255 - np.array(interface.IMAGENET_MEAN)) / interface.IMAGENET_STD
    np.testing.assert_allclose(normalized[0, 0, 0], expected, atol=1e-5)


LAYERS = {
    "normalize": (lambda **kw: interface.Normalize((0.1, 0.2, 0.3), (0.5, 0.6, 0.7), **kw), (2, 4, 4, 3)),
    "drop_path": (lambda **kw: vit.DropPath(0.5, 3, **kw), (2, 5, 8)),
    "tokens": (lambda **kw: vit.Tokens(True, **kw), (2, 2, 2, 8)),
    "tokens_cls": (lambda **kw: vit.Tokens(False, **kw), (2, 2, 2, 8)),
    "attention": (lambda **kw: vit.Attention(2, **kw), (2, 5, 8)),
    "layer_norm": (vit.LayerNorm, (2, 5, 8)),
    "block": (lambda **kw: vit.Block(2, 0.5, 1, **kw), (2, 5, 8)),
    "block_tokens": (lambda **kw: vit.Block(2, 0.5, 1, 2, **kw), (2, 5, 8)),
    "batch_norm": (resnet.BatchNorm, (2, 6, 6, 4)),
    "basic": (lambda **kw: resnet.BasicBlock(8, 2, **kw), (2, 6, 6, 4)),
    "basic_projected": (lambda **kw: resnet.BasicBlock(8, 2, projection=True, **kw), (2, 7, 7, 4)),
    "bottleneck": (lambda **kw: resnet.Bottleneck(4, 2, **kw), (2, 7, 7, 8)),
    "bottleneck_plain": (lambda **kw: resnet.Bottleneck(2, **kw), (2, 4, 4, 8)),
    "bottleneck_grouped": (lambda **kw: resnet.Bottleneck(8, 2, groups=4, width_per_group=16, **kw), (2, 2, 2, 8)),
    "cosine": (lambda **kw: resnet.CosineClassifier(5, 30.0, **kw), (2, 8)),
}


def test_every_layer_is_tested():
    ours = {
        value
        for module in (interface, vit, resnet)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, keras.Layer) and value.__module__ == module.__name__
    }
    assert ours == {type(make()) for make, _ in LAYERS.values()}


@pytest.mark.parametrize("name", LAYERS)
def test_layer(name):
    """Build, symbolic call, eager call, training step, bfloat16, config round trip."""
    make, shape = LAYERS[name]
    x = tf.random.stateless_uniform(shape, (1, 2))
    layer = make()
    layer.build(shape)
    symbolic = layer(keras.Input(shape[1:]))
    y = layer(x)
    assert symbolic.shape == (None, *y.shape[1:]) and symbolic.dtype == "float32"

    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x, training=True) ** 2)
    for slope in tape.gradient(loss, [v.value for v in layer.trainable_variables]):
        assert slope is not None and np.isfinite(slope).all()

    copy = type(layer).from_config(layer.get_config())
    copy.build(shape)
    copy.set_weights(layer.get_weights())
    assert copy.get_config() == layer.get_config()
    np.testing.assert_array_equal(copy(x), layer(x))

    half = make(dtype="mixed_bfloat16")
    half.build(shape)
    half.set_weights(layer.get_weights())
    assert {v.dtype for v in half.variables} <= {"float32"}
    expected = layer(x)
    np.testing.assert_allclose(tf.cast(half(x), tf.float32), expected, atol=0.05 * np.abs(expected).max())
    assert half(x).dtype == half.compute_dtype


def torch_layout(model: keras.Model) -> dict[str, np.ndarray]:
    """The model's weights as its official checkpoint would hold them."""
    axes = {2: (1, 0), 4: (3, 2, 0, 1)}
    return {
        name: v.numpy().transpose(axes[len(v.shape)]) if v.name == "kernel" else v.numpy()
        for name, v in state_dict(model).items()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_load_state_restores_every_variable(kind):
    source, target = tiny(kind), tiny(kind)
    for v in source.variables:
        v.assign(tf.random.stateless_uniform(v.shape, (len(v.path), sum(map(ord, v.path)))))
    load_state(target, torch_layout(source) | {"bn1.num_batches_tracked": np.array(3)})
    for a, b in zip(source.variables, target.variables, strict=True):
        np.testing.assert_array_equal(a, b)


def test_load_state_lists_what_is_missing_left_over_and_misshapen_and_assigns_nothing():
    model = tiny("deit")
    state = {name: value + 1 for name, value in torch_layout(model).items()}
    del state["norm.weight"], state["blocks.1.attn.qkv.bias"]
    state |= {"head_distillation.bias": np.zeros(7), "pos_embed": np.zeros((1, 198, 8))}
    before = model.get_weights()
    with pytest.raises(ValueError, match="do not fit deit_nano") as error:
        load_state(model, state)
    assert "missing: blocks.1.attn.qkv.bias, norm.weight;" in str(error.value)
    assert "left over: head_distillation.bias;" in str(error.value)
    assert "shape: pos_embed (1, 198, 8), needs (1, 6, 8)" in str(error.value)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("deit_huge", {}, "unknown model 'deit_huge': choose one of deit_nano"),
        ("resnet32", {"patch_size": 4}, "resnet32 has no option patch_size: it takes classifier"),
        ("deit_nano", {"classifier": "cosine"}, "deit_nano has no option classifier"),
        ("deit_nano", {"size": "tiny"}, "no option size"),
        ("deit_nano", {"patch_size": 5}, "image_size 16 is not a multiple of patch_size 5"),
        ("deit_nano", {"num_heads": 3}, "embed_dim 128 is not a multiple of num_heads 3"),
        ("vit_nano", {"drop_path": 1.0}, "drop path must be"),
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


def test_import_alone_loads_no_tensorflow():
    code = "import sys, deitlt_tf; print(sorted({'tensorflow', 'keras', 'numpy'} & sys.modules.keys()))"
    run = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_names_are_imported_lazily():
    assert deitlt_tf.models is models
    assert set(deitlt_tf.MODULES) <= set(dir(deitlt_tf))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = deitlt_tf.nonsense


@pytest.mark.parametrize(
    "orders",
    [
        ["import deitlt_tf, keras"],
        # TensorFlow imports Keras as its own last act, so our layers register with a TensorFlow not quite finished.
        pytest.param(["import keras, deitlt_tf", "import deitlt_tf, tensorflow, keras"], marks=pytest.mark.slow),
    ],
)
def test_load_model_in_a_process_that_only_imports_deitlt_tf(orders, pixels, tmp_path):
    model = tiny("deit")
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "pixels.npy", pixels)
    code = """
        import numpy, sys
        model = keras.models.load_model("model.keras")
        deitlt_tf.models.vit.with_tokens(model)  # Keras numbers names anew in this process: none may come twice
        numpy.save(sys.argv[1], model(numpy.load("pixels.npy"))["dist"])
        assert not [f for f in sys.meta_path if type(f).__module__ == "deitlt_tf"], "the import hook outlived its use"
    """
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", order + textwrap.dedent(code), f"{i}.npy"],
            cwd=tmp_path,
            env=ENVIRONMENT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i, order in enumerate(orders)
    ]
    for i, run in enumerate(runs):
        _, errors = run.communicate()
        assert run.returncode == 0, errors
        np.testing.assert_allclose(np.load(tmp_path / f"{i}.npy"), model(pixels)["dist"], rtol=1e-5, atol=1e-5)
