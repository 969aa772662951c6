"""Whose folder is it: no run is mixed with another, no model is trained over."""

import pytest
from helpers.files import NAMES, contents

from deitlt_tf.runs.checkpoints import Checkpoints
from deitlt_tf.runs.files import UNFINISHED, write_text
from deitlt_tf.runs.folder import claim, has_begun, refuse_other, write_flags

FLAGS = {"lr": "0.001", "drops": "160:0.01,180:0.0001", "data_dir": "a", "note": "x=y"}


def claim_with(folder, *, class_names=NAMES, **changes: str) -> None:
    claim(folder, flags=FLAGS | changes, class_names=class_names, free={"data_dir"})


def test_flags_are_written_as_a_flag_file(tmp_path):
    write_flags(tmp_path, FLAGS)
    lines = ["--data_dir=a", "--drops=160:0.01,180:0.0001", "--lr=0.001", "--note=x=y"]
    assert (tmp_path / "flags.cfg").read_text().splitlines() == lines


@pytest.mark.parametrize(
    ("file", "begun"),
    [
        ("checkpoints/000000001.npz", True),
        ("teacher/teacher.keras", True),
        ("flags.cfg", False),
        (".cache/x.npz", True),
        (f"checkpoints/{UNFINISHED}1.npz", False),
    ],
)
def test_a_run_has_begun_with_its_first_checkpoint_or_model(tmp_path, file, begun):
    write_text(tmp_path / file, "")
    assert has_begun(tmp_path) == begun and not has_begun(tmp_path / "nowhere")


def test_a_folder_without_a_checkpoint_is_nobodys_yet(tmp_path):
    claim_with(tmp_path, lr="0.1")
    claim_with(tmp_path)
    assert "--lr=0.001" in (tmp_path / "flags.cfg").read_text()


@pytest.mark.parametrize("kept", ["checkpoints/000000001.npz", "teacher/teacher.keras"])
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
    for folder in (tmp_path, tmp_path / "checkpoints"):
        folder.mkdir(exist_ok=True)
        (folder / f"{UNFINISHED}x.npz").write_bytes(b"half")
    (tmp_path / "mine.txt").write_text("keep")
    claim_with(tmp_path)
    assert set(contents(tmp_path)) == {"flags.cfg", "class_names.txt", "mine.txt"}
