"""Accuracies as text: what the groups are, rows of models and heads, columns that line up."""

import numpy as np

from deitlt_tf.data.taxonomy import from_lineages
from deitlt_tf.evaluation import hierarchy, tables


def test_describe_groups_says_what_is_what():
    text = tables.describe_groups([200, 50, 50, 3], "shots")
    assert "> 100" in text and "(1 class)" in text.replace("(1 classes)", "(1 class)") and "(2 classes)" in text


def test_the_second_convention_is_called_paper_for_the_papers_data_only():
    cifar = [int(5000 * 0.01 ** (i / 9)) for i in range(10)]
    assert tables.describe_groups(cifar, "paper").startswith("paper: head = most frequent (3 classes), mid")
    own = tables.describe_groups([900, 70, 60, 50, 9], "paper")
    assert own == "rank: head = 30 % most frequent (2 classes), mid = between (1 class), tail = 30 % rarest (2 classes)"


def test_a_balanced_set_is_told_that_it_has_no_tail():
    text = tables.describe_groups([50, 44, 40], "paper")
    assert "about equally frequent (40 to 50 images): there is no head and no tail" in text and "classes)" not in text


def test_table_has_aligned_rows():
    rows = {
        "CLS": {"overall": 51.25, "balanced": 33.0, "head": 100.0, "mid": 0.04, "tail": None},
        # the results.json of an earlier version
        "student mean": {"overall": 9.0, "head": 8.0, "mid": 7.0, "tail": 6.0},
    }
    title, header, first, second = tables.format_table(rows, title="top-1").splitlines()
    assert title == "top-1" and header.split() == ["overall", "balanced", "head", "mid", "tail"]
    assert first.split() == ["CLS", "51.2", "33.0", "100.0", "0.0", "-"]
    assert second.split() == ["student", "mean", "9.0", "-", "8.0", "7.0", "6.0"]
    assert len({len(line) for line in (header, first, second)}) == 1


def test_rows_have_the_names_of_their_heads():
    row = {"overall": 1.0, "head": 2.0, "mid": 3.0, "tail": 4.0}
    two = {convention: {"cls": row, "dist": row, "mean": row} for convention in ("shots", "paper")}
    assert list(tables.rows_of("student", two)) == ["student CLS", "student DIST", "student mean"]
    one = {convention: {"cls": row} for convention in ("shots", "paper")}
    assert tables.rows_of("teacher", one) == {"teacher": {"shots": row, "paper": row}}


def test_both_conventions_are_printed(capsys):
    row = {"overall": 1.0, "head": 2.0, "mid": 3.0, "tail": None}
    tables.print_tables({"ViT": {"shots": row, "paper": row}}, [200, 50, 3])
    printed = capsys.readouterr().out
    assert printed.count("ViT") == 2
    for convention in ("shots", "paper"):
        assert f"top-1 accuracy, %; {tables.describe_groups([200, 50, 3], convention)}" in printed


# ---- ranks of a taxonomy ---------------------------------------------------------------------------------------------

TAXONOMY = from_lineages([("a", "A"), ("b", "A"), ("c", "B")], ("species", "genus"))


def test_tables_by_rank_have_a_dash_where_nothing_is_wrong():
    right, total = np.array([[4, 1, 0], [4, 3, 0]]), np.array([4, 4, 4])
    row = hierarchy.summary(right, total, [300, 30, 3], TAXONOMY, resamples=50)
    accuracy, heights = tables.by_rank({"teacher": row}, [300, 30, 3]).split("\n\n")
    title, header, species, genus = accuracy.splitlines()
    assert title.startswith("accuracy by rank, %, with 95 % intervals; rank: head = ")
    assert header.split() == ["overall", "balanced", "head", "mid", "tail"]
    assert species.startswith("teacher, species 41.7 (") and genus.startswith("teacher, genus   58.3 (")
    title, _, mistakes, uniform, images = heights.splitlines()
    assert title == "mean height of answers: 0 = right, 1 = right genus, 2 = not even that"
    assert mistakes.split()[-5] == "-" and uniform.split()[-3:] == ["-", "1.50", "2.00"]  # the head has no mistake
    assert " 2.00 (" in mistakes and " 0.00 (" in images
    assert len({len(line) for line in (mistakes, uniform, images)}) == 1


def test_rows_by_rank_are_those_of_results():
    models = {"raw": {"cls": {"accuracy": 1}, "dist": {"accuracy": 2}}, "teacher": {"cls": {"accuracy": 3}}}
    rows = tables.by_rank_rows({"taxonomy": {"models": models}}, {"teacher": "teacher", "raw": "student", "ema": "EMA"})
    assert rows == {
        "teacher": {"accuracy": 3}, "student CLS": {"accuracy": 1}, "student DIST": {"accuracy": 2},
    }  # fmt: skip
    assert tables.by_rank_rows({"raw": {}}, {"raw": "student"}) == {}


def test_the_roll_up_is_a_table_by_threshold_and_one_by_group():
    row = {"coverage": {"species": 0.5, "genus": 0.25, "nothing": 0.25}, "accuracy": 0.9}
    measured = {"curve": [{"threshold": 0.8} | row, {"threshold": 0.95} | row | {"accuracy": None}], "target": 0.9}
    without = tables.format_rollup("mean", measured | {"validation": False, "threshold": None}, [300, 30, 3])
    assert without.splitlines()[1:] == [
        "threshold right species genus nothing",
        "0.8        90.0    50.0  25.0    25.0",
        "0.95          -    50.0  25.0    25.0",
        "No threshold is chosen: the data have no validation split (--val_fraction).",
    ]
    none = tables.format_rollup("mean", measured | {"validation": True, "threshold": None}, [300, 30, 3])
    assert none.endswith("No threshold up to 0.99 makes 90 % of the answers right on the validation split.")
    columns = {"overall": row, "head": row, "tail": None}
    chosen = {"validation": True, "threshold": 0.8, "columns": columns}
    text = tables.format_rollup("mean", measured | chosen, [300, 30, 3])
    assert "threshold 0.8, at which 90 % of the answers are right on the validation" in text
    assert "right      90.0        - 90.0   -    -" in text
