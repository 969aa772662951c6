"""A whole run, as a library: a foreign folder is refused before anything is read, the plain ViT has a run of its own.

What a user sees of whole runs is in tests/test_programs.py.
"""

import json
import shutil

import pytest
from helpers.programs import SMALL

from deitlt_tf import models
from deitlt_tf.recipes.command_line import recipe_of
from deitlt_tf.runs.checkpoints import Checkpoints
from deitlt_tf.runs.data import identity, load_splits
from deitlt_tf.runs.folder import claim
from deitlt_tf.runs.lock import locked
from deitlt_tf.runs.models import save_model
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


@pytest.mark.slow
def test_a_plain_vit_has_its_table_and_files(images, tmp_path, capsys):
    folder = tmp_path / "run"
    whole.train(recipe(f"--workdir={folder}", f"--data_dir={images}", "--method=vit", "--epochs=1", "--eval_every=0"))
    printed = capsys.readouterr().out
    assert "student" in printed and "EMA" in printed and "teacher" not in printed
    files = "class_names.txt, data.json, flags.cfg, metrics.jsonl, results.json, student.keras, student_ema.keras"
    assert printed.rstrip().splitlines()[-1] == f"{folder}: {files}"  # without hidden files
    assert {"raw", "ema"} <= json.loads((folder / "results.json").read_text()).keys() <= {
        "raw", "ema", "groups", "class_counts", "student.keras", "steps", "weights",
    }  # fmt: skip


# ---- before anything is trained --------------------------------------------------------------------------------------


@pytest.fixture
def nothing_trains(monkeypatch):
    def train(*_, **__):
        raise AssertionError("a training has begun")

    monkeypatch.setattr(whole, "train_teacher", train)
    monkeypatch.setattr(whole, "train_student", train)


@pytest.mark.usefixtures("nothing_trains")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--patch_size=3"], "image_size=8 is not a multiple of --patch_size=3"),
        (["--eval_resize=4"], "eval_resize=4 is smaller than --image_size=8"),
        (["--reweight_epoch=1100"], "Set --reweight_epoch=1, the same share"),
        (["--teacher_reweight_epoch=160"], "or -1 for never"),
        (["--teacher_labels={tmp}/labels", "--distillation=soft"], "it needs one, and --distillation=hard"),
        (["--init={tmp}/none.keras"], "none.keras: there is no such file"),
        (["--init={tmp}/other.keras"], "--init=.*other.keras: .*channels: 16 in the student, 8 in the weights"),
    ],
)
def test_mistakes_of_the_student_leave_no_folder(images, tmp_path, arguments, message):
    other = models.build("vit_nano", num_classes=3, image_size=8, patch_size=4, embed_dim=8, depth=1, num_heads=2)
    save_model(other, tmp_path / "other.keras", class_names=("a", "b", "c"))
    arguments = [argument.format(tmp=tmp_path) for argument in arguments]
    with pytest.raises(ValueError, match=message):
        whole.train(recipe(f"--workdir={tmp_path / 'run'}", f"--data_dir={images}", *arguments))
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("nothing_trains")
def test_a_recipe_is_refused_before_the_data_are_read(tmp_path):
    with pytest.raises(ValueError, match="--num_heads=3 does not divide --embed_dim=16"):
        whole.train(recipe(f"--workdir={tmp_path / 'run'}", f"--data_dir={tmp_path / 'nowhere'}", "--num_heads=3"))


@pytest.mark.usefixtures("nothing_trains")
def test_the_teachers_folder_is_protected_by_its_own_flags(images, tmp_path):
    settings = recipe(f"--workdir={tmp_path / 'run'}", f"--data_dir={images}")
    splits = load_splits(folder=tmp_path, **settings.data.loading())
    teacher = tmp_path / "run" / "teacher"
    claim(teacher, **identity(splits, **settings.data.loading()), **settings.teacher_identity())
    Checkpoints(teacher).save(1, {}, {})
    with pytest.raises(ValueError, match=r"teacher holds a run of another recipe: .*`teacher_lr` is .*teacher_workdir"):
        whole.train(settings.changed(teacher_lr=0.02))
    assert not (tmp_path / "run" / "flags.cfg").exists()
    with pytest.raises(AssertionError, match="a training has begun"):  # the student's flags are still free
        whole.train(settings.changed(lr=0.02, teacher_epochs=1))


def test_a_run_that_has_begun_may_have_a_k_that_never_comes(images, tmp_path):
    settings = recipe(f"--workdir={tmp_path / 'run'}", f"--data_dir={images}", "--method=vit_drw", "--reweight_epoch=9")
    with pytest.raises(ValueError, match="--reweight_epoch=9 is not below --epochs=2"):
        whole.check_recipe(settings)
    whole.claim_run(settings, load_splits(folder=tmp_path, **settings.data.loading()))
    Checkpoints(tmp_path / "run").save(1, {}, {})
    whole.check_recipe(settings)


@pytest.mark.usefixtures("nothing_trains")
def test_a_folder_in_which_another_process_trains_is_refused(images, tmp_path):
    folder = tmp_path / "run"
    settings = recipe(f"--workdir={folder}", f"--data_dir={images}")
    with locked(folder), pytest.raises(ValueError, match="run is in use by process"):
        whole.train(settings)
    with locked(folder / "vit"), pytest.raises(ValueError, match="vit is in use by process"):
        whole.train_baseline(settings, load_splits(folder=tmp_path, **settings.data.loading()))


@pytest.mark.usefixtures("nothing_trains")
def test_a_run_on_other_data_is_refused_with_both_numbers(images, tmp_path):
    settings = recipe(f"--workdir={tmp_path / 'run'}", f"--data_dir={images}")
    whole.claim_run(settings, load_splits(folder=tmp_path, **settings.data.loading()))
    Checkpoints(tmp_path / "run").save(1, {}, {})
    moved = images.rename(tmp_path / "moved")
    with pytest.raises(AssertionError, match="a training has begun"):
        whole.train(settings.changed(data_dir=str(moved)))
    shutil.copy(moved / "train" / "red" / "0.png", moved / "train" / "red" / "new.png")
    with pytest.raises(ValueError, match="the train split had 23 images and has 24 images now"):
        whole.train(settings.changed(data_dir=str(moved)))


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
    assert whole.train_baseline(settings, splits) == {"raw": "accuracies"}
    [(plain, folder, teacher)] = trained
    assert folder == tmp_path / "run" / "vit" and teacher is None and plain.run.folder == folder
    assert plain.student.plain and not plain.student.baseline and not plain.teacher.labels
    assert plain.student.schedule == settings.student.schedule and plain.data == settings.data
    assert "--method=vit\n" in (folder / "flags.cfg").read_text()
