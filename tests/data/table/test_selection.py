"""Which rows are used, which groups they are in, and what is said about the others."""

import re

import numpy as np
import pytest
from helpers.tables import SAMPLE, write_csv

from deitlt_tf.data.dataset import raise_mistake
from deitlt_tf.data.table import selection
from deitlt_tf.data.table.conditions import parse
from deitlt_tf.data.table.files import open_files


@pytest.fixture
def select(tmp_path):
    """select(rows, **options) -> (rows that are used, notes)."""

    def call(rows, *, keep="", test_where="", complain=raise_mistake, **options):
        files = open_files([str(write_csv(tmp_path / "t.csv", rows) if isinstance(rows, list) else rows)])
        notes = []
        conditions = {"keep": parse(keep, argument="keep"), "test_where": parse(test_where, argument="test_where")}
        chosen = selection.select(files, **conditions, **options, complain=complain, note=notes.append)
        return chosen, notes

    return call


def photos(*species, start=0, step=10, **columns):
    """A row for each of these species, with ids start, start + step, ..."""
    genera = [name.split()[0] for name in species]
    rows = [
        {"photo_id": start + i * step, "genus": genus, "species": name}
        for i, (genus, name) in enumerate(zip(genera, species, strict=True))
    ]
    return [row | {name: values[i] for name, values in columns.items()} for i, row in enumerate(rows)]


def test_the_real_sample(select):
    rows, notes = select(SAMPLE)
    assert len(rows) == 446 and len(rows.lineages) == 56
    assert [len({x[i] for x in rows.lineages}) for i in range(3, 7)] == [5, 23, 46, 56]
    assert len({x[-1].split()[1] for x in rows.lineages}) == 45
    assert "'species' has epithets, which are joined to 'genus' in 450 rows" in notes[0]
    assert "4 rows repeat an image" in notes[1] and "318 runs of 446 images" in notes[2]
    for rank, count in (("genus", 46), ("family", 23), ("order", 5)):
        assert len(select(SAMPLE, rank=rank)[0].lineages) == count
    scorpions, _ = select(SAMPLE, keep="order == Scorpiones and family != Buthidae")
    assert {x[3] for x in scorpions.lineages} == {"Scorpiones"} and len(scorpions) < 53
    assert "Buthidae" not in {x[4] for x in scorpions.lineages}


def test_hybrids_and_rows_without_the_rank_are_counted(select):
    rows = photos("A b", "A b \u00d7 c", "A sp.", "A x d", "A b d", "A e")
    rows.append({"photo_id": "", "genus": "A", "species": "A b"})
    chosen, notes = select(rows)
    assert len(chosen) == 3 and [x[-1] for x in chosen.lineages] == ["A b", "A e"]
    assert "1 rows have a subspecies or an author's name" in notes[0]
    assert "left out: 2 of hybrids, 1 without a species, 1 without an image." in notes[1]


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


@pytest.mark.parametrize(
    ("split_by", "columns", "groups"),
    [
        ("observation", {"observation_uuid": ["u", "u", "v", ""]}, [0, 0, 1, 2]),
        ("observation", {"gbifID": [7, 7, 8, 9]}, [0, 0, 1, 2]),
        ("camera", {"location": ["A7", "B", "A7", "B"]}, [0, 1, 0, 1]),
        ("day", {"observed_on": ["2024-01-02", "2024-01-02", "2024-01-03", ""]}, [0, 0, 1, 2]),
        ("day", {"datetime": ["2024-01-02 10:00:00", "2024-01-02 23:59:00", "2024-01-03 00:00:00", ""]}, [0, 0, 1, 2]),
        ("day", {"eventDate": ["2024-01-02T10:00", "2024-01-02", "2024-01", "2024-01"]}, [0, 0, 1, 1]),
        ("place", {"locality": ["a", "a", "b", "c"]}, [0, 0, 1, 2]),
        ("place", {"latitude": [1.01, 1.09, 1.11, ""], "longitude": [2.01, 2.09, 2.01, 5]}, [0, 0, 1, 2]),
    ],
)
def test_groups_from_columns(select, split_by, columns, groups):
    chosen, notes = select(photos(*["A a"] * 4, **columns), split_by=split_by)
    assert np.unique(chosen.groups, return_inverse=True)[1].tolist() != [] and notes == []
    pattern = [[x == y for y in chosen.groups.tolist()] for x in chosen.groups.tolist()]
    assert pattern == [[x == y for y in groups] for x in groups]


@pytest.mark.parametrize("split_by", ["camera", "place", "day"])
def test_a_group_that_no_column_has_is_refused(select, split_by):
    with pytest.raises(ValueError, match=rf"t\.csv has no column for split_by={split_by}: such columns are "):
        select(photos("A a", "A b"), split_by=split_by)


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


def test_rows_that_are_the_test_set(select):
    rows = photos(*["A a"] * 6, year=range(2015, 2021))
    rows.append(rows[0] | {"year": 2030})
    chosen, _ = select(rows, test_where="year >= 2018")
    assert chosen.test.tolist() == [True, False, False, True, True, True]  # one of two rows of the first image is


def test_other_columns_and_no_columns(select):
    rows = [{"image_id": i, "animal": name} for i, name in enumerate(["cat", "dog", "", "cat"])]
    chosen, _ = select(rows, rank="animal")
    assert chosen.lineages == [("cat",), ("dog",)] and chosen.taxa.tolist() == [0, 1, 0]
    with pytest.raises(ValueError, match="has no column 'animals', which `rank` names: did you mean animal"):
        select(rows, rank="animals")
    with pytest.raises(ValueError, match="has no column 'species', which `rank` names"):
        select(rows)
    with pytest.raises(ValueError, match="has no column that tells which image a row is"):
        select([{"genus": "A", "species": "b"}])
    with pytest.raises(ValueError, match=r"`keep` fits no row of .*t\.csv"):
        select(rows, rank="animal", keep="animal == cow")
    with pytest.raises(ValueError, match=r"no row of .*t\.csv has a genus"):
        select(photos("A a") and [{"photo_id": 1, "genus": "", "species": "a"}], rank="genus")


def test_the_cells_of_the_chosen_rows_come_in_blocks(tmp_path):
    write_csv(tmp_path / "a.csv", photos(*["A a", "A b", "A sp."] * 3))
    write_csv(tmp_path / "b.csv", [row | {"note": "n"} for row in photos(*["A c"] * 4, start=1000)])
    files = open_files([str(tmp_path / "a.csv"), str(tmp_path / "b.csv")])
    options = {"complain": raise_mistake, "note": lambda _: None}
    rows = selection.select(files, keep=parse("photo_id != 10", argument="keep"), **options)
    found = {}
    for places, table in selection.cells(files, rows, ("id", "species", "license")):
        columns = zip(places.tolist(), *(table[name].to_pylist() for name in table.column_names), strict=True)
        found |= {place: cells for place, *cells in columns}
    assert [*found] == [*range(len(rows))]
    assert (
        [int(cells[0]) for cells in found.values()] == rows.ids.tolist() == [0, 30, 40, 60, 70, 1000, 1010, 1020, 1030]
    )
    assert found[2][1:] == ["A b", None]
