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
