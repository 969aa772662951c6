"""Conditions: what they select, and that a mistake shows its place."""

import datetime

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deitlt_tf.data.table.conditions import MAX_DEPTH, parse

TABLE = pa.table(
    {
        "genus": ["Apis", "Bombus", "Apis", None],
        "year": [2010, 2015, 2020, 2021],
        "weight": [0.5, 1.5, None, 2.5],
        "on": [datetime.date(2010 + i, 1, 1) for i in range(4)],
        "at": pa.array([datetime.datetime(2010 + i, 1, 1, 12) for i in range(4)], pa.timestamp("s", "UTC")),
        "red": [True, False, None, True],
        "two words": ["a 'b'", 'c "d"', "x", "y"],
        "kind": pa.array(["p", "q", "p", "q"]).dictionary_encode(),
    }
)


def rows(text):
    expression = parse(text, argument="keep").expression(TABLE.schema, file="t.csv")
    numbered = TABLE.append_column("row", [range(4)])
    return numbered.filter(expression)["row"].to_pylist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("genus == Apis", [0, 2]),
        ("genus = 'Apis'", [0, 2]),
        ("genus != Apis", [1]),
        ("genus is null", [3]),
        ("not genus in (Apis)", [1]),
        ("not genus == Apis", [1]),
        ("not (genus in (Apis) and year < 2015)", [1, 2, 3]),  # an empty cell and false: false
        ("not genus not in (Apis)", [0, 2]),
        ("genus IS NOT NULL and year >= 2015", [1, 2]),
        ("genus in (Apis, Bombus)", [0, 1, 2]),
        ("genus not in (Apis)", [1]),
        ("year < 2015 or year > 2020", [0, 3]),
        ("genus == Apis or genus == Bombus and year == 2010", [0, 2]),
        ("(genus == Apis or genus == Bombus) and year == 2010", [0]),
        ("not (year == 2010 or not red == false)", [1]),
        ("weight >= 1.5", [1, 3]),
        ("year > 2014.5", [1, 2, 3]),
        ("year in (2010, 2015.0)", [0, 1]),
        ("year >= 2014.5 and year <= 2020.5 and year < 2020.1", [1, 2]),
        ("year < 1e999999999 and year > -1e400", [0, 1, 2, 3]),
        ("year < 99999999999999999999999", [0, 1, 2, 3]),
        ("weight < 1e400", [0, 1, 3]),
        ("year in (2010, 2021)", [0, 3]),
        ("on >= 2011-01-01 and on < 2013-01-01", [1, 2]),
        ("at > 2011-01-01T12:00", [2, 3]),
        ("red == true", [0, 3]),
        ("`two words` == 'a ''b'''", [0]),
        ('`two words` in ("c ""d""", x)', [1, 2]),
        ("kind == p", [0, 2]),
        ("genus > B", [1]),
        ("genus>=Apis and(year<=2015)", [0, 1]),
    ],
)
def test_rows_that_are_selected(text, expected):
    assert rows(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("genuss == Apis", r"t\.csv has no column 'genuss', which `keep` names: did you mean genus\?"),
        ("genus", "after 'genus': it needs ==, .* and has 'its end'"),
        ("genus ==", "after 'genus ==': it needs a value"),
        ("genus == Apis mellifera", "after 'genus == Apis': it needs and, or, or the end, and has 'mellifera'"),
        ("genus == Apis,", "and has ','"),
        ("(genus == Apis", r"it needs and, or, or \)"),
        ("genus in Apis", r"it needs \( and a list of values"),
        ("genus in (Apis, )", "it needs a value"),
        ("genus in (Apis mellifera)", "a value of several words stands in quotes"),
        ("genus is Apis", "it needs null"),
        ("and genus == Apis", "at its beginning: it needs the name of a column, and has 'and'"),
        ("== Apis", "at its beginning"),
        ("genus == 'Apis", "after 'genus ==': it needs a column, a value or an operator"),
        ("__import__('os')", "it needs ==, "),
        ("year == old", r"keep=year == old: column 'year' needs a number, not 'old' \(t\.csv\)"),
        ("year == 99999999999999999999", "needs a whole number of at most 64 bits"),
        ("year in (2010, 2014.5)", "needs a whole number of at most 64 bits, not '2014.5'"),
        ("year == nan", "column 'year' needs a number, not 'nan'"),
        ("weight < inf", "column 'weight' needs a number, not 'inf'"),
        ("red == maybe", "needs true or false"),
        ("on > 2015", "needs a date such as 2024-01-31"),
        ("on > 2015-13-01", "needs a date"),
        ("genus > 5", "column 'genus' holds text, so 5 would be compared letter by letter"),
        ("(" * (MAX_DEPTH + 2) + "year == 1", "more than 50 brackets"),
        ("not " * 60 + "year == 1", "more than 50 times not"),
        ("year == 1 " * 20_000, "more than 100000"),
    ],
)
def test_mistakes_show_their_place(text, message):
    with pytest.raises(ValueError, match=message):
        rows(text)


def test_large_whole_numbers_of_a_parquet_file_are_compared_with_a_fraction(tmp_path):
    """pyarrow alone turns the column into float32, and fails above 2^24."""
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"id": pa.array([1, 2**40, 2**60])}), path)
    where = parse("id > 1.5", argument="keep").expression(pq.read_schema(path), file="t.parquet")
    assert ds.dataset(path).scanner(filter=where).to_table()["id"].to_pylist() == [2**40, 2**60]


def test_no_condition():
    assert parse("  ", argument="keep") is None


def test_its_columns():
    assert parse("b == 1 and (a in (2) or not b is null)", argument="keep").columns == ["b", "a"]


@settings(max_examples=25, deadline=None)
@given(st.text(alphabet="ab =!<>()'\"`,1.-\\\n", max_size=30))
def test_any_text_is_a_condition_or_a_sentence(text):
    try:
        condition = parse(text, argument="keep")
        if condition:
            condition.expression(TABLE.schema, file="t.csv")
    except ValueError as error:
        assert "keep" in str(error)


@settings(max_examples=25, deadline=None)
@given(st.text(min_size=1, max_size=20).filter(lambda text: "\0" not in text))
def test_every_text_can_be_quoted(text):
    table = pa.table({"a": [text, text + "x"]})
    quoted = "'" + text.replace("'", "''") + "'"
    expression = parse(f"a == {quoted}", argument="keep").expression(table.schema, file="")
    assert table.filter(expression)["a"].to_pylist() == [text]
