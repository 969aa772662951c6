"""Images that a table describes: Parquet, CSV or TSV with one row an image, as BioTrove, GBIF and iNaturalist have it.

No image is opened here. Ids and labels are integers, paths are formed when an image is read.
"""

import os
from collections.abc import Sequence

import numpy as np

from deitlt_tf.data import storage
from deitlt_tf.data.dataset import Complain, Note, Source, Splits, parts_of_groups, print_note, raise_mistake
from deitlt_tf.data.paths import Paths
from deitlt_tf.data.table import choices, columns, conditions, images, journal, selection
from deitlt_tf.data.table.choices import Rows
from deitlt_tf.data.table.files import TableFile, open_files
from deitlt_tf.data.taxonomy import Taxonomy, from_lineages


def read(
    *,
    table: Sequence[str] | None,
    data_dir: str | None,
    image_root: str | None = None,
    rank: str = "species",
    keep: str = "",
    min_images: int = 1,
    max_images: int = 0,
    split_by: str = "observation",
    test_where: str = "",
    test_fraction: float = 0.2,
    split_seed: int = 0,
    complain: Complain = raise_mistake,
    note: Note = print_note,
) -> Splits:
    """The images of a table, whose groups (observations, cameras, ...) each lie in one split.

    table: files, patterns and folders, see `table.files.paths_of`. Columns are known by the names of `table.columns`.
    data_dir: folder of the images, filled by `fetch`, or the one that the paths of the table start from.
    image_root: folder below data_dir that the paths start from.
    rank: of the classes: species, genus, ..., kingdom, or another column whose values are the classes.
    keep: the rows that are used, all others: none; test_where: the rows that are the test set. See `table.conditions`.
    min_images, max_images, split_by: see `table.selection.select`.
    test_fraction, split_seed: share of each class that becomes the test set where test_where is empty, and its seed.
    complain: called for an image with two classes, and for missing images that `fetch` has not given up.
    note: gets a sentence on all that is left out, joined or stands in for something else.
    Raises ValueError or FileNotFoundError that names file, column or row.
    """
    files = open_table(table)
    if not data_dir:
        raise ValueError("`data_dir` is missing: source table needs the folder of the images, which fetch fills.")
    root = storage.join(os.path.expanduser(data_dir), image_root) if image_root else os.path.expanduser(data_dir)
    if not storage.is_dir(root):
        raise FileNotFoundError(f"data_dir={root} is not a folder: it should hold the images of the table (fetch).")
    fetched = not storage.is_url(root) and os.path.isfile(os.path.join(root, journal.FILE))
    rows = choose(
        files,
        rank=rank,
        keep=keep,
        test_where=test_where,
        split_by=split_by,
        min_images=min_images,
        max_images=max_images,
        split_seed=split_seed,
        by_path=not fetched and all("path" in file.roles for file in files),
        complain=complain,
        note=note,
    )
    rows, paths = _with_files(rows, root, complain=complain, note=note)
    rows, paths = _without_gone_classes(rows, paths, min_images=min_images, rank=rank, note=note)
    if test_where:
        train, test = _apart(rows, by_group=split_by != "photo", note=note)
    else:
        test = parts_of_groups(
            rows.groups if split_by != "photo" else paths.stable_keys,
            rows.taxa,
            test_fraction,
            seed=split_seed,
            argument="test_fraction",
        )
        train = ~test
    return _splits(rows, paths, train=train, test=test, rank=rank, note=note)


def open_table(table: Sequence[str] | None) -> list[TableFile]:
    """The files of a table. Raises ValueError if there are none, and as `open_files` does."""
    if not table:
        raise ValueError("`table` is missing: source table needs Parquet, CSV or TSV files with one row an image.")
    return open_files(table)


def choose(
    files: Sequence[TableFile],
    *,
    rank: str,
    keep: str,
    test_where: str,
    split_by: str,
    min_images: int,
    max_images: int,
    split_seed: int,
    by_path: bool,
    complain: Complain,
    note: Note,
) -> Rows:
    """The rows that `read` takes, whether or not their images are there: `fetch` downloads these. See `select`."""
    return selection.select(
        files,
        rank=rank.lower() if rank.lower() in columns.RANKS else rank,
        keep=conditions.parse(keep, argument="keep"),
        test_where=conditions.parse(test_where, argument="test_where"),
        split_by=split_by,
        min_images=min_images,
        max_images=max_images,
        seed=split_seed,
        by_path=by_path,
        complain=complain,
        note=note,
    )


def _with_files(rows: Rows, root: str, *, complain: Complain, note: Note) -> tuple[Rows, Paths]:
    """(rows, their paths) without those that `fetch` has given up; `complain` is called for other missing files."""
    paths: Paths
    if rows.paths is not None:
        paths, there = images.by_path(root, rows.paths)
        gone = np.zeros(len(rows), bool)
    else:
        paths, there = images.by_id(root, rows.ids)
        gone = ~there & np.isin(rows.ids, images.given_up(root)) if not there.all() else ~there
    if gone.any():
        note(f"{gone.sum()} of {len(rows)} images could not be fetched and are left out: see {root}/{journal.FILE}.")
    if missing := int((~there & ~gone).sum()):
        first = paths[int(np.argmax(~there & ~gone))]
        advice = "`image_root` names the folder that the paths start from" if rows.paths is not None else "run fetch"
        complain(
            FileNotFoundError(
                f"{missing} of {len(rows)} images of the table are not under {root}, the first is {first}: {advice}."
            )
        )
    if gone.all():
        raise ValueError(f"none of the {len(rows)} images could be fetched: see {root}/{journal.FILE}.")
    return (rows.at(~gone), paths[~gone]) if gone.any() else (rows, paths)


def _without_gone_classes(rows: Rows, paths: Paths, *, min_images: int, rank: str, note: Note) -> tuple[Rows, Paths]:
    """Rows and paths without classes that have too few images, because some could not be fetched."""
    counts = np.bincount(rows.taxa, minlength=len(rows.lineages))
    large = counts[rows.taxa] >= max(1, min_images)
    if large.all():
        return rows, paths
    return choices.without_small_classes(rows, min_images, rank=rank, note=note), paths[large]


def _apart(rows: Rows, *, by_group: bool, note: Note) -> tuple[np.ndarray, np.ndarray]:
    """(train, test), bool [N]: test is what `test_where` says, train has no image of a group of a test image."""
    test = rows.test
    if not test.any() or test.all():
        which = "no image" if not test.any() else "every image"
        raise ValueError(f"`test_where` makes {which} a test image.")
    shared = ~test & np.isin(rows.groups, rows.groups[test]) if by_group else np.zeros(len(rows), bool)
    if shared.any():
        note(
            f"{shared.sum()} images that `test_where` leaves for training share their group (`split_by`) with a test "
            "image, and are left out."
        )
    train = ~test & ~shared
    if not train.any():
        raise ValueError("`test_where` and `split_by` leave no image for training.")
    return train, test


def _splits(rows: Rows, paths: Paths, *, train: np.ndarray, test: np.ndarray, rank: str, note: Note) -> Splits:
    """The splits of the classes that have training images, in the order of their lineages."""
    trained = np.zeros(len(rows.lineages), bool)
    trained[rows.taxa[train]] = True
    if (untrained := ~trained[rows.taxa] & test).any():
        classes = len(np.unique(rows.taxa[untrained]))
        note(f"{classes} classes have test images and no training images: they are left out, with {untrained.sum()}.")
        test = test & ~untrained
        if not test.any():
            raise ValueError("no test image has a class with training images.")
    order = sorted(np.flatnonzero(trained).tolist(), key=lambda taxon: [name or "" for name in rows.lineages[taxon]])
    label_of = np.full(len(rows.lineages), -1, np.int32)
    label_of[order] = np.arange(len(order), dtype=np.int32)
    lineages = [rows.lineages[taxon] for taxon in order]
    taxonomy, class_names = _taxonomy(lineages, rank=rank, note=note)
    sources = [
        Source(paths[part], label_of[rows.taxa[part]], class_names, groups=rows.groups[part]) for part in (train, test)
    ]
    return Splits(sources[0], None, sources[1], taxonomy)


def _taxonomy(
    lineages: Sequence[tuple[str | None, ...]], *, rank: str, note: Note
) -> tuple[Taxonomy | None, tuple[str, ...]]:
    """(taxonomy or None where the classes have no ranks, class names) of lineages from the root down."""
    if len(lineages[0]) == 1:
        return None, tuple(str(lineage[-1]) for lineage in lineages)
    ranks = columns.RANKS[: len(lineages[0])]
    known = [place for place in range(len(ranks)) if any(lineage[place] for lineage in lineages)][::-1]
    taxonomy = from_lineages([[x[place] for place in known] for x in lineages], [ranks[place] for place in known])
    alike: dict[str | None, list[int]] = {}
    for label, lineage in enumerate(lineages):
        alike.setdefault(lineage[-1], []).append(label)
    if several := [labels for labels in alike.values() if len(labels) > 1]:
        names = " and ".join(taxonomy.class_names[label] for label in several[0][:2])
        note(
            f"{len(several)} names of the rank {rank} stand under several parents, and are classes of their own: "
            f"{names}."
        )
    return taxonomy, taxonomy.class_names
