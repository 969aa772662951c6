"""Start a new network from the weights of another one."""

from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np

from deitlt_tf.interop import torch_files, torch_weights
from deitlt_tf.interop.keras_hub import from_keras_hub
from deitlt_tf.models import resizing, resnet
from deitlt_tf.models.weights import load_state, state_dict
from deitlt_tf.runs.models import load_model


def start_from(student: keras.Model, source: keras.Model | Mapping[str, np.ndarray]) -> list[str]:
    """Set a new DeiT or ViT to the weights of another one, of any image size, classes and tokens.

    source: one of our models, or a state dict. Positions are resized. A head stays random where the number of classes
    differs or the source has none. Without a DIST token in the source, DIST starts as CLS: token, position and head.
    Returns what was not taken as it is, one sentence each.
    Raises ValueError where width, depth, heads or patches differ, or the source is no Vision Transformer.
    """
    own = torch_weights.to_torch(student)
    if isinstance(source, keras.Model):
        if any(layer.name == "blocks.0" for layer in source.layers):
            _same("attention heads", *(model.get_layer("blocks.0").attn.num_heads for model in (student, source)))
        source = torch_weights.to_torch(source)
    state, notes = torch_weights._plain_names(source), []
    try:
        for what, measure in (
            ("channels", lambda s: s["pos_embed"].shape[-1]),
            ("blocks", lambda s: torch_weights._count(s, r"blocks\.(\d+)\.")),
            ("pixels a patch", lambda s: s["patch_embed.proj.weight"].shape[-1]),
        ):
            _same(what, measure(own), measure(state))
    except KeyError as error:
        raise ValueError(f"the weights to start from are no Vision Transformer's: no {error.args[0]}.") from error

    distilled, had_dist = "dist_token" in own, "dist_token" in state
    if distilled and not had_dist:
        state |= {"dist_token": state["cls_token"]}
        state |= {name.replace("head.", "head_dist."): v for name, v in state.items() if name.startswith("head.")}
        notes.append("DIST starts as CLS: the weights have no DIST token.")
    if had_dist and not distilled:
        state = {name: value for name, value in state.items() if not name.startswith(("dist_token", "head_dist."))}
        notes.append("the DIST token and its head are left out.")
    old, prefix = 1 + had_dist, 1 + distilled
    old_pos = state["pos_embed"]
    tokens = old_pos[:, np.minimum(np.arange(prefix), old - 1)]  # DIST's row, or CLS' again
    sides = {
        "grid_from": torch_weights._grid(old_pos.shape[1], prefix=old),
        "grid_to": torch_weights._grid(own["pos_embed"].shape[1], prefix=prefix),
    }
    state["pos_embed"] = resizing.resize_position(
        np.concatenate([tokens, old_pos[:, old:]], axis=1), prefix=prefix, **sides
    )
    if sides["grid_from"] != sides["grid_to"]:
        notes.append(
            "positions resized from {grid_from} x {grid_from} to {grid_to} x {grid_to} patches.".format(**sides)
        )
    for head in ("head", "head_dist") if distilled else ("head",):
        classes = [len(s[f"{head}.bias"]) if f"{head}.bias" in s else 0 for s in (own, state)]
        if classes[0] != classes[1]:
            state |= {name: value for name, value in own.items() if name.startswith(f"{head}.")}
            notes.append(f"{head} stays random: {classes[0]} classes here, {classes[1]} in the weights.")
    load_state(student, state)
    return notes


def _same(what: str, here: int, there: int) -> None:
    if here != there:
        raise ValueError(
            f"{what}: {here} in the student, {there} in the weights to start from; choose a model that fits."
        )


def starting_weights(path: str) -> keras.Model | dict[str, np.ndarray]:
    """What `official.start_from` takes: of a .keras file, a PyTorch file, or keras_hub:PRESET (a name or a folder)."""
    kind, _, preset = path.partition(":")
    if kind == "keras_hub":
        try:
            import keras_hub
        except ImportError as error:
            raise ValueError(f"{path} needs the package keras-hub: python -m pip install keras-hub.") from error
        return from_keras_hub(keras_hub.models.Backbone.from_preset(preset))
    if path.endswith(".keras"):
        return load_model(Path(path))[0]
    return torch_files.read(Path(path))[0][""]


def scale_cosines(network: keras.Model, *, ldam: float) -> None:
    """Give a network that answers bare cosines LDAM's scale, which the loss has while it is trained, as officially.

    The classes it chooses stay; what takes a softmax of its answers (soft distillation, confidences) gets logits. Done
    where a teacher's file is written, so that those who read it need not know its objective.
    """
    last = network.layers[-1]
    if isinstance(last, resnet.CosineClassifier) and last.scale == 1:
        last.scale = ldam


def start_cnn_from(network: keras.Model, path: Path) -> None:
    """Set a CNN to the weights of a model file; the classifier stays new where its shape differs.

    Raises ValueError for a file of another architecture.
    """
    source, _ = load_model(path)
    own, given = state_dict(network), state_dict(source)
    head = {name for name in own.keys() | given.keys() if name.split(".")[-2] == "fc"}
    body = (own.keys() | given.keys()) - head
    differ = [name for name in sorted(body) if name not in own or name not in given]
    differ += [name for name in sorted(body - set(differ)) if own[name].shape != given[name].shape]
    if differ:
        raise ValueError(f"{path} ({source.name}) is another network than {network.name}: {differ[0]} differs.")
    for name in body | {name for name in head & given.keys() & own.keys() if own[name].shape == given[name].shape}:
        own[name].assign(given[name].numpy())
