"""Keeps a run while it trains: progress bar, checkpoints, metrics.jsonl, TensorBoard."""

import math
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from deitlt_tf.devices.strategy import from_chief, is_chief
from deitlt_tf.runs.checkpoints import Checkpoints, Journal
from deitlt_tf.training.job import Job


class Keeper:
    """Counts the steps of a job, saves them, logs them, and stops at a NaN loss.

    Every checkpoint holds what the keeper remembers between steps: the sums of the losses since the epoch began, and
    `memory`, e.g. the best validation score. So an interrupted run writes the same numbers as an uninterrupted one.
    The losses of a step are fetched one step later, so the accelerator never waits for the host.
    With several workers only the chief writes; every worker counts, evaluates and stops at the same steps.

    job: what is trained. learning_rate: returns the current learning rate, for the journal.
    """

    def __init__(self, job: Job, *, learning_rate: Callable[[], float]):
        self.job, self.learning_rate = job, learning_rate
        self.writes = is_chief()
        self.checkpoints, self.journal = Checkpoints(job.folder, say=tqdm.write), Journal(job.folder)
        # Named by place, because Keras numbers optimisers and layers through a process: in the next process their paths
        # may differ.
        self.variables = {f"{i:05d} {v.name}": v for i, v in enumerate(job.variables)}
        self.writer = tf.summary.create_file_writer(str(job.folder / "tensorboard")) if self.writes else None
        self.step = 0
        self.sums: dict[str, float] = {}  # of the losses since the epoch began
        self.memory: dict[str, Any] = {}  # what `job.evaluate` remembers
        self.pending: deque[dict[str, tf.Tensor]] = deque()  # losses of the newest steps, not fetched yet
        self.latest: dict[str, float] = {}  # losses of the newest step that was fetched
        self.saved_at = time.monotonic()
        self.saved_step: int | None = None

    def restore(self) -> int:
        """Sets all variables from the newest checkpoint; returns its step, 0 for a new run.

        Raises ValueError where this worker and the chief see different checkpoints.
        """
        shapes = {name: tuple(v.shape) for name, v in self.variables.items()}
        checkpoint = self.checkpoints.restore(shapes)
        if checkpoint:
            self.step, arrays, note = checkpoint
            self.saved_step = self.step
            self.sums, self.memory = note["sums"], note["memory"]
            for name, variable in self.variables.items():
                variable.assign(arrays[name])
        if from_chief(self.step) != self.step:
            raise ValueError(
                f"{self.job.title}: this worker finds step {self.step} in {self.checkpoints.folder}, "
                "and the chief finds another one: all workers have to see the same files."
            )
        if checkpoint and self.step < self.job.steps:
            tqdm.write(f"{self.job.title}: going on from step {self.step} of {self.job.steps}")
        if self.writes:
            self.journal.rewind(self.step)
        return self.step

    def save(self) -> None:
        """Writes a checkpoint. Raises FloatingPointError at a NaN in losses or variables."""
        self.fetch()
        if not self.writes:
            return
        arrays = {name: v.numpy() for name, v in self.variables.items()}
        # A finite loss can have an infinite gradient. Weights that are not finite must not replace good ones.
        bad = [name for name, array in arrays.items() if not np.isfinite(array).all()]
        if bad:
            raise self.diverged(f"{self.variables[bad[0]].name} is not finite any more", step=self.step)
        self.checkpoints.save(self.step, arrays, {"sums": self.sums, "memory": self.memory})
        self.saved_at, self.saved_step = time.monotonic(), self.step

    def diverged(self, what: str, *, step: int) -> FloatingPointError:
        """The error of a training that diverged. what: which number is not finite."""
        last = "no checkpoint was written yet"
        if self.saved_step is not None:
            last = f"the last good checkpoint is step {self.saved_step}"
        epoch = (step - 1) // self.job.steps_per_epoch
        return FloatingPointError(
            f"{self.job.title}: {what} at step {step} (epoch {epoch}); {last}. "
            "A lower learning rate or --clip_norm may help."
        )

    def open_bar(self) -> tqdm:
        job = self.job
        return tqdm(
            total=job.steps * job.batch, initial=self.step * job.batch, desc=job.title, disable=not self.writes,
            unit="img", unit_scale=True, mininterval=0.5 if sys.stderr.isatty() else 30, dynamic_ncols=True,
        )  # fmt: skip

    def after_step(self, losses: dict[str, tf.Tensor], *, last: bool) -> None:
        """Counts a step and its losses; saves if a checkpoint is due.

        last: training ends here, so save now. Raises FloatingPointError as `fetch` and `save` do.
        """
        self.step += 1
        self.pending.append(losses)
        if self.step % self.job.steps_per_epoch == 0:
            self.after_epoch()  # before saving, so that the checkpoint holds what the evaluation remembers
        due = time.monotonic() - self.saved_at >= self.job.checkpoint_seconds
        if last or due or self.step == self.job.steps:
            self.save()
        self.fetch(but=1)

    def fetch(self, *, but: int = 0) -> None:
        """Adds up the losses of all steps except the newest `but`. Raises FloatingPointError at a NaN."""
        while len(self.pending) > but:
            losses = {name: float(value) for name, value in self.pending.popleft().items()}
            if bad := [name for name, value in losses.items() if not math.isfinite(value)]:
                raise self.diverged(f"{bad[0]} is {losses[bad[0]]}", step=self.step - len(self.pending))
            for name, value in losses.items():
                self.sums[name] = self.sums.get(name, 0.0) + value
            self.latest = losses

    def after_epoch(self) -> None:
        """Evaluates, and writes a line of the journal and TensorBoard."""
        self.fetch()
        per_epoch = self.job.steps_per_epoch
        line: dict[str, Any] = {"step": self.step, "epoch": self.step // per_epoch - 1, "lr": self.learning_rate()}
        line |= {name: value / per_epoch for name, value in self.sums.items()}
        self.sums = {}
        if self.job.evaluate is not None:
            line |= self.job.evaluate(self.step, self.memory)
        if self.writer is None:
            return
        self.journal.add(line)
        with self.writer.as_default(step=self.step):
            for name, value in line.items():
                if isinstance(value, float):
                    tf.summary.scalar(name, value)
