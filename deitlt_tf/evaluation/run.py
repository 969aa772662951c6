"""A finished run: its data, its networks, and batches of its test images."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from deitlt_tf.data import pipeline, sources
from deitlt_tf.evaluation import probes
from deitlt_tf.evaluation.metrics import evaluation_batch
from deitlt_tf.models import interface
from deitlt_tf.runs.data import load_splits
from deitlt_tf.runs.models import load_model, same_classes

# {row of a report: file of its network}, relative to the workdir and without .keras.
FILES = {
    "ViT": "vit/student",
    "teacher": "teacher",
    "student": "student",
    "EMA": "student_ema",
    "best": "student_best",
}


class Run(NamedTuple):
    """A finished run and its data.

    folder: the workdir. class_counts: int [C], training images of each class.
    eval_resize: {"student", "teacher": short side before the centre crop of the evaluation view, pixels; 0: no crop}.
    max_pixels: largest image that is decoded.
    """

    folder: Path
    splits: sources.Splits
    class_counts: np.ndarray
    eval_resize: dict[str, int]
    max_pixels: int


def open_run(folder: Path, *, data: dict, student_resize: int, teacher_resize: int) -> Run:
    """The run in `folder`.

    data: keywords of `runs.data.load_splits`. student_resize, teacher_resize: see `Run.eval_resize`.
    Raises FileNotFoundError unless the workdir holds a finished student.
    """
    if not (folder / "student.keras").is_file():
        raise FileNotFoundError(
            f"{folder} holds no finished student (student.keras): finish its run first, with "
            f"python -m deitlt_tf.train --flagfile={folder / 'flags.cfg'}."
        )
    splits = load_splits(**data, folder=folder)
    counts = sources.class_counts(splits.train.labels, len(splits.train.class_names))
    resize = {"student": student_resize, "teacher": teacher_resize}
    return Run(folder, splits, counts, resize, data["max_pixels"])


def networks(run: Run, files: dict[str, str] = FILES) -> dict[str, keras.Model]:
    """{row: the model} for those `files` that the workdir has, each checked against the classes of the data.

    files: {row: file}, as FILES. A ViT with one head as the student is the plain one; its row is "ViT".
    """
    models = {}
    for row, file in files.items():
        path = run.folder / f"{file}.keras"
        if path.is_file():
            models[row] = checked_model(path, class_names=run.splits.train.class_names)
    if not isinstance(models["student"].output, dict) and probes.has_attention(models["student"]):
        models["ViT"] = models.pop("student")
    return models


def checked_model(path: Path, *, class_names: tuple[str, ...]) -> keras.Model:
    """The model of a file. Raises ValueError unless its classes are those of the data, `class_names`."""
    model, names = load_model(path)
    num_outputs = next(iter(interface.heads(model.output).values())).shape[-1]
    same_classes(names, class_names, path=path, num_outputs=num_outputs)
    return model


def test_batches(
    run: Run,
    model: keras.Model,
    *,
    row: str = "student",
    indices: Sequence[int] | np.ndarray | None = None,
    batch: int | None = None,
) -> tf.data.Dataset:
    """Batches of (images, labels, mask) of the test images, in the evaluation view of `model`.

    row: of FILES; the teacher has its own view. indices: of the test images; None: all of them.
    batch: images in a batch; None: as in `metrics.count`.
    """
    source = run.splits.test if indices is None else sources.take(run.splits.test, np.asarray(indices))
    teacher = row == "teacher"
    resize = run.eval_resize["teacher" if teacher else "student"]
    size = interface.view_size(model, resize=resize, flag="teacher_eval_resize" if teacher else "eval_resize")
    return pipeline.evaluation_batches(
        source, size=size, resize=resize, batch=batch or evaluation_batch(size), max_pixels=run.max_pixels
    )
