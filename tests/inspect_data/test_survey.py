"""The survey of files: copies are found by their bytes, missing folders as a whole."""

import os
from pathlib import Path

import numpy as np
from helpers.encodings import LIMIT, encoded, in_memory, picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deitlt_tf.data.decode import MAX_SIDE
from deitlt_tf.inspect_data import survey

PATHS = st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map("/".join), min_size=1, unique=True)


@settings(max_examples=40, deadline=None)
@given(PATHS, st.data())
def test_absent_folders_are_the_topmost_without_any_file(folders, data):
    paths = [f"{folder}/{i}.jpg" for folder in folders for i in range(2)] + ["beside.jpg"]
    missing = set(data.draw(st.lists(st.sampled_from(paths), unique=True)))
    found = survey.absent_folders(paths, missing)

    def within(folder):
        return {path for path in paths if path.startswith(f"{folder}/")}

    for folder, count in found.items():
        assert within(folder) <= missing and count == len(within(folder))
        assert not any(folder.startswith(f"{other}/") for other in found)
    rest = missing - {path for folder in found for path in within(folder)}
    assert not any(within(os.path.dirname(path)) <= missing for path in rest if "/" in path)
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_copies_are_images_with_the_same_bytes_in_files_and_in_memory(tmp_path, monkeypatch):
    first, second = (encoded(picture(seed=seed), "PNG") for seed in (1, 2))
    longer = first + b"."
    disguised = bytearray(encoded(picture(60, 60), "BMP"))  # the same length, the same end, another pixel
    original = bytes(disguised)
    disguised[1000] ^= 1
    images = [first, second, first, longer, original, bytes(disguised), b"broken", b"broken"]
    paths = [str(tmp_path / f"{i}.png") for i in range(len(images))]
    for path, data in zip(paths, images, strict=True):
        Path(path).write_bytes(data)
    read_whole = []
    digest = survey._digest
    monkeypatch.setattr(survey, "_digest", lambda image: read_whole.append(image) or digest(image))
    for kind in (paths, images):
        source = in_memory(kind)
        looks = survey.check_files(source, max_pixels=LIMIT)
        assert looks[4][:3] == looks[5][:3]
        groups = survey.copies({"train": (source, looks), "test": (source, looks)})
        assert sorted(sorted(group) for group in groups) == sorted(
            sorted((split, i) for split in ("train", "test") for i in group) for group in ([0, 2], [1], [3], [4], [5])
        )
        read_whole.clear()
        assert survey.copies({"train": (source, looks)}) == [[("train", 0), ("train", 2)]]
        assert len(read_whole) == 4  # the pair and the disguised pair


def test_sides_are_bounded_as_the_decoder_bounds_them():
    row = encoded(Image.fromarray(np.zeros([1, MAX_SIDE + 1, 3], np.uint8)), "PNG")
    for data, problem in (
        (row, "image 0: 65536 x 1 pixels, a side of more than 65535 is not read"),
        (row[:50], "cut off"),
    ):
        (check,) = survey.check_files(in_memory([data]), max_pixels=LIMIT)
        assert problem in check.problem


def test_parents_end_at_the_root():
    assert [*survey.parents("a/b/c.jpg")] == ["a/b", "a"]
    assert [*survey.parents("c.jpg")] == [] and [*survey.parents("/a/c.jpg")] == ["/a", "/"]
