"""A `Served` network as a SavedModel with the signatures `serving_default`, `bytes` and `features`."""

import json
import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from deitlt_tf.data import augment, decode
from deitlt_tf.evaluation import probes
from deitlt_tf.models import interface, vit
from deitlt_tf.serving.served import Served

MOST_IMAGES = 64  # of a request to `bytes`, by default
PARALLEL = 16  # images of a request that are decoded at the same time, where there are as many threads

Signatures = Mapping[str, Callable[..., dict[str, tf.Tensor]]]
Request = tuple[str, dict[str, tf.Tensor]]  # a signature's name and its inputs


def views(
    image_bytes: tf.Tensor, *, size: int, resize: int, max_pixels: int, max_images: int = MOST_IMAGES
) -> tf.Tensor:
    """Encoded images of any sizes, string [N] -> their evaluation views, uint8 [N, size, size, 3].

    size: pixels. resize: short side before the centre crop; 0: no crop.
    max_pixels: of all images together. max_images: largest N. Both are checked from the headers, before any pixel is
    decoded, so that a request of small files cannot ask for hours or gigabytes.
    Raises tf.errors.InvalidArgumentError for the whole request where there is too much of it, and where one item is not
    an image, is damaged, or has a side that `decode.decode` does not read. The message calls it `image <index>`, unless
    it is damaged.
    """
    number = tf.size(image_bytes)
    few = decode.check(
        number <= max_images, tf.strings.as_string(number), f" images are more than the limit of {max_images}"
    )
    with tf.control_dependencies([few]):
        indices = tf.range(tf.size(image_bytes))

    def each(function: Callable[..., tf.Tensor], signature: tf.TensorSpec) -> tf.Tensor:
        # The function has no Python control flow to convert.
        function = tf.autograph.experimental.do_not_convert(function)
        items = (indices, image_bytes)
        return tf.map_fn(function, items, fn_output_signature=signature, parallel_iterations=PARALLEL)

    def pixels(item: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        index, data = item
        return decode.pixel_count(data, name=_name(index), max_pixels=max_pixels)

    def view(item: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        index, data = item
        image = decode.decode(data, name=_name(index), max_pixels=max_pixels)
        return augment.evaluation_view(image, size=size, resize=resize)

    total = tf.reduce_sum(each(pixels, tf.TensorSpec([], tf.float64)))
    text = tf.strings.as_string(tf.cast(total, tf.int64))
    small = decode.check(total <= max_pixels, "the images have ", text, f" pixels, more than the limit of {max_pixels}")
    with tf.control_dependencies([small]):
        indices = tf.identity(indices)
    return each(view, tf.TensorSpec([size, size, 3], tf.uint8))


def _name(index: tf.Tensor) -> tf.Tensor:
    """How messages call an image of a request."""
    return "image " + tf.strings.as_string(index)


def signatures(served: Served, *, top_k: int, max_pixels: int, max_images: int = MOST_IMAGES) -> Signatures:
    """The functions to export, {name of the signature: function}, for N images.

    serving_default: images, uint8 [N, S, S, 3], S = image_size: already in the evaluation view
      -> logits_cls, logits_dist, logits_mean (those of `served.heads`), probabilities: float32 [N, C];
      classes: int64 [N], the most probable ones.
      With a taxonomy and a threshold, least_risk, sure_rank, sure_node, sure_probability: [N], see `rollup.outputs`.
    bytes: image_bytes, string [N]: JPEG, PNG, WebP or BMP of any size, brought into the evaluation view
      -> the same, and top_probabilities: float32 [N, k], top_labels: string [N, k], most probable first, k <= C;
      with a threshold also sure_label and sure_rank_name: string [N], see `names_of_sure`.
    features: images as above -> features_cls, features_dist: float32 [N, D], the tokens after the last norm.
      A plain ViT has no features_dist; a convolutional network does not have this signature.
    top_k: k. max_pixels, max_images: limits of a request to `bytes`, see `views`; the other signatures have none.
    """
    pixels = tf.TensorSpec([None, served.image_size, served.image_size, 3], tf.uint8, name="images")
    encoded = tf.TensorSpec(
        [None], tf.string, name="image_bytes"
    )  # REST decodes base64 in inputs whose name ends in _bytes
    labels = tf.constant(served.class_names)
    main = f"logits_{interface.main_head(served.heads)}"
    view = {"size": served.image_size, "resize": served.eval_resize}
    limits = {"max_pixels": max_pixels, "max_images": max_images}

    # The server does not compare a request with the signature, so we check shapes here. Without this, pixels without a
    # batch axis would end the process in the convolution, and pixels of another size would be cut into other images.
    def answer(images: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = served(tf.ensure_shape(images, pixels.shape))
        return outputs | {"classes": tf.argmax(outputs[main], -1)}

    def answer_bytes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = answer(views(tf.ensure_shape(image_bytes, encoded.shape), **view, **limits))
        best = tf.math.top_k(outputs[main], min(top_k, len(served.class_names))).indices
        top_probabilities = tf.gather(outputs["probabilities"], best, batch_dims=1)
        outputs |= {"top_probabilities": top_probabilities, "top_labels": tf.gather(labels, best)}
        return outputs | names_of_sure(outputs, served)

    functions = {
        "serving_default": tf.function(answer, input_signature=[pixels]),
        "bytes": tf.function(answer_bytes, input_signature=[encoded]),
    }
    if probes.has_attention(served.model):
        with_tokens = vit.with_tokens(served.model)

        def features(images: tf.Tensor) -> dict[str, tf.Tensor]:
            _, tokens = with_tokens(tf.cast(tf.ensure_shape(images, pixels.shape), tf.float32), training=False)
            return dict(zip(("features_cls", "features_dist"), tf.unstack(tokens, axis=1), strict=False))

        functions["features"] = tf.function(features, input_signature=[pixels])
    return functions


def names_of_sure(outputs: Mapping[str, tf.Tensor], served: Served) -> dict[str, tf.Tensor]:
    """sure_label, sure_rank_name: string [N], the names of the node and of its rank; "" where no rank is sure.

    outputs: sure_rank and sure_node of `rollup.outputs`. {} without a taxonomy or threshold.
    """
    if served.taxonomy is None or served.threshold is None:
        return {}
    taxonomy = served.taxonomy
    ranks = len(taxonomy.ranks)
    # The nodes of all ranks one after the other, and then the name of nothing.
    names = tf.constant([name for nodes in taxonomy.nodes for name in nodes] + [""])
    first = tf.constant(np.cumsum([0, *map(len, taxonomy.nodes)]), tf.int64)
    rank, node = outputs["sure_rank"], outputs["sure_node"]
    place = tf.gather(first, rank) + tf.where(rank < ranks, node, 0)
    return {"sure_label": tf.gather(names, place), "sure_rank_name": tf.gather([*taxonomy.ranks, ""], rank)}


def write(functions: Signatures, folder: Path, *, served: Served) -> None:
    """Write a SavedModel of these signatures to `folder`.

    assets/class_names.txt has one class a line, by label; assets/taxonomy.json is what `Taxonomy.to_dict` returns.
    """
    module = tf.Module()
    module.state = [variable.value for variable in served.model.variables]
    with tempfile.TemporaryDirectory() as temporary:
        names = Path(temporary) / "class_names.txt"
        names.write_text("".join(f"{name}\n" for name in served.class_names), encoding="utf-8")
        module.class_names = tf.saved_model.Asset(str(names))
        if served.taxonomy is not None:
            taxonomy = Path(temporary) / "taxonomy.json"
            taxonomy.write_text(json.dumps(served.taxonomy.to_dict()))
            module.taxonomy = tf.saved_model.Asset(str(taxonomy))
        tf.saved_model.save(module, str(folder), signatures=functions)


def examples(functions: Signatures, *, size: int, max_pixels: int, max_images: int = MOST_IMAGES) -> list[Request]:
    """One request for each signature, as a client might send it: to warm the server up, and to check the export.

    size: S of the signature. `images` are random pixels; `image_bytes` are a PNG and a JPEG of another size and shape,
    or the PNG alone where `max_images` is 1. max_pixels: of a request; the files are smaller than S x S where it asks.
    """
    side = max(1, min(size, math.isqrt(max_pixels // (1 if max_images == 1 else 7))))
    noise = np.random.default_rng(0).integers(0, 256, (2 * size, 3 * size, 3), np.uint8)
    pixels = {"images": tf.constant(noise[None, :size, :size])}
    files = [tf.io.encode_png(noise[:side, :side]), tf.io.encode_jpeg(noise[: 2 * side, : 3 * side])]
    encoded = {"image_bytes": tf.stack(files[:max_images])}
    return [(name, encoded if name == "bytes" else pixels) for name in functions]


def check(functions: Signatures, folder: Path, requests: list[Request], *, tolerance: float = 1e-4) -> float:
    """The largest difference between `functions` and the SavedModel in `folder`, over these requests.

    Raises ValueError where an output is missing or a number differs by more than `tolerance`.
    """
    loaded = tf.saved_model.load(str(folder))
    largest = 0.0
    for name, inputs in requests:
        expected, outputs = functions[name](**inputs), loaded.signatures[name](**inputs)
        if expected.keys() != outputs.keys():
            raise ValueError(f"the SavedModel's signature {name} returns {sorted(outputs)}, not {sorted(expected)}.")
        for key, value in expected.items():
            if value.dtype.is_floating:
                same = value == outputs[key]  # also of the -inf of a class that the network masks
                difference = float(tf.reduce_max(tf.where(same, 0.0, tf.abs(value - outputs[key]))))
                if not difference <= tolerance:
                    raise ValueError(
                        f"the SavedModel's {name} returns {key} {difference:.1e} off: no version was written."
                    )
                largest = max(largest, difference)
    return largest
