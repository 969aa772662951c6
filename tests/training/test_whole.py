"""A whole run, as a library: a foreign folder is refused before anything is read, the plain ViT has a run of its own.

What a user sees of whole runs is in tests/test_programs.py.
"""

import json

import pytest
from helpers.programs import SMALL

from deitlt_tf.recipes.command_line import recipe_of
from deitlt_tf.runs.checkpoints import Checkpoints
from deitlt_tf.runs.data import load_splits
from deitlt_tf.training import whole


def recipe(*arguments):
    return recipe_of(["train", *SMALL, *map(str, arguments)])


def test_the_folder_of_another_run_is_refused_before_the_data_are_read(images, tmp_path):
    settings = recipe(f"--workdir={tmp_path / 'run'}", f"--data_dir={images}")
    whole.claim_run(settings, load_splits(folder=tmp_path, **settings.data.loading()))
    assert (tmp_path / "run" / "class_names.txt").read_text() == "blue\ngreen\nred\n"
    Checkpoints(tmp_path / "run").save(1, {}, {})
    with pytest.raises(ValueError, match=r"holds a run of another recipe: .*lr\W* is '0\.001' there and '0\.002' here"):
        whole.train(settings.changed(lr=2e-3, data_dir=str(tmp_path / "nowhere")))


def test_a_plain_vit_has_its_table_and_files(images, tmp_path, capsys):
    folder = tmp_path / "run"
    whole.train(recipe(f"--workdir={folder}", f"--data_dir={images}", "--method=vit", "--epochs=1", "--eval_every=0"))
    printed = capsys.readouterr().out
    assert "student" in printed and "EMA" in printed and "teacher" not in printed
    assert printed.rstrip().splitlines()[-1].startswith(f"{folder}: class_names.txt, flags.cfg")
    assert {"raw", "ema"} <= json.loads((folder / "results.json").read_text()).keys() <= {
        "raw", "ema", "groups", "class_counts", "student.keras", "steps",
    }  # fmt: skip


def test_the_plain_vit_next_to_a_student_is_the_run_of_its_own_recipe(images, tmp_path, monkeypatch):
    trained = []

    def train_student(recipe, splits, *, folder, teacher):
        trained.append((recipe, folder, teacher))
        return {"raw": "accuracies"}

    monkeypatch.setattr(whole, "train_student", train_student)
    settings = recipe(
        f"--workdir={tmp_path / 'run'}", f"--data_dir={images}", "--baseline", f"--teacher_labels={tmp_path / 'labels'}"
    )
    splits = load_splits(folder=tmp_path, **settings.data.loading())
    assert whole.train_baseline(settings, splits) == "accuracies"
    [(plain, folder, teacher)] = trained
    assert folder == tmp_path / "run" / "vit" and teacher is None and plain.run.folder == folder
    assert plain.student.plain and not plain.student.baseline and not plain.teacher.labels
    assert plain.student.schedule == settings.student.schedule and plain.data == settings.data
    assert "--method=vit\n" in (folder / "flags.cfg").read_text()
