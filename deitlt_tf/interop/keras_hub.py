"""Weights of keras-hub's DeiT and ViT backbones under the official names."""

import re

import keras
import numpy as np

# keras-hub's name of a weight, without its first folder -> ours.
_KERAS_HUB = {
    "class_token": "cls_token",
    "distillation_token": "dist_token",
    "position_embedding": "pos_embed",
    "position_embedding/embeddings": "pos_embed",
    "patch_embedding/kernel": "patch_embed.proj.weight",
    "patch_embedding/bias": "patch_embed.proj.bias",
    "ln/gamma": "norm.weight",
    "ln/beta": "norm.bias",
    "ln_1/gamma": "norm1.weight",
    "ln_1/beta": "norm1.bias",
    "mha/attention_output/kernel": "attn.proj.weight",
    "mha/attention_output/bias": "attn.proj.bias",
    "ln_2/gamma": "norm2.weight",
    "ln_2/beta": "norm2.bias",
    "mlp/dense/kernel": "mlp.fc1.weight",
    "mlp/dense/bias": "mlp.fc1.bias",
    "output_layer/output/kernel": "mlp.fc2.weight",
    "output_layer/output/bias": "mlp.fc2.bias",
    "mlp/dense_1/kernel": "mlp.fc1.weight",
    "mlp/dense_1/bias": "mlp.fc1.bias",
    "mlp/dense_2/kernel": "mlp.fc2.weight",
    "mlp/dense_2/bias": "mlp.fc2.bias",
}


def from_keras_hub(backbone: keras.Model) -> dict[str, np.ndarray]:
    """The state dict, without heads, of a keras-hub DeiTBackbone or ViTBackbone: a source for `start_from`.

    Raises ValueError for a weight that our DeiT and ViT do not have.
    """
    state: dict[str, np.ndarray] = {}
    qkv: dict[tuple[str, str], dict[str, np.ndarray]] = {}  # {(block, kernel or bias): {query, key, value}}
    for v in backbone.variables:
        _, _, inner = v.path.partition("/")  # without deit_encoder or deit_patching_and_embedding
        if match := re.match(r"transformer_block_(\d+)/(.*)", inner):
            block, inner = f"blocks.{int(match[1]) - 1}.", match[2]
        else:
            block = ""
        value = v.numpy()
        if match := re.fullmatch(r"mha/(query|key|value)/(kernel|bias)", inner):
            flat = value.reshape(-1) if match[2] == "bias" else value.reshape(len(value), -1).T
            qkv.setdefault((block, match[2]), {})[match[1]] = flat
        elif inner not in _KERAS_HUB:
            raise ValueError(f"{backbone.name} is not a DeiT or ViT that can be imported: it has the weight {v.path}.")
        else:
            name = _KERAS_HUB[inner]
            if inner.startswith("mha/attention_output/kernel"):
                value = value.reshape(-1, value.shape[-1])  # (heads, channels of a head, D)
            if name == "pos_embed":
                value = value.reshape(1, *value.shape[-2:])
            if inner.endswith("kernel"):
                value = value.transpose({2: (1, 0), 4: (3, 2, 0, 1)}[value.ndim])
            state[block + name] = value
    for (block, part), parts in qkv.items():
        name = f"{block}attn.qkv.{'bias' if part == 'bias' else 'weight'}"
        state[name] = np.concatenate([parts[which] for which in ("query", "key", "value")])
    return state
