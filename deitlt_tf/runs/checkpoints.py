"""What a killed run goes on from: checkpoints (.npz, no pickles) and the journal metrics.jsonl."""

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from deitlt_tf.runs.files import replacing, write_text

KEPT = 2  # checkpoints


class Checkpoints:
    """The last two checkpoints of a run, D/checkpoints/<step>.npz: named arrays and a JSON note.

    A file that cannot be read (cut in half, other shapes) is passed over, loudly, for the one before.
    """

    def __init__(self, folder: Path, *, say: Callable[[str], None] = print):
        self.folder, self.say = folder / "checkpoints", say

    def files(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*.npz"))

    def save(self, step: int, arrays: dict[str, np.ndarray], note: dict) -> None:
        with replacing(self.folder / f"{step:09d}.npz") as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays, note=np.array(json.dumps(note)))
        for old in self.files()[:-KEPT]:
            old.unlink()

    def restore(self, shapes: dict[str, tuple]) -> tuple[int, dict[str, np.ndarray], dict] | None:
        """Step, arrays and note of the newest checkpoint that is whole and has exactly these shapes; None if none is.

        A readable one with other shapes raises ValueError: it is of another model, and going back would not help.
        """
        for path in reversed(self.files()):
            try:
                # Opened here, because NumPy leaves a file open that is not a whole archive.
                with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                    arrays = {name: archive[name] for name in archive.files}
                note = json.loads(str(arrays.pop("note")))
            # RuntimeError: a flipped bit of the directory can make a member "encrypted", or packed in an unknown way
            except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
                self.say(f"checkpoint {path} is damaged ({error}): going back to the one before.")
                continue
            if {name: array.shape for name, array in arrays.items()} != shapes:
                raise ValueError(
                    f"checkpoint {path} is of another model. Choose another --workdir, or delete that one."
                )
            return int(path.stem), arrays, note
        return None


class Journal:
    """metrics.jsonl: one JSON object a line, each with its `step`."""

    def __init__(self, folder: Path):
        self.path = folder / "metrics.jsonl"

    def lines(self) -> list[dict]:
        if not self.path.is_file():
            return []
        found = []
        for line in self.path.read_text().splitlines():
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:  # the last line of a run that was killed while writing it
                break
        return found

    def rewind(self, step: int) -> None:
        """Forget what was written after `step`: the run goes on from there."""
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in self.lines() if line["step"] <= step))

    def add(self, line: dict) -> None:
        try:
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OSError(f"{self.path} could not be written ({error.strerror}).") from error
