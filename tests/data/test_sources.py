"""Sources: every layout is read as documented, every mistake is named, and CIFAR-LT picks the official images."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deitlt_tf.data import sources
from deitlt_tf.data.dataset import long_tail_counts, subsample
from deitlt_tf.data.sources import lists


def touch(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"an image")
    return root


def relative(source: sources.Source, root: Path) -> list[tuple[str, int]]:
    paths = [os.path.relpath(path, root) for path in source.images]
    return list(zip(paths, source.labels.tolist(), strict=True))


# ---- digits and what load() adds to every source ---------------------------------------------------------------------


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


# ---- folder ----------------------------------------------------------------------------------------------------------


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
    with pytest.raises(ValueError, match=r"--val_fraction=0\.5 cannot split"):
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


@pytest.mark.parametrize("name", ["folder", "list", "inat"])
def test_missing_data_dir_says_what_belongs_there(tmp_path, name):
    options = {"train_list": "train.txt", "test_list": "test.txt"}
    with pytest.raises(
        FileNotFoundError, match=f"--data_dir={tmp_path}/nowhere is not a folder: it should hold .*train"
    ):
        sources.load(name, data_dir=f"{tmp_path}/nowhere", **options)
    if name != "list":
        with pytest.raises(ValueError, match=f"source {name} needs --data_dir, a folder with .*train"):
            sources.load(name)


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
    with pytest.raises(ValueError, match="needs --train_list and --test_list or --val_list"):
        sources.load("list", **options | {"test_list": None})
    with pytest.raises(
        FileNotFoundError, match=r"other\.txt is missing: --data_dir should hold train\.txt, other\.txt"
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


# ---- iNaturalist -----------------------------------------------------------------------------------------------------


def inat_json(images: dict[int, tuple[str, int]]) -> dict:
    return {
        "images": [{"id": key, "file_name": name} for key, (name, _) in images.items()],
        "annotations": [{"image_id": key, "category_id": label} for key, (_, label) in reversed(images.items())],
        "categories": [{"id": 7, "name": "Aves"}, {"id": 3, "name": "Fungi"}],
    }


def write_inat(root: Path, train: dict, val: dict) -> None:
    for split, images in (("train", train), ("val", val)):
        touch(root, *(name for name, _ in images.values() if not name.startswith("..")))
        (root / f"{split}2018.json").write_text(json.dumps(inat_json(images)))


def test_inat_labels_follow_category_ids(tmp_path):
    write_inat(tmp_path, {1: ("t/7/a.jpg", 7), 5: ("t/3/b.jpg", 3)}, {2: ("t/3/c.jpg", 3)})
    splits = sources.load("inat", data_dir=str(tmp_path))
    assert splits.train.class_names == ("Fungi", "Aves") and splits.val is None
    assert relative(splits.train, tmp_path) == [("t/7/a.jpg", 1), ("t/3/b.jpg", 0)]
    assert relative(splits.test, tmp_path) == [("t/3/c.jpg", 0)]


def test_inat_mistakes_are_named(tmp_path):
    good = {1: ("t/7/a.jpg", 7), 5: ("t/3/b.jpg", 3)}
    for train, message in [
        ({1: ("t/7/a.jpg", 7)}, "class 'Fungi' has no training images"),
        ({1: ("t/7/a.jpg", 7), 5: ("../b.jpg", 3)}, r"train2018\.json: path '\.\./b\.jpg' leaves"),
        (good | {6: ("t/9/a.jpg", 9)}, r"train2018\.json .*unknown image or category: 9"),
    ]:
        write_inat(tmp_path, train, {2: ("t/3/c.jpg", 3)})
        with pytest.raises(ValueError, match=message):
            sources.load("inat", data_dir=str(tmp_path))
    (tmp_path / "train2018.json").write_text('{"images": [')
    with pytest.raises(ValueError, match=r"train2018\.json is not JSON"):
        sources.load("inat", data_dir=str(tmp_path))
    (tmp_path / "train2018.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"train2018\.json is missing: --data_dir should hold"):
        sources.load("inat", data_dir=str(tmp_path))


# ---- TensorFlow Datasets ---------------------------------------------------------------------------------------------


def store(
    root: Path, name: str, splits: dict[str, list[dict]], *, label_names: list[str], version: str, **more
) -> None:
    """Write a prepared TFDS set to `root`, shuffled as TFDS does."""
    import tensorflow_datasets as tfds

    features = tfds.features
    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version=version,
        features=features.FeaturesDict(
            {"image": features.Image(shape=(None, None, 3)), "label": features.ClassLabel(names=label_names)} | more
        ),
        split_datasets={split: [(str(i), e) for i, e in enumerate(examples)] for split, examples in splits.items()},
        data_dir=str(root),
    )


def flat(value: int, label: int, **more) -> dict:
    return {"image": np.full([32, 32, 3], value, np.uint8), "label": label} | more


def test_cifar_comes_in_the_official_order_and_the_official_subset(tmp_path):
    import tensorflow_datasets as tfds

    store(
        tmp_path,
        "cifar10",
        {s: [flat(i, i * 7 % 10, id=f"{s}_{i:05d}") for i in range(n)] for s, n in (("train", 100), ("test", 20))},
        label_names=[f"n{i}" for i in range(10)],
        version=str(tfds.builder_cls("cifar10").VERSION),
        id=tfds.features.Text(),
    )
    splits = sources.load("cifar10_lt", data_dir=str(tmp_path), download=False)
    assert splits.train.kind == "pixels" and splits.train.images.shape == (100, 32, 32, 3)
    assert splits.train.images[:, 0, 0, 0].tolist() == list(range(100))
    assert splits.test.images[:, 0, 0, 0].tolist() == list(range(20))
    assert splits.train.labels.tolist() == [i * 7 % 10 for i in range(100)]
    tailed = sources.load("cifar10_lt", data_dir=str(tmp_path), download=False, imbalance=10).train
    counts = long_tail_counts(np.full(10, 10), imbalance=10, imbalance_type="exp")
    expected = subsample(splits.train.labels, counts, seed=0)
    assert tailed.images[:, 0, 0, 0].tolist() == expected.tolist()


def test_any_tfds_set_stays_encoded(tmp_path):
    import tensorflow as tf

    examples = [flat(i, i % 2) for i in range(20)]
    store(
        tmp_path,
        "three",
        {"train": examples[:14], "validation": examples[14:17], "test": examples[17:]},
        label_names=["even", "odd"],
        version="1.0.0",
    )
    splits = sources.load("tfds:three", data_dir=str(tmp_path), download=False)
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [14, 3, 3]
    assert splits.train.kind == "encoded" and splits.train.class_names == ("even", "odd")
    values = [int(tf.io.decode_image(data)[0, 0, 0]) for data in splits.train.images]
    assert sorted(values) == list(range(14)) and [value % 2 for value in values] == splits.train.labels.tolist()


def test_tfds_without_labelled_test_set_uses_validation_or_splits(tmp_path):
    examples = [flat(i, i % 2) for i in range(20)]
    hidden = [example | {"label": -1} for example in examples[:2]]
    names = ["even", "odd"]
    both = {"train": examples[:16], "validation": examples[16:], "test": hidden}
    store(tmp_path, "hidden", both, label_names=names, version="1.0.0")
    splits = sources.load("tfds:hidden", data_dir=str(tmp_path), download=False)
    assert len(splits.test) == 4 and splits.val is None
    store(tmp_path, "single", {"train": examples}, label_names=names, version="1.0.0")
    splits = sources.load("tfds:single", data_dir=str(tmp_path), download=False, test_fraction=0.3)
    assert (len(splits.train), len(splits.test)) == (14, 6)
    store(tmp_path, "untrained", {"test": examples}, label_names=names, version="1.0.0")
    with pytest.raises(ValueError, match="tfds:untrained has no labelled split `train`, only test"):
        sources.load("tfds:untrained", data_dir=str(tmp_path), download=False)


def test_tfds_sets_of_another_kind_are_refused(tmp_path):
    import tensorflow_datasets as tfds

    tfds.dataset_builders.store_as_tfds_dataset(
        name="captions",
        version="1.0.0",
        features=tfds.features.FeaturesDict({"text": tfds.features.Text()}),
        split_datasets={"train": [("0", {"text": "a cat"})]},
        data_dir=str(tmp_path),
    )
    with pytest.raises(ValueError, match="tfds:captions is no classification set"):
        sources.load("tfds:captions", data_dir=str(tmp_path), download=False)


def test_tfds_without_data_or_network_says_so_in_one_sentence(tmp_path, monkeypatch):
    import requests

    def no_network(*args, **kwargs):
        raise requests.ConnectionError("no route\nto host")

    with pytest.raises(FileNotFoundError, match=f"cifar10 is not in {tmp_path}, .* downloading is off"):
        sources.load("cifar10_lt", data_dir=str(tmp_path), download=False)
    monkeypatch.setattr(requests, "head", no_network)
    with pytest.raises(
        OSError, match=f"cifar100 is not in {tmp_path} and .* cannot fetch it.*ConnectionError: no route to host"
    ):
        sources.load("cifar100_lt", data_dir=str(tmp_path))
    with pytest.raises(ValueError, match="TensorFlow Datasets knows no data set nonesuch"):
        sources.load("tfds:nonesuch", data_dir=str(tmp_path))
    assert not list(tmp_path.iterdir())  # nothing half-written
