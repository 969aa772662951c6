"""The files from which a killed run is resumed: checkpoints (.npz, no pickles) and the journal metrics.jsonl."""

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from deitlt_tf.runs.files import read_text, replacing, write_text

MAX_CHECKPOINTS = 2  # older ones are deleted


class Checkpoints:
    """The last two checkpoints of a run, D/checkpoints/<step>.npz: named arrays and a JSON note.

    folder: D. say: prints the warning that a checkpoint is damaged. keep: how many are kept. Defaults to two.
    """

    def __init__(self, folder: Path, *, say: Callable[[str], None] = print, keep: int = MAX_CHECKPOINTS):
        self.folder, self.say, self.keep = folder / "checkpoints", say, keep

    def files(self) -> list[Path]:
        """The checkpoints, oldest first."""
        return sorted(self.folder.glob("[0-9]*.npz"))

    def save(self, step: int, arrays: dict[str, np.ndarray], note: dict[str, Any]) -> None:
        """Write the checkpoint of a step and delete those before the last `keep`. note: anything that JSON holds."""
        members: dict[str, Any] = {**arrays, "note": np.array(json.dumps(note))}
        with replacing(self.folder / f"{step:09d}.npz") as temporary, temporary.open("wb") as file:
            np.savez(file, **members)
        for old in self.files()[: -self.keep]:
            old.unlink()

    def restore(
        self, shapes: dict[str, tuple], *, step: int | None = None
    ) -> tuple[int, dict[str, np.ndarray], dict[str, Any]] | None:
        """Step, arrays and note of the newest checkpoint that can be read; None if there is none.

        A damaged checkpoint is reported and the one before is tried. shapes: {name: shape} of all arrays.
        step: only the checkpoint of this step. Defaults to any.
        Raises ValueError if a checkpoint has other shapes: it belongs to another model, and so do those before.
        """
        for path in reversed(self.files()):
            if step is not None and int(path.stem) != step:
                continue
            try:
                # Opened here, because NumPy does not close a file that it cannot read as an archive.
                with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                    arrays = {name: archive[name] for name in archive.files}
                note = json.loads(str(arrays.pop("note")))
            # RuntimeError, because one wrong bit in the archive's directory can mark a member as encrypted
            except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
                self.say(f"checkpoint {path} is damaged ({error}): going back to the one before.")
                continue
            if {name: array.shape for name, array in arrays.items()} != shapes:
                raise ValueError(
                    f"checkpoint {path} is of another model. Choose another `workdir`, or delete that one."
                )
            return int(path.stem), arrays, note
        return None


class Journal:
    """metrics.jsonl: one JSON object per line, each with its `step`. folder: of the run."""

    def __init__(self, folder: Path):
        self.path = folder / "metrics.jsonl"

    def lines(self) -> list[dict[str, Any]]:
        """All objects, in the order of writing; an incomplete last line is left out."""
        if not self.path.is_file():
            return []
        lines = []
        for line in read_text(self.path).splitlines():
            try:
                lines.append(json.loads(line))
            except json.JSONDecodeError:  # the run was killed while it wrote this line
                break
        return lines

    def rewind(self, step: int) -> None:
        """Delete the lines of all steps after `step`, from which the run is resumed."""
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in self.lines() if line["step"] <= step))

    def add(self, line: dict[str, Any]) -> None:
        """Append a line, on the disk when this returns. Raises OSError that names the file."""
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OSError(f"{self.path} could not be written ({error.strerror}).") from error
