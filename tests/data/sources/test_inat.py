"""iNaturalist's and COCO's JSON: labels, splits, ranks, and files that contradict themselves."""

import json
from pathlib import Path

import pytest
from helpers.image_files import relative, touch

from deitlt_tf.data import sources


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


def test_labels_follow_category_ids(tmp_path):
    write_inat(tmp_path, {1: ("t/7/a.jpg", 7), 5: ("t/3/b.jpg", 3)}, {2: ("t/3/c.jpg", 3)})
    splits = sources.load("inat", data_dir=str(tmp_path))
    assert splits.train.class_names == ("Fungi", "Aves") and splits.val is None
    assert relative(splits.train, tmp_path) == [("t/7/a.jpg", 1), ("t/3/b.jpg", 0)]
    assert relative(splits.test, tmp_path) == [("t/3/c.jpg", 0)]


def test_mistakes_are_named(tmp_path):
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
    with pytest.raises(FileNotFoundError, match=r"train2018\.json is missing: `data_dir` should hold"):
        sources.load("inat", data_dir=str(tmp_path))


def test_files_of_other_names(tmp_path):
    for split, images in (("a", {1: ("t/7/a.jpg", 7), 2: ("t/3/b.jpg", 3)}), ("b", {1: ("t/3/c.jpg", 3)})):
        touch(tmp_path, *(name for name, _ in images.values()))
        (tmp_path / f"{split}.json").write_text(json.dumps(inat_json(images)))
    splits = sources.load("inat", data_dir=str(tmp_path), train_list="a.json", val_list="b.json")
    assert splits.val is None and relative(splits.test, tmp_path) == [("t/3/c.jpg", 0)]
    (tmp_path / "c.json").write_text(json.dumps(inat_json({4: ("t/7/d.jpg", 7)})))
    touch(tmp_path, "t/7/d.jpg")
    splits = sources.load("inat", data_dir=str(tmp_path), train_list="a.json", val_list="b.json", test_list="c.json")
    assert relative(splits.val, tmp_path) == [("t/3/c.jpg", 0)] and relative(splits.test, tmp_path) == [
        ("t/7/d.jpg", 1)
    ]
    with pytest.raises(FileNotFoundError, match=r"val2018\.json is missing"):
        sources.load("inat", data_dir=str(tmp_path), train_list="a.json")


def change(data: dict, **parts) -> str:
    return json.dumps(data | parts)


def test_files_that_contradict_themselves_are_refused(tmp_path):
    train, val = inat_json({1: ("t/7/a.jpg", 7), 5: ("t/3/b.jpg", 3)}), inat_json({2: ("t/3/c.jpg", 3)})
    touch(tmp_path, "t/7/a.jpg", "t/3/b.jpg", "t/3/c.jpg")
    again = [*train["annotations"], {"image_id": 5, "category_id": 7}]
    repeated = [*train["annotations"], {"image_id": 5, "category_id": 3}]
    fox = [{"id": 7, "name": "fox"}, {"id": 3, "name": "fox "}]
    other = [{"id": 7, "name": "Fungi"}, {"id": 3, "name": "Aves"}]
    for train_text, val_text, message in [
        (
            change(train, annotations=again),
            json.dumps(val),
            r"train2018\.json: t/3/b\.jpg is annotated as 'Fungi' and as",
        ),
        (
            change(train, categories=fox),
            json.dumps(val),
            r"category 3 of .* and category 7 of .* have the same name, 'fox'",
        ),
        (
            json.dumps(train),
            change(val, categories=other),
            r"category 7 is 'Aves' in .*train2018.* and 'Fungi' in .*val2018",
        ),
        (
            change(train, categories=[]),
            json.dumps(val),
            r"train2018\.json is not an iNaturalist file: it has no categories",
        ),
        ("[]", json.dumps(val), r"train2018\.json is not an iNaturalist file: it holds no object"),
    ]:
        (tmp_path / "train2018.json").write_text(train_text)
        (tmp_path / "val2018.json").write_text(val_text)
        with pytest.raises(ValueError, match=message):
            sources.load("inat", data_dir=str(tmp_path))
    (tmp_path / "train2018.json").write_text(change(train, annotations=repeated))  # two animals of one class
    (tmp_path / "val2018.json").write_text(change({name: val[name] for name in ("images", "annotations")}))
    assert len(sources.load("inat", data_dir=str(tmp_path)).train) == 2


def write_categories(folder: Path, *categories: dict) -> dict[str, str]:
    """FOLDER/any.json and other.json with one image of each category, and the options that name them."""
    numbered = [{"id": i} | category for i, category in enumerate(categories)]
    for name in ("any", "other"):
        images = [{"id": i, "file_name": f"{name}{i}.jpg"} for i in range(len(categories))]
        annotations = [{"image_id": i, "category_id": i} for i in range(len(categories))]
        content = {"images": images, "annotations": annotations, "categories": numbered}
        (folder / f"{name}.json").write_text(json.dumps(content))
        touch(folder, *(image["file_name"] for image in images))
    return {"data_dir": str(folder), "train_list": "any.json", "val_list": "other.json"}


def test_ranks_of_categories_are_the_taxonomy(tmp_path):
    birds = [
        {"name": "Passer domesticus", "genus": "Passer", "family": "Passeridae", "kingdom": "Animalia"},
        {"name": "Parus major", "genus": "Parus", "family": "Paridae", "kingdom": "Animalia"},
        {"name": "Unknown bird", "genus": "", "family": "Paridae", "kingdom": "Animalia", "supercategory": "Aves"},
    ]
    taxonomy = sources.load("inat", **write_categories(tmp_path, *birds)).taxonomy
    assert taxonomy.ranks == ("species", "genus", "family", "kingdom")
    assert taxonomy.nodes[1] == ("Passer", "Parus", "no genus (species Unknown bird)")
    assert taxonomy.ancestors[2:].tolist() == [[0, 1, 1], [0, 0, 0]]


def test_supercategories_are_the_taxonomy_of_older_files(tmp_path):
    birds = [{"name": "a", "supercategory": "Aves"}, {"name": "b", "supercategory": "Aves"}, {"name": "c"}]
    taxonomy = sources.load("inat", **write_categories(tmp_path, *birds)).taxonomy
    assert taxonomy.ranks == ("category", "supercategory")
    assert taxonomy.nodes[1] == ("Aves", "no supercategory (category c)")
    assert sources.load("inat", **write_categories(tmp_path, {"name": "a"}, {"name": "b"})).taxonomy is None


def test_a_rank_that_is_not_text_is_named(tmp_path):
    options = write_categories(tmp_path, {"name": "a", "genus": "G"}, {"name": "b", "genus": 7})
    with pytest.raises(ValueError, match=r"any\.json: category 1 has a rank that is not text, 7"):
        sources.load("inat", **options)
