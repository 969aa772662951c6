"""What is kept of a run while it trains: losses are fetched late, counted once, and never saved when they are NaN."""

import math
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers.student_run import NOTHING_SAVED

from deitlt_tf.runs.checkpoints import Checkpoints, Journal
from deitlt_tf.training import keeper
from deitlt_tf.training.job import Job
from deitlt_tf.training.keeper import Keeper


def job(folder: Path, *variables: keras.Variable, **changes) -> Job:
    """Nine steps in epochs of three; nothing is saved between."""
    settings = {"batch": 1, "steps": 9, "steps_per_epoch": 3, "checkpoint_seconds": NOTHING_SAVED}
    return Job(None, batches=None, variables=[*variables], folder=folder, title="student", **settings | changes)


def keep(one: Job) -> Keeper:
    return Keeper(one, learning_rate=lambda: 0.5)


def test_losses_are_fetched_one_step_later(tmp_path):
    """Otherwise an accelerator would stand still from each step's end until the host has begun the next one."""
    fetched = []

    class Loss:
        def __init__(self, step: int):
            self.step = step

        def __float__(self):
            fetched.append(self.step)
            return math.nan if self.step == 7 else 1.0

    one = keep(job(tmp_path))
    for step, known in enumerate([0, 1, 3, 3, 4, 6, 6], start=1):  # all of them at an epoch's end
        one.after_step({"loss": Loss(step)}, last=False)
        assert fetched == list(range(1, known + 1))
    assert [line["loss"] for line in Journal(tmp_path).lines()] == [1.0, 1.0]
    with pytest.raises(FloatingPointError, match=r"loss is nan at step 7 \(epoch 2\)"):
        one.after_step({"loss": Loss(8)}, last=True)
    assert Checkpoints(tmp_path).files() == []


def test_the_journal_has_the_means_of_an_epoch_over_an_interruption(tmp_path):
    weight = keras.Variable(np.float32([1, 2]))

    def steps(one: Keeper, losses: list[float], **options) -> None:
        for loss in losses:
            one.after_step({"loss": loss}, **{"last": False} | options)

    one = keep(job(tmp_path, weight))
    assert one.restore() == 0
    steps(one, [1, 2, 3, 4])
    weight.assign([5, 6])
    steps(one, [6], last=True)  # as at a SIGTERM: saved in the middle of an epoch
    steps(one, [100])  # lost: nothing is saved after it
    assert [line["loss"] for line in Journal(tmp_path).lines()] == [2, 110 / 3]

    weight.assign([0, 0])
    again = keep(job(tmp_path, weight))
    assert again.restore() == 5 and weight.numpy().tolist() == [5, 6]
    steps(again, [8])
    lines = Journal(tmp_path).lines()
    assert [(line["step"], line["epoch"], line["lr"], line["loss"]) for line in lines] == [
        (3, 0, 0.5, 2),
        (6, 1, 0.5, 6),
    ]


def test_what_an_evaluation_says_is_in_the_journal_and_what_it_remembers_in_the_checkpoint(tmp_path):
    def evaluate(step, memory):
        memory["steps"] = [*memory.get("steps", []), step]
        return {"val": step / 2}

    one = keep(job(tmp_path, evaluate=evaluate))
    for step in range(1, 7):
        one.after_step({"loss": 0.0}, last=step == 6)
    assert [line["val"] for line in Journal(tmp_path).lines()] == [1.5, 3.0]
    again = keep(job(tmp_path, evaluate=evaluate))
    again.restore()
    assert again.memory == {"steps": [3, 6]}


def test_a_checkpoint_is_written_when_it_is_due_and_at_the_last_step(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(keeper.time, "monotonic", lambda: now[0])
    one = keep(job(tmp_path, checkpoint_seconds=10))
    saved = []
    for step in range(1, 10):
        now[0] += 4
        one.after_step({"loss": 0.0}, last=False)
        saved += [step] if one.saved_step == step else []
    assert saved == [3, 6, 9]


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    weight = keras.Variable(np.float32([1, np.inf]), name="weight")
    one = keep(job(tmp_path, weight))
    with pytest.raises(FloatingPointError, match=r"student: weight is not finite any more at step 1 .*; no checkpoint"):
        one.after_step({"loss": 1.0}, last=True)
    assert Checkpoints(tmp_path).files() == []


def test_another_worker_than_the_chief_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(keeper, "is_chief", lambda: False)
    evaluated = []
    one = keep(job(tmp_path, evaluate=lambda step, memory: evaluated.append(step) or {}))
    for _ in range(9):
        one.after_step({"loss": 1.0}, last=True)
    assert evaluated == [3, 6, 9] and not list(tmp_path.iterdir())


def test_workers_that_see_other_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(keeper, "from_chief", lambda number: 7)
    with pytest.raises(ValueError, match="student: this worker finds step 0 "):
        keep(job(tmp_path)).restore()
