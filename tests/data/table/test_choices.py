"""Each image once, how many images a class keeps, and what stands in for observations."""

import re

import numpy as np
import pytest
from helpers.tables import SAMPLE, photos


def test_small_and_large_classes(select):
    rows = photos(*["A a"] * 9, *["A b"] * 2, "A c")
    chosen, notes = select(rows, min_images=2, max_images=4)
    assert np.bincount(chosen.taxa).tolist() == [4, 2]
    assert "1 of 3 classes have fewer than 2 images and are left out, with 1 of 12 images" in notes[-2]
    assert "1 classes have more than 4 images and keep that many: 6 of 11" in notes[-1]
    other, _ = select(rows, min_images=2, max_images=4, seed=1)
    assert other.ids.tolist() != chosen.ids.tolist()
    with pytest.raises(ValueError, match="min_images=10: no species has that many images, the most is 9"):
        select(rows, min_images=10)


def test_each_observation_gives_one_image_before_any_gives_two(select):
    rows = photos(*["A a"] * 12, observation_id=["x"] * 8 + ["y", "y", "z", "w"])
    chosen, _ = select(rows, max_images=4)
    assert len({*chosen.groups.tolist()}) == 4
    chosen, _ = select(rows, max_images=6)
    counts = np.unique(chosen.groups, return_counts=True)[1]
    assert sorted(counts.tolist()) == [1, 1, 2, 2]


def test_an_image_of_two_classes_is_named(select):
    rows = [*photos("A a", "A b", "A c"), *photos("A a", "A c", "A c")]
    with pytest.raises(ValueError, match=r"the table has image 10 as 'A b' and as 'A c': an image has one class$"):
        select(rows)
    mistakes = []
    chosen, _ = select(rows, complain=mistakes.append)
    assert chosen.ids.tolist() == [0, 20] and len(mistakes) == 1
    with pytest.raises(ValueError, match="no image of the table has only one class"):
        select([rows[1], rows[4]], complain=mistakes.append)


def test_runs_of_ids_stand_in_for_observations(select):
    rows = photos(*["A a", "A b"] * 10, step=2, start=5) + photos(*["A a"] * 30, start=100, step=50)
    chosen, notes = select(rows)
    assert len({*chosen.groups[:20].tolist()}) == 1 and len({*chosen.groups.tolist()}) == 31
    assert (
        "has no column of observations: runs of ids that differ by at most 3 stand in for them, 31 runs of 50"
        in notes[0]
    )


def test_a_column_of_observations_without_any_value_is_none(select):
    rows = photos(*["A a"] * 20, observation_id=[""] * 20)
    chosen, notes = select(rows)
    assert len({*chosen.groups.tolist()}) == 20 and "runs of ids" in notes[0]


@pytest.mark.parametrize("numbered", [True, False])
def test_ids_that_say_nothing_leave_each_image_alone(select, numbered):
    rows = photos(*["A a", "A b"] * 40, step=1)
    if not numbered:
        rows = [row | {"photo_id": f"x{row['photo_id']}"} for row in rows]
    chosen, notes = select(rows)
    assert len({*chosen.groups.tolist()}) == 80 and "images are split one by one" in notes[0]


def test_a_split_by_photo_warns(select):
    rows = photos(*["A a"] * 6, observation_id=list("uuvvwx"))
    _, notes = select(rows, split_by="photo")
    assert (
        "split_by=photo splits images one by one, and 4 of 6 images have another one of their observation" in notes[0]
    )
    _, notes = select(SAMPLE, split_by="photo")
    assert any(re.search("2[01][0-9] of 446 images have another one", note) for note in notes)
