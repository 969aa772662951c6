"""Models by name: pixels 0..255 in, float32 logits out, weights named as in the official checkpoints."""

import inspect
from collections.abc import Mapping, Sequence
from functools import partial

import keras
import numpy as np
import tensorflow as tf

from deitlt_tf.models import experts, resnet, vit

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

MODELS = {
    "deit_nano": partial(vit.vit, size="nano", distilled=True),
    "deit_tiny": partial(vit.vit, size="tiny", distilled=True),
    "deit_small": partial(vit.vit, size="small", distilled=True),
    "deit_base": partial(vit.vit, size="base", distilled=True),
    "vit_nano": partial(vit.vit, size="nano", distilled=False),
    "vit_tiny": partial(vit.vit, size="tiny", distilled=False),
    "vit_small": partial(vit.vit, size="small", distilled=False),
    "vit_base": partial(vit.vit, size="base", distilled=False),
    "resnet8": partial(resnet.cifar_resnet, blocks=1),
    "resnet20": partial(resnet.cifar_resnet, blocks=3),
    "resnet32": partial(resnet.cifar_resnet, blocks=5),
    "resnet18_cifar": partial(resnet.basic_resnet, blocks=(2, 2, 2, 2)),
    "resnet34_cifar": partial(resnet.basic_resnet, blocks=(3, 4, 6, 3)),
    "resnet50": partial(resnet.resnet, blocks=(3, 4, 6, 3)),
    "resnet101": partial(resnet.resnet, blocks=(3, 4, 23, 3)),
    "resnet152": partial(resnet.resnet, blocks=(3, 8, 36, 3)),
    "resnext50": partial(resnet.resnet, blocks=(3, 4, 6, 3), groups=32, width_per_group=4),
    "mdcs_resnet8": partial(experts.mdcs_cifar_resnet, blocks=1),
    "mdcs_resnet32": partial(experts.mdcs_cifar_resnet, blocks=5),
    "mdcs_resnet50": partial(experts.mdcs_resnet, blocks=(3, 4, 6, 3)),
}


@keras.saving.register_keras_serializable(package="deitlt_tf")
class Normalize(keras.layers.Layer):
    """(pixels / 255 - mean) / std, per channel, in float32 whatever the precision. Pixels: uint8 or float, 0..255.

    mean, std: three floats each, of pixels scaled to 0..1.
    """

    def __init__(self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD, **kwargs):
        super().__init__(**kwargs | {"dtype": "float32"})
        self.mean, self.std = tuple(mean), tuple(std)
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(f"mean and std take three numbers each, std above 0, not {self.mean} and {self.std}")

    def build(self, input_shape):
        pass

    def call(self, x):
        # A row of pixels at a time: TensorFlow broadcasts three numbers alone four times more slowly.
        mean, std = (tf.broadcast_to(tf.constant(three, tf.float32), x.shape[-2:]) for three in (self.mean, self.std))
        return (tf.cast(x, tf.float32) / 255 - mean) / std

    def get_config(self):
        return super().get_config() | {"mean": self.mean, "std": self.std}


def build(
    name: str,
    *,
    num_classes: int,
    image_size: int,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    **options: object,
) -> keras.Model:
    """The model `name` of MODELS: images [B, S, S, 3], uint8 or float 0..255 -> float32 logits.

    deit_*: {"cls": [B, C], "dist": [B, C]}; vit_*, resnet*: [B, C]. The first layer normalises by `mean` and `std`.
    mdcs_*: [B, C], the mean of three experts' logits, each the output of a layer `expert{k}.fc`.
    options: what the constructor takes; None means its default.
      deit_*, vit_*: patch_size=16, drop_path=0.1, embed_dim, depth, num_heads (by default those of the size).
      resnet*: classifier="linear" or "cosine" (cosines in [-1, 1], unscaled).
      resnet50|101|152: groups=1, width_per_group=64 of the 3x3 convolutions.
      mdcs_*: classifier="cosine" (30 times the cosine) or "linear".
    Raises ValueError for an unknown name, an option the model does not have, sizes that do not fit.
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}: choose one of {', '.join(MODELS)}")
    constructor = MODELS[name]
    options = {key: value for key, value in options.items() if value is not None}
    allowed = inspect.signature(constructor).parameters.keys() - constructor.keywords.keys() - {"x", "num_classes"}
    if unknown := sorted(options.keys() - allowed):
        raise ValueError(f"{name} has no option {', '.join(unknown)}: it takes {', '.join(sorted(allowed))}")
    images = keras.Input((image_size, image_size, 3), dtype="float32", name="images")  # Keras casts uint8 to it
    x = Normalize(mean, std, name="normalize")(images)
    return keras.Model(images, constructor(x, num_classes=num_classes, **options), name=name)


# Keras name of a variable -> torch's, where they differ.
_TORCH = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def torch_name(variable: keras.Variable) -> str:
    """The official name: blocks.0/attn/qkv/kernel -> blocks.0.attn.qkv.weight, tokens/cls_token -> cls_token."""
    *layers, name = variable.path.removeprefix("tokens/").split("/")
    return ".".join([*layers, _TORCH.get(name, name)])


def state_dict(model: keras.Model) -> dict[str, keras.Variable]:
    """The model's variables by their official names, in the model's order. One name never stands for two variables."""
    state = {torch_name(variable): variable for variable in model.variables}
    assert len(state) == len(model.variables), "two variables share a name"
    return state


def _from_torch(value: np.ndarray, variable: keras.Variable) -> np.ndarray:
    """torch's layout -> Keras': Linear [out, in] -> [in, out], convolution OIHW -> HWIO; all else stays."""
    value = np.asarray(value)
    axes = {2: (1, 0), 4: (2, 3, 1, 0)}.get(value.ndim) if variable.name == "kernel" else None
    return value if axes is None else value.transpose(axes)


def load_state(model: keras.Model, state: Mapping[str, np.ndarray]) -> None:
    """Assign `state` (official name -> array in torch's layout): every key used once, every variable set once.

    torch's `num_batches_tracked` counters are ignored. Raises ValueError before anything is assigned; it lists the
    variables without a key, the keys without a variable and the shapes that differ.
    """
    variables = state_dict(model)
    keys = {key for key in state if not key.endswith("num_batches_tracked")}
    values = {name: _from_torch(state[name], variable) for name, variable in variables.items() if name in keys}
    shapes = [
        f"{name} {values[name].shape}, needs {tuple(variables[name].shape)}"
        for name in values
        if values[name].shape != tuple(variables[name].shape)
    ]
    problems = {
        "missing": sorted(variables.keys() - keys),
        "left over": sorted(keys - variables.keys()),
        "shape": shapes,
    }
    if any(problems.values()):
        listed = "; ".join(f"{what}: {', '.join(names)}" for what, names in problems.items() if names)
        raise ValueError(f"these weights do not fit {model.name}: {listed}")
    for name, value in values.items():
        variables[name].assign(value)
