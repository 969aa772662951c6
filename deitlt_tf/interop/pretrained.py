"""Start a new network from the weights of another one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from deitlt_tf.interop import backbones, safetensors, torch_files, torch_weights, vit_layouts
from deitlt_tf.interop.keras_hub import from_keras_hub
from deitlt_tf.models import resizing, resnet, vit
from deitlt_tf.models.weights import load_state, state_dict
from deitlt_tf.runs.models import load_model

State = dict[str, np.ndarray]  # official name -> array in torch's layout
EPSILON = 1e-6  # default epsilon of LayerNorm in a Vision Transformer of `models.build`


def start_from(student: keras.Model, source: keras.Model | Mapping[str, np.ndarray]) -> list[str]:
    """Set a new DeiT or ViT to the weights of another one, of any image size, classes and tokens.

    source: one of our models, or a state dict of a layout of `vit_layouts`. Positions are resized. A head stays random
      where the number of classes or the classifier differs, or the source has no head. Where the source has no DIST
      token, DIST starts as CLS: token, position and head. Adapters stay as they are.
    Returns one sentence for each thing that could not be used unchanged.
    Raises ValueError where width, depth, heads, patches or structure differ, or the source is no Vision Transformer.
    """
    own = torch_weights.state_of(student)
    if isinstance(source, keras.Model):
        if any(layer.name == "blocks.0" for layer in source.layers):
            _require_same("attention heads", *(m.get_layer("blocks.0").attn.num_heads for m in (student, source)))
        source = torch_weights.state_of(source)
    state = torch_weights.plain_names(source)
    state = vit_layouts.official(state) if vit_layouts.is_vit(state) else state
    state.pop("proj", None)  # of CLIP, into the space of texts
    try:
        _require_same_architecture(own, state)
    except KeyError as error:
        raise ValueError(f"the weights to start from are no Vision Transformer's: no {error.args[0]}.") from error
    old_prefix = 1 + ("dist_token" in state)
    notes = _match_tokens(state, own)
    notes += _match_positions(state, own, old_prefix=old_prefix)
    notes += _match_heads(state, own)
    state |= {name: value for name, value in own.items() if ".adapter." in name or ".lora." in name}
    load_state(student, state)
    return notes


def _require_same_architecture(own: State, state: State) -> None:
    """Raises ValueError where width, depth or patches differ, KeyError for weights that are no Vision Transformer's."""
    _require_same("channels", *(s["pos_embed"].shape[-1] for s in (own, state)))
    _require_same("blocks", *(torch_weights.num_blocks(s, "blocks") for s in (own, state)))
    _require_same("halvings in the convolutional stem (stem=conv; 0 is stem=patch)", *map(_halvings, (own, state)))
    _require_same("pixels a patch", *(s["patch_embed.proj.weight"].shape[-1] for s in (own, state)))
    here, there = (vit_layouts.structure(s) for s in (own, state))
    if here != there:
        words = [", ".join(f"{name}={value}" for name, value in options.items()) or "none" for options in (here, there)]
        raise ValueError(f"structure: {words[0]} in the student, {words[1]} in the weights to start from.")


def _halvings(state: State) -> int:
    """Halvings of the side in the convolutional stem of a state dict; 0: it has a patch projection."""
    return torch_weights.num_blocks(state, "patch_embed")


def _require_same(what: str, here: int, there: int) -> None:
    if here != there:
        raise ValueError(
            f"{what}: {here} in the student, {there} in the weights to start from; choose a model that fits."
        )


def _match_tokens(state: State, own: State) -> list[str]:
    """Add a DIST token and its head to `state`, or remove them, so that it has the tokens of `own`. Returns notes."""
    distilled, had_dist = "dist_token" in own, "dist_token" in state
    if distilled and not had_dist:
        state["dist_token"] = state["cls_token"]
        state |= {name.replace("head.", "head_dist."): v for name, v in state.items() if name.startswith("head.")}
        return ["DIST starts as CLS: the weights have no DIST token."]
    if had_dist and not distilled:
        for name in [name for name in state if name.startswith(("dist_token", "head_dist."))]:
            del state[name]
        return ["the DIST token and its head are left out."]
    return []


def _match_positions(state: State, own: State, *, old_prefix: int) -> list[str]:
    """Resize the positions of `state` to the patches of `own`. old_prefix: tokens before the patches in `state`."""
    prefix, positions = 1 + ("dist_token" in own), state["pos_embed"]
    tokens = positions[:, np.minimum(np.arange(prefix), old_prefix - 1)]  # a new DIST token gets the row of CLS
    grid_from = torch_weights.patch_grid(positions.shape[1], prefix=old_prefix)
    grid_to = torch_weights.patch_grid(own["pos_embed"].shape[1], prefix=prefix)
    state["pos_embed"] = resizing.resize_position(
        np.concatenate([tokens, positions[:, old_prefix:]], axis=1), prefix=prefix, grid_from=grid_from, grid_to=grid_to
    )
    if grid_from == grid_to:
        return []
    return [f"positions resized from {grid_from} x {grid_from} to {grid_to} x {grid_to} patches."]


def _match_heads(state: State, own: State) -> list[str]:
    """Put the random heads of `own` into `state` where the number of classes differs. Returns notes."""
    notes = []
    for head in ("head", "head_dist") if "dist_token" in own else ("head",):
        here, there = ({name: s[name] for name in s if name.startswith(f"{head}.")} for s in (own, state))
        if {name: x.shape for name, x in here.items()} != {name: x.shape for name, x in there.items()}:
            for name in there:
                del state[name]
            state |= here
            classes = [len(x[f"{head}.bias"]) if f"{head}.bias" in x else _outputs(x) for x in (here, there)]
            notes.append(f"{head} stays random: {classes[0]} classes here, {classes[1]} in the weights.")
    return notes


def _outputs(head: State) -> int:
    """Classes of a head without bias: a cosine classifier [D, C]; 0 where there is no head."""
    return next((x.shape[1] for x in head.values()), 0)


def structure_of(source: keras.Model | State) -> dict[str, Any]:
    """Options of `models.build` that a network needs to start from these weights: those that differ from the defaults.

    source: what `starting_weights` returns. The activation is always there for a model, and never for a state dict.
    """
    if not isinstance(source, keras.Model):
        return vit_layouts.structure(source)
    blocks = [layer for layer in source.layers if isinstance(layer, vit.Block)]
    if not blocks:
        return {}
    options = vit_layouts.structure(torch_weights.state_of(source)) | {"activation": blocks[0].activation}
    return options if blocks[0].epsilon == EPSILON else options | {"epsilon": blocks[0].epsilon}


def pixels_note(structure: Mapping[str, Any], *, mean: Sequence[float]) -> str:
    """A sentence where CLIP's weights and the pixel mean of a recipe do not belong together; else "".

    structure: options that the weights show, see `structure_of`; CLIP alone has a norm before its blocks.
    """
    clip, clips_mean = bool(structure.get("pre_norm")), np.allclose(mean, torch_weights.CLIP_MEAN, atol=1e-3)
    text = {
        name: ",".join(f"{x:g}" for x in getattr(torch_weights, f"CLIP_{name.upper()}")) for name in ("mean", "std")
    }
    if clip and not clips_mean:
        return f"note: CLIP was trained with other pixel statistics: --mean={text['mean']} --std={text['std']}."
    if clips_mean and not clip:
        return "note: --mean is that of CLIP, and these weights are no CLIP's: see recipe adapt.cfg for theirs."
    return ""


def starting_weights(path: str) -> keras.Model | dict[str, np.ndarray]:
    """The weights to `start_from`: a .keras, PyTorch or safetensors file, or keras_hub:PRESET (a name or a folder).

    A state dict of a Vision Transformer comes under the official names, whatever those of the file are.
    Raises ValueError for a file that cannot be read, or where a package that reads it is not installed.
    """
    kind, _, preset = path.partition(":")
    if kind == "keras_hub":
        try:
            import keras_hub
        except ImportError as error:
            raise ValueError(
                f"{path} needs the package keras-hub. Next to tensorflow-cpu install it with: "
                "python -m pip install --no-deps keras-hub && "
                "python -m pip install regex rich kagglehub sentencepiece tokenizers "
                "(with its dependencies it puts a second TensorFlow over the first)."
            ) from error
        return from_keras_hub(keras_hub.models.Backbone.from_preset(preset))
    if path.endswith(".keras"):
        return load_model(Path(path))[0]
    state = torch_weights.plain_names(read_file(Path(path))[0][""])
    try:
        return vit_layouts.official(state) if vit_layouts.is_vit(state) else state
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def read_file(path: Path) -> tuple[dict[str, State], dict[str, Any]]:
    """`torch_files.read` of a PyTorch file; of a file called *.safetensors, its weights, which have no settings."""
    if path.suffix == ".safetensors":
        return {"": safetensors.read(path)}, {}
    return torch_files.read(path)


def scale_cosines(network: keras.Model, *, ldam: float) -> bool:
    """Give a network whose outputs are bare cosines the scale of its LDAM loss, so that its outputs are logits.

    Networks of the official code, and those that version 0.1.0 trained without LDAM, have bare cosines. The predicted
    classes stay the same, but soft distillation and confidences take a softmax of the outputs.
    Returns whether the network had bare cosines.
    """
    last = network.layers[-1]
    bare = isinstance(last, resnet.CosineClassifier) and last.scale == 1 != ldam
    if bare:
        last.scale = ldam
    return bare


def start_cnn_from(network: keras.Model, path: str) -> None:
    """Set a CNN to the weights of a model file, or of pretrained:NAME; a classifier of another shape stays new.

    Raises ValueError for a file of another architecture, and what `backbones.network` raises.
    """
    kind, _, name = path.partition(":")
    if kind == "pretrained":
        source = torch_weights.build(backbones.network(name).sized(network.input_shape[1]))
    else:
        source, _ = load_model(Path(path))
    own, state = state_dict(network), state_dict(source)
    head = {name for name in own.keys() | state.keys() if name.split(".")[-2] == "fc"}
    body = (own.keys() | state.keys()) - head
    differ = [name for name in sorted(body) if name not in own or name not in state]
    differ += [name for name in sorted(body - set(differ)) if own[name].shape != state[name].shape]
    if differ:
        raise ValueError(f"{path} ({source.name}) is another network than {network.name}: {differ[0]} differs.")
    for name in body | {name for name in head & state.keys() & own.keys() if own[name].shape == state[name].shape}:
        own[name].assign(state[name].numpy())
