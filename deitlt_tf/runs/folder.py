"""Whose folder is it: flags.cfg and class_names.txt say which run a workdir belongs to."""

from pathlib import Path

from deitlt_tf.runs.files import UNFINISHED, write_text


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
