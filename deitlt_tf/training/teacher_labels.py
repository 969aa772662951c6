"""What a teacher chose for every training view, kept for the next student: two bytes a view instead of a forward pass.

A view is a function of its position, the seed and the recipe, mixing included. FILE holds a line of JSON, the key:
everything that decides a view and its label; then, for each step, a checksum and the classes of its batch, 16 bits
each, little-endian. Steps are written where they belong, so a killed run leaves a file that the next one goes on with.
"""

import hashlib
import json
import os
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from deitlt_tf.data import storage
from deitlt_tf.data.dataset import Source
from deitlt_tf.runs.files import write_text

MOST_CLASSES = 2**16 - 1

# Flags that decide a view and what the teacher says of it, besides data, teacher and the parts of a batch.
VIEWS = (
    *("seed", "epochs", "batch_size", "sampling", "repeats", "image_size", "crop", "crop_min_scale", "padding", "flip"),
    *("randaugment", "erasing", "resize", "mixup", "cutmix", "mix_prob", "switch_prob", "teacher_sees"),
)


class TeacherLabels:
    """The file at `path`, of labels whose `key` is this; made where it is not there.

    Raises ValueError for the labels of other views, naming what differs; for more classes than 16 bits tell apart.
    """

    def __init__(self, path: Path, key: dict[str, str], *, batch: int, num_classes: int, writes: bool = True):
        if num_classes > MOST_CLASSES:
            raise ValueError(f"--teacher_labels keeps up to {MOST_CLASSES} classes: the data have {num_classes}.")
        self.path, self.batch = path, batch
        if writes and not path.exists():
            write_text(path, json.dumps(key) + "\n")
        try:
            with path.open("rb") as file:
                first = file.readline(2**16)
            there = dict(json.loads(first))
        except OSError as error:
            raise OSError(f"--teacher_labels={path} could not be opened ({error.strerror}).") from error
        except (ValueError, TypeError):
            raise ValueError(f"--teacher_labels={path} is not a file of a teacher's labels.") from None
        differ = [name for name in key | there if key.get(name) != there.get(name)]
        if differ:
            shown = ", ".join(f"{name} is {there.get(name)!r} there and {key.get(name)!r} here" for name in differ[:3])
            raise ValueError(f"--teacher_labels={path} holds the labels of other views: {shown}. Name another file.")
        self.start, self.row_size = len(first), 4 + 2 * batch

    def read(self, step: int) -> np.ndarray | None:
        """The classes of a step's views, int64 [B]; None where they were never written, or not wholly."""
        with self.path.open("rb", buffering=0) as file:
            return self.row(file, step)

    def row(self, file: BinaryIO, step: int) -> np.ndarray | None:
        row = os.pread(file.fileno(), self.row_size, self.start + step * self.row_size)
        if len(row) < self.row_size or int.from_bytes(row[:4], "little") != checksum(step, row[4:]):
            return None
        return np.frombuffer(row[4:], "<u2").astype(np.int64)

    def write(self, step: int, labels: np.ndarray) -> None:
        """labels: [B], in the order of the stream."""
        row = labels.astype("<u2").tobytes()
        row = checksum(step, row).to_bytes(4, "little") + row
        try:
            with self.path.open("r+b") as file:
                file.seek(self.start + step * self.row_size)
                file.write(row)
        except OSError as error:
            raise OSError(f"--teacher_labels={self.path} could not be written ({error.strerror}).") from error

    def known(self, *, first: int, end: int) -> int:
        """The first step from `first` on whose labels are missing; `end` if none is."""
        with self.path.open("rb", buffering=0) as file:
            return next((step for step in range(first, end) if self.row(file, step) is None), end)


def checksum(step: int, row: bytes) -> int:
    return zlib.crc32(row, step)


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(source: Source) -> str:
    """SHA-256 of labels and images: of pixels or encoded bytes themselves; of files their names, not what is in them.

    Names count from the folder that all share, which may be moved.
    """
    found = hashlib.sha256(np.ascontiguousarray(source.labels, "<i8").tobytes())
    if source.kind == "pixels":
        found.update(repr(source.images.shape).encode() + np.ascontiguousarray(source.images).tobytes())
        return found.hexdigest()
    images = list(source.images)
    if source.kind == "paths":
        images = [path.encode() for path in storage.below_common_folder(images)]
    for image in images:
        found.update(len(image).to_bytes(8, "little") + image)
    return found.hexdigest()
