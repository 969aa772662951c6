"""Images that files list, `path label` a line; a mistake is named with file and line."""

import os
import unicodedata
from pathlib import Path

import pytest
from helpers.image_files import relative, touch
from hypothesis import given
from hypothesis import strategies as st

from deitlt_tf.data import sources
from deitlt_tf.data.sources import lists

# ---- list files ------------------------------------------------------------------------------------------------------


def write_lists(root: Path, **lines: list[str]) -> dict[str, str]:
    """root/train.txt, root/test.txt ... and the options that name them; the images are written, too, where possible."""
    for split, content in lines.items():
        (root / f"{split}.txt").write_text("".join(f"{line}\n" for line in content))
        paths = [line.rpartition(" ")[0] for line in content]
        touch(root / "images", *(path for path in paths if path and not path.startswith(("/", ".."))))
    return {"data_dir": str(root), "image_root": "images"} | {f"{split}_list": f"{split}.txt" for split in lines}


def test_lists_of_three_splits(tmp_path):
    options = write_lists(
        tmp_path,
        train=["data/a/air field/0 1.jpg 0", "", "data/b/2.jpg 1", "data/a/air field/./3.jpg 0", "flat/4.jpg 2"],
        val=["elsewhere/5.jpg 1"],
        test=["elsewhere/6.jpg 2", "elsewhere/7.jpg 0"],
    )
    splits = sources.load("list", **options)
    assert splits.train.class_names == ("data/a/air field", "data/b", "flat")
    root = tmp_path / "images"
    assert relative(splits.train, root) == [
        ("data/a/air field/0 1.jpg", 0),
        ("data/b/2.jpg", 1),
        ("data/a/air field/3.jpg", 0),
        ("flat/4.jpg", 2),
    ]
    assert relative(splits.val, root) == [("elsewhere/5.jpg", 1)]
    assert relative(splits.test, root) == [("elsewhere/6.jpg", 2), ("elsewhere/7.jpg", 0)]
    options["test_list"] = None
    assert relative(sources.load("list", **options).test, root) == [("elsewhere/5.jpg", 1)]


@pytest.mark.parametrize(
    ("train", "class_names"),
    [
        (["d/a/airfield/1.jpg 0", "d/z/zoo/1.jpg 1"], ("a/airfield", "z/zoo")),
        (["1.jpg 0", "2.jpg 1"], ("class 0", "class 1")),
        (["all/1.jpg 0", "all/2.jpg 1", "own/3.jpg 2"], ("class 0", "class 1", "own")),
        (["d/a/1.jpg 0", "d/b/2.jpg 0", "d/c/3.jpg 1", "d/e/4.jpg 2"], ("class 0", "c", "e")),
        (["a/1.jpg 0", "a/b/2.jpg 1"], ("a", "a/b")),
    ],
)
def test_list_class_names_come_from_folders(tmp_path, train, class_names):
    assert (
        sources.load("list", **write_lists(tmp_path, train=train, test=["t/9.jpg 0"])).train.class_names == class_names
    )


def test_list_class_names_from_a_file(tmp_path):
    options = write_lists(tmp_path, train=["a/1.jpg 0", "b/1.jpg 1"], test=["a/2.jpg 0"])
    (tmp_path / "names.txt").write_text("Apfel\nBirne ü\n", encoding="utf-8")
    assert sources.load("list", class_names_file="names.txt", **options).test.class_names == ("Apfel", "Birne ü")
    (tmp_path / "names.txt").write_text("Apfel\n")
    with pytest.raises(ValueError, match=r"names.txt names 1 classes, but the training list has 2"):
        sources.load("list", class_names_file="names.txt", **options)


@pytest.mark.parametrize(
    ("split", "line", "message"),
    [
        ("train", "a/9.jpg", r"train\.txt:3: 'a/9\.jpg' has no label"),
        ("train", "a/my photo.jpg", r"train\.txt:3: label 'photo\.jpg' is not a whole number"),
        ("train", "a/9.jpg -1", r"train\.txt:3: label '-1' is not a whole number"),
        ("train", "a/9.jpg 1.0", r"train\.txt:3: label '1\.0' is not a whole number"),
        ("train", "a/9.jpg ²", r"train\.txt:3: label '²' is not a whole number"),
        ("train", "a/9.jpg 99999999999", r"train\.txt:3: label '99999999999' is not"),
        ("train", "a/9.jpg 999999999", r"train\.txt has no image of label 2, but labels up to 999999999"),
        ("train", "../9.jpg 0", r"train\.txt:3: path '\.\./9\.jpg' leaves the image root"),
        ("train", ".. 0", r"train\.txt:3: path '\.\.' leaves the image root"),
        ("train", "a/../../9.jpg 0", r"train\.txt:3: path .* leaves the image root"),
        ("train", "/etc/9.jpg 0", r"train\.txt:3: path '/etc/9\.jpg' leaves the image root"),
        ("test", "a/9.jpg 2", r"test\.txt:3: label 2 is outside 0\.\.1, the labels of .*train\.txt"),
        ("test", "a/1.jpg 0", r"a/1\.jpg is both in .*train\.txt and in .*test\.txt"),
    ],
)
def test_list_mistakes_name_file_and_line(tmp_path, split, line, message):
    content = {"train": ["a/1.jpg 0", "b/1.jpg 1"], "test": ["a/2.jpg 0", "b/2.jpg 1"]}
    content[split].append(line)
    with pytest.raises(ValueError, match=message):
        sources.load("list", **write_lists(tmp_path, **content))


def test_list_files_that_lack_or_are_empty_or_binary_are_named(tmp_path):
    options = write_lists(tmp_path, train=["a/1.jpg 0", "b/1.jpg 1"], test=["a/2.jpg 0"])
    with pytest.raises(ValueError, match="needs `train_list` and `test_list` or `val_list`"):
        sources.load("list", **options | {"test_list": None})
    with pytest.raises(
        FileNotFoundError, match=r"other\.txt is missing: `data_dir` should hold train\.txt, other\.txt"
    ):
        sources.load("list", **options | {"test_list": "other.txt"})
    (tmp_path / "test.txt").write_text("\n \n")
    with pytest.raises(ValueError, match=r"test\.txt is empty"):
        sources.load("list", **options)
    (tmp_path / "test.txt").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(ValueError, match=r"test\.txt is not UTF-8 text"):
        sources.load("list", **options)


def test_missing_images_are_counted_and_the_first_is_named(tmp_path):
    options = write_lists(tmp_path, train=["a/1.jpg 0", "b/1.jpg 1", "c d/1.jpg 2"], test=["a/2.jpg 0"])
    (tmp_path / "images/b/1.jpg").unlink()
    (tmp_path / "images/c d/1.jpg").unlink()
    (tmp_path / "images/c d").rmdir()
    with pytest.raises(
        FileNotFoundError, match=r"2 of 3 images of .*train\.txt are not under .*images, .* is b/1\.jpg"
    ):
        sources.load("list", **options)


def test_a_dangling_link_is_a_missing_image(tmp_path):
    options = write_lists(tmp_path, train=["a/1.jpg 0", "b/1.jpg 1"], test=["a/2.jpg 0"])
    (tmp_path / "images/a/2.jpg").unlink()
    os.symlink(tmp_path / "gone.jpg", tmp_path / "images/a/2.jpg")
    with pytest.raises(FileNotFoundError, match=r"1 of 1 images of .*test\.txt"):
        sources.load("list", **options)


def test_existence_costs_one_scan_per_folder(tmp_path, monkeypatch):
    train = [f"{folder}/{i}.jpg {label}" for label, folder in enumerate("ab") for i in range(50)]
    options = write_lists(tmp_path, train=train, test=["a/test.jpg 0"])
    scanned = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: scanned.append(path) or scandir(path))
    sources.load("list", **options)
    assert sorted(os.path.basename(path) for path in scanned) == ["a", "b"]


file_names = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters="/\\"), min_size=1)
path_lists = st.lists(
    st.tuples(
        st.lists(file_names.filter(lambda name: name not in (".", "..")), min_size=1, max_size=4).map("/".join),
        st.integers(0, 8141),
    ),
    min_size=1,
)


@given(path_lists, st.sampled_from([" ", "\t", "   "]))
def test_a_written_list_reads_back(tmp_path_factory, pairs, gap):
    file = tmp_path_factory.mktemp("lists") / "list.txt"
    file.write_text("".join(f"{path}{gap}{label}\n" for path, label in pairs), encoding="utf-8")
    listing = lists.read_list(str(file))
    assert list(zip(listing.paths, listing.labels.tolist(), strict=True)) == pairs


# ---- files as people write them --------------------------------------------------------------------------------------


def test_an_image_with_two_classes_is_refused_with_its_line(tmp_path):
    train = ["a/1.jpg 0", "b/1.jpg 1", "a/1.jpg 1"]
    with pytest.raises(ValueError, match=r"train\.txt:3: a/1\.jpg is listed with two classes, .* and .*one class"):
        sources.load("list", **write_lists(tmp_path, train=train, test=["a/2.jpg 0"]))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_lists_are_read_in_the_encodings_that_editors_write(tmp_path, encoding, newline):
    options = write_lists(tmp_path, train=["é/1.jpg 0", "b/1.jpg 1"], test=["é/2.jpg 0"])
    text = newline.join(["é/1.jpg 0", "b/1.jpg 1", ""])
    (tmp_path / "train.txt").write_bytes(text.encode(encoding))
    assert sources.load("list", **options).train.class_names == ("é", "b")


def test_lists_in_another_encoding_are_named_with_the_line(tmp_path):
    options = write_lists(tmp_path, train=["é/1.jpg 0", "b/1.jpg 1"], test=["é/2.jpg 0"])
    for data, line in [("b/1.jpg 0\né/1.jpg 1\n".encode("cp1252"), 2), ("b/1.jpg 0\n".encode("utf-16-le"), 1)]:
        (tmp_path / "train.txt").write_bytes(data)
        with pytest.raises(ValueError, match=rf"train\.txt is not UTF-8 text: .* in line {line}\. Save it again"):
            sources.load("list", **options)


def test_names_of_classes_may_look_like_comments_and_must_differ(tmp_path):
    options = write_lists(tmp_path, train=["a/1.jpg 0", "b/1.jpg 1"], test=["a/2.jpg 0"]) | {
        "class_names_file": "names"
    }
    (tmp_path / "names").write_text("#1 fan\n# two\n")
    assert sources.load("list", **options).train.class_names == ("#1 fan", "# two")
    (tmp_path / "names").write_text("crane\ncrane \n")
    with pytest.raises(ValueError, match=r"names:1 and .*names:2 have the same name, 'crane'"):
        sources.load("list", **options)
    (tmp_path / "names").write_text("\ncrane\n")
    with pytest.raises(ValueError, match=r"names:1 has the name ''"):
        sources.load("list", **options)


def test_accents_may_be_written_in_another_form_than_the_files(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    options = write_lists(tmp_path, train=[f"{decomposed}/1.jpg 0", "b/1.jpg 1"], test=["b/2.jpg 1"])
    (tmp_path / "train.txt").write_text(f"{composed}/1.jpg 0\nb/1.jpg 1\n", encoding="utf-8")
    train = sources.load("list", **options).train
    assert os.path.isfile(train.images[0]) and train.class_names == (composed, "b")


def test_backslashes_are_named(tmp_path):
    options = write_lists(tmp_path, train=["a/1.jpg 0", "b/1.jpg 1"], test=["a/2.jpg 0"])
    (tmp_path / "train.txt").write_text("a\\1.jpg 0\nb\\1.jpg 1\n")
    with pytest.raises(FileNotFoundError, match=r"the first is a\\1\.jpg; write paths with / instead of"):
        sources.load("list", **options)
