"""What `load` adds to every kind of source: imbalance, a validation split, and a sentence for each mistake."""

import numpy as np
import pytest

from deitlt_tf.data import sources


def test_digits_are_rgb_pixels_with_a_balanced_test_set():
    splits = sources.load("digits_lt")
    train, test = splits.train, splits.test
    assert train.images.shape[1:] == (8, 8, 3) and train.kind == "pixels" and splits.val is None
    assert train.images.min() == 0 and train.images.max() == 255
    assert (train.images[..., 0] == train.images[..., 2]).all()
    assert len(train) + len(test) == 1797 and train.class_names == tuple("0123456789")
    assert sources.class_counts(test.labels, 10).tolist() == [60] * 10
    assert len(np.unique(np.concatenate([train.images, test.images]).reshape(1797, -1), axis=0)) == 1797


def test_imbalance_and_validation_split_change_the_training_images_only():
    plain = sources.load("digits_lt")
    tailed = sources.load("digits_lt", imbalance=20)
    counts = sources.class_counts(tailed.train.labels, 10)
    assert counts[0] == min(sources.class_counts(plain.train.labels, 10)[0], counts.max()) and counts[-1] == 6
    assert (tailed.test.images == plain.test.images).all()
    held = sources.load("digits_lt", imbalance=20, val_fraction=0.25)
    assert len(held.train) + len(held.val) == len(tailed.train)
    assert (sources.class_counts(held.train.labels, 10) >= 1).all()
    assert (sources.load("digits_lt", imbalance=20, imbalance_seed=1).train.images[:9] != tailed.train.images[:9]).any()


def test_unknown_source_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'folders' is unknown: choose one of folder, list, inat, .*tfds:<name>"):
        sources.load("folders")


@pytest.mark.parametrize("name", ["folder", "list", "inat"])
def test_missing_data_dir_says_what_belongs_there(tmp_path, name):
    options = {"train_list": "train.txt", "test_list": "test.txt"}
    with pytest.raises(
        FileNotFoundError, match=f"^data_dir={tmp_path}/nowhere is not a folder: it should hold .*train"
    ):
        sources.load(name, data_dir=f"{tmp_path}/nowhere", **options)
    if name != "list":
        with pytest.raises(ValueError, match=f"`data_dir` is missing: source {name} needs a folder with .*train"):
            sources.load(name)
