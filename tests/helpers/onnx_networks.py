"""Small networks of every kind that is exported, and onnxruntime on the graphs made of them."""

from functools import partial

import keras
import numpy as np
import onnx
import onnxruntime

from deitlt_tf import models
from deitlt_tf.models import experts, features, interface, resnet

SMALL_VIT = {"image_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}


# What pre-trained Vision Transformers and their adapters have besides, all of it at once.
PRETRAINED = {"pre_norm": True, "patch_bias": False, "registers": 3, "activation": "quick_gelu", "layer_scale": 0.5}
PRETRAINED |= {"epsilon": 1e-5, "adapter": 2, "lora": 2, "classifier": "cosine"}


def residual(network, **kwargs) -> keras.Model:
    """A residual network of five classes for 16 x 16 pixels."""
    images = keras.Input((16, 16, 3), name="images")
    return keras.Model(images, network(interface.Normalize(name="normalize")(images), num_classes=5, **kwargs))


def efficientnet() -> keras.Model:
    """EfficientNet-Lite0 with centred features and a cosine classifier; its maps have odd and even sides."""
    network = models.build("efficientnet_lite0", num_classes=5, image_size=33)
    return features.with_cosine_head(features.backbone(network), num_classes=5, scale=25.0)


# Name: a function that builds the network; together they have every layer that is exported.
NETWORKS = {
    "deit": partial(models.build, "deit_nano", num_classes=5, **SMALL_VIT),
    "deit_stem": partial(models.build, "deit_nano", num_classes=5, stem="conv", **SMALL_VIT),
    "vit": partial(models.build, "vit_nano", num_classes=5, **SMALL_VIT),
    "pretrained": partial(models.build, "vit_nano", num_classes=5, **SMALL_VIT, **PRETRAINED),
    "pretrained_deit": partial(models.build, "deit_nano", num_classes=5, **SMALL_VIT, **PRETRAINED),
    "resnet8_cosine": partial(models.build, "resnet8", num_classes=5, image_size=16, classifier="cosine"),
    "basic": partial(residual, resnet.basic_resnet, blocks=(1, 1, 1, 1)),
    "resnext": partial(residual, resnet.resnet, blocks=(1, 1, 1, 1), groups=4, width_per_group=4),
    "efficientnet": efficientnet,
    "mdcs": partial(residual, experts.mdcs_cifar_resnet, blocks=1),
}


def shaken(model: keras.Model, seed: int = 0) -> keras.Model:
    """No weight where it starts: biases, BatchNorm and its statistics matter, and images differ in their answers."""
    draw = np.random.default_rng(seed)
    for variable in model.variables:
        value = variable.numpy()
        if variable.path.endswith("moving_variance"):
            variable.assign(draw.uniform(0.5, 2, value.shape))
        else:
            variable.assign(value + draw.normal(0, 0.05, value.shape))
    return model


def pixels(model: keras.Model, count: int = 5) -> np.ndarray:
    """Random images of a network's input size, uint8."""
    return np.random.default_rng(1).integers(0, 256, (count, *model.input_shape[1:]), dtype=np.uint8)


def run_in_onnx(file: onnx.ModelProto, images: np.ndarray) -> dict[str, np.ndarray]:
    """Named outputs of a graph."""
    session = onnxruntime.InferenceSession(file.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"images": images}), strict=True))
