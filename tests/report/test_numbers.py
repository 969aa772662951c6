"""The numbers of whole reports and comparisons, and the page that they become."""

from types import SimpleNamespace

import numpy as np
import pytest
from helpers.report_pages import EVIL, by_hand, read

from deitlt_tf.data.dataset import Source
from deitlt_tf.report import numbers, pages
from deitlt_tf.report.numbers import side_by_side, write


def test_a_comparison_of_hostile_names_is_one_page_that_loads_nothing(tmp_path):
    counts = np.arange(60)[::-1] * 5 + 1
    by_run = {EVIL: by_hand(0), "$\\frac{": by_hand(1)}
    folders = {name: f"/runs/{name}" for name in by_run}
    values = side_by_side(by_run, {EVIL: counts, "$\\frac{": counts + 1}, folders=folders)
    plot = pages.differences(values)[-1]
    write(tmp_path, "comparison", values, {"differences": [plot]})
    from_file, page = read(tmp_path, "comparison")
    assert from_file == values and "script" not in page.tags and page.words.count(EVIL) > 5
    assert page.sources == ["data:,", plot["src"]] and page.images[0]["alt"] == plot["alt"]
    assert "Trained on other numbers of images" in page.words
    gap = values["compared"]["differences"]["$\\frac{"]["mean"]["shots"]["overall"]
    assert f"{gap['value']:+.1f}" in page.words and gap["low"] < gap["value"] < gap["high"]


def run_of(images: np.ndarray, labels: list[int], names: str = "ab", folder: str = "/runs/first"):
    """What `same_test` looks at of a run."""
    source = Source(images, np.array(labels, np.int32), tuple(names))
    return SimpleNamespace(folder=folder, splits=SimpleNamespace(test=source))


def paths(root, *names: str) -> np.ndarray:
    """Files of these names below a folder; each holds its own name."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return np.array([str(root / name) for name in names])


def test_only_runs_on_the_same_test_images_are_compared(tmp_path):
    names = ("a/1.png", "b/2.png", "b/3.png")
    ours = run_of(paths(tmp_path / "one", *names), [0, 1, 1])
    numbers.same_test(ours, run_of(paths(tmp_path / "copy", *names), [0, 1, 1]))
    pixels = np.zeros((3, 2, 2, 3), np.uint8)
    numbers.same_test(run_of(pixels, [0, 1, 1]), run_of(pixels.copy(), [0, 1, 1]))
    others = {
        "their classes differ": run_of(paths(tmp_path / "copy", *names), [0, 1, 1], "ac"),
        "it has 2 test images, the other 3": run_of(paths(tmp_path / "copy", *names[:2]), [0, 1]),
        "their test images differ": run_of(paths(tmp_path / "copy", *names), [0, 0, 1]),
    }
    for message, other in others.items():
        with pytest.raises(ValueError, match=f"/runs/first cannot be compared with /runs/first: {message}"):
            numbers.same_test(ours, other)
    renamed = run_of(paths(tmp_path / "renamed", "a/1.png", "b/2.png", "b/4.png"), [0, 1, 1])
    with pytest.raises(ValueError, match="their test images differ"):
        numbers.same_test(ours, renamed)
    with pytest.raises(ValueError, match="their test images differ"):
        numbers.same_test(run_of(pixels, [0, 1, 1]), run_of(pixels + np.uint8(1), [0, 1, 1]))


def test_images_are_drawn_from_every_group_and_no_class_twice():
    labels, counts = np.repeat(np.arange(10), 4), np.arange(10, 0, -1)
    places = numbers.of_each_group(labels, counts, np.random.default_rng(0), most=2)
    classes = labels[places]
    assert len(set(classes)) == len(places) == 6
    for group in ((0, 3), (3, 7), (7, 10)):
        assert sum(group[0] <= label < group[1] for label in classes) == 2
