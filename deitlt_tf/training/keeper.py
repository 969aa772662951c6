"""Keeps a run while it trains: progress bar, checkpoints, metrics.jsonl, TensorBoard."""

import math
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from deitlt_tf.devices.strategy import from_chief, is_chief
from deitlt_tf.runs.checkpoints import Checkpoints, Journal


class Keeper:
    """Keeps a run: progress bar, checkpoints, metrics.jsonl, TensorBoard; stops on a NaN loss.

    What it remembers between steps (sums of the loss parts since the epoch began, the best validation score)
    goes into every checkpoint, so that an interrupted run writes the same numbers as one that was not.
    What a step lost is read when the next one is under way, so that an accelerator does not wait for its host.
    Of several workers the chief alone writes; all of them count, evaluate and stop alike.
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
        learning_rate: Callable[[], float],
        evaluate: Callable[[int, dict], dict] | None,
    ):
        self.writes = is_chief()
        self.checkpoints, self.journal = Checkpoints(folder, say=tqdm.write), Journal(folder)
        # By place: Keras numbers the names of optimisers and layers through a process, so paths may differ next time.
        self.variables = {f"{i:05d} {v.name}": v for i, v in enumerate(variables)}
        self.title, self.batch = title, batch
        self.steps, self.per_epoch, self.seconds = steps, steps_per_epoch, checkpoint_seconds
        self.learning_rate, self.evaluate = learning_rate, evaluate
        self.writer = tf.summary.create_file_writer(str(folder / "tensorboard")) if self.writes else None
        self.step, self.sums, self.memory = 0, {}, {}
        self.unread: deque[dict[str, tf.Tensor]] = deque()  # what the newest steps lost
        self.shown: dict[str, float] = {}  # what the newest step lost that was read
        self.saved_at, self.saved_step = time.monotonic(), None

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
        if from_chief(self.step) != self.step:
            raise ValueError(
                f"{self.title}: this worker finds step {self.step} in {self.checkpoints.folder} and the chief another "
                "one: all workers have to see the same files."
            )
        if found and self.step < self.steps:
            tqdm.write(f"{self.title}: going on from step {self.step} of {self.steps}")
        if self.writes:
            self.journal.rewind(self.step)
        return self.step

    def save(self) -> None:
        self.read()
        if not self.writes:
            return
        arrays = {name: v.numpy() for name, v in self.variables.items()}
        # A finite loss can come with an infinite gradient: such weights must not replace good ones.
        bad = [name for name, array in arrays.items() if not np.isfinite(array).all()]
        if bad:
            raise self.diverged(f"{self.variables[bad[0]].name} is not finite any more", step=self.step)
        self.checkpoints.save(self.step, arrays, {"sums": self.sums, "memory": self.memory})
        self.saved_at, self.saved_step = time.monotonic(), self.step

    def diverged(self, what: str, *, step: int) -> FloatingPointError:
        last = "no checkpoint was written yet"
        if self.saved_step is not None:
            last = f"the last good checkpoint is step {self.saved_step}"
        return FloatingPointError(
            f"{self.title}: {what} at step {step} (epoch {(step - 1) // self.per_epoch}); {last}. "
            "A lower learning rate or --clip_norm may help."
        )

    def open_bar(self) -> tqdm:
        return tqdm(
            total=self.steps * self.batch, initial=self.step * self.batch, desc=self.title, disable=not self.writes,
            unit="img", unit_scale=True, mininterval=0.5 if sys.stderr.isatty() else 30, dynamic_ncols=True,
        )  # fmt: skip

    def after_step(self, parts: dict[str, tf.Tensor], *, last: bool) -> None:
        """Count a step and what it loses. last: training ends here, so save now. Raises what `read` raises."""
        self.step += 1
        self.unread.append(parts)
        if self.step % self.per_epoch == 0:
            self.after_epoch()  # before saving: a checkpoint of an epoch's end holds what its evaluation remembers
        if last or self.step == self.steps or time.monotonic() - self.saved_at >= self.seconds:
            self.save()
        self.read(but=1)

    def read(self, *, but: int = 0) -> None:
        """Add up what all steps but the newest `but` lost. Raises FloatingPointError at a NaN."""
        while len(self.unread) > but:
            parts = {name: float(value) for name, value in self.unread.popleft().items()}
            if bad := [name for name, value in parts.items() if not math.isfinite(value)]:
                raise self.diverged(f"{bad[0]} is {parts[bad[0]]}", step=self.step - len(self.unread))
            for name, value in parts.items():
                self.sums[name] = self.sums.get(name, 0.0) + value
            self.shown = parts

    def after_epoch(self) -> None:
        self.read()
        line = {"step": self.step, "epoch": self.step // self.per_epoch - 1, "lr": self.learning_rate()}
        line |= {name: value / self.per_epoch for name, value in self.sums.items()}
        self.sums = {}
        if self.evaluate is not None:
            line |= self.evaluate(self.step, self.memory)
        if not self.writes:
            return
        self.journal.add(line)
        with self.writer.as_default(step=self.step):
            for name, value in line.items():
                if isinstance(value, float):
                    tf.summary.scalar(name, value)
