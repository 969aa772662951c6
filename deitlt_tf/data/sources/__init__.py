"""WHERE the images are: a folder, list files, iNaturalist JSON, CIFAR-LT, digits or any TFDS set.

    load(name, data_dir=..., ...) -> Splits(train, val, test), each a Source(images, labels, class_names)

Folders and files may be URLs of any file system that TensorFlow knows (`storage`).
Nothing is decoded here, except where a data set comes as pixels (CIFAR, digits). Labels keep the data set's own order.
How each kind is read: `folders`, `listings`, `packaged`. What they all return, and choosing among it: `splits`, whose
names that callers of `load` need are names of this module, too.
"""

import os

import numpy as np

from deitlt_tf.data.dataset import (
    Complain,
    Source,
    Splits,
    and_more,
    class_counts,
    long_tail_counts,
    names,
    split_off,
    stop,
    subsample,
    take,
)
from deitlt_tf.data.sources import folders, lists, packaged

__all__ = ["Source", "Splits", "class_counts", "load", "names", "take"]


def load(
    name: str,
    *,
    data_dir: str | None = None,
    train_list: str | None = None,
    val_list: str | None = None,
    test_list: str | None = None,
    image_root: str | None = None,
    class_names_file: str | None = None,
    test_fraction: float = 0.2,
    val_fraction: float = 0.0,
    split_seed: int = 0,
    imbalance: float = 1.0,
    imbalance_type: str = "exp",
    imbalance_seed: int = 0,
    download: bool = True,
    complain: Complain = stop,
) -> Splits:
    """The data set `name`: folder, list, inat, cifar10_lt, cifar100_lt, digits_lt or tfds:<any classification set>.

    data_dir: where it lies, see the function of each source. train_list ... class_names_file: for `list`, image_root
    for `inat`, too. test_fraction: for a folder or a TFDS set without a test set. download: let TFDS fetch what lacks.
    imbalance: rho, imposed on the training images of any source; 1 leaves them as they are. val_fraction: share of the
    training images, after that, for a validation split where there is none: both together never exceed the official
    number of training images. All choices are seeded, all splits stratified.
    complain: called with each mistake that the rest can be read without; if it returns, missing images stay in, and
    what has no class among the training images is left out.
    Raises ValueError, FileNotFoundError or OSError with one sentence.
    """
    data_dir = data_dir and os.path.expanduser(data_dir)
    sources = {
        "folder": lambda: folders.read(
            data_dir=data_dir, test_fraction=test_fraction, split_seed=split_seed, complain=complain
        ),
        "list": lambda: lists.lists(
            data_dir=data_dir,
            train_list=train_list,
            val_list=val_list,
            test_list=test_list,
            image_root=image_root,
            class_names_file=class_names_file,
            complain=complain,
        ),
        "inat": lambda: lists.inat(data_dir=data_dir, image_root=image_root, complain=complain),
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
    train, val = splits.train, splits.val
    if imbalance != 1:
        counts = class_counts(train.labels, len(train.class_names))
        kept = long_tail_counts(counts, imbalance=imbalance, imbalance_type=imbalance_type)
        train = take(train, subsample(train.labels, kept, seed=imbalance_seed))
    if val_fraction and val is not None:
        raise ValueError(f"--val_fraction={val_fraction:g} has no use here: the data has a validation split of its own")
    if val_fraction:
        train, val = split_off(train, val_fraction, seed=split_seed, flag="--val_fraction")
    if len(train.class_names) < 2:
        raise ValueError(f"the only class is {train.class_names[0]!r}: at least two are needed")
    if (empty := np.flatnonzero(class_counts(train.labels, len(train.class_names)) == 0)).size:
        complain(ValueError(f"class {train.class_names[empty[0]]!r} has no training images{and_more(empty)}"))
    return Splits(train, val, splits.test)
