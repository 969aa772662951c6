"""A finished run, opened: its networks by their rows, batches of its test images as each network sees them."""

import numpy as np
import pytest
from helpers import tiny_run

from deitlt_tf.evaluation import run as runs
from deitlt_tf.runs.models import load_model, save_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A student that sees 8 pixels cut from 10, and a teacher that sees 8."""
    return tiny_run.finished(tmp_path_factory.mktemp("run"), "--eval_resize=10", teacher=True)


def test_a_run_has_its_data_counts_and_views(folder):
    run = tiny_run.run_of(folder)
    assert run.folder == folder and run.splits.train.class_names == tiny_run.CLASS_NAMES
    assert run.class_counts.tolist() == list(tiny_run.CLASS_COUNTS)
    assert run.eval_resize == {"student": 10, "teacher": 0} and run.max_pixels > 10**6


def test_networks_are_those_that_the_workdir_has(folder):
    models = runs.networks(tiny_run.run_of(folder))
    assert list(models) == ["teacher", "student"]
    assert list(runs.networks(tiny_run.run_of(folder), {"student": runs.FILES["student"]})) == ["student"]


def test_a_student_of_one_head_is_a_plain_vit(tmp_path):
    folder = tiny_run.finished(tmp_path, "--method=vit")
    assert list(runs.networks(tiny_run.run_of(folder))) == ["ViT"]


def test_batches_are_the_evaluation_view_of_the_network(folder):
    run = tiny_run.run_of(folder)
    models = runs.networks(run)
    images, labels, mask = next(iter(runs.test_batches(run, models["student"], batch=12)))
    assert images.shape == (12, 8, 8, 3) and labels.numpy().tolist() == run.splits.test.labels.tolist()
    assert mask.numpy().sum() == 12
    of_teacher, _, _ = next(iter(runs.test_batches(run, models["teacher"], row="teacher", batch=12)))
    assert not np.array_equal(images, of_teacher)
    some, labels, _ = next(iter(runs.test_batches(run, models["student"], indices=[7, 2], batch=2)))
    np.testing.assert_array_equal(some, images.numpy()[[7, 2]])
    assert labels.numpy().tolist() == run.splits.test.labels[[7, 2]].tolist()


def test_a_model_of_other_classes_is_refused(folder, tmp_path):
    model, _ = load_model(folder / "student.keras")
    save_model(model, tmp_path / "student.keras", class_names=("a", "b", "c"))
    with pytest.raises(ValueError, match="class 0 is 'a' there, 'blue' here"):
        runs.checked_model(tmp_path / "student.keras", class_names=tiny_run.CLASS_NAMES)


def test_a_run_that_is_not_finished_is_told_how_to_be(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no finished student .*python -m deitlt_tf.train --flagfile"):
        runs.open_run(tmp_path, data={}, student_resize=0, teacher_resize=0)
