"""Commands as a user types them: recipes and flags in, help, one sentence for a mistake, exit codes.

A recipe is a flag file: one `--name=value` a line, whole-line comments with `#`, later lines win, and
`--flagfile=other.cfg` takes in another recipe, which lies next to the one that names it or in the package.
"""

import contextlib
import difflib
import os
import re
import shlex
import sys
import textwrap
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import absl.flags

from deitlt_tf.recipes.flags import COMMANDS_OWN, FIRST, FLAGS, GROUPS, OURS, RECIPE
from deitlt_tf.recipes.recipe import Recipe, read

# The recipes: of the installed package, or of the checkout that this file is part of.
PACKAGE = Path(__file__).parents[1]
RECIPES = next((folder for folder in (PACKAGE / "configs", PACKAGE.parent / "configs") if folder.is_dir()), PACKAGE)

# Arguments of the library whose flag has another name.
FLAG_OF = {"max_pixels": "max_megapixels"}


def find_flagfile(name: str | os.PathLike) -> Path:
    """The file itself, or the packaged recipe of that name. Raises FileNotFoundError that lists those that exist."""
    path = Path(name)
    packaged = RECIPES / path.name
    if path.is_file():
        return path
    if packaged.is_file() and path.parent in (Path(), Path("configs")):
        return packaged
    near = difflib.get_close_matches(path.name, [file.name for file in RECIPES.glob("*.cfg")], n=1)
    hint = f"did you mean {near[0]}?" if near else f"packaged recipes are in {RECIPES}."
    raise FileNotFoundError(f"--flagfile={name}: there is no such file, and no packaged recipe of that name; {hint}")


def read_flagfile(name: str | os.PathLike, *, including: tuple[Path, ...] = ()) -> list[str]:
    """Arguments of a recipe, those of the recipes that it takes in at their place.

    Raises ValueError that names file and line of an unknown flag, FileNotFoundError for a file that does not exist.
    """
    path = find_flagfile(name)
    if path.resolve() in including:
        raise ValueError(f"{path} takes itself in: a recipe cannot contain itself.")
    arguments: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        flag, equals, value = line.partition("=")
        flag = flag.lstrip("-")
        switch = (flag in OURS and FLAGS[flag].boolean) or flag.startswith("no")
        if not line.startswith("-") or not (equals or switch):
            raise ValueError(f"{path}:{number}: {line!r} is not of the form --name=value.")
        if flag == "flagfile":
            beside = path.parent / value
            inner = beside if beside.is_file() else value
            arguments += read_flagfile(inner, including=(*including, path.resolve()))
        elif flag in OURS or flag.removeprefix("no") in OURS:
            arguments.append(line)
        else:
            near = difflib.get_close_matches(flag, OURS, n=1)
            hint = f" Did you mean --{near[0]}?" if near else ""
            raise ValueError(f"{path}:{number}: unknown flag --{flag}.{hint}")
    return arguments


def parse(argv: list[str], *, from_workdir: bool = False) -> dict[str, Any]:
    """The value of each of our flags, by name. With `from_workdir`, D/flags.cfg of --workdir=D comes first.

    argv: the command's name, then its arguments. Raises ValueError for an unknown flag or a value out of its range.
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
        arguments = [*flags_of_run(arguments), *arguments]
    for name in OURS:  # a second call starts from the defaults again
        FLAGS[name].unparse()
    try:
        rest = FLAGS([argv[0], *arguments])
    except absl.flags.IllegalFlagValueError as error:
        raise ValueError(_wrong_value(str(error))) from error
    except absl.flags.Error as error:
        raise ValueError(" ".join(str(error).split())) from error
    if rest[1:]:
        raise ValueError(f"{rest[1]!r} is not a flag: every option is written --name=value.")
    return {name: FLAGS[name].value for name in OURS}


def flags_of_run(arguments: list[str]) -> list[str]:
    """The lines of flags.cfg in the folder that --workdir=D among the arguments names."""
    workdirs = [argument.partition("=")[2] for argument in arguments if argument.lstrip("-").startswith("workdir=")]
    if not workdirs:
        raise ValueError("--workdir is missing: name the folder of a run.")
    path = Path(workdirs[-1]) / "flags.cfg"
    if not path.is_file():
        raise FileNotFoundError(f"--workdir={workdirs[-1]} is not the folder of a run: there is no {path}.")
    return read_flagfile(path)


def _wrong_value(message: str) -> str:
    """absl's `flag --name=value: reason` as a sentence that says which values are right."""
    match = re.match(r"flag --(\w+)=(.*?): ", message, re.DOTALL)
    if not match or match[1] not in OURS:
        return " ".join(message.split())
    name, value = match[1], match[2]
    flag = FLAGS[name]
    kinds = {"int": "a whole number", "float": "a number", "bool": "true or false"}
    choices = getattr(flag.parser, "enum_values", None)
    wanted = f"one of {', '.join(choices)}" if choices else kinds.get(flag.flag_type(), flag.flag_type())
    low, high = (getattr(flag.parser, side, None) for side in ("lower_bound", "upper_bound"))
    if low is not None and high is not None:
        wanted += f" from {low:g} to {high:g}"
    elif low is not None:
        wanted += f" of at least {low:g}"
    return f"--{name}={value} is not {wanted}. {flag.help}"


def recipe_of(argv: list[str], *, from_workdir: bool = False) -> Recipe:
    """The settings that a command line means; see `parse`."""
    values = parse(argv, from_workdir=from_workdir)
    given = frozenset(name for name in RECIPE if FLAGS[name].present)
    return read({name: values[name] for name in RECIPE}, given=given)


def usage(doc: str, *, takes: Collection[str] = (), full: bool = False) -> str:
    """Help text of a command: its docstring, its own flags, then the flags that people change first, or all of them."""
    groups = {"Flags of this command": tuple(takes)} if takes else {}
    if full:
        groups |= {heading: names for heading, names in GROUPS.items() if not {*names} <= {*COMMANDS_OWN}}
    else:
        groups |= {"Flags that people change first": FIRST}
    lines = [doc.strip()]
    for heading, names in groups.items():
        lines += ["", f"{heading}:"]
        for name in names:
            flag = FLAGS[name]
            default = ",".join(flag.default) if isinstance(flag.default, list) else flag.default
            lines.append(f"  --{name}={shlex.quote(str(default))}")
            lines += textwrap.wrap(flag.help, 110, initial_indent=" " * 8, subsequent_indent=" " * 8)
    if not full:
        lines += ["", f"--helpfull shows all {len(RECIPE) + len(takes)} flags, under headings."]
    return "\n".join(lines)


def program(main: Callable[..., None], doc: str, *, from_workdir: bool = False, takes: Collection[str] = ()) -> None:
    """Run `main(recipe, **own)`; a user's mistake becomes one sentence on stderr and exit code 1.

    takes: flags beyond a recipe's that this command knows, which `main` gets as keywords; others are refused rather
    than ignored. Flags are parsed before TensorFlow is imported, so that help and typing errors come at once.
    """
    with _closed_pipe_is_no_error():
        for argument in sys.argv[1:]:
            if argument.lstrip("-") in ("help", "h", "helpfull"):
                print(usage(doc, takes=takes, full=argument.endswith("full")))
                return
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # no notes on how TensorFlow was built
        try:
            recipe = recipe_of(sys.argv, from_workdir=from_workdir)
            for name in COMMANDS_OWN:
                if FLAGS[name].present and name not in takes:
                    raise ValueError(f"--{name} is a flag of another command: this one would ignore it.")
            main(recipe, **{name: FLAGS[name].value for name in takes})
        except BrokenPipeError:
            raise
        except (ValueError, OSError, FloatingPointError) as error:
            if FLAGS.is_parsed() and FLAGS.traceback:
                raise
            print(f"error: {with_dashes(str(error))}", file=sys.stderr)
            sys.exit(1)
        except KeyboardInterrupt:
            print("interrupted: the same command goes on from the last checkpoint.", file=sys.stderr)
            sys.exit(130)


def with_dashes(message: str) -> str:
    """The library's `name=value` and `name` in backticks, where name is an argument that a flag sets, as --name."""

    def flag(match: re.Match) -> str:
        name = FLAG_OF.get(match["name"], match["name"])
        return f"--{name}" if name in OURS else match[0]

    message = re.sub(r"(?<![\w.\-/`'\"])(?P<name>[a-z][a-z0-9_]*)(?==\S)", flag, message)
    return re.sub(r"`(?P<name>[a-z][a-z0-9_]*)`", flag, message)


@contextlib.contextmanager
def _closed_pipe_is_no_error() -> Iterator[None]:
    """`--help | head` ends quietly. Python flushes stdout once more when it exits, so stdout must lead nowhere then."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


@contextlib.contextmanager
def extra(name: str) -> Iterator[None]:
    """Imports of an optional dependency. Raises ValueError that says how to install what is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ValueError(f"{error.name} is not installed: python -m pip install 'deitlt_tf[{name}]'.") from error
