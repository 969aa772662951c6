"""Accuracies as text: what the groups are, rows of models and heads, columns that line up."""

from deitlt_tf.evaluation import tables


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
