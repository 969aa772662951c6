"""Vision Transformers as the field publishes them -> the official names: CLIP, DINOv2, ViT-21k / AugReg, DeiT III.

    a state dict of any of these names  ->  official  ->  the names of timm and facebookresearch/deit, as ours are

| names | networks | told by |
|---|---|---|
| open_clip, OpenAI | CLIP, BioCLIP, MetaCLIP | visual.class_embedding |
| transformers | CLIP | vision_model.embeddings.class_embedding |
| transformers | ViT, DeiT, DINOv2 (with registers) | embeddings.cls_token |
| facebookresearch/dinov2 | DINOv2 (with registers) | mask_token, register_tokens |
| facebookresearch/deit | DeiT III | blocks.0.gamma_1 |
| timm | all of them | cls_token |

What no name shows: the number of attention heads, and whether a CLIP was trained with GELU or QuickGELU.
Source: the models' own code; timm's checkpoint_filter_fn in models/vision_transformer.py.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

State = dict[str, np.ndarray]

# Name in the file -> ours, as regular expressions for whole names. The blocks' own names follow below.
_CLIP = {
    "class_embedding": "cls_token",
    "positional_embedding": "pos_embed",
    "conv1": "patch_embed.proj",
    "ln_pre": "norm_pre",
    "ln_post": "norm",
    "proj": "proj",
    r"transformer\.resblocks\.(\d+)\.": {
        "ln_1": "norm1",
        r"attn\.in_proj_": "attn.qkv.",
        r"attn\.out_proj": "attn.proj",
        "ln_2": "norm2",
        r"mlp\.c_fc": "mlp.fc1",
        r"mlp\.c_proj": "mlp.fc2",
        r"ls_1\.gamma": "ls1.gamma",
        r"ls_2\.gamma": "ls2.gamma",
    },
}
_TRANSFORMERS_CLIP = {
    r"embeddings\.class_embedding": "cls_token",
    r"embeddings\.position_embedding\.weight": "pos_embed",
    r"embeddings\.patch_embedding": "patch_embed.proj",
    "pre_layrnorm": "norm_pre",  # the misspelling is transformers'
    "post_layernorm": "norm",
    r"encoder\.layers\.(\d+)\.": {
        "layer_norm1": "norm1",
        r"self_attn\.([qkv])_proj": r"attn.\1",
        r"self_attn\.out_proj": "attn.proj",
        "layer_norm2": "norm2",
        r"mlp\.fc1": "mlp.fc1",
        r"mlp\.fc2": "mlp.fc2",
    },
}
_TRANSFORMERS = {
    r"embeddings\.cls_token": "cls_token",
    r"embeddings\.distillation_token": "dist_token",
    r"embeddings\.register_tokens": "reg_token",
    r"embeddings\.position_embeddings": "pos_embed",
    r"embeddings\.patch_embeddings\.projection": "patch_embed.proj",
    "layernorm": "norm",
    "(?:cls_)?classifier": "head",
    "distillation_classifier": "head_dist",
    r"encoder\.layer\.(\d+)\.": {
        "(?:layernorm_before|norm1)": "norm1",
        r"attention\.attention\.(q)uery": r"attn.\1",
        r"attention\.attention\.(k)ey": r"attn.\1",
        r"attention\.attention\.(v)alue": r"attn.\1",
        r"attention\.output\.dense": "attn.proj",
        "(?:layernorm_after|norm2)": "norm2",
        r"(?:intermediate\.dense|mlp\.fc1)": "mlp.fc1",
        r"(?:output\.dense|mlp\.fc2)": "mlp.fc2",
        r"layer_scale1\.lambda1": "ls1.gamma",
        r"layer_scale2\.lambda1": "ls2.gamma",
    },
}
_OFFICIAL = {"register_tokens": "reg_token", r"blocks\.(\d+)\.": {"gamma_1": "ls1.gamma", "gamma_2": "ls2.gamma"}}

# Prefixes of the vision tower or of the network inside a classifier, and what these files hold besides.
_TOWERS = ("visual.trunk.", "visual.", "vision_model.", "vit.", "deit.", "dinov2.", "dinov2_with_registers.")
_BESIDES = r"(.*\.)?(mask_token|pooler\..*|position_ids|num_batches_tracked)"
# A name that shows a part which our network does not have -> what it is.
_OTHERS = {
    r"(.*\.)?mlp\.(w12|w1|weights_in)\..*": "a gated MLP (SwiGLU), as the giant DINOv2",
    r"(.*\.)?(attn_pool|head\.probe).*": "attention pooling instead of a CLS token, as SigLIP",
    r"(.*\.)?(rope_embed|rope_embeddings).*": "rotary positions, as DINOv3",
    r"(.*\.)?(relative_position_bias_table|rel_pos_bias).*": "relative positions, as BEiT",
    r"fc_norm\..*": "a mean over all tokens instead of a CLS token (fc_norm)",
    r"(.*\.)?(q_norm|k_norm)\..*": "norms of queries and keys",
}


def is_vit(names: Iterable[str]) -> bool:
    """Whether a state dict of these names is a Vision Transformer of one of the layouts above."""
    tokens = r"(.*\.)?(cls_token|class_embedding|patch_embeddings?\.(proj(ection)?\.)?weight)"
    return any(re.fullmatch(tokens, name) for name in names)


def official(state: Mapping[str, np.ndarray]) -> State:
    """The state dict of a Vision Transformer under the official names; one that has them stays as it is.

    Only the vision tower is kept. CLIP's projection [D, E] into the space of texts is called `proj`. Where CLS (and
    DIST) have no position in the file, they get one of zeros: [1, P + patches, D] in any case.
    Raises ValueError for an architecture that our networks do not cover, saying which part is other.
    """
    state = _tower(state)
    for pattern, part in _OTHERS.items():
        if name := next((name for name in state if re.fullmatch(pattern, name)), None):
            raise ValueError(f"these weights have {part}, which no network here has: {name}.")
    if "class_embedding" in state:
        table = _CLIP
    elif "embeddings.class_embedding" in state:
        table = _TRANSFORMERS_CLIP
    elif "embeddings.cls_token" in state:
        table = _TRANSFORMERS
    elif "cls_token" in state:
        table = _OFFICIAL
    else:
        raise ValueError("these weights have no CLS token: SigLIP and networks that average patches are not covered.")
    renamed = {_renamed(name, table): np.asarray(value) for name, value in state.items()}
    return _with_positions(joined(renamed))


def structure(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Options of `models.build` that official weights show, those that differ from the defaults.

    CLIP alone has a norm before the first block, and its norms have an epsilon of 1e-5.
    """
    options: dict[str, Any] = {}
    if "norm_pre.weight" in state:
        options |= {"pre_norm": True, "epsilon": 1e-5}
    if "patch_embed.proj.weight" in state and "patch_embed.proj.bias" not in state:
        options["patch_bias"] = False
    if any(name.endswith(".ls1.gamma") for name in state):
        options["layer_scale"] = 1e-5
    if "reg_token" in state:
        options["registers"] = state["reg_token"].shape[1]
    return options


def _tower(state: Mapping[str, np.ndarray]) -> State:
    """The vision tower without its prefix, and the classifiers next to it; text towers and training leftovers go."""
    prefix = next((x for x in _TOWERS if any(re.match(re.escape(x) + ".*(embed|token)", name) for name in state)), "")
    tower = {}
    for name, value in state.items():
        if re.fullmatch(_BESIDES, name):
            continue
        if name.startswith(prefix):
            tower[name.removeprefix(prefix)] = value
        elif name == "visual_projection.weight":
            tower["proj"] = np.asarray(value).T
        elif re.match(r"(cls_|distillation_)?classifier\.", name):
            tower[name] = value
    return tower


def _renamed(name: str, table: Mapping[str, Any], before: str = "") -> str:
    """The official name of a weight; a name that the table does not have stays."""
    for pattern, ours in table.items():
        match = re.match(pattern, name)
        if match is None:
            continue
        if isinstance(ours, Mapping):
            inner = name[match.end() :]
            return _renamed(inner, ours, f"blocks.{match[1]}.")
        rest = name[match.end() :]
        if not rest or rest in (".weight", ".bias") or ours.endswith("."):
            return before + match.expand(ours) + rest
    return before + name


def joined(state: State) -> State:
    """The state dict with q, k and v of each block as one `attn.qkv`, in this order."""
    parts = {name: value for name, value in state.items() if re.fullmatch(r"blocks\.\d+\.attn\.[qkv]\.\w+", name)}
    whole = {name: value for name, value in state.items() if name not in parts}
    for name in parts:
        if ".attn.q." in name:
            names = [name.replace(".attn.q.", f".attn.{which}.") for which in "qkv"]
            if missing := [x for x in names if x not in parts]:
                raise ValueError(f"these weights are incomplete: {missing[0]} is missing.")
            whole[name.replace(".attn.q.", ".attn.qkv.")] = np.concatenate([parts[x] for x in names])
    return whole


def _with_positions(state: State) -> State:
    """The state dict with tokens and positions as ours have them: [1, ..., D], a position for CLS (and DIST)."""
    for name in ("cls_token", "dist_token", "pos_embed", "reg_token"):
        if name in state:
            state[name] = state[name].reshape(1, -1, state[name].shape[-1])
    if "pos_embed" not in state:
        raise ValueError("these weights have no position embedding (pos_embed).")
    positions, prefix = state["pos_embed"], 1 + ("dist_token" in state)
    registers = state["reg_token"].shape[1] if "reg_token" in state else 0
    length, dim = positions.shape[1:]
    if _is_square(length - prefix):
        return state
    if _is_square(length):  # timm's no_embed_class: patches alone have positions
        state["pos_embed"] = np.concatenate([np.zeros((1, prefix, dim), positions.dtype), positions], 1)
    elif registers and _is_square(length - prefix - registers):  # registers have positions, too: they become their own
        ends = (prefix, prefix + registers)
        tokens, own, patches = np.split(positions, ends, axis=1)
        state["reg_token"] = state["reg_token"] + own
        state["pos_embed"] = np.concatenate([tokens, patches], 1)
    return state


def _is_square(number: int) -> bool:
    return number > 0 and math.isqrt(number) ** 2 == number
