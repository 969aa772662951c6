"""One process at a time in a workdir: two would overwrite each other's checkpoints."""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

FILE = ".lock"


@contextlib.contextmanager
def locked(folder: Path, *, argument: str = "workdir") -> Iterator[None]:
    """Holds `folder` for this process until the block ends. argument: that named it, for the message.

    The operating system releases the lock when the process ends, however it ends: a killed run leaves no lock behind.
    A folder that is created here and still empty at the end is removed again.
    Raises ValueError that names the other process if there is one. On a file system without locks nothing is held.
    """
    import fcntl  # POSIX only

    path, existed = folder / FILE, folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
                raise BlockingIOError  # another process has just removed the folder, as below
        except BlockingIOError:
            raise ValueError(
                f"{folder} is in use by {_owner(path)}: two processes cannot share a {argument}. "
                f"Wait until that one ends, or choose another `{argument}`."
            ) from None
        except OSError:  # a file system without locks
            yield
            return
        file.truncate(0)
        json.dump({"host": socket.gethostname(), "process": os.getpid()}, file)
        file.flush()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                if not existed and [*folder.iterdir()] == [path]:
                    path.unlink()
                    folder.rmdir()


def _owner(path: Path) -> str:
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
        return f"process {owner['process']} on {owner['host']}"
    except (OSError, ValueError, KeyError, TypeError):  # it has locked the file and not written its name yet
        return "another process"


def is_alive(process: int) -> bool:
    """Whether a process of this machine is still there."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return True
