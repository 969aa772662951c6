"""A run is a function of its recipe: killed anywhere, in any way, it ends with the same bits as one that was not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from helpers import TESTS
from helpers.student_run import (
    EPOCHS,
    NOTHING_SAVED,
    STEPS,
    Killed,
    Run,
    dying,
    forget,
)

from deitlt_tf.runs.checkpoints import Checkpoints, Journal
from deitlt_tf.training import keeper, loop
from deitlt_tf.training.keeper import Keeper


@pytest.fixture(scope="module")
def shared():
    """One model for all tests: compiling its step takes longer than all of their steps together."""
    return Run()


@pytest.fixture
def run(shared):
    shared.assign(shared.start)
    return shared


@pytest.fixture(scope="module")
def whole(shared, tmp_path_factory):
    """What a run leaves that nothing interrupted: folder, every variable, what `evaluate` remembered."""
    folder = tmp_path_factory.mktemp("whole")
    shared.assign(shared.start)
    memory = shared.fit(folder, seconds=NOTHING_SAVED)
    return folder, shared.values(), memory


def names(folder: Path) -> list[str]:
    """Of the arrays in the newest checkpoint."""
    with np.load(Checkpoints(folder).files()[-1], allow_pickle=False) as archive:
        return [name for name in archive.files if name != "note"]


def assert_same_run(run: Run, folder: Path, whole) -> None:
    expected_folder, expected, _ = whole
    for variable, ours, theirs in zip(run.variables, run.values(), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=variable.path)
    assert (folder / "metrics.jsonl").read_bytes() == (expected_folder / "metrics.jsonl").read_bytes()


def test_an_uninterrupted_run_leaves_its_numbers(run, whole):
    folder, values, memory = whole
    lines = Journal(folder).lines()
    assert [(line["step"], line["epoch"]) for line in lines] == [(5, 0), (10, 1), (15, 2)]
    assert set(lines[0]) == {
        "step", "epoch", "lr", "loss", "cls_loss", "dist_loss", "agreement", "cosine", "score",
    }  # fmt: skip
    assert memory == {"epochs": [5, 10, 15]}
    assert [path.stem for path in Checkpoints(folder).files()] == ["000000015"]
    assert all((a != b).any() for a, b in zip(values, run.start, strict=True) if a.ndim > 1)


@pytest.mark.parametrize(
    "deaths",
    [
        [(0, 1)],  # before anything was saved
        [(4, 5)],  # at the end of an epoch: in the journal, in no checkpoint
        [(5, 6)],  # the checkpoint is the end of an epoch
        [(2, 4), (6, 9), (14, 15)],  # again and again, steps after the last checkpoint, and before the very last
    ],
    ids=str,
)
def test_interrupted_equals_uninterrupted(run, whole, tmp_path, deaths):
    for saved, killed in deaths:
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            dying(patch, saved=saved, killed=killed)
            run.fit(tmp_path)
        forget(run)
        if not saved:
            run.assign(run.start)
    assert run.fit(tmp_path, seconds=NOTHING_SAVED) == whole[2]
    assert_same_run(run, tmp_path, whole)


def test_a_damaged_checkpoint_costs_some_steps_and_nothing_else(run, whole, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        dying(patch, saved=7, killed=8)
        run.fit(tmp_path)
    forget(run)
    newest = Checkpoints(tmp_path).files()[-1]
    newest.write_bytes(newest.read_bytes()[:-100])
    run.fit(tmp_path, seconds=NOTHING_SAVED)
    said = capsys.readouterr().out
    assert "000000007.npz is damaged" in said and "going on from step 6 of 15" in said
    assert_same_run(run, tmp_path, whole)


def test_a_finished_run_is_not_trained_again(whole):
    """Another object of the same recipe, in the same process, gets the weights and what was remembered."""
    folder, _, memory = whole
    another = Run()
    before = {path: path.stat().st_mtime_ns for path in (folder / "checkpoints").iterdir()}

    def no_batches(step, **share):
        raise AssertionError("nothing is left to train")

    assert another.fit(folder, batches=no_batches) == memory
    assert_same_run(another, folder, whole)
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "checkpoints").iterdir()}


@pytest.mark.parametrize("at", [7, 10])
def test_sigterm_saves_and_stops(run, whole, tmp_path, monkeypatch, at):
    """A real signal, in the middle and at the end of an epoch."""

    class Signalled(Keeper):
        def after_step(self, parts, *, last):
            if self.step + 2 == at:  # seen when the next step begins
                os.kill(os.getpid(), signal.SIGTERM)
            super().after_step(parts, last=last)

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch, pytest.raises(SystemExit, match=f"SIGTERM at step {at} of 15, saved") as stop:
        patch.setattr(loop, "Keeper", Signalled)
        run.fit(tmp_path, seconds=NOTHING_SAVED)
    assert stop.value.code != 0 and signal.getsignal(signal.SIGTERM) is before
    assert [path.stem for path in Checkpoints(tmp_path).files()] == [f"{at:09d}"]
    forget(run)
    run.fit(tmp_path, seconds=NOTHING_SAVED)
    assert_same_run(run, tmp_path, whole)


@pytest.mark.parametrize(("requested", "stops"), [(6, 7), (15, 15)])
def test_a_stop_request_of_another_worker_stops_this_one(run, tmp_path, monkeypatch, requested, stops):
    """In the middle, one step after the request has arrived; in the very last step, at once."""
    steps = iter(range(1, STEPS + 1))
    real = loop.make_step

    def requesting(*arguments, **options):
        step = real(*arguments, **options)
        return lambda *batch: (*step(*batch)[:2], tf.constant(float(next(steps) == requested)))

    monkeypatch.setattr(loop, "make_step", requesting)
    monkeypatch.setattr(loop, "workers", lambda: 2)
    monkeypatch.setattr(loop, "from_chief", lambda number: number)
    monkeypatch.setattr(keeper, "from_chief", lambda number: number)
    with pytest.raises(SystemExit, match=f"SIGTERM at step {stops} of 15, saved"):
        run.fit(tmp_path, seconds=NOTHING_SAVED)
    assert [path.stem for path in Checkpoints(tmp_path).files()] == [f"{stops:09d}"]


@pytest.mark.parametrize(
    ("poisoned", "message", "last"),
    [
        ("after", r"student: .*loss is nan at step 7 \(epoch 1\); the last good checkpoint is step 6", 6),
        # The loss was still finite, the weights after its step are not.
        ("before", r"student: .* is not finite any more at step 6 \(epoch 1\); the last good checkpoint is step 5", 5),
    ],
)
def test_nan_stops_the_run_and_keeps_the_last_good_checkpoint(run, tmp_path, monkeypatch, poisoned, message, last):
    """Step 6 leaves NaN in the weights: just before or just after its checkpoint."""

    class Poisoned(Keeper):
        def after_step(self, parts, *, last):
            if poisoned == "before" and self.step + 1 == 6:
                self.poison()
            super().after_step(parts, last=last)
            if poisoned == "after" and self.step == 6:
                self.poison()

        def poison(self):
            for variable in run.model.student.trainable_variables:
                variable.assign(np.full(variable.shape, np.nan))

    with monkeypatch.context() as patch, pytest.raises(FloatingPointError, match=message):
        patch.setattr(loop, "Keeper", Poisoned)
        run.fit(tmp_path)
    step, arrays, _ = Checkpoints(tmp_path).restore(dict(zip(names(tmp_path), map(np.shape, run.start), strict=True)))
    assert step == last and all(np.isfinite(array).all() for array in arrays.values())


def test_nan_before_any_checkpoint(run, tmp_path):
    run.assign([np.full_like(value, np.nan) if value.dtype.kind == "f" else value for value in run.start])
    with pytest.raises(FloatingPointError, match=r"at step 1 \(epoch 0\); no checkpoint was written yet"):
        run.fit(tmp_path, seconds=NOTHING_SAVED)
    assert Checkpoints(tmp_path).files() == []


def test_tensorboard_shows_what_the_journal_says(whole):
    folder, _, _ = whole
    found = {}
    for file in (folder / "tensorboard").glob("events*"):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                found[event.step, value.tag] = float(tf.make_ndarray(value.tensor))
    for line in Journal(folder).lines():
        for name in ("lr", "loss", "cls_loss", "score"):
            assert found[line["step"], name] == pytest.approx(line[name], rel=1e-6)


# ---- the same with processes -----------------------------------------------------------------------------------------


def process(folder: Path) -> subprocess.Popen:
    """This file's run in a process of its own, saving after every step."""
    code = "import sys, pathlib, conftest, helpers.student_run as s; s.Run().fit(pathlib.Path(sys.argv[1]))"
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        cwd=TESTS, env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (TESTS, TESTS.parent)))},
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip


def finish(folder: Path) -> None:
    with process(folder) as child:
        _, said = child.communicate(timeout=120)
    assert child.returncode == 0, said


def stop(folder: Path, *, after_step: int, wait: float, how: signal.Signals) -> tuple[int, str]:
    """Start, wait for a checkpoint beyond `after_step` and a little longer, send the signal: exit code and stderr."""
    with process(folder) as child:
        try:
            deadline = time.monotonic() + 120
            while not any(int(path.stem) > after_step for path in Checkpoints(folder).files()):
                assert child.poll() is None and time.monotonic() < deadline
                time.sleep(0.001)
            time.sleep(wait)
            child.send_signal(how)
            _, said = child.communicate(timeout=60)
        finally:
            child.kill()
    return child.returncode, said


@pytest.mark.slow
def test_killed_processes_end_as_one_that_was_not(tmp_path):
    generator = np.random.default_rng()  # another moment every time
    finish(tmp_path / "whole")

    folder = tmp_path / "killed"
    code, _ = stop(folder, after_step=0, wait=generator.uniform(0, 0.05), how=signal.SIGKILL)
    assert code == -signal.SIGKILL
    reached = int(Checkpoints(folder).files()[-1].stem)
    code, said = stop(folder, after_step=reached, wait=0, how=signal.SIGTERM)
    assert code == 1 and "stopped by SIGTERM at step" in said
    finish(folder)

    files = [tmp_path / name / "checkpoints" / "000000015.npz" for name in ("whole", "killed")]
    with np.load(files[0], allow_pickle=False) as expected, np.load(files[1], allow_pickle=False) as found:
        assert expected.files == found.files
        for name in expected.files:
            np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    journals = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "killed")]
    assert journals[0] == journals[1] and len(journals[0].splitlines()) == EPOCHS
