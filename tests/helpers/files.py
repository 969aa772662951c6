"""What a folder holds, a disk that is full, and a small model to write there."""

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

import keras

NAMES = ("cat", "Hündin", "a,b")


def tiny_model(units: int = 3, inputs: int = 4) -> keras.Model:
    pixels = keras.Input([inputs])
    return keras.Model(pixels, keras.layers.Dense(units, bias_initializer="ones")(pixels))


def contents(folder: Path) -> dict[str, bytes]:
    """{path from `folder`: bytes} of every file."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextlib.contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """No file can grow beyond `limit` bytes: as on a full disk, the system itself refuses to write (EFBIG)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))  # Python ignores SIGXFSZ
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
