"""Images that a file lists, `path label` per line: ImageNet-LT, Places-LT, ...

No image is opened here. Whether all of them exist is checked folder by folder.
"""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from deitlt_tf.data import storage
from deitlt_tf.data.dataset import (
    Complain,
    Source,
    Splits,
    and_more,
    names_below,
    raise_mistake,
    require_class_names,
)

# A path that `inside` need not shorten: no part of it is empty or starts with a dot.
_PLAIN_PATH = re.compile(r"[^/\\:.][^/\\:]*(/[^/\\:.][^/\\:]*)*")


ONE_CLASS = "an image has one class"


class Listing(NamedTuple):
    """The content of one list file.

    file: its path. paths: relative to the image root. labels: int32 [N]. lines: number of the line of each image.
    """

    file: str
    paths: Sequence[str]
    labels: np.ndarray
    lines: Sequence[int] = ()


# ---- text files ------------------------------------------------------------------------------------------------------


def read_lists(
    *,
    train_list: str | None,
    test_list: str | None = None,
    val_list: str | None = None,
    data_dir: str | None = None,
    image_root: str | None = None,
    class_names_file: str | None = None,
    complain: Complain = raise_mistake,
) -> Splits:
    """Text files of `path label` per line, the format of the ImageNet-LT, Places-LT and iNaturalist lists.

    train_list, val_list, test_list: with val_list but no test_list, val_list is the test set.
    data_dir: folder that the files and image_root are relative to; default: the working directory.
    image_root: folder that the paths are relative to; default: data_dir. A path may contain spaces.
    class_names_file: one name per line, in the order of the labels. Without it, a class is named after the folder that
        all its training images share, and no other class ("a/airfield"), else "class 17".
    Raises ValueError with file:line for a bad line, FileNotFoundError for a missing list or missing images.
    """
    if not train_list or not (test_list or val_list):
        raise ValueError("source list needs `train_list` and `test_list` or `val_list`, files of `path label` per line")
    files = [file for file in (train_list, val_list, test_list, class_names_file) if file]
    base = storage.require_data_dir(
        data_dir or os.curdir, source="list", holds=f"{', '.join(files)} and the images", files=files
    )
    listings = [read_list(storage.join(base, file)) for file in (train_list, val_list, test_list) if file]
    num_classes = _num_classes(listings[0], complain=complain)
    listings = _without_unknown_labels(listings, num_classes=num_classes, complain=complain)
    if class_names_file:
        class_names = _read_class_names(storage.join(base, class_names_file), num_classes)
    else:
        class_names = _folder_names(listings[0], num_classes)
    root = storage.join(base, image_root or "")
    return listed_splits(listings, root=root, class_names=class_names, complain=complain)


def _num_classes(train: Listing, *, complain: Complain) -> int:
    """The highest training label + 1. Every label below should have images, otherwise `complain` is called."""
    present = np.unique(train.labels)
    num_classes = int(present[-1]) + 1
    if len(present) < num_classes:
        absent = next(label for label, other in enumerate(present) if label != other)
        error = ValueError(f"{train.file} has no image of label {absent}, but labels up to {num_classes - 1}")
        # A label above the number of images is a typing error. Going on would make a class of every number below it.
        (raise_mistake if num_classes > len(train.labels) else complain)(error)
    return num_classes


def _without_unknown_labels(listings: Sequence[Listing], *, num_classes: int, complain: Complain) -> list[Listing]:
    """The listings without images of labels that the first one, of the training images, does not have."""
    for listing in listings[1:]:
        outside = np.flatnonzero(listing.labels >= num_classes).tolist()
        if outside:
            first = f"{listing.file}:{listing.lines[outside[0]]}: label {listing.labels[outside[0]]}"
            where = f"is outside 0..{num_classes - 1}, the labels of {listings[0].file}"
            complain(ValueError(f"{first} {where}{and_more(outside)}"))
    return [_with_labels_below(num_classes, listing) for listing in listings]


def _with_labels_below(num_classes: int, listing: Listing) -> Listing:
    inside = np.flatnonzero(listing.labels < num_classes).tolist()
    if len(inside) == len(listing.labels):
        return listing
    if not inside:
        raise ValueError(f"{listing.file} has no image with a label of the training list, 0..{num_classes - 1}")
    paths, lines = [listing.paths[i] for i in inside], [listing.lines[i] for i in inside]
    return Listing(listing.file, paths, listing.labels[inside], lines)


def read_list(file: str) -> Listing:
    """The content of a file of `path label` per line; blank lines are skipped. Raises ValueError with file:line."""
    paths: list[str] = []
    labels: list[int] = []
    lines: list[int] = []
    for number, line in enumerate(storage.read_text(file).split("\n"), start=1):
        if not (line := line.strip()):
            continue
        place = f"{file}:{number}"
        path, *label = line.rsplit(None, 1)
        if not label:
            raise ValueError(f"{place}: {path!r} has no label: write `path label`")
        if not (label[0].isascii() and label[0].isdigit() and len(label[0]) < 10):
            raise ValueError(f"{place}: label {label[0]!r} is not a whole number from 0 up")
        paths.append(inside(path, place))
        labels.append(int(label[0]))
        lines.append(number)
    if not paths:
        raise ValueError(f"{file} is empty: it should hold one `path label` per line")
    return Listing(file, paths, np.array(labels, np.int32), lines)


# ---- lists of any file -----------------------------------------------------------------------------------------------


def listed_splits(
    listings: Sequence[Listing], *, root: str, class_names: tuple[str, ...], complain: Complain
) -> Splits:
    """[train, (val,) test] -> Splits, after checks.

    All images should exist, no image of a list has two classes, and no training image is in another list.
    """
    for listing in listings:
        _check_labels(listing, class_names, complain=complain)
    train_paths = set(listings[0].paths)
    for listing in listings[1:]:
        if shared := train_paths.intersection(listing.paths):
            where = f"both in {listings[0].file} and in {listing.file}"
            complain(ValueError(f"{min(shared)} is {where}: an image belongs to one split{and_more(shared)}"))
    folders: dict[str, frozenset[str]] = {}
    sources = []
    for listing in listings:
        absent = _missing(root, listing.paths, folders)
        on_disk = _in_other_unicode_form(root, absent, folders)
        if absent := [path for path in absent if path not in on_disk]:
            count = f"{len(absent)} of {len(listing.paths)} images of {listing.file}"
            advice = "; write paths with / instead of \\" if "\\" in absent[0] else ""
            complain(FileNotFoundError(f"{count} are not under {root}, the first is {absent[0]}{advice}"))
        paths = [os.path.join(root, on_disk.get(path, path)) for path in listing.paths]
        sources.append(Source(np.array(paths, object), listing.labels, class_names, names_below(root, paths)))
    return Splits(sources[0], sources[1] if len(sources) == 3 else None, sources[-1])


def _check_labels(listing: Listing, class_names: Sequence[str], *, complain: Complain) -> None:
    """Calls `complain` for images that a list names twice, with two labels."""
    label_of: dict[str, int] = {}
    labels = listing.labels.tolist()
    pairs = enumerate(zip(listing.paths, labels, strict=True))
    if again := [i for i, (path, label) in pairs if label_of.setdefault(path, label) != label]:
        path, label = listing.paths[again[0]], labels[again[0]]
        place = f"{listing.file}:{listing.lines[again[0]]}" if listing.lines else listing.file
        both = f"{class_names[label_of[path]]!r} and {class_names[label]!r}"
        complain(ValueError(f"{place}: {path} is listed with two classes, {both}: {ONE_CLASS}{and_more(again)}"))


def _in_other_unicode_form(root: str, absent: Sequence[str], folders: dict[str, frozenset[str]]) -> dict[str, str]:
    """{path of a list: path of its file}, where the two write accents in another Unicode form, as macOS does."""
    paths = [path for path in absent if not path.isascii()]
    on_disk: dict[str, str] = {}
    for form in ("NFC", "NFD"):
        others = [unicodedata.normalize(form, path) for path in paths]
        lacking = {*_missing(root, others, folders)}
        on_disk |= {path: other for path, other in zip(paths, others, strict=True) if other not in lacking}
    return on_disk


def _missing(root: str, paths: Sequence[str], folders: dict[str, frozenset[str]]) -> list[str]:
    """The paths without a file under `root`.

    Each folder is scanned once, because one request for each of 437,513 files on a network disk would take an hour.
    folders: {folder: its file names}; this function adds the folders of the paths, so that the next call has them.
    """
    # `rpartition` is enough for the paths that `inside` returns, and `os.path.split` takes several times as long.
    new = [parent for parent in {path.rpartition(os.sep)[0]: None for path in paths} if parent not in folders]
    names = storage.each(storage.file_names, [os.path.join(root, parent) for parent in new])
    folders |= zip(new, names, strict=True)
    parts = ((path, *path.rpartition(os.sep)) for path in paths)
    return [path for path, parent, _, name in parts if name not in folders[parent]]


def inside(path: str, place: str) -> str:
    """The path in its shortest form; raises ValueError if it is absolute or climbs out of the image root."""
    if os.sep == "/" and _PLAIN_PATH.fullmatch(path):  # a short cut, because a list can have 437,513 lines
        return path
    short = os.path.normpath(path)
    if storage.is_url(path) or os.path.isabs(short) or short == os.pardir or short.startswith(os.pardir + os.sep):
        raise ValueError(f"{place}: path {path!r} leaves the image root, paths are relative to it")
    return short


def _folder_names(train: Listing, num_classes: int) -> tuple[str, ...]:
    """Class names from folders, see `read_lists`, without the part of the path that all of them have."""
    labels = train.labels.tolist()
    pairs = {(path.rpartition(os.sep)[0], label) for path, label in zip(train.paths, labels, strict=True)}
    labels_in = Counter(folder for folder, _ in pairs)
    folders_of = Counter(label for _, label in pairs)
    own = {label: folder for folder, label in pairs if folder and labels_in[folder] == folders_of[label] == 1}
    top = os.path.commonpath(own.values()) if own else ""
    if top in own.values():  # one class folder holds all others: there is nothing to cut off
        top = ""
    cut = len(top) + 1 if top else 0
    return tuple(own[label][cut:] if label in own else f"class {label}" for label in range(num_classes))


def _read_class_names(file: str, num_classes: int) -> tuple[str, ...]:
    """The lines of `file`, all of them: # begins a name, too. Raises ValueError if there are not as many as classes."""
    class_names = tuple(line.strip() for line in storage.read_text(file).rstrip().split("\n"))
    if len(class_names) != num_classes:
        raise ValueError(f"{file} names {len(class_names)} classes, but the training list has {num_classes}")
    require_class_names(class_names, [f"{file}:{line}" for line in range(1, num_classes + 1)])
    return class_names
