"""A data set in numbers: sizes, groups and class weights; the text and the drawing made of them."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from helpers.encodings import LIMIT, SAMPLES, in_memory

from deitlt_tf.data.dataset import Source
from deitlt_tf.inspect_data import summary, survey
from deitlt_tf.recipes.command_line import recipe_of


def test_the_profile_is_a_drawing_that_repeats(tmp_path):
    for name in ("one.svg", "two.svg"):
        summary.plot(np.array([0, 5, 900, 30]), tmp_path / name)
    text = (tmp_path / "one.svg").read_text()
    assert ElementTree.fromstring(text).tag.endswith("svg") and text == (tmp_path / "two.svg").read_text()
    assert all(f"fill: {colour}" in text for colour in summary.COLOURS.values())


def test_files_are_described_by_what_their_headers_say():
    images = [SAMPLES["png"], SAMPLES["jpeg"], SAMPLES["bmp"], SAMPLES["png"][:-30]]
    source = in_memory(images)
    found = summary.describe(source, survey.check_files(source, max_pixels=LIMIT))
    assert found | {"width": None, "height": None} == {
        "images": 4, "classes": 1, "missing": 0, "unreadable": 1, "formats": {"PNG": 1, "JPEG": 1, "BMP": 1},
        "width": None, "height": None,
    }  # fmt: skip
    assert set(found["width"].values()) == {23} and set(found["height"].values()) == {17}


def test_pixels_have_one_size():
    source = Source(np.zeros([5, 4, 6, 3], np.uint8), np.array([0, 0, 2, 2, 2], np.int32), ("a", "b", "c"))
    found = summary.describe(source, None)
    assert (found["images"], found["classes"], found["formats"]) == (5, 2, {"pixels": 5})
    assert found["width"]["median"] == 6 and found["height"]["median"] == 4


def test_groups_have_all_classes_and_images_under_both_conventions():
    counts = np.array([500, 200, 60, 30, 7, 1])
    for groups in summary.group_sizes(counts).values():
        assert sum(group["classes"] for group in groups.values()) == 6
        assert sum(group["images"] for group in groups.values()) == counts.sum()
    assert summary.group_sizes(counts)["shots"]["tail"] == {"classes": 2, "images": 8}


def test_a_balanced_set_is_drawn_without_head_and_tail(tmp_path):
    summary.plot(np.array([40, 50, 40]), tmp_path / "balanced.svg")
    summary.plot(np.array([400, 50, 4]), tmp_path / "tailed.svg")
    assert all((tmp_path / name).stat().st_size > 5000 for name in ("balanced.svg", "tailed.svg"))
    assert not any(group["classes"] for group in summary.group_sizes(np.array([40, 50, 40]))["paper"].values())


def test_class_weights_are_those_that_training_would_use():
    recipe = recipe_of(["test", "--beta=.9", "--reweight_epoch=7", "--teacher_reweight_epoch=-1", "--teacher_beta=0"])
    weights = summary.class_weights(recipe, np.array([4, 2]))
    assert weights["student"]["from_epoch"] == 7 and weights["teacher"]["from_epoch"] is None
    assert weights["student"]["span"] == pytest.approx((1 - 0.9**4) / (1 - 0.9**2))
    assert weights["teacher"]["span"] == pytest.approx(1)
    assert summary.class_weights(recipe, np.array([4, 0])) == {}


def test_the_next_commands_fit_the_size_of_the_images_and_the_flags_that_were_given():
    photographs = {"width": {"median": 640}, "height": {"median": 480}}
    recipe = recipe_of(["test", "--data_dir=my images", "--skip_bad_images"])
    quick, own = summary.next_commands(recipe, photographs).values()
    assert quick == (
        "python -m deitlt_tf.quick --data_dir='my images' --skip_bad_images=True --image_size=224 --workdir=runs/quick"
    )
    assert "--flagfile=folder.cfg --data_dir='my images'" in own
    small = {"width": {"median": 640}, "height": {"median": 48}}
    quick, own = summary.next_commands(recipe, small).values()
    assert "image_size" not in quick and "--flagfile=folder_small.cfg" in own
    medium = {"width": {"median": 96}, "height": {"median": 128}}
    when, own = [*summary.next_commands(recipe, medium).items()][1]
    assert "--flagfile=folder_medium.cfg" in own
    assert (
        "(12,000 in an hour on two cores; ten minutes: folder_medium_minutes.cfg, a night: folder_medium_night.cfg)"
        in when
    )
    given = recipe_of(["test", "--flagfile=folder_small.cfg", "--data_dir=x"])
    assert "with the flags of this command" in [*summary.next_commands(given, small).values()][1]
