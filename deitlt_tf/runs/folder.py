"""One run per folder: flags.cfg and class_names.txt say which run a workdir belongs to."""

from collections.abc import Collection, Mapping
from pathlib import Path

from deitlt_tf.runs.files import UNFINISHED, write_text

ADVICE = "Choose another `workdir`"


def has_begun(folder: Path) -> bool:
    """Whether the folder has a checkpoint or a model. Until then the same folder can be used with other flags."""
    return any(path.suffix in (".npz", ".keras") for path in folder.rglob("[!.]*"))


def refuse_other(
    folder: Path, *, flags: Mapping[str, str], free: Collection[str] = (), defaults: Mapping[str, str] | None = None
) -> None:
    """Raises ValueError, naming the flags that differ, if `folder` holds a run of another recipe; writes nothing.

    flags: {name: value as in flags.cfg} of this run. free: names of flags that may differ.
    defaults: {name: value} of flags that a folder's flags.cfg may lack, because its run began before they existed.
    """
    path = folder / "flags.cfg"
    if not has_begun(folder):
        return
    if path.is_file():
        lines = [line.removeprefix("--").partition("=") for line in path.read_text().splitlines()]
        old = {name: value for name, value in (defaults or {}).items() if name in flags}
        old |= {name: value for name, _, value in lines}
        names = sorted((old.keys() | flags.keys()) - {*free})
        differing = [name for name in names if old.get(name) != flags.get(name)]
        if differing:
            first = ", ".join(
                f"`{name}` is {old.get(name)!r} there and {flags.get(name)!r} here" for name in differing[:3]
            )
            more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
            raise ValueError(f"{folder} holds a run of another recipe: {first}{more}. {ADVICE}, or delete that one.")
    elif any(folder.glob("*.keras")):
        raise ValueError(f"{folder} holds a model but no flags.cfg: it is not a run that could go on. {ADVICE}.")


def claim(
    folder: Path,
    *,
    flags: Mapping[str, str],
    class_names: tuple[str, ...],
    free: Collection[str] = (),
    defaults: Mapping[str, str] | None = None,
) -> None:
    """Make `folder` the folder of this run: write flags.cfg and class_names.txt, delete unfinished files.

    class_names: of the data, in label order. flags, free, defaults: as in `refuse_other`.
    Raises ValueError if the folder holds a run of other flags or classes.
    """
    refuse_other(folder, flags=flags, free=free, defaults=defaults)
    names = folder / "class_names.txt"
    lines = "".join(f"{name}\n" for name in class_names)
    if has_begun(folder) and names.is_file() and names.read_text() != lines:
        raise ValueError(f"{folder} holds a run on other classes: see {names}. {ADVICE}.")
    for stale in folder.rglob(UNFINISHED + "*"):
        stale.unlink()
    write_flags(folder, flags)
    write_text(names, lines)


def write_flags(folder: Path, flags: Mapping[str, str]) -> None:
    """Write flags.cfg, a flag file with a line for each value."""
    write_text(folder / "flags.cfg", "".join(f"--{name}={value}\n" for name, value in sorted(flags.items())))
