"""The table that tabulate writes."""

import pyarrow.parquet as pq
import pytest

from deitlt_tf.tabulate.rows import Report, blocks_of, ranks_of, write


def test_columns_without_a_value_are_left_out_and_types_are_kept(tmp_path):
    rows = [
        {"path": "a.jpg", "label": "x", "latitude": "1.5", "camera": 7},
        {"path": "b.jpg", "label": "y", "latitude": "?"},
    ]
    count, classes, names = write(tmp_path / "t.parquet", blocks_of(iter(rows)))
    assert (count, classes, names) == (2, 2, ["path", "label", "camera", "latitude"])
    table = pq.read_table(tmp_path / "t.parquet")
    assert table.to_pylist() == [
        {"path": "a.jpg", "label": "x", "camera": "7", "latitude": 1.5},
        {"path": "b.jpg", "label": "y", "camera": None, "latitude": None},
    ]
    assert [file.name for file in tmp_path.iterdir()] == ["t.parquet"]


def test_a_mistake_while_it_is_written_leaves_nothing(tmp_path):
    def rows():
        yield {"path": "a.jpg", "label": "x"}
        raise ValueError("at the second row")

    for iterator, message in ((rows(), "at the second row"), (iter([]), "no image with a class")):
        with pytest.raises(ValueError, match=message):
            write(tmp_path / "t.parquet", blocks_of(iterator))
    assert [*tmp_path.iterdir()] == []


def test_a_species_has_both_its_words():
    assert ranks_of({"genus": "Apis"}, name="Apis mellifera")["species"] == "Apis mellifera"
    assert ranks_of({"genus": "Apis", "species": "A b"}, name="Apis mellifera")["species"] == "A b"
    assert ranks_of({}, name="red fox")["species"] is ranks_of({"genus": "Apis"}, name="Apis")["species"] is None


def test_several_species_are_refused_or_counted():
    images = [("f.json", "1.jpg", "fox", "cat"), ("f.json", "2.jpg", "fox", "owl")]
    with pytest.raises(
        ValueError, match=r"f\.json: 1\.jpg has 'fox' and 'cat', but an image has one class \(and 1 more\)"
    ):
        Report(drop_several=False).several(images)
    report = Report(drop_several=True)
    report.several(images)
    report.left_out["of rain"] += 0
    assert report.sentence() == "2 with several species"
