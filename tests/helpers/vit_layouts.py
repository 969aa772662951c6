"""Vision Transformers of every layout in small: true names and shapes, random weights, and the libraries' own answers.

    PYTHONPATH=tests python -m helpers.vit_layouts

writes tests/golden/vit_layouts.npz with the answers of timm 1.0.31 and transformers 4.57 (CPU, float32). Where
torchvision is not installed, timm is imported with an empty one in its place. Both libraries load the weights strictly,
so names and shapes here are theirs.
"""

import functools
import importlib.abc
import importlib.machinery
import sys
import types

import numpy as np

from helpers import GOLDEN

WIDTH, DEPTH, HEADS, PATCH, GRID, CLASSES, REGISTERS, TEXT = 16, 2, 2, 4, 3, 3, 4, 10
SIDE = PATCH * GRID
D, T = WIDTH, GRID**2


def pairs(layers: dict[str, tuple], prefix: str = "") -> dict[str, tuple]:
    """Weight and bias of each layer. layers: {name: shape of the weight}."""
    weights = {f"{prefix}{name}.weight": shape for name, shape in layers.items()}
    return weights | {f"{prefix}{name}.bias": shape[:1] for name, shape in layers.items()}


def blocks(start: str, layers: dict[str, tuple], **alone: tuple) -> dict[str, tuple]:
    """DEPTH blocks called `start`i. alone: weights of a block that are not a layer; `__` stands for a dot."""
    one = pairs(layers) | {name.replace("__", "."): shape for name, shape in alone.items()}
    return {f"{start}{i}.{name}": shape for i in range(DEPTH) for name, shape in one.items()}


TIMM = {
    "norm1": (D,), "attn.qkv": (3 * D, D), "attn.proj": (D, D), "norm2": (D,), "mlp.fc1": (4 * D, D),
    "mlp.fc2": (D, 4 * D),
}  # fmt: skip
OPEN_CLIP = {
    "ln_1": (D,), "ln_2": (D,), "attn.out_proj": (D, D), "mlp.c_fc": (4 * D, D), "mlp.c_proj": (D, 4 * D),
}  # fmt: skip
HF = {
    "attention.attention.query": (D, D), "attention.attention.key": (D, D), "attention.attention.value": (D, D),
    "attention.output.dense": (D, D),
}  # fmt: skip
HF_VIT = HF | {
    "intermediate.dense": (4 * D, D), "output.dense": (D, 4 * D), "layernorm_before": (D,), "layernorm_after": (D,),
}  # fmt: skip
HF_DINOV2 = HF | {"norm1": (D,), "norm2": (D,), "mlp.fc1": (4 * D, D), "mlp.fc2": (D, 4 * D)}
HF_CLIP = {f"self_attn.{x}_proj": (D, D) for x in ("q", "k", "v", "out")} | {
    "layer_norm1": (D,), "layer_norm2": (D,), "mlp.fc1": (4 * D, D), "mlp.fc2": (D, 4 * D),
}  # fmt: skip
KERNEL = (D, 3, PATCH, PATCH)
BODY = {"cls_token": (1, 1, D), "pos_embed": (1, 1 + T, D)} | pairs({"patch_embed.proj": KERNEL, "norm": (D,)})
HEAD = pairs({"head": (CLASSES, D)})
EMBEDDINGS = {
    "embeddings.cls_token": (1, 1, D), "embeddings.position_embeddings": (1, 1 + T, D),
    "embeddings.patch_embeddings.projection.weight": KERNEL, "embeddings.patch_embeddings.projection.bias": (D,),
    "layernorm.weight": (D,), "layernorm.bias": (D,),
}  # fmt: skip


def prefixed(prefix: str, shapes: dict[str, tuple]) -> dict[str, tuple]:
    return {prefix + name: shape for name, shape in shapes.items()}


def without_bias(shapes: dict[str, tuple], name: str) -> dict[str, tuple]:
    return {key: shape for key, shape in shapes.items() if key != f"{name}.bias"}


TEXT_TOWER = {
    "token_embedding.weight": (20, TEXT), "positional_embedding": (7, TEXT), "text_projection": (TEXT, TEXT),
    "logit_scale": (), "transformer.resblocks.0.ln_1.weight": (TEXT,), "ln_final.weight": (TEXT,),
}  # fmt: skip
LAYOUTS: dict[str, dict[str, tuple]] = {
    "timm_vit": BODY | HEAD | blocks("blocks.", TIMM),
    "timm_clip": without_bias(BODY, "patch_embed.proj") | HEAD | pairs({"norm_pre": (D,)}) | blocks("blocks.", TIMM),
    "timm_deit3": BODY | HEAD | {"pos_embed": (1, T, D)} | blocks("blocks.", TIMM, ls1__gamma=(D,), ls2__gamma=(D,)),
    "timm_dinov2": BODY | {"pos_embed": (1, T, D), "reg_token": (1, REGISTERS, D)}
    | blocks("blocks.", TIMM, ls1__gamma=(D,), ls2__gamma=(D,)),
    "deit3": BODY | HEAD | {"pos_embed": (1, T, D)} | blocks("blocks.", TIMM, gamma_1=(D,), gamma_2=(D,)),
    "dinov2": BODY | {"mask_token": (1, D)} | blocks("blocks.", TIMM, ls1__gamma=(D,), ls2__gamma=(D,)),
    "dinov2_registers": BODY | {"mask_token": (1, D), "register_tokens": (1, REGISTERS, D)}
    | blocks("blocks.", TIMM, ls1__gamma=(D,), ls2__gamma=(D,)),
    "open_clip": TEXT_TOWER | prefixed("visual.", {
        "class_embedding": (D,), "positional_embedding": (1 + T, D), "proj": (D, TEXT), "conv1.weight": KERNEL,
    } | pairs({"ln_pre": (D,), "ln_post": (D,)})
    | blocks("transformer.resblocks.", OPEN_CLIP, attn__in_proj_weight=(3 * D, D), attn__in_proj_bias=(3 * D,))),
    "transformers_clip": {"visual_projection.weight": (TEXT, D)} | prefixed("vision_model.", {
        "embeddings.class_embedding": (D,), "embeddings.position_embedding.weight": (1 + T, D),
        "embeddings.patch_embedding.weight": KERNEL,
    } | pairs({"pre_layrnorm": (D,), "post_layernorm": (D,)}) | blocks("encoder.layers.", HF_CLIP)),
    "transformers_vit": pairs({"classifier": (CLASSES, D)})
    | prefixed("vit.", EMBEDDINGS | blocks("encoder.layer.", HF_VIT)),
    "transformers_deit": pairs({"cls_classifier": (CLASSES, D), "distillation_classifier": (CLASSES, D)})
    | prefixed("deit.", EMBEDDINGS | {
        "embeddings.distillation_token": (1, 1, D), "embeddings.position_embeddings": (1, 2 + T, D),
    } | blocks("encoder.layer.", HF_VIT)),
    "transformers_dinov2": EMBEDDINGS | {
        "embeddings.mask_token": (1, D), "embeddings.register_tokens": (1, REGISTERS, D),
    } | blocks("encoder.layer.", HF_DINOV2, layer_scale1__lambda1=(D,), layer_scale2__lambda1=(D,)),
}  # fmt: skip
QUICK = ("timm_clip", "transformers_clip")  # trained with QuickGELU; open_clip's with GELU, to have both


def state(layout: str) -> dict[str, np.ndarray]:
    """Random weights of a layout, the same for every version of NumPy; no weight is where a training starts."""
    draw = np.random.RandomState(0)
    return {
        name: draw.normal(0, 0.3, shape).astype(np.float32) + (".weight" in name and len(shape) == 1)
        for name, shape in LAYOUTS[layout].items()
    }


def images() -> np.ndarray:
    """Two normalised images, float32 [2, 3, SIDE, SIDE]."""
    return np.random.RandomState(1).normal(size=(2, 3, SIDE, SIDE)).astype(np.float32)


# ---- the libraries' answers ------------------------------------------------------------------------------------------


class _Anything(type):
    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class _Module(types.ModuleType):
    __path__: list = []  # noqa: RUF012
    __version__ = "0"

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything(name, (), {})


class _EmptyTorchvision(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Makes an empty module of every name in torchvision, which timm imports and does not need here."""

    def find_spec(self, name: str, path: object = None, target: object = None):
        ours = name.partition(".")[0] == "torchvision"
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if ours else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def import_timm():
    """timm.models.vision_transformer. Raises ImportError where timm is not installed."""
    finder = _EmptyTorchvision()
    sys.meta_path.append(finder)  # after the finders of installed packages
    try:
        from timm.models import vision_transformer
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name, module in sys.modules.items() if isinstance(module, _Module)]:
            del sys.modules[name]
    return vision_transformer


def answer(layout: str) -> dict[str, np.ndarray]:
    """{"features": CLS after the last norm [2, D], "logits": [2, CLASSES] where there is a head} of the library."""
    import torch

    weights = {name: torch.from_numpy(np.array(value)) for name, value in state(layout).items()}
    pixels = torch.from_numpy(images())
    with torch.no_grad():
        of = _of_transformers if layout.startswith("transformers") else _of_timm
        return {name: x.numpy() for name, x in of(layout, weights, pixels).items()}


def _of_timm(layout: str, weights: dict, pixels) -> dict:
    import torch

    vit = import_timm()
    clip, dino, deit3 = "clip" in layout, "dinov2" in layout, "deit3" in layout
    registers = layout in ("timm_dinov2", "dinov2_registers")
    model = vit.VisionTransformer(
        img_size=SIDE,
        patch_size=PATCH,
        embed_dim=D,
        depth=DEPTH,
        num_heads=HEADS,
        num_classes=0 if dino or layout == "open_clip" else CLASSES,
        init_values=1e-5 if dino or deit3 else None,
        reg_tokens=REGISTERS if registers else 0,
        no_embed_class=deit3 or registers,
        pre_norm=clip,
        act_layer="quick_gelu" if layout in QUICK else "gelu",
        norm_layer=functools.partial(torch.nn.LayerNorm, eps=1e-5) if clip else None,
    ).eval()
    if layout == "open_clip":
        weights = {name: value for name, value in weights.items() if name != "visual.proj"}
    model.load_state_dict(vit.checkpoint_filter_fn(weights, model, adapt_layer_scale=deit3), strict=True)
    features = model.forward_features(pixels)
    logits = {} if model.num_classes == 0 else {"logits": model.forward_head(features)}
    return {"features": features[:, 0]} | logits


def _of_transformers(layout: str, weights: dict, pixels) -> dict:
    import transformers as hf

    sizes = {
        "hidden_size": D, "num_hidden_layers": DEPTH, "num_attention_heads": HEADS, "image_size": SIDE,
        "patch_size": PATCH,
    }  # fmt: skip
    labels = {"num_labels": CLASSES, "intermediate_size": 4 * D}
    if layout == "transformers_clip":
        config = hf.CLIPVisionConfig(**sizes, intermediate_size=4 * D, projection_dim=TEXT, hidden_act="quick_gelu")
        model = hf.CLIPVisionModelWithProjection(config).eval()
        model.load_state_dict(weights, strict=True)
        return {"features": model.vision_model(pixels).pooler_output, "embeds": model(pixels).image_embeds}
    if layout == "transformers_dinov2":
        config = hf.Dinov2WithRegistersConfig(**sizes, num_register_tokens=REGISTERS)
        model = hf.Dinov2WithRegistersModel(config).eval()
        model.load_state_dict(weights, strict=True)
        return {"features": model(pixels).last_hidden_state[:, 0]}
    if layout == "transformers_deit":
        model = hf.DeiTForImageClassificationWithTeacher(hf.DeiTConfig(**sizes, **labels)).eval()
        model.load_state_dict(weights, strict=True)
        return {"features": model.deit(pixels).last_hidden_state[:, 0], "logits": model(pixels).cls_logits}
    model = hf.ViTForImageClassification(hf.ViTConfig(**sizes, **labels)).eval()
    model.load_state_dict(weights, strict=True)
    return {"features": model.vit(pixels).last_hidden_state[:, 0], "logits": model(pixels).logits}


if __name__ == "__main__":
    answers = {f"{layout}/{name}": x for layout in LAYOUTS for name, x in answer(layout).items()}
    np.savez(GOLDEN / "vit_layouts.npz", **answers)
    print(*(f"{name} {x.shape}" for name, x in answers.items()), sep="\n")
