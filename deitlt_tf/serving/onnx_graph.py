"""A Keras network of this project as an ONNX graph, node by node: opset 17, only ai.onnx, only the batch size is free.

We do not use a converter. For a Tiny student, tf2onnx makes 655 nodes in 8 s of processor time, with ten nodes for each
LayerNorm. This module makes 341 nodes in 0.15 s, and onnxruntime runs them in 3/4 of the time, because it has one
kernel each for LayerNorm and GELU (`benchmarks/onnx_latency.py`). Three other forms were not faster, because then
onnxruntime fuses other nodes: 3-D products with a separate bias, another layout of the key, no biases of k and v.
In the last block only CLS and DIST are queries and go through the MLP, because nothing reads the patches after it.
"""

import math
from typing import Any

import keras
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from deitlt_tf.data.taxonomy import Taxonomy
from deitlt_tf.models import adapters, efficientnet, features, interface, resnet, vit
from deitlt_tf.serving import onnx_taxonomy

OPSET = 17
IR_VERSION = 8  # the oldest version that allows opset 17, so that old runtimes can read the file
INPUT_TYPES = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}


class Graph:
    """The nodes and constants of a graph. A tensor is its name; each method adds a tensor and returns its name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def op(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """A node of this kind. name: of the node and its output; "": the kind and a number."""
        name = name or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def weight(self, value: np.ndarray, name: str) -> str:
        """A float32 constant with a name of its own."""
        assert name not in self.constants, f"two weights are called {name}"
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name)
        return name

    def number(self, value: float) -> str:
        """A float32 scalar; equal numbers share a constant."""
        self.constants[f"{value:.9g}"] = numpy_helper.from_array(np.array(value, np.float32), f"{value:.9g}")
        return f"{value:.9g}"

    def integers(self, *values: int) -> str:
        """An int64 vector; equal vectors share a constant."""
        name = str(list(values))
        self.constants[name] = numpy_helper.from_array(np.array(values, np.int64), name)
        return name

    def reshape(self, x: str, *shape: int) -> str:
        """x in another shape; one entry may be -1."""
        return self.op("Reshape", x, self.integers(*shape))

    def dense(self, x: str, kernel: np.ndarray, bias: np.ndarray, name: str) -> str:
        """x W + b for rows [N, in]: one Gemm."""
        return self.op("Gemm", x, self.weight(kernel, f"{name}.weight"), self.weight(bias, f"{name}.bias"), name=name)

    def linear(self, x: str, layer: keras.layers.Dense, name: str) -> str:
        """A Dense layer on rows."""
        return self.dense(x, layer.kernel.numpy(), layer.bias.numpy(), name)

    def layer_norm(self, x: str, layer: keras.layers.LayerNormalization, name: str) -> str:
        """A LayerNorm over the last axis."""
        gamma, beta = self.weight(layer.gamma, f"{name}.weight"), self.weight(layer.beta, f"{name}.bias")
        return self.op("LayerNormalization", x, gamma, beta, name=name, axis=-1, epsilon=layer.epsilon)


def build(
    model: keras.Model,
    *,
    heads: str,
    adjustment: np.ndarray | None = None,
    input_type: str = "uint8",
    metadata: dict[str, str] | None = None,
    with_rollout: bool = False,
    taxonomy: Taxonomy | None = None,
    threshold: float | None = None,
) -> onnx.ModelProto:
    """images [batch, S, S, 3], pixels 0..255 -> `logits_<head>` and `probabilities`, float32 [batch, C] each.

    model: of `models.build`, in float32.
    heads: "all", or one of "mean", "cls", "dist".
    adjustment: float32 [C], added to the logits of `interface.main_head`; None: nothing is added.
    input_type: of the pixels, a key of INPUT_TYPES.
    metadata: metadata_props of the file.
    with_rollout: adds the output `rollout`, float32 [batch, P, g, g]; for Vision Transformers only.
    taxonomy, threshold: of the classes, and the probability from which an answer at a rank is sure: with both, the
      outputs of `onnx_taxonomy` are added.
    Raises ValueError for a network with a layer that has no counterpart here.
    """
    graph = Graph()
    two = isinstance(model.output, dict)
    computed = ("cls", "dist") if two and heads in ("all", "mean") else (heads,)
    is_vit = any(isinstance(layer, vit.Block) for layer in model.layers)
    logits = transformer(graph, model, computed) if is_vit else {"cls": convolutional(graph, model)}
    if computed == ("cls", "dist"):
        logits["mean"] = graph.op("Mul", graph.op("Add", logits["cls"], logits["dist"]), graph.number(0.5))
    main = interface.main_head(heads)
    if adjustment is not None:
        logits[main] = graph.op("Add", logits[main], graph.weight(adjustment, "prior"))
    returned = logits if heads == "all" else {main: logits[main]}
    outputs = [graph.op("Identity", tensor, name=f"logits_{name}") for name, tensor in returned.items()]
    outputs.append(graph.op("Softmax", logits[main], name="probabilities", axis=-1))

    size, classes = model.input_shape[1], interface.heads(model.output)["cls"].shape[-1]
    shapes = {name: [classes] for name in outputs}
    types = dict.fromkeys(shapes, TensorProto.FLOAT)
    if taxonomy is not None and threshold is not None:
        added = onnx_taxonomy.add_outputs(graph, "probabilities", taxonomy=taxonomy, threshold=threshold)
        types |= added
        shapes |= {name: [] for name in added}
    if with_rollout:
        tensor, shape = rollout(graph, model)
        shapes[graph.op("Identity", tensor, name="rollout")] = shape
    proto = helper.make_model(
        helper.make_graph(
            graph.nodes,
            model.name,
            [helper.make_tensor_value_info("images", INPUT_TYPES[input_type], ["batch", size, size, 3])],
            [
                helper.make_tensor_value_info(name, types.get(name, TensorProto.FLOAT), ["batch", *shape])
                for name, shape in shapes.items()
            ],
            list(graph.constants.values()),
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="deitlt_tf",
    )
    helper.set_model_props(proto, metadata or {})
    return proto


def transformer(graph: Graph, model: keras.Model, heads: tuple[str, ...]) -> dict[str, str]:
    """`vit.vit` and the normalisation before it -> {head: logits}, for "cls" and "dist" in `heads`."""
    prefix, blocks = model.get_layer("tokens").prefix, [x for x in model.layers if isinstance(x, vit.Block)]
    x = embedding(graph, model)
    if pre_norm := [layer for layer in model.layers if layer.name == "norm_pre"]:
        x = graph.layer_norm(x, pre_norm[0], "norm_pre")
    for layer in blocks:
        x = block(graph, layer, x, queries=prefix if layer is blocks[-1] else layer.length)
    x = graph.layer_norm(x, model.get_layer("norm"), "norm")
    x = graph.reshape(x, -1, prefix, blocks[-1].dim)
    layers = {"cls": "head", "dist": "head_dist"}
    logits = {}
    for head in heads:
        row = graph.op("Gather", x, graph.integers(("cls", "dist").index(head)), axis=1)
        layer = model.get_layer(layers[head])
        row = graph.reshape(row, -1, blocks[-1].dim)
        cosine_head = isinstance(layer, resnet.CosineClassifier)
        logits[head] = cosine(graph, layer, row, layer.name) if cosine_head else graph.linear(row, layer, layer.name)
    return logits


def embedding(graph: Graph, model: keras.Model) -> str:
    """Pixels -> rows of tokens, CLS (and DIST) first."""
    tokens, dim = model.get_layer("tokens"), model.get_layer("tokens").pos_embed.shape[-1]
    x = convolved(graph, model) if vit.has_conv_stem(model) else projected_pixels(graph, model)
    x = graph.reshape(x, -1, tokens.patches, dim)
    x = graph.op("Pad", x, graph.integers(0, tokens.leading, 0, 0, 0, 0))
    offset = tokens.pos_embed.numpy().copy()
    offset[:, 0] += tokens.cls_token.numpy()[:, 0]
    if tokens.distilled:
        offset[:, 1] += tokens.dist_token.numpy()[:, 0]
    if tokens.registers:
        offset = np.insert(offset, [tokens.prefix], tokens.reg_token.numpy(), axis=1)
    return graph.reshape(graph.op("Add", x, graph.weight(offset, "pos_embed")), -1, dim)


def projected_pixels(graph: Graph, model: keras.Model) -> str:
    """Pixels -> rows of patches [batch * patches, D], by the patch projection.

    The normalisation becomes part of it: (x / 255 - mean) / std W + b = x W' + b', which is exact.
    The patches are cut out before the cast to float32, while a pixel is still one byte.
    """
    normalize, layer = (model.get_layer(name) for name in ("normalize", "patch_embed.proj"))
    patch, dim, grid = layer.kernel_size[0], layer.filters, model.input_shape[1] // layer.kernel_size[0]
    mean, std = np.asarray(normalize.mean, np.float64), np.asarray(normalize.std, np.float64)
    kernel = layer.kernel.numpy().astype(np.float64)  # (patch, patch, 3, D)
    bias = (layer.bias.numpy() if layer.use_bias else 0) - np.einsum("hwcd,c->d", kernel, mean / std)
    kernel = (kernel / (255 * std)[:, None]).reshape(-1, dim)

    x = graph.reshape("images", -1, grid, patch, grid, patch, 3)
    x = graph.reshape(graph.op("Transpose", x, perm=(0, 1, 3, 2, 4, 5)), -1, patch * patch * 3)
    return graph.dense(graph.op("Cast", x, to=TensorProto.FLOAT), kernel, bias, layer.name)


def convolved(graph: Graph, model: keras.Model) -> str:
    """Pixels -> patches [batch, S / p, S / p, D], by `stems.ConvStem`. BatchNorm is folded into the convolutions."""
    stem = model.get_layer("patch_embed")
    x = counterpart(graph, model.get_layer("normalize"), ["images"])
    for layer, norm in stem.halvings:
        scale = norm.gamma.numpy() / np.sqrt(norm.moving_variance.numpy() + norm.epsilon)
        bias = norm.beta.numpy() - norm.moving_mean.numpy() * scale
        x = graph.op("Relu", biased(graph, layer, layer.kernel.numpy() * scale, bias, x, f"patch_embed.{layer.name}"))
    x = biased(graph, stem.proj, stem.proj.kernel.numpy(), stem.proj.bias.numpy(), x, "patch_embed.proj")
    return graph.op("Transpose", x, perm=(0, 2, 3, 1))


def biased(graph: Graph, layer: keras.layers.Conv2D, kernel: np.ndarray, bias: np.ndarray, x: str, name: str) -> str:
    """A convolution of maps [batch, C, h, w] with this kernel, [k, k, in, out], and a bias; padded by k // 2."""
    weights = graph.weight(kernel.transpose(3, 2, 0, 1), f"{name}.weight"), graph.weight(bias, f"{name}.bias")
    pad = layer.kernel_size[0] // 2
    return graph.op("Conv", x, *weights, name=name, strides=layer.strides, pads=(pad,) * 4)


def block(graph: Graph, layer: vit.Block, x: str, *, queries: int) -> str:
    """`vit.Block` on rows [batch * T, D] -> rows [batch * queries, D]: the first `queries` tokens of each image.

    The factors of LayerScale and of q k^T, and LoRA's products, become part of the kernels: they cost no node.
    """
    name, length, dim, heads = layer.name, layer.length, layer.dim, layer.attn.num_heads
    qkv = layer.attn.qkv.kernel.numpy()
    kernels = np.split(qkv + layer.attn.lora.product().numpy() if layer.attn.lora else qkv, 3, axis=1)
    biases = np.split(layer.attn.qkv.bias.numpy(), 3)
    scale = (dim // heads) ** -0.5
    kernels[0], biases[0] = kernels[0] * scale, biases[0] * scale  # scales q k^T without a node of its own

    def first(rows: str) -> str:
        if queries == length:
            return rows
        rows = graph.op("Slice", graph.reshape(rows, -1, length, dim), *map(graph.integers, (0, queries, 1)))
        return graph.reshape(rows, -1, dim)

    def part(index: int, rows: str, tokens: int, perm: tuple[int, ...]) -> str:
        rows = graph.dense(rows, kernels[index], biases[index], f"{name}.attn.{'qkv'[index]}")
        return graph.op("Transpose", graph.reshape(rows, -1, tokens, heads, dim // heads), perm=perm)

    def dense(rows: str, layer: keras.layers.Dense, path: str, factors: vit.LayerScale | None = None) -> str:
        gamma = 1 if factors is None else factors.gamma.numpy()
        return graph.dense(rows, layer.kernel.numpy() * gamma, layer.bias.numpy() * gamma, f"{name}.{path}")

    y = graph.layer_norm(x, layer.norm1, f"{name}.norm1")
    q = part(0, first(y), queries, (0, 2, 1, 3))  # (batch, heads, queries, d)
    k = part(1, y, length, (0, 2, 3, 1))  # (batch, heads, d, T)
    v = part(2, y, length, (0, 2, 1, 3))  # (batch, heads, T, d)
    attention = graph.op("Softmax", graph.op("MatMul", q, k), name=f"{name}.attn.probabilities", axis=-1)
    y = graph.op("Transpose", graph.op("MatMul", attention, v), perm=(0, 2, 1, 3))
    x = graph.op("Add", first(x), dense(graph.reshape(y, -1, dim), layer.attn.proj, "attn.proj", layer.ls1))
    y = dense(graph.layer_norm(x, layer.norm2, f"{name}.norm2"), layer.fc1, "mlp.fc1")
    y = dense((gelu if layer.activation == "gelu" else quick_gelu)(graph, y), layer.fc2, "mlp.fc2", layer.ls2)
    if layer.adapter:
        y = graph.op("Add", y, adapter(graph, layer.adapter, x, f"{name}.adapter"))
    return graph.op("Add", x, y, name=name)


def adapter(graph: Graph, layer: adapters.AdaptFormer, x: str, name: str) -> str:
    """`adapters.AdaptFormer` on rows [N, D]; its factor becomes part of the second product."""
    gamma, beta = (graph.weight(v.numpy(), f"{name}.{v.name}") for v in (layer.gamma, layer.beta))
    y = graph.op("LayerNormalization", x, gamma, beta, axis=-1, epsilon=adapters.EPSILON)
    y = graph.op("Relu", graph.dense(y, layer.down.numpy(), layer.down_bias.numpy(), f"{name}.down"))
    scale = layer.scale.numpy()
    return graph.dense(y, scale * layer.up.numpy(), scale * layer.up_bias.numpy(), f"{name}.up")


def rollout(graph: Graph, model: keras.Model) -> tuple[str, list[int]]:
    """`probes.rollout` of the patches, only the rows of CLS (and DIST): [batch, P, g, g], and its shape without batch.

    The product starts at the last block, whose attention has only those P rows. Each factor then costs P T^2 instead of
    T^3.
    """
    tokens, blocks = model.get_layer("tokens"), [x for x in model.layers if isinstance(x, vit.Block)]
    prefix, side = tokens.prefix, math.isqrt(tokens.patches)
    rows = ""
    for layer in reversed(blocks):
        mean = graph.op("ReduceMean", f"{layer.name}.attn.probabilities", axes=[1], keepdims=0)
        identity = np.eye(layer.length if rows else prefix, layer.length)
        eye = graph.weight(identity, f"{layer.name}.identity")
        factor = graph.op("Mul", graph.op("Add", mean, eye), graph.number(0.5))
        rows = graph.op("MatMul", rows, factor) if rows else factor
    ends = (tokens.leading, tokens.leading + tokens.patches, 2)  # of axis 2: the patches
    rows = graph.op("Slice", rows, *map(graph.integers, ends))
    return graph.reshape(rows, -1, prefix, side, side), [prefix, side, side]


def gelu(graph: Graph, x: str) -> str:
    """x (1 + erf(x / sqrt 2)) / 2, in the form that onnxruntime fuses into one kernel."""
    erf = graph.op("Erf", graph.op("Div", x, graph.number(math.sqrt(2))))
    return graph.op("Mul", graph.op("Mul", x, graph.op("Add", erf, graph.number(1))), graph.number(0.5))


def quick_gelu(graph: Graph, x: str) -> str:
    """x sigmoid(1.702 x)."""
    return graph.op("Mul", x, graph.op("Sigmoid", graph.op("Mul", x, graph.number(1.702))))


def convolutional(graph: Graph, model: keras.Model) -> str:
    """The layers of a functional model with one output, in its order -> the output."""
    tensors = {}  # {id of a Keras tensor: its name in the graph}
    for operation in model.operations:
        if isinstance(operation, keras.layers.InputLayer):
            tensors[id(operation.output)] = "images"
            continue
        # A model inside the model has inputs of its own; `counterpart` refuses it.
        inputs = [tensors.get(id(tensor), "") for tensor in keras.tree.flatten(operation.input)]
        tensors[id(operation.output)] = counterpart(graph, operation, inputs)
    return tensors[id(model.output)]


def counterpart(graph: Graph, layer: keras.Operation, inputs: list[str]) -> str:
    """One Keras layer in ONNX -> its output. Raises ValueError for a layer of any other kind."""
    x, name = inputs[0], layer.name
    match layer:
        case interface.Normalize():
            mean, std = np.asarray(layer.mean, np.float64), np.asarray(layer.std, np.float64)
            scale, shift = 1 / (255 * std), -mean / std
            x = graph.op("Cast", graph.op("Transpose", x, perm=(0, 3, 1, 2)), to=TensorProto.FLOAT)
            x = graph.op("Mul", x, graph.weight(scale[:, None, None], f"{name}.scale"))
            return graph.op("Add", x, graph.weight(shift[:, None, None], f"{name}.shift"))
        case keras.layers.ZeroPadding2D():
            (top, bottom), (left, right) = layer.padding
            return graph.op("Pad", x, graph.integers(0, 0, top, left, 0, 0, bottom, right), name=name)
        case keras.layers.Conv2D():
            return conv(graph, layer, x, name, pad=padding(layer, layer.kernel_size[0], layer.strides[0]))
        case keras.layers.BatchNormalization():
            return batch_norm(graph, layer, x, name)
        case keras.layers.ReLU():
            return relu6(graph, x, name) if layer.max_value == 6 else graph.op("Relu", x, name=name)
        case keras.layers.MaxPooling2D():
            return graph.op("MaxPool", x, name=name, kernel_shape=layer.pool_size, strides=layer.strides)
        case resnet.BasicBlock():
            return basic_block(graph, layer, x)
        case resnet.Bottleneck():
            return bottleneck(graph, layer, x)
        case efficientnet.MBConv():
            return inverted_bottleneck(graph, layer, x)
        case features.Centre():
            return graph.op("Sub", x, graph.weight(layer.mean.numpy(), f"{name}.mean"), name=name)
        case keras.layers.GlobalAveragePooling2D():
            return graph.op("Flatten", graph.op("GlobalAveragePool", x), name=name)
        case keras.layers.Dense():
            return graph.linear(x, layer, name)
        case resnet.CosineClassifier():
            return cosine(graph, layer, x, name)
        case keras.layers.Average():
            return graph.op("Mean", *inputs, name=name)
    raise ValueError(
        f"the ONNX export has no counterpart of layer {name!r} ({type(layer).__name__}). The exports to_litert and "
        "to_saved_model take any network."
    )


def padding(layer: keras.layers.Conv2D, kernel: int, stride: int) -> tuple[int, int, int, int]:
    """Zeros above, left, below and right that TensorFlow pads a square input with: SAME, or none for "valid"."""
    if layer.padding != "same":
        return (0, 0, 0, 0)
    return same_padding(layer.input.shape[1], kernel, stride)


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int, int, int]:
    """The zeros of TensorFlow's SAME: where their number is odd, the last row and column get one more."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return (total // 2, total // 2, total - total // 2, total - total // 2)


def conv(graph: Graph, layer: keras.layers.Conv2D, x: str, name: str, *, pad: int | tuple[int, ...]) -> str:
    """A convolution without bias. pad: zeros on each side, or above, left, below and right."""
    kernel = graph.weight(layer.kernel.numpy().transpose(3, 2, 0, 1), f"{name}.weight")
    pads = pad if isinstance(pad, tuple) else (pad,) * 4
    return graph.op("Conv", x, kernel, name=name, strides=layer.strides, group=layer.groups, pads=pads)


def relu6(graph: Graph, x: str, name: str = "") -> str:
    """min(max(x, 0), 6)."""
    return graph.op("Clip", x, graph.number(0), graph.number(6), name=name)


def inverted_bottleneck(graph: Graph, layer: efficientnet.MBConv, x: str) -> str:
    """`efficientnet.MBConv`: 1x1, depthwise and 1x1 convolutions, and x where the shape stays."""
    y, name = x, layer.name
    if layer.expand_conv is not None:
        y = conv(graph, layer.expand_conv, y, f"{name}.expand_conv", pad=0)
        y = relu6(graph, batch_norm(graph, layer.bn0, y, f"{name}.bn0"))
    depthwise = layer.depthwise_conv
    kernel = depthwise.kernel.numpy().transpose(3, 2, 0, 1)  # (C, 1, k, k)
    path = f"{name}.depthwise_conv"
    y = graph.op(
        "Conv",
        y,
        graph.weight(kernel, f"{path}.weight"),
        name=path,
        strides=(depthwise.stride,) * 2,
        group=len(kernel),
        pads=same_padding(layer.input.shape[1], depthwise.kernel_size, depthwise.stride),
    )
    y = relu6(graph, batch_norm(graph, layer.bn1, y, f"{name}.bn1"))
    y = batch_norm(graph, layer.bn2, conv(graph, layer.project_conv, y, f"{name}.project_conv", pad=0), f"{name}.bn2")
    return graph.op("Add", y, x, name=name) if layer.residual else y


def batch_norm(graph: Graph, layer: keras.layers.BatchNormalization, x: str, name: str) -> str:
    """A batch norm with its moving statistics."""
    parts = {"weight": layer.gamma, "bias": layer.beta}
    parts |= {"running_mean": layer.moving_mean, "running_var": layer.moving_variance}
    weights = [graph.weight(value.numpy(), f"{name}.{part}") for part, value in parts.items()]
    return graph.op("BatchNormalization", x, *weights, name=name, epsilon=layer.epsilon)


def conv_norm(graph: Graph, block: keras.Layer, x: str, number: int, *, pad: int, relu: bool) -> str:
    """conv<number> and bn<number> of a residual block, and a ReLU where `relu`."""
    parts = {1: (block.conv1, block.bn1), 2: (block.conv2, block.bn2)}
    if isinstance(block, resnet.Bottleneck):
        parts[3] = (block.conv3, block.bn3)
    convolution, norm = parts[number]
    x = conv(graph, convolution, x, f"{block.name}.conv{number}", pad=pad)
    x = batch_norm(graph, norm, x, f"{block.name}.bn{number}")
    return graph.op("Relu", x) if relu else x


def projected(graph: Graph, block: keras.Layer, x: str) -> str:
    """The shortcut of a residual block: x itself, or the projection where the block has one."""
    if block.downsample is None:
        return x
    x = conv(graph, block.downsample, x, f"{block.name}.downsample.0", pad=0)
    return batch_norm(graph, block.downsample_bn, x, f"{block.name}.downsample.1")


def basic_block(graph: Graph, layer: resnet.BasicBlock, x: str) -> str:
    """`resnet.BasicBlock`: two convolutions, and a shortcut that is projected, or cut and padded with zeros."""
    y = conv_norm(graph, layer, x, 1, pad=1, relu=True)
    y = conv_norm(graph, layer, y, 2, pad=1, relu=False)
    if layer.projection:
        x = projected(graph, layer, x)
    else:
        if layer.stride > 1:
            ends = (2**31 - 1, 2**31 - 1)
            steps = (layer.stride, layer.stride)
            x = graph.op("Slice", x, *(graph.integers(*values) for values in ((0, 0), ends, (2, 3), steps)))
        if layer.extra:
            x = graph.op("Pad", x, graph.integers(0, layer.extra, 0, 0, 0, layer.extra, 0, 0))
    return graph.op("Relu", graph.op("Add", y, x), name=layer.name)


def bottleneck(graph: Graph, layer: resnet.Bottleneck, x: str) -> str:
    """`resnet.Bottleneck`: three convolutions and a shortcut."""
    y = conv_norm(graph, layer, x, 1, pad=0, relu=True)
    y = conv_norm(graph, layer, y, 2, pad=1, relu=True)
    y = conv_norm(graph, layer, y, 3, pad=0, relu=False)
    return graph.op("Relu", graph.op("Add", y, projected(graph, layer, x)), name=layer.name)


def cosine(graph: Graph, layer: resnet.CosineClassifier, x: str, name: str) -> str:
    """scale x / |x| W / |W|; as in Keras, zero features give zero logits."""
    kernel = layer.weight.numpy().astype(np.float64)
    kernel *= layer.scale / np.sqrt(np.maximum(np.sum(kernel**2, axis=0), 1e-12))
    unit = graph.op("LpNormalization", x, axis=1, p=2)
    return graph.op("MatMul", unit, graph.weight(kernel, f"{name}.weight"), name=name)
