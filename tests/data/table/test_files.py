"""Files of a table as people have them; what is wrong with one is a sentence with its row or column."""

import gzip

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.tables import SAMPLE

from deitlt_tf.data.table import files
from deitlt_tf.data.table.conditions import parse

HEADER = "photo_id,genus,species\n"


def read(path, names=None, keep=""):
    opened = files.open_one(str(path))
    blocks = opened.blocks(names or opened.schema.names, keep=parse(keep, argument="keep"))
    return pa.concat_tables(blocks)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "photo_id,genus,species\n1,Apis,mellifera\n2,Apis,cerana\n"),
        ("a.csv", "\ufeffphoto_id,genus,species\r\n1,Apis,mellifera\r\n2,Apis,cerana\r\n"),
        ("a.csv", '"photo_id","genus","species"\n1,"Apis","mellifera"\n2,Apis,cerana'),
        ("a.csv", "photo_id;genus;species\n1;Apis;mellifera\n2;Apis;cerana\n"),
        ("a.csv", "photo_id\tgenus\tspecies\n1\tApis\tmellifera\n2\tApis\tcerana\n"),  # as GBIF writes .csv
        ("a.tsv", '"photo_id"\t"genus"\t"species"\n1\t"Apis"\t"mellifera"\n2\tApis\tcerana\n'),
        ("a.txt", "photo_id|genus|species\n1|Apis|mellifera\n2|Apis|cerana\n"),
    ],
)
def test_text_files_with_any_separator(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    rows = [{"photo_id": 1, "genus": "Apis", "species": "mellifera"}]
    rows += [{"photo_id": 2, "genus": "Apis", "species": "cerana"}]
    assert read(tmp_path / name).to_pylist() == rows
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
    assert read(tmp_path / f"{name}.gz").to_pylist() == rows


def test_quotes_inside_values(tmp_path):
    (tmp_path / "a.csv").write_text(HEADER + '1,"A, ""b"" c",x\n2,a "b" c,x\n')
    assert read(tmp_path / "a.csv", ["genus"])["genus"].to_pylist() == ['A, "b" c', 'a "b" c']
    (tmp_path / "a.tsv").write_text('photo_id\tgenus\tspecies\n1\t"A\tx\n2\t5" wide\tx\n')
    assert read(tmp_path / "a.tsv", ["genus"])["genus"].to_pylist() == ['"A', '5" wide']


def test_columns_of_text_stay_text_and_empty_cells_are_empty(tmp_path):
    (tmp_path / "a.csv").write_text("photo_id,species,license,n\n1,7,,NULL\n2,NA,0,3\n")
    rows = read(tmp_path / "a.csv").to_pylist()
    assert [list(row.values()) for row in rows] == [[1, "7", None, None], [2, "NA", "0", 3]]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((HEADER + "1,a,b\n2,a\n").encode(), r"t\.csv:3: the row has 2 columns, the first line 3: '2,a'"),
        ((HEADER + '1,"a,b\n2,c,d\n').encode(), r"t\.csv:2: the row has 2 columns.*quotes inside are doubled"),
        ((HEADER + "1,a,b,c\n").encode(), r"t\.csv:2: the row has 4 columns, the first line 3"),
        (HEADER.encode() + b"1,caf\xe9,b\n", r"t\.csv:2 is not UTF-8 text"),
        (b"caf\xe9,genus\n1,b\n", r"t\.csv is not UTF-8 text: .* in its first line"),
        (b"photo_id^genus^species\n1^a^b\n", r"t\.csv has one column, 'photo_id\^genus\^species': .*commas or tabs"),
        (b"photo_id,genus,genus\n1,a,b\n", r"t\.csv has two columns 'genus'"),
        (b"", r"t\.csv is empty"),
        ((HEADER + '1,"a"" ,b\n20,c,d\n",x\n').encode(), r"'genus' has a text of several lines.*may not be closed"),
    ],
)
def test_damaged_text_files(tmp_path, data, message):
    path = tmp_path / "t.csv"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message):
        read(path)


def test_a_value_that_does_not_fit_its_column_is_named_with_its_row(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "BLOCK_BYTES", 1000)
    (tmp_path / "t.csv").write_text(HEADER + "".join(f"{i},a,b\n" for i in range(500)) + "x,a,b\n")
    with pytest.raises(ValueError, match=r"t\.csv:502: column 'photo_id' has 'x', and its first rows are of type int"):
        read(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text(HEADER + f'1,"{"a" * 5000},b\n')
    with pytest.raises(ValueError, match=r"t\.csv.*(a quote may not be closed|cannot be read|the row has)"):
        read(tmp_path / "t.csv")


@pytest.mark.parametrize("damage", ["half", "start", "middle", "empty"])
def test_damaged_parquet_files(tmp_path, damage):
    data = SAMPLE.read_bytes()
    damaged = {
        "half": data[: len(data) // 2],
        "start": data[:4] + data[9000:],
        "middle": data[:3000] + bytes(500) + data[3500:],
        "empty": b"",
    }[damage]
    (tmp_path / "t.parquet").write_bytes(damaged)
    with pytest.raises(
        ValueError, match=r"t\.parquet is not a whole Parquet file: .*fetch or write it again \("
    ) as caught:
        read(tmp_path / "t.parquet")
    assert "\n" not in str(caught.value)


def test_conditions_act_on_both_kinds(tmp_path):
    pq.write_table(pa.table({"photo_id": [1, 2, 3], "genus": ["a", "b", "a"]}), tmp_path / "t.parquet")
    (tmp_path / "t.csv").write_text("photo_id,genus\n1,a\n2,b\n3,a\n")
    for name in ("t.parquet", "t.csv"):
        table = read(tmp_path / name, ["genus"], keep="photo_id > 1 and genus == a")
        assert table.to_pylist() == [{"genus": "a"}]


def test_files_patterns_and_folders(tmp_path):
    for name in ("b.csv", "a.parquet", "notes.md", "c.tsv"):
        (tmp_path / name).write_text("x")
    paths = [str(tmp_path / name) for name in ("a.parquet", "b.csv", "c.tsv")]
    assert files.paths_of([str(tmp_path)]) == paths
    assert files.paths_of([paths[1], str(tmp_path / "*.csv"), str(tmp_path / "?.tsv")]) == paths[1:]
    for name, message in [("nowhere.csv", "there is no such file"), ("*.pq", "no such file")]:
        with pytest.raises(FileNotFoundError, match=message):
            files.paths_of([str(tmp_path / name)])
    with pytest.raises(ValueError, match=r"notes\.md: a table is a file \.parquet, "):
        files.paths_of([str(tmp_path / "notes.md")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"the folder has no file \*\.parquet, \.csv"):
        files.paths_of([str(tmp_path / "empty")])


def test_a_column_that_one_file_lacks_is_named(tmp_path):
    (tmp_path / "a.csv").write_text("photo_id,genus,family\n1,a,b\n")
    (tmp_path / "b.csv").write_text("photo_id,genus\n1,a\n")
    with pytest.raises(ValueError, match=r"b\.csv has no column 'family', which .*a\.csv has"):
        files.open_files([str(tmp_path)])
    with pytest.raises(ValueError, match=r"b\.csv has no column 'genuss', which `rank` names: did you mean genus"):
        files.open_one(str(tmp_path / "b.csv")).require("genuss", argument="rank")


def test_ids_that_look_like_fractions_are_texts(tmp_path):
    ids = ["12.1", "12.10", "18446744073709551000"]
    (tmp_path / "a.csv").write_text("photo_id,score\n" + "".join(f"{x},0.5\n" for x in ids))
    table = read(tmp_path / "a.csv", keep="score < 1")
    assert table["photo_id"].to_pylist() == ids and table["score"].to_pylist() == [0.5] * 3


def test_a_text_file_with_line_ends_of_old_macs_and_one_that_is_cut_off(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"photo_id,genus\r1,Apis\r2,Bombus\r")
    assert read(tmp_path / "a.csv")["genus"].to_pylist() == ["Apis", "Bombus"]
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress((HEADER + "1,a,b\n" * 9999).encode())[:-20])
    with pytest.raises(ValueError, match=r"b\.csv\.gz cannot be read as a table"):
        read(tmp_path / "b.csv.gz")
