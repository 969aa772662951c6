"""Files that are complete or absent: each is written under a temporary name, then renamed."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

UNFINISHED = ".unfinished-"  # start of temporary names, then the number of the process that writes the file
ENCODING = {"encoding": "utf-8", "errors": "surrogateescape"}  # of text files, also for names that are not UTF-8


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path in the folder of `path`; the file written there becomes `path` if the block ends without error.

    Raises OSError that names `path`, which then is as before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{UNFINISHED}{os.getpid()}-{path.name}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(f"{path} could not be written ({error.strerror or error}); nothing was replaced.") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace the file by this text; raises as `replacing` does."""
    with replacing(path) as temporary:
        temporary.write_text(text, **ENCODING)


def read_text(path: Path) -> str:
    """The text of a file that `write_text` has written."""
    return path.read_text(**ENCODING)


def write_json(path: Path, value: Any) -> None:
    """Replace the file by this value in JSON; raises as `replacing` does."""
    write_text(path, json.dumps(value, indent=1) + "\n")
