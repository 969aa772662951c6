"""Vision Transformers: one [CLS] token (ViT) or two, [CLS, DIST] (DeiT), before the patches.

Weights have the names of the official checkpoint (`blocks.0.attn.qkv` ...), so layer names contain dots.
Source: val-iisc/DeiT-LT deit_models/vision_transformer.py and deit.py; Touvron et al. 2021 (arXiv 2012.12877).
"""

import contextlib
import contextvars
import math
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deitlt_tf.models import adapters, kernels, resnet
from deitlt_tf.models.stems import ConvStem

# name: (embed_dim, depth, num_heads). "nano" is our own, for small images on CPUs. The others are from Touvron et al.
# 2021, table 1.
SIZES = {
    "nano": (128, 6, 4),
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
}

ACTIVATIONS = {"gelu": kernels.gelu, "quick_gelu": kernels.quick_gelu}
COSINE_SCALE = 25.0  # of the cosine head of an adapted network. Source: LIFT
_seed = contextvars.ContextVar("drop_path_seed", default=None)


@contextlib.contextmanager
def drawing_from(seed: tf.Tensor) -> Iterator[None]:
    """Inside this block every DropPath draws from `seed` (int [2]) and its index only: same seed, same masks.

    Enter the block where the model is called, inside the replica's step function: other threads do not see it.
    Masks compiled by XLA are also repeatable, but differ, because XLA draws other floats from the same seed.
    """
    token = _seed.set(seed)
    try:
        yield
    finally:
        _seed.reset(token)


@keras.saving.register_keras_serializable(package="deitlt_tf")
class DropPath(keras.layers.Layer):
    """Stochastic depth: in training x / (1 - rate), or, with probability `rate` for each example, zero.

    The layer has no state: its masks come from the seed of `drawing_from`, or, outside of such a block, from
    TensorFlow's global generator.

    rate: float in [0, 1).
    index: int. Number of this layer in its model, folded into the seed. Defaults to 0.
    Raises ValueError for a rate outside of [0, 1).
    Source: Huang et al. 2016 (arXiv 1603.09382); timm layers/drop.py.
    """

    def __init__(self, rate: float, index: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"drop_path={rate} has to be at least 0 and below 1.")
        self.rate, self.index = rate, index

    def build(self, input_shape: tuple) -> None:
        pass

    def call(self, x: tf.Tensor, training: bool | None = False) -> tf.Tensor:
        if not training or self.rate == 0:
            return x
        shape = [tf.shape(x)[0]] + [1] * (x.shape.rank - 1)
        seed = _seed.get()
        if seed is None:
            uniform = tf.random.uniform(shape)
        else:
            uniform = tf.random.stateless_uniform(shape, tf.random.experimental.stateless_fold_in(seed, self.index))
        return x * (tf.cast(uniform >= self.rate, x.dtype) / (1 - self.rate))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"rate": self.rate, "index": self.index}


def _normal() -> keras.Initializer:
    """N(0, 0.02). timm's trunc_normal_(std=.02) cuts at +-2, a hundred sigmas; Keras' TruncatedNormal at two sigmas.

    A new object for each weight, because one Keras initializer gives the same numbers at every call.
    """
    return keras.initializers.RandomNormal(stddev=0.02)


def _dense(units: int, *, name: str, dtype: object = None) -> keras.layers.Dense:
    return keras.layers.Dense(units, kernel_initializer=_normal(), name=name, dtype=dtype)


@keras.saving.register_keras_serializable(package="deitlt_tf")
class LayerNorm(keras.layers.LayerNormalization):
    """keras.layers.LayerNormalization over the last axis, computed by `kernels.layer_norm`."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        x = tf.cast(inputs, tf.float32)
        gamma, beta = tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta)
        return tf.cast(kernels.layer_norm(x, gamma, beta, epsilon=self.epsilon), self.compute_dtype)


def normed_dense(
    x: tf.Tensor, norm: LayerNorm | None, dense: keras.layers.Dense, *, training: bool | None = False
) -> tf.Tensor:
    """dense(norm(x)) as rows: [..., D] -> [N, units]; dense(x) where norm is None.

    training: the scale and shift of `norm` are multiplied into the weights of `dense` and not into the tokens, which
      are more: (n gamma + beta) W + b = n (gamma W) + (beta W + b). Defaults to False.
    """
    if not (norm and training):
        return dense(tf.reshape(norm(x) if norm else x, (-1, x.shape[-1])))
    normal = tf.cast(kernels.normalized(tf.cast(x, tf.float32), epsilon=norm.epsilon), dense.compute_dtype)
    gamma, beta, kernel, bias = (
        tf.cast(v, dense.compute_dtype) for v in (norm.gamma, norm.beta, dense.kernel, dense.bias)
    )
    # As rows it is a plain matrix product, without shape arithmetic in the graph.
    product = tf.matmul(tf.reshape(normal, (-1, x.shape[-1])), gamma[:, None] * kernel)
    return tf.nn.bias_add(product, tf.linalg.matvec(kernel, beta, transpose_a=True) + bias)


def _layer_norm(name: str, dtype: object = None, *, epsilon: float = 1e-6) -> LayerNorm:
    return LayerNorm(epsilon=epsilon, name=name, dtype=dtype)


@keras.saving.register_keras_serializable(package="deitlt_tf")
class LayerScale(keras.layers.Layer):
    """gamma x, one trained factor for each channel: [..., D] -> [..., D].

    start: float. Initial value of all factors.
    Source: Touvron et al. 2021 (CaiT, arXiv 2103.17239); DINOv2, DeiT III.
    """

    def __init__(self, start: float, **kwargs: Any):
        super().__init__(**kwargs)
        self.start = start

    def build(self, input_shape: tuple) -> None:
        constant = keras.initializers.Constant(self.start)
        # `weights.torch_name` calls it gamma; a Keras variable called gamma is the weight of a norm.
        self.gamma = self.add_weight(name="layer_scale", shape=(input_shape[-1],), initializer=constant)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return x * tf.cast(self.gamma, x.dtype)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"start": self.start}


@keras.saving.register_keras_serializable(package="deitlt_tf")
class Tokens(keras.layers.Layer):
    """[B, h, w, D] patches -> [B, N + h*w, D]: CLS (and DIST) in front, and a trained position added to each token.

    distilled: bool. True: N = 2, [CLS, DIST, patches]. False: N = 1, [CLS, patches].
    registers: int. R, trained tokens without a position between those and the patches; N grows by R. Defaults to 0.
      Source: Darcet et al., ICLR 2024 (arXiv 2309.16588).
    """

    def __init__(self, distilled: bool, registers: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.distilled, self.registers = distilled, registers
        self.prefix = 2 if distilled else 1
        self.leading = self.prefix + registers  # N, tokens before the patches

    def build(self, input_shape: tuple) -> None:
        _, h, w, d = input_shape
        self.patches = h * w
        # The official CLS token starts at N(0, 1e-6): vision_transformer.py, init_weights.
        self.cls_token = self.add_weight(
            name="cls_token", shape=(1, 1, d), initializer=keras.initializers.RandomNormal(stddev=1e-6)
        )
        if self.distilled:
            self.dist_token = self.add_weight(name="dist_token", shape=(1, 1, d), initializer=_normal())
        shape = (1, self.prefix + self.patches, d)
        self.pos_embed = self.add_weight(name="pos_embed", shape=shape, initializer=_normal())
        if self.registers:
            self.reg_token = self.add_weight(name="reg_token", shape=(1, self.registers, d), initializer=_normal())

    def call(self, x: tf.Tensor) -> tf.Tensor:
        tokens = (
            tf.concat([self.cls_token, self.dist_token], 1) if self.distilled else tf.convert_to_tensor(self.cls_token)
        )
        # Padded and added, because tiling the tokens would need the batch size.
        offset = tf.pad(tokens, [[0, 0], [0, self.patches], [0, 0]]) + self.pos_embed  # (1, T, D)
        if self.registers:
            offset = tf.concat([offset[:, : self.prefix], self.reg_token, offset[:, self.prefix :]], 1)
        x = tf.reshape(x, (-1, self.patches, x.shape[-1]))
        return tf.pad(x, [[0, 0], [self.leading, 0], [0, 0]]) + offset  # (B, T, D)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"distilled": self.distilled, "registers": self.registers}


@keras.saving.register_keras_serializable(package="deitlt_tf")
class Attention(keras.layers.Layer):
    """softmax(q k^T / sqrt(D / heads)) v of norm(x), projected: [B, T, D] -> [B, T, D], or [B, asking, D].

    num_heads: int. Number of heads; has to divide D.
    lora: int. Rank of a `Lora` that is added to q and v; 0 = none. Defaults to 0.

    `call` takes two more arguments. norm: the LayerNorm before the attention, see `normed_dense`; None where x is
    normalised already. asking: int, number of first tokens whose queries, and so outputs, are computed; keys and values
    come from all tokens. None = all tokens.
    """

    def __init__(self, num_heads: int, lora: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.num_heads, self.lora_rank = num_heads, lora

    def build(self, input_shape: tuple) -> None:
        _, self.length, self.dim = input_shape
        self.lora = adapters.Lora(self.lora_rank, name="lora", dtype=self.dtype_policy) if self.lora_rank else None
        if self.lora:
            self.lora.build((None, self.dim))
        self.qkv = _dense(3 * self.dim, name="qkv", dtype=self.dtype_policy)
        self.proj = _dense(self.dim, name="proj", dtype=self.dtype_policy)
        self.qkv.build((None, self.dim))
        self.proj.build((None, self.dim))

    def _heads(self, rows: tf.Tensor) -> list[tf.Tensor]:
        """(B * T, 3 * D) -> scaled q, k and v, each (B, heads, T, D / heads)."""
        x = tf.reshape(rows, (-1, self.length, 3, self.num_heads, self.dim // self.num_heads))
        q, k, v = tf.unstack(tf.transpose(x, (2, 0, 3, 1, 4)))
        return [q * (self.dim // self.num_heads) ** -0.5, k, v]

    def probabilities(self, x: tf.Tensor) -> tf.Tensor:
        """The attention probabilities, float32 (B, heads, T, T): row = query, column = key. x: normalised tokens."""
        rows = tf.reshape(tf.cast(x, self.compute_dtype), (-1, self.dim))
        q, k, _ = self._heads(self.qkv(rows) + self.lora(rows) if self.lora else self.qkv(rows))
        return kernels.probabilities(q, k)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return input_shape

    def call(
        self, x: tf.Tensor, norm: LayerNorm | None = None, asking: int | None = None, training: bool | None = None
    ) -> tf.Tensor:
        rows = normed_dense(x, norm, self.qkv, training=training)
        if self.lora:
            rows += self.lora(tf.reshape(norm(x) if norm else x, (-1, self.dim)))
        q, k, v = self._heads(rows)
        if asking:  # without the condition, a slice of all tokens would cost a copy in the gradient
            q = q[:, :, :asking]
        x = tf.reshape(kernels.attention(q, k, v, training=training), (-1, self.dim))
        return tf.reshape(self.proj(x), (-1, asking or self.length, self.dim))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"num_heads": self.num_heads, "lora": self.lora_rank}


@keras.saving.register_keras_serializable(package="deitlt_tf")
class Block(keras.layers.Layer):
    """x + attn(norm1(x)), then x + mlp(norm2(x)); the MLP is four times as wide. [B, T, D] -> [B, asking or T, D].

    num_heads: int. Heads of the attention.
    drop_path: float. Rate of both residual branches. Defaults to 0.
    index: int. Number of the block in its model. Defaults to 0.
    asking: int or None. Number of first tokens that are computed; None = all tokens. It does not change their values.
      The last block of a model computes only CLS (and DIST), because no later layer reads its patches. So one block of
      twelve is nearly free. Defaults to None.
    activation: str. "gelu", x Phi(x), or "quick_gelu", x sigmoid(1.702 x). Defaults to "gelu".
    layer_scale: float. Initial factor of both branches (LayerScale); 0 = no factors. Defaults to 0.
    epsilon: float. Of both norms. Defaults to 1e-6.
    adapter, lora: int. Ranks of an `AdaptFormer` next to the MLP and of the attention's `Lora`; 0 = none. Default to 0.
    Raises ValueError for an unknown activation.
    """

    def __init__(
        self,
        num_heads: int,
        drop_path: float = 0.0,
        index: int = 0,
        asking: int | None = None,
        activation: str = "gelu",
        layer_scale: float = 0.0,
        epsilon: float = 1e-6,
        adapter: int = 0,
        lora: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation={activation} is unknown: choose one of {', '.join(ACTIVATIONS)}.")
        self.num_heads, self.drop_path, self.index, self.asking = num_heads, drop_path, index, asking
        self.activation, self.layer_scale, self.epsilon = activation, layer_scale, epsilon
        self.adapter_rank, self.lora_rank = adapter, lora

    def build(self, input_shape: tuple) -> None:
        _, self.length, self.dim = input_shape
        policy = self.dtype_policy
        self.norm1, self.norm2 = (_layer_norm(name, policy, epsilon=self.epsilon) for name in ("norm1", "norm2"))
        self.attn = Attention(self.num_heads, self.lora_rank, name="attn", dtype=policy)
        self.fc1, self.fc2 = (_dense(n, name=f"mlp.fc{i}", dtype=policy) for i, n in ((1, 4 * self.dim), (2, self.dim)))
        self.drop1, self.drop2 = (DropPath(self.drop_path, 2 * self.index + i, dtype=policy) for i in (0, 1))
        for layer in (self.norm1, self.attn, self.drop1, self.norm2, self.drop2):
            layer.build(input_shape)
        self.fc1.build((None, self.dim))
        self.fc2.build((None, 4 * self.dim))
        self.ls1 = self.ls2 = self.adapter = None
        if self.layer_scale:
            self.ls1, self.ls2 = (LayerScale(self.layer_scale, name=name, dtype=policy) for name in ("ls1", "ls2"))
        if self.adapter_rank:
            self.adapter = adapters.AdaptFormer(self.adapter_rank, name="adapter", dtype=policy)
        extras: list[keras.Layer | None] = [self.ls1, self.ls2, self.adapter]
        for extra in filter(None, extras):
            extra.build(input_shape)

    def compute_output_shape(
        self, input_shape: tuple
    ) -> tuple:  # with it Keras need not trace the block for each new model
        batch, length, dim = input_shape
        return (batch, self.asking or length, dim)

    def mlp(self, x: tf.Tensor, *, training: bool | None) -> tf.Tensor:
        """fc2(gelu(fc1(norm2(x)))) of the tokens that are computed; gelu: the activation."""
        x = normed_dense(x, self.norm2, self.fc1, training=training)
        if training and self.activation == "gelu":
            kernel, bias = (tf.cast(v, x.dtype) for v in (self.fc2.kernel, self.fc2.bias))
            x = kernels.dense_of_gelu(x, kernel, bias)
        else:
            x = self.fc2(ACTIVATIONS[self.activation](x))
        return tf.reshape(x, (-1, self.asking or self.length, self.dim))

    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        attended = self.attn(x, norm=self.norm1, asking=self.asking, training=training)
        if self.asking:
            x = x[:, : self.asking]
        x += self.drop1(self.ls1(attended) if self.ls1 else attended, training=training)
        branch = self.mlp(x, training=training)
        y = x + self.drop2(self.ls2(branch) if self.ls2 else branch, training=training)
        return y + self.adapter(x) if self.adapter else y

    def get_config(self) -> dict[str, Any]:
        own: dict[str, Any] = {"num_heads": self.num_heads, "drop_path": self.drop_path, "index": self.index}
        own |= {"asking": self.asking}
        own |= {"activation": self.activation, "layer_scale": self.layer_scale, "epsilon": self.epsilon}
        return super().get_config() | own | {"adapter": self.adapter_rank, "lora": self.lora_rank}


def vit(
    x: keras.KerasTensor,
    *,
    num_classes: int,
    size: str,
    distilled: bool,
    patch_size: int = 16,
    stem: str = "patch",
    drop_path: float = 0.1,
    embed_dim: int | None = None,
    depth: int | None = None,
    num_heads: int | None = None,
    pre_norm: bool = False,
    patch_bias: bool = True,
    registers: int = 0,
    activation: str = "gelu",
    layer_scale: float = 0.0,
    epsilon: float = 1e-6,
    adapter: int = 0,
    lora: int = 0,
    classifier: str = "linear",
    scale: float = COSINE_SCALE,
) -> keras.KerasTensor | dict[str, keras.KerasTensor]:
    """Normalised images [B, S, S, 3] -> float32 logits: {"cls": [B, C], "dist": [B, C]} if distilled, else [B, C].

    size: name of a row of SIZES. embed_dim, depth, num_heads: ints that override it. Default to those of the row.
    distilled: bool. Two tokens and heads, CLS and DIST, or CLS alone.
    patch_size: int. Side of a patch in pixels. Defaults to 16.
    stem: "patch", one linear map of the pixels of each patch, or "conv", `stems.ConvStem`. Defaults to "patch".
    drop_path: float. Rate of the last block; it grows linearly over depth, from 0. Defaults to 0.1.
    pre_norm: bool. A norm before the first block (CLIP). Defaults to False.
    patch_bias: bool. Whether the patch projection has a bias (CLIP's has none). Defaults to True.
    registers, activation, layer_scale, epsilon, adapter, lora: see `Tokens` and `Block`.
    classifier: str. "linear", or "cosine": `scale` times the cosine of features and class vector. Default: "linear".
    scale: float. Defaults to 25.
    Raises ValueError where the patches do not tile the image, the heads do not divide the width, or the stem does not
    fit the patches.
    """
    dim, blocks, heads = (
        default if value is None else value
        for value, default in zip((embed_dim, depth, num_heads), SIZES[size], strict=True)
    )
    if patch_size < 1 or x.shape[1] % patch_size:
        raise ValueError(f"image_size={x.shape[1]} is not a multiple of patch_size={patch_size}: change one of them.")
    if classifier not in ("linear", "cosine"):
        raise ValueError(f"classifier={classifier} is unknown: choose linear or cosine.")
    if heads < 1 or dim % heads:
        raise ValueError(f"embed_dim={dim} is not a multiple of num_heads={heads}: change one of them.")
    x = patches(x, dim, patch_size=patch_size, stem=stem, bias=patch_bias)  # (B, S / patch, S / patch, D)
    x = Tokens(distilled, registers, name="tokens")(x)  # (B, N + patches, D)
    if pre_norm:
        x = _layer_norm("norm_pre", epsilon=epsilon)(x)
    own: dict[str, Any] = {"activation": activation, "layer_scale": layer_scale, "epsilon": epsilon}
    own |= {"adapter": adapter, "lora": lora}
    for i, rate in enumerate(np.linspace(0, drop_path, blocks)):
        asking = (2 if distilled else 1) if i == blocks - 1 else None
        x = Block(heads, float(rate), i, asking, name=f"blocks.{i}", **own)(x)
    x = _layer_norm("norm", epsilon=epsilon)(x)  # (B, 1 or 2, D)

    def head(name: str, features: keras.KerasTensor) -> keras.KerasTensor:
        if classifier == "cosine":
            return resnet.CosineClassifier(num_classes, scale=scale, name=name)(features)
        return _dense(num_classes, name=name, dtype="float32")(features)

    cls = head("head", x[:, 0])
    return {"cls": cls, "dist": head("head_dist", x[:, 1])} if distilled else cls


def patches(x: keras.KerasTensor, dim: int, *, patch_size: int, stem: str, bias: bool) -> keras.KerasTensor:
    """Normalised images [B, S, S, 3] -> the patches before their positions are added, [B, S / p, S / p, D]."""
    if stem == "conv":
        return ConvStem(dim, patch_size, name="patch_embed")(x)
    if stem != "patch":
        raise ValueError(f"stem={stem} is unknown: choose patch or conv.")
    bound = 1 / math.sqrt(3 * patch_size**2)  # torch's default for a convolution, also in the official code
    return keras.layers.Conv2D(
        dim,
        patch_size,
        strides=patch_size,
        kernel_initializer=keras.initializers.RandomUniform(-bound, bound),
        bias_initializer=keras.initializers.RandomUniform(-bound, bound),
        use_bias=bias,
        name="patch_embed.proj",
    )(x)


def patch_size(model: keras.Model) -> int:
    """Side of a patch of a Vision Transformer in pixels, whatever its stem."""
    return model.input_shape[1] // math.isqrt(model.get_layer("tokens").patches)


def has_conv_stem(model: keras.Model) -> bool:
    """Whether the patches of a Vision Transformer come from `stems.ConvStem`."""
    return any(isinstance(layer, ConvStem) for layer in model.layers)


def with_tokens(model: keras.Model, *, blocks: Sequence[int] = ()) -> keras.Model:
    """A model of the same layers, images -> (logits, tokens): CLS (and DIST) tokens [B, N, D] after the final norm.

    blocks: numbers of blocks; the tokens [B, T, D] after each of them follow as further outputs. Defaults to none.
    """
    hidden = (model.get_layer(f"blocks.{i}").output for i in blocks)
    return keras.Model(model.input, (model.output, model.get_layer("norm").output, *hidden), name=model.name)
