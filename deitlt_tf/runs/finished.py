"""The finished networks of a run, in float32, with the names, training counts and taxonomy of their classes."""

import json
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from deitlt_tf.data.taxonomy import Taxonomy
from deitlt_tf.models import interface
from deitlt_tf.runs.files import read_text
from deitlt_tf.runs.models import load_model, read_taxonomy, same_classes, taxonomy_of_run

FILES = {
    "student": "student.keras",
    "ema": "student_ema.keras",
    "best": "student_best.keras",
    "teacher": "teacher.keras",
}


class Finished(NamedTuple):
    """A network and its classes.

    model: pixels [B, S, S, 3] -> logits {"cls": [B, C], "dist": [B, C]}, or [B, C] with one head; float32.
    class_names: C names. class_counts: int [C], training images; None if the run has no results.json with them.
    taxonomy: of these classes; None if no model of the run has one.
    """

    model: keras.Model
    class_names: tuple[str, ...]
    class_counts: np.ndarray | None
    taxonomy: Taxonomy | None = None


def load(folder: Path, *, weights: str) -> Finished:
    """The finished network of a run.

    folder: of the run. weights: student, ema, best or teacher.
    Raises FileNotFoundError if the run does not have it or has no class names.
    """
    path = folder / FILES[weights]
    if not path.is_file():
        raise FileNotFoundError(f"{path}: this run has no such finished model; let it end, or choose other `weights`.")
    model, names = load_model(path)
    names = names or _class_names(folder / "class_names.txt")
    outputs = interface.heads(model.output)["cls"].shape[-1]
    same_classes(names, names, path=path, num_outputs=outputs)
    taxonomy = read_taxonomy(path) or taxonomy_of_run(folder, names)
    return Finished(in_float32(model), names, _class_counts(folder / "results.json"), taxonomy)


def in_float32(model: keras.Model) -> keras.Model:
    """The same network, computing in float32 instead of mixed precision; its weights are float32 in both."""
    if all(layer.compute_dtype == "float32" for layer in model.layers):
        return model

    def copy(layer: keras.Operation) -> keras.Operation:
        dtype = {"dtype": "float32"} if isinstance(layer, keras.Layer) else {}  # operations such as x[:, 0] have none
        return layer.from_config(layer.get_config() | dtype)

    clone = keras.models.clone_model(model, clone_function=copy)
    clone.set_weights(model.get_weights())
    return clone


def _class_names(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: neither the model file nor the run has class names.")
    return tuple(read_text(path).splitlines())


def _class_counts(path: Path) -> np.ndarray | None:
    if not path.is_file():
        return None
    try:
        counts = json.loads(read_text(path)).get("class_counts")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read ({error}): train's command writes it again.") from error
    return None if counts is None else np.asarray(counts)
