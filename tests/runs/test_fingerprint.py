"""What data a run has seen: the fingerprint changes with images and labels, and not with the folder they lie in."""

import numpy as np
import pytest
from helpers.image_files import touch

from deitlt_tf.data import sources
from deitlt_tf.data.dataset import Source, Splits
from deitlt_tf.runs.fingerprint import differences, fingerprint, fingerprints

LABELS, NAMES = np.array([0, 1, 1], np.int32), ("a", "b")


def of(images: np.ndarray, labels: np.ndarray = LABELS) -> str:
    return fingerprint(Source(images, labels, NAMES))


@pytest.mark.parametrize("kind", ["pixels", "encoded"])
def test_images_and_labels_in_memory_change_it(kind):
    images = np.arange(3 * 4 * 4 * 3, dtype=np.uint8).reshape(3, 4, 4, 3)
    if kind == "encoded":
        images = np.array([image.tobytes() for image in images], object)
    other = images.copy()
    other[1] = images[0]
    assert of(images) == of(images.copy())
    assert len({of(images), of(other), of(images[::-1].copy()), of(images, LABELS[::-1].copy())}) == 4


def test_files_count_by_names_and_sizes_from_the_folder_that_they_share(tmp_path):
    files = [f"train/{name}/{i}.jpg" for name in NAMES for i in range(3)] + ["test/a/0.jpg", "test/b/0.jpg"]

    def read(folder):
        return fingerprints(sources.load("folder", data_dir=str(tmp_path / folder)))

    for folder in ("here", "there"):
        touch(tmp_path / folder, *files)
    before = read("here")
    assert before["train"]["images"] == 6 and before["test"]["images"] == 2 and "val" not in before
    assert read("there") == before

    (tmp_path / "there" / "test" / "a" / "0.jpg").write_bytes(b"another image")
    assert read("there")["test"] != before["test"] and read("there")["train"] == before["train"]
    (tmp_path / "here" / "train" / "a" / "0.jpg").rename(tmp_path / "here" / "train" / "a" / "x.jpg")
    assert read("here")["train"] != before["train"]


def test_differences_are_told_with_numbers():
    images = np.zeros([3, 4, 4, 3], np.uint8)
    one = Source(images, LABELS, NAMES)
    fewer, relabelled = Source(images[:2], LABELS[:2], NAMES), Source(images, LABELS[::-1].copy(), NAMES)
    before = fingerprints(Splits(one, None, one))
    assert differences(before, before) == []
    assert differences(before, fingerprints(Splits(fewer, one, relabelled))) == [
        "the train split had 3 images and has 2 images now",
        "the test split had 3 images and has other images or labels",
        "the val split had 0 images and has 3 images now",
    ]
