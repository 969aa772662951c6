"""Names and shapes of weights as the field publishes them, and tiny networks whose weights have those names."""

import functools

import keras
import numpy as np

from deitlt_tf import models
from deitlt_tf.interop import torch_weights

# A student whose weights a test imports; its classes are the colours of helpers.programs.
IMPORTED = {"num_classes": 3, "image_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}
TINY = {"num_classes": 5, "image_size": 16, "patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 2}
RAW = {"mean": (0, 0, 0), "std": (1, 1, 1)}  # the reference vectors' images are normalised already


def empty(shapes: dict[str, tuple]) -> dict[str, np.ndarray]:
    """A state dict of these shapes that takes no memory."""
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}


def deit_shapes(dim: int, *, depth: int = 12, patch: int = 16, grid: int = 14, classes: int = 1000, dist: bool = True):
    """Names and shapes of facebookresearch/deit's and timm's (distilled) DeiT."""
    block = {"norm1": (dim,), "attn.qkv": (3 * dim, dim), "attn.proj": (dim, dim)}
    block |= {"norm2": (dim,), "mlp.fc1": (4 * dim, dim), "mlp.fc2": (dim, 4 * dim)}
    layers = {"patch_embed.proj": (dim, 3, patch, patch), "norm": (dim,), "head": (classes, dim)}
    layers |= {"head_dist": (classes, dim)} if dist else {}
    layers |= {f"blocks.{i}.{name}": shape for i in range(depth) for name, shape in block.items()}
    shapes = {"cls_token": (1, 1, dim), "pos_embed": (1, grid**2 + 1 + dist, dim)}
    shapes |= {"dist_token": (1, 1, dim)} if dist else {}
    shapes |= {f"{name}.weight": shape for name, shape in layers.items()}
    return shapes | {f"{name}.bias": shape[:1] for name, shape in layers.items()}


def resnet_shapes(blocks: tuple[int, ...], *, width: int = 64, groups: int = 1, classes: int = 1000):
    """Names and shapes of torchvision's ResNets with bottlenecks; `width`: channels of the first 3x3 convolution."""
    shapes = {"conv1.weight": (64, 3, 7, 7), "fc.weight": (classes, 2048), "fc.bias": (classes,)}
    norms, below = {"bn1": 64}, 64
    for stage, count in enumerate(blocks):
        inner, out = width * 2**stage, 256 * 2**stage
        for i in range(count):
            at = f"layer{stage + 1}.{i}"
            convs = {
                "conv1": (inner, below, 1, 1),
                "conv2": (inner, inner // groups, 3, 3),
                "conv3": (out, inner, 1, 1),
            }
            convs |= {"downsample.0": (out, below, 1, 1)} if i == 0 else {}
            shapes |= {f"{at}.{name}.weight": shape for name, shape in convs.items()}
            names = {"conv1": "bn1", "conv2": "bn2", "conv3": "bn3", "downsample.0": "downsample.1"}
            norms |= {f"{at}.{names[name]}": shape[0] for name, shape in convs.items()}
            below = out
    parts = ("weight", "bias", "running_mean", "running_var")
    shapes |= {f"{name}.{part}": (size,) for name, size in norms.items() for part in parts}
    return shapes | {f"{name}.num_batches_tracked": () for name in norms}


def paco_shapes(body: dict[str, tuple], *, dim: int, classes: int) -> dict[str, tuple]:
    """Names and shapes of a MoCo object of the official code in DataParallel: two branches, heads, queue."""
    body = {name: shape for name, shape in body.items() if not name.startswith("fc.")}
    projection = {"fc.0.weight": (dim, dim), "fc.0.bias": (dim,), "fc.1.weight": (dim,), "fc.1.bias": (dim,)}
    projection |= {"fc.1.running_mean": (dim,), "fc.1.running_var": (dim,), "fc.1.num_batches_tracked": ()}
    projection |= {"fc.3.weight": (32, dim), "fc.3.bias": (32,)}
    shapes = {f"encoder_{k}.{name}": s for k in "qk" for name, s in (body | projection).items()}
    for linear in ("linear", "linear_k"):
        shapes |= {f"{linear}.weight": (classes, dim), f"{linear}.bias": (classes,)}
    shapes |= {"queue": (1024, 32), "queue_l": (1024,), "queue_ptr": (1,)}
    return {f"module.{name}": shape for name, shape in shapes.items()}


def without(shapes: dict, *names: str) -> dict:
    return {name: shape for name, shape in shapes.items() if name not in names}


@functools.cache  # building takes longer than all that is tested; who needs other weights sets them
def tiny(name: str = "deit_nano", **changes) -> keras.Model:
    return models.build(name, **(TINY | changes))


def random_like(model: keras.Model) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(0, 0.5, v.shape).astype(np.float32) for name, v in torch_weights.to_torch(model).items()}


def pixels(size: int = 16) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (3, size, size, 3), np.uint8)


def tensors(torch, state: dict[str, np.ndarray]) -> dict:
    """The same state dict as PyTorch has it."""
    return {name: torch.from_numpy(value) for name, value in state.items()}
