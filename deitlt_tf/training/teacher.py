"""The teacher's run: train the flat CNN, measure it, save it."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from deitlt_tf import objectives, optimizers
from deitlt_tf.data import augment, decode, pipeline, sources
from deitlt_tf.devices.strategy import from_chief, is_chief, wait_for_all
from deitlt_tf.evaluation import hierarchy, metrics, tables
from deitlt_tf.losses import NEVER, ClassCounts
from deitlt_tf.recipes.checks import weighs_twice, wrong_classifier
from deitlt_tf.recipes.recipe import Recipe
from deitlt_tf.recipes.teacher import Teacher as Settings
from deitlt_tf.runs.data import identity
from deitlt_tf.runs.files import write_json
from deitlt_tf.runs.folder import claim, held
from deitlt_tf.runs.models import save_model
from deitlt_tf.teacher import Teacher
from deitlt_tf.training.job import Job, check_batch, total_variables, training_batches
from deitlt_tf.training.loop import fit
from deitlt_tf.training.networks import teacher_network


def teacher_folder(recipe: Recipe) -> Path:
    """The folder of the teacher's run. Raises ValueError without a workdir."""
    if recipe.teacher.workdir:
        return Path(recipe.teacher.workdir)
    if not recipe.run.workdir:
        raise ValueError("--workdir is missing: name the folder where the run is kept, e.g. --workdir=runs/first.")
    return recipe.run.folder / "teacher"


def train_teacher(recipe: Recipe, splits: sources.Splits) -> Path:
    """Trains (or goes on training, or reuses) the teacher of this recipe on `splits`; returns its .keras file.

    Raises ValueError for a recipe that does not fit data, devices or folder, FloatingPointError at a NaN, and
    SystemExit after a SIGTERM.
    """
    check_batch(recipe.teacher.batch.size, flag="teacher_batch_size")
    folder = teacher_folder(recipe)
    with contextlib.nullcontext() if (folder / "teacher.keras").is_file() else held(folder):
        return _train_in(folder, recipe, splits)


def _train_in(folder: Path, recipe: Recipe, splits: sources.Splits) -> Path:
    """`train_teacher`, while no other process trains in its folder."""
    finished, class_names = folder / "teacher.keras", splits.train.class_names
    if is_chief():
        claim(folder, **identity(splits, **recipe.data.loading()), **recipe.teacher_identity())
    if from_chief(finished.is_file()):
        print(f"teacher: {finished} is there, from the same recipe")
        return finished

    run = TeacherRun(recipe, splits, folder=folder)
    hits = decode.naming_bad_images(run.fit, splits, max_pixels=recipe.data.max_pixels)
    results = {"teacher": metrics.accuracies(hits, run.class_counts)}
    results |= hierarchy.results({"teacher": hits}, run.class_counts, splits.taxonomy)
    if is_chief():
        write_json(folder / "results.json", results)
        save_model(run.network, finished, class_names=class_names, taxonomy=splits.taxonomy)
    wait_for_all()  # until the chief has written the file that the other workers read
    tables.print_tables(tables.rows_of("teacher", results["teacher"]), run.class_counts)
    tables.print_by_rank(tables.by_rank_rows(results, {"teacher": "teacher"}), run.class_counts)
    return finished


class TeacherRun:
    """A teacher in training: the compiled `Teacher` of a recipe, its job and its accuracies. folder: of the run."""

    def __init__(self, recipe: Recipe, splits: sources.Splits, *, folder: Path):
        self.recipe, self.splits, self.folder = recipe, splits, folder
        self.class_counts = sources.class_counts(splits.train.labels, len(splits.train.class_names))
        self.steps_per_epoch = pipeline.steps_per_epoch(len(splits.train), batch=recipe.teacher.batch.size)
        self.steps = recipe.teacher.schedule.epochs * self.steps_per_epoch
        self.teacher = make_teacher(recipe, self.class_counts, steps_per_epoch=self.steps_per_epoch)
        self.network = self.teacher.network

    def fit(self) -> dict[str, np.ndarray]:
        """Trains from the last checkpoint to the last step; returns `count` of the test split."""
        fit(self.job())
        return self.count(self.splits.test, "teacher, test")

    def job(self) -> Job:
        """What the loop trains: the teacher and its batches, variables and evaluation."""
        recipe, settings, objective = self.recipe, self.recipe.teacher, self.teacher.objective
        return Job(
            self.teacher,
            batches=training_batches(
                recipe,
                self.splits.train,
                view=training_view(recipe, views=objective.views),
                batch=settings.batch,
                steps=self.steps,
                steps_per_epoch=self.steps_per_epoch,
            ),
            variables=total_variables(
                self.network.weights, objective.trainable, self.teacher.state, self.teacher.optimizer.variables
            ),
            folder=self.folder,
            title="teacher",
            batch=settings.batch.size,
            steps=self.steps,
            steps_per_epoch=self.steps_per_epoch,
            checkpoint_seconds=recipe.run.checkpoint_seconds,
            evaluate=self.evaluate,
        )

    def count(self, split: sources.Source, title: str) -> dict[str, np.ndarray]:
        """`metrics.count` of the teacher on a split, with hits of each rank where there is a taxonomy."""
        return metrics.count(
            self.network,
            split,
            eval_resize=self.recipe.teacher.view.eval_resize,
            max_pixels=self.recipe.data.max_pixels,
            num_classes=len(self.class_counts),
            title=title,
            taxonomy=self.splits.taxonomy,
        )

    def evaluate(self, step: int, memory: dict[str, Any]) -> dict[str, Any]:
        """Numbers for the journal, every `eval_every` epochs but the last."""
        epoch, every = step // self.steps_per_epoch, self.recipe.run.eval_every
        if not every or epoch % every or step == self.steps:
            return {}
        hits = self.count(self.splits.val or self.splits.test, "teacher, evaluation")
        return metrics.flatten(metrics.accuracies(hits, self.class_counts), prefix="teacher")


def training_view(recipe: Recipe, *, views: int) -> Callable:
    """A function (image, seed) -> the teacher's training view; with views=2, the first and second view of the image."""
    settings = recipe.teacher.view.training(resize=recipe.data.resize)
    if views == 2:
        return augment.with_second_view(second=recipe.teacher.second_view.settings(), **settings)
    return augment.training_view(**settings)


def make_teacher(recipe: Recipe, class_counts: ClassCounts, *, steps_per_epoch: int) -> Teacher:
    """A new, compiled `Teacher` of a recipe: network, objective, SAM, SGD with its schedule."""
    settings = recipe.teacher
    schedule, sam = settings.schedule, settings.sam
    network = teacher_network(recipe, num_classes=len(class_counts))
    reweight_step = schedule.reweight_epoch * steps_per_epoch if schedule.reweight_epoch >= 0 else NEVER
    teacher = Teacher(
        network,
        class_counts,
        make_objective(settings, network, class_counts, steps_per_epoch=steps_per_epoch),
        rho=sam.rho,
        rho_steps={epoch * steps_per_epoch: rho for epoch, rho in sam.rho_steps.items()},
        flat_below=sam.flat_below,
        reweight_step=reweight_step,
        beta=schedule.beta,
        clip_norm=schedule.clip_norm,
        seed=recipe.run.seed,
    )
    optimizer = optimizers.SGD(learning_rate(settings, steps_per_epoch), momentum=schedule.momentum, l2=schedule.l2)
    optimizer.build(teacher.objective.trainable)
    teacher.compile(optimizer)
    return teacher


def make_objective(
    settings: Settings, network: keras.Model, class_counts: ClassCounts, *, steps_per_epoch: int
) -> objectives.Objective:
    """The objective of --teacher_loss for this network. Raises ValueError for flags that contradict it."""
    aim, schedule = settings.objective, settings.schedule
    if aim.loss in ("mdcs", "glmc") and 0 <= schedule.reweight_epoch < schedule.epochs:
        raise ValueError(weighs_twice(settings))
    if aim.loss == "ldam" and settings.network.model.startswith("mdcs_"):
        raise ValueError(
            f"--teacher_model={settings.network.model} scales its cosines itself, and so does --teacher_loss=ldam: "
            "take --teacher_loss=mdcs, ce or balanced_softmax."
        )
    if sentence := wrong_classifier(settings):
        raise ValueError(sentence)
    keywords: dict[str, dict[str, Any]] = {
        "paco": {"temperature": aim.temperature, "queue": aim.queue, "dim": aim.dim, "alpha": aim.alpha},
        "mdcs": {"weight": aim.consistency, "ramp_steps": aim.consistency_epochs * steps_per_epoch},
        "glmc": {
            "epochs": schedule.epochs,
            "steps_per_epoch": steps_per_epoch,
            "consistency": aim.consistency,
            "power": aim.label_power,
        },
        "ldam": {"max_margin": aim.max_margin, "scale": aim.scale},
    }
    return objectives.build(aim.loss, network, class_counts, **keywords.get(aim.loss, {}))


def learning_rate(settings: Settings, steps_per_epoch: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """The teacher's learning rate: warm-up, then drops by epoch or a cosine to 0."""
    schedule = settings.schedule
    if schedule.shape == "cosine":
        return optimizers.WarmupCosine(
            peak=schedule.lr,
            epochs=schedule.epochs,
            steps_per_epoch=steps_per_epoch,
            warmup_epochs=schedule.warmup_epochs,
            warmup_lr=0.0,
            min_lr=0.0,
        )
    return optimizers.WarmupDrops(
        peak=schedule.lr,
        steps_per_epoch=steps_per_epoch,
        drops=schedule.drops,
        warmup_epochs=schedule.warmup_epochs,
    )
