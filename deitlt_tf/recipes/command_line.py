"""The command line: read recipes and flags, print help, turn a mistake into one sentence and an exit code.

A recipe is a flag file. Each line is `--name=value` or a comment that starts with `#`, and later lines win.
`--flagfile=other.cfg` takes in another recipe, from the folder of the recipe that names it or from the package.
"""

import contextlib
import difflib
import io
import os
import re
import shlex
import sys
import textwrap
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import absl.flags

from deitlt_tf.recipes.errors import sentence_of
from deitlt_tf.recipes.flags import (
    COMMANDS_OWN,
    DEFAULTS,
    EARLIER,
    FIRST,
    FLAGS,
    GROUPS,
    NO_PATHS,
    OURS,
    PATHS,
    RECIPE,
    Number,
)
from deitlt_tf.recipes.recipe import Recipe, read

# The folder of the recipes, in the installed package or in the checkout that this file is part of.
PACKAGE = Path(__file__).parents[1]
RECIPES = next((folder for folder in (PACKAGE / "configs", PACKAGE.parent / "configs") if folder.is_dir()), PACKAGE)

# Start of the comment in flags.cfg that names the folder where the run was started; see `runs.folder.write_flags`.
STARTED_IN = "# relative paths count from "

# Paths that are relative to --data_dir, where it is set, and not to the current folder.
BELOW_DATA_DIR = ("train_list", "val_list", "test_list", "image_root", "class_names_file")

# {argument of the library: its flag}, where the two have different names.
FLAG_OF = {"max_pixels": "max_megapixels"}


def find_flagfile(name: str | os.PathLike) -> Path:
    """The path `name` if it is a file, else the packaged recipe of that name, with or without configs/ in front.

    Raises FileNotFoundError that suggests a recipe of a similar name.
    """
    path = packaged(at_home(name, flag="flagfile"))
    if path.is_file():
        return path
    near = difflib.get_close_matches(path.name, [file.name for file in RECIPES.glob("*.cfg")], n=1)
    hint = f"did you mean {near[0]}?" if near else f"packaged recipes are in {RECIPES}."
    raise FileNotFoundError(f"--flagfile={name}: there is no such file, and no packaged recipe of that name; {hint}")


def packaged(name: str) -> Path:
    """The path `name`; where there is no such file, the one of that name in the package, with or without configs/."""
    path = Path(name)
    other = RECIPES / path.name
    return other if not path.is_file() and path.parent in (Path(), Path("configs")) and other.is_file() else path


def read_flagfile(name: str | os.PathLike, *, including: tuple[Path, ...] = ()) -> list[str]:
    """The arguments of a recipe; a line --flagfile=... is replaced by the arguments of that recipe.

    including: the recipes that take this one in, to notice a circle.
    Raises ValueError that names file and line of an unknown flag, FileNotFoundError for a file that does not exist.
    """
    path = find_flagfile(name)
    if path.resolve() in including:
        raise ValueError(f"{path} takes itself in: a recipe cannot contain itself.")
    arguments: list[str] = []
    started_in = ""
    for number, line in enumerate(_text_of(path).split("\n"), start=1):
        line = line.strip()
        if line.startswith(STARTED_IN):
            started_in = line.removeprefix(STARTED_IN)
        if not line or line.startswith("#"):
            continue
        flag, equals, value = line.partition("=")
        flag = flag.lstrip("-")
        switch = (flag in OURS and FLAGS[flag].boolean) or flag.startswith("no")
        if not line.startswith("-") or not (equals or switch):
            raise ValueError(f"{path}:{number}: {line!r} is not of the form --name=value.")
        if flag == "flagfile":
            neighbour = path.parent / value
            inner = neighbour if neighbour.is_file() else value
            try:
                arguments += read_flagfile(inner, including=(*including, path.resolve()))
            except FileNotFoundError as error:
                raise FileNotFoundError(f"{path}:{number}: {error}") from error
        elif flag in OURS or flag.removeprefix("no") in OURS:
            arguments.append(line)
        else:
            near = difflib.get_close_matches(flag, OURS, n=1)
            hint = f" Did you mean --{near[0]}?" if near else ""
            raise ValueError(f"{path}:{number}: unknown flag --{flag}.{hint}")
    if path.name == "flags.cfg":  # of a run, so complete unless an earlier version wrote it
        arguments = [f"--{name}={value}" for name, value in EARLIER.items()] + arguments
    return counted_from(started_in, arguments) if started_in else arguments


def _text_of(path: Path) -> str:
    """The text of a flag file. Raises ValueError that names a file in another encoding than UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig", errors="surrogateescape" if path.name == "flags.cfg" else "strict")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}.") from error


def counted_from(folder: str, arguments: list[str]) -> list[str]:
    """The arguments of a run that was started in `folder`, for a program that is started elsewhere.

    A relative path gets `folder` in front, unless it exists from here and not from there, as after a move of both.
    Lists of images are relative to --data_dir, if the run has one.
    """
    values = {name: value for name, _, value in (argument.lstrip("-").partition("=") for argument in arguments)}
    names = {name for name in PATHS if not (name in BELOW_DATA_DIR and values.get("data_dir"))}

    def there(argument: str) -> str:
        name, _, value = argument.lstrip("-").partition("=")
        if name not in names or not value or value.startswith(NO_PATHS):
            return argument
        listed = isinstance(FLAGS[name].default, list) or name == "table"
        return f"--{name}={','.join(map(below, value.split(',') if listed else [value]))}"

    def below(value: str) -> str:
        if "://" in value:
            return value
        path = os.path.join(folder, value)
        return value if os.path.exists(value) and not os.path.exists(path) else path

    return arguments if os.path.abspath(folder) == os.getcwd() else [*map(there, arguments)]


def at_home(path: str | os.PathLike, *, flag: str) -> str:
    """The path with the home folder instead of `~`, which a shell leaves alone behind "=".

    flag: its name, for the message. Raises ValueError where there is no such home folder.
    """
    kind = next((start for start in NO_PATHS if str(path).startswith(start)), "")
    expanded = os.path.expanduser(str(path).removeprefix(kind))
    if expanded.startswith("~"):
        raise ValueError(f"--{flag}={path}: there is no such home folder. For a folder of that name write ./{path}.")
    return kind + expanded


def parse(argv: list[str], *, from_workdir: bool = False) -> dict[str, Any]:
    """{name: value} of each of our flags.

    argv: the name of the command, then its arguments.
    from_workdir: whether the flags of the run in --workdir=D, from D/flags.cfg, come before the arguments.
    Raises ValueError for an unknown flag or a value out of its range, FileNotFoundError for a missing flag file.
    """
    return _values(argv[0], arguments_of(argv, from_workdir=from_workdir))


def arguments_of(argv: list[str], *, from_workdir: bool = False) -> list[str]:
    """The arguments of a command line, with the lines of flag files in place of their names. Arguments: see `parse`."""
    arguments: list[str] = []
    for argument in argv[1:]:
        name, equals, value = argument.partition("=")
        if name.lstrip("-") == "flagfile":
            if not equals:
                raise ValueError("--flagfile is written --flagfile=PATH.")
            arguments += read_flagfile(value)
        else:
            arguments.append(argument)
    return [*flags_of_run(arguments), *arguments] if from_workdir else arguments


def _values(program: str, arguments: list[str]) -> dict[str, Any]:
    """`parse`, from the arguments of `arguments_of`. program: name of the command."""
    for name in OURS:  # so that a second call starts from the defaults again
        FLAGS[name].unparse()
    try:
        rest = FLAGS([program, *arguments])
    except absl.flags.IllegalFlagValueError as error:
        raise ValueError(_wrong_value(str(error))) from error
    except absl.flags.Error as error:
        raise ValueError(" ".join(str(error).split())) from error
    if rest[1:]:
        raise ValueError(f"{rest[1]!r} is not a flag: every option is written --name=value.")
    for name in OURS:  # flags.cfg has a line for each
        value = FLAGS[name].value
        if any("".join(text.splitlines()) != text for text in map(str, value if isinstance(value, list) else [value])):
            raise ValueError(f"--{name} holds a line break: write its value in one line.")
    for name in PATHS:
        value = FLAGS[name].value
        listed = isinstance(value, list)
        FLAGS[name].value = [at_home(x, flag=name) for x in value] if listed else at_home(value, flag=name)
    if FLAGS.taxonomy_file and "://" not in FLAGS.taxonomy_file:
        FLAGS.taxonomy_file = str(packaged(FLAGS.taxonomy_file))
    return {name: FLAGS[name].value for name in OURS}


def flags_of_run(arguments: list[str]) -> list[str]:
    """The lines of D/flags.cfg, where D is the last --workdir=D among the arguments."""
    workdirs = [argument.partition("=")[2] for argument in arguments if argument.lstrip("-").startswith("workdir=")]
    if not workdirs:
        raise ValueError("--workdir is missing: name the folder of a run.")
    path = Path(at_home(workdirs[-1], flag="workdir")) / "flags.cfg"
    if not path.is_file():
        raise FileNotFoundError(f"--workdir={workdirs[-1]} is not the folder of a run: there is no {path}.")
    return read_flagfile(path)


def _wrong_value(message: str) -> str:
    """A sentence that says which values are right. message: absl's `flag --name=value: reason`."""
    match = re.match(r"flag --(\w+)=(.*?): ", message, re.DOTALL)
    if not match or match[1] not in OURS:
        return " ".join(message.split())
    name, value = match[1], match[2]
    flag = FLAGS[name]
    if isinstance(flag.parser, Number):
        return f"--{name}={value} is not {flag.parser.wanted}. {flag.help}"
    kinds = {"int": "a whole number", "bool": "true or false"}
    choices = getattr(flag.parser, "enum_values", None)
    wanted = f"one of {', '.join(choices)}" if choices else kinds.get(flag.flag_type(), flag.flag_type())
    low, high = (getattr(flag.parser, side, None) for side in ("lower_bound", "upper_bound"))
    if low is not None and high is not None:
        wanted += f" from {low} to {high}"
    elif low is not None:
        wanted += f" of at least {low}"
    return f"--{name}={value} is not {wanted}. {flag.help}"


def recipe_of(argv: list[str], *, from_workdir: bool = False, base: str = "") -> Recipe:
    """The settings of a command line. Arguments and errors: see `parse` and `recipe.read`.

    base: a packaged recipe whose lines come before the arguments; "": none.
    """
    arguments = [*(read_flagfile(base) if base else ()), *arguments_of(argv, from_workdir=from_workdir)]
    values = _values(argv[0], arguments)
    explicit_flags = frozenset(name for name in RECIPE if FLAGS[name].present)
    parts = [argument.lstrip("-").partition("=") for argument in arguments]
    lengths = {
        name: (DEFAULTS[name], *(int(value) for flag, _, value in parts if flag == name and value))
        for name in ("epochs", "teacher_epochs")
    }
    return read({name: values[name] for name in RECIPE}, explicit_flags=explicit_flags, lengths=lengths)


def usage(doc: str, *, takes: Collection[str] = (), full: bool = False) -> str:
    """The help text of a command.

    doc: its docstring. takes: names of its own flags, which come next. full: whether all flags of a recipe follow,
    or only those that most people change first.
    """
    groups = {"Flags of this command": tuple(takes)} if takes else {}
    listed = RECIPE if full else FIRST
    groups |= {heading: tuple(name for name in names if name in listed) for heading, names in GROUPS.items()}
    lines = [doc.strip()]
    for heading, names in groups.items():
        lines += ["", f"{heading}:"] if names else []
        for name in names:
            flag = FLAGS[name]
            default = ",".join(flag.default) if isinstance(flag.default, list) else flag.default
            lines.append(f"  --{name}={shlex.quote(str(default))}")
            lines += textwrap.wrap(flag.help, 110, initial_indent=" " * 8, subsequent_indent=" " * 8)
    if not full:
        lines += [
            "",
            f"These are the flags that people change first. --helpfull shows all {len(RECIPE) + len(takes)} flags.",
        ]
    return "\n".join(lines)


def program(
    main: Callable[..., None],
    doc: str,
    *,
    from_workdir: bool = False,
    takes: Collection[str] = (),
    checkpoints: bool = False,
    base: str = "",
) -> None:
    """Run a command: main(recipe, **own flags). A user's mistake becomes one sentence on stderr and exit code 1.

    doc: the help text begins with it. from_workdir: see `parse`.
    takes: names of the flags that this command has in addition to those of a recipe; `main` gets them as keywords.
    Such flags of other commands are refused, because they would have no effect.
    base: the recipe that the command begins with, see `recipe_of`; "": none.
    checkpoints: whether the command writes checkpoints, from which it goes on after Ctrl+C.
    Flags are parsed before `main` imports TensorFlow, so help and the messages on mistyped flags come at once.
    """
    _names_in_utf_8()
    with _closed_pipe_is_no_error():
        for argument in sys.argv[1:]:
            if argument.lstrip("-") in ("help", "h", "helpfull"):
                print(usage(doc, takes=takes, full=argument.endswith("full")))
                return
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # hides TensorFlow's notes on how it was built
        os.environ["KERAS_BACKEND"] = "tensorflow"  # the only one that works here, whatever other work has set
        for stream in (sys.stdout, sys.stderr):  # in a terminal without é, it is printed as \xe9
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        try:
            recipe = recipe_of(sys.argv, from_workdir=from_workdir, base=base)
            for name in COMMANDS_OWN:
                if FLAGS[name].present and name not in takes:
                    raise ValueError(f"--{name} is a flag of another command: this one would ignore it.")
            main(recipe, **{name: FLAGS[name].value for name in takes})
        except BrokenPipeError:
            raise
        except Exception as error:
            text = sentence_of(error)
            if text is None or (FLAGS.is_parsed() and FLAGS.traceback):
                raise
            print(f"error: {with_dashes(text)}", file=sys.stderr)
            sys.exit(1)
        except KeyboardInterrupt:
            after = ": the same command goes on from the last checkpoint, if there is one" if checkpoints else ""
            print(f"interrupted{after}.", file=sys.stderr)
            sys.exit(130)


def with_dashes(message: str) -> str:
    """The message of a library with names of flags instead of names of arguments.

    name=value becomes --name=value, and `name` in backticks becomes --name, if a flag has that name.
    """

    def flag(match: re.Match) -> str:
        name = FLAG_OF.get(match["name"], match["name"])
        return f"--{name}" if name in OURS else match[0]

    message = re.sub(r"(?<![\w.\-/`'\"])(?P<name>[a-z][a-z0-9_]*)(?==\S)", flag, message)
    return re.sub(r"`(?P<name>[a-z][a-z0-9_]*)`", flag, message)


def _names_in_utf_8() -> None:
    """Start this process again in Python's UTF-8 mode where the locale has another encoding of file names.

    TensorFlow encodes every name in UTF-8, so with another encoding it would look for files that do not exist.
    """
    if sys.getfilesystemencoding() != "utf-8" and sys.executable:
        os.environ.setdefault("PYTHONIOENCODING", sys.stdout.encoding)  # what the terminal shows
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


@contextlib.contextmanager
def _closed_pipe_is_no_error() -> Iterator[None]:
    """`--help | head` ends without a message.

    Python flushes stdout once more when it exits. So that this does not fail, stdout then leads to the null device.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


@contextlib.contextmanager
def extra(name: str) -> Iterator[None]:
    """Around the imports of an optional dependency. Raises ValueError that says how to install a missing one.

    name: of the extra of this package that brings it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ValueError(f"{error.name} is not installed: python -m pip install 'deitlt_tf[{name}]'.") from error
