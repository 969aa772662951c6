"""Paths of images that are no Python strings: numbers of images, or one block of text, so that 10^8 fit in memory.

paths = IdPaths("images", ids, suffixes)     images/123/4567123.jpg is image 4567123
paths[0], paths[mask]                        a string; the paths of fewer images
paths.in_graph()                             an index to a path, as an operation of TensorFlow
"""

import os
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from deitlt_tf.data.table import keys

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".jpg", ".png", ".webp", ".bmp", ".jpeg", ".JPG", ".JPEG", ".PNG")  # of an image, in 3 bits of its number
BLOCK = 2**16  # paths that are strings at a time


class Paths(Sequence[str]):
    """Paths of N images. `images` of a `dataset.Source` may be one of these."""

    ndim = 1

    @property
    def shape(self) -> tuple[int]:
        """(N,)."""
        return (len(self),)

    @property
    @abstractmethod
    def stable_keys(self) -> np.ndarray:
        """int64 [N], a number for each image that stays the same when others are added or the folder moves."""

    @abstractmethod
    def block(self, start: int, end: int) -> list[str]:
        """The paths start .. end - 1 as strings."""

    @abstractmethod
    def take(self, chosen: np.ndarray) -> "Paths":
        """The paths at these indices."""

    @abstractmethod
    def numbers(self) -> bytes:
        """What a fingerprint of these images is computed from: the same when the folder moves."""

    @abstractmethod
    def in_graph(self) -> Callable[[Any], Any]:
        """A function index, int64 scalar -> path, string scalar, of TensorFlow."""

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: "slice | np.ndarray") -> "Paths": ...
    def __getitem__(self, index: Any) -> Any:
        """A path as str, or the `Paths` at indices, in a slice or where a mask is true."""
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        if isinstance(index, np.ndarray) and index.ndim:
            return self.take(np.flatnonzero(index) if index.dtype == bool else index)
        place = range(len(self))[int(index)]
        return self.block(place, place + 1)[0]

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), BLOCK):
            yield from self.block(start, min(start + BLOCK, len(self)))


class IdPaths(Paths):
    """root/123/4567123.jpg of image 4567123: the folder is the last three digits of the number.

    root: folder or URL. ids: int64 [N], 0..2^60 - 1. suffixes: int [N], indices of SUFFIXES.
    flat: whether the files lie in `root` itself.
    """

    def __init__(self, root: str, ids: np.ndarray, suffixes: np.ndarray | int = 0, *, flat: bool = False):
        self.root, self.flat = root, flat
        self.codes = ids * len(SUFFIXES) + suffixes

    @classmethod
    def _of_codes(cls, root: str, codes: np.ndarray, *, flat: bool) -> "IdPaths":
        paths = cls.__new__(cls)
        paths.root, paths.codes, paths.flat = root, codes, flat
        return paths

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def stable_keys(self) -> np.ndarray:
        """The numbers of the images."""
        return self.codes // len(SUFFIXES)

    def block(self, start: int, end: int) -> list[str]:
        top = os.path.join(self.root, "")
        pairs = (divmod(code, len(SUFFIXES)) for code in self.codes[start:end].tolist())
        return [top + relative_path(number, SUFFIXES[suffix], flat=self.flat) for number, suffix in pairs]

    def take(self, chosen: np.ndarray) -> "IdPaths":
        return self._of_codes(self.root, self.codes[chosen], flat=self.flat)

    def numbers(self) -> bytes:
        return np.ascontiguousarray(self.codes, "<i8").tobytes()

    def in_graph(self) -> Callable[[Any], Any]:
        import tensorflow as tf

        with tf.init_scope():
            codes = tf.constant(self.codes, tf.int64)
        top, flat = os.path.join(self.root, ""), self.flat

        def path_at(index: Any) -> Any:
            number, suffix = codes[index] // len(SUFFIXES), codes[index] % len(SUFFIXES)
            folder = [] if flat else [tf.strings.as_string(number % 1000, width=3, fill="0"), "/"]
            return tf.strings.join([top, *folder, tf.strings.as_string(number), tf.gather(SUFFIXES, suffix)])

        return path_at


def relative_path(number: int, suffix: str, *, flat: bool = False) -> str:
    """Where the image of this number lies: 123/4567123.jpg."""
    return f"{number}{suffix}" if flat else f"{number % 1000:03d}/{number}{suffix}"


class TextPaths(Paths):
    """root/path of each image, the paths from a column of a table.

    root: folder or URL; "": the paths are whole. texts: pyarrow large_string [N], without empty cells.
    """

    def __init__(self, root: str, texts: "pa.Array"):
        self.root, self.texts = root, texts

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def stable_keys(self) -> np.ndarray:
        """A hash of each path from `root`."""
        return keys.of_text(self.texts)

    def block(self, start: int, end: int) -> list[str]:
        return [os.path.join(self.root, text) for text in self.texts[start:end].to_pylist()]

    def take(self, chosen: np.ndarray) -> "TextPaths":
        import pyarrow as pa

        return TextPaths(self.root, self.texts.take(pa.array(chosen)))

    def numbers(self) -> bytes:
        offsets, letters = self._buffers()
        return np.ascontiguousarray(offsets, "<i8").tobytes() + letters

    def _buffers(self) -> tuple[np.ndarray, bytes]:
        """(int64 [N + 1], where each path begins and the last one ends; all paths as one text)."""
        _, offset_buffer, data = self.texts.buffers()
        offsets = np.frombuffer(offset_buffer, np.int64)[self.texts.offset : self.texts.offset + len(self) + 1]
        first, last = int(offsets[0]), int(offsets[-1])
        return offsets - first, memoryview(data)[first:last].tobytes()

    def in_graph(self) -> Callable[[Any], Any]:
        import tensorflow as tf

        offsets, letters = self._buffers()
        with tf.init_scope():
            starts, whole = tf.constant(offsets, tf.int64), tf.constant(letters)
        top = os.path.join(self.root, "") if self.root else ""

        def path_at(index: Any) -> Any:
            # One text and where to cut it: a tensor of N strings takes 60 bytes more for each of them.
            return tf.strings.join([top, tf.strings.substr(whole, starts[index], starts[index + 1] - starts[index])])

        return path_at
