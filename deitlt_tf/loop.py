"""From the last checkpoint to the last step: `model.fit` with a keeper that saves, logs, evaluates and stops."""

import math
import signal
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from deitlt_tf.workdir import Checkpoints, Journal


class Keeper(keras.callbacks.Callback):
    """Keeps a run: progress bar, checkpoints, metrics.jsonl, TensorBoard; stops on a NaN loss and on SIGTERM.

    What it remembers between steps (sums of the loss parts since the epoch began, the best validation score)
    goes into every checkpoint, so that an interrupted run writes the same numbers as one that was not.
    """

    def __init__(
        self,
        folder: Path,
        variables: list[keras.Variable],
        *,
        title: str,
        batch: int,
        steps: int,
        steps_per_epoch: int,
        checkpoint_seconds: float,
        evaluate: Callable[[int, dict], dict] | None,
    ):
        super().__init__()
        self.checkpoints, self.journal = Checkpoints(folder, say=tqdm.write), Journal(folder)
        # By place: Keras numbers the names of optimisers and layers through a process, so paths may differ next time.
        self.variables = {f"{i:05d} {v.name}": v for i, v in enumerate(variables)}
        self.title, self.batch = title, batch
        self.steps, self.per_epoch, self.seconds = steps, steps_per_epoch, checkpoint_seconds
        self.evaluate = evaluate
        self.writer = tf.summary.create_file_writer(str(folder / "tensorboard"))
        self.step, self.sums, self.memory = 0, {}, {}
        self.saved_at, self.saved_step = time.monotonic(), None
        self.terminated = False
        self.bar = tqdm(disable=True)  # until training begins

    def restore(self) -> int:
        """The step to go on from, with all variables set; 0 for a new run."""
        shapes = {name: tuple(v.shape) for name, v in self.variables.items()}
        found = self.checkpoints.restore(shapes)
        if found:
            self.step, arrays, note = found
            self.saved_step = self.step
            self.sums, self.memory = note["sums"], note["memory"]
            for name, variable in self.variables.items():
                variable.assign(arrays[name])
            if self.step < self.steps:
                tqdm.write(f"{self.title}: going on from step {self.step} of {self.steps}")
        self.journal.rewind(self.step)
        return self.step

    def save(self) -> None:
        arrays = {name: v.numpy() for name, v in self.variables.items()}
        # A finite loss can come with an infinite gradient: such weights must not replace good ones.
        bad = [name for name, array in arrays.items() if not np.isfinite(array).all()]
        if bad:
            raise self.diverged(f"{self.variables[bad[0]].name} is not finite any more")
        self.checkpoints.save(self.step, arrays, {"sums": self.sums, "memory": self.memory})
        self.saved_at, self.saved_step = time.monotonic(), self.step

    def diverged(self, what: str) -> FloatingPointError:
        last = "no checkpoint was written yet"
        if self.saved_step is not None:
            last = f"the last good checkpoint is step {self.saved_step}"
        return FloatingPointError(
            f"{self.title}: {what} at step {self.step} (epoch {(self.step - 1) // self.per_epoch}); {last}. "
            "A lower learning rate or --clip_norm may help."
        )

    def on_train_begin(self, logs=None):
        interactive = tqdm(disable=None, total=0).disable is False
        self.bar = tqdm(
            total=self.steps * self.batch, initial=self.step * self.batch, desc=self.title,
            unit="img", unit_scale=True, mininterval=0.5 if interactive else 30, dynamic_ncols=True,
        )  # fmt: skip

    def on_train_batch_end(self, batch, logs=None):
        parts = {name: float(value) for name, value in logs.items()}
        self.step += 1
        bad = [name for name, value in parts.items() if not math.isfinite(value)]
        if bad:
            raise self.diverged(f"{bad[0]} is {parts[bad[0]]}")
        for name, value in parts.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.bar.update(self.batch)
        shown = {"epoch": (self.step - 1) // self.per_epoch, "loss": f"{parts['loss']:.3f}"}
        self.bar.set_postfix(shown | {name: f"{value:.3f}" for name, value in parts.items()}, refresh=False)
        # At the end of an epoch the journal comes first: see on_epoch_end.
        if self.step % self.per_epoch and (self.terminated or time.monotonic() - self.saved_at >= self.seconds):
            self.save()
        self.model.stop_training = self.terminated

    def on_epoch_end(self, epoch, logs=None):
        if self.step % self.per_epoch:
            return  # stopped on the way
        optimizer = self.model.optimizer
        line = {"step": self.step, "epoch": epoch, "lr": float(optimizer.learning_rate)}
        line |= {name: value / self.per_epoch for name, value in self.sums.items()}
        self.sums = {}
        if self.evaluate is not None:
            line |= self.evaluate(self.step, self.memory)
        self.journal.add(line)
        with self.writer.as_default(step=self.step):
            for name, value in line.items():
                if isinstance(value, float):
                    tf.summary.scalar(name, value)
        if self.terminated or self.step == self.steps or time.monotonic() - self.saved_at >= self.seconds:
            self.save()

    def on_train_end(self, logs=None):
        self.bar.close()  # before another fit opens its own
        self.writer.flush()


def fit(
    model: keras.Model,
    *,
    batches: Callable[[int], tf.data.Dataset],
    variables: list[keras.Variable],
    folder: Path,
    title: str,
    batch: int,
    steps: int,
    steps_per_epoch: int,
    checkpoint_seconds: float = 60,
    evaluate: Callable[[int, dict], dict] | None = None,
) -> dict:
    """Train `model` from its last checkpoint in `folder` to `steps`; returns what `evaluate` remembered.

    batches: first step -> stream of training batches to the end. variables: all that a checkpoint has to hold.
    evaluate: (step, memory) -> numbers for the journal, called after every epoch; may write to memory.
    Raises FloatingPointError at a NaN loss; SystemExit after a SIGTERM, with everything saved.
    """
    keeper = Keeper(
        folder, variables, title=title, batch=batch, steps=steps, steps_per_epoch=steps_per_epoch,
        checkpoint_seconds=checkpoint_seconds, evaluate=evaluate,
    )  # fmt: skip
    step = keeper.restore()

    def terminate(*_):
        keeper.terminated = True

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        # Keras counts whole epochs: an interrupted one is finished first, by itself.
        while step < steps and not keeper.terminated:
            epoch, done = divmod(step, steps_per_epoch)
            until = epoch + 1 if done else steps // steps_per_epoch
            model.fit(
                batches(step), epochs=until, initial_epoch=epoch, steps_per_epoch=steps_per_epoch - done,
                verbose=0, shuffle=False, callbacks=[keeper],
            )  # fmt: skip
            step = keeper.step
    finally:
        signal.signal(signal.SIGTERM, before)
        keeper.bar.close()
    if keeper.terminated:
        raise SystemExit(
            f"{title}: stopped by SIGTERM at step {keeper.step} of {steps}, saved; the same command goes on."
        )
    return keeper.memory


def total_variables(*groups: list[keras.Variable]) -> list[keras.Variable]:
    """All variables of all groups, in order, each once."""
    return list({id(v): v for group in groups for v in group}.values())
