"""Finished models: .keras files that carry their class names."""

import json
import zipfile
from pathlib import Path

import keras
import numpy as np

from deitlt_tf.runs.files import replacing

CLASS_NAMES = "class_names.json"  # a member of the .keras archive, beside Keras' own


def save_model(model: keras.Model, path: Path, *, class_names: tuple[str, ...]) -> None:
    """`path` (.keras) with the class names inside; `keras.models.load_model` reads it as any other."""
    with replacing(path) as temporary:
        model.save(temporary)
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.writestr(CLASS_NAMES, json.dumps(list(class_names)))


def save_weights(model: keras.Model, path: Path) -> None:
    """All weights of `model`, in order, as an .npz."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, *model.get_weights())


def load_weights(model: keras.Model, path: Path) -> None:
    with np.load(path, allow_pickle=False) as archive:
        model.set_weights([archive[f"arr_{i}"] for i in range(len(archive.files))])


def load_model(path: Path) -> tuple[keras.Model, tuple[str, ...] | None]:
    """The model and its class names (None if the file has none: it was not written by us)."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such model file.")
    try:
        with zipfile.ZipFile(path) as archive:  # first: of a damaged file Keras would say that it is not there
            names = tuple(json.loads(archive.read(CLASS_NAMES))) if CLASS_NAMES in archive.namelist() else None
        model = keras.models.load_model(path, compile=False)
    except (zipfile.BadZipFile, KeyError, OSError, ValueError, TypeError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{path} is not a readable Keras model ({reason}).") from error
    return model, names


def same_classes(names: tuple[str, ...] | None, expected: tuple[str, ...], *, path: Path, num_outputs: int) -> None:
    """Raises ValueError unless a model file has exactly the data's classes, in the data's order."""
    if num_outputs != len(expected):
        raise ValueError(f"{path} has {num_outputs} classes, the data {len(expected)}.")
    if names is not None and names != expected:
        first = next(i for i, (a, b) in enumerate(zip(names, expected, strict=True)) if a != b)
        raise ValueError(
            f"{path} has other classes than the data: "
            f"class {first} is {names[first]!r} there, {expected[first]!r} here."
        )
