"""Folders of images: every layout is read as documented, every mistake is named."""

import os
import unicodedata

import numpy as np
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
    assert np.sum(counts, 0).tolist() == [20, 10, 1] and [part[2] for part in counts] == [1, 0, 0]
    assert np.min(counts, 1)[1:].min() == 0 and np.array(counts)[:, :2].min() >= 1
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


# ---- files and folders as people have them ---------------------------------------------------------------------------


def load(root, **options):
    """(splits, notes) of a folder."""
    notes = []
    return sources.load("folder", data_dir=str(root), note=notes.append, **options), notes


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("Train", "Val", "Test"),
        ("TRAINING", "validation", "Testing"),
        ("train_set", "valid", "test-images"),
        ("training set", "dev", "testset"),
    ],
)
def test_splits_under_other_names(tmp_path, train, val, test):
    touch(tmp_path, *(f"{train}/{name}/{i}.jpg" for name in ("cat", "dog") for i in range(3)))
    touch(tmp_path, f"{val}/cat/8.jpg", f"{test}/dog/9.jpg")
    splits, notes = load(tmp_path)
    assert splits.train.class_names == ("cat", "dog") and len(splits.train) == 6 and notes == []
    assert relative(splits.val, tmp_path) == [(f"{val}/cat/8.jpg", 0)]
    assert relative(splits.test, tmp_path) == [(f"{test}/dog/9.jpg", 1)]


def test_two_folders_of_one_split_are_both_named(tmp_path):
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "val/a/2.jpg", "Validation/a/3.jpg")
    with pytest.raises(ValueError, match=r"Validation/ and val/, which both mean the split val"):
        load(tmp_path)


def test_a_folder_that_is_no_split_is_said_to_be_left_out(tmp_path):
    touch(
        tmp_path,
        "train/a/1.jpg",
        "train/b/1.jpg",
        "test/a/2.jpg",
        "unlabelled/x/1.jpg",
        "val/1.jpg",
        "__MACOSX/x/1.jpg",
    )
    _, (note,) = load(tmp_path)
    assert "folders that are not read: unlabelled/, val/." in note


def test_splits_of_images_without_classes_are_no_classes(tmp_path):
    touch(tmp_path, "Train/1.jpg", "Test/2.jpg")
    with pytest.raises(ValueError, match=r"has Test/, Train/, but no class folders in them"):
        load(tmp_path)


JPEG, PNG, WEBP, BMP = b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"BM\x46\0\0\0\0\0\0\0"


def test_content_tells_what_an_image_is_whatever_its_suffix(tmp_path):
    touch(tmp_path, "train/b/1.jpg", "test/b/1.jpg")
    contents = {"1.jfif": JPEG, "2": PNG, "3.jpg ": WEBP, "4.tif": JPEG, "5.DIB": BMP, "6.jpe": JPEG, "7.PNG": b""}
    left = {"a.tif": b"II*\0", "b.TIFF": b"", "c.tif": b"II*\0", "d.heic": b"\0\0\0 ftypheic", "e": b"BMW 3 series"}
    left |= {"f.jpg_original": JPEG, ".g.jpg.icloud": b"bplist"}
    silent = {
        "x.txt": JPEG,
        "Thumbs.db": JPEG,
        "desktop.ini": b"",
        "._1.jpg": JPEG,
        ".DS_Store": b"",
        "Icon\r": b"",
        "README": JPEG,
    }
    for name, data in (contents | left | silent).items():
        (tmp_path / "train" / "b" / name).write_bytes(data)
    touch(tmp_path, "train/a/1.jpg", "train/a/@eaDir/1.jpg/thumb.jpg")
    splits, notes = load(tmp_path)
    assert relative(splits.train, tmp_path / "train") == [
        ("a/1.jpg", 0), *((f"b/{name}", 1) for name in sorted(["1.jpg", *contents]))
    ]  # fmt: skip
    by_content, left_out = notes
    assert all(text in by_content for text in ("1 .jfif", "1 without suffix", "1 .tif"))
    assert "files that are not read" in left_out and "2 .tif" in left_out and "1 .icloud" in left_out
    for name in left:
        (tmp_path / "train" / "c").mkdir(exist_ok=True)
        (tmp_path / "train" / "c" / name).write_bytes(left[name])
    with pytest.raises(ValueError, match=r"train/c holds no images \(JPEG, PNG, WebP, BMP\), only 2 \.tif, 1 "):
        load(tmp_path)


def test_links_inside_class_folders_are_followed_once_and_never_in_circles(tmp_path):
    touch(tmp_path, "data/train/cat/1.jpg", "data/train/dog/1.jpg", "data/train/dog/in/2.jpg", "data/test/cat/1.jpg")
    touch(tmp_path, "elsewhere/3.jpg", "elsewhere/deep/4.jpg")
    train = tmp_path / "data" / "train"
    os.symlink(tmp_path / "elsewhere", train / "dog" / "more")
    os.symlink(tmp_path / "elsewhere", train / "dog" / "twice")
    os.symlink(train / "dog", train / "dog" / "loop")
    os.symlink(train / "dog" / "in", train / "dog" / "again")
    os.symlink(train, train / "dog" / "up")
    os.symlink("itself", train / "dog" / "itself")
    os.symlink(train / "dog", tmp_path / "elsewhere" / "back")
    os.symlink("self", train / "self")
    splits, _ = load(tmp_path / "data")
    assert relative(splits.train, train) == [
        ("cat/1.jpg", 0), ("dog/1.jpg", 1), ("dog/in/2.jpg", 1), ("dog/more/3.jpg", 1), ("dog/more/deep/4.jpg", 1)
    ]  # fmt: skip
    os.symlink(train, train / "whole")
    with pytest.raises(ValueError, match="train/whole holds no images"):
        load(tmp_path / "data")


def test_class_folders_are_the_same_in_every_unicode_form_and_with_blanks(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "Hündin") for form in ("NFC", "NFD"))
    touch(tmp_path, f"train/{decomposed}/1.jpg", "train/cat /1.jpg", f"test/{composed}/2.jpg", "test/cat/2.jpg")
    splits, _ = load(tmp_path)
    assert splits.train.class_names == (composed, "cat") and splits.test.labels.tolist() == [0, 1]
    touch(tmp_path, f"train/{composed}/3.jpg")
    with pytest.raises(ValueError, match=r"the folders 'Hu\\u0308ndin' and 'H\\xfcndin', which have one name"):
        load(tmp_path)


def test_classes_inside_class_folders_are_told(tmp_path):
    touch(tmp_path, *(f"train/{path}/1.jpg" for path in ("birds/owl", "birds/robin", "cats/lynx", "fish")))
    touch(tmp_path, "train/fish/day/1.jpg", "train/fish/night/1.jpg", "test/birds/owl/9.jpg")
    _, (note,) = load(tmp_path)
    assert "the images of 1 of 3 classes lie in folders of their own, such as birds/ (owl/, robin/)" in note
    assert f"move them up to {tmp_path}/train" in note


def test_notes_are_printed_by_default(tmp_path, capsys):
    touch(tmp_path, *(f"{name}/{i}.jpg" for name in "ab" for i in range(3)), "a/1.tif")
    sources.load("folder", data_dir=str(tmp_path))
    assert capsys.readouterr().out.startswith(f"note: {tmp_path} has files that are not read")


def test_images_that_are_held_out_stay_held_out_when_the_folder_grows_and_moves(tmp_path):
    touch(tmp_path, *(f"old/{name}/{i}.jpg" for name in "ab" for i in range(60)))
    touch(tmp_path, *(f"new/{name}/{i}.jpg" for name in "ab" for i in range(63)), *(f"new/c/{i}.jpg" for i in range(9)))
    tests = [
        {name for name, _ in relative(load(tmp_path / place, val_fraction=0.2)[0].test, tmp_path / place)}
        for place in ("old", "new")
    ]
    assert tests[0] == {name for name in tests[1] if name[0] in "ab" and int(name[2:-4]) < 60} and len(tests[0]) > 12
