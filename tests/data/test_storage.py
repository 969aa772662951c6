"""Sources behind URLs (TensorFlow's own ram://): the same data, batches and findings as from disk, and few requests."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from deitlt_tf.data import pipeline, sources, storage
from deitlt_tf.inspect_data import findings
from deitlt_tf.interop import imports
from deitlt_tf.recipes import command_line
from deitlt_tf.report import numbers
from deitlt_tf.runs.fingerprint import fingerprint
from deitlt_tf.runs.folder import write_flags

URL = "ram://bucket/data set"


def view(image, seed):
    return tf.image.stateless_random_crop(image, (8, 8, 3), seed)


@pytest.fixture
def folder(tmp_path):
    """A folder on disk, its copy at URL and lists of both: three splits, two classes, every format, a folder deeper."""
    root, seed = tmp_path / "data set", 0
    for split, counts in (("train", (5, 3)), ("val", (1, 1)), ("test", (3, 2))):
        lines = []
        for label, (name, count) in enumerate(zip(("ant hill", "bee.hive"), counts, strict=True)):
            for i in range(count):
                seed += 1
                path = root / split / name / ("deep" if i == 2 else "") / f"{i}.{('png', 'JPG', 'webp', 'bmp')[i % 4]}"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.random.default_rng(seed).integers(0, 256, (9 + seed, 11, 3), np.uint8)
                Image.fromarray(pixels).save(path)
                lines.append(f"{path.relative_to(root)} {label}\n")
        (root / f"{split}.txt").write_text("".join(lines))
    (root / "train" / "ant hill" / "README").write_text("not an image")
    (root / "train" / ".hidden").mkdir()
    (root / "names.txt").write_text("Ameise\r\nBiene ü\r\n", encoding="utf-8")
    upload(root)
    yield root
    tf.io.gfile.rmtree("ram://bucket")


def upload(root: Path) -> None:
    if tf.io.gfile.exists("ram://bucket"):
        tf.io.gfile.rmtree("ram://bucket")
    for path in sorted(root.rglob("*")):
        url = f"{URL}/{path.relative_to(root)}"
        if path.is_dir():
            tf.io.gfile.makedirs(url)
        else:
            tf.io.gfile.makedirs(os.path.dirname(url))
            with tf.io.gfile.GFile(url, "wb") as file:
                file.write(path.read_bytes())


@pytest.fixture
def requests(monkeypatch):
    """{name of a function of tf.io.gfile: URLs it was asked about}, while the test runs."""
    asked: dict[str, list[str]] = {}

    def ask(name, function, url, *rest):
        asked[name].append(url)
        return function(url, *rest)

    for name in ("listdir", "stat", "isdir", "exists", "GFile"):
        asked[name] = []
        monkeypatch.setattr(tf.io.gfile, name, functools.partial(ask, name, getattr(tf.io.gfile, name)))
    return asked


LISTS = {"train_list": "train.txt", "val_list": "val.txt", "test_list": "test.txt", "class_names_file": "names.txt"}
READ = {  # of a folder that lies at `place`; its lists also at `disk`
    "folder": lambda place, disk: sources.load("folder", data_dir=place),
    "folder without splits": lambda place, disk: sources.load("folder", data_dir=f"{place}/train", test_fraction=0.4),
    "list": lambda place, disk: sources.load("list", data_dir=place, **LISTS),
    "list on disk": lambda place, disk: sources.load(
        "list", image_root=place, **{name: f"{disk}/{file}" for name, file in LISTS.items()}
    ),
}


@pytest.mark.parametrize("read", READ.values(), ids=READ)
def test_the_same_data_and_batches_as_from_disk(folder, read):
    ours, theirs = (read(place, folder) for place in (str(folder), URL))
    assert (ours.val is None) == (theirs.val is None)
    for part, other in zip(vars(ours).values(), vars(theirs).values(), strict=True):
        if part is not None:
            assert part.class_names == other.class_names and part.labels.tolist() == other.labels.tolist()
            assert [path.replace(str(folder), URL) for path in part.images] == list(other.images)
            assert fingerprint(part) == fingerprint(other)
    stream = {"view": view, "batch": 4, "steps": 3, "steps_per_epoch": 2, "seed": 3}
    batches = [pipeline.train(each.train, **stream).as_numpy_iterator() for each in (ours, theirs)]
    for (images, labels), (other_images, other_labels) in zip(*batches, strict=True):
        np.testing.assert_array_equal(images, other_images)
        np.testing.assert_array_equal(labels, other_labels)


def test_inaturalist_behind_a_url(folder):
    for split in ("train", "val"):
        lines = [line.rsplit(" ", 1) for line in (folder / f"{split}.txt").read_text().splitlines()]
        content = {
            "images": [{"id": i, "file_name": path} for i, (path, _) in enumerate(lines)],
            "annotations": [{"image_id": i, "category_id": int(label)} for i, (_, label) in enumerate(lines)],
            "categories": [{"id": 0, "name": "Formica"}, {"id": 1, "name": "Apis"}],
        }
        (folder / f"{split}2018.json").write_text(json.dumps(content))
    upload(folder)
    ours, theirs = (sources.load("inat", data_dir=place) for place in (str(folder), URL))
    assert theirs.train.class_names == ours.train.class_names == ("Formica", "Apis")
    assert list(theirs.test.images) == [path.replace(str(folder), URL) for path in ours.test.images]
    with pytest.raises(FileNotFoundError, match=f"2018.json are not under {URL}/elsewhere/?, the first is"):
        sources.load("inat", data_dir=URL, image_root="elsewhere")


@pytest.mark.slow
@pytest.mark.parametrize("spoiled", [False, True])
def test_inspect_data_finds_the_same_as_on_disk(folder, spoiled):
    if spoiled:
        first, second, *_ = sorted((folder / "train" / "ant hill").glob("*.*"))
        second.write_bytes(first.read_bytes())  # a copy
        path = folder / "test" / "ant hill" / "0.png"
        path.write_bytes(path.read_bytes()[:-40])
        (folder / "val" / "bee.hive" / "0.png").rename(folder / "elsewhere.png")
        upload(folder)
    lists = [f"--{name}={file}" for name, file in LISTS.items()]

    def inspected(place, *arguments):
        recipe = command_line.recipe_of(["inspect_data", f"--data_dir={place}", *arguments])
        report = findings.inspect(recipe, every_image=True)
        return json.dumps(report, indent=1).replace(f"{place}/", "").replace(str(place), "")

    for arguments in ((), ("--data=list", *lists)):
        report_here = inspected(folder, *arguments)
        assert inspected(URL, *arguments) == report_here
        assert ("cut off" in report_here and "copies of others" in report_here) == spoiled


def test_a_missing_archive_is_found_beside(folder):
    for place in (str(folder), URL):
        said = findings.on_missing(files=["ant hill/0.png"], folders={"ant hill": 1}, root=place)
        assert said == [
            "ant hill/ is missing with all 1 image listed in it: "
            + f"it lies in {place}/test: name that with `image_root`"
        ]
        (said,) = findings.on_missing(files=["cow/0.png"], folders={"cow": 1}, root=place)
        assert f"unpack its archive in {place}, or" in said


def test_requests_are_few(folder, requests):
    names = [f"{split}/{name}" for split in ("train", "val", "test") for name in ("ant hill", "bee.hive")]
    sources.load("list", data_dir=URL, **LISTS)
    listed = [*names, "train/ant hill/deep", "train/bee.hive/deep", "test/ant hill/deep"]
    assert sorted(requests["listdir"]) == sorted(f"{URL}/{name}" for name in listed)
    assert sorted(requests["GFile"]) == sorted(f"{URL}/{file}" for file in LISTS.values())
    assert sorted(requests["stat"]) == sorted([URL, *requests["GFile"]])  # are they there?
    for asked in requests.values():
        asked.clear()
    sources.load("folder", data_dir=URL)
    assert not requests["GFile"]
    assert all(requests["listdir"].count(f"{URL}/{name}") == 1 for name in listed)
    assert not [url for url in requests["stat"] if url.lower().endswith(storage.IMAGE_SUFFIXES)]


def test_a_slash_at_the_end_marks_a_folder_without_a_question(folder, requests, monkeypatch):
    """As gs:// answers; there, names in a bucket may also be no more than slashes."""
    expected = sources.load("folder", data_dir=URL)
    listdir = tf.io.gfile.listdir

    def marked(url):
        return ["/", *(f"{name}/" if "." not in name and name != "README" else name for name in listdir(url))]

    monkeypatch.setattr(tf.io.gfile, "listdir", marked)
    requests["stat"].clear()
    found = sources.load("folder", data_dir=URL)
    assert list(found.train.images) == list(expected.train.images)
    assert not [url for url in requests["stat"] if url.endswith("ant hill") and "train" not in url]
    monkeypatch.setattr(tf.io.gfile, "listdir", lambda url: [f"{name}/" for name in listdir(url)])
    assert storage.file_names(f"{URL}/val/ant hill") == frozenset()


def test_mistakes_are_one_sentence_with_the_url(folder, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"^data_dir=ram://nowhere/x is not a folder: it should hold train/"):
        sources.load("folder", data_dir="ram://nowhere/x")
    with pytest.raises(FileNotFoundError, match=f"^{URL}/no.txt is missing: `data_dir` should hold train.txt"):
        sources.load("list", data_dir=URL, **LISTS | {"test_list": "no.txt"})
    with pytest.raises(ValueError, match=r"^pigeon://b/x: this TensorFlow knows no such file system, only .*ram:"):
        sources.load("folder", data_dir="pigeon://b/x")
    with pytest.raises(ValueError, match="holds no images"):
        tf.io.gfile.makedirs(f"{URL}/train/cow")
        sources.load("folder", data_dir=URL)
    (folder / "train.txt").write_text(f"{URL}/train/ant hill/0.png 0\n")
    with pytest.raises(ValueError, match=r"train\.txt:1: path 'ram://.*' leaves the image root"):
        sources.load("list", data_dir=str(folder), **LISTS)
    with pytest.raises(ValueError, match=f"^{URL}/train/ant hill/0.png is not UTF-8 text"):
        storage.read_text(f"{URL}/train/ant hill/0.png")

    def refused(url):
        raise tf.errors.PermissionDeniedError(None, None, "Error executing an HTTP request:\n\tHTTP response code 403")

    monkeypatch.setattr(tf.io.gfile, "stat", refused)
    with pytest.raises(OSError, match=f"request: HTTP response code 403: '{URL}'$"):
        sources.load("folder", data_dir=URL)


def test_a_folder_that_cannot_be_listed_is_a_mistake_not_an_empty_folder(folder, monkeypatch):
    listdir = tf.io.gfile.listdir

    def broken(url):
        if url.endswith("deep"):
            raise tf.errors.UnavailableError(None, None, "the network is down")
        return listdir(url)

    monkeypatch.setattr(tf.io.gfile, "listdir", broken)
    with pytest.raises(OSError, match=f"the network is down: '{URL}/train/ant hill/deep'"):
        sources.load("folder", data_dir=URL)


def test_a_recipe_with_a_url_reads_back(tmp_path):
    given = [f"--data_dir={URL}", "--image_root=gs://other/images", "--train_list=s3://lists/train.txt"]
    recipe = command_line.recipe_of(["train", *given])
    write_flags(tmp_path, recipe.identity()["flags"])
    again = command_line.recipe_of(["train", f"--flagfile={tmp_path / 'flags.cfg'}"])
    assert again.flags == recipe.flags and again.data.data_dir == URL
    assert storage.join("ram://b", "gs://other") == "gs://other" and storage.join("ram://b/x", "y") == "ram://b/x/y"


def test_reports_compare_test_images_wherever_they_lie(folder):
    here, there = (
        SimpleNamespace(folder=place, splits=sources.load("folder", data_dir=place)) for place in (str(folder), URL)
    )
    numbers.same_test(here, there)
    (folder / "test" / "ant hill" / "0.png").write_bytes(b"another image")
    with pytest.raises(ValueError, match="their test images differ"):
        numbers.same_test(here, there)


def test_class_names_of_an_import_may_lie_behind_a_url(folder):
    names = imports.read_names
    assert names(f"{URL}/names.txt") == names(str(folder / "names.txt")) == ("Ameise", "Biene ü")
    with pytest.raises(FileNotFoundError, match=f"class_names_file={URL}/no.txt: there is no such file"):
        names(f"{URL}/no.txt")


def test_paths_on_disk_need_no_tensorflow(folder):
    code = (
        "import sys; from deitlt_tf.data import sources; "
        f"sources.load('folder', data_dir={str(folder)!r}); print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_paths_are_compared_from_their_common_folder():
    below = storage.below_common_folder
    assert below(["/a/train/ab/1", "/a/train/ac/2"]) == ["/ab/1", "/ac/2"]
    assert below(["gs://b/ab/1", "gs://b/ac/2"]) == ["/ab/1", "/ac/2"]
    assert below(["1.jpg", "2.jpg"]) == ["1.jpg", "2.jpg"] and below(["/a/1.jpg"]) == ["/1.jpg"]
