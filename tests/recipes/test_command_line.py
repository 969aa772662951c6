"""Flags and recipes: what is written is what a run gets, and a mistake is named at once, without TensorFlow."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from deitlt_tf.recipes import command_line
from deitlt_tf.recipes.flags import DATA, FLAGS, FREE, OURS, RECIPE, TEACHER

PROGRAMS = ("train", "train_teacher", "evaluate")


def recipe(folder: Path, text: str, *, name: str = "recipe.cfg") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def parse(*arguments: str, **kwargs):
    return command_line.parse(["program", *arguments], **kwargs)


# ---- recipes ----


def test_comments_and_blank_lines_are_skipped_and_later_lines_win(tmp_path):
    path = recipe(tmp_path, "# --epochs=1\n\n  --epochs=2  \n--epochs=3\n  # --epochs=4\n")
    assert command_line.read_flagfile(path) == ["--epochs=2", "--epochs=3"]
    assert parse(f"--flagfile={path}").epochs == 3


@pytest.mark.parametrize(("order", "epochs"), [((0, 1), 7), ((1, 0), 3)])
def test_command_line_and_recipe_win_in_the_order_they_are_given(tmp_path, order, epochs):
    given_ = (f"--flagfile={recipe(tmp_path, '--epochs=3')}", "--epochs=7")
    assert parse(*(given_[i] for i in order)).epochs == epochs


def test_a_nested_recipe_lies_beside_the_one_that_names_it_and_takes_its_place(tmp_path, monkeypatch):
    recipe(tmp_path, "--epochs=1\n--batch_size=2\n--seed=3\n", name="shared/inner.cfg")
    recipe(tmp_path, "--flagfile=inner.cfg\n--batch_size=20\n", name="shared/middle.cfg")
    outer = recipe(tmp_path, "--epochs=100\n--flagfile=shared/middle.cfg\n--seed=30\n", name="outer.cfg")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    flags = parse(f"--flagfile={outer}")
    assert (flags.epochs, flags.batch_size, flags.seed) == (1, 20, 30)


def test_a_recipe_taken_in_twice_is_no_recursion(tmp_path):
    recipe(tmp_path, "--epochs=1", name="shared.cfg")
    path = recipe(tmp_path, "--flagfile=shared.cfg\n--epochs=2\n--flagfile=shared.cfg\n")
    assert parse(f"--flagfile={path}").epochs == 1


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
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "absent.cfg"))):
        parse(f"--flagfile={outer}")


# ---- values ----


@pytest.mark.parametrize("argument", ["--epochs=many", "--epochs=1.5", "--lr=fast", "--flip=perhaps", "--crop=circle"])
def test_a_value_of_the_wrong_type_names_its_flag(argument):
    with pytest.raises(ValueError, match=argument.partition("=")[0].lstrip("-")):
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
    assert [parse(a).flip for a in ("--flip", "--flip=true", "--noflip", "--flip=false")] == [True, True, False, False]
    assert not parse(f"--flagfile={recipe(tmp_path, '--noflip')}").flip


words = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z"), include_characters=" "), max_size=20)
numbers = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=60, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "seed": st.integers(),
            "data_dir": words.map(str.strip),
            "randaugment": words.map(str.strip),
            "imbalance": numbers,
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
    path = tmp_path_factory.getbasetemp() / "flags.cfg"
    path.write_text(command_line.as_flagfile(vars(flags)))
    assert parse(f"--flagfile={path}") == flags


def test_a_workdir_gives_the_flags_of_its_run_and_the_command_line_wins(tmp_path):
    flags = parse("--epochs=3", "--batch_size=8", f"--workdir={tmp_path}")
    (tmp_path / "flags.cfg").write_text("# a run\n" + command_line.as_flagfile(vars(flags)))
    found = parse("--batch_size=16", f"--workdir={tmp_path}", from_workdir=True)
    assert (found.epochs, found.batch_size) == (3, 16)
    with pytest.raises(FileNotFoundError, match=r"^--workdir=nowhere is not the folder of a run: .*flags\.cfg\.$"):
        parse("--workdir=nowhere", from_workdir=True)
    with pytest.raises(ValueError, match="--workdir is missing"):
        parse(from_workdir=True)


# ---- the table of flags ----


def test_the_groups_of_flags_name_flags_that_exist():
    assert {*FREE, *TEACHER} <= set(OURS)
    assert {"data", "imbalance", "max_megapixels"} <= set(DATA)
    assert not {"workdir", "image_size"} & set(DATA)


@pytest.mark.parametrize("name", OURS)
def test_every_flag_says_what_it_is(name):
    text = re.sub(r"^<[^>]*>: ", "", FLAGS[name].help)  # absl puts an enum's values first
    assert text.endswith(".") and len(text) > 5


@pytest.mark.parametrize("name", ["image_size", "crop", "crop_min_scale", "padding", "flip", "randaugment", "erasing"])
def test_what_the_teacher_sees_is_of_the_same_type_as_what_the_student_sees(name):
    assert type(FLAGS[name].value) is type(FLAGS[f"teacher_{name}"].value)


# ---- programs ----


def run_program(name: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess:
    """A program in a process of its own, where importing TensorFlow or Keras fails."""
    for module in ("tensorflow", "keras"):
        (folder / f"{module}.py").write_text("raise SystemExit('imported too early')")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    command = [sys.executable, "-m", f"deitlt_tf.{name}", *arguments]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_lists_every_flag_without_tensorflow(name, tmp_path):
    done = run_program(name, "--help", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"python -m deitlt_tf.{name}" in done.stdout
    assert re.findall(r"^  --(\w+)=", done.stdout, re.MULTILINE) == RECIPE


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
    def main(flags):
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
    def main(flags):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["program"])
    with pytest.raises(SystemExit) as exited:
        command_line.program(main, "A program.")
    assert exited.value.code == 130
    assert "the same command goes on" in capsys.readouterr().err
