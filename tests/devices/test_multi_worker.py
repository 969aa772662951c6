"""Replicas and workers change no result: 1 device, 2 mirrored ones, 2 processes; and one that dies ends the others."""

import json
import shlex
import signal
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import workers
from helpers.strategies import strategy_of

from deitlt_tf.data import pipeline
from deitlt_tf.data.dataset import Source
from deitlt_tf.runs.checkpoints import Checkpoints

# ---- who reads what --------------------------------------------------------------------------------------------------


def numbered(count: int) -> Source:
    images = np.zeros((count, 2, 2, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(count)
    return Source(images, (np.arange(count) % 3).astype(np.int32), tuple("abc"))


@pytest.mark.parametrize(("count", "replicas"), [(1, 1), (2, 2), (2, 4)])
def test_workers_share_every_batch(count, replicas):
    """In order, replica after replica, they read what one device reads."""
    options = {"view": lambda image, seed: image, "batch": 8, "steps": 5, "steps_per_epoch": 3, "first_step": 2}
    whole = [images for images, _ in pipeline.train(numbered(20), **options).as_numpy_iterator()]
    shares = []
    for worker in range(count):
        share = pipeline.train(numbered(20), **options, worker=worker, workers=count, replicas=replicas)
        images = [images for images, _ in share.as_numpy_iterator()]
        assert {len(x) for x in images} == {8 // replicas}
        shares.append(np.reshape(images, (3, 8 // count, 2, 2, 3)))
    np.testing.assert_array_equal(np.concatenate(shares, axis=1), whole)


@pytest.mark.parametrize("size", [1, 8, 13, 16])
def test_every_test_image_is_counted_once(size):
    """By 2 workers of 2 replicas each, however many images there are."""
    numbers, batches = [], set()
    for worker in range(2):
        share = pipeline.evaluation(
            numbered(size), view=lambda image: image, batch=8, worker=worker, workers=2, replicas=4
        )
        parts = list(share.as_numpy_iterator())
        batches.add(len(parts))
        numbers += [int(image[0, 0, 0]) for images, _, mask in parts for image in images[mask == 1]]
    assert sorted(numbers) == list(range(size)) and len(batches) == 1


# ---- one result ------------------------------------------------------------------------------------------------------


def on(replicas: int) -> dict[str, np.ndarray]:
    """After the steps of every model, and after Keras' own fit."""
    with strategy_of(replicas).scope():
        steps = {name: array for kind in workers.MODELS for name, array in workers.after_steps(kind).items()}
        return steps | workers.after_fit()


def assert_same(arrays: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """To float32's rounding: sums over replicas are added up in another order."""
    assert arrays.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(arrays[name], array, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.slow
def test_one_device_two_mirrored_and_two_workers_end_the_same(tmp_path):
    """Student (four parts, mixing, drop path, clipping), adapted network, SAM teacher with batch statistics, PaCo."""
    files = [tmp_path / f"{i}.npz" for i in range(2)]
    with workers.started([[str(workers.HERE / "workers.py"), str(file)] for file in files]) as processes:
        one, two = on(1), on(2)
        for code, printed in workers.finish(processes, timeout=900):
            assert code == 0, printed
    of_workers = []
    for file in files:
        with np.load(file, allow_pickle=False) as archive:
            of_workers.append({name: archive[name] for name in archive.files})
    assert_same(two, one)
    assert_same(of_workers[0], one)
    for name, array in of_workers[0].items():  # both workers have the same bits
        np.testing.assert_array_equal(of_workers[1][name], array, err_msg=name)
    assert any((two[name] != array).any() for name, array in one.items())  # it was added up in another way


# ---- whole runs ------------------------------------------------------------------------------------------------------

DIGITS = shlex.split("""
    --data=digits_lt --imbalance=20 --image_size=16 --crop=padded --padding=1 --flip=false --randaugment= --erasing=0
    --eval_resize=0 --repeats=1 --model=deit_nano --patch_size=4 --embed_dim=16 --depth=1 --num_heads=2
    --epochs=4 --reweight_epoch=3 --batch_size=64 --accumulation=1 --lr=1e-3 --lr_rule=constant --ema_decay=.9
    --eval_every=2 --clip_norm=1 --teacher_model=resnet8 --teacher_image_size=16 --teacher_flip=false --teacher_epochs=2
    --teacher_batch_size=64 --teacher_lr=.05 --teacher_rho=.1 --teacher_reweight_epoch=-1 --teacher_drops=
    --val_fraction=.1
""")


def training(folder: Path, *arguments: str):
    command = ["-m", "deitlt_tf.train", "--strategy=multi_worker", *DIGITS, f"--workdir={folder}", *arguments]
    return workers.started([command, command])


def whole(folder: Path) -> list[str]:
    """A run that nobody disturbs: what each worker printed."""
    with training(folder) as processes:
        results = workers.finish(processes, timeout=900)
    for code, printed in results:
        assert code == 0, printed
    return [printed for _, printed in results]


def wait_for_checkpoint(folder: Path, processes: list) -> None:
    deadline = time.monotonic() + 600
    while not Checkpoints(folder).files():
        assert time.monotonic() < deadline and all(process.poll() is None for process in processes)
        time.sleep(0.01)


def weights(folder: Path) -> dict[str, list[np.ndarray]]:
    return {
        name: keras.models.load_model(folder / f"{name}.keras", compile=False).get_weights()
        for name in ("teacher", "student", "student_ema")
    }


@pytest.mark.slow
def test_a_killed_worker_ends_all_and_all_go_on(tmp_path):
    """kill -9 of either worker in mid-training; both are started again; the end is that of a run nobody killed."""
    whole(tmp_path / "whole")
    folder = tmp_path / "killed"
    for victim, part in ((1, "teacher"), (0, "")):
        with training(folder, "--checkpoint_seconds=0") as processes:
            wait_for_checkpoint(folder / part, processes)
            processes[victim].send_signal(signal.SIGKILL)
            results = workers.finish(processes, timeout=120)
        assert results[victim][0] == -signal.SIGKILL
        code, printed = results[1 - victim]
        assert code == 1 and f"error: worker {1 - victim} has lost another worker" in printed, printed
        assert not (folder / "student.keras").exists()
    chief, other = whole(folder)
    assert "student: going on from step" in chief and "student" not in other and "top-1" not in other

    expected, after = weights(tmp_path / "whole"), weights(folder)
    for name, arrays in expected.items():
        for ours, theirs in zip(after[name], arrays, strict=True):
            np.testing.assert_array_equal(ours, theirs, err_msg=name)
    for name in ("metrics.jsonl", "teacher/metrics.jsonl", "results.json", "class_names.txt"):
        assert (folder / name).read_text() == (tmp_path / "whole" / name).read_text(), name
    results = json.loads((folder / "results.json").read_text())
    assert "best" in results and not list(folder.rglob(".unfinished-*"))


@pytest.mark.slow
def test_sigterm_to_one_worker_saves_and_stops_all(tmp_path):
    with training(tmp_path, "--checkpoint_seconds=0", "--method=vit", "--epochs=200") as processes:
        wait_for_checkpoint(tmp_path, processes)
        processes[1].send_signal(signal.SIGTERM)
        for code, printed in workers.finish(processes, timeout=120):
            assert code == 1 and "ViT: stopped by SIGTERM at step" in printed, printed
