"""Large JSON, read one element at a time."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deitlt_tf.tabulate import json_stream

VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("json") / "x.json"


@settings(max_examples=25, deadline=None)
@given(
    value=st.dictionaries(st.text(max_size=4), VALUES, max_size=4),
    piece=st.integers(1, 40),
    indent=st.sampled_from([None, 1]),
)
def test_all_elements_of_any_object_come_in_pieces_of_any_size(path, value, piece, indent):
    path.write_text(json.dumps(value, indent=indent))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "PIECE", piece)
        found = list(json_stream.elements(str(path)))
    expected = [(k, x) for k, v in value.items() for x in (v if isinstance(v, list) else [v])]
    assert found == expected


def test_a_list_and_a_mark_at_the_beginning(path):
    path.write_text('\ufeff [1, {"a": 2}, 30]')
    assert list(json_stream.elements(str(path))) == [("", 1), ("", {"a": 2}), ("", 30)]
    path.write_text(" {} ")
    assert list(json_stream.elements(str(path))) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"needs \{ or \[ and ends"),
        ('{"a": [1, 2', r"needs , or \] and ends: it may be cut off"),
        ('{"a": [1, 2}', r"needs , or \] and has '}'"),
        ('{"a" 1}', "needs : and has '1}'"),
        ("{1: 2}", "needs a name in quotes"),
        ('{"a": wrong}', "needs a value"),
        ('{"a": ' + "[" * 100_000, "needs fewer values inside each other|needs a value"),
    ],
)
def test_other_texts_are_named(path, text, message):
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"x\.json is not JSON: at character \d+ it ({message})"):
        list(json_stream.elements(str(path)))


def test_an_endless_element_and_other_encodings(path, monkeypatch):
    monkeypatch.setattr(json_stream, "PIECE", 100)
    monkeypatch.setattr(json_stream, "LONGEST", 1000)
    path.write_text('{"a": "' + "x" * 5000)
    with pytest.raises(ValueError, match="an element of more than 1000 characters"):
        list(json_stream.elements(str(path)))
    path.write_bytes(b'{"a": "caf\xe9"}')
    with pytest.raises(ValueError, match="is not UTF-8 text"):
        list(json_stream.elements(str(path)))
