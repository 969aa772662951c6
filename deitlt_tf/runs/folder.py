"""One run per folder: flags.cfg, class_names.txt and data.json say which run a workdir belongs to."""

import contextlib
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from deitlt_tf.devices.strategy import is_chief
from deitlt_tf.runs.files import UNFINISHED, read_text, write_text
from deitlt_tf.runs.fingerprint import FILE as DATA
from deitlt_tf.runs.fingerprint import Fingerprints, differences, read_fingerprints, write_fingerprints
from deitlt_tf.runs.lock import is_alive, locked

# Start of the line of flags.cfg that names the folder where the run was started; `recipes.command_line` reads it.
STARTED_IN = "# relative paths count from "


def advice(role: str) -> str:
    """What to do with a folder that belongs to something else."""
    return f"Choose another `{'teacher_workdir' if role == 'teacher' else 'workdir'}`"


def held(folder: Path) -> contextlib.AbstractContextManager[None]:
    """The folder `locked` for this run: by the chief, since the other workers do not write."""
    return locked(folder) if is_chief() else contextlib.nullcontext()


def has_begun(folder: Path, *, role: str = "student") -> bool:
    """Whether the folder has a checkpoint or a model of its own. Until then it can be used with other flags or data.

    role: student (also for a plain ViT) or teacher. The copy of the teacher in a student's folder does not count, nor
    does what lies in the folders below. A folder that no run of this version has claimed holds an imported model, or a
    run of version 0.1.0: there, every model counts.
    """
    models = f"{role}*.keras" if (folder / DATA).is_file() else "*.keras"
    return any(folder.glob("checkpoints/[0-9]*.npz")) or any(folder.glob(models))


def refuse_other(
    folder: Path,
    *,
    flags: Mapping[str, str],
    free: Collection[str] = (),
    defaults: Mapping[str, str] | None = None,
    paths: Collection[str] = (),
    role: str = "student",
) -> None:
    """Raises ValueError, naming the flags that differ, if `folder` holds a run of another recipe; writes nothing.

    flags: {name: value as in flags.cfg} of this run. free: names of flags that may differ.
    defaults: {name: value} of flags that a folder's flags.cfg may lack, because its run began before they existed.
    paths: names of flags whose values are paths, which may be written in two ways. role: see `has_begun`.
    """
    path = folder / "flags.cfg"
    if not has_begun(folder, role=role):
        return
    if path.is_file():
        lines = read_text(path).splitlines()
        started_in = next((x.removeprefix(STARTED_IN) for x in lines if x.startswith(STARTED_IN)), "")
        old = {name: value for name, value in (defaults or {}).items() if name in flags}
        old |= {name: value for name, _, value in (x.removeprefix("--").partition("=") for x in lines if x[:1] == "-")}
        names = sorted((old.keys() | flags.keys()) - {*free})
        differing = [name for name in names if old.get(name) != flags.get(name)]
        differing = [
            name
            for name in differing
            if name not in paths
            or not (old.get(name) and flags.get(name))
            or os.path.abspath(os.path.join(started_in, old[name])) != os.path.abspath(flags[name])
        ]
        if differing:
            first = ", ".join(
                f"`{name}` is {old.get(name)!r} there and {flags.get(name)!r} here" for name in differing[:3]
            )
            more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
            raise ValueError(
                f"{folder} holds a run of another recipe: {first}{more}. {advice(role)}, or delete that one."
            )
    elif any(folder.glob("*.keras")):
        raise ValueError(f"{folder} holds a model but no flags.cfg: it is not a run that could go on. {advice(role)}.")


def is_of_version_0_1(folder: Path) -> bool:
    """Whether version 0.1 has written the folder's flags.cfg, which then does not say where the run was started."""
    path = folder / "flags.cfg"
    return path.is_file() and STARTED_IN not in read_text(path)


def refuse_other_data(folder: Path, *, data: Fingerprints, drawn: Collection[str] = (), role: str = "student") -> None:
    """Raises ValueError, with the numbers of images, if `folder` holds a run on other data; writes nothing.

    data: of the splits of this run. role: see `has_begun`.
    drawn: names of flags that held images out; version 0.1.0 chose other images for them.
    """
    if not has_begun(folder, role=role):
        return
    before = read_fingerprints(folder)
    if before is None and drawn and is_of_version_0_1(folder):
        raise ValueError(
            f"{folder} holds a run of version 0.1.0, which held out other images for {' and '.join(drawn)}: going on "
            f"would measure on images that it was trained on. {advice(role)} to begin again, or take that version."
        )
    if before is not None and (sentences := differences(before, data)):
        raise ValueError(
            f"{folder} holds a run on other data: {'; '.join(sentences)}. {advice(role)} for these data, or delete "
            "that one."
        )


def claim(
    folder: Path,
    *,
    flags: Mapping[str, str],
    class_names: tuple[str, ...],
    data: Fingerprints | None = None,
    drawn: Collection[str] = (),
    free: Collection[str] = (),
    defaults: Mapping[str, str] | None = None,
    paths: Collection[str] = (),
    role: str = "student",
) -> None:
    """Make `folder` the folder of this run: write flags.cfg, class_names.txt and data.json.

    Unfinished files that a dead process has left are deleted.
    class_names: of the data, in label order. The other arguments: as in `refuse_other` and `refuse_other_data`.
    data: None: not looked at.
    Raises ValueError if the folder holds a run of other flags, classes or data.
    """
    refuse_other(folder, flags=flags, free=free, defaults=defaults, paths=paths, role=role)
    names = folder / "class_names.txt"
    lines = "".join(f"{name}\n" for name in class_names)
    if has_begun(folder, role=role) and names.is_file() and read_text(names) != lines:
        raise ValueError(f"{folder} holds a run on other classes: see {names}. {advice(role)}.")
    if data is not None:
        refuse_other_data(folder, data=data, drawn=drawn, role=role)
        if has_begun(folder, role=role) and not (folder / DATA).is_file() and not (folder / f"{role}.keras").is_file():
            print(f"{folder} holds a run of version 0.1.0: from here on its images come in another order.")
    for path in folder.rglob(UNFINISHED + "*"):
        process = re.match(rf"{re.escape(UNFINISHED)}(\d+)-", path.name)
        if process and not is_alive(int(process[1])):
            path.unlink(missing_ok=True)
    write_flags(folder, flags)
    write_text(names, lines)
    if data is not None:
        write_fingerprints(folder, data)


def write_flags(folder: Path, flags: Mapping[str, str]) -> None:
    """Write flags.cfg, a flag file with a line for each value, and the folder that its relative paths count from."""
    lines = "".join(f"--{name}={value}\n" for name, value in sorted(flags.items()))
    write_text(folder / "flags.cfg", f"{STARTED_IN}{os.getcwd()}\n{lines}")
