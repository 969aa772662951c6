"""The student's run: what its flags make of a Distiller and a job, its teacher's file, and what it keeps."""

import json

import keras
import numpy as np
import pytest
from helpers.programs import SMALL

from deitlt_tf.losses import NEVER
from deitlt_tf.recipes.command_line import recipe_of
from deitlt_tf.runs.data import load_splits
from deitlt_tf.runs.models import load_model, save_model
from deitlt_tf.training import student
from deitlt_tf.training.networks import teacher_network

NAMES = ("blue", "green", "red")


@pytest.fixture
def begin(images, tmp_path):
    """begin(*arguments, teacher=False) -> a StudentRun of SMALL in tmp_path/run."""

    def call(*arguments, teacher=False):
        recipe = recipe_of(["train", *SMALL, f"--data_dir={images}", *map(str, arguments)])
        splits = load_splits(folder=tmp_path, **recipe.data.loading())
        network = teacher_network(recipe, num_classes=3) if teacher else None
        return student.StudentRun(recipe, splits, folder=tmp_path / "run", teacher=network)

    return call


def test_the_distiller_has_the_settings_of_the_recipe(begin):
    arguments = ("--clip_norm=2", "--seed=5", "--ema_decay=.9", "--accumulation=7", "--alpha=.3", "--mixup=.4")
    run = begin(*arguments, teacher=True)
    assert (run.steps_per_epoch, run.steps, run.title) == (3, 6, "student")
    made = run.distiller
    assert (made.clip_norm, made.seed, made.accumulation, made.alpha) == (2, 5, 7, 0.3)
    assert (made.reweight_step, made.mixing_off_step) == (3, 3)
    assert made.mixing["mixup_alpha"] == 0.4 and made.teacher_size == 8
    assert run.models.keys() == {"raw", "ema"}
    assert float(made.optimizer.learning_rate) == pytest.approx(1e-3)  # constant, without warm-up


@pytest.mark.parametrize(
    ("arguments", "reweight", "mixing"),
    [
        (["--method=deit"], NEVER, NEVER),
        (["--nomixing_off"], 3, NEVER),
        (["--reweight_epoch=-1"], NEVER, NEVER),
    ],
)
def test_epoch_k_is_the_methods(begin, arguments, reweight, mixing):
    made = begin(*arguments, teacher=True).distiller
    assert (made.reweight_step, made.mixing_off_step) == (reweight, mixing)


def test_without_a_teacher_it_is_a_plain_vit(begin):
    run = begin("--method=vit", "--ema_decay=0")
    assert run.title == "ViT" and run.models.keys() == {"raw"} and run.distiller.student.output_shape == (None, 3)
    job = run.job()
    assert (job.batch, job.steps, job.steps_per_epoch, job.folder, job.title) == (7, 6, 3, run.folder, "ViT")
    assert len({id(v) for v in job.variables}) == len(job.variables)
    assert {id(v) for v in run.distiller.student.weights} <= {id(v) for v in job.variables}


def test_a_clean_view_comes_only_where_a_teacher_looks_at_it(begin):
    for arguments, teacher, parts in [((), True, 1), (("--teacher_sees=clean",), True, 2)]:
        images, labels = next(iter(begin(*arguments, teacher=teacher).job().batches(5)))
        views = images if isinstance(images, tuple) else (images,)
        assert len(views) == parts and {tuple(view.shape) for view in views} == {(7, 8, 8, 3)} and labels.shape == (7,)
    images, _ = next(iter(begin("--teacher_sees=clean", "--method=vit").job().batches(5)))
    assert tuple(images.shape) == (7, 8, 8, 3)


def test_an_evaluation_is_due_every_so_many_epochs(begin):
    run = begin("--method=vit", "--eval_every=2", "--epochs=4", "--ema_decay=0")
    assert run.evaluate(3, {}) == {} == run.evaluate(9, {})
    line = run.evaluate(6, {})
    assert line and all(name.startswith("test/raw") for name in line)
    assert begin("--method=vit", "--eval_every=0").evaluate(6, {}) == {}


def test_with_a_validation_split_the_best_weights_are_kept(begin):
    run, memory = begin("--method=vit", "--eval_every=0", "--val_fraction=.3"), {}
    assert run.evaluate(1, memory) == {} and memory == {}
    line = run.evaluate(run.steps, memory)  # after the last step, always
    assert any(name.startswith("val/ema") for name in line) and "best" in memory
    results = run.measure_all(memory)
    assert {"raw", "ema", "best", "groups", "class_counts", "steps"} <= results.keys() and "teacher" not in results
    assert "validation" in results["student.keras"]
    run.save(results)
    assert json.loads((run.folder / "results.json").read_text()) == results
    for name in ("student", "student_ema"):
        assert load_model(run.folder / f"{name}.keras")[1] == NAMES


def test_a_batch_that_does_not_split_is_refused_before_anything_else(begin):
    with pytest.raises(ValueError, match="batch_size=7 does not split evenly over 1 devices with 2 parts"):
        begin("--accumulation=2")


def test_a_teachers_classes_need_a_teacher_that_chooses(begin, tmp_path):
    for run in (begin("--distillation=soft", teacher=True), begin("--method=vit")):
        with pytest.raises(ValueError, match="holds a teacher's classes: it needs one"):
            run.open_labels()
    run = begin(f"--teacher_labels={tmp_path / 'labels'}", teacher=True)
    save_model(run.teacher, run.folder / "teacher.keras", class_names=NAMES)
    labels = run.job().teacher_labels
    assert labels.path == tmp_path / "labels" and labels.known(first=0, end=6) == 0


def test_a_teacher_is_a_file_or_the_folder_of_one(tmp_path):
    path = tmp_path / "teacher.keras"
    with pytest.raises(FileNotFoundError, match=f"teacher={tmp_path}: there is no {path}"):
        student.teacher_file(str(tmp_path))
    path.write_bytes(b"")
    assert student.teacher_file(str(tmp_path)) == student.teacher_file(str(path)) == path
    with pytest.raises(FileNotFoundError, match=r"there is no .*other\.keras"):
        student.teacher_file(str(tmp_path / "other.keras"))


def test_a_teacher_is_adopted_if_it_knows_the_same_classes(begin, tmp_path):
    network, path = begin(teacher=True).teacher, tmp_path / "theirs.keras"
    save_model(network, path, class_names=NAMES)
    copy = tmp_path / "run" / "teacher.keras"
    adopted = student.adopt_teacher(path, copy, class_names=NAMES)
    for ours, theirs in zip(adopted.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert copy.read_bytes() == path.read_bytes() and keras.models.load_model(copy)
    assert student.adopt_teacher(copy, copy, class_names=NAMES) is not None
    with pytest.raises(ValueError, match="class 2 is 'red' there, 'rose' here"):
        student.adopt_teacher(path, tmp_path / "other" / "teacher.keras", class_names=("blue", "green", "rose"))
    assert not (tmp_path / "other").exists()
