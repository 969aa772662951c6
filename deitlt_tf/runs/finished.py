"""The finished networks of a run, ready to answer: float32, with the names and training counts of their classes."""

import json
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from deitlt_tf.models import interface
from deitlt_tf.runs.models import load_model, same_classes

FILES = {"student": "student.keras", "ema": "student_ema.keras", "teacher": "teacher.keras"}


class Finished(NamedTuple):
    """model: pixels [B, S, S, 3] -> {"cls", "dist"} logits, or [B, C] with one head; it computes in float32.

    class_counts: int [C] training images; None where the run does not say, as one imported from elsewhere.
    """

    model: keras.Model
    class_names: tuple[str, ...]
    class_counts: np.ndarray | None


def load(folder: Path, *, weights: str) -> Finished:
    """The network of `folder` that `weights` (a key of FILES) names.

    Raises FileNotFoundError for a run without it, or without class names.
    """
    path = folder / FILES[weights]
    if not path.is_file():
        raise FileNotFoundError(f"{path}: this run has no such finished model; let it end, or choose other --weights.")
    model, names = load_model(path)
    names = names or _lines(folder / "class_names.txt")
    outputs = interface.heads(model.output)["cls"].shape[-1]
    same_classes(names, names, path=path, num_outputs=outputs)
    return Finished(in_float32(model), names, _class_counts(folder / "results.json"))


def in_float32(model: keras.Model) -> keras.Model:
    """The same network computing in float32, whatever precision it was trained in: weights are float32 anyway."""
    if all(layer.compute_dtype == "float32" for layer in model.layers):
        return model

    def copy(layer: keras.Operation) -> keras.Operation:
        dtype = {"dtype": "float32"} if isinstance(layer, keras.Layer) else {}  # x[:, 0] is an operation without one
        return layer.from_config(layer.get_config() | dtype)

    clone = keras.models.clone_model(model, clone_function=copy)
    clone.set_weights(model.get_weights())
    return clone


def _lines(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: neither the model file nor the run has class names.")
    return tuple(path.read_text().splitlines())


def _class_counts(path: Path) -> np.ndarray | None:
    counts = json.loads(path.read_text()).get("class_counts") if path.is_file() else None
    return None if counts is None else np.asarray(counts)
