"""State dicts with the official names and shapes: recognised, built, put in order, and back. No PyTorch here."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.state_dicts import RAW, deit_shapes, empty, paco_shapes, pixels, random_like, resnet_shapes, tiny, without
from hypothesis import given, settings
from hypothesis import strategies as st

from deitlt_tf.interop import torch_weights
from deitlt_tf.models import interface

# Keras' own way of reading a variable for a file, under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

# ---- what a state dict holds -----------------------------------------------------------------------------------------


def trainable(shapes: dict[str, tuple]) -> int:
    return sum(int(np.prod(s)) for name, s in shapes.items() if "running" not in name and "tracked" not in name)


@pytest.mark.parametrize(
    ("shapes", "name", "count"),
    [
        (deit_shapes(768), "deit_base", 87_338_192),
        (deit_shapes(768, classes=8142), "deit_base", 98_322_588),
        (deit_shapes(384), "deit_small", 22_436_432),
        (deit_shapes(192), "deit_tiny", 5_910_800),
        (deit_shapes(768, dist=False), "vit_base", 86_567_656),
    ],
)
def test_published_vision_transformers_are_recognised(shapes, name, count):
    assert trainable(shapes) == count
    network = torch_weights.recognise(empty(shapes))
    classes = shapes["head.bias"][0]
    assert (network.name, network.teacher) == (name, False)
    assert network.options == {"num_classes": classes, "image_size": 224, "patch_size": 16}
    assert network.num_classes == classes and network.mean == interface.IMAGENET_MEAN


@pytest.mark.parametrize(
    ("shapes", "name", "count"),
    [
        (resnet_shapes((3, 4, 6, 3)), "resnet50", 25_557_032),
        (resnet_shapes((3, 4, 23, 3)), "resnet101", 44_549_160),
        (resnet_shapes((3, 8, 36, 3)), "resnet152", 60_192_808),
        (resnet_shapes((3, 4, 6, 3), width=128, groups=32), "resnext50", 25_028_904),
    ],
)
def test_torchvision_resnets_are_recognised(shapes, name, count):
    assert trainable(shapes) == count
    network = torch_weights.recognise(empty(shapes))
    assert (network.name, network.teacher, network.long_tailed) == (name, True, False)
    assert network.options == {"num_classes": 1000, "image_size": 224, "classifier": "linear"}
    assert not any("tracked" in name for name in network.state)


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [(3, 4, 6, 3), (3, 4, 23, 3)])
def test_torchvision_resnets_are_built(blocks):
    shapes = resnet_shapes(blocks, classes=3)
    state = {name: np.full(shape, 0.1, np.float32) for name, shape in shapes.items()}
    model = torch_weights.build(torch_weights.recognise(state))
    assert all((np.asarray(v) == np.float32(0.1)).all() for v in model.variables)


def test_ldam_and_paco_teachers_of_imagenet_lt_and_inaturalist_are_recognised():
    ldam = {f"module.{name}": shape for name, shape in resnet_shapes((3, 4, 6, 3)).items() if name != "fc.bias"}
    network = torch_weights.recognise(empty(ldam | {"module.fc.weight": (2048, 1000)}))  # NormedLinear: [D, C]
    assert (network.name, network.num_classes, network.long_tailed) == ("resnet50", 1000, True)
    assert network.options["classifier"] == "cosine"

    network = torch_weights.recognise(empty(paco_shapes(resnet_shapes((3, 4, 6, 3)), dim=2048, classes=8142)))
    assert (network.name, network.num_classes, network.long_tailed) == ("resnet50", 8142, True)
    assert network.options["classifier"] == "linear" and "PaCo" in network.kind


@pytest.mark.parametrize(
    ("dim", "depth", "num_heads", "expected"),
    [(1024, 23, 0, 16), (1280, 32, 0, 16), (192, 3, 0, 3), (320, 2, 0, 5), (768, 12, 6, 6), (48, 3, 3, 3)],
)
def test_unusual_sizes_are_written_out(dim, depth, num_heads, expected):
    network = torch_weights.recognise(empty(deit_shapes(dim, depth=depth, patch=8, grid=4)), num_heads=num_heads)
    own = {"embed_dim": dim, "depth": depth, "num_heads": expected}
    assert network.options == {"num_classes": 1000, "image_size": 32, "patch_size": 8} | own


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({}, r"\(nothing, ...\) are of an unknown architecture"),
        ({"features.0.weight": (64, 3, 3, 3)}, r"features.0.weight, ...\) are of an unknown architecture: DeiT, ViT"),
        (deit_shapes(48), "the weights do not tell how many attention heads 48 channels have: give `num_heads`"),
        (without(deit_shapes(64), "head.weight"), "incomplete: head.weight is missing"),
        (deit_shapes(64) | {"pos_embed": (1, 199, 64)}, "pos_embed has 199 rows, which are not 2 tokens and a square"),
        (resnet_shapes((3, 4, 6, 3), width=128), r"stem \(64, 3, 7, 7\) and 3x3 convolutions \(128, 128, 3, 3\)"),
        (resnet_shapes((2, 2, 2, 2)), r"stages of \(2, 2, 2, 2\) bottleneck blocks"),
        (without(resnet_shapes((3, 4, 6, 3)), "fc.weight"), "incomplete: fc.weight is missing"),
    ],
)
def test_other_architectures_are_refused_by_name(shapes, message):
    with pytest.raises(ValueError, match=message):
        torch_weights.recognise(empty(shapes))


def test_what_is_left_over_or_missing_is_listed_beside_what_was_recognised():
    shapes = deit_shapes(8, depth=1, patch=4, grid=2, classes=3)
    wrong = without(shapes, "blocks.0.norm2.bias") | {"blocks.0.attn.bias_table": (8,)}
    with pytest.raises(ValueError, match=r"recognised as deit_base \(8 wide, 1 deep, 2 heads\), but") as error:
        torch_weights.build(torch_weights.recognise(empty(wrong), num_heads=2))
    assert "missing: blocks.0.norm2.bias" in str(error.value)
    assert "left over: blocks.0.attn.bias_table" in str(error.value)


# ---- the network it becomes ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_official_student_answers_as_the_official_code(golden):
    reference = golden("vit_forward")
    network = torch_weights.recognise(reference.under("param/"), num_heads=3)
    logits = torch_weights.build(replace(network, **RAW))(reference.images("images_nchw") * 255)
    for head in ("cls", "dist"):
        np.testing.assert_allclose(logits[head], reference[f"{head}_logits"], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "classifier", "paco"),
    [("resnet32_norm_forward", "cosine", False), ("resnet32_forward", "linear", True)],
)
def test_an_official_teacher_answers_as_the_official_code(golden, file, classifier, paco):
    reference = golden(file)
    state = {name.replace("fc.", "linear."): v for name, v in reference.under("param/").items()}  # as Saddle-LongTail
    if paco:
        shapes = paco_shapes({name: v.shape for name, v in state.items() if "linear" not in name}, dim=64, classes=10)
        own = {f"module.encoder_q.{name}": value for name, value in state.items()}
        state = empty(shapes) | {name.replace("encoder_q.linear", "linear"): value for name, value in own.items()}
    else:
        state = {f"module.{name}": value for name, value in state.items()} | {"module.bn1.num_batches_tracked": 7}
    network = torch_weights.recognise(state)
    assert (network.name, network.options["classifier"]) == ("resnet32", classifier)
    assert (network.mean, network.std) == (torch_weights.CIFAR_MEAN, torch_weights.CIFAR_STD)
    logits = torch_weights.build(replace(network, **RAW))(reference.images("images_nchw") * 255)
    np.testing.assert_allclose(logits, reference["logits"], rtol=1e-4, atol=1e-4)


def test_there_and_back():
    state = random_like(tiny())
    network = torch_weights.recognise(state, num_heads=2)
    again = torch_weights.to_torch(torch_weights.build(network))
    assert network.name == "deit_base" and again.keys() == state.keys()
    for key, value in state.items():
        np.testing.assert_array_equal(again[key], value)


@pytest.mark.slow
def test_classes_in_order():
    network, order = torch_weights.recognise(random_like(tiny()), num_heads=2), np.array([3, 0, 4, 1, 2])
    before, after = (torch_weights.build(n)(pixels()) for n in (network, torch_weights.in_order(network, order)))
    for head in ("cls", "dist"):
        np.testing.assert_allclose(after[head], before[head].numpy()[:, order], rtol=1e-5)
    assert torch_weights.in_order(network, None) is network


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(6)), cosine=st.booleans())
def test_an_order_and_its_inverse_cancel(order, cosine):
    rng = np.random.default_rng(0)
    square, heads = {"fc.weight", "conv1.weight", "head.weight", "head_dist.weight"}, {"head.bias", "head_dist.bias"}
    state = {name: rng.normal(size=(6, 6)) for name in square} | {name: rng.normal(size=6) for name in heads}
    network = torch_weights.Network("", "", {}, state if cosine else state | {"fc.bias": rng.normal(size=6)})
    moved = torch_weights.in_order(network, np.array(order))
    for name, value in network.state.items():
        axis = 1 if name == "fc.weight" and cosine else 0
        expected = value if name == "conv1.weight" else np.take(value, order, axis=axis)
        np.testing.assert_array_equal(moved.state[name], expected)
    back = torch_weights.in_order(moved, np.argsort(order))
    for name, value in network.state.items():
        np.testing.assert_array_equal(back.state[name], value)
