"""Counts and lists in the sentences of a report."""

import numpy as np

MAX_LISTED = 10  # items of a long list that are printed; inspect.json has all


def number_of(count: int, word: str) -> str:
    """`1 image`, `2 images`, `2 classes`."""
    plural = "es" if word.endswith("s") else "s"
    return f"{count} {word}{plural if count != 1 else ''}"


def some_of(names: np.ndarray, word: str) -> str:
    """`3 classes (a, b, c)`; after MAX_LISTED names the list ends with `...`."""
    more = ", ..." if len(names) > MAX_LISTED else ""
    return f"{number_of(len(names), word)} ({', '.join(names[:MAX_LISTED])}{more})"
