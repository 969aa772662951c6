"""A run's folder: flags.cfg, metrics.jsonl, checkpoints, which weights win, the finished models.

Every file is written to a temporary name beside it and renamed, so that a reader sees the old file or the new one.
Arrays are .npz without pickles; models are .keras files that carry their class names.
"""

import contextlib
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np

CLASS_NAMES = "class_names.json"  # a member of the .keras archive, beside Keras' own
KEPT = 2  # checkpoints
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


def save_model(model: keras.Model, path: Path, *, class_names: tuple[str, ...]) -> None:
    """`path` (.keras) with the class names inside; `keras.models.load_model` reads it as any other."""
    with replacing(path) as temporary:
        model.save(temporary)
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.writestr(CLASS_NAMES, json.dumps(list(class_names)))


def save_weights(model: keras.Model, path: Path) -> None:
    """All weights of `model`, in order, as an .npz."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, *model.get_weights())


def load_weights(model: keras.Model, path: Path) -> None:
    with np.load(path, allow_pickle=False) as archive:
        model.set_weights([archive[f"arr_{i}"] for i in range(len(archive.files))])


def load_model(path: Path) -> tuple[keras.Model, tuple[str, ...] | None]:
    """The model and its class names (None if the file has none: it was not written by us)."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such model file.")
    try:
        with zipfile.ZipFile(path) as archive:  # first: of a damaged file Keras would say that it is not there
            names = tuple(json.loads(archive.read(CLASS_NAMES))) if CLASS_NAMES in archive.namelist() else None
        model = keras.models.load_model(path, compile=False)
    except (zipfile.BadZipFile, KeyError, OSError, ValueError, TypeError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{path} is not a readable Keras model ({reason}).") from error
    return model, names


def same_classes(names: tuple[str, ...] | None, expected: tuple[str, ...], *, path: Path, num_outputs: int) -> None:
    """Raises ValueError unless a model file has exactly the data's classes, in the data's order."""
    if num_outputs != len(expected):
        raise ValueError(f"{path} has {num_outputs} classes, the data {len(expected)}.")
    if names is not None and names != expected:
        first = next(i for i, (a, b) in enumerate(zip(names, expected, strict=True)) if a != b)
        raise ValueError(
            f"{path} has other classes than the data: "
            f"class {first} is {names[first]!r} there, {expected[first]!r} here."
        )


def has_begun(folder: Path) -> bool:
    """Whether a checkpoint or a model is there; without one, a mistyped flag or folder can be mended in place."""
    return any(path.suffix in (".npz", ".keras") for path in folder.rglob("[!.]*"))


def refuse_other(folder: Path, recipe: dict, *, free: set[str] = frozenset(), defaults: dict | None = None) -> None:
    """Raises ValueError, naming the flags that differ, if `folder` holds a run of another recipe; writes nothing.

    free: names of flags that may differ. defaults: what a flag was for a run that began before the flag existed.
    """
    path = folder / "flags.cfg"
    if not has_begun(folder):
        return
    if path.is_file():
        lines = [line.removeprefix("--").partition("=") for line in path.read_text().splitlines()]
        new = as_text(recipe)
        old = {name: value for name, value in as_text(defaults or {}).items() if name in new}
        old |= {name: value for name, _, value in lines}
        differ = [name for name in sorted((old.keys() | new.keys()) - free) if old.get(name) != new.get(name)]
        if differ:
            shown = ", ".join(f"--{name} is {old.get(name)!r} there and {new.get(name)!r} here" for name in differ[:3])
            more = f" and {len(differ) - 3} more" if len(differ) > 3 else ""
            advice = "Choose another --workdir, or delete that one."
            raise ValueError(f"{folder} holds a run of another recipe: {shown}{more}. {advice}")
    elif any(folder.glob("*.keras")):
        raise ValueError(
            f"{folder} holds a model but no flags.cfg: it is not a run that could go on. Choose another --workdir."
        )


def as_text(values: dict) -> dict[str, str]:
    """Values as a flag file has them."""
    return {name: ",".join(map(str, v)) if isinstance(v, list) else str(v) for name, v in values.items()}


def claim(
    folder: Path,
    recipe: dict,
    *,
    text: str,
    class_names: tuple[str, ...],
    free: set[str] = frozenset(),
    defaults: dict | None = None,
) -> None:
    """Make `folder` the run of `recipe` on these classes, or check that it already is (ValueError if not).

    text: the flag file to leave there. What a killed run left unfinished is swept away. Others: see refuse_other.
    """
    refuse_other(folder, recipe, free=free, defaults=defaults)
    names = folder / "class_names.txt"
    lines = "".join(f"{name}\n" for name in class_names)
    if has_begun(folder) and names.is_file() and names.read_text() != lines:
        raise ValueError(f"{folder} holds a run on other classes: see {names}. Choose another --workdir.")
    for stale in folder.rglob(UNFINISHED + "*"):
        stale.unlink()
    write_text(folder / "flags.cfg", text)
    write_text(names, lines)


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
