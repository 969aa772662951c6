"""Every layout of a Vision Transformer gives the features that the library gives from which its names come."""

import functools

import keras
import numpy as np
import pytest
from helpers import GOLDEN
from helpers.state_dicts import RAW, deit_shapes, empty
from helpers.vit_layouts import CLASSES, HEADS, LAYOUTS, QUICK, answer, images, state

from deitlt_tf import models
from deitlt_tf.interop import pretrained, torch_weights, vit_layouts
from deitlt_tf.models import vit

# Keras' own way of reading a variable for a file, under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

GOLDEN_ANSWERS = np.load(GOLDEN / "vit_layouts.npz")
STRUCTURES = {
    "timm_vit": {},
    "timm_clip": {"pre_norm": True, "epsilon": 1e-5, "patch_bias": False},
    "timm_deit3": {"layer_scale": 1e-5},
    "timm_dinov2": {"layer_scale": 1e-5, "registers": 4},
    "deit3": {"layer_scale": 1e-5},
    "dinov2": {"layer_scale": 1e-5},
    "dinov2_registers": {"layer_scale": 1e-5, "registers": 4},
    "open_clip": {"pre_norm": True, "epsilon": 1e-5, "patch_bias": False},
    "transformers_clip": {"pre_norm": True, "epsilon": 1e-5, "patch_bias": False},
    "transformers_vit": {},
    "transformers_deit": {},
    "transformers_dinov2": {"layer_scale": 1e-5, "registers": 4},
}
every_layout = pytest.mark.parametrize("layout", LAYOUTS)


@functools.cache
def built(name: str, options: tuple) -> keras.Model:
    """A network and its tokens; layouts of one structure share it."""
    return vit.with_tokens(models.build(name, num_classes=CLASSES, **RAW, **dict(options)))


def network(layout: str) -> tuple[keras.Model, list[str]]:
    """The network of a layout with its weights, and the notes of `start_from`."""
    weights = vit_layouts.official(state(layout))
    name, options = torch_weights.vit_options(weights, num_heads=HEADS)
    activation = "quick_gelu" if layout in QUICK else "gelu"
    model = built(name, (*sorted(options.items()), ("activation", activation), ("drop_path", 0)))
    return model, pretrained.start_from(model, state(layout))


def equals_the_library(layout: str, expected: dict[str, np.ndarray]) -> None:
    model, notes = network(layout)
    logits, tokens = model(images().transpose(0, 2, 3, 1) * 255)
    np.testing.assert_allclose(tokens[:, 0], expected["features"], rtol=1e-4, atol=1e-4)
    if "logits" in expected:
        head = logits["cls"] if isinstance(logits, dict) else logits
        np.testing.assert_allclose(head, expected["logits"], rtol=1e-4, atol=1e-4)
    assert bool(notes) == ("logits" not in expected)


@every_layout
def test_the_network_is_the_librarys(layout):
    prefix = f"{layout}/"
    equals_the_library(
        layout, {x.removeprefix(prefix): GOLDEN_ANSWERS[x] for x in GOLDEN_ANSWERS.files if x.startswith(prefix)}
    )


@pytest.mark.slow
@every_layout
def test_the_libraries_of_today_answer_as_in_the_golden_file(layout):
    pytest.importorskip("torch")
    try:
        expected = answer(layout)
    except ImportError as error:
        pytest.skip(f"{error.name} is not installed")
    equals_the_library(layout, expected)
    np.testing.assert_allclose(expected["features"], GOLDEN_ANSWERS[f"{layout}/features"], rtol=1e-4, atol=1e-5)


@every_layout
def test_weights_show_the_structure_of_their_network(layout):
    weights = vit_layouts.official(state(layout))
    assert vit_layouts.structure(weights) == STRUCTURES[layout]
    again = vit_layouts.official(weights)
    assert again.keys() == weights.keys() and all(np.array_equal(again[name], x) for name, x in weights.items())


@every_layout
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_layout_is_told_by_its_names(layout, prefix):
    weights = {prefix + name: value for name, value in state(layout).items()}
    assert vit_layouts.is_vit(weights)
    headless = not any(f"{layout}/logits" in x for x in GOLDEN_ANSWERS.files)
    if headless:
        with pytest.raises(ValueError, match=r"no classifier \(head\): train one"):
            torch_weights.recognise(weights, num_heads=HEADS)
        return
    known = torch_weights.recognise(weights, num_heads=HEADS)
    assert known.num_classes == CLASSES and known.options.items() >= STRUCTURES[layout].items()
    assert known.mean == (torch_weights.CLIP_MEAN if "clip" in layout else (0.485, 0.456, 0.406))


def test_the_projection_of_clip_makes_the_embeddings_that_it_compares_with_texts():
    model, _ = network("transformers_clip")
    _, tokens = model(images().transpose(0, 2, 3, 1) * 255)
    embeddings = tokens[:, 0] @ vit_layouts.official(state("transformers_clip"))["proj"]
    np.testing.assert_allclose(embeddings, GOLDEN_ANSWERS["transformers_clip/embeds"], rtol=1e-4, atol=1e-4)
    assert vit_layouts.official(state("open_clip"))["proj"].shape == (16, 10)


def test_published_networks_have_their_published_heads():
    for dim, depth, heads in ((1024, 24, 16), (1280, 32, 16), (384, 12, 6)):
        assert torch_weights.heads_of(empty(deit_shapes(dim, depth=depth, dist=False)), num_heads=0) == heads


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("blocks.0.mlp.w12.weight", "a gated MLP"),
        ("attn_pool.latent", "attention pooling"),
        ("rope_embed.periods", "rotary positions"),
        ("blocks.0.attn.relative_position_bias_table", "relative positions"),
        ("fc_norm.weight", "a mean over all tokens"),
        ("blocks.1.attn.q_norm.weight", "norms of queries and keys"),
    ],
)
def test_parts_that_no_network_here_has_are_named(name, part):
    with pytest.raises(ValueError, match=f"these weights have {part}.*{name}"):
        vit_layouts.official(state("timm_vit") | {name: np.zeros(3, np.float32)})


def test_incomplete_weights_are_named():
    siglip = {"vision_model.embeddings.patch_embedding.weight": np.zeros((8, 3, 4, 4))}
    with pytest.raises(ValueError, match="no CLS token: SigLIP"):
        vit_layouts.official(siglip)
    weights = state("transformers_vit")
    del weights["vit.encoder.layer.1.attention.attention.key.bias"]
    with pytest.raises(ValueError, match=r"incomplete: blocks\.1\.attn\.k\.bias is missing"):
        vit_layouts.official(weights)
    weights = state("timm_vit")
    del weights["pos_embed"]
    with pytest.raises(ValueError, match="no position embedding"):
        vit_layouts.official(weights)


def test_positions_of_registers_become_part_of_them():
    weights = state("timm_dinov2")
    positions = np.random.default_rng(0).normal(size=(1, 14, 16)).astype(np.float32)  # CLS, 4 registers, 3 x 3 patches
    other = vit_layouts.official(weights | {"pos_embed": positions})
    np.testing.assert_array_equal(other["pos_embed"], positions[:, [0, *range(5, 14)]])
    np.testing.assert_array_equal(other["reg_token"], weights["reg_token"] + positions[:, 1:5])


def test_a_network_of_another_structure_is_refused():
    plain, _ = network("timm_vit")
    with pytest.raises(ValueError, match=r"structure: none in the student, pre_norm=True, .* in the weights"):
        pretrained.start_from(plain, state("open_clip"))
