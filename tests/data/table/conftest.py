"""The rows of a table that are used, for the tests of this folder."""

import pytest
from helpers.tables import write_csv

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
