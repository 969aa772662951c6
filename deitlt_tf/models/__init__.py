"""Models by name: pixels 0..255 in, float32 logits out, weights named as in the official checkpoints."""

import inspect
from collections.abc import Sequence
from functools import partial

import keras

from deitlt_tf.models import efficientnet, experts, features, interface, resnet, vit  # noqa: F401 (registers layers)

MODELS = {
    "deit_nano": partial(vit.vit, size="nano", distilled=True),
    "deit_tiny": partial(vit.vit, size="tiny", distilled=True),
    "deit_small": partial(vit.vit, size="small", distilled=True),
    "deit_base": partial(vit.vit, size="base", distilled=True),
    "deit_large": partial(vit.vit, size="large", distilled=True),
    "vit_nano": partial(vit.vit, size="nano", distilled=False),
    "vit_tiny": partial(vit.vit, size="tiny", distilled=False),
    "vit_small": partial(vit.vit, size="small", distilled=False),
    "vit_base": partial(vit.vit, size="base", distilled=False),
    "vit_large": partial(vit.vit, size="large", distilled=False),
    "resnet8": partial(resnet.cifar_resnet, blocks=1),
    "resnet20": partial(resnet.cifar_resnet, blocks=3),
    "resnet32": partial(resnet.cifar_resnet, blocks=5),
    "resnet18_cifar": partial(resnet.basic_resnet, blocks=(2, 2, 2, 2)),
    "resnet34_cifar": partial(resnet.basic_resnet, blocks=(3, 4, 6, 3)),
    "resnet50": partial(resnet.resnet, blocks=(3, 4, 6, 3)),
    "resnet101": partial(resnet.resnet, blocks=(3, 4, 23, 3)),
    "resnet152": partial(resnet.resnet, blocks=(3, 8, 36, 3)),
    "resnext50": partial(resnet.resnet, blocks=(3, 4, 6, 3), groups=32, width_per_group=4),
    "efficientnet_lite0": partial(efficientnet.efficientnet_lite, number=0),
    "efficientnet_lite1": partial(efficientnet.efficientnet_lite, number=1),
    "efficientnet_lite2": partial(efficientnet.efficientnet_lite, number=2),
    "mdcs_resnet8": partial(experts.mdcs_cifar_resnet, blocks=1),
    "mdcs_resnet32": partial(experts.mdcs_cifar_resnet, blocks=5),
    "mdcs_resnet50": partial(experts.mdcs_resnet, blocks=(3, 4, 6, 3)),
}


def build(
    name: str,
    *,
    num_classes: int,
    image_size: int,
    mean: Sequence[float] = interface.IMAGENET_MEAN,
    std: Sequence[float] = interface.IMAGENET_STD,
    **options: object,
) -> keras.Model:
    """The model `name` of MODELS: images [B, S, S, 3], uint8 or float 0..255 -> float32 logits.

    deit_*: {"cls": [B, C], "dist": [B, C]}; vit_*, resnet*, efficientnet_lite*: [B, C].
    mdcs_*: [B, C], the mean of three experts' logits; the layer `expert{k}.fc` has those of expert k.

    num_classes: C. image_size: S, side of the images in pixels.
    mean, std: three floats each, by which the first layer normalises pixels of 0..1. Default to those of ImageNet.
    options: keywords of the model; None means the default.
      deit_*, vit_*: patch_size=16, stem="patch" or "conv", drop_path=0.1; embed_dim, depth, num_heads (defaults: those
        of the size); pre_norm, patch_bias, registers, activation, layer_scale, epsilon of pre-trained networks;
        adapter, lora; classifier="linear" or "cosine", scale=25 of the cosines. See `vit.vit`.
      resnet*, efficientnet_lite*: classifier="linear" or "cosine"; scale=1 of the cosines.
      resnet50|101|152: groups=1, width_per_group=64 of the 3x3 convolutions.
      mdcs_*: classifier="cosine" or "linear"; scale=30 of the cosines.
    Raises ValueError for an unknown name, an option that the model does not have, and sizes that do not fit.

    >>> student = build("deit_tiny", num_classes=10, image_size=32, patch_size=4)
    >>> {head: logits.shape for head, logits in student.output.items()}
    {'cls': (None, 10), 'dist': (None, 10)}
    >>> teacher = build("resnet32", num_classes=10, image_size=32, classifier="cosine")
    >>> teacher.input_shape, teacher.output_shape
    ((None, 32, 32, 3), (None, 10))
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}: choose one of {', '.join(MODELS)}.")
    constructor = MODELS[name]
    options = {key: value for key, value in options.items() if value is not None}
    allowed = inspect.signature(constructor).parameters.keys() - constructor.keywords.keys() - {"x", "num_classes"}
    if unknown := sorted(options.keys() - allowed):
        raise ValueError(f"{name} has no option {', '.join(unknown)}: it takes {', '.join(sorted(allowed))}.")
    images = keras.Input((image_size, image_size, 3), dtype="float32", name="images")  # Keras casts uint8 to it
    x = interface.Normalize(mean, std, name="normalize")(images)
    return keras.Model(images, constructor(x, num_classes=num_classes, **options), name=name)
