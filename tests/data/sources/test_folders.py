"""Folders of images: every layout is read as documented, every mistake is named."""

import os

import pytest
from helpers.image_files import relative, touch

from deitlt_tf.data import sources


def test_folder_with_three_splits(tmp_path):
    touch(
        tmp_path,
        "train/dog/1.JPG",
        "train/dog/deep/er/2.png",
        "train/cat/x.webp",
        "train/cat/y.bmp",
        "train/ant/a.jpeg",
    )
    touch(tmp_path, "val/dog/3.jpg", "test/cat/4.jpg", "test/dog/5.jpg")
    touch(tmp_path, "train/dog/.hidden.jpg", "train/dog/notes.txt", "train/.cache/1.jpg", "train/dog/.thumbs/1.jpg")
    splits = sources.load("folder", data_dir=str(tmp_path))
    assert splits.train.class_names == ("ant", "cat", "dog")
    assert relative(splits.train, tmp_path / "train") == [
        ("ant/a.jpeg", 0),
        ("cat/x.webp", 1),
        ("cat/y.bmp", 1),
        ("dog/1.JPG", 2),
        ("dog/deep/er/2.png", 2),
    ]
    assert relative(splits.val, tmp_path) == [("val/dog/3.jpg", 2)]
    assert relative(splits.test, tmp_path) == [("test/cat/4.jpg", 1), ("test/dog/5.jpg", 2)]


@pytest.mark.parametrize("held_out", ["val", "test"])
def test_folder_with_two_splits_tests_on_the_second(tmp_path, held_out):
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", f"{held_out}/a/2.jpg")
    splits = sources.load("folder", data_dir=str(tmp_path))
    assert splits.val is None and relative(splits.test, tmp_path) == [(f"{held_out}/a/2.jpg", 0)]
    with pytest.raises(ValueError, match=r"^val_fraction=0\.5 cannot split"):
        sources.load("folder", data_dir=str(tmp_path), val_fraction=0.5)


def test_folder_of_class_folders_is_split_by_class(tmp_path):
    touch(tmp_path, *(f"{name}/{i}.jpg" for name, count in (("a", 20), ("b", 10), ("c", 1)) for i in range(count)))
    splits = sources.load("folder", data_dir=str(tmp_path), test_fraction=0.3, val_fraction=0.5)
    counts = [sources.class_counts(part.labels, 3).tolist() for part in (splits.train, splits.val, splits.test)]
    assert counts == [[7, 3, 1], [7, 4, 0], [6, 3, 0]] or counts == [[7, 4, 1], [7, 3, 0], [6, 3, 0]]
    files = [path for part in (splits.train, splits.val, splits.test) for path in part.images]
    assert len(set(files)) == 31


def test_a_class_may_be_called_train(tmp_path):
    touch(tmp_path, *(f"{name}/{i}.jpg" for name in ("train", "car") for i in range(5)))
    assert sources.load("folder", data_dir=str(tmp_path)).train.class_names == ("car", "train")


def test_folder_follows_links_to_class_folders(tmp_path):
    touch(tmp_path, "store/a/1.jpg", "data/train/b/1.jpg", "data/test/b/2.jpg")
    os.symlink(tmp_path / "store/a", tmp_path / "data/train/a")
    assert sources.load("folder", data_dir=str(tmp_path / "data")).train.class_names == ("a", "b")


@pytest.mark.parametrize(
    ("files", "folders", "error", "message"),
    [
        ([], [], ValueError, "has no class folders"),
        (["1.jpg"], [], ValueError, "has no class folders"),
        (["train/a/1.jpg", "test/a/1.jpg"], ["train/b"], ValueError, "class folder .*train/b holds no images"),
        (["train/a/1.jpg", "train/b/1.txt", "test/a/1.jpg"], [], ValueError, "train/b holds no images"),
        (["train/a/1.jpg", "train/b/1.jpg", "test/a/1.jpg"], ["test/b"], ValueError, "test/b holds no images"),
        (["train/a/1.jpg", "train/b/1.jpg", "test/zebra/1.jpg"], [], ValueError, "test/zebra is a class that train/"),
        (["train/a/1.jpg", "train/b/1.jpg"], [], FileNotFoundError, "has train/ but neither test/ nor val/"),
        (["test/a/1.jpg", "test/b/1.jpg"], ["train"], FileNotFoundError, "has test/ but no train/"),
        (["train/a/1.jpg", "test/a/1.jpg"], [], ValueError, "the only class is 'a'"),
    ],
)
def test_folder_mistakes_are_named(tmp_path, files, folders, error, message):
    touch(tmp_path, *files)
    for name in folders:
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(error, match=message):
        sources.load("folder", data_dir=str(tmp_path))


def test_file_names_that_are_not_utf8_are_named(tmp_path):
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "test/a/1.jpg")
    try:
        (tmp_path / "train" / "a" / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"an image")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(ValueError, match="is not UTF-8"):
        sources.load("folder", data_dir=str(tmp_path))


def test_a_folder_that_may_not_be_read_is_not_an_empty_one(tmp_path, monkeypatch):
    touch(tmp_path, "train/a/1.jpg", "train/a/locked/2.jpg", "train/b/1.jpg", "test/a/1.jpg")
    scandir = os.scandir

    def guarded(path):
        if os.fspath(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(PermissionError, match="locked"):
        sources.load("folder", data_dir=str(tmp_path))
