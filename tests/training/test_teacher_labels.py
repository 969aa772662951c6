"""A teacher's classes from a file: the same training bit by bit, for the same views only, whatever was cut off."""

import numpy as np
import pytest
import tensorflow as tf
from helpers.programs import SMALL, snapshot
from helpers.student_run import BATCH, STEPS, Killed, Run, dying, forget

from deitlt_tf import train
from deitlt_tf.data import augment
from deitlt_tf.data.dataset import Source
from deitlt_tf.training.teacher_labels import TeacherLabels, fingerprint

CLEAN = ("--teacher_sees=clean", "--teacher_sees is 'mixed' there and 'clean' here")
KEY = {"--seed": "0", "teacher's file, SHA-256": "ab"}


def opened(path, key=KEY, **options) -> TeacherLabels:
    return TeacherLabels(path, key, **{"batch": 3, "num_classes": 5} | options)


def test_what_was_written_is_read_and_nothing_else(tmp_path):
    path = tmp_path / "labels"
    labels = opened(path)
    assert labels.read(0) is None and labels.known(first=0, end=4) == 0
    labels.write(0, np.array([1, 2, 65534]))
    labels.write(2, np.array([0, 0, 0]))
    again = opened(path)
    assert again.read(0).tolist() == [1, 2, 65534] and again.read(2).tolist() == [0, 0, 0]
    assert again.read(1) is None  # a hole reads as zeros, which are no row
    assert again.known(first=0, end=4) == 1 and again.known(first=2, end=4) == 3 and again.known(first=0, end=1) == 1
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])  # killed, or cut off by a power failure
    assert opened(path).read(2) is None
    path.write_bytes(whole[:-1] + b"\1")
    assert opened(path).read(2) is None
    opened(path).write(2, np.array([0, 0, 0]))
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (KEY | {"--seed": "1"}, "labels of other views: --seed is '0' there and '1' here"),
        (KEY | {"--epochs": "9"}, "--epochs is None there and '9' here"),
        ({"--seed": "0"}, "teacher's file, SHA-256 is 'ab' there and None here"),
    ],
)
def test_other_views_are_refused_by_name(tmp_path, key, message):
    before = opened(tmp_path / "labels").path.read_bytes()
    with pytest.raises(ValueError, match=message):
        opened(tmp_path / "labels", key)
    assert (tmp_path / "labels").read_bytes() == before


def test_other_files_and_too_many_classes_are_refused(tmp_path):
    (tmp_path / "notes").write_text("not labels\n")
    with pytest.raises(ValueError, match="notes is not a file of a teacher's labels"):
        opened(tmp_path / "notes")
    with pytest.raises(ValueError, match="up to 65535 classes: the data have 65536"):
        opened(tmp_path / "labels", num_classes=65536)
    with pytest.raises(OSError, match="could not be opened"):
        opened(tmp_path / "none", writes=False)


def test_fingerprints_tell_data_apart_and_folders_not():
    labels, names = np.array([0, 1], np.int32), ("a", "b")

    def of(*paths):
        return fingerprint(Source(np.array(paths, object), labels, names))

    assert of("/x/a/1.png", "/x/b/2.png") == of("/y/z/a/1.png", "/y/z/b/2.png") != of("/x/a/1.png", "/x/b/3.png")
    pixels = np.zeros((2, 4, 4, 3), np.uint8)
    found = {fingerprint(Source(pixels, labels, names))}
    found.add(fingerprint(Source(pixels, labels[::-1].copy(), names)))
    pixels[1, 0, 0, 0] = 1
    found.add(fingerprint(Source(pixels, labels, names)))
    assert len(found) == 3


@pytest.mark.slow
def test_training_from_the_file_is_bit_by_bit_the_same(tmp_path, monkeypatch):
    """Without a file; writing one and killed half way; going on; and from the file alone, with a teacher that lies."""
    one = Run()
    memory = one.fit(tmp_path / "without", seconds=10**9)
    expected = one.values()
    options = {"batch": BATCH, "num_classes": 4}

    def fit(folder, **given):
        labels = TeacherLabels(tmp_path / "labels", KEY, **options)
        assert one.fit(folder, teacher_labels=labels, **given) == memory
        for ours, theirs in zip(one.values(), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert labels.known(first=0, end=STEPS) == STEPS

    one.assign(one.start)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        dying(patch, saved=6, killed=9)
        fit(tmp_path / "killed")
    forget(one)
    fit(tmp_path / "killed")

    one.assign(one.start)
    one.model.ask_teacher = lambda x: tf.zeros([len(x), 4])
    fit(tmp_path / "alone")


@pytest.mark.slow
def test_a_sweep_asks_the_teacher_once(run, images, tmp_path):
    arguments = [*SMALL, f"--data_dir={images}", "--accumulation=1"]
    code, printed = run(train, *arguments, f"--workdir={tmp_path / 'without'}")
    assert code == 0, printed
    arguments += [f"--teacher={tmp_path / 'without'}", f"--teacher_labels={tmp_path / 'labels'}"]
    for name in ("writes", "reads"):
        code, printed = run(train, *arguments, f"--workdir={tmp_path / name}")
        assert code == 0, printed
    found = [snapshot(tmp_path / name) for name in ("without", "writes", "reads")]
    students = [{k: v for k, v in one.items() if not k.startswith("teacher")} for one in found]
    assert students[0] == students[1] == students[2] and "student.keras 0" in students[0]

    now = f'"version of the views": "{augment.VERSION}"'.encode()
    older = (tmp_path / "labels").read_bytes().replace(now, b'"version of the views": "0"')
    (tmp_path / "older").write_bytes(older)
    earlier = f"--teacher_labels={tmp_path / 'older'}", "version of the views is '0' there"
    seed, cutmix = ("--seed=1", "--seed is '0' there and '1' here"), ("--cutmix=0", "--cutmix is '1.0'")
    for number, (flag, message) in enumerate((seed, cutmix, CLEAN, earlier)):
        code, printed = run(train, *arguments, f"--workdir={tmp_path / str(number)}", flag)
        assert code == 1 and message in printed, printed
    code, printed = run(train, *arguments, f"--workdir={tmp_path / 'soft'}", "--distillation=soft")
    assert code == 1 and "--teacher_labels holds a teacher's classes: it needs one, and --distillation=hard" in printed
