"""Counts and lists in the sentences of a report."""

import numpy as np

SHOWN = 10  # of anything that can be long; inspect.json has all


def number_of(count: int, word: str) -> str:
    plural = "es" if word.endswith("s") else "s"
    return f"{count} {word}{plural if count != 1 else ''}"


def some_of(names: np.ndarray, word: str) -> str:
    """`3 classes (a, b, c)`, a long list cut off."""
    more = ", ..." if len(names) > SHOWN else ""
    return f"{number_of(len(names), word)} ({', '.join(names[:SHOWN])}{more})"
