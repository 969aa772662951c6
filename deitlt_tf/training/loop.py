"""Trains from the last checkpoint to the last step; a keeper saves, logs, evaluates and stops."""

import contextlib
import functools
import signal
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from deitlt_tf.devices import replicas
from deitlt_tf.devices.strategy import distributed, from_chief, workers
from deitlt_tf.training.job import Job
from deitlt_tf.training.keeper import Keeper


@contextlib.contextmanager
def sigterm() -> Iterator[Callable[[], bool]]:
    """A function that tells whether SIGTERM has arrived inside this block. Inside it the signal has no other effect."""
    signals: list[bool] = []
    before = signal.signal(signal.SIGTERM, lambda *_: signals.append(True))
    try:
        yield lambda: bool(signals)
    finally:
        signal.signal(signal.SIGTERM, before)


@functools.lru_cache(maxsize=2)  # a run that goes on in the same process reuses its traced step
def make_step(
    model: keras.Model, optimizer: keras.optimizers.Optimizer, strategy: tf.distribute.Strategy, *, recording: bool
) -> Callable:
    """A function (batch, classes, request) -> (losses, classes, requests) that takes one step on all replicas.

    classes: the teacher's classes for the global batch, [replicas * B]. None: the step asks the teacher, and with
      `recording` it returns the teacher's classes.
    request: 1.0 if this worker requests a stop, else 0.0. requests: the sum of `request` over all workers.
    losses: named losses of the global batch.
    Keras' `fit` cannot take this place: it averages the scalars of several workers over an axis that they do not have.
    """
    sum_of_workers = replicas.all_sum if workers() > 1 else tf.identity

    @tf.function(autograph=False)  # no Python control flow of tensors is inside; without AutoGraph tracing is faster
    def step(batch: tuple, classes: tf.Tensor | None, request: tf.Tensor) -> tuple:
        def one_replica(batch: tuple, classes: tf.Tensor | None, request: tf.Tensor) -> tuple:
            known = None if classes is None else replicas.own_part(classes)
            losses, teacher_classes = model.step(batch, teacher_classes=known)
            new = replicas.gathered(teacher_classes) if recording and classes is None else ()
            return losses, new, sum_of_workers(request)

        results = strategy.run(one_replica, args=(batch, classes, request))
        return tf.nest.map_structure(lambda x: strategy.experimental_local_results(x)[0], results)

    return step


def fit(job: Job) -> dict[str, Any]:
    """Trains a job's model from its last checkpoint to its last step; returns the memory of `job.evaluate`.

    Raises FloatingPointError at a NaN loss, and SystemExit after a SIGTERM to any worker, when everything is saved.
    """
    model, labels = job.model, job.teacher_labels
    keeper = Keeper(job, learning_rate=lambda: float(model.optimizer.learning_rate))
    first = keeper.restore()
    if first == job.steps:
        return keeper.memory
    # Declared infinite, because otherwise the workers communicate before every step, to agree that a batch is left.
    endless = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
    stream = iter(distributed(lambda **share: job.batches(first, **share).apply(endless)))
    recording, several = labels is not None, workers() > 1
    take_step = make_step(model, model.optimizer, tf.distribute.get_strategy(), recording=recording)
    known = from_chief(labels.known(first=first, end=job.steps)) if labels else first
    # Several workers stop at the same step: the first one after a stop request has reached every worker.
    stopped, requests = False, tf.constant(0.0)
    with sigterm() as requested, keeper.open_bar() as bar:
        while keeper.step < job.steps and not stopped:
            classes = tf.constant(labels.read(keeper.step)) if labels and keeper.step < known else None
            batch = next(stream)
            request = tf.constant(requested(), tf.float32)
            losses, teacher_classes, new_requests = take_step(batch, classes, request)
            stopped, requests = bool(requests) if several else requested(), new_requests
            if labels and classes is None and keeper.writes:
                labels.write(keeper.step, teacher_classes.numpy())
            latest = {name: f"{value:.3f}" for name, value in keeper.latest.items()}
            bar.set_postfix({"epoch": keeper.step // job.steps_per_epoch} | latest, refresh=False)
            bar.update(job.batch)
            keeper.after_step(losses, last=stopped)
    if keeper.writer:
        keeper.writer.flush()
    # All workers exit if one of them does, because the others would wait for it.
    if stopped or bool(requests) or requested():
        raise SystemExit(
            f"{job.title}: stopped by SIGTERM at step {keeper.step} of {job.steps}, saved; the same command goes on."
        )
    return keeper.memory
