"""The student's run: distil it (or train the plain ViT), measure it, save it."""

from functools import partial
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from deitlt_tf import optimizers
from deitlt_tf.data import augment, decode, pipeline, sources
from deitlt_tf.devices.strategy import is_chief, wait_for_all
from deitlt_tf.distill import Distiller
from deitlt_tf.evaluation import metrics, selection
from deitlt_tf.evaluation.tables import describe_groups
from deitlt_tf.losses import NEVER
from deitlt_tf.recipes.recipe import Recipe
from deitlt_tf.runs.files import replacing, write_json
from deitlt_tf.runs.models import load_model, same_classes, save_model
from deitlt_tf.training import teacher_labels
from deitlt_tf.training.job import Job, check_batch, total_variables, training_batches
from deitlt_tf.training.loop import fit
from deitlt_tf.training.networks import student_network


def train_student(
    recipe: Recipe, splits: sources.Splits, *, folder: Path, teacher: keras.Model | None
) -> dict[str, Any]:
    """Trains (or goes on training) the student, measures it and saves it; returns the content of results.json.

    folder: of the run. teacher: the loaded network; None: the student is a plain ViT.
    Raises ValueError for a recipe that does not fit data or devices, FloatingPointError at a NaN, and SystemExit after
    a SIGTERM.
    """
    run = StudentRun(recipe, splits, folder=folder, teacher=teacher)
    results = decode.naming_bad_images(
        lambda: run.measure_all(fit(run.job())), splits, max_pixels=recipe.data.max_pixels
    )
    run.save(results)
    return results


class StudentRun:
    """A student in training: the Distiller of a recipe, its job, its accuracies and its files.

    folder: of the run. teacher: the loaded network; None: the student is a plain ViT.
    Raises ValueError for a batch that does not split over devices and parts.
    """

    def __init__(self, recipe: Recipe, splits: sources.Splits, *, folder: Path, teacher: keras.Model | None):
        batch = recipe.student.batch
        check_batch(batch.size, parts=batch.accumulation, flag="batch_size")
        self.recipe, self.splits, self.folder, self.teacher = recipe, splits, folder, teacher
        self.class_names = splits.train.class_names
        self.class_counts = sources.class_counts(splits.train.labels, len(self.class_names))
        self.steps_per_epoch = pipeline.steps_per_epoch(len(splits.train), batch=batch.size, repeats=batch.repeats)
        self.steps = recipe.student.schedule.epochs * self.steps_per_epoch
        self.title = "ViT" if teacher is None else "student"
        self.distiller = self.make_distiller()
        self.models = {"raw": self.distiller.student} | ({"ema": self.distiller.ema} if self.distiller.ema else {})

    def make_distiller(self) -> Distiller:
        """The compiled Distiller: student, teacher, losses and optimiser of the recipe."""
        student, schedule = self.recipe.student, self.recipe.student.schedule
        reweight_step = student.reweight_epoch * self.steps_per_epoch if student.reweight_epoch >= 0 else NEVER
        distiller = Distiller(
            student_network(self.recipe, num_classes=len(self.class_names)),
            self.teacher,
            self.class_counts,
            alpha=student.distillation.alpha,
            distillation=student.distillation.kind,
            teacher_sees=student.distillation.teacher_sees,
            temperature=student.distillation.temperature,
            logit_adjustment=student.logit_adjustment,
            reweight_step=reweight_step,
            beta=schedule.beta,
            mixing=student.mixing.keywords(),
            mixing_off_step=reweight_step if schedule.mixing_off else NEVER,
            accumulation=student.batch.accumulation,
            clip_norm=schedule.clip_norm,
            ema_decay=schedule.ema_decay,
            seed=self.recipe.run.seed,
        )
        learning_rate = optimizers.WarmupCosine(
            peak=student.peak_lr,
            epochs=schedule.epochs,
            steps_per_epoch=self.steps_per_epoch,
            warmup_epochs=schedule.warmup_epochs,
            warmup_lr=schedule.warmup_lr,
            min_lr=schedule.min_lr,
        )
        distiller.compile(optimizers.adamw(distiller.student, learning_rate, weight_decay=schedule.weight_decay))
        return distiller

    def job(self) -> Job:
        """What the loop trains: the distiller and its batches, variables and evaluation."""
        recipe, student = self.recipe, self.recipe.student
        clean = self.teacher is not None and student.distillation.teacher_sees == "clean"
        make_view = augment.with_clean_view if clean else augment.training_view
        return Job(
            self.distiller,
            batches=training_batches(
                recipe,
                self.splits.train,
                view=make_view(**student.view.training(resize=recipe.data.resize)),
                batch=student.batch,
                steps=self.steps,
                steps_per_epoch=self.steps_per_epoch,
            ),
            variables=total_variables(
                *(model.weights for model in self.models.values()),
                self.distiller.optimizer.variables,
                self.distiller.state,
            ),
            folder=self.folder,
            title=self.title,
            batch=student.batch.size,
            steps=self.steps,
            steps_per_epoch=self.steps_per_epoch,
            checkpoint_seconds=recipe.run.checkpoint_seconds,
            evaluate=self.evaluate,
            teacher_labels=self.open_labels() if recipe.teacher.labels else None,
        )

    def measure(self, model: keras.Model, split: sources.Source, split_name: str) -> metrics.Accuracies:
        """Accuracies of a model on a split. split_name: shown by the progress bar."""
        return metrics.measure(
            model,
            split,
            eval_resize=self.recipe.student.view.eval_resize,
            max_pixels=self.recipe.data.max_pixels,
            class_counts=self.class_counts,
            title=f"{self.title}, {split_name}",
        )

    def evaluate(self, step: int, memory: dict[str, Any]) -> dict[str, Any]:
        """Numbers for the journal, every `eval_every` epochs. With a validation split it keeps the best weights.

        step: the number of steps done, the end of an epoch. memory: where the best score is remembered.
        """
        val, every = self.splits.val, self.recipe.run.eval_every
        due = every and step // self.steps_per_epoch % every == 0
        if not due and not (val and step == self.steps):
            return {}
        split, split_name = (val, "val") if val else (self.splits.test, "test")
        line: dict[str, Any] = {}
        for weights, model in self.models.items():
            measured = self.measure(model, split, split_name)
            line |= metrics.flatten(measured, prefix=f"{split_name}/{weights}")
            if val:
                selection.offer(model, measured=measured, weights=weights, step=step, memory=memory, folder=self.folder)
        return line

    def measure_all(self, memory: dict[str, Any]) -> dict[str, Any]:
        """Accuracies on the test split: of the last weights, the best ones on the validation split, and the teacher.

        memory: that of `evaluate`. Where it names best weights, they are loaded into the student.
        """
        results: dict[str, Any] = {
            weights: self.measure(model, self.splits.test, "test") for weights, model in self.models.items()
        }
        student_weights = "the last weights"
        if "best" in memory:
            student_weights = selection.load(self.distiller.student, memory=memory, folder=self.folder)
            results["best"] = self.measure(self.distiller.student, self.splits.test, "test")
        if self.teacher is not None:
            results["teacher"] = metrics.measure(
                self.teacher,
                self.splits.test,
                eval_resize=self.recipe.teacher.view.eval_resize,
                max_pixels=self.recipe.data.max_pixels,
                class_counts=self.class_counts,
                title="teacher, test",
            )
        counts = self.class_counts
        return results | {
            "groups": {convention: describe_groups(counts, convention) for convention in ("shots", "paper")},
            "class_counts": counts.tolist(),
            "student.keras": student_weights,
            "steps": self.steps,
        }

    def save(self, results: dict[str, Any]) -> None:
        """Writes results.json, student.keras and student_ema.keras."""
        if not is_chief():
            return
        write_json(self.folder / "results.json", results)
        save_model(self.distiller.student, self.folder / "student.keras", class_names=self.class_names)
        if self.distiller.ema:
            save_model(self.distiller.ema, self.folder / "student_ema.keras", class_names=self.class_names)

    def open_labels(self) -> teacher_labels.TeacherLabels:
        """The file of --teacher_labels, opened. Raises ValueError for a recipe whose DIST does not learn classes."""
        recipe, student = self.recipe, self.recipe.student
        if student.plain or student.distillation.kind != "hard":
            raise ValueError("--teacher_labels holds a teacher's classes: it needs one, and --distillation=hard.")
        wait_for_all()  # until the chief has written the teacher's file
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        key = {f"--{name}": str(recipe.flags[name]) for name in teacher_labels.VIEWS}
        key["step without mixing (--mixing_off, --reweight_epoch)"] = str(self.distiller.mixing_off_step)
        key["devices times --accumulation"] = str(replicas * student.batch.accumulation)
        key["training data, SHA-256"] = teacher_labels.fingerprint(self.splits.train)
        key["teacher's file, SHA-256"] = teacher_labels.digest(self.folder / "teacher.keras")
        key["version of the views"] = str(augment.VERSION)
        key["TensorFlow"] = tf.__version__
        open_file = partial(
            teacher_labels.TeacherLabels,
            Path(recipe.teacher.labels),
            key,
            batch=student.batch.size,
            num_classes=len(self.class_names),
        )
        labels = open_file() if is_chief() else None
        wait_for_all()  # until the chief has created the file
        return labels or open_file(writes=False)


def teacher_file(path: str) -> Path:
    """The file of --teacher=PATH: PATH itself, or teacher.keras where PATH is a folder.

    Raises FileNotFoundError where there is no such file.
    """
    file = Path(path) / "teacher.keras" if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"--teacher={path}: there is no {file}.")
    return file


def adopt_teacher(path: Path, copy: Path, *, class_names: tuple[str, ...]) -> keras.Model:
    """The teacher from `path`, checked against the classes of the data; its file is copied to `copy`.

    Raises ValueError for a teacher of other classes.
    """
    teacher, names = load_model(path)
    same_classes(names, class_names, path=path, num_outputs=teacher.output_shape[-1])
    if is_chief() and not (copy.is_file() and copy.samefile(path)):
        with replacing(copy) as temporary:
            temporary.write_bytes(path.read_bytes())
    return teacher
