"""Categories of several JSON files."""

import json

import pytest

from deitlt_tf.tabulate import coco
from deitlt_tf.tabulate.rows import Report


def test_files_that_disagree_on_a_category(tmp_path):
    for name, animal in (("a", "fox"), ("b", "cat")):
        content = {
            "images": [{"id": 1, "file_name": "x"}],
            "annotations": [],
            "categories": [{"id": 1, "name": animal}],
        }
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    files = [str(tmp_path / f"{name}.json") for name in "ab"]
    with pytest.raises(ValueError, match=r"b\.json: category 1 is both 'fox' and 'cat': each id has one name"):
        list(coco.rows(files, Report(drop_several=False)))


IMAGE, LABEL = {"id": 1, "file_name": "a.jpg"}, {"image_id": 1, "category_id": 1}
CATEGORY = {"id": 1, "name": "fox"}


@pytest.mark.parametrize(
    ("images", "annotations", "categories", "message"),
    [
        ([IMAGE | {"id": [1]}], [LABEL], [CATEGORY], "an image cannot be read, 'id' is no number and no text"),
        ([IMAGE | {"license": [1]}], [LABEL], [CATEGORY], "an image cannot be read, 'license' is no number"),
        (["a.jpg"], [LABEL], [CATEGORY], "an image cannot be read, it lacks 'id' in a.jpg"),
        ([{"id": 1}], [LABEL], [CATEGORY], "it lacks 'file_name'"),
        ([IMAGE], [LABEL | {"image_id": [1]}], [CATEGORY], "what tabulate reads, .*: 'image_id' is no number"),
        ([IMAGE], [LABEL | {"category_id": {}}], [CATEGORY], "'category_id' is no number and no text"),
        ([IMAGE], [{"image_id": 1}], [CATEGORY], "it lacks 'category_id'"),
        ([IMAGE], [LABEL], [{"id": 1, "name": None}], "it lacks 'name'"),
        ([IMAGE], [LABEL], [CATEGORY, {"id": 7, "name": "fox", "family": "F"}], "categories 1 and 7 .* name, 'fox'"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(tmp_path, images, annotations, categories, message):
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    with pytest.raises(ValueError, match=rf"a\.json.*{message}"):
        list(coco.rows([str(file)], Report(drop_several=False)))


def test_two_species_of_one_name_in_two_families_are_two_classes(tmp_path):
    categories = [{"id": i, "name": "A b", "genus": "A", "family": family} for i, family in enumerate("FG")]
    images = [{"id": i, "file_name": f"{i}.jpg"} for i in range(2)]
    annotations = [{"image_id": i, "category_id": i} for i in range(2)]
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    rows = coco.rows([str(file)], Report(drop_several=False))
    assert [(row["species"], row["family"]) for row in rows] == [("A b", "F"), ("A b", "G")]
