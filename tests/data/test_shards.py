"""A data set written as shards is the same data set: every image, label and name at its place, and so every batch."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from deitlt_tf.data import decode, pipeline, shards, sources


def view(image, seed):
    return tf.image.stateless_random_crop(image, (8, 8, 3), seed)


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


# name of the source, what decides which images there are, and what a run decides later
LISTS = {"train_list": "train.txt", "test_list": "val.txt"}
SOURCES = {
    "folder": ("folder", {}, {}),
    "folder to be split": ("folder", {"test_fraction": 0.3, "split_seed": 2}, {}),
    "list, thinned out later": ("list", LISTS, {"imbalance": 5, "imbalance_seed": 3, "val_fraction": 0.2}),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", SOURCES)
def test_the_same_images_at_the_same_positions(images, tmp_path, monkeypatch, case):
    monkeypatch.setattr(shards, "EXAMPLES_PER_SHARD", 19)  # TFDS interleaves shards of more than 16
    source, written, later = SOURCES[case]
    root = str(images / "train" if case == "folder to be split" else images)
    shards.write(sources.load(source, data_dir=root, **written), folder=f"{tmp_path}/shards", name="my_set")
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["my_set"]
    assert len(list((tmp_path / "shards" / "my_set" / "1.0.0").glob("*train.tfrecord*"))) > 1
    files = sources.load(source, data_dir=root, **written, **later)
    packed = sources.load("tfds:my_set", data_dir=f"{tmp_path}/shards", download=False, **later)
    assert (files.val is None) == (packed.val is None) and files.train.class_names == packed.train.class_names
    for part, other in zip(vars(files).values(), vars(packed).values(), strict=True):
        if part is not None:
            assert part.kind == "paths" and other.kind == "encoded"
            assert part.labels.tolist() == other.labels.tolist()
            assert [shards.read(path) for path in part.images] == list(other.images)
    stream = {"batch": 4, "steps": 6, "steps_per_epoch": 4, "seed": 3, "view": view}
    ours, theirs = (pipeline.train(each.train, **stream).as_numpy_iterator() for each in (files, packed))
    for (batch, labels), (other_batch, other_labels) in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(batch, other_batch)
        np.testing.assert_array_equal(labels, other_labels)


def test_bad_images_keep_their_places(images, tmp_path):
    """They are skipped by the run, as those of a folder are: what is left is the same."""
    for name, content in (("2.webp", b""), ("5.jpg", b"no image"), ("7.bmp", b"BM\0\0")):
        (images / "train" / "Ä b" / name).write_bytes(content)
    files = sources.load("folder", data_dir=str(images))
    shards.write(files, folder=str(tmp_path), name="my_set")
    packed = sources.load("tfds:my_set", data_dir=str(tmp_path), download=False)
    bad = [
        [i for i, _ in decode.bad_images(part.images, sources.image_names(part), max_pixels=1000, progress=False)]
        for part in (files.train, packed.train)
    ]
    assert bad[0] == bad[1] and len(bad[0]) == 3


def test_a_file_that_cannot_be_read_leaves_no_half_written_set(images, tmp_path, monkeypatch):
    def gone(path):
        raise OSError(5, "Input/output error", path)

    monkeypatch.setattr(shards, "read", gone)
    with pytest.raises(OSError, match=f"Input/output error: '{images}/train"):
        shards.write(sources.load("folder", data_dir=str(images)), folder=str(tmp_path), name="my_set")
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_a_new_set_gets_a_name_that_is_free(tmp_path, monkeypatch):
    assert shards.folder_and_name(f"{tmp_path}/sets/my_set/") == (f"{tmp_path}/sets", "my_set")
    monkeypatch.chdir(tmp_path)
    assert shards.folder_and_name("my_set") == (".", "my_set")
    (tmp_path / "there").mkdir()
    for out, error, message in [
        ("", ValueError, "out.* is missing: name the folder"),
        (f"{tmp_path}/there", FileExistsError, "out=.*/there is there already: nothing was written"),
        (f"{tmp_path}/My-Set", ValueError, "'My-Set' must have lower-case letters"),
        (f"{tmp_path}/cifar10", ValueError, "TensorFlow Datasets has a cifar10 of its own"),
        ("gs://bucket/my_set", ValueError, "out=gs://bucket/my_set is a URL: write to a disk"),
    ]:
        with pytest.raises(error, match=message):
            shards.folder_and_name(out)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
