"""keras-hub's DeiT and ViT backbones become state dicts with the official names."""

from types import SimpleNamespace

import numpy as np
import pytest
from helpers.state_dicts import IMPORTED, RAW, TINY

from deitlt_tf import models
from deitlt_tf.interop import keras_hub, pretrained
from deitlt_tf.models import resizing, vit

# Keras' own way of reading a variable for a file, under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


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


@pytest.mark.slow
def test_a_keras_hub_preset_starts_a_student(tmp_path):
    hub = pytest.importorskip("keras_hub").models
    sizes = {"num_layers": 1, "num_heads": 2, "hidden_dim": 16, "intermediate_dim": 64, "patch_size": 4}
    backbone = hub.DeiTBackbone(image_shape=(16, 16, 3), **sizes)
    backbone.save_to_preset(str(tmp_path / "preset"))
    student = models.build("deit_nano", **IMPORTED)
    notes = pretrained.start_from(student, pretrained.starting_weights(f"keras_hub:{tmp_path / 'preset'}"))
    assert notes[0] == "positions resized from 4 x 4 to 2 x 2 patches." and len(notes) == 3
    position = keras_hub.from_keras_hub(backbone)["pos_embed"]
    expected = resizing.resize_position(position, grid_from=4, grid_to=2, prefix=2)
    np.testing.assert_array_equal(student.get_layer("tokens").pos_embed, expected)


def backbone(**shapes: tuple[int, ...]) -> SimpleNamespace:
    """What a backbone's variables are from outside: a path and a value; `__` in a keyword stands for `/`."""
    draw = np.random.default_rng(0)
    variables = []
    for path, shape in shapes.items():
        value = draw.normal(size=shape).astype(np.float32)
        variables.append(SimpleNamespace(path=path.replace("__", "/"), numpy=lambda value=value: value))
    return SimpleNamespace(name="backbone", variables=variables)


def test_names_and_layouts_become_the_official_ones():
    """Width 4, two heads of two channels, patches of 2 x 2: Keras' kernels are [in, ..., out], torch's [out, in]."""
    hub = backbone(
        patching__class_token=(1, 1, 4),
        patching__position_embedding=(5, 4),
        patching__patch_embedding__kernel=(2, 2, 3, 4),
        encoder__transformer_block_1__ln_1__gamma=(4,),
        encoder__transformer_block_1__mha__query__kernel=(4, 2, 2),
        encoder__transformer_block_1__mha__key__kernel=(4, 2, 2),
        encoder__transformer_block_1__mha__value__kernel=(4, 2, 2),
        encoder__transformer_block_1__mha__query__bias=(2, 2),
        encoder__transformer_block_1__mha__key__bias=(2, 2),
        encoder__transformer_block_1__mha__value__bias=(2, 2),
        encoder__transformer_block_1__mha__attention_output__kernel=(2, 2, 4),
        encoder__transformer_block_1__mlp__dense__kernel=(4, 16),
    )
    state = keras_hub.from_keras_hub(hub)
    assert {name: value.shape for name, value in state.items()} == {
        "cls_token": (1, 1, 4),
        "pos_embed": (1, 5, 4),
        "patch_embed.proj.weight": (4, 3, 2, 2),
        "blocks.0.norm1.weight": (4,),
        "blocks.0.attn.qkv.weight": (12, 4),
        "blocks.0.attn.qkv.bias": (12,),
        "blocks.0.attn.proj.weight": (4, 4),
        "blocks.0.mlp.fc1.weight": (16, 4),
    }
    values = {v.path: v.numpy() for v in hub.variables}
    key = values["encoder/transformer_block_1/mha/key/kernel"].reshape(4, 4)
    np.testing.assert_array_equal(state["blocks.0.attn.qkv.weight"][4:8], key.T)
    output = values["encoder/transformer_block_1/mha/attention_output/kernel"].reshape(4, 4)
    np.testing.assert_array_equal(state["blocks.0.attn.proj.weight"], output.T)


def test_what_is_no_vision_transformer_is_refused_by_name():
    with pytest.raises(ValueError, match=r"backbone is .*stem/conv/kernel"):
        keras_hub.from_keras_hub(backbone(stem__conv__kernel=(3, 3, 3, 4)))
