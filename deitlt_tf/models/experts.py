"""Residual networks of three experts for MDCS: a shared trunk, then each expert's own last stages and head.

Output: the mean of the experts' raw logits. The logits of an expert are the output of its layer `expert0.fc`,
`expert1.fc` or `expert2.fc`. Weights have the names of the official checkpoint, except that the expert comes first:
`layer2s.1.0.conv1` is `expert1.layer2.0.conv1`, `linears.1` is `expert1.fc`. `linear_head`, `linear_few` and `mlp` are
left out: the official CIFAR network holds them and never uses them.
Source: Zhao et al., ICCV 2023; fistyee/MDCS model/ldam_drw_resnets/expert_resnet_cifar.py and
model/fb_resnets/Expert_ResNet.py, with `reduce_dimension` and `use_norm` as in its configurations.
"""

from collections.abc import Sequence
from typing import Any

import keras

from deitlt_tf.models import resnet
from deitlt_tf.models.convolutions import BatchNorm, convolution

EXPERTS = 3
SCALE = 30.0  # factor of the cosines: softmax over cosines in [-1, 1] would be nearly uniform without it


def _stage(x: keras.KerasTensor, block: type, filters: int, count: int, *, name: str) -> keras.KerasTensor:
    """`count` blocks of `filters` channels; the first block halves the image, except in layer1."""
    for i in range(count):
        stride = 2 if i == 0 and not name.endswith("layer1") else 1
        x = block(filters, stride, name=f"{name}.{i}")(x)
    return x


def _head(*, num_classes: int, classifier: str, scale: float, name: str) -> keras.layers.Layer:
    if classifier == "cosine":
        return resnet.CosineClassifier(num_classes, scale=scale, name=name)
    if classifier != "linear":
        raise ValueError(f"classifier={classifier} is unknown: choose linear or cosine.")
    return keras.layers.Dense(num_classes, kernel_initializer=resnet._linear_kernel(), name=name, dtype="float32")


def _mean_of_experts(
    x: keras.KerasTensor, block: type, stages: Sequence[tuple[str, int, int]], **head: Any
) -> keras.KerasTensor:
    """The trunk's feature maps -> float32 logits [B, C].

    stages: (name, filters, blocks) of the stages of an expert. head: num_classes, classifier and scale of its head.
    """
    logits = []
    for k in range(EXPERTS):
        y = x
        for name, filters, count in stages:
            y = _stage(y, block, filters, count, name=f"expert{k}.{name}")
        y = keras.layers.GlobalAveragePooling2D(name=f"expert{k}.avgpool", dtype="float32")(y)
        logits.append(_head(**head, name=f"expert{k}.fc")(y))
    return keras.layers.Average(name="mean", dtype="float32")(logits)


def mdcs_cifar_resnet(
    x: keras.KerasTensor, *, num_classes: int, blocks: int, classifier: str = "cosine", scale: float = SCALE
) -> keras.KerasTensor:
    """Normalised images [B, S, S, 3] -> float32 logits [B, C]; 16 shared channels, then 24 and 48 of each expert.

    blocks: blocks of each stage; the network is 6 * blocks + 2 layers deep.
    classifier, scale: "cosine" (scale times the cosine) or "linear". Default to "cosine" and 30.
    Source: expert_resnet_cifar.py. Shortcuts are of option A: 16 -> 24 channels adds 4 zero channels on each side.
    """
    x = convolution(16, 3, mode="fan_in", name="conv1")(x)
    x = keras.layers.ReLU(name="relu")(BatchNorm(name="bn1")(x))
    x = _stage(x, resnet.BasicBlock, 16, blocks, name="layer1")
    stages = [("layer2", 24, blocks), ("layer3", 48, blocks)]
    return _mean_of_experts(x, resnet.BasicBlock, stages, num_classes=num_classes, classifier=classifier, scale=scale)


def mdcs_resnet(
    x: keras.KerasTensor,
    *,
    num_classes: int,
    blocks: tuple[int, int, int, int],
    classifier: str = "cosine",
    scale: float = SCALE,
) -> keras.KerasTensor:
    """Normalised images [B, S, S, 3] -> float32 logits [B, C]; shared through layer2, then experts of 3/4 the width.

    blocks: bottleneck blocks of each stage; (3, 4, 6, 3) is ResNet-50.
    classifier, scale: "cosine" (scale times the cosine) or "linear". Default to "cosine" and 30.
    Source: Expert_ResNet.py (v1.5: the stride is in the 3x3 convolution).
    """
    x = keras.layers.ZeroPadding2D(3, name="pad1")(x)
    x = convolution(64, 7, stride=2, mode="fan_out", name="conv1")(x)
    x = keras.layers.ReLU(name="relu")(BatchNorm(name="bn1")(x))
    x = keras.layers.ZeroPadding2D(1, name="pad2")(x)  # no value is below 0 after the ReLU, so zeros never win
    x = keras.layers.MaxPooling2D(3, strides=2, name="maxpool")(x)
    x = _stage(x, resnet.Bottleneck, 64, blocks[0], name="layer1")
    x = _stage(x, resnet.Bottleneck, 128, blocks[1], name="layer2")
    stages = [("layer3", 192, blocks[2]), ("layer4", 384, blocks[3])]
    return _mean_of_experts(x, resnet.Bottleneck, stages, num_classes=num_classes, classifier=classifier, scale=scale)
