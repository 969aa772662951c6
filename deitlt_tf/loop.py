"""From the last checkpoint to the last step: a keeper saves, logs, evaluates and stops."""

import contextlib
import functools
import math
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from deitlt_tf import devices
from deitlt_tf.teacher_labels import TeacherLabels
from deitlt_tf.workdir import Checkpoints, Journal


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
        self.writes = devices.is_chief()
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
        if devices.from_chief(self.step) != self.step:
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


@contextlib.contextmanager
def sigterm() -> Iterator[Callable[[], bool]]:
    """A function that says whether SIGTERM has come since; it ends nothing meanwhile."""
    seen = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append(True))
    try:
        yield lambda: bool(seen)
    finally:
        signal.signal(signal.SIGTERM, before)


@functools.lru_cache(maxsize=2)  # a run that goes on in the same process does not trace its step again
def make_step(
    model: keras.Model, optimizer: keras.optimizers.Optimizer, strategy: tf.distribute.Strategy, *, recording: bool
) -> Callable:
    """(batch, classes, wish) -> one step of all replicas: named parts of the global loss, classes, workers' wishes.

    classes: what the teacher chooses for the global batch, [replicas * B], or None: then it is asked; recording: and
    its classes are returned. wish: one worker's, summed over all.
    Not `model.fit`: of several workers it averages scalars over an axis that they have not.
    """
    wishes_of_all = devices.all_sum if devices.workers() > 1 else tf.identity

    @tf.function(autograph=False)  # no Python control flow of tensors: half the time until the first step
    def step(batch, classes, wish):
        def one_replica(batch, classes, wish):
            if classes is not None:
                return model.train_step((*batch, devices.own_part(classes))), (), wishes_of_all(wish)
            if not recording:
                return model.train_step(batch), (), wishes_of_all(wish)
            parts, chosen = model.step(batch)
            return parts, devices.gathered(chosen), wishes_of_all(wish)

        found = strategy.run(one_replica, args=(batch, classes, wish))
        return tf.nest.map_structure(lambda x: strategy.experimental_local_results(x)[0], found)

    return step


def fit(
    model: keras.Model,
    *,
    batches: Callable[..., tf.data.Dataset],
    variables: list[keras.Variable],
    folder: Path,
    title: str,
    batch: int,
    steps: int,
    steps_per_epoch: int,
    checkpoint_seconds: float = 60,
    evaluate: Callable[[int, dict], dict] | None = None,
    teacher_labels: TeacherLabels | None = None,
) -> dict:
    """Train `model` from its last checkpoint in `folder` to `steps`; returns what `evaluate` remembered.

    batches: (first step, worker=, workers=, replicas=) -> a worker's stream of training batches to the end; see
    `pipeline.train`. variables: all that a checkpoint has to hold.
    evaluate: (step, memory) -> numbers for the journal, called after every epoch; may write to memory.
    teacher_labels: of a Distiller: read as far as they are known, written from there on.
    Raises FloatingPointError at a NaN loss; SystemExit after a SIGTERM to any worker, with everything saved.
    """
    keeper = Keeper(
        folder, variables, title=title, batch=batch, steps=steps, steps_per_epoch=steps_per_epoch,
        checkpoint_seconds=checkpoint_seconds, learning_rate=lambda: float(model.optimizer.learning_rate),
        evaluate=evaluate,
    )  # fmt: skip
    first = keeper.restore()
    if first == steps:
        return keeper.memory
    # Said to be endless, because workers would ask each other before every step whether there is a next batch.
    endless = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
    stream = iter(devices.distributed(lambda **share: batches(first, **share).apply(endless)))
    recording, several = teacher_labels is not None, devices.workers() > 1
    take_step = make_step(model, model.optimizer, tf.distribute.get_strategy(), recording=recording)
    known = devices.from_chief(teacher_labels.known(first=first, end=steps)) if recording else first
    stopped, before = False, tf.constant(0.0)  # several workers stop at one step, the one after a wish was told
    with sigterm() as asked, keeper.open_bar() as bar:
        while keeper.step < steps and not stopped:
            classes = tf.constant(teacher_labels.read(keeper.step)) if keeper.step < known else None
            parts, chosen, wishes = take_step(next(stream), classes, tf.constant(asked(), tf.float32))
            stopped, before = bool(before) if several else asked(), wishes
            if recording and classes is None and keeper.writes:
                teacher_labels.write(keeper.step, chosen.numpy())
            lost = {name: f"{value:.3f}" for name, value in keeper.shown.items()}
            bar.set_postfix({"epoch": keeper.step // steps_per_epoch} | lost, refresh=False)
            bar.update(batch)
            keeper.after_step(parts, last=stopped)
    if keeper.writer:
        keeper.writer.flush()
    if stopped or bool(before) or asked():  # of several workers all leave, or the others wait for the one that does
        raise SystemExit(
            f"{title}: stopped by SIGTERM at step {keeper.step} of {steps}, saved; the same command goes on."
        )
    return keeper.memory


def total_variables(*groups: list[keras.Variable]) -> list[keras.Variable]:
    """All variables of all groups, in order, each once."""
    return list({id(v): v for group in groups for v in group}.values())
