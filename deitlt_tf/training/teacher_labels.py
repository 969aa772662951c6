"""The teacher's class of every training view, in a file for the next student: two bytes a view, no forward pass.

A view is a function of its position in the stream, the seed and the recipe, mixing included. The file begins with a
line of JSON, the key: everything that decides a view and its label. Then follows a row for each step: a checksum and
the classes of its batch, 16 bits each, little-endian. Every step has a fixed place in the file, so the next run goes on
with the file of a killed run.
"""

import hashlib
import json
import os
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from deitlt_tf.runs.files import write_text
from deitlt_tf.runs.fingerprint import fingerprint as fingerprint  # of the training data, a part of the key

MOST_CLASSES = 2**16 - 1

# Flags that decide a view and its label, besides data, teacher and the parts of a batch.
VIEWS = (
    *("seed", "epochs", "batch_size", "sampling", "repeats", "image_size", "crop", "crop_min_scale", "padding", "flip"),
    *("randaugment", "erasing", "resize", "mixup", "cutmix", "mix_prob", "switch_prob", "teacher_sees"),
)


class TeacherLabels:
    """The file of labels at `path`; it is created if it does not exist.

    key: {what decides the labels: its value}. A file with another key is refused.
    batch: images of a step. num_classes: classes of the data.
    writes: whether this worker may create the file. Defaults to True.
    Raises ValueError for a file with another key, naming the differences; for a file of another format; for more
    classes than 16 bits can number. Raises OSError for a file that cannot be opened.
    """

    def __init__(self, path: Path, key: dict[str, str], *, batch: int, num_classes: int, writes: bool = True):
        if num_classes > MOST_CLASSES:
            raise ValueError(f"--teacher_labels keeps up to {MOST_CLASSES} classes: the data have {num_classes}.")
        self.path, self.batch = path, batch
        if writes and not path.exists():
            write_text(path, json.dumps(key) + "\n")
        try:
            with path.open("rb") as file:
                first_line = file.readline(2**16)
            file_key = dict(json.loads(first_line))
        except OSError as error:
            raise OSError(f"--teacher_labels={path} could not be opened ({error.strerror}).") from error
        except (ValueError, TypeError):
            raise ValueError(f"--teacher_labels={path} is not a file of a teacher's labels.") from None
        differing = [name for name in key | file_key if key.get(name) != file_key.get(name)]
        if differing:
            first = ", ".join(
                f"{name} is {file_key.get(name)!r} there and {key.get(name)!r} here" for name in differing[:3]
            )
            raise ValueError(f"--teacher_labels={path} holds the labels of other views: {first}. Name another file.")
        self.start, self.row_size = len(first_line), 4 + 2 * batch

    def read(self, step: int) -> np.ndarray | None:
        """The classes of a step's views, int64 [B]; None if they were never written, or only in part."""
        with self.path.open("rb", buffering=0) as file:
            return self.row(file, step)

    def row(self, file: BinaryIO, step: int) -> np.ndarray | None:
        """The same as `read`, from the open file."""
        row = os.pread(file.fileno(), self.row_size, self.start + step * self.row_size)
        if len(row) < self.row_size or int.from_bytes(row[:4], "little") != checksum(step, row[4:]):
            return None
        return np.frombuffer(row[4:], "<u2").astype(np.int64)

    def write(self, step: int, labels: np.ndarray) -> None:
        """Writes the classes of a step's views. labels: int [B], in the order of the stream."""
        row = labels.astype("<u2").tobytes()
        row = checksum(step, row).to_bytes(4, "little") + row
        try:
            with self.path.open("r+b") as file:
                file.seek(self.start + step * self.row_size)
                file.write(row)
        except OSError as error:
            raise OSError(f"--teacher_labels={self.path} could not be written ({error.strerror}).") from error

    def known(self, *, first: int, end: int) -> int:
        """The first step from `first` on whose labels are missing; `end` if none are."""
        with self.path.open("rb", buffering=0) as file:
            return next((step for step in range(first, end) if self.row(file, step) is None), end)


def checksum(step: int, row: bytes) -> int:
    """CRC-32 of a row and the number of its step."""
    return zlib.crc32(row, step)


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
