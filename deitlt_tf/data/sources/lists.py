"""Images that a file lists: `path label` per line (ImageNet-LT, Places-LT, ...), or iNaturalist's JSON.

No image is opened here. Whether all of them exist is checked folder by folder.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from deitlt_tf.data import storage
from deitlt_tf.data.dataset import Complain, Source, Splits, and_more, raise_mistake

# A path that `_inside` need not shorten: no part of it is empty or starts with a dot.
_PLAIN_PATH = re.compile(r"[^/\\:.][^/\\:]*(/[^/\\:.][^/\\:]*)*")


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
    return _listed_splits(listings, root=root, class_names=class_names, complain=complain)


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
        paths.append(_inside(path, place))
        labels.append(int(label[0]))
        lines.append(number)
    if not paths:
        raise ValueError(f"{file} is empty: it should hold one `path label` per line")
    return Listing(file, paths, np.array(labels, np.int32), lines)


# ---- iNaturalist -----------------------------------------------------------------------------------------------------


def inat(*, data_dir: str | None, image_root: str | None = None, complain: Complain = raise_mistake) -> Splits:
    """iNaturalist 2018: data_dir/train2018.json, and val2018.json as the test set, since test labels are not public.

    Labels number the categories in the order of their ids.
    image_root: folder that the paths are relative to, itself relative to data_dir; default: data_dir.
    Raises ValueError or FileNotFoundError that names the file.
    """
    holds = "train2018.json, val2018.json and the folder train_val2018 with the images"
    root = storage.require_data_dir(data_dir, source="inat", holds=holds, files=("train2018.json", "val2018.json"))
    files = [os.path.join(root, file) for file in ("train2018.json", "val2018.json")]
    train_json, val_json = (_read_json(file) for file in files)
    try:
        categories = sorted(train_json["categories"], key=lambda category: category["id"])
        label_of = {category["id"]: label for label, category in enumerate(categories)}
        class_names = tuple(str(category["name"]) for category in categories)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{files[0]} is not an iNaturalist file: categories need {error}") from error
    contents = zip(files, (train_json, val_json), strict=True)
    listings = [_json_listing(file, data, label_of) for file, data in contents]
    image_root = storage.join(root, image_root or "")
    return _listed_splits(listings, root=image_root, class_names=class_names, complain=complain)


def _json_listing(file: str, data: dict[str, Any], label_of: dict[int, int]) -> Listing:
    """data: the parsed content of `file`. label_of: {id of a category: its label}."""
    try:
        category_of = {item["image_id"]: item["category_id"] for item in data["annotations"]}
        labels = [label_of[category_of[image["id"]]] for image in data["images"]]
        paths = [_inside(image["file_name"], file) for image in data["images"]]
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{file} is not an iNaturalist file or refers to an unknown image or category: {error}"
        ) from error
    if not paths:
        raise ValueError(f"{file} is empty: it lists no images")
    return Listing(file, paths, np.array(labels, np.int32))


# ---- both kinds ------------------------------------------------------------------------------------------------------


def _listed_splits(
    listings: Sequence[Listing], *, root: str, class_names: tuple[str, ...], complain: Complain
) -> Splits:
    """[train, (val,) test] -> Splits, after a check that all images exist and no training image is in another split."""
    train_paths = set(listings[0].paths)
    for listing in listings[1:]:
        if shared := train_paths.intersection(listing.paths):
            where = f"both in {listings[0].file} and in {listing.file}"
            complain(ValueError(f"{min(shared)} is {where}: an image belongs to one split{and_more(shared)}"))
    folders: dict[str, frozenset[str]] = {}
    for listing in listings:
        if absent := _missing(root, listing.paths, folders):
            count = f"{len(absent)} of {len(listing.paths)} images of {listing.file}"
            complain(FileNotFoundError(f"{count} are not under {root}, the first is {absent[0]}"))
    sources = [
        Source(np.array([os.path.join(root, path) for path in listing.paths], object), listing.labels, class_names)
        for listing in listings
    ]
    return Splits(sources[0], sources[1] if len(sources) == 3 else None, sources[-1])


def _missing(root: str, paths: Sequence[str], folders: dict[str, frozenset[str]]) -> list[str]:
    """The paths without a file under `root`.

    Each folder is scanned once, because one request for each of 437,513 files on a network disk would take an hour.
    folders: {folder: its file names}; this function adds the folders of the paths, so that the next call has them.
    """
    # `rpartition` is enough for the paths that `_inside` returns, and `os.path.split` takes several times as long.
    new = [parent for parent in {path.rpartition(os.sep)[0]: None for path in paths} if parent not in folders]
    names = storage.each(storage.file_names, [os.path.join(root, parent) for parent in new])
    folders |= zip(new, names, strict=True)
    parts = ((path, *path.rpartition(os.sep)) for path in paths)
    return [path for path, parent, _, name in parts if name not in folders[parent]]


def _inside(path: str, place: str) -> str:
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
    """The lines of `file`; raises ValueError if there are not as many as classes."""
    class_names = tuple(line.strip() for line in storage.read_text(file).strip().split("\n"))
    if len(class_names) != num_classes:
        raise ValueError(f"{file} names {len(class_names)} classes, but the training list has {num_classes}")
    return class_names


def _read_json(file: str) -> dict[str, Any]:
    try:
        return json.loads(storage.read_text(file))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
