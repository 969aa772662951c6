"""Where the images of a table lie, and which are missing."""

import json
import os

import numpy as np
import pyarrow as pa
import pytest
from helpers.image_files import touch

from deitlt_tf.data.table import images


def test_images_by_number_in_folders_of_fetch(tmp_path):
    touch(
        tmp_path,
        "005/4005.jpg",
        "017/17.png",
        "017/1017.webp",
        "017/18.jpg",
        "017/notes.txt",
        "017/x.jpg",
        "other/9.jpg",
    )
    paths, there = images.by_id(str(tmp_path), np.array([17, 18, 4005, 1017, 9, 5]))
    assert there.tolist() == [True, False, True, True, False, False]
    found = [os.path.relpath(path, tmp_path) for path in paths]
    assert found == ["017/17.png", "018/18.jpg", "005/4005.jpg", "017/1017.webp", "009/9.jpg", "005/5.jpg"]


def test_images_by_number_in_one_folder(tmp_path):
    touch(tmp_path, "17.JPG", "18.jpeg")
    paths, there = images.by_id(str(tmp_path), np.array([18, 17, 19]))
    assert there.tolist() == [True, True, False]
    assert [os.path.basename(path) for path in paths] == ["18.jpeg", "17.JPG", "19.jpg"]


def test_images_by_path(tmp_path):
    touch(tmp_path, "a/1.jpg", "a/b/2.jpg", "3.jpg")
    texts = pa.array(["a/1.jpg", "3.jpg", "a/b/2.jpg", "a/4.jpg", "c/1.jpg", "a/b/1.jpg"], pa.large_string())
    paths, there = images.by_path(str(tmp_path), texts)
    assert there.tolist() == [True, True, True, False, False, False]
    assert paths[2] == str(tmp_path / "a" / "b" / "2.jpg")


@pytest.mark.parametrize(
    "path", ["../x.jpg", "/etc/x.jpg", "a/../../x.jpg", "gs://x/y.jpg", "C:\\x.jpg", "~/x.jpg", ".."]
)
def test_paths_stay_inside(tmp_path, path):
    with pytest.raises(ValueError, match=r"path .* of the table leaves the image root"):
        images.by_path(str(tmp_path), pa.array(["a/1.jpg", path], pa.large_string()))


def test_names_with_two_dots_do_not_leave(tmp_path):
    touch(tmp_path, "a..b/c...jpg")
    assert images.by_path(str(tmp_path), pa.array(["a..b/c...jpg"], pa.large_string()))[1].all()


def test_what_fetch_has_given_up(tmp_path):
    assert not len(images.given_up(str(tmp_path)))
    lines = [
        {"id": i, "status": status, "url": "http://x"} for i, status in enumerate(["ok", "gone", "refused", "failed"])
    ]
    (tmp_path / "fetch.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"id": 9')
    assert images.given_up(str(tmp_path)).tolist() == [1, 2, 3]
