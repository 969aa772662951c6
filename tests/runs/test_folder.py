"""Whose folder is it: no run is mixed with another, no model is trained over."""

import os
import subprocess
import sys

import pytest
from helpers.files import NAMES, contents

from deitlt_tf.recipes import command_line
from deitlt_tf.runs import folder as run_folder
from deitlt_tf.runs.checkpoints import Checkpoints
from deitlt_tf.runs.files import UNFINISHED, write_text
from deitlt_tf.runs.folder import claim, has_begun, refuse_other, write_flags
from deitlt_tf.runs.lock import locked

DATA = {"train": {"images": 9, "sha256": "a"}, "test": {"images": 3, "sha256": "b"}}
FLAGS = {"lr": "0.001", "drops": "160:0.01,180:0.0001", "data_dir": "a", "note": "x=y"}


def claim_with(folder, *, class_names=NAMES, data=None, drawn=(), **changes: str) -> None:
    claim(folder, flags=FLAGS | changes, class_names=class_names, data=data, drawn=drawn, free={"data_dir"})


def test_flags_are_written_as_a_flag_file(tmp_path):
    write_flags(tmp_path, FLAGS)
    start, *lines = (tmp_path / "flags.cfg").read_text().splitlines()
    assert lines == ["--data_dir=a", "--drops=160:0.01,180:0.0001", "--lr=0.001", "--note=x=y"]
    assert start == f"{command_line.STARTED_IN}{os.getcwd()}" and run_folder.STARTED_IN == command_line.STARTED_IN


@pytest.mark.parametrize(
    ("file", "begun"),
    [
        ("checkpoints/000000001.npz", True),
        ("student_best.keras", True),
        ("teacher/teacher.keras", False),
        ("vit/student.keras", False),
        ("vit/checkpoints/000000001.npz", False),
        ("flags.cfg", False),
        (".cache/x.npz", False),
        ("best_student.npz", False),
        (f"checkpoints/{UNFINISHED}1.npz", False),
    ],
)
def test_a_run_has_begun_with_its_first_checkpoint_or_model(tmp_path, file, begun):
    write_text(tmp_path / file, "")
    assert has_begun(tmp_path) == begun and not has_begun(tmp_path / "nowhere")


def test_the_copy_of_a_teacher_is_no_step_of_the_student(tmp_path):
    write_text(tmp_path / "teacher.keras", "")
    assert has_begun(tmp_path) and has_begun(tmp_path, role="teacher")  # imported, or of version 0.1.0
    write_text(tmp_path / "data.json", "{}")  # a run of this version has brought it
    assert not has_begun(tmp_path) and has_begun(tmp_path, role="teacher")
    write_text(tmp_path / "student.keras", "")
    assert has_begun(tmp_path)


def test_a_folder_without_a_checkpoint_is_nobodys_yet(tmp_path):
    claim_with(tmp_path, lr="0.1")
    claim_with(tmp_path)
    assert "--lr=0.001" in (tmp_path / "flags.cfg").read_text()


@pytest.mark.parametrize("kept", ["checkpoints/000000001.npz", "student.keras"])
def test_a_folder_belongs_to_one_recipe(tmp_path, kept):
    folder = tmp_path / "run"
    claim_with(folder)
    write_text(folder / kept, "what a run has come to")
    claim_with(folder)
    with pytest.raises(ValueError, match=r"`lr` is '0.001' there and '0.01' here"):
        claim_with(folder, lr="0.01")
    with pytest.raises(ValueError, match=r"`drops` is '160:0.01,180:0.0001' there and '160:0.01' here"):
        claim_with(folder, drops="160:0.01")
    with pytest.raises(ValueError, match="and 1 more"):
        claim_with(folder, lr="0.01", drops="", note="", new="flag")
    assert "--lr=0.001" in (folder / "flags.cfg").read_text()


def test_free_flags_may_differ_and_the_newest_is_kept(tmp_path):
    claim_with(tmp_path)
    Checkpoints(tmp_path).save(1, {}, {})
    claim_with(tmp_path, data_dir="b")
    assert "--data_dir=b" in (tmp_path / "flags.cfg").read_text()


def test_a_folder_belongs_to_one_set_of_classes(tmp_path):
    claim_with(tmp_path)
    Checkpoints(tmp_path).save(1, {}, {})
    before = contents(tmp_path)
    assert (tmp_path / "class_names.txt").read_text().splitlines() == list(NAMES)
    with pytest.raises(ValueError, match=r"other classes: see .*class_names\.txt"):
        claim_with(tmp_path, class_names=NAMES[::-1], data_dir="b")
    assert contents(tmp_path) == before


def test_asking_whether_a_folder_is_free_writes_nothing(tmp_path):
    refuse_other(tmp_path / "run", flags=FLAGS)
    assert contents(tmp_path) == {}
    claim_with(tmp_path)
    Checkpoints(tmp_path).save(1, {}, {})
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="`lr`"):
        refuse_other(tmp_path, flags=FLAGS | {"lr": "1"})
    assert contents(tmp_path) == before


def test_a_flag_that_came_later_had_its_default(tmp_path):
    claim_with(tmp_path)
    Checkpoints(tmp_path).save(1, {}, {})
    refuse_other(tmp_path, flags=FLAGS | {"new": "1"}, defaults={"new": "1", "lr": "7", "elsewhere": "3"})
    with pytest.raises(ValueError, match="`new` is '1' there and '2' here"):
        refuse_other(tmp_path, flags=FLAGS | {"new": "2"}, defaults={"new": "1"})


def test_a_model_without_its_recipe_is_not_trained_over(tmp_path):
    (tmp_path / "teacher.keras").write_bytes(b"somebody's work")
    with pytest.raises(ValueError, match=r"holds a model but no flags\.cfg"):
        claim_with(tmp_path)
    assert contents(tmp_path) == {"teacher.keras": b"somebody's work"}


def test_what_a_killed_run_left_unfinished_is_swept_away(tmp_path):
    claim_with(tmp_path)
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        dead.wait(timeout=30)
    for folder in (tmp_path, tmp_path / "checkpoints"):
        folder.mkdir(exist_ok=True)
        (folder / f"{UNFINISHED}{dead.pid}-x.npz").write_bytes(b"half")
    written = f"{UNFINISHED}{os.getpid()}-x.onnx"  # by an export, at this moment
    (tmp_path / written).write_bytes(b"half")
    (tmp_path / "mine.txt").write_text("keep")
    claim_with(tmp_path)
    assert set(contents(tmp_path)) == {"flags.cfg", "class_names.txt", "mine.txt", written}


# ---- the data --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("role", "flag"), [("student", "workdir"), ("teacher", "teacher_workdir")])
def test_a_folder_belongs_to_one_set_of_data(tmp_path, role, flag):
    def claim_data(data=DATA, **changes):
        claim(tmp_path, flags=FLAGS, class_names=NAMES, data=data, role=role, **changes)

    grown = {**DATA, "train": {"images": 11, "sha256": "c"}}
    claim_data(grown)
    claim_data()  # nothing was trained yet
    Checkpoints(tmp_path).save(1, {}, {})
    claim_data()
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=f"other data: the train split had 9 images and has 11 .*another `{flag}`"):
        claim_data(grown)
    with pytest.raises(ValueError, match="the test split had 3 images and has other images or labels"):
        claim_data({**DATA, "test": {"images": 3, "sha256": "c"}})
    assert contents(tmp_path) == before
    claim_data(drawn=["`val_fraction`"])  # the same images, however they were chosen


def test_a_run_of_version_0_1_0_gets_its_data_unless_other_images_were_held_out(tmp_path):
    claim_with(tmp_path)
    Checkpoints(tmp_path).save(1, {}, {})
    claim_with(tmp_path, data=DATA, drawn=["`val_fraction`"])  # this version has begun it
    (tmp_path / "data.json").unlink()
    write_text(tmp_path / "flags.cfg", "".join(f"--{name}={value}\n" for name, value in FLAGS.items()))
    before = contents(tmp_path)
    with pytest.raises(
        ValueError, match=r"version 0\.1\.0, which held out other images for `val_fraction` and `test_fr"
    ):
        claim_with(tmp_path, data=DATA, drawn=["`val_fraction`", "`test_fraction`"])
    assert contents(tmp_path) == before
    claim_with(tmp_path, data=DATA)
    with pytest.raises(ValueError, match="other data"):
        claim_with(tmp_path, data={})


@pytest.mark.parametrize("text", ["", "[]", '{"train": 3}', '{"train": {"images": "x", "sha256": ""}}', "\xff"])
def test_a_damaged_file_of_the_data_is_a_sentence(tmp_path, text):
    claim_with(tmp_path, data=DATA)
    (tmp_path / "data.json").write_bytes(text.encode("latin-1"))
    claim_with(tmp_path, data=DATA)  # nothing was trained yet
    Checkpoints(tmp_path).save(1, {}, {})
    (tmp_path / "data.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"data\.json cannot be read.* delete that file"):
        claim_with(tmp_path, data=DATA)


# ---- paths and names -------------------------------------------------------------------------------------------------


def test_a_path_may_be_written_in_two_ways(tmp_path, monkeypatch):
    def refuse(path):
        refuse_other(tmp_path / "run", flags=FLAGS | {"note": path}, paths={"note"})

    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    claim_with(tmp_path / "run", note="lists/a.txt")
    Checkpoints(tmp_path / "run").save(1, {}, {})
    refuse("lists/a.txt")
    monkeypatch.chdir(tmp_path / "there")
    refuse("lists/a.txt")  # as typed: the project was moved
    refuse("../here/lists/a.txt")
    refuse(str(tmp_path / "here" / "lists" / "a.txt"))
    for other in ("", "lists/b.txt", str(tmp_path / "there" / "lists" / "a.txt")):
        with pytest.raises(ValueError, match="`note`"):
            refuse(other)


def test_names_in_any_script_or_none_are_kept_in_utf_8(tmp_path):
    names = ("münze", "日本", os.fsdecode(b"caf\xe9"))
    for _ in range(2):
        claim(tmp_path, flags=FLAGS | {"note": names[2]}, class_names=names)
        Checkpoints(tmp_path).save(1, {}, {})
    assert (tmp_path / "class_names.txt").read_bytes() == "münze\n日本\n".encode() + b"caf\xe9\n"


# ---- one process at a time -------------------------------------------------------------------------------------------


def test_a_folder_is_held_by_the_chief_alone(tmp_path, monkeypatch):
    with run_folder.held(tmp_path), pytest.raises(ValueError, match="is in use by process"), run_folder.held(tmp_path):
        pass
    monkeypatch.setattr(run_folder, "is_chief", lambda: False)
    with locked(tmp_path), run_folder.held(tmp_path):
        pass
