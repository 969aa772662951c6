"""A folder or a .zip with several files: a Darwin Core archive, a Camtrap DP."""

import contextlib
import io
import lzma
import os
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO

SMALL = 2**24  # bytes of a file that is read at once
SWELLING = 200  # a member that is so many times larger than its compressed bytes is no table


class Archive:
    """The files of a folder or a .zip by their names. path: of it."""

    def __init__(self, path: str):
        self.path = path
        self.zip: zipfile.ZipFile | None = None
        if os.path.isdir(path):
            self.names = sorted(name for name in os.listdir(path) if os.path.isfile(os.path.join(path, name)))
            return
        try:
            self.zip = zipfile.ZipFile(path)
        except zipfile.BadZipFile:
            raise ValueError(f"{path} is not a whole .zip file: it may be cut off, fetch it again.") from None
        self.names = [name for name in self.zip.namelist() if not name.endswith("/")]

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """A file of the archive. Raises ValueError that names it if it is not there, or swells."""
        if name not in self.names:
            raise ValueError(f"{self.path} has no file {name}: it may be incomplete.")
        if self.zip is None:
            with open(os.path.join(self.path, name), "rb") as stream:
                yield stream
            return
        entry = self.zip.getinfo(name)
        if entry.file_size > SWELLING * max(entry.compress_size, 2**16):
            raise ValueError(f"{self.path}: {name} is {entry.file_size} bytes when unpacked, far more than a table is.")
        try:
            with self.zip.open(entry) as member:
                yield member  # type: ignore[misc]
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError) as error:
            raise ValueError(f"{self.path}: {name} cannot be unpacked ({error}).") from None

    def read(self, name: str) -> bytes:
        """The bytes of a small file. Raises ValueError if it is larger than SMALL."""
        with self.open(name) as stream:
            data = stream.read(SMALL + 1)
        if len(data) > SMALL:
            raise ValueError(
                f"{self.path}: {name} is larger than {SMALL} bytes, which is no description of an archive."
            )
        return data

    @contextlib.contextmanager
    def text(self, name: str) -> Iterator[io.TextIOWrapper]:
        """A file of the archive as UTF-8 text, for the module csv."""
        with self.open(name) as stream:
            yield io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")

    def close(self) -> None:
        if self.zip is not None:
            self.zip.close()
