"""Paths that are numbers or one text: they act as an array of strings, in Python and in a graph."""

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from deitlt_tf.data.paths import IdPaths, TextPaths

IDS = np.array([4005, 17, 2**60 - 1, 0])
NAMES = ["/r/005/4005.jpg", "/r/017/17.png", "/r/975/1152921504606846975.JPG", "/r/000/0.jpg"]
TEXTS = ["a/1.jpg", "b.png", "Käfer/ü.jpg", "c d/e.jpg"]


@pytest.fixture(params=["ids", "texts"])
def paths(request):
    """(paths, the strings that they stand for)."""
    if request.param == "ids":
        return IdPaths("/r", IDS, np.array([0, 1, 5, 0])), NAMES
    texts = pa.array(["before", *TEXTS, "after"], pa.large_string()).slice(1, 4)
    return TextPaths("/r", texts), [f"/r/{text}" for text in TEXTS]


def test_they_are_a_sequence_of_strings(paths):
    ours, strings = paths
    assert len(ours) == 4 and ours.shape == (4,) and ours.ndim == 1
    assert (
        list(ours) == strings and ours[0] == strings[0] and ours[-1] == strings[-1] and ours[np.int64(2)] == strings[2]
    )
    assert list(ours[np.array([2, 0])]) == [strings[2], strings[0]]
    assert list(ours[np.array([True, False, True, False])]) == strings[::2]
    assert list(ours[:1]) == strings[:1]
    with pytest.raises(IndexError):
        ours[4]


def test_a_graph_forms_the_same_paths(paths):
    for ours, strings in (paths, (paths[0][np.array([3, 2])], [paths[1][3], paths[1][2]])):
        path_at = ours.in_graph()
        found = tf.data.Dataset.range(len(ours)).map(path_at)
        assert [path.decode() for path in found.as_numpy_iterator()] == strings


def test_keys_and_fingerprints_do_not_depend_on_the_folder(paths):
    ours, _ = paths
    moved = IdPaths("/s", IDS, np.array([0, 1, 5, 0])) if isinstance(ours, IdPaths) else TextPaths("", ours.texts)
    assert moved.numbers() == ours.numbers() and moved.stable_keys.tolist() == ours.stable_keys.tolist()
    part = ours[np.array([1, 3])]
    assert part.stable_keys.tolist() == ours.stable_keys[[1, 3]].tolist() and part.numbers() != ours.numbers()
    assert part.numbers() == ours[np.array([0, 1, 3])][1:].numbers()
    if isinstance(ours, IdPaths):
        assert ours.stable_keys.tolist() == IDS.tolist()


def test_images_in_one_folder():
    flat = IdPaths("gs://b", IDS[:2], 1, flat=True)
    assert list(flat) == ["gs://b/4005.png", "gs://b/17.png"] == [flat.in_graph()(i).numpy().decode() for i in (0, 1)]
