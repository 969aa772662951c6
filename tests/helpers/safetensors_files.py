"""Writes safetensors files, which the library only reads."""

import json
import struct
from pathlib import Path

import numpy as np

NAMES = {np.dtype("<f4"): "F32", np.dtype("<f2"): "F16", np.dtype("<f8"): "F64", np.dtype("<i8"): "I64"}


def file_of(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    """The bytes of a file. header: JSON value, or text as it is. length: what the first 8 bytes say."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def content(arrays: dict[str, np.ndarray]) -> bytes:
    """The bytes of a file with these arrays."""
    header, parts, end = {"__metadata__": {"format": "pt"}}, [], 0
    for name, value in arrays.items():
        start, end = end, end + value.nbytes
        header |= {name: {"dtype": NAMES[value.dtype], "shape": list(value.shape), "data_offsets": [start, end]}}
        parts.append(value.tobytes())
    return file_of(header, b"".join(parts))


def write(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    path.write_bytes(content(arrays))
    return path
