"""Finished models: .keras files with class names and their taxonomy inside."""

import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import numpy as np

from deitlt_tf.data.taxonomy import Taxonomy, from_dict
from deitlt_tf.runs.files import replacing

CLASS_NAMES = "class_names.json"  # members of the .keras archive, next to those of Keras
TAXONOMY = "taxonomy.json"
LARGEST_TAXONOMY = 2**28  # bytes when unpacked; that of a million species with seven ranks has about 2**26


def save_model(
    model: keras.Model, path: Path, *, class_names: tuple[str, ...], taxonomy: Taxonomy | None = None
) -> None:
    """Write `path` (.keras) with class names and taxonomy inside; `keras.models.load_model` reads it as any other."""
    with replacing(path) as temporary:
        model.save(temporary)
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.writestr(CLASS_NAMES, json.dumps(list(class_names)))
            if taxonomy is not None:
                archive.writestr(TAXONOMY, json.dumps(taxonomy.to_dict()), zipfile.ZIP_DEFLATED)


def save_weights(model: keras.Model, path: Path) -> None:
    """Write all weights of `model`, in their order, as an .npz file."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, *model.get_weights())


def load_weights(model: keras.Model, path: Path) -> None:
    """Set the weights of `model` from a file of `save_weights`."""
    with np.load(path, allow_pickle=False) as archive:
        model.set_weights([archive[f"arr_{i}"] for i in range(len(archive.files))])


def load_model(path: Path) -> tuple[keras.Model, tuple[str, ...] | None]:
    """The model in a .keras file and its class names, None if `save_model` did not write the file.

    Raises FileNotFoundError if there is no such file, ValueError if Keras cannot read it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such model file.")
    try:
        with zipfile.ZipFile(path) as archive:  # before Keras, which would report a damaged file as missing
            names = tuple(json.loads(archive.read(CLASS_NAMES))) if CLASS_NAMES in archive.namelist() else None
        model = keras.models.load_model(path, compile=False)
    except (zipfile.BadZipFile, KeyError, OSError, ValueError, TypeError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{path} is not a readable Keras model ({reason}).") from error
    return model, names


def read_taxonomy(path: Path) -> Taxonomy | None:
    """The taxonomy in a file of `save_model`; None where there is none.

    None also for a file that is absent or damaged, which `load_model` tells better.
    Raises ValueError for a taxonomy that cannot be read, or of other classes than those of the file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
            if TAXONOMY in members and (size := archive.getinfo(TAXONOMY).file_size) > LARGEST_TAXONOMY:
                raise OverflowError(f"{path} holds a taxonomy of {size} bytes, more than {LARGEST_TAXONOMY}.")
            value = json.loads(archive.read(TAXONOMY)) if TAXONOMY in members else None
            names = json.loads(archive.read(CLASS_NAMES)) if CLASS_NAMES in members else None
    except OverflowError as error:
        raise ValueError(str(error)) from None
    except (OSError, zipfile.BadZipFile, ValueError):
        return None
    if value is None:
        return None
    taxonomy = from_dict(value, place=str(path))
    if names is not None:
        taxonomy.require_classes(names, place=f"the taxonomy of {path}")
    return taxonomy


def taxonomies_of_run(folder: Path) -> Iterator[Taxonomy]:
    """The taxonomies in the models of a run, the student's first. Raises ValueError as `read_taxonomy` does."""
    for name in ("student", "student_ema", "student_best", "teacher"):
        taxonomy = read_taxonomy(folder / f"{name}.keras")
        if taxonomy is not None:
            yield taxonomy


def taxonomy_of_run(folder: Path, class_names: Sequence[str]) -> Taxonomy | None:
    """The first of `taxonomies_of_run` that is of these classes in this order; None where there is none."""
    return next((x for x in taxonomies_of_run(folder) if x.class_names == tuple(class_names)), None)


def same_classes(names: tuple[str, ...] | None, expected: tuple[str, ...], *, path: Path, num_outputs: int) -> None:
    """Raises ValueError if the classes of a model file are not those of the data, in the same order.

    names: of the model, None if the file has none. expected: of the data. path: of the file, for the message.
    num_outputs: logits per image of the model.
    """
    if num_outputs != len(expected):
        raise ValueError(f"{path} has {num_outputs} classes, the data {len(expected)}.")
    if names is not None and names != expected:
        first = next(i for i, (a, b) in enumerate(zip(names, expected, strict=True)) if a != b)
        raise ValueError(
            f"{path} has other classes than the data: "
            f"class {first} is {names[first]!r} there, {expected[first]!r} here."
        )
