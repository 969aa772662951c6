"""From the last checkpoint to the last step: a keeper saves, logs, evaluates and stops."""

import contextlib
import functools
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import tensorflow as tf

from deitlt_tf.devices import replicas
from deitlt_tf.devices.strategy import distributed, from_chief, workers
from deitlt_tf.training.keeper import Keeper
from deitlt_tf.training.teacher_labels import TeacherLabels


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
    wishes_of_all = replicas.all_sum if workers() > 1 else tf.identity

    @tf.function(autograph=False)  # no Python control flow of tensors: half the time until the first step
    def step(batch, classes, wish):
        def one_replica(batch, classes, wish):
            if classes is not None:
                return model.train_step((*batch, replicas.own_part(classes))), (), wishes_of_all(wish)
            if not recording:
                return model.train_step(batch), (), wishes_of_all(wish)
            parts, chosen = model.step(batch)
            return parts, replicas.gathered(chosen), wishes_of_all(wish)

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
    stream = iter(distributed(lambda **share: batches(first, **share).apply(endless)))
    recording, several = teacher_labels is not None, workers() > 1
    take_step = make_step(model, model.optimizer, tf.distribute.get_strategy(), recording=recording)
    known = from_chief(teacher_labels.known(first=first, end=steps)) if recording else first
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
