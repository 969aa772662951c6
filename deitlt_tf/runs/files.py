"""Files that are whole or not there: each is written to a temporary name and renamed."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

UNFINISHED = ".unfinished-"  # start of temporary names, swept away when the run goes on


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder; what is written there becomes `path` if the block ends well."""
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
    with replacing(path) as temporary:
        temporary.write_text(text)


def write_json(path: Path, value) -> None:
    write_text(path, json.dumps(value, indent=1) + "\n")
