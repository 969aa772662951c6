"""State dicts with the official names and shapes: recognised, built, put in order, started from. No PyTorch here."""

import functools
from dataclasses import replace

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deitlt_tf import models
from deitlt_tf.interop import keras_hub, pretrained, torch_weights
from deitlt_tf.models import interface, resizing, vit

TINY = {"num_classes": 5, "image_size": 16, "patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 2}
RAW = {"mean": (0, 0, 0), "std": (1, 1, 1)}  # the reference vectors' images are normalised already

# Keras' own way of reading a variable for a file, under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def empty(shapes: dict[str, tuple]) -> dict[str, np.ndarray]:
    """A state dict of these shapes that takes no memory."""
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}


def deit_shapes(dim: int, *, depth: int = 12, patch: int = 16, grid: int = 14, classes: int = 1000, dist: bool = True):
    """Names and shapes of facebookresearch/deit's and timm's (distilled) DeiT."""
    block = {"norm1": (dim,), "attn.qkv": (3 * dim, dim), "attn.proj": (dim, dim)}
    block |= {"norm2": (dim,), "mlp.fc1": (4 * dim, dim), "mlp.fc2": (dim, 4 * dim)}
    layers = {"patch_embed.proj": (dim, 3, patch, patch), "norm": (dim,), "head": (classes, dim)}
    layers |= {"head_dist": (classes, dim)} if dist else {}
    layers |= {f"blocks.{i}.{name}": shape for i in range(depth) for name, shape in block.items()}
    shapes = {"cls_token": (1, 1, dim), "pos_embed": (1, grid**2 + 1 + dist, dim)}
    shapes |= {"dist_token": (1, 1, dim)} if dist else {}
    shapes |= {f"{name}.weight": shape for name, shape in layers.items()}
    return shapes | {f"{name}.bias": shape[:1] for name, shape in layers.items()}


def resnet_shapes(blocks: tuple[int, ...], *, width: int = 64, groups: int = 1, classes: int = 1000):
    """Names and shapes of torchvision's ResNets with bottlenecks; `width`: channels of the first 3x3 convolution."""
    shapes = {"conv1.weight": (64, 3, 7, 7), "fc.weight": (classes, 2048), "fc.bias": (classes,)}
    norms, below = {"bn1": 64}, 64
    for stage, count in enumerate(blocks):
        inner, out = width * 2**stage, 256 * 2**stage
        for i in range(count):
            at = f"layer{stage + 1}.{i}"
            convs = {
                "conv1": (inner, below, 1, 1),
                "conv2": (inner, inner // groups, 3, 3),
                "conv3": (out, inner, 1, 1),
            }
            convs |= {"downsample.0": (out, below, 1, 1)} if i == 0 else {}
            shapes |= {f"{at}.{name}.weight": shape for name, shape in convs.items()}
            names = {"conv1": "bn1", "conv2": "bn2", "conv3": "bn3", "downsample.0": "downsample.1"}
            norms |= {f"{at}.{names[name]}": shape[0] for name, shape in convs.items()}
            below = out
    parts = ("weight", "bias", "running_mean", "running_var")
    shapes |= {f"{name}.{part}": (size,) for name, size in norms.items() for part in parts}
    return shapes | {f"{name}.num_batches_tracked": () for name in norms}


def trainable(shapes: dict[str, tuple]) -> int:
    return sum(int(np.prod(s)) for name, s in shapes.items() if "running" not in name and "tracked" not in name)


@functools.cache  # building takes longer than all that is tested; who needs other weights sets them
def tiny(name: str = "deit_nano", **changes) -> keras.Model:
    return models.build(name, **(TINY | changes))


def random_like(model: keras.Model) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(0, 0.5, v.shape).astype(np.float32) for name, v in torch_weights.to_torch(model).items()}


def pixels(size: int = 16) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (3, size, size, 3), np.uint8)


# ---- what a state dict holds -----------------------------------------------------------------------------------------


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


def paco_shapes(body: dict[str, tuple], *, dim: int, classes: int) -> dict[str, tuple]:
    """Names and shapes of a MoCo object of the official code in DataParallel: two branches, heads, queue."""
    body = {name: shape for name, shape in body.items() if not name.startswith("fc.")}
    projection = {"fc.0.weight": (dim, dim), "fc.0.bias": (dim,), "fc.1.weight": (dim,), "fc.1.bias": (dim,)}
    projection |= {"fc.1.running_mean": (dim,), "fc.1.running_var": (dim,), "fc.1.num_batches_tracked": ()}
    projection |= {"fc.3.weight": (32, dim), "fc.3.bias": (32,)}
    shapes = {f"encoder_{k}.{name}": s for k in "qk" for name, s in (body | projection).items()}
    for linear in ("linear", "linear_k"):
        shapes |= {f"{linear}.weight": (classes, dim), f"{linear}.bias": (classes,)}
    shapes |= {"queue": (1024, 32), "queue_l": (1024,), "queue_ptr": (1,)}
    return {f"module.{name}": shape for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("dim", "depth", "num_heads", "expected"),
    [(1024, 24, 0, 16), (192, 3, 0, 3), (320, 2, 0, 5), (768, 12, 6, 6), (48, 3, 3, 3)],
)
def test_unusual_sizes_are_written_out(dim, depth, num_heads, expected):
    network = torch_weights.recognise(empty(deit_shapes(dim, depth=depth, patch=8, grid=4)), num_heads=num_heads)
    own = {"embed_dim": dim, "depth": depth, "num_heads": expected}
    assert network.options == {"num_classes": 1000, "image_size": 32, "patch_size": 8} | own


def without(shapes: dict, *names: str) -> dict:
    return {name: shape for name, shape in shapes.items() if name not in names}


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({}, r"\(nothing, ...\) are of an unknown architecture"),
        ({"features.0.weight": (64, 3, 3, 3)}, r"features.0.weight, ...\) are of an unknown architecture: DeiT, ViT"),
        (deit_shapes(48), "how many attention heads 48 channels have is not in the weights: give --num_heads"),
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
    wrong = without(shapes, "blocks.0.norm2.bias") | {"blocks.0.ls1.gamma": (8,)}  # LayerScale, of DeiT III
    with pytest.raises(ValueError, match=r"recognised as deit_base \(8 wide, 1 deep, 2 heads\), but") as error:
        torch_weights.build(torch_weights.recognise(empty(wrong), num_heads=2))
    assert "missing: blocks.0.norm2.bias" in str(error.value)
    assert "left over: blocks.0.ls1.gamma" in str(error.value)


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


# ---- starting from it ------------------------------------------------------------------------------------------------


def test_the_same_network_is_taken_whole():
    state = random_like(tiny())
    assert pretrained.start_from(tiny(), state) == []
    found = torch_weights.to_torch(tiny())
    assert all(np.array_equal(found[name], value) for name, value in state.items())


def test_another_size_and_other_classes_resize_positions_and_leave_heads_random():
    target, state = tiny(image_size=24, num_classes=3), random_like(tiny())
    own = torch_weights.to_torch(target)
    notes = pretrained.start_from(target, {f"module.{name}": value for name, value in state.items()})
    assert notes == [
        "positions resized from 4 x 4 to 6 x 6 patches.",
        "head stays random: 3 classes here, 5 in the weights.",
        "head_dist stays random: 3 classes here, 5 in the weights.",
    ]
    found = torch_weights.to_torch(target)
    resized = resizing.resize_position(state["pos_embed"], grid_from=4, grid_to=6, prefix=2)
    np.testing.assert_array_equal(found["pos_embed"], resized)
    for name in found.keys() - {"pos_embed"}:
        np.testing.assert_array_equal(found[name], (own if name.startswith("head") else state)[name])


def test_dist_starts_as_cls_where_there_was_none():
    target, state = tiny(), random_like(tiny("vit_nano"))
    assert pretrained.start_from(target, state) == ["DIST starts as CLS: the weights have no DIST token."]
    found = torch_weights.to_torch(target)
    np.testing.assert_array_equal(found["dist_token"], state["cls_token"])
    np.testing.assert_array_equal(found["pos_embed"][:, 1], state["pos_embed"][:, 0])
    np.testing.assert_array_equal(found["pos_embed"][:, 2:], state["pos_embed"][:, 1:])
    logits = target(pixels())
    np.testing.assert_allclose(logits["cls"], logits["dist"], rtol=1e-4, atol=1e-5)


def test_a_plain_vit_leaves_dist_out():
    target, state = tiny("vit_nano"), random_like(tiny())
    assert pretrained.start_from(target, state) == ["the DIST token and its head are left out."]
    found = torch_weights.to_torch(target)
    np.testing.assert_array_equal(found["pos_embed"], np.delete(state["pos_embed"], 1, axis=1))
    np.testing.assert_array_equal(found["head.weight"], state["head.weight"])


def test_weights_without_heads_will_do():
    state = {name: value for name, value in random_like(tiny("vit_nano")).items() if not name.startswith("head")}
    assert pretrained.start_from(tiny(), state)[1:] == [
        "head stays random: 5 classes here, 0 in the weights.",
        "head_dist stays random: 5 classes here, 0 in the weights.",
    ]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (deit_shapes(16, depth=1, patch=4, grid=4), "channels: 8 in the student, 16 in the weights to start from"),
        (deit_shapes(8, depth=2, patch=4, grid=4), "blocks: 1 in the student, 2 in"),
        (deit_shapes(8, depth=1, patch=8, grid=4), "pixels a patch: 4 in the student, 8 in"),
        (resnet_shapes((3, 4, 6, 3)), "no Vision Transformer's: no pos_embed"),
    ],
)
def test_a_start_from_another_architecture_is_refused(source, message):
    before = torch_weights.to_torch(tiny())
    with pytest.raises(ValueError, match=message):
        pretrained.start_from(tiny(), empty(source))
    assert all(np.array_equal(before[name], value) for name, value in torch_weights.to_torch(tiny()).items())


def test_a_start_from_a_model_with_other_heads_is_refused():
    with pytest.raises(ValueError, match="attention heads: 2 in the student, 4 in the weights"):
        pretrained.start_from(tiny(), tiny(num_heads=4))


@pytest.mark.slow
@pytest.mark.parametrize("distilled", [True, False])
def test_keras_hub_backbones_give_the_same_tokens(distilled):
    hub = pytest.importorskip("keras_hub").models
    sizes = {"image_shape": (32, 32, 3), "patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 16}
    backbone = hub.DeiTBackbone(intermediate_dim=64, **sizes) if distilled else hub.ViTBackbone(mlp_dim=64, **sizes)
    rng = np.random.default_rng(0)
    for v in backbone.variables:
        v.assign(rng.normal(0, 0.5, v.shape))
    own = TINY | RAW | {"image_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2}
    model = models.build("deit_nano" if distilled else "vit_nano", **own)
    notes = pretrained.start_from(model, keras_hub.from_keras_hub(backbone))
    assert all("stays random" in note for note in notes)
    images = rng.normal(size=(2, 32, 32, 3)).astype(np.float32)
    _, tokens = vit.with_tokens(model)(images * 255)
    np.testing.assert_allclose(tokens, backbone(images)[:, : tokens.shape[1]], rtol=1e-4, atol=1e-4)
