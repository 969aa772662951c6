"""Whose folder is it: flags.cfg and class_names.txt say which run a workdir belongs to."""

from collections.abc import Collection, Mapping
from pathlib import Path

from deitlt_tf.runs.files import UNFINISHED, write_text

ADVICE = "Choose another --workdir"


def has_begun(folder: Path) -> bool:
    """Whether a checkpoint or a model is there; without one, a mistyped flag or folder can be corrected in place."""
    return any(path.suffix in (".npz", ".keras") for path in folder.rglob("[!.]*"))


def refuse_other(
    folder: Path, *, flags: Mapping[str, str], free: Collection[str] = (), defaults: Mapping[str, str] | None = None
) -> None:
    """Raises ValueError, naming the flags that differ, if `folder` holds a run of another recipe; writes nothing.

    flags: {name: value as flags.cfg has it} of the run to be. free: names of flags that may differ.
    defaults: what a flag was for a run that began before the flag existed.
    """
    path = folder / "flags.cfg"
    if not has_begun(folder):
        return
    if path.is_file():
        lines = [line.removeprefix("--").partition("=") for line in path.read_text().splitlines()]
        there = {name: value for name, value in (defaults or {}).items() if name in flags}
        there |= {name: value for name, _, value in lines}
        names = sorted((there.keys() | flags.keys()) - {*free})
        differ = [name for name in names if there.get(name) != flags.get(name)]
        if differ:
            first = ", ".join(
                f"--{name} is {there.get(name)!r} there and {flags.get(name)!r} here" for name in differ[:3]
            )
            more = f" and {len(differ) - 3} more" if len(differ) > 3 else ""
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
    """Make `folder` the run of these flags on these classes, or check that it already is (ValueError if not).

    Writes flags.cfg and class_names.txt. What a killed run left unfinished is removed. Other arguments: `refuse_other`.
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
    """flags.cfg: a flag file of these values, a line for each."""
    write_text(folder / "flags.cfg", "".join(f"--{name}={value}\n" for name, value in sorted(flags.items())))
