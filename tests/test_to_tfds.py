"""A data set written as shards is the same data set: every image, label and name at its place, and so every batch."""

import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from deitlt_tf import to_tfds
from deitlt_tf.data import decode, pipeline, sources
from deitlt_tf.recipes import command_line


def view(image, seed):
    return tf.image.stateless_random_crop(image, (8, 8, 3), seed)


@pytest.fixture
def write(monkeypatch, capsys):
    """write(*arguments) -> (exit code, all that was printed)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["to_tfds", *map(str, arguments)])
        code = 0
        try:
            command_line.program(to_tfds.main, to_tfds.__doc__, takes=("out",))
        except SystemExit as stop:
            code = stop.code
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return call


@pytest.fixture
def images(tmp_path):
    """Three splits of three classes, 55 images in train, four formats, no two alike; lists that mix the classes."""
    root, seed = tmp_path / "images", 0
    for split, counts in (("train", (29, 17, 9)), ("val", (2, 2, 2)), ("test", (3, 3, 3))):
        lines = []
        for label, (name, count) in enumerate(zip(("Ä b", "bee", "cow"), counts, strict=True)):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                seed += 1
                path = root / split / name / f"{i}.{('png', 'jpg', 'webp', 'bmp')[i % 4]}"
                Image.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 11, 3), np.uint8)).save(path)
                lines.append(f"{path.relative_to(root)} {label}\n")
        (root / f"{split}.txt").write_text("".join(sorted(lines, key=lambda line: line.rsplit("/")[-1])))
    return root


def flags_of(*arguments):
    return {
        name: value
        for name, value in vars(command_line.parse(["train", *map(str, arguments)])).items()
        if name in sources.load.__kwdefaults__ or name == "data"
    }


def loaded(*arguments):
    given = flags_of(*arguments)
    return sources.load(given.pop("data"), **given)


LISTS = ["--data=list", "--train_list=train.txt", "--test_list=val.txt"]
RECIPES = {
    "folder": [],
    "folder to be split": ["--test_fraction=.3", "--split_seed=2"],
    "list, thinned out, with a validation split": [*LISTS, "--imbalance=5", "--imbalance_seed=3", "--val_fraction=.2"],
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_same_images_at_the_same_positions(write, images, tmp_path, monkeypatch, recipe):
    monkeypatch.setattr(to_tfds, "EXAMPLES_PER_SHARD", 19)  # TFDS interleaves shards of more than 16
    root = images / "train" if recipe == "folder to be split" else images
    arguments = [f"--data_dir={root}", *RECIPES[recipe]]
    code, printed = write(*arguments, f"--out={tmp_path}/shards/my_set/")
    assert code == 0 and f"train with --data=tfds:my_set --data_dir={tmp_path}/shards" in printed
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["my_set"]
    assert len(list((tmp_path / "shards" / "my_set" / "1.0.0").glob("*train.tfrecord*"))) > 1
    files, shards = loaded(*arguments), loaded(*arguments, "--data=tfds:my_set", f"--data_dir={tmp_path}/shards")
    assert (files.val is None) == (shards.val is None) and files.train.class_names == shards.train.class_names
    for part, other in zip(vars(files).values(), vars(shards).values(), strict=True):
        if part is not None:
            assert part.kind == "paths" and other.kind == "encoded"
            assert part.labels.tolist() == other.labels.tolist()
            assert [to_tfds.read(path) for path in part.images] == list(other.images)
    stream = {"batch": 4, "steps": 6, "steps_per_epoch": 4, "seed": 3, "view": view}
    ours, theirs = (pipeline.train(each.train, **stream).as_numpy_iterator() for each in (files, shards))
    for (batch, labels), (other_batch, other_labels) in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(batch, other_batch)
        np.testing.assert_array_equal(labels, other_labels)


def test_bad_images_keep_their_places(write, images, tmp_path):
    """They are skipped by the run, as those of a folder are: what is left is the same."""
    for name, content in (("2.webp", b""), ("5.jpg", b"no image"), ("7.bmp", b"BM\0\0")):
        (images / "train" / "Ä b" / name).write_bytes(content)
    assert write(f"--data_dir={images}", f"--out={tmp_path}/my_set")[0] == 0
    files, shards = loaded(f"--data_dir={images}"), loaded("--data=tfds:my_set", f"--data_dir={tmp_path}")
    bad = [
        [i for i, _ in decode.bad_images(part.images, sources.names(part), max_pixels=1000, progress=False)]
        for part in (files.train, shards.train)
    ]
    assert bad[0] == bad[1] and len(bad[0]) == 3


def test_mistakes_are_one_sentence_and_leave_nothing(write, images, tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    for out, message in [
        ("", "--out is missing: name the folder"),
        (f"{tmp_path}/there", "is there already: nothing was written"),
        (f"{tmp_path}/My-Set", "'My-Set' names a data set: small letters"),
        (f"{tmp_path}/cifar10", "TensorFlow Datasets has a cifar10 of its own"),
        ("gs://bucket/my_set", "is a URL: write to a disk"),
    ]:
        code, printed = write(f"--data_dir={images}", f"--out={out}")
        assert code == 1 and message in printed and printed.count("\n") == 1
    code, printed = write("--data=digits_lt", f"--out={tmp_path}/my_set")
    assert code == 1 and "--data=digits_lt does not come as image files" in printed
    code, printed = write(f"--data_dir={images / 'nowhere'}", f"--out={tmp_path}/my_set")
    assert code == 1 and "is not a folder" in printed

    def gone(path):
        raise OSError(5, "Input/output error", path)

    monkeypatch.setattr(to_tfds, "read", gone)
    code, printed = write(f"--data_dir={images}", f"--out={tmp_path}/my_set")
    assert code == 1 and f"error: [Errno 5] Input/output error: '{images}/train" in printed
    assert {path.name for path in tmp_path.iterdir()} == {"images", "there"}
