"""Weights of keras-hub's ViT, DeiT, CLIP and DINOv2 backbones under the official names."""

import re

import keras
import numpy as np

from deitlt_tf.interop import vit_layouts

# keras-hub's name of a weight -> ours, as regular expressions for whole names. Blocks and their kernels follow below.
_OUTSIDE = {
    r"(?:\w+/)?class_token|embedding/class_embedding|embeddings/cls_token": "cls_token",
    r"\w+/distillation_token": "dist_token",
    r"embeddings/register_tokens": "reg_token",
    r"(?:\w+/)?position_embedding(?:/embeddings)?|embeddings/position_embeddings": "pos_embed",
    r"\w+/(?:patch_embedding|patch_embeddings/projection)": "patch_embed.proj",
    "pre_layer_norm": "norm_pre",
    r"\w+/ln|layer_norm|layernorm": "norm",
}
_BLOCK = r"(?:\w+/transformer_block|encoder_block|encoder/layers)_(\d+)/"
_INSIDE = {
    "ln_1|layer_norm_1|norm1": "norm1",
    "(?:mha|attention|attention/attention)/attention_output": "attn.proj",
    "(?:mha|attention|attention/attention)/(q|k|v)(?:uery|ey|alue)": r"attn.\1",
    "layer_scale1/lambda1": "ls1.gamma",
    "ln_2|layer_norm_2|norm2": "norm2",
    "mlp/dense|mlp/dense_1|dense_1|mlp/fc1": "mlp.fc1",
    "output_layer/output|mlp/dense_2|dense_2|mlp/fc2": "mlp.fc2",
    "layer_scale2/lambda1": "ls2.gamma",
}
_WEIGHTS = {"/kernel": ".weight", "/gamma": ".weight", "/bias": ".bias", "/beta": ".bias", "": ""}
# What DINOv2 and CLIP hold besides. DINOv2's second table of positions is the first one at the size of its images.
_BESIDES = r".*/(mask_token|interpolated_position_embeddings|position_ids)"


def from_keras_hub(backbone: keras.Model) -> dict[str, np.ndarray]:
    """The state dict, without heads, of a ViT, DeiT, CLIP or DINOv2 backbone: a source for `start_from`.

    Of a CLIPBackbone, only the vision encoder and its projection, as `proj`, are kept.
    Raises ValueError for a weight that our DeiT and ViT do not have.
    """
    encoder = getattr(backbone, "vision_encoder", backbone)
    # A block's number is its place: ViT and DeiT count from 1, CLIP and DINOv2 from 0.
    numbers = sorted({int(match[1]) for v in encoder.variables if (match := re.match(_BLOCK, v.path))})
    state: dict[str, np.ndarray] = {}
    for v in encoder.variables:
        if re.fullmatch(_BESIDES, v.path):
            continue
        name = _name(v.path, numbers)
        if name is None:
            raise ValueError(
                f"{backbone.name} is not a ViT, DeiT, CLIP or DINOv2 that can be imported: it has the weight {v.path}."
            )
        state[name] = _value(np.asarray(v.numpy()), name)
    if encoder is not backbone:
        state["proj"] = np.asarray(backbone.vision_projection.kernel)
    return vit_layouts.joined(state)


def _name(path: str, numbers: list[int]) -> str | None:
    """The official name of a weight, before queries, keys and values are joined; None if it has none."""
    layer, ending = path, ""
    if re.search("/(kernel|gamma|bias|beta)$", path):
        layer, _, last = path.rpartition("/")
        ending = f"/{last}"
    block, table = "", _OUTSIDE
    if match := re.match(_BLOCK, layer):
        block, layer, table = f"blocks.{numbers.index(int(match[1]))}.", layer[match.end() :], _INSIDE
    for pattern, ours in table.items():
        if match := re.fullmatch(pattern, layer):
            return block + match.expand(ours) + _WEIGHTS[ending]
    return None


def _value(value: np.ndarray, name: str) -> np.ndarray:
    """The weight in torch's layout: kernels are [out, in] there, and [in, ..., out] in Keras."""
    if name == "pos_embed":
        return value.reshape(1, *value.shape[-2:])
    if name == "patch_embed.proj.weight":
        return value.transpose(3, 2, 0, 1)
    if re.search(r"attn\.[qkv]\.", name):  # heads and their channels apart
        return value.reshape(-1) if name.endswith("bias") else value.reshape(len(value), -1).T
    if name.endswith("attn.proj.weight"):
        return value.reshape(-1, value.shape[-1]).T
    return value.T if value.ndim == 2 and name.endswith(".weight") else value
