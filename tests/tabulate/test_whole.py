"""tabulate as a user sees it, and that its tables are what --data=table reads."""

import json
import re

import pyarrow.parquet as pq
import pytest
from helpers.image_files import touch

from deitlt_tf.data import sources
from deitlt_tf.tabulate import __main__ as tabulate


@pytest.fixture
def run(program, tmp_path):
    """run(*files, arguments...) -> (exit code, what was printed, rows of the table or None)."""

    def call(*files, arguments=()):
        out = tmp_path / "out" / "table.parquet"
        given = [f"--input={','.join(map(str, files))}", f"--out={out}", *arguments]
        code, printed = program(tabulate, *given, takes=("input", "out", "several"))
        return code, printed, pq.read_table(out).to_pylist() if out.is_file() else None

    return call


def write_json(path, value):
    path.write_text(json.dumps(value))
    return path


CATEGORIES = [
    {"id": 1, "name": "empty"},
    {"id": 5, "name": "fox"},
    {"id": 7, "name": "badger"},
]


def traps(several=False):
    """COCO Camera Traps: three cameras, sequences of two images, one image with two foxes, one without a label."""
    images = [
        {"id": f"i{i}", "file_name": f"{i % 3}/{i}.jpg", "location": i // 2 % 3, "seq_id": f"s{i // 2}",
         "datetime": f"2020-01-0{1 + i // 4} 10:00:00", "width": 5, "height": 4}
        for i in range(8)
    ]  # fmt: skip
    annotations = [{"id": i, "image_id": f"i{i}", "category_id": (1, 5, 7)[i % 3]} for i in range(7)]
    annotations.append({"id": 90, "image_id": "i1", "category_id": 5, "bbox": [0, 0, 1, 1]})
    if several:
        annotations.append({"id": 91, "image_id": "i4", "category_id": 7})
    return {"info": {"version": "1"}, "images": images, "annotations": annotations, "categories": CATEGORIES}


def test_camera_traps(run, tmp_path):
    code, printed, rows = run(write_json(tmp_path / "any name.json", traps()))
    assert code == 0 and "7 images of 3 classes" in printed and "left out are images 1 without an annotation" in printed
    assert rows[1] == {
        "image_id": "i1", "path": "1/1.jpg", "label": "fox", "observation_id": "s0", "camera": "0",
        "observed_on": "2020-01-01 10:00:00",
    }  # fmt: skip
    folder = touch(tmp_path / "images", *(row["path"] for row in rows))
    table = re.search(r"--data=table --table=(\S+) --rank=label", printed)[1]
    for split_by, groups in (("observation", 4), ("camera", 3), ("day", 2)):
        options = {"rank": "label", "split_by": split_by, "test_fraction": 0.3, "note": lambda _: None}
        splits = sources.load("table", table=[table], data_dir=str(folder), **options)
        both = [{*part.groups.tolist()} for part in (splits.train, splits.test)]
        assert len(both[0] | both[1]) == groups and not both[0] & both[1]


def test_an_image_of_two_species_is_named_or_dropped_and_counted(run, tmp_path):
    path = write_json(tmp_path / "a.json", traps(several=True))
    code, printed, rows = run(path)
    assert code == 1 and rows is None
    assert f"error: {path}: 1/4.jpg has 'fox' and 'badger', but an image has one class." in printed
    assert not [*(tmp_path / "out").iterdir()]
    code, printed, rows = run(path, arguments=["--several=drop"])
    assert code == 0 and len(rows) == 6 and "i4" not in {row["image_id"] for row in rows}
    assert "1 with several species" in printed


RANKS_2021 = {
    "kingdom": "Animalia", "phylum": "Chordata", "class": "Mammalia", "order": "Carnivora", "family": "Canidae",
    "genus": "Vulpes", "specific_epithet": "vulpes", "common_name": "Red Fox", "supercategory": "Mammals",
}  # fmt: skip


def inat(ids, *, categories, **extra):
    images = [{"id": i, "file_name": f"train/{i}.jpg", **extra} for i in ids]
    annotations = [{"id": i, "image_id": i, "category_id": 3} for i in ids]
    return {"images": images, "annotations": annotations, "categories": categories}


def test_inaturalist_2021(run, tmp_path):
    extra = {
        "date": "2019-05-06 07:08:09+00:00",
        "latitude": 1.5,
        "longitude": -2,
        "rights_holder": "Ana",
        "license": 2,
    }
    data = inat([8, 9], categories=[{"id": 3, "name": "Vulpes vulpes", **RANKS_2021}], **extra)
    data["licenses"] = [{"id": 2, "name": "CC BY-NC", "url": "http://x"}]
    code, printed, rows = run(write_json(tmp_path / "mine.json", data))
    assert code == 0 and "--rank=species" in printed
    row = rows[0]
    assert row["species"] == row["scientific_name"] == "Vulpes vulpes" and row["genus"] == "Vulpes"
    assert (row["latitude"], row["longitude"], row["license"], row["rights_holder"]) == (1.5, -2, "CC BY-NC", "Ana")
    assert row["observed_on"].startswith("2019-05-06") and row["common_name"] == "Red Fox" and "camera" not in row


def test_inaturalist_2018_with_its_categories_in_a_file_of_their_own(run, tmp_path):
    hidden = [{"id": 3, "name": "5367", "supercategory": "Mammalia"}]
    listed = [{"id": 3, "name": "Vulpes vulpes", **RANKS_2021}, {"id": 4, "name": "Apis mellifera"}]
    train = write_json(tmp_path / "t.json", inat([1, 2], categories=hidden))
    val = write_json(tmp_path / "v.json", inat([3], categories=hidden))
    code, _, rows = run(train, val, write_json(tmp_path / "names.json", listed))
    assert code == 0 and [row["split"] for row in rows] == ["t", "t", "v"]
    assert {row["species"] for row in rows} == {"Vulpes vulpes"}
    code, _, rows = run(train)
    assert code == 0 and rows[0]["label"] == "5367" and "species" not in rows[0]


def test_inaturalist_2017(run, tmp_path):
    path = write_json(
        tmp_path / "x.json", inat([1], categories=[{"id": 3, "name": "Vulpes vulpes", "supercategory": "M"}])
    )
    assert run(path)[2] == [{"image_id": "1", "path": "train/1.jpg", "label": "Vulpes vulpes", "supercategory": "M"}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 1',
            "is not JSON: .* it may be cut off",
        ),
        ("images", "is not JSON: at character 0"),
        ('{"images": [], "annotations": []}', "has no images"),
        ('{"a": 1}', "has no images: the input needs"),
        ('[{"id": 1, "name": "x"}]', "has no images"),
        ("[1, 2]", "is not what tabulate reads"),
        ('{"images": [{"id": 1}], "annotations": [], "categories": []}', "image cannot be read, it lacks 'file_name'"),
        ('{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 1}]}', "it lacks 'category_id'"),
        (
            '{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 1, "category_id": 9}]}',
            "a has the category 9, which no file of the input lists",
        ),
        (
            '{"images": [{"id": 1, "file_name": "a"}], "annotations": [], "categories": []}',
            "there is no image with a class in the input",
        ),
    ],
)
def test_other_json_is_one_sentence(run, tmp_path, text, message):
    (tmp_path / "x.json").write_text(text)
    code, printed, rows = run(tmp_path / "x.json")
    assert code == 1 and rows is None and re.search(message, printed) and printed.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input="], "--input is missing: name a Darwin Core archive"),
        (["--out="], "--out is missing"),
        (["--out=x.csv"], "--out=x.csv: name the table to write, FILE.parquet"),
        (["--input=nowhere.zip"], "--input=nowhere.zip: there is no such file"),
    ],
)
def test_missing_arguments(run, tmp_path, arguments, message):
    path = write_json(tmp_path / "x.json", traps())
    code, printed, _ = run(path, arguments=arguments)
    assert code == 1 and f"error: {message}" in printed
