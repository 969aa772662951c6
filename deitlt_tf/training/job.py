"""What the loop trains: a model, its batches, the folder of the run and the number of steps."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from deitlt_tf.data import pipeline, sources
from deitlt_tf.recipes.checks import uneven_batch
from deitlt_tf.recipes.recipe import Recipe
from deitlt_tf.recipes.views import Batch
from deitlt_tf.training.teacher_labels import TeacherLabels


@dataclass(frozen=True, eq=False)
class Job:
    """All that `loop.fit` needs to train a model from its last checkpoint to its last step.

    model: a Distiller or Teacher, compiled.
    batches: (first step, worker=, workers=, replicas=) -> a worker's training batches to the end; see `pipeline.train`.
    variables: everything that a checkpoint has to hold.
    folder: the folder of the run. title: starts the progress bar and messages.
    batch: images of one step. steps: steps of the whole training. steps_per_epoch: steps between two journal lines.
    checkpoint_seconds: seconds between two checkpoints. Defaults to 60.
    evaluate: (step, memory) -> numbers for the journal, called after every epoch. It may write to the dict `memory`,
      which every checkpoint holds. Defaults to None, no evaluation.
    teacher_labels: file of the teacher's classes for a Distiller. The loop reads them as far as they are known, and
      writes them from there on. Defaults to None, no file.
    """

    model: keras.Model
    batches: Callable[..., tf.data.Dataset]
    variables: list[keras.Variable]
    folder: Path
    title: str
    batch: int
    steps: int
    steps_per_epoch: int
    checkpoint_seconds: float = 60
    evaluate: Callable[[int, dict[str, Any]], dict[str, Any]] | None = None
    teacher_labels: TeacherLabels | None = None


def total_variables(*groups: list[keras.Variable]) -> list[keras.Variable]:
    """All variables of all groups, in order, each once."""
    return list({id(v): v for group in groups for v in group}.values())


def training_batches(
    recipe: Recipe, source: sources.Source, *, view: Callable, batch: Batch, steps: int, steps_per_epoch: int
) -> Callable[..., tf.data.Dataset]:
    """`Job.batches` of a recipe's training images.

    view: (image, seed) -> training view; see `data.augment`. batch: its size, sampling and repeats.
    """

    def batches(first_step: int, **share: int) -> tf.data.Dataset:
        data = recipe.data
        return pipeline.train(
            pipeline.decoded(source, limit=data.decoded_bytes, max_pixels=data.max_pixels),
            view=view,
            batch=batch.size,
            steps=steps,
            steps_per_epoch=steps_per_epoch,
            first_step=first_step,
            repeats=batch.repeats,
            seed=recipe.run.seed,
            sampling=batch.sampling,
            max_pixels=data.max_pixels,
            **share,
        )

    return batches


def check_batch(size: int, *, parts: int = 1, flag: str) -> None:
    """Raises ValueError unless a batch splits evenly over the devices of the current strategy and `parts` on each.

    size: images of a batch. parts: the value of --accumulation. flag: name of the flag that sets `size`.
    """
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if sentence := uneven_batch(size, devices=replicas, parts=parts, flag=flag):
        raise ValueError(sentence)
