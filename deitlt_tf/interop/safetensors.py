"""safetensors files as NumPy arrays: eight bytes of length, a JSON header, raw numbers. Nothing in a file can run.

    length of the header, 8 bytes, little-endian | {"name": {"dtype", "shape", "data_offsets"}, ...} | the numbers

Every field is checked against the size of the file before an array is read, so a file takes no more memory than its own
size, twice that where numbers of 16 bits become float32. The package safetensors is not needed.
Source: huggingface/safetensors README.md ("Format"), whose own reader has the same rules: no holes, no overlap.
"""

import json
import math
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

LONGEST_HEADER = 2**24  # bytes; the header of a network of a thousand arrays has a hundredth of that

# Name of a type in the header -> the type of the raw numbers. BF16 is the upper half of a float32.
DTYPES = {
    "BOOL": np.dtype("?"),
    **{f"{kind}{8 * size}": np.dtype(f"<{kind.lower()}{size}") for kind in "IU" for size in (1, 2, 4, 8)},
    "BF16": np.dtype("<u2"),
    **{f"F{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)},
}
PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")  # first bytes of PyTorch's files


class Entry(NamedTuple):
    """An array in the file. start: of its numbers, counted from the end of the header, bytes."""

    name: str
    kind: str
    shape: tuple[int, ...]
    start: int
    end: int


def read(path: Path) -> dict[str, np.ndarray]:
    """{name: array} of a safetensors file; floats of any size become float32.

    Raises FileNotFoundError, or ValueError that names the file: for a header that is no JSON, too long or contradicts
    the file, for a type that is not known, and for a PyTorch file under the name of a safetensors file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file.")
    size = path.stat().st_size
    with path.open("rb") as file:
        try:
            return {entry.name: _array(file, entry, place) for place, entry in _entries(file, size)}
        except ValueError as error:
            raise ValueError(f"{path} is not a safetensors file that can be read: {error}.") from error


def _entries(file: BinaryIO, size: int) -> list[tuple[int, Entry]]:
    """(place in the file, entry) of every array; raises ValueError unless header and file agree."""
    first = file.read(8)
    length = int.from_bytes(first, "little")
    # Lengths that fit may begin like a pickle, too: 640 is 80 02 00 ... 00.
    if first.startswith(PICKLES) and length > min(size - 8, LONGEST_HEADER):
        raise ValueError("it is a PyTorch file (a pickle) under another name; none of its code was run")
    if len(first) < 8 or length > size - 8:
        raise ValueError(f"its first 8 bytes promise a header of {length} bytes, and the file has {size}")
    if length > LONGEST_HEADER:
        raise ValueError(f"its header has {length} bytes, more than {LONGEST_HEADER}")
    header = _header(file.read(length))
    entries = [_entry(name, value) for name, value in header.items() if name != "__metadata__"]
    entries.sort(key=lambda entry: (entry.start, entry.end))
    end = 0
    for entry in entries:
        if entry.start != end:
            what = "overlap those of another array" if entry.start < end else "leave a hole before them"
            raise ValueError(f"the numbers of {entry.name!r} {what} (bytes {entry.start} to {entry.end})")
        end = entry.end
    if end != size - 8 - length:
        raise ValueError(f"its arrays end at byte {end} of {size - 8 - length}: it is cut off, or has other content")
    return [(8 + length + entry.start, entry) for entry in entries]


def _header(text: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            names = [name for name, _ in pairs]
            raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} stands twice in its header")
        return content

    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"its header is not JSON ({type(error).__name__})") from error
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    return header


def _entry(name: str, value: Any) -> Entry:
    """The checked entry of one array; raises ValueError that names it."""
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"the entry of {name!r} does not consist of dtype, shape and data_offsets")
    kind, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(kind, str) or kind not in DTYPES:
        raise ValueError(f"{name!r} is of the type {str(kind)[:20]!r}; {', '.join(DTYPES)} are read")
    for what, numbers in (("shape", shape), ("data_offsets", offsets)):
        if not isinstance(numbers, list) or not all(type(n) is int and 0 <= n < 2**63 for n in numbers):
            raise ValueError(f"the {what} of {name!r} is not a list of whole numbers from 0 on")
    if len(offsets) != 2 or len(shape) > 32 or offsets[1] - offsets[0] != math.prod(shape) * DTYPES[kind].itemsize:
        raise ValueError(f"{name!r} has the shape {shape[:8]} of {kind}, which does not fill its bytes {offsets[:8]}")
    return Entry(name, kind, tuple(shape), *offsets)


def _array(file: BinaryIO, entry: Entry, place: int) -> np.ndarray:
    file.seek(place)
    dtype = DTYPES[entry.kind]
    numbers = np.fromfile(file, dtype, (entry.end - entry.start) // dtype.itemsize)
    if entry.kind == "BF16":
        numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
    elif dtype.kind == "f":
        numbers = numbers.astype(np.float32, copy=False)
    return numbers.reshape(entry.shape)
