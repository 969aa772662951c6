"""The splits of a run: counted in a line, and without the images that cannot be decoded where that is wished."""

import pytest

from deitlt_tf.runs.data import load_splits


def test_a_line_says_how_many_images_there_are(images, tmp_path, capsys):
    splits = load_splits("folder", folder=tmp_path, data_dir=str(images))
    assert (len(splits.train), splits.val, len(splits.test)) == (23, None, 12)
    assert capsys.readouterr().out == "folder: 23 training images in 3 classes (12 to 5), 12 for testing\n"
    load_splits("digits_lt", folder=tmp_path, imbalance=10, val_fraction=0.2)
    assert " for validation, 600 for testing\n" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_images_that_cannot_be_decoded_are_left_out_and_listed(images, tmp_path, capsys):
    damaged, large = images / "train" / "blue" / "1.jpg", images / "test" / "green" / "0.png"
    damaged.write_bytes(damaged.read_bytes()[:-200])
    options = {"folder": tmp_path, "data_dir": str(images), "skip_bad_images": True}
    splits = load_splits("folder", **options)
    assert (len(splits.train), len(splits.test)) == (22, 12) and str(damaged) not in splits.train.images
    report = (tmp_path / "skipped_images.txt").read_text()
    assert report.startswith(f"train\t{damaged}\t{damaged}: ") and report.count("\n") == 1
    assert f"skipped 1 images that cannot be decoded, listed in {tmp_path}" in capsys.readouterr().out

    large.write_bytes(damaged.read_bytes())
    assert len(load_splits("folder", **options).test) == 11
    assert (tmp_path / "skipped_images.txt").read_text().splitlines()[1].startswith(f"test\t{large}\t{large}: ")


def test_nothing_to_skip_is_said_too(images, tmp_path, capsys):
    load_splits("folder", folder=tmp_path, data_dir=str(images), skip_bad_images=True)
    assert "skipped 0 images that cannot be decoded\n" in capsys.readouterr().out
    assert (tmp_path / "skipped_images.txt").read_text() == ""


def test_a_class_that_loses_all_of_its_images_is_named(images, tmp_path):
    for path in (images / "train" / "red").iterdir():
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"class 'red' has no readable training image left: see .*skipped_images\.txt"):
        load_splits("folder", folder=tmp_path, data_dir=str(images), skip_bad_images=True)
