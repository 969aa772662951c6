"""Which rows are used, which groups they are in, and what is said about the others."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.tables import SAMPLE, photos, write_csv

from deitlt_tf.data.dataset import raise_mistake
from deitlt_tf.data.table import selection
from deitlt_tf.data.table.conditions import parse
from deitlt_tf.data.table.files import open_files


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


def test_rows_that_are_the_test_set(select):
    rows = photos(*["A a"] * 6, year=range(2015, 2021))
    rows.append(rows[0] | {"year": 2030})
    chosen, _ = select(rows, test_where="year >= 2018")
    assert chosen.test.tolist() == [True, False, False, True, True, True]  # one of two rows of the first image is


@pytest.mark.parametrize(
    ("column", "values", "options"),
    [
        ("species", pa.array([["A a"]] * 2), {}),
        ("label", pa.array([{"a": 1}] * 2), {"rank": "label"}),
        ("observation_id", pa.array([["x"]] * 2), {}),
        ("photo_id", pa.array([{"id": 1}] * 2), {}),
    ],
)
def test_a_column_of_lists_or_structures_is_refused_where_it_is_needed(select, tmp_path, column, values, options):
    plain = {"photo_id": pa.array([1, 20]), "genus": pa.array(["A", "B"]), "species": pa.array(["A a", "B b"])}
    pq.write_table(pa.table(plain | {column: values}), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=rf"t\.parquet: column '{column}' is of type .*, and needs one text or number"):
        select(tmp_path / "t.parquet", **options)
    pq.write_table(pa.table(plain | {"other": values}), tmp_path / "t.parquet")
    assert len(select(tmp_path / "t.parquet")[0]) == 2


def test_places_that_are_no_numbers_and_unknown_groups_are_refused(select):
    with pytest.raises(ValueError, match=r"t\.csv: column 'lat' needs numbers"):
        select(photos("A a", "A b", lat=["x", "y"], lon=[1, 2]), split_by="place")
    with pytest.raises(ValueError, match="split_by=herd is unknown: choose one of observation, camera"):
        select(photos("A a", "A b"), split_by="herd")


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


def test_a_file_without_observations_next_to_one_that_has_them(tmp_path):
    alone, grouped = tmp_path / "a.parquet", tmp_path / "b.parquet"
    pq.write_table(pa.table({"photo_id": range(10, 60, 10), "species": ["A b"] * 5}), alone)
    both = {"photo_id": range(100, 200, 20), "species": ["A b"] * 5, "observation_id": [1, 1, 2, 2, 3]}
    pq.write_table(pa.table(both), grouped)
    rows = selection.select(open_files([str(alone), str(grouped)]), complain=raise_mistake, note=lambda _: None)
    assert len({*rows.groups[:5].tolist()}) == 5 and len({*rows.groups.tolist()}) == 8


def test_classes_that_look_like_numbers_are_texts(tmp_path):
    path = tmp_path / "a.csv"
    write_csv(path, [{"photo_id": k, "label": text} for k, text in enumerate(["1.1", "1.10", "007", "7"], 10)])
    for keep in (None, parse("photo_id > 0", argument="keep")):
        rows = selection.select(open_files([str(path)]), rank="label", keep=keep, complain=raise_mistake, note=print)
        assert [lineage[-1] for lineage in rows.lineages] == ["1.1", "1.10", "007", "7"]
