"""keras-hub's ViT, DeiT, CLIP and DINOv2 backbones become state dicts with the official names."""

from types import SimpleNamespace

import numpy as np
import pytest
from helpers.state_dicts import IMPORTED, RAW, TINY

from deitlt_tf import models
from deitlt_tf.interop import keras_hub, pretrained
from deitlt_tf.models import resizing, vit

# Keras' own way of reading a variable for a file, under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def hub_backbone(kind: str):
    """A tiny backbone of keras-hub with random weights: deit, vit, clip, or dinov2 with registers."""
    hub = pytest.importorskip("keras_hub").models
    sizes = {"image_shape": (32, 32, 3), "patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 16}
    if kind == "clip":
        from keras_hub.src.models.clip import clip_text_encoder, clip_vision_encoder

        wide = {"intermediate_dim": 64, "intermediate_activation": "quick_gelu"}
        image = clip_vision_encoder.CLIPVisionEncoder(**sizes, **wide)
        text = {"vocabulary_size": 9, "embedding_dim": 8, "max_sequence_length": 4, "num_layers": 1, "num_heads": 2}
        words = clip_text_encoder.CLIPTextEncoder(hidden_dim=8, **text, **wide)
        backbone = hub.CLIPBackbone(image, words, projection_dim=6)
    elif kind == "dinov2":
        options = {"layer_scale_init_value": 1.0, "num_register_tokens": 2, "use_mask_token": True}
        options |= {"use_swiglu_ffn": False, "dropout_rate": 0.0, "drop_path_rate": 0.0}
        backbone = hub.DINOV2Backbone(intermediate_dim=64, position_embedding_shape=(32, 32), **options, **sizes)
    else:
        wide = {"deit": {"intermediate_dim": 64}, "vit": {"mlp_dim": 64}}[kind]
        backbone = {"deit": hub.DeiTBackbone, "vit": hub.ViTBackbone}[kind](**wide, **sizes)
    rng = np.random.default_rng(0)
    for v in backbone.weights:
        if "position_ids" not in v.path:
            v.assign(rng.normal(0, 0.5, v.shape))
    # What a preset's file brings: the numbers of the positions; a second table of positions, here for the same size.
    if kind == "clip":
        positions = image.get_layer("embedding").position_ids
        positions.assign(np.arange(positions.shape[1])[None])
    if kind == "dinov2":
        embeddings = backbone.get_layer("embeddings")
        embeddings.interpolated_position_embeddings.assign(embeddings.position_embeddings)
    return backbone


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["deit", "vit", "clip", "dinov2"])
def test_keras_hub_backbones_give_the_same_tokens(kind):
    backbone = hub_backbone(kind)
    state = keras_hub.from_keras_hub(backbone)
    own = TINY | RAW | {"image_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2}
    own |= pretrained.structure_of(state) | ({"activation": "quick_gelu"} if kind == "clip" else {})
    model = models.build("deit_nano" if kind == "deit" else "vit_nano", **own)
    notes = pretrained.start_from(model, state)
    assert all("stays random" in note for note in notes)
    images = np.random.default_rng(1).normal(size=(2, 32, 32, 3)).astype(np.float32)
    _, tokens = vit.with_tokens(model)(images * 255)
    encoder = backbone.vision_encoder if kind == "clip" else backbone
    theirs = encoder({"images": images} if kind in ("clip", "dinov2") else images)[:, : tokens.shape[1]]
    np.testing.assert_allclose(tokens, theirs, rtol=1e-4, atol=1e-4)
    if kind == "clip":
        np.testing.assert_array_equal(state["proj"], backbone.vision_projection.kernel)


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


def test_the_names_of_clip_and_dinov2():
    clip = backbone(
        embedding__class_embedding=(4,),
        embedding__position_ids=(1, 5),
        embedding__position_embedding__embeddings=(5, 4),
        pre_layer_norm__gamma=(4,),
        encoder_block_0__layer_norm_2__beta=(4,),
        encoder_block_0__attention__attention_output__bias=(4,),
        encoder_block_0__dense_1__kernel=(4, 16),
        layer_norm__beta=(4,),
    )
    assert {name: value.shape for name, value in keras_hub.from_keras_hub(clip).items()} == {
        "cls_token": (4,),
        "pos_embed": (1, 5, 4),
        "norm_pre.weight": (4,),
        "blocks.0.norm2.bias": (4,),
        "blocks.0.attn.proj.bias": (4,),
        "blocks.0.mlp.fc1.weight": (16, 4),
        "norm.bias": (4,),
    }
    dinov2 = backbone(
        embeddings__cls_token=(1, 1, 4),
        embeddings__mask_token=(1, 4),
        embeddings__register_tokens=(1, 2, 4),
        embeddings__interpolated_position_embeddings=(1, 10, 4),
        embeddings__position_embeddings=(1, 5, 4),
        embeddings__patch_embeddings__projection__bias=(4,),
        encoder__layers_0__layer_scale1__lambda1=(4,),
        encoder__layers_0__mlp__fc2__kernel=(16, 4),
    )
    assert {name: value.shape for name, value in keras_hub.from_keras_hub(dinov2).items()} == {
        "cls_token": (1, 1, 4),
        "reg_token": (1, 2, 4),
        "pos_embed": (1, 5, 4),
        "patch_embed.proj.bias": (4,),
        "blocks.0.ls1.gamma": (4,),
        "blocks.0.mlp.fc2.weight": (4, 16),
    }


def test_what_is_no_vision_transformer_is_refused_by_name():
    with pytest.raises(ValueError, match=r"backbone is .*stem/conv/kernel"):
        keras_hub.from_keras_hub(backbone(stem__conv__kernel=(3, 3, 3, 4)))
