"""The unit of an imported head that belongs to each class: the official code sorts some data sets by frequency.

An order is int64 [C]: order[c] is the unit of class c of the data. The official code calls it `class_map`.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

SMALL = 16  # NumPy sorts partitions of at most this many values by insertion


def official(class_counts: Sequence[int] | np.ndarray) -> np.ndarray:
    """order[class] = rank of its count, largest first; equal counts are ranked as by NumPy before 1.25. [C] -> [C].

    The official code sorts with `np.argsort(-counts)`, which is not stable: the order of equal counts, frequent in a
    long tail, depends on the sorting algorithm. Its environment has NumPy 1.24, so we repeat that version's quicksort.
    From 1.25 on NumPy sorts with vector instructions, and the result depends on the processor.
    Source: val-iisc/DeiT-LT datasets.py (KD_IMAGENETLT, KD_INAT2018), environment.yml; Saddle-LongTail datasets.
    """
    classes = _quicksort([-int(count) for count in class_counts])
    order = np.empty(len(classes), np.int64)
    order[classes] = np.arange(len(classes))
    return order


def _quicksort(values: list[int]) -> list[int]:
    """np.argsort(values) of NumPy 1.24 and before: median of three, equal values swapped, insertion at the end.

    NumPy changes to heapsort where 2 log2(N) partitions in a row are lopsided; this function does not.
    Source: numpy/core/src/npysort/quicksort.cpp (aquicksort).
    """
    index = list(range(len(values)))

    def swap_if_less(a: int, b: int) -> None:
        if values[index[a]] < values[index[b]]:
            index[a], index[b] = index[b], index[a]

    parts = [(0, len(values) - 1)]
    while parts:
        low, high = parts.pop()
        if high - low < SMALL:
            index[low : high + 1] = sorted(index[low : high + 1], key=values.__getitem__)  # stable, as insertion is
            continue
        middle = (low + high) // 2
        swap_if_less(middle, low)
        swap_if_less(high, middle)
        swap_if_less(middle, low)
        pivot = values[index[middle]]
        index[middle], index[high - 1] = index[high - 1], index[middle]
        i, j = low, high - 1
        while True:
            i, j = i + 1, j - 1
            while values[index[i]] < pivot:
                i += 1
            while pivot < values[index[j]]:
                j -= 1
            if i >= j:
                break
            index[i], index[j] = index[j], index[i]
        index[i], index[high - 1] = index[high - 1], index[i]
        parts += [(low, i - 1), (i + 1, high)]
    return index


def checked(order: ArrayLike, *, num_classes: int, source: str) -> np.ndarray:
    """`order` as int64 [C]. Raises ValueError, naming `source`, unless it has every unit 0..C-1 exactly once."""
    units = np.asarray(order)
    whole = units.dtype.kind in "iu" and units.ndim == 1
    if not whole or not np.array_equal(np.sort(units), np.arange(num_classes)):
        raise ValueError(f"{source} is no order of {num_classes} classes: it needs each of 0..{num_classes - 1} once.")
    return units.astype(np.int64)


def read(path: Path, *, num_classes: int) -> np.ndarray:
    """The order in a text file of C whole numbers, one a line: line c (from 0) is the unit of class c of the data.

    Raises FileNotFoundError for a missing file, ValueError for a file of anything else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"class_order={path}: there is no such file.")
    try:
        order = [int(line) for line in path.read_text().split()]
    except ValueError as error:  # of int(), or text that is not UTF-8
        raise ValueError(f"class_order={path} is not a file of one whole number a line ({error}).") from error
    return checked(order, num_classes=num_classes, source=f"class_order={path}")
