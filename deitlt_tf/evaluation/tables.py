"""Accuracies as tables: a line that defines head, mid and tail, then a row for each model and head."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike
from tqdm import tqdm

from deitlt_tf.evaluation import metrics


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
    labels = {"cls": "CLS", "dist": "DIST", "mean": "mean"}
    heads = next(iter(measured.values()))
    names = {head: f"{prefix} {labels[head]}" if len(heads) > 1 else prefix for head in heads}
    return {names[head]: {c: measured[c][head] for c in measured} for head in heads}
