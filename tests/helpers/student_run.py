"""A student's run without a program around it: all that its training draws or remembers, and ways to kill it."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from deitlt_tf import distill, models, optimizers
from deitlt_tf.data import pipeline
from deitlt_tf.data.dataset import Source
from deitlt_tf.training import loop
from deitlt_tf.training.job import Job, total_variables
from deitlt_tf.training.keeper import Keeper

COUNTS = (8, 6, 4, 2)
BATCH, PER_EPOCH, EPOCHS = 4, 5, 3
STEPS = PER_EPOCH * EPOCHS
NOTHING_SAVED = 10**9  # seconds between checkpoints


def noisy(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """A view with as much chance in it as the real one, whose graph takes longer to build."""
    return image ^ tf.cast(tf.random.stateless_uniform([8, 8, 3], seed, 0, 64, tf.int32), tf.uint8)


class Run:
    """All that a student's training draws or remembers: views, mixing, drop path; EMA, re-weighting, warm-up."""

    def __init__(self):
        generator = np.random.default_rng(0)
        labels = np.repeat(np.arange(4), COUNTS).astype(np.int32)
        images = generator.integers(0, 256, (len(labels), 8, 8, 3)).astype(np.uint8)
        self.source = Source(images, labels, tuple("abcd"))
        kernel = tf.constant(generator.normal(size=(8 * 8 * 3, 4)) / 1000, tf.float32)
        keras.utils.set_random_seed(1)
        student = models.build(
            "deit_nano", num_classes=4, image_size=8, patch_size=4, embed_dim=8, depth=2, num_heads=2, drop_path=0.5
        )
        self.model = distill.Distiller(
            student, lambda x: tf.reshape(x, [-1, 8 * 8 * 3]) @ kernel, COUNTS,
            ema_decay=0.9, reweight_step=7, mixing_off_step=9, clip_norm=1.0,
        )  # fmt: skip
        schedule = optimizers.WarmupCosine(peak=1e-2, epochs=EPOCHS, steps_per_epoch=PER_EPOCH, warmup_epochs=1)
        self.model.compile(optimizers.adamw(student, schedule), jit_compile=False)
        self.variables = total_variables(student.weights, self.model.ema.weights, self.model.optimizer.variables)
        self.start = self.values()

    def values(self) -> list[np.ndarray]:
        return [np.array(v) for v in self.variables]

    def assign(self, values: list) -> None:
        for variable, value in zip(self.variables, values, strict=True):
            variable.assign(value)

    def batches(self, first_step: int, **share: int) -> tf.data.Dataset:
        return pipeline.train(
            self.source, view=noisy, batch=BATCH, steps=STEPS, steps_per_epoch=PER_EPOCH, first_step=first_step,
            repeats=3, seed=1, **share,
        )  # fmt: skip

    def evaluate(self, step: int, memory: dict) -> dict:
        memory["epochs"] = [*memory.get("epochs", []), step]
        return {"score": float(np.abs(np.array(self.variables[0])).sum())}

    def fit(self, folder: Path, *, seconds: float = 0, batches=None, teacher_labels=None) -> dict:
        return loop.fit(
            Job(
                self.model, batches=batches or self.batches, variables=self.variables, folder=folder, title="student",
                batch=BATCH, steps=STEPS, steps_per_epoch=PER_EPOCH, checkpoint_seconds=seconds,
                evaluate=self.evaluate, teacher_labels=teacher_labels,
            )
        )  # fmt: skip


def forget(run: Run) -> None:
    """As in a new process: of the killed one nothing is left but its folder."""
    run.assign([np.full_like(value, 77) for value in run.values()])


class Killed(Exception):
    pass


def dying(monkeypatch, *, saved: int, killed: int) -> None:
    """The last checkpoint is that of step `saved`; at step `killed` the run dies where it would have saved."""

    class Dying(Keeper):
        def save(self):
            if self.step >= killed:
                raise Killed
            if self.step <= saved:
                super().save()

    monkeypatch.setattr(loop, "Keeper", Dying)
