"""Load a data set: a folder, list files, iNaturalist JSON, a table, CIFAR-LT, digits or any TFDS set.

    load(name, data_dir=..., ...) -> Splits(train, val, test), each a Source(images, labels, class_names)

Folders and files may be URLs of any file system that TensorFlow knows (`data.storage`).
Images stay encoded, except in data sets that come as pixels (CIFAR, digits). Labels keep the data set's own order.
`folders`, `lists`, `inat`, `tables` and `packaged` read one kind each, and `taxonomy_files` the ranks of the classes.
`Source` and its companions come from `data.dataset`.
"""

import os
from collections.abc import Sequence

import numpy as np

from deitlt_tf.data.dataset import (
    Complain,
    Note,
    Source,
    Splits,
    and_more,
    class_counts,
    image_names,
    long_tail_counts,
    print_note,
    raise_mistake,
    require_class_names,
    split_off,
    subsample,
    take,
)
from deitlt_tf.data.sources import folders, inat, lists, packaged, tables, taxonomy_files

__all__ = ["Source", "Splits", "class_counts", "image_names", "load", "take"]


def load(
    name: str,
    *,
    data_dir: str | None = None,
    train_list: str | None = None,
    val_list: str | None = None,
    test_list: str | None = None,
    image_root: str | None = None,
    class_names_file: str | None = None,
    taxonomy_file: str | None = None,
    table: Sequence[str] = (),
    rank: str = "species",
    keep: str = "",
    min_images: int = 1,
    max_images: int = 0,
    split_by: str = "observation",
    test_where: str = "",
    test_fraction: float = 0.2,
    val_fraction: float = 0.0,
    split_seed: int = 0,
    imbalance: float = 1.0,
    imbalance_type: str = "exp",
    imbalance_seed: int = 0,
    download: bool = True,
    complain: Complain = raise_mistake,
    note: Note = print_note,
) -> Splits:
    """The splits of the data set `name`; every choice of images has a seed, and takes its share of every class.

    name: folder, list, inat, table, cifar10_lt, cifar100_lt, digits_lt or tfds:<any classification set>.
    data_dir: path or URL of its folder, see `folders.read`, `lists.read_lists`, `inat.read` and `packaged`.
    train_list, val_list, test_list: files of the sources list and inat, see `lists.read_lists` and `inat.read`.
    class_names_file: of the source list.
    taxonomy_file: CSV or TSV of the ranks of the classes, see `taxonomy_files`; default: what the source itself says.
    image_root: folder that the paths of the sources list, inat and table start from; default: data_dir.
    table, rank, keep, min_images, max_images, split_by, test_where: of the source table, see `tables.read`.
    test_fraction: share of each class that becomes the test set of a folder, table or TFDS set without one.
    imbalance: rho, the long tail imposed on the training images of any source; 1 leaves them as they are.
    imbalance_type, imbalance_seed: see `dataset.long_tail_counts` and `dataset.subsample`.
    val_fraction: share of the training images, taken after that, that becomes the validation split; 0: none. So
        training and validation images together are never more than the official training images. See
        `dataset.split_off`.
    split_seed: of the test and the validation split. download: whether TFDS may download the set.
    complain: called with each mistake after which reading can go on. If it returns, missing images stay in the splits,
        and images whose class has no training images are left out.
    note: called with a sentence on what is left out or may be meant otherwise, see `folders.read`.
    Raises ValueError, FileNotFoundError or OSError with a sentence that names the argument or the file.
    """
    data_dir = data_dir and os.path.expanduser(data_dir)
    sources = {
        "folder": lambda: folders.read(
            data_dir=data_dir, test_fraction=test_fraction, split_seed=split_seed, complain=complain, note=note
        ),
        "list": lambda: lists.read_lists(
            data_dir=data_dir,
            train_list=train_list,
            val_list=val_list,
            test_list=test_list,
            image_root=image_root,
            class_names_file=class_names_file,
            complain=complain,
        ),
        "inat": lambda: inat.read(
            data_dir=data_dir,
            train_list=train_list,
            val_list=val_list,
            test_list=test_list,
            image_root=image_root,
            complain=complain,
        ),
        "table": lambda: tables.read(
            table=table,
            data_dir=data_dir,
            image_root=image_root,
            rank=rank,
            keep=keep,
            min_images=min_images,
            max_images=max_images,
            split_by=split_by,
            test_where=test_where,
            test_fraction=test_fraction,
            split_seed=split_seed,
            complain=complain,
            note=note,
        ),
        "cifar10_lt": lambda: packaged.cifar("cifar10", data_dir=data_dir, download=download),
        "cifar100_lt": lambda: packaged.cifar("cifar100", data_dir=data_dir, download=download),
        "digits_lt": lambda: packaged.digits(split_seed=split_seed),
        "tfds:<name>": lambda: packaged.tfds_set(
            name.removeprefix("tfds:"),
            data_dir=data_dir,
            download=download,
            test_fraction=test_fraction,
            split_seed=split_seed,
        ),
    }
    key = "tfds:<name>" if name.startswith("tfds:") else name
    if key not in sources:
        raise ValueError(f"source {name!r} is unknown: choose one of {', '.join(sources)}")
    splits = sources[key]()
    require_class_names(splits.train.class_names)
    train, val, taxonomy = splits.train, splits.val, splits.taxonomy
    if taxonomy_file:
        taxonomy = taxonomy_files.read(os.path.expanduser(taxonomy_file), train.class_names, note=note)
    if imbalance != 1:
        counts = class_counts(train.labels, len(train.class_names))
        counts = long_tail_counts(counts, imbalance=imbalance, imbalance_type=imbalance_type)
        train = take(train, subsample(train.labels, counts, seed=imbalance_seed))
    if val_fraction and val is not None:
        raise ValueError(f"val_fraction={val_fraction:g} has no use here: the data has a validation split of its own")
    if val_fraction:
        by_group = split_by != "photo"
        train, val = split_off(train, val_fraction, seed=split_seed, argument="val_fraction", by_group=by_group)
    if len(train.class_names) < 2:
        raise ValueError(f"the only class is {train.class_names[0]!r}: at least two are needed")
    empty = np.flatnonzero(class_counts(train.labels, len(train.class_names)) == 0)
    if empty.size:
        complain(ValueError(f"class {train.class_names[empty[0]]!r} has no training images{and_more(empty)}"))
    return Splits(train, val, splits.test, taxonomy)
