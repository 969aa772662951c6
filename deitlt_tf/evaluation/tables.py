"""Accuracies as tables: a line that defines head, mid and tail, then a row for each model and head, or rank."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from tqdm import tqdm

from deitlt_tf.evaluation import hierarchy, metrics


def describe_groups(class_counts: ArrayLike, convention: str) -> str:
    """One line that defines head, mid and tail for these training counts. Arguments: see `metrics.groups`.

    >>> describe_groups([500, 60, 8, 3], "shots")
    'shots: head = many, > 100 images (1 class), mid = medium, 20..100 (1 class), tail = few, < 20 (2 classes)'
    >>> describe_groups([500, 60, 8, 3], "paper")
    'rank: head = 30 % most frequent (1 class), mid = between (2 classes), tail = 30 % rarest (1 class)'
    >>> describe_groups([50, 40], "paper")
    'rank: the classes are about equally frequent (40 to 50 images): there is no head and no tail'
    """
    title = convention_title(class_counts, convention)
    if convention == "shots":
        words = ("many, > 100 images", "medium, 20..100", "few, < 20")
    elif not metrics.is_long_tailed(class_counts):
        smallest, largest = np.min(class_counts), np.max(class_counts)
        images = f"{smallest} to {largest} images" if smallest < largest else f"{largest} images each"
        return f"{title}: the classes are about equally frequent ({images}): there is no head and no tail"
    else:
        words = ("most frequent", "between", "rarest")
        if title == "rank":
            words = ("30 % most frequent", "between", "30 % rarest")
    sizes = [len(members) for members in metrics.groups(class_counts, convention).values()]
    parts = [
        f"{group} = {word} ({size} class{'' if size == 1 else 'es'})"
        for group, word, size in zip(metrics.GROUPS, words, sizes, strict=True)
    ]
    return f"{title}: " + ", ".join(parts)


def convention_title(class_counts: ArrayLike, convention: str) -> str:
    """What a convention of `metrics.groups` is called: "paper" is "rank" unless the data are those of the paper."""
    return "rank" if convention == "paper" and not metrics.paper_cuts(class_counts) else convention


def format_table(rows: Mapping[str, Mapping[str, float | None]], *, title: str) -> str:
    """Rows CLS / DIST / mean / ..., columns overall / balanced / head / mid / tail, top-1 accuracy in percent.

    A number that is None or missing (a results.json of an earlier version has no "balanced") is printed as "-".
    """
    width = max(len(name) for name in rows)
    lines = [title, " ".join([" " * width, *(f"{column:>8}" for column in metrics.COLUMNS)])]
    for name, row in rows.items():
        cells = (row.get(column) for column in metrics.COLUMNS)
        lines.append(" ".join([f"{name:<{width}}", *(f"{'-' if x is None else f'{x:.1f}':>8}" for x in cells)]))
    return "\n".join(lines)


def format_intervals(rows: Mapping[str, Mapping[str, Mapping[str, float] | None]], *, title: str) -> str:
    """The same table with intervals: "84.5 (83.8-85.2)". rows: {name: {column: {value, low, high} or None}}, percent.

    >>> row = {column: {"value": 84.5, "low": 83.8, "high": 85.2} for column in ("overall", "tail")}
    >>> print(format_intervals({"LA": row}, title="top-1"))
    top-1
                overall         balanced             head              mid             tail
    LA 84.5 (83.8-85.2)                -                -                - 84.5 (83.8-85.2)
    """
    width = max(len(name) for name in rows)

    def cell(bound: Mapping[str, float] | None) -> str:
        return "-" if bound is None else f"{bound['value']:.1f} ({bound['low']:.1f}-{bound['high']:.1f})"

    lines = [title, " ".join([" " * width, *(f"{column:>16}" for column in metrics.COLUMNS)])]
    for name, row in rows.items():
        lines.append(" ".join([f"{name:<{width}}", *(f"{cell(row.get(c)):>16}" for c in metrics.COLUMNS)]))
    return "\n".join(lines)


def print_tables(rows: Mapping[str, Mapping[str, Mapping[str, float | None]]], class_counts: ArrayLike) -> None:
    """Print one table for each convention. rows: {name: {convention: {each of `metrics.COLUMNS`}}}, percent."""
    for convention in ("shots", "paper"):
        title = "top-1 accuracy, %; " + describe_groups(class_counts, convention)
        tqdm.write("\n" + format_table({name: row[convention] for name, row in rows.items()}, title=title))


def rows_of(prefix: str, measured: metrics.Accuracies) -> dict[str, dict[str, dict[str, float | None]]]:
    """The accuracies of one model as table rows, {"prefix head": {convention: row}}; "prefix" where it has one head.

    >>> rows_of("student", {"shots": {"cls": {"overall": 50.0}, "dist": {"overall": 60.0}}})
    {'student CLS': {'shots': {'overall': 50.0}}, 'student DIST': {'shots': {'overall': 60.0}}}
    """
    names = names_of(prefix, next(iter(measured.values())))
    return {name: {c: measured[c][head] for c in measured} for head, name in names.items()}


def names_of(prefix: str, heads: Iterable[str]) -> dict[str, str]:
    """{head: name of its row}: "student CLS", ...; the prefix alone where there is one head."""
    labels = {"cls": "CLS", "dist": "DIST", "mean": "mean"}
    heads = list(heads)
    return {head: f"{prefix} {labels[head]}" if len(heads) > 1 else prefix for head in heads}


def by_rank_rows(results: Mapping[str, Any], titles: Mapping[str, str]) -> dict[str, hierarchy.Summary]:
    """{name of a row: `hierarchy.summary`} of all heads of the models of a results.json; {} without a taxonomy.

    titles: {name of a model there: start of the name of its rows}, in the order of the rows.
    """
    models = results.get("taxonomy", {}).get("models", {})
    return {
        row: models[model][head]
        for model, title in titles.items()
        for head, row in names_of(title, models.get(model, {})).items()
    }


def print_by_rank(
    rows: Mapping[str, hierarchy.Summary],
    class_counts: ArrayLike,
    *,
    differences: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Print accuracy by rank and severity of mistakes, with intervals.

    rows: {name: `hierarchy.summary`}. differences: {name: `hierarchy.nearer`}.
    """
    if rows:
        tqdm.write("\n" + by_rank(rows, class_counts))
    if differences:
        cells = {
            f"{name}, {of}": _cells(bounds["paper"], "{:+.2f}")
            for name, both in differences.items()
            for of, bounds in (("mistakes", both["mistakes"]), ("all images", both["images"]))
        }
        tqdm.write("\n" + _table(cells, title="differences of mean heights, on the same images; below 0: nearer"))


def by_rank(rows: Mapping[str, hierarchy.Summary], class_counts: ArrayLike) -> str:
    """Two tables: accuracy by rank, and heights of answers, of each of `rows`, {name: `hierarchy.summary`}.

    The columns are those of the second convention. A dash stands for a column without test images or mistakes.
    """
    groups = describe_groups(class_counts, "paper")
    ranks = list(next(iter(rows.values()))["accuracy"])
    accuracies = {
        f"{name}, {rank}": _cells(bounds["paper"], "{:.1f}")
        for name, row in rows.items()
        for rank, bounds in row["accuracy"].items()
    }
    heights: dict[str, list[str]] = {}
    for name, row in rows.items():
        heights[f"{name}, mistakes"] = _cells(row["mistakes"]["paper"], "{:.2f}")
        heights[f"{name}, uniformly wrong"] = _cells(row["uniform"]["paper"], "{:.2f}")
        heights[f"{name}, all images"] = _cells(row["images"]["paper"], "{:.2f}")
    return "\n\n".join(
        [
            _table(accuracies, title=f"accuracy by rank, %, with 95 % intervals; {groups}"),
            _table(heights, title=f"mean height of answers: {describe_heights(ranks)}"),
        ]
    )


def print_rollup(name: str, measured: Mapping[str, Any], class_counts: ArrayLike) -> None:
    """Print coverage against accuracy by threshold. name: of the row. measured: `rollup.measured`."""
    tqdm.write("\n" + format_rollup(name, measured, class_counts))


def format_rollup(name: str, measured: Mapping[str, Any], class_counts: ArrayLike) -> str:
    """A table by threshold, then one by group for the chosen threshold. Arguments: as of `print_rollup`."""
    curve, target = measured["curve"], f"{100 * measured['target']:g} %"
    ranks = list(curve[0]["coverage"])
    rows = {
        f"{row['threshold']:g}": [_percent(row["accuracy"]), *(_percent(row["coverage"][rank]) for rank in ranks)]
        for row in curve
    }
    title = (
        f"{name}: the finest rank whose probability reaches a threshold; % of the answers right, % of images by rank"
    )
    text = _table(rows, title=title, columns=["right", *ranks], corner="threshold")
    if not measured["validation"]:
        return f"{text}\nNo threshold is chosen: the data have no validation split (--val_fraction)."
    if measured["threshold"] is None:
        return f"{text}\nNo threshold up to 0.99 makes {target} of the answers right on the validation split."
    columns = [measured["columns"].get(column) for column in metrics.COLUMNS]
    rows = {"right": [_percent(column and column["accuracy"]) for column in columns]}
    rows |= {rank: [_percent(column and column["coverage"][rank]) for column in columns] for rank in ranks}
    title = (
        f"{name}: threshold {measured['threshold']:g}, at which {target} of the answers are right on the validation "
        f"split; {describe_groups(class_counts, 'paper')}"
    )
    return f"{text}\n\n{_table(rows, title=title)}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def describe_heights(ranks: Sequence[str]) -> str:
    """What the heights of answers mean.

    >>> describe_heights(["species", "genus", "family"])
    '0 = right, 1 = right genus, 2 = right family, 3 = not even that'
    """
    words = [f"{height} = right {rank}" for height, rank in enumerate(ranks[1:], start=1)]
    return ", ".join(["0 = right", *words, f"{len(ranks)} = not even that" if words else "1 = wrong"])


def _cells(row: Mapping[str, Any], form: str) -> list[str]:
    """A cell for each column of the tables. row: {column: {value, low, high}, a number, or None}. form: of a number."""

    def cell(x: Any) -> str:
        if x is None:
            return "-"
        if isinstance(x, dict):
            to = " to " if "+" in form else "-"
            return f"{form.format(x['value'])} ({form.format(x['low'])}{to}{form.format(x['high'])})"
        return form.format(x)

    return [cell(row.get(column)) for column in metrics.COLUMNS]


def _table(
    rows: Mapping[str, Sequence[str]], *, title: str, columns: Sequence[str] = metrics.COLUMNS, corner: str = ""
) -> str:
    """Rows of cells under the names of the columns, aligned. corner: name of the column of the names."""
    lines: dict[str, Sequence[str]] = {corner: columns} | dict(rows)
    width = max(map(len, lines))
    widths = [max(map(len, column)) for column in zip(*lines.values(), strict=True)]
    texts = [
        " ".join([f"{name:<{width}}", *(f"{cell:>{size}}" for cell, size in zip(cells, widths, strict=True))])
        for name, cells in lines.items()
    ]
    return "\n".join([title, *texts])
