"""Choices among the rows of a table: each image once, its group, and how many images a class has."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from deitlt_tf.data.dataset import Complain, Note, and_more
from deitlt_tf.data.table import keys, names
from deitlt_tf.data.table.conditions import Condition
from deitlt_tf.data.table.files import TableFile

if TYPE_CHECKING:
    import pyarrow as pa

RUN_LENGTH = 10  # mean length of runs of ids, from which on the ids are a plain numbering


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a table, in its order.

    ids: int64 [N], 0..keys.LARGEST, one key for each image: its number, or a hash of its name.
    index: int64 [N], the row among those that fulfil `keep`. taxa: int32 [N], an index of `lineages`.
    groups: int64 [N], keys of observations, cameras, ...: images that one split should have together.
    test: bool [N], whether the row fulfils `test_where`. keep: the condition that the rows fulfil.
    lineages: of the taxa, from the root to the rank of the classes. paths: large_string [N], or None.
    """

    ids: np.ndarray
    index: np.ndarray
    taxa: np.ndarray
    groups: np.ndarray
    test: np.ndarray
    lineages: list[names.Lineage]
    paths: "pa.Array | None" = None
    keep: Condition | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def at(self, chosen: np.ndarray) -> "Rows":
        """The rows at these indices or where this mask is true, in their order."""
        if chosen.dtype == bool:
            if chosen.all():
                return self
            chosen = np.flatnonzero(chosen)
        arrays = {name: getattr(self, name)[chosen] for name in ("ids", "index", "taxa", "groups", "test")}
        return replace(self, **arrays, paths=None if self.paths is None else self.paths.take(indices_of(chosen)))


def indices_of(chosen: np.ndarray) -> "pa.Array":
    import pyarrow as pa

    return pa.array(chosen)


def named(files: Sequence[TableFile]) -> str:
    return files[0].path + (f" and {len(files) - 1} more files" if len(files) > 1 else "")


def each_once(rows: Rows, *, complain: Complain, note: Note) -> Rows:
    """Rows with each image once; `complain` is called for images of two classes, which then are left out."""
    order = np.argsort(rows.ids, kind="stable")
    ids, taxa = rows.ids[order], rows.taxa[order]
    again = np.concatenate([[False], ids[1:] == ids[:-1]])
    if not again.any():
        return rows
    differing = np.unique(ids[1:][again[1:] & (taxa[1:] != taxa[:-1])])
    if differing.size:
        twice = np.flatnonzero(rows.ids == differing[0])
        both = " and as ".join(repr(rows.lineages[rows.taxa[i]][-1]) for i in twice[:2])
        what = rows.paths[int(twice[0])].as_py() if rows.paths is not None else f"image {differing[0]}"
        complain(ValueError(f"the table has {what} as {both}: an image has one class{and_more(differing)}"))
    chosen = ~again
    chosen &= ~np.isin(ids, differing)
    if not chosen.any():
        raise ValueError("no image of the table has only one class.")
    # An image is held out for the test if one of its rows is.
    test = np.logical_or.reduceat(rows.test[order], np.flatnonzero(~again))
    held = np.zeros(len(rows), bool)
    held[order[~again]] = test
    if repeated := int(again.sum()):
        note(f"{repeated} rows repeat an image of another row, and each image counts once.")
    return replace(rows, test=held).at(np.sort(order[chosen]))


def grouped(rows: Rows, files: Sequence[TableFile], *, split_by: str, drawn: bool, note: Note) -> Rows:
    """Rows with groups, also where no column has them: then runs of neighbouring ids stand in.

    drawn: whether the test set is drawn, and not what the user says.
    """
    if not rows.groups.any():
        rows = replace(rows, groups=_stand_in(rows))
        where = f"{named(files)} has no column of observations"
        count = len(np.unique(rows.groups))
        if not drawn and count == len(rows):
            note(f"{where}: whether test images share one with training images is not known.")
        elif count == len(rows) and not _numbered(rows):
            note(
                f"{where}, and its ids are no numbers of uploads: images are split one by one. Photos of one animal "
                "then are in training and test, and accuracy is too high."
            )
        else:
            note(
                f"{where}: runs of ids that differ by at most {keys.NEIGHBOURS} stand in for them, "
                f"{count} runs of {len(rows)} images."
            )
    if split_by == "photo" and drawn:
        sizes = np.unique(rows.groups, return_counts=True)[1]
        shared = int(sizes[sizes > 1].sum())
        note(
            f"split_by=photo splits images one by one, and {shared} of {len(rows)} images have another one of their "
            "observation in the table: test images are like training images, and accuracy is too high."
        )
    return rows


def _numbered(rows: Rows) -> bool:
    """Whether ids are numbers of uploads, and not hashes of texts or a plain numbering of the rows."""
    if rows.paths is not None or rows.ids.max(initial=0) > 10**17:
        return False
    span = int(rows.ids.max()) - int(rows.ids.min()) + 1
    return len(rows) < 2 or span > len(rows) or len(np.unique(keys.runs(rows.ids, rows.taxa))) * RUN_LENGTH > len(rows)


def _stand_in(rows: Rows) -> np.ndarray:
    """Groups of images without a column of groups: runs of ids, or each image alone."""
    if not _numbered(rows):
        return keys.alone(rows.ids)
    for within in (None, rows.taxa):  # of one class, where the ids are so dense that runs would hardly end
        groups = keys.runs(rows.ids, within)
        if len(np.unique(groups)) * RUN_LENGTH > len(rows):
            return groups
    return keys.alone(rows.ids)


def without_small_classes(rows: Rows, min_images: int, *, rank: str, note: Note) -> Rows:
    """Rows of classes with at least `min_images`. Raises ValueError if no class is left."""
    counts = np.bincount(rows.taxa, minlength=len(rows.lineages))
    large = counts >= max(1, min_images)
    if not large.any():
        raise ValueError(f"min_images={min_images}: no {rank} has that many images, the most is {counts.max()}.")
    there = counts > 0
    if (dropped := there & ~large).any():
        note(
            f"{dropped.sum()} of {there.sum()} classes have fewer than {min_images} images and are left out, with "
            f"{counts[dropped].sum()} of {len(rows)} images (`min_images`)."
        )
    return rows.at(large[rows.taxa])


def at_most(rows: Rows, max_images: int, *, seed: int, rank: str, note: Note) -> Rows:
    """Rows with at most `max_images` of a class: one of each group first, then a second one, drawn with the seed."""
    drawn = keys.mixed(rows.ids, seed=keys.seed_of(f"max_images {seed}"))
    order = np.lexsort([drawn, rows.groups, rows.taxa])
    taxa, groups = rows.taxa[order], rows.groups[order]
    new = np.concatenate([[True], (taxa[1:] != taxa[:-1]) | (groups[1:] != groups[:-1])])
    numbers = np.arange(len(rows))
    place = np.empty(len(rows), np.int64)  # of an image in its group and class
    place[order] = numbers - np.maximum.accumulate(np.where(new, numbers, 0))
    drawn_groups = keys.mixed(rows.groups, seed=keys.seed_of(f"max_images of groups {seed}"))
    order = np.lexsort([drawn, drawn_groups, place, rows.taxa])
    taxa = rows.taxa[order]
    new = np.concatenate([[True], taxa[1:] != taxa[:-1]])
    in_class = numbers - np.maximum.accumulate(np.where(new, numbers, 0))
    chosen = np.sort(order[in_class < max_images])
    if len(chosen) < len(rows):
        full = int((np.bincount(rows.taxa) > max_images).sum())
        note(f"{full} classes have more than {max_images} images and keep that many: {len(chosen)} of {len(rows)}.")
    return rows.at(chosen)
