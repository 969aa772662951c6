"""Recipes and flags as a user types them: parsing, help, exit codes."""

import contextlib
import difflib
import os
import shlex
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import SimpleNamespace

import absl.flags

from deitlt_tf.recipes import flags


def read_flagfile(path: str | os.PathLike, *, _seen: tuple = ()) -> list[str]:
    """Arguments of a recipe, nested recipes taken in. Raises ValueError that names file and line of an unknown flag."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"--flagfile={path}: there is no such file.")
    if path.resolve() in _seen:
        raise ValueError(f"{path} takes itself in: a recipe cannot contain itself.")
    arguments: list[str] = []
    for number, line in enumerate(path.read_text().split("\n"), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        name = name.lstrip("-")
        switch = (name in flags.OURS and flags.FLAGS[name].boolean) or name.startswith("no")
        if not line.startswith("-") or not (equals or switch):
            raise ValueError(f"{path}:{number}: {line!r} is not of the form --name=value.")
        if name == "flagfile":
            arguments += read_flagfile(path.parent / value, _seen=(*_seen, path.resolve()))
        elif name in flags.OURS or name.removeprefix("no") in flags.OURS:
            arguments.append(line)
        else:
            near = difflib.get_close_matches(name, flags.OURS, n=1)
            hint = f" Did you mean --{near[0]}?" if near else ""
            raise ValueError(f"{path}:{number}: unknown flag --{name}.{hint}")
    return arguments


def parse(argv: list[str], *, from_workdir: bool = False) -> SimpleNamespace:
    """All our flags as a namespace. With `from_workdir`, D/flags.cfg of --workdir=D comes before the command line.

    Raises ValueError for an unknown flag or a value out of its range.
    """
    arguments: list[str] = []
    for argument in argv[1:]:
        name, equals, value = argument.partition("=")
        if name.lstrip("-") == "flagfile":
            if not equals:
                raise ValueError("--flagfile is written --flagfile=PATH.")
            arguments += read_flagfile(value)
        else:
            arguments.append(argument)
    if from_workdir:
        given = [a.partition("=")[2] for a in arguments if a.lstrip("-").startswith("workdir=")]
        if not given:
            raise ValueError("--workdir is missing: name the folder of a run.")
        recipe = Path(given[-1]) / "flags.cfg"
        if not recipe.is_file():
            raise FileNotFoundError(f"--workdir={given[-1]} is not the folder of a run: there is no {recipe}.")
        arguments = [*read_flagfile(recipe), *arguments]
    for name in flags.OURS:  # a second call starts from the defaults again
        flags.FLAGS[name].unparse()
    try:
        rest = flags.FLAGS([argv[0], *arguments])
    except absl.flags.Error as error:
        raise ValueError(" ".join(str(error).split())) from error
    if rest[1:]:
        raise ValueError(f"{rest[1]!r} is not a flag: every option is written --name=value.")
    return SimpleNamespace(**{name: flags.FLAGS[name].value for name in flags.OURS})


def as_flagfile(values: dict) -> str:
    """The text of a complete recipe: what `parse` gave, one line each."""
    lines = (
        f"--{name}={','.join(map(str, v)) if isinstance(v, list) else v}"
        for name, v in sorted(values.items())
        if name not in flags.OWN
    )
    return "\n".join(lines) + "\n"


def usage(doc: str, *, takes: Collection[str] = ()) -> str:
    """Help text of a program: its docstring, then its own flags, then a recipe's, with meaning and default."""
    lines = [doc.strip(), ""]
    for name in (*takes, *flags.RECIPE):
        flag = flags.FLAGS[name]
        default = ",".join(flag.default) if isinstance(flag.default, list) else flag.default
        lines.append(f"  --{name}={shlex.quote(str(default))}\n        {flag.help}")
    return "\n".join(lines)


def program(
    main: Callable[[SimpleNamespace], None], doc: str, *, from_workdir: bool = False, takes: Collection[str] = ()
) -> None:
    """Run `main` with the parsed flags; a user's mistake becomes one sentence on stderr and exit code 1.

    takes: flags beyond a recipe's that this program knows; others are refused rather than ignored.
    Flags are parsed before TensorFlow is imported, so that help and typing errors come at once.
    """
    if any(argument.lstrip("-") in ("help", "h", "helpfull") for argument in sys.argv[1:]):
        print(usage(doc, takes=takes))
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # no notes on how TensorFlow was built
    try:
        found = parse(sys.argv, from_workdir=from_workdir)
        for name in flags.OWN:
            if flags.FLAGS[name].present and name not in takes:
                raise ValueError(f"--{name} is a flag of another program: this one would ignore it.")
        main(found)
    except (ValueError, OSError, FloatingPointError) as error:
        if flags.FLAGS.is_parsed() and flags.FLAGS.traceback:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from the last checkpoint.", file=sys.stderr)
        sys.exit(130)


@contextlib.contextmanager
def extra(name: str) -> Iterator[None]:
    """Imports of an optional dependency. Raises ValueError that says how to install what is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ValueError(f"{error.name} is not installed: pip install 'deitlt_tf[{name}]'.") from error
