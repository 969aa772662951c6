"""An adapted network before its first step: which weights are trained, and where its cosine head starts.

Most weights stay those of --init. They are in no checkpoint, so a file in the folder of the run says which they were.
Source: Shi et al., ICML 2024 (LIFT, arXiv 2309.10019).
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deitlt_tf.data import pipeline, sources
from deitlt_tf.devices.strategy import is_chief, wait_for_all
from deitlt_tf.evaluation.metrics import evaluation_batch
from deitlt_tf.evaluation.predictions import progress
from deitlt_tf.interop import backbones, pretrained
from deitlt_tf.models import adapters, features, vit
from deitlt_tf.models.weights import is_frozen
from deitlt_tf.recipes.recipe import Recipe
from deitlt_tf.runs.files import read_text, replacing, write_json
from deitlt_tf.runs.folder import has_begun

FROZEN = "frozen.json"  # in the folder of a run: SHA-256 of the weights that it does not train
HEAD = "head_start.npy"  # in the folder of a run: where its head started, [C, D], and the centre of features, [D]
IMAGES_PER_CLASS = 100  # of the class means, as in LIFT+: more take time and move the means little
MOMENTUM = 0.9  # of SGD. Source: LIFT


def options(recipe: Recipe, *, num_classes: int) -> dict[str, Any]:
    """Keywords of `models.build` for the cosine head of a Vision Transformer and, where they are trained, adapters."""
    network, settings, scale = recipe.student.network, recipe.student.adaptation, recipe.student.backbone.head_scale
    if recipe.student.frozen:
        return {"classifier": "cosine", "scale": scale}
    depth = network.depth or vit.SIZES[recipe.student.model.partition("_")[2]][1]
    rank = settings.rank or adapters.rank_by_rule(num_classes, depth=depth)
    ranks = {"adaptformer": {"adapter": rank}, "lora": {"lora": rank}}.get(settings.tune, {})
    return ranks | {"classifier": "cosine", "scale": scale}


def backbone_network(recipe: Recipe, *, num_classes: int) -> keras.Model:
    """The --backbone with the pre-trained weights of its package and a cosine head of centred features."""
    name, size = recipe.student.backbone.name, recipe.student.view.image_size
    body = backbones.features(name, image_size=size)
    body.trainable = not recipe.student.frozen  # then `adapters.freeze` decides weight by weight
    scale = recipe.student.backbone.head_scale
    return features.with_cosine_head(body, num_classes=num_classes, scale=scale)


def begin(network: keras.Model, recipe: Recipe, splits: sources.Splits, *, folder: Path) -> None:
    """Sets the head of a new run; of a run that goes on, checks that the frozen weights are those that it began with.

    network: frozen already. Every worker has to call it.
    Raises ValueError for other frozen weights, and for a file of class embeddings that does not fit.
    """
    digest, path = frozen_digest(network), folder / FROZEN
    if has_begun(folder):
        if path.is_file() and json.loads(read_text(path)) != {"sha256": digest}:
            raise ValueError(
                f"{folder} began with other weights than those of --init={recipe.student.network.init} today: give it "
                "the file of then, or choose another `workdir`."
            )
        return
    if is_chief():
        vectors, centre = start_of_head(network, recipe, splits)
        with replacing(folder / HEAD) as temporary, temporary.open("wb") as file:
            np.save(file, np.concatenate([vectors, centre[None]]))
        write_json(path, {"sha256": digest})
    wait_for_all()  # until the chief has written the file
    rows = np.load(folder / HEAD, allow_pickle=False)
    network.layers[-1].weight.assign(rows[:-1].T)
    for layer in centres(network):
        layer.mean.assign(rows[-1])


def frozen_digest(network: keras.Model) -> str:
    """SHA-256 of all frozen weights of a network, in its order."""
    digest = hashlib.sha256()
    for variable in filter(is_frozen, network.weights):
        digest.update(np.ascontiguousarray(variable.numpy()).tobytes())
    return digest.hexdigest()


def centres(network: keras.Model) -> list[features.Centre]:
    """The layer that centres the features, if the network has one."""
    return [layer for layer in network.layers if isinstance(layer, features.Centre)]


def start_of_head(network: keras.Model, recipe: Recipe, splits: sources.Splits) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors of the classes, float32 [C, D], and the mean of all features [D]; 0 where they are not centred.

    The vectors are embeddings from a file, or the means of the classes' features. The mean of all features weighs the
    classes by their training images, as the features that are kept would.
    """
    path, dim = recipe.student.adaptation.head_init, network.layers[-1].input.shape[-1]
    centre = np.zeros(dim)
    if path:
        vectors = embedded_classes(recipe, class_names=splits.train.class_names, dim=dim)
    if not path or centres(network):
        means = class_means(
            network,
            splits.train,
            eval_resize=recipe.student.view.eval_resize,
            max_pixels=recipe.data.max_pixels,
        )
        if centres(network):
            counts = sources.class_counts(splits.train.labels, len(splits.train.class_names))
            centre = counts @ means / counts.sum()
        vectors = vectors if path else means - centre
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(norms, 1e-12)).astype(np.float32), centre.astype(np.float32)


def class_means(network: keras.Model, source: sources.Source, *, eval_resize: int, max_pixels: int) -> np.ndarray:
    """The mean features of each class, float64 [C, D]: of at most IMAGES_PER_CLASS images, spread over the class.

    network: its features are the input of its last layer. source: training images, which are seen in the evaluation
    view. eval_resize: short side before the centre crop, pixels; 0: no crop.
    """
    size, count = network.input_shape[1], len(source.class_names)
    chosen = np.sort(np.concatenate([_spread(np.flatnonzero(source.labels == c)) for c in range(count)]))
    batches = pipeline.evaluation_batches(
        sources.take(source, chosen), size=size, resize=eval_resize, batch=evaluation_batch(size), max_pixels=max_pixels
    )
    features_of = tf.function(keras.Model(network.input, network.layers[-1].input), reduce_retracing=True)
    sums, images = np.zeros((count, network.layers[-1].input.shape[-1])), np.zeros(count)
    for pixels, labels, mask in progress(batches, "class means"):
        real = mask.numpy() > 0
        values = np.asarray(tf.cast(features_of(pixels, training=False), tf.float32), np.float64)[real]
        np.add.at(sums, labels.numpy()[real], values)
        np.add.at(images, labels.numpy()[real], 1)
    return sums / np.maximum(images, 1)[:, None]


def _spread(indices: np.ndarray) -> np.ndarray:
    """At most IMAGES_PER_CLASS of these indices, evenly spread."""
    if len(indices) <= IMAGES_PER_CLASS:
        return indices
    return indices[np.linspace(0, len(indices) - 1, IMAGES_PER_CLASS).round().astype(int)]


def embedded_classes(recipe: Recipe, *, class_names: tuple[str, ...], dim: int) -> np.ndarray:
    """The classes of --head_init in the space of the features, float64 [C, dim]. Raises as the functions below do."""
    path = recipe.student.adaptation.head_init
    vectors = class_embeddings(Path(path), class_names=class_names)
    if vectors.shape[1] == dim:
        return vectors
    return vectors @ projection(recipe, width=vectors.shape[1], dim=dim, path=path).T


def class_embeddings(path: Path, *, class_names: tuple[str, ...]) -> np.ndarray:
    """The rows of an .npy file in the order of the classes, float64 [C, E]. Their names are in the .txt file beside it.

    class_names: of the data. Classes that the file has besides are left out.
    Raises FileNotFoundError, or ValueError that names the file, for another content or a class that is missing.
    """
    names_path = path.with_suffix(".txt")
    for file in (path, names_path):
        if not file.is_file():
            raise FileNotFoundError(f"head_init={path}: there is no {file}.")
    try:
        # Mapped, because the header of an .npy file may promise more numbers than the file has.
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
        names = names_path.read_text(encoding="utf-8").splitlines()
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"head_init={path} is not an array of numbers with a text of names ({error}).") from error
    if rows.ndim != 2 or rows.dtype.kind != "f" or len(rows) != len(names):
        raise ValueError(
            f"head_init={path} has the shape {rows.shape} of {rows.dtype}, and {names_path} has {len(names)} names: it "
            "needs a row of floats for each name."
        )
    place = {name.strip(): i for i, name in enumerate(names)}
    if missing := [name for name in class_names if name not in place]:
        raise ValueError(f"head_init={path}: {names_path} lacks the class {missing[0]!r} ({len(missing)} in all).")
    vectors = np.asarray(rows[[place[name] for name in class_names]], np.float64)
    if not np.isfinite(vectors).all():
        raise ValueError(f"head_init={path} has numbers that are not finite.")
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def projection(recipe: Recipe, *, width: int, dim: int, path: str) -> np.ndarray:
    """CLIP's matrix [D, E] from features to the space of its texts: text embeddings times its transpose are features.
    width: E, of the embeddings in the file `path`. dim: D. Raises ValueError where --init has no such matrix.
    """
    init = recipe.student.network.init
    state = pretrained.starting_weights(init) if init else {}
    matrix = None if isinstance(state, keras.Model) else state.get("proj")
    if matrix is None or matrix.shape != (dim, width):
        there = "no projection" if matrix is None else f"a projection {matrix.shape}"
        raise ValueError(
            f"head_init={path} has rows of {width} numbers: the network has {dim} features and "
            f"{init or recipe.student.backbone.name} has {there} from them to texts."
        )
    return np.asarray(matrix, np.float64)
