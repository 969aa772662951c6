"""The student's run: what its flags make of a Distiller and a job, its teacher's file, and what it keeps."""

import json

import keras
import numpy as np
import pytest
from helpers.programs import SMALL
from helpers.tiny_models import other_cnn

from deitlt_tf import models
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
    assert (made.ema_decay, made.ema_warmup) == (0.9, True)
    assert not begin("--noema_warmup", teacher=True).distiller.ema_warmup
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


def test_with_a_validation_split_the_best_weights_lie_next_to_the_last_ones(begin):
    run, memory = begin("--method=vit", "--eval_every=0", "--val_fraction=.3"), {}
    assert run.evaluate(1, memory) == {} and memory == {}
    line = run.evaluate(run.steps, memory)  # after the last step, always
    assert any(name.startswith("val/ema") for name in line) and memory["best"]["step"] == run.steps
    best = run.models[memory["best"]["kind"]].get_weights()
    last = run.distiller.student
    last.set_weights([weight + 1 for weight in last.get_weights()])  # as if it had gone on
    weights = run.save(memory)
    kind = memory["best"]["kind"]
    assert weights == {
        "student": {"step": run.steps, "kind": "raw"},
        "student_ema": {"step": run.steps, "kind": "ema", "decay": 0.5},
        "student_best": memory["best"] | ({"decay": 0.5} if kind == "ema" else {}),
    }
    for name, expected in {"student": last.get_weights(), "student_best": best}.items():
        model, names = load_model(run.folder / f"{name}.keras")
        assert names == NAMES
        for weight, other in zip(model.get_weights(), expected, strict=True):
            np.testing.assert_array_equal(weight, other)
    assert load_model(run.folder / "student_ema.keras")[1] == NAMES
    assert run.measure_all().keys() == {"raw", "ema", "best"}


def test_results_say_what_every_file_holds(images, tmp_path):
    folder = tmp_path / "run"
    arguments = ("--val_fraction=.3", "--method=vit", f"--data_dir={images}", f"--workdir={folder}", "--eval_every=1")
    settings = recipe_of(["train", *SMALL, *arguments])
    splits = load_splits(folder=tmp_path, **settings.data.loading())
    results = student.train_student(settings, splits, folder=folder, teacher=None)
    assert json.loads((folder / "results.json").read_text()) == results
    assert results.keys() == {
        *("raw", "ema", "best", "groups", "class_counts", "steps", "student.keras", "weights"),
    }  # fmt: skip
    assert results["student.keras"] == "the last weights"
    for name, facts in results["weights"].items():
        assert (folder / f"{name}.keras").is_file() and facts["kind"] in ("raw", "ema")
        assert ("decay" in facts) == (facts["kind"] == "ema") and ("score" in facts) == (name == "student_best")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    scores = {(line["step"], kind): line[f"val/{kind}/paper/cls/balanced"] for line in lines for kind in ("raw", "ema")}
    best = results["weights"]["student_best"]
    assert best["score"] == max(scores.values()) == scores[best["step"], best["kind"]]


def test_a_student_is_saved_before_it_is_measured_and_the_teacher_measured_before_it_trains(begin, monkeypatch):
    run, order = begin(teacher=True), []

    def count(model, *arguments, title, **keywords):
        order.append(title)
        if title == "student, test":
            raise ValueError("out of memory")
        return {"cls": np.zeros(3, int), "total": np.ones(3, int)}

    monkeypatch.setattr(student.metrics, "count", count)
    monkeypatch.setattr(student, "fit", lambda job: order.append("fit") or {})
    with pytest.raises(ValueError, match="out of memory"):
        student.train_student(run.recipe, run.splits, folder=run.folder, teacher=run.teacher)
    assert order == ["teacher, test", "fit", "student, test"]
    assert {path.name for path in run.folder.glob("*.keras")} == {"student.keras", "student_ema.keras"}


def test_a_validation_split_that_is_looked_at_only_at_the_end_gets_a_note(begin):
    def note(*arguments):
        run = begin("--method=vit", *arguments)
        return student.late_validation(run.recipe, run.splits)

    late = ("--val_fraction=.3", "--eval_every=0", "--epochs=40")
    assert "Set, for example, --eval_every=2 " in note(*late)
    assert "--eval_every=40" in note(*late, "--eval_every=40")
    assert note(*late, "--eval_every=39") == note(*late, "--epochs=1", "--reweight_epoch=-1") == ""
    assert note("--eval_every=0", "--epochs=40") == ""


def test_a_batch_that_does_not_split_is_refused_before_anything_else(begin):
    with pytest.raises(ValueError, match="batch_size=7 does not split evenly over 1 devices with 2 parts"):
        begin("--accumulation=2")


def test_a_teachers_classes_need_a_teacher_that_chooses(begin, tmp_path):
    for run in (begin("--distillation=soft", teacher=True), begin("--method=vit")):
        with pytest.raises(ValueError, match="holds a teacher's classes: it needs one"):
            run.open_labels()
    with pytest.raises(ValueError, match="--guidance=2 compares the student with the teacher's feature maps"):
        begin("--guidance=2", "--depth=2", teacher=True).open_labels()
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


def test_the_view_of_an_adopted_teacher_has_the_size_of_its_input(tmp_path, capsys):
    path, copy = tmp_path / "theirs.keras", tmp_path / "run" / "teacher.keras"
    save_model(other_cnn(32), path, class_names=NAMES)
    for resize in (0, 32, 40):
        assert student.adopt_teacher(path, copy, class_names=NAMES, eval_resize=resize).input_shape[1] == 32
    capsys.readouterr()
    student.adopt_teacher(path, copy, class_names=NAMES, eval_resize=72, image_size=64)
    assert "the central 32 pixels of 72 (--teacher_eval_resize). --teacher_eval_resize=36 " in capsys.readouterr().out
    for view in ({"eval_resize": 36, "image_size": 32}, {"eval_resize": 0, "image_size": 64}):
        student.adopt_teacher(path, copy, class_names=NAMES, **view)
        assert not capsys.readouterr().out
    copy.unlink()
    with pytest.raises(ValueError, match=r"^teacher_eval_resize=31 is smaller than the input of other, 32 pixels"):
        student.adopt_teacher(path, copy, class_names=NAMES, eval_resize=31)
    assert not copy.exists()


def test_a_teacher_that_cannot_be_asked_is_refused_at_once(tmp_path):
    path, copy, pixels = tmp_path / "theirs.keras", tmp_path / "teacher.keras", keras.Input((8, 8, 3))
    anywhere = keras.Input((None, None, 3))
    logits = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(pixels))
    for model, message in [
        (keras.Model(anywhere, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(anywhere))), "a fixed S"),
        (keras.Model(pixels, {"cls": logits, "dist": logits}), "has several outputs, and a teacher has one"),
        (keras.Model(pixels, [logits, logits]), "has several outputs, and a teacher has one"),
    ]:
        model.save(path)
        with pytest.raises(ValueError, match=message):
            student.adopt_teacher(path, copy, class_names=NAMES)
    assert not copy.exists()


def test_a_teacher_of_bare_cosines_is_scaled_once(begin, tmp_path, capsys):
    bare = models.build("resnet8", num_classes=3, image_size=8, classifier="cosine")
    path, copy = tmp_path / "theirs.keras", tmp_path / "run" / "teacher.keras"
    save_model(bare, path, class_names=NAMES)
    images = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)).astype(np.float32)
    adopted = student.adopt_teacher(path, copy, class_names=NAMES, scale=30.0)
    assert f"the outputs of {path} are bare cosines: they are multiplied by 30" in capsys.readouterr().out
    for model in (adopted, load_model(copy)[0]):
        np.testing.assert_allclose(model(images), 30 * bare(images), rtol=1e-4, atol=1e-4)
    before = copy.read_bytes()
    student.adopt_teacher(path, copy, class_names=NAMES, scale=30.0)
    assert copy.read_bytes() == before  # kept teacher labels name the file by its digest
    capsys.readouterr()
    again = student.adopt_teacher(copy, copy, class_names=NAMES, scale=30.0)
    assert again.layers[-1].scale == 30 and not capsys.readouterr().out
