"""The command line: what is written is what a run gets, a mistake is named at once, and help needs no TensorFlow."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from helpers import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from deitlt_tf.recipes import command_line
from deitlt_tf.recipes.flags import COMMANDS_OWN, FIRST, FLAGS, GROUPS, LARGEST_SEED, OURS, PATHS, RECIPE
from deitlt_tf.recipes.recipe import as_text
from deitlt_tf.runs.folder import write_flags

PROGRAMS = ("train", "train_teacher", "evaluate")
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"].values()
EVERY_PROGRAM = [  # that has flags
    entry.partition(":")[0].removeprefix("deitlt_tf.").removesuffix(".__main__")
    for entry in SCRIPTS
    if entry != "deitlt_tf.versions:main"
]
OWN = {"evaluate": ["sure"]}  # {program: the flags that it has besides those of a recipe}


def recipe(folder: Path, text: str, *, name: str = "recipe.cfg") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def parse(*arguments: str, **options):
    return command_line.parse(["program", *arguments], **options)


@pytest.mark.parametrize("mark", ["\n", "\r", "\u2028"])
@pytest.mark.parametrize("name", ["keep", "table"])
def test_a_value_of_two_lines_does_not_fit_into_flags_cfg(name, mark):
    with pytest.raises(ValueError, match=rf"--{name} holds a line break: write its value in one line"):
        parse(f"--{name}=genus == Passer{mark}and year > 2015")


# ---- recipes ----


def test_comments_and_blank_lines_are_skipped_and_later_lines_win(tmp_path):
    path = recipe(tmp_path, "# --epochs=1\n\n  --epochs=2  \n--epochs=3\n  # --epochs=4\n")
    assert command_line.read_flagfile(path) == ["--epochs=2", "--epochs=3"]
    assert parse(f"--flagfile={path}")["epochs"] == 3


@pytest.mark.parametrize(("order", "epochs"), [((0, 1), 7), ((1, 0), 3)])
def test_command_line_and_recipe_win_in_the_order_they_are_given(tmp_path, order, epochs):
    given_ = (f"--flagfile={recipe(tmp_path, '--epochs=3')}", "--epochs=7")
    assert parse(*(given_[i] for i in order))["epochs"] == epochs


def test_a_nested_recipe_lies_beside_the_one_that_names_it_and_takes_its_place(tmp_path, monkeypatch):
    recipe(tmp_path, "--epochs=1\n--batch_size=2\n--seed=3\n", name="shared/inner.cfg")
    recipe(tmp_path, "--flagfile=inner.cfg\n--batch_size=20\n", name="shared/middle.cfg")
    outer = recipe(tmp_path, "--epochs=100\n--flagfile=shared/middle.cfg\n--seed=30\n", name="outer.cfg")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    flags = parse(f"--flagfile={outer}")
    assert (flags["epochs"], flags["batch_size"], flags["seed"]) == (1, 20, 30)


def test_a_recipe_taken_in_twice_is_no_recursion(tmp_path):
    recipe(tmp_path, "--epochs=1", name="shared.cfg")
    path = recipe(tmp_path, "--flagfile=shared.cfg\n--epochs=2\n--flagfile=shared.cfg\n")
    assert parse(f"--flagfile={path}")["epochs"] == 1


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_recipe_that_takes_itself_in_is_refused(tmp_path, length):
    for i in range(length):
        recipe(tmp_path, f"--flagfile={(i + 1) % length}.cfg", name=f"{i}.cfg")
    with pytest.raises(ValueError, match=r"0\.cfg takes itself in"):
        command_line.read_flagfile(tmp_path / "0.cfg")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--epoch=3", r"unknown flag --epoch\. Did you mean --epochs\?"),
        ("--teacher_modell=resnet32", r"unknown flag --teacher_modell\. Did you mean --teacher_model\?"),
        ("--qqqqqqqqqq=3", r"unknown flag --qqqqqqqqqq\.$"),
        ("epochs=3", r"'epochs=3' is not of the form --name=value"),
    ],
)
def test_a_bad_line_is_named_by_the_file_it_stands_in_and_its_number(tmp_path, line, message):
    inner = recipe(tmp_path, f"# a note\n--seed=1\n{line}\n", name="inner.cfg")
    outer = recipe(tmp_path, "--flagfile=inner.cfg\n")
    with pytest.raises(ValueError, match=f"^{re.escape(str(inner))}:3: {message}"):
        parse(f"--flagfile={outer}")


def test_a_missing_recipe_is_named(tmp_path):
    outer = recipe(tmp_path, "--flagfile=absent.cfg\n")
    with pytest.raises(FileNotFoundError, match=r"absent\.cfg: there is no such file"):
        parse(f"--flagfile={outer}")


@pytest.mark.parametrize("name", ["digits_lt.cfg", "configs/digits_lt.cfg"])
def test_a_recipe_that_is_not_here_is_the_packaged_one(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert command_line.find_flagfile(name) == command_line.RECIPES / "digits_lt.cfg"
    assert parse(f"--flagfile={name}")["data"] == "digits_lt"
    own = recipe(tmp_path, "--flagfile=digits_lt.cfg\n--epochs=3\n", name="own/recipe.cfg")
    flags = parse(f"--flagfile={own}")
    assert (flags["data"], flags["epochs"]) == ("digits_lt", 3)
    recipe(tmp_path, "--epochs=5\n", name=name)
    flags = parse(f"--flagfile={name}")
    assert (flags["data"], flags["epochs"]) == ("folder", 5)  # the file that is here wins


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("digit_lt.cfg", r"did you mean digits_lt\.cfg\?"),
        ("configs/imagenet.cfg", r"did you mean .*imagenet.*\.cfg\?"),
        ("qqqq.cfg", "packaged recipes are in .*configs"),
        ("my/digits_lt.cfg", r"did you mean digits_lt\.cfg\?"),  # another folder is meant
    ],
)
def test_a_recipe_that_is_nowhere_is_named_with_a_near_one(tmp_path, monkeypatch, name, hint):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"--flagfile={name}: there is no such file, .*{hint}"):
        parse(f"--flagfile={name}")


# ---- values ----


@pytest.mark.parametrize("argument", ["--epochs=many", "--epochs=1.5", "--lr=fast", "--flip=perhaps", "--crop=circle"])
def test_a_value_of_the_wrong_type_names_its_flag(argument):
    with pytest.raises(ValueError, match=argument.partition("=")[0].lstrip("-")):
        parse(argument)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--teacher_batch_size=0", "--teacher_batch_size=0 is not a whole number of at least 1. Images of one"),
        ("--batch_size=zero", "--batch_size=zero is not a whole number of at least 1. Images of one optimiser step"),
        ("--erasing=2", "--erasing=2 is not a number from 0 to 1. Probability of random erasing."),
        ("--crop=circle", "--crop=circle is not one of resized, padded, none."),
        ("--flip=perhaps", "--flip=perhaps is not true or false."),
        ("--split_seed=x", "--split_seed=x is not a whole number from 0 to 4294967295. Seed of"),
        ("--port=x", "--port=x is not a whole number from 0 to 65535. demo: port"),
        ("--lr=0", "--lr=0 is not a number above 0. Learning rate"),
        ("--beta=1", "--beta=1 is not a number of at least 0 and below 1. beta of"),
        ("--warmup_epochs=-1", "--warmup_epochs=-1 is not a number of at least 0. Epochs"),
        ("--logit_adjustment=nan", "--logit_adjustment=nan is not a number. tau:"),
    ],
)
def test_a_wrong_value_says_which_values_are_right(argument, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        parse(argument)


def test_unknown_flags_and_stray_words_are_refused():
    with pytest.raises(ValueError, match=r"epoch'.*epochs"):
        parse("--epoch=3")
    with pytest.raises(ValueError, match="'runs/first' is not a flag"):
        parse("--epochs=3", "runs/first")


def test_every_parse_starts_from_the_defaults():
    defaults = parse()
    assert parse("--epochs=3", "--mean=1,2,3", "--baseline", "--nodownload") != defaults
    assert parse() == defaults


def test_booleans_can_be_written_three_ways(tmp_path):
    assert [parse(a)["flip"] for a in ("--flip", "--flip=true", "--noflip", "--flip=false")] == [
        True,
        True,
        False,
        False,
    ]
    assert not parse(f"--flagfile={recipe(tmp_path, '--noflip')}")["flip"]


words = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z"), include_characters=" "), max_size=20)
numbers = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=60, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "seed": st.integers(0, LARGEST_SEED),
            "data_dir": words.map(str.strip).filter(lambda path: not path.startswith("~")),
            "randaugment": words.map(str.strip),
            "imbalance": st.floats(1, allow_nan=False, allow_infinity=False),
            "crop": st.sampled_from(["resized", "padded", "none"]),
            "baseline": st.booleans(),
            "teacher_flip": st.booleans(),
            "mean": st.lists(numbers, min_size=1, max_size=3).map(lambda values: ",".join(map(str, values))),
            "teacher_drops": st.sampled_from(["", "1:0.1", "30:0.1,36:0.01"]),
        },
    )
)
def test_a_written_flag_file_is_the_same_run(tmp_path_factory, values):
    flags = parse(*(f"--{name}={value}" for name, value in values.items()))
    folder = tmp_path_factory.getbasetemp()
    write_flags(folder, as_text({name: flags[name] for name in RECIPE}))
    assert parse(f"--flagfile={folder / 'flags.cfg'}") == flags


def test_a_workdir_gives_the_flags_of_its_run_and_the_command_line_wins(tmp_path):
    recipe(tmp_path, f"# a run\n--epochs=3\n--batch_size=8\n--workdir={tmp_path}\n", name="flags.cfg")
    flags = parse("--batch_size=16", f"--workdir={tmp_path}", from_workdir=True)
    assert (flags["epochs"], flags["batch_size"]) == (3, 16)
    with pytest.raises(FileNotFoundError, match=r"^--workdir=nowhere is not the folder of a run: .*flags\.cfg\.$"):
        parse("--workdir=nowhere", from_workdir=True)
    with pytest.raises(ValueError, match="--workdir is missing"):
        parse(from_workdir=True)


# ---- paths ----


def test_a_tilde_is_the_home_folder_in_every_path(tmp_path, monkeypatch):
    home = tmp_path / "home"
    recipe(home, "--epochs=3\n--teacher=~/t.keras\n--flagfile=~/inner.cfg\n", name="a.cfg")
    recipe(home, "--batch_size=8\n", name="inner.cfg")
    recipe(home / "run", "--epochs=5\n", name="flags.cfg")
    monkeypatch.setenv("HOME", str(home))
    values = parse("--flagfile=~/a.cfg", *(f"--{name}=~/x" for name in PATHS if name != "teacher"), "--compare=~/a,b,~")
    assert values["federated_client_dirs"] == [f"{home}/x"]
    assert values["compare"] == [f"{home}/a", "b", str(home)] and FLAGS["compare"].value == values["compare"]
    assert {values[name] for name in PATHS if isinstance(values[name], str) and name != "teacher"} == {f"{home}/x"}
    assert (values["teacher"], values["epochs"], values["batch_size"]) == (f"{home}/t.keras", 3, 8)
    assert parse("--workdir=~/run", from_workdir=True)["epochs"] == 5
    assert parse("--init=keras_hub:~/preset")["init"] == f"keras_hub:{home}/preset"
    words = {"prior": "uniform", "class_order": "as_is", "init": "keras_hub:vit_base", "data_dir": "gs://a/~b"}
    assert {name: parse(f"--{name}={value}")[name] for name, value in words.items()} == words
    with pytest.raises(ValueError, match=r"--workdir=~nobody_of_this_name/x: there is no such home folder.*\./~nobody"):
        parse("--workdir=~nobody_of_this_name/x")


def test_every_flag_that_says_file_or_folder_is_a_path():
    named = {name for name in OURS if re.search(r"\b(files?|folder|workdirs?|FILE\.keras)\b", FLAGS[name].help, re.I)}
    no_path = {"quantize", "fp16", "data", "test_fraction"}  # what they speak of is not their value
    assert named - no_path <= {*PATHS}


def test_relative_paths_of_a_run_count_from_where_it_was_started(tmp_path, monkeypatch):
    start, elsewhere = tmp_path / "start", tmp_path / "elsewhere"
    for folder in (start / "images", elsewhere):
        folder.mkdir(parents=True)
    typed = {"data_dir": "images", "train_list": "a.txt", "teacher": "t.keras", "init": "keras_hub:x", "workdir": "run"}
    typed |= {"federated_client_dirs": ["north", "south"]}
    typed |= {"teacher_init": "pretrained:x", "feature_dir": "f"}
    monkeypatch.chdir(start)
    write_flags(start / "run", as_text(parse() | typed))
    same = parse("--workdir=run", from_workdir=True)
    assert {name: same[name] for name in typed} == typed
    monkeypatch.chdir(elsewhere)
    for arguments in (["--workdir=../start/run"], [f"--flagfile={start / 'run' / 'flags.cfg'}"]):
        there = parse(*arguments, from_workdir="workdir" in arguments[0])
        assert there["data_dir"] == str(start / "images") and there["teacher"] == str(start / "t.keras")
        assert there["train_list"] == "a.txt"  # relative to data_dir, which has moved along
        assert there["init"] == "keras_hub:x" and there["out"] == "" and there["teacher_init"] == "pretrained:x"
        assert there["federated_client_dirs"] == [str(start / "north"), str(start / "south")]
    assert parse("--workdir=../start/run", "--data_dir=mine", from_workdir=True)["data_dir"] == "mine"
    (start / "images").rmdir()
    (elsewhere / "images").mkdir()
    assert parse("--workdir=../start/run", from_workdir=True)["data_dir"] == "images"  # both were moved

    write_flags(start / "run", as_text(parse() | typed | {"data_dir": ""}))
    text = (start / "run" / "flags.cfg").read_text().replace(str(elsewhere), str(start))
    (start / "run" / "flags.cfg").write_text(text)
    assert parse("--workdir=../start/run", from_workdir=True)["train_list"] == str(start / "a.txt")


def test_a_flag_file_of_another_encoding_is_named(tmp_path):
    path = tmp_path / "recipe.cfg"
    path.write_bytes("# für\n--epochs=3\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"recipe\.cfg is not UTF-8 text"):
        parse(f"--flagfile={path}")
    (tmp_path / "flags.cfg").write_bytes(b"--data_dir=caf\xe9\n")  # a name on the disk that is not UTF-8
    assert os.fsencode(parse(f"--workdir={tmp_path}", from_workdir=True)["data_dir"]) == b"caf\xe9"


def test_a_recipe_that_takes_in_a_missing_one_is_named_with_its_line(tmp_path):
    outer = tmp_path / "outer.cfg"
    outer.write_text("--epochs=3\n--flagfile=absent.cfg\n")
    with pytest.raises(FileNotFoundError, match=r"outer\.cfg:2: --flagfile=absent\.cfg: there is no such file"):
        parse(f"--flagfile={outer}")


# ---- programs ----


def run_program(name: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess:
    """A program in a process of its own, where importing TensorFlow or Keras fails."""
    for module in ("tensorflow", "keras"):
        (folder / f"{module}.py").write_text("raise SystemExit('imported too early')")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    command = [sys.executable, "-m", f"deitlt_tf.{name}", *arguments]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=60)


def headings(help_text: str) -> dict[str, list[str]]:
    """{heading: names of the flags under it} of what --help printed."""
    found: dict[str, list[str]] = {}
    for line in help_text.splitlines():
        if re.fullmatch(r"[A-Z].*:", line):
            found[line[:-1]] = []
        elif flag := re.match(r"  --(\w+)=", line):
            found[[*found][-1]].append(flag[1])
    return {heading: names for heading, names in found.items() if names}


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_shows_the_flags_that_people_change_first(name, tmp_path):
    done = run_program(name, "--help", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"python -m deitlt_tf.{name}" in done.stdout
    first = {heading: [name for name in names if name in FIRST] for heading, names in GROUPS.items()}
    own = {"Flags of this command": OWN[name]} if name in OWN else {}
    assert headings(done.stdout) == own | {heading: names for heading, names in first.items() if names}
    assert f"--helpfull shows all {len(RECIPE) + len(OWN.get(name, []))} flags" in done.stdout


@pytest.mark.parametrize("name", EVERY_PROGRAM)
def test_every_program_has_help_and_needs_no_tensorflow_for_it(name, tmp_path):
    done = run_program(name, "--help", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"python -m deitlt_tf.{name} " in done.stdout and "--helpfull shows all" in done.stdout


@pytest.mark.parametrize("name", PROGRAMS)
def test_helpfull_shows_every_flag_under_its_heading(name, tmp_path):
    done = run_program(name, "--helpfull", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    expected = {heading: [*names] for heading, names in GROUPS.items() if not {*names} <= {*COMMANDS_OWN}}
    own = {"Flags of this command": OWN[name]} if name in OWN else {}
    assert headings(done.stdout) == own | expected
    assert sorted(name for names in expected.values() for name in names) == sorted(RECIPE)


def test_help_of_a_command_begins_with_its_own_flags():
    for full in (False, True):
        own, *others = headings(command_line.usage("A command.", takes=("out", "weights"), full=full)).items()
        assert own == ("Flags of this command", ["out", "weights"])
        assert not {*COMMANDS_OWN} & {name for _, names in others for name in names}


@pytest.mark.parametrize("reader", ["head -3", "true"])
@pytest.mark.parametrize("option", ["--help", "--helpfull"])
def test_help_in_a_pipe_that_closes_early_is_quiet(option, reader):
    command = f"{sys.executable} -m deitlt_tf.train {option} | {reader}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == (3 if reader == "head -3" else 0)


def test_a_pipe_that_is_closed_before_anything_is_printed_is_quiet():
    """The reader of the pipes above may come too late to close them in time; this one is closed for certain."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "deitlt_tf.train", "--help"]
    done = subprocess.run(command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_wrong_value_is_one_sentence_of_a_real_process(tmp_path):
    done = run_program("train", "--batch_size=zero", f"--workdir={tmp_path / 'run'}", folder=tmp_path)
    assert done.returncode == 1 and not done.stdout
    sentence = "--batch_size=zero is not a whole number of at least 1."
    assert done.stderr == f"error: {sentence} {FLAGS['batch_size'].help}\n"


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_typing_error_is_one_sentence_and_an_exit_code_without_tensorflow(name, tmp_path):
    path = recipe(tmp_path, "--epoch=3")
    done = run_program(name, f"--flagfile={path}", "--workdir=run", folder=tmp_path)
    assert done.returncode == 1 and not done.stdout
    assert done.stderr == f"error: {path}:1: unknown flag --epoch. Did you mean --epochs?\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_missing_workdir_is_named_without_tensorflow(name, tmp_path):
    done = run_program(name, folder=tmp_path)
    assert (done.returncode, done.stderr.partition(":")[0]) == (1, "error"), done.stderr
    assert done.stderr.count("\n") == 1 and "--workdir is missing" in done.stderr


@pytest.mark.parametrize("error", [ValueError("a bad flag"), OSError("no space"), FloatingPointError("NaN in step 3")])
def test_a_users_mistake_becomes_one_line_unless_a_traceback_is_asked_for(error, monkeypatch, capsys):
    def main(recipe):
        raise error

    monkeypatch.setattr(sys, "argv", ["program"])
    with pytest.raises(SystemExit) as exited:
        command_line.program(main, "A program.")
    assert exited.value.code == 1
    assert capsys.readouterr().err == f"error: {error}\n"
    monkeypatch.setattr(sys, "argv", ["program", "--traceback"])
    with pytest.raises(type(error), match=str(error)):
        command_line.program(main, "A program.")


def test_an_interruption_says_how_to_go_on(monkeypatch, capsys):
    def main(recipe):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["program"])
    printed = {}
    for checkpoints in (False, True):
        with pytest.raises(SystemExit) as exited:
            command_line.program(main, "A program.", checkpoints=checkpoints)
        assert exited.value.code == 130
        printed[checkpoints] = capsys.readouterr().err
    assert printed[False] == "interrupted.\n" and "the same command goes on from the last checkpoint" in printed[True]


def test_an_error_of_the_system_is_one_sentence_and_a_fault_is_not(monkeypatch, capsys):
    def main(recipe):
        Path("/nowhere/x.txt").read_text(encoding="utf-8")

    def faulty(recipe):
        raise KeyError("x")

    monkeypatch.setattr(sys, "argv", ["program"])
    with pytest.raises(SystemExit) as exited:
        command_line.program(main, "A program.")
    assert exited.value.code == 1
    assert capsys.readouterr().err == "error: /nowhere/x.txt: No such file or directory.\n"
    with pytest.raises(KeyError):
        command_line.program(faulty, "A program.")


def test_programs_run_keras_on_tensorflow_whatever_is_set(monkeypatch):
    backends = []
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setattr(sys, "argv", ["program"])
    command_line.program(lambda recipe: backends.append(os.environ["KERAS_BACKEND"]), "A program.")
    assert backends == ["tensorflow"]


@pytest.mark.parametrize(
    ("encoding", "printed"), [("ascii", rb"\xe9\u65e5"), ("latin-1", b"\xe9\\u65e5"), ("utf-8", "é日".encode())]
)
def test_a_terminal_without_a_letter_gets_its_code(encoding, printed, tmp_path):
    code = r"from deitlt_tf.recipes.command_line import program; program(lambda recipe: print('\xe9\u65e5'), '')"
    environment = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, printed, b"")


def test_file_names_are_utf_8_in_any_locale(tmp_path):
    code = "from deitlt_tf.recipes.command_line import program; program(lambda x: print(ascii(x.data.data_dir)), '')"
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", code, "--data_dir=münze"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, r"'m\xfcnze'" + "\n", "")


def test_a_command_gets_its_recipe_and_its_own_flags(monkeypatch, capsys):
    calls = []

    def main(recipe, **own):
        calls.append((recipe.student.schedule.epochs, own))

    monkeypatch.setattr(sys, "argv", ["program", "--epochs=3", "--top_k=7"])
    command_line.program(main, "A program.", takes=("top_k", "out"))
    assert calls == [(3, {"top_k": 7, "out": ""})]
    with pytest.raises(SystemExit) as exited:
        command_line.program(main, "A program.", takes=("out",))
    assert exited.value.code == 1 and len(calls) == 1
    assert capsys.readouterr().err == "error: --top_k is a flag of another command: this one would ignore it.\n"


def test_the_recipe_knows_which_flags_were_given(tmp_path):
    path = recipe(tmp_path, "--epochs=3\n--nodownload\n")
    settings_ = command_line.recipe_of(["program", f"--flagfile={path}", "--lr=1e-3", "--out=x"])
    assert settings_.explicit_flags == {"epochs", "download", "lr"}
    assert settings_.flags.keys() == {*RECIPE}


# ---- the library's words in a command's message ----


@pytest.mark.parametrize(
    ("library", "command"),
    [
        ("imbalance=0.5 must be at least 1", "--imbalance=0.5 must be at least 1"),
        ("leave such images out with `skip_bad_images`.", "leave such images out with --skip_bad_images."),
        ("more than the limit of 600 (`max_pixels`)", "more than the limit of 600 (--max_megapixels)"),
        ("max_pixels=600 is little", "--max_megapixels=600 is little"),
        ("--epochs=3 is there, --lr is not", "--epochs=3 is there, --lr is not"),
        ("class 2 is 'epochs=3' there, 'lr=1' here", "class 2 is 'epochs=3' there, 'lr=1' here"),
        ('"epochs=3"', '"epochs=3"'),
        ("/data/epochs=3/lr=1.png: cut off", "/data/epochs=3/lr=1.png: cut off"),
        ("runs/my-lr=1/x.cfg and ./lr=1", "runs/my-lr=1/x.cfg and ./lr=1"),
        ("`model.keras` and `epochs`", "`model.keras` and --epochs"),
        ("nonsense=3 and `nonsense`", "nonsense=3 and `nonsense`"),
        ("epochs = 3 and epochs", "epochs = 3 and epochs"),
        ("my_epochs=3 xepochs=3", "my_epochs=3 xepochs=3"),
    ],
)
def test_dashes_are_put_before_flags_and_nothing_else(library, command):
    assert command_line.with_dashes(library) == command


names = st.sampled_from(OURS)
plain = st.text(st.characters(codec="ascii", categories=["L", "N"], include_characters="/.: ,()"), max_size=20)


@settings(max_examples=100, deadline=None)
@given(plain, names, st.integers(0, 99))
def test_dashes_are_put_once(text, name, value):
    message = f"{text} {name}={value} `{name}` --{name}={value} --no{name} '{name}={value}' x/{name}={value}"
    dashed = command_line.with_dashes(message)
    assert dashed == f"{text} --{name}={value} --{name} --{name}={value} --no{name} '{name}={value}' x/{name}={value}"
    assert command_line.with_dashes(dashed) == dashed


@settings(max_examples=100, deadline=None)
@given(plain)
def test_a_message_without_arguments_stays(text):
    assert command_line.with_dashes(text) == text


def test_arguments_with_another_name_than_their_flag_are_no_flags_themselves():
    assert not command_line.FLAG_OF.keys() & {*OURS} and {*command_line.FLAG_OF.values()} <= {*OURS}


def test_a_command_may_begin_with_a_recipe_of_its_own():
    recipe = command_line.recipe_of(["quick", "--image_size=224", "--epochs=3"], base="quick.cfg")
    assert (recipe.student.method, recipe.student.view.image_size, recipe.student.schedule.epochs) == ("quick", 224, 3)
    assert recipe.student.frozen and recipe.student.plain and recipe.student.model == "efficientnet_lite0"
    assert recipe.student.peak_lr == 0.05 and recipe.student.reweight_epoch == -1
    assert recipe.data_arguments() == "" and not recipe.trains_teacher
