"""The student's run: distil it (or train the plain ViT), measure it, save it."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deitlt_tf import optimizers
from deitlt_tf.data import augment, decode, pipeline, sources
from deitlt_tf.devices.strategy import is_chief, wait_for_all
from deitlt_tf.distill import Distiller
from deitlt_tf.evaluation import hierarchy, metrics, selection
from deitlt_tf.evaluation.tables import describe_groups
from deitlt_tf.interop import pretrained
from deitlt_tf.losses import NEVER
from deitlt_tf.models import interface
from deitlt_tf.models.weights import is_frozen
from deitlt_tf.recipes import checks
from deitlt_tf.recipes.recipe import Recipe
from deitlt_tf.runs.files import replacing, write_json
from deitlt_tf.runs.models import load_model, read_taxonomy, same_classes, save_model
from deitlt_tf.training import adapting, teacher_labels
from deitlt_tf.training.job import Job, check_batch, total_variables, training_batches
from deitlt_tf.training.loop import fit
from deitlt_tf.training.networks import student_network


def train_student(
    recipe: Recipe, splits: sources.Splits, *, folder: Path, teacher: keras.Model | None
) -> dict[str, Any]:
    """Trains (or goes on training) the student, saves it and measures it; returns the content of results.json.

    The teacher is measured before the student trains, and the student is saved before anything else can fail.
    folder: of the run. teacher: the loaded network; None: the student is a plain ViT.
    Raises ValueError for a recipe that does not fit data or devices, FloatingPointError at a NaN, and SystemExit after
    a SIGTERM.
    """
    run = StudentRun(recipe, splits, folder=folder, teacher=teacher)

    def reading(function: Callable[[], Any]) -> Any:
        return decode.naming_bad_images(function, splits, max_pixels=recipe.data.max_pixels)

    of_teacher = reading(run.measure_teacher)
    weights = run.save(reading(lambda: fit(run.job())))
    results = reading(run.measure_all) | of_teacher | run.facts() | {"weights": weights}
    results |= hierarchy.results(run.test_hits, run.class_counts, splits.taxonomy)
    if is_chief():
        write_json(folder / "results.json", results)
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
        self.class_names, self.taxonomy = splits.train.class_names, splits.taxonomy
        self.test_hits: dict[str, dict[str, np.ndarray]] = {}  # {name of a model in results.json: `metrics.count`}
        self.class_counts = sources.class_counts(splits.train.labels, len(self.class_names))
        self.steps_per_epoch = pipeline.steps_per_epoch(len(splits.train), batch=batch.size, repeats=batch.repeats)
        self.steps = recipe.student.schedule.epochs * self.steps_per_epoch
        self.title = "adapted network" if recipe.student.adapts else "ViT" if teacher is None else "student"
        self.distiller = self.make_distiller()
        self.models = {"raw": self.distiller.student} | ({"ema": self.distiller.ema} if self.distiller.ema else {})

    def make_distiller(self) -> Distiller:
        """The compiled Distiller: student, teacher, losses and optimiser of the recipe."""
        student, schedule = self.recipe.student, self.recipe.student.schedule
        reweight_step = student.reweight_epoch * self.steps_per_epoch if student.reweight_epoch >= 0 else NEVER
        network = student_network(self.recipe, num_classes=len(self.class_names))
        if student.adapts:
            adapting.begin(network, self.recipe, self.splits, folder=self.folder)
        distiller = Distiller(
            network,
            self.teacher,
            self.class_counts,
            alpha=student.distillation.alpha,
            distillation=student.distillation.kind,
            teacher_sees=student.distillation.teacher_sees,
            guidance=student.distillation.guidance if self.teacher else 0.0,
            guidance_steps=reweight_step if 0 < reweight_step < self.steps else self.steps,
            temperature=student.distillation.temperature,
            logit_adjustment=student.logit_adjustment,
            reweight_step=reweight_step,
            beta=schedule.beta,
            mixing=student.mixing.keywords(),
            mixing_off_step=reweight_step if schedule.mixing_off else NEVER,
            accumulation=student.batch.accumulation,
            clip_norm=schedule.clip_norm,
            ema_decay=schedule.ema_decay,
            ema_warmup=schedule.ema_warmup,
            seed=self.recipe.run.seed,
        )
        learning_rate = optimizers.WarmupCosine(
            peak=student.peak_lr,
            epochs=schedule.epochs,
            steps_per_epoch=self.steps_per_epoch,
            warmup_epochs=schedule.warmup_epochs,
            warmup_lr=schedule.warmup_lr,
            min_lr=schedule.min_lr,
            per_epoch=student.adapts,
        )
        if student.adapts:
            sgd = optimizers.SGD(learning_rate, momentum=adapting.MOMENTUM, l2=schedule.weight_decay)
            sgd.build(distiller.trained)
            distiller.compile(sgd)
            return distiller
        guide = distiller.guide.variables if distiller.guide else []
        adamw = optimizers.adamw(distiller.student, learning_rate, weight_decay=schedule.weight_decay, also=guide)
        distiller.compile(adamw)
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
                *self.trained_weights(),
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

    def trained_weights(self) -> Iterator[list[keras.Variable]]:
        """The weights of each of `models` that training changes: those that a checkpoint has to hold."""
        frozen = [is_frozen(variable) for variable in self.distiller.student.weights]
        for model in self.models.values():
            yield [v for v, stays in zip(model.weights, frozen, strict=True) if not stays]

    def measure(self, model: keras.Model, split: sources.Source, split_name: str) -> metrics.Accuracies:
        """Accuracies of a model on a split. split_name: shown by the progress bar."""
        eval_resize, title = self.recipe.student.view.eval_resize, f"{self.title}, {split_name}"
        class_hits = self.count(model, split, eval_resize=eval_resize, title=title)
        return metrics.accuracies(class_hits, self.class_counts)

    def count(
        self, model: keras.Model, split: sources.Source, *, eval_resize: int, title: str, five_crops: int = 0
    ) -> dict[str, np.ndarray]:
        """`metrics.count` of a model on a split, with hits of each rank where there is a taxonomy."""
        return metrics.count(
            model,
            split,
            eval_resize=eval_resize,
            max_pixels=self.recipe.data.max_pixels,
            num_classes=len(self.class_counts),
            title=title,
            taxonomy=self.taxonomy,
            five_crops=five_crops,
        )

    def measure_test(
        self, name: str, model: keras.Model, *, eval_resize: int, title: str, five_crops: int = 0
    ) -> metrics.Accuracies:
        """Accuracies of a model on the test split; `test_hits` gets its hits under this name.

        title: shown by the progress bar. eval_resize, five_crops: see `metrics.count`.
        """
        title = f"{title}, test"
        hits = self.count(model, self.splits.test, eval_resize=eval_resize, title=title, five_crops=five_crops)
        self.test_hits[name] = hits
        return metrics.accuracies(hits, self.class_counts)

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
        for kind, model in self.models.items():
            measured = self.measure(model, split, split_name)
            line |= metrics.flatten(measured, prefix=f"{split_name}/{kind}")
            if val:
                selection.offer(model, measured=measured, kind=kind, step=step, memory=memory, folder=self.folder)
        return line

    def measure_teacher(self) -> dict[str, metrics.Accuracies]:
        """{"teacher": its accuracies on the test split}; without a teacher, {}."""
        if self.teacher is None:
            return {}
        resize = self.recipe.teacher.view.eval_resize
        return {"teacher": self.measure_test("teacher", self.teacher, eval_resize=resize, title="teacher")}

    def save(self, memory: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Writes student.keras, student_ema.keras and, with a validation split, student_best.keras.

        memory: that of `evaluate`. Where it names best weights, `models` gets them as "best".
        Returns {name of a file without .keras: the step and kind of its weights}.
        """
        last = {"step": self.steps}
        weights: dict[str, dict[str, Any]] = {"student": last | {"kind": "raw"}}
        decay = {"decay": self.recipe.student.schedule.ema_decay}
        if self.distiller.ema:
            weights["student_ema"] = last | {"kind": "ema"} | decay
        if "best" in memory:
            best = self.models["best"] = keras.models.clone_model(self.distiller.student)
            chosen = selection.load(best, memory=memory, folder=self.folder)
            weights["student_best"] = chosen | (decay if chosen["kind"] == "ema" else {})
        if is_chief():
            for name, model in zip(weights, self.models.values(), strict=True):
                path = self.folder / f"{name}.keras"
                save_model(model, path, class_names=self.class_names, taxonomy=self.taxonomy)
        return weights

    def measure_all(self) -> dict[str, metrics.Accuracies]:
        """Accuracies on the test split of each of `models`: the last weights, their average, and the best ones.

        With --five_crops also those of the last weights' mean answer to five crops.
        """
        resize = self.recipe.student.view.eval_resize
        measured = {
            kind: self.measure_test(kind, model, eval_resize=resize, title=self.title)
            for kind, model in self.models.items()
        }
        if pixels := self.recipe.student.five_crops:
            measured["five_crops"] = self.measure_test(
                "five_crops", self.models["raw"], eval_resize=resize, title="five crops", five_crops=pixels
            )
        return measured

    def facts(self) -> dict[str, Any]:
        """What results.json says about the run besides accuracies."""
        counts = self.class_counts
        return {
            "groups": {convention: describe_groups(counts, convention) for convention in ("shots", "paper")},
            "class_counts": counts.tolist(),
            "student.keras": "the last weights",
            "steps": self.steps,
        }

    def open_labels(self) -> teacher_labels.TeacherLabels:
        """The file of --teacher_labels, opened. Raises ValueError for a recipe whose DIST does not learn classes."""
        recipe, student = self.recipe, self.recipe.student
        if student.plain or student.distillation.kind != "hard":
            raise ValueError("--teacher_labels holds a teacher's classes: it needs one, and --distillation=hard.")
        if student.distillation.guidance:  # a run that has begun may get --teacher_labels, and is not checked again
            raise ValueError(
                f"--guidance={student.distillation.guidance:g} compares the student with the teacher's feature maps, "
                "which --teacher_labels does not hold: leave --teacher_labels out."
            )
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
    """The file of --teacher=PATH: PATH itself; where PATH is a folder teacher.keras or, without that, student.keras.

    Raises FileNotFoundError where there is no such file.
    """
    file = checks.teacher_file(Path(path))
    if file is None:
        raise FileNotFoundError(checks.no_teacher(path))
    return file


def adopt_teacher(
    path: Path,
    copy: Path,
    *,
    class_names: tuple[str, ...],
    eval_resize: int = 0,
    image_size: int | None = None,
    scale: float = 1.0,
) -> keras.Model:
    """The teacher from `path`, checked against the data and the evaluation view; its file is copied to `copy`.

    eval_resize: short side before the centre crop of its evaluation view, pixels; 0: no crop.
    image_size: side of the view that `eval_resize` was chosen for; where the teacher's input has another one, a note
      says what the teacher sees. Defaults to the side of its input.
    scale: factor that a teacher whose outputs are bare cosines gets, in `copy` too: see `pretrained.scale_cosines`.
    Raises ValueError for a teacher of other classes, of several outputs, or with an input that the view cannot have.
    """
    teacher, names = load_model(path)
    if not isinstance(teacher.output_shape, tuple):
        raise ValueError(
            f"{path} has several outputs, and a teacher has one, its logits [B, C]: choose one of them, as with "
            "keras.Model(model.input, model.output[...]), and save that."
        )
    same_classes(names, class_names, path=path, num_outputs=teacher.output_shape[-1])
    size = interface.view_size(teacher, resize=eval_resize, flag="teacher_eval_resize")
    if eval_resize and image_size and size != image_size:
        share = round(eval_resize * size / image_size)
        print(
            f"note: at test time the teacher sees the central {size} pixels of {eval_resize} (--teacher_eval_resize). "
            f"--teacher_eval_resize={share} shows it as much of an image as {eval_resize} to a network of {image_size}."
        )
    scaled = pretrained.scale_cosines(teacher, ldam=scale)
    if scaled:
        print(f"teacher: the outputs of {path} are bare cosines: they are multiplied by {scale:g} to make them logits")
    if is_chief() and not _is_copy(copy, path, teacher if scaled else None):
        if scaled:
            save_model(teacher, copy, class_names=class_names, taxonomy=read_taxonomy(path))
        else:
            with replacing(copy) as temporary:
                temporary.write_bytes(path.read_bytes())
    return teacher


def _is_copy(copy: Path, path: Path, scaled: keras.Model | None) -> bool:
    """Whether `copy` is the file `path`, or the teacher that was scaled.

    A teacher is not saved twice, because no two files of Keras are equal, and kept teacher labels name their file.
    """
    if not copy.is_file() or scaled is None:
        return copy.is_file() and copy.samefile(path)
    model, _ = load_model(copy)
    same = model.layers[-1].get_config() == scaled.layers[-1].get_config()
    pairs = zip(model.get_weights(), scaled.get_weights(), strict=False)
    return same and all(np.array_equal(a, b) for a, b in pairs)


def late_validation(recipe: Recipe, splits: sources.Splits) -> str:
    """A sentence where a validation split is held out and looked at only after the last epoch; else ""."""
    every, epochs = recipe.run.eval_every, recipe.student.schedule.epochs
    if splits.val is None or epochs == 1 or 0 < every < epochs:
        return ""
    return (
        f"note: with --eval_every={every} the validation split ({len(splits.val)} images) is looked at only after the "
        f"last epoch. Set, for example, --eval_every={max(1, epochs // 20)} to choose the best weights of many epochs."
    )
