"""Images that a file lists: `path label` per line (ImageNet-LT, Places-LT, ...), or iNaturalist's JSON.

No image is opened here; that all of them exist is asked folder by folder.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from deitlt_tf.data import storage
from deitlt_tf.data.dataset import Complain, Source, Splits, and_more, stop

_PLAIN_PATH = re.compile(r"[^/\\:.][^/\\:]*(/[^/\\:.][^/\\:]*)*")  # no part empty or with a dot in front


class Listing(NamedTuple):
    """What a list file says: paths relative to the image root, int32 labels, and the number of each one's line."""

    file: str
    paths: list[str]
    labels: np.ndarray
    lines: Sequence[int] = ()


def lists(
    *,
    train_list: str | None,
    test_list: str | None = None,
    val_list: str | None = None,
    data_dir: str | None = None,
    image_root: str | None = None,
    class_names_file: str | None = None,
    complain: Complain = stop,
) -> Splits:
    """Text files of `path label` per line, the format of the ImageNet-LT, Places-LT and iNaturalist lists.

    The files and image_root are relative to data_dir (default: the working directory), the paths to image_root
    (default: data_dir). A path may contain spaces. With val_list but no test_list, val_list is the test set.
    Class names: class_names_file, one a line; else the folder that all training images of a label share, and those of
    no other label ("a/airfield"), else "class 17".
    Raises ValueError with file:line for a bad line, FileNotFoundError for a missing list or missing images.
    """
    if not train_list or not (test_list or val_list):
        raise ValueError("source list needs --train_list and --test_list or --val_list, files of `path label` per line")
    files = [file for file in (train_list, val_list, test_list, class_names_file) if file]
    base = storage.existing(
        data_dir or os.curdir, source="list", holds=f"{', '.join(files)} and the images", files=files
    )
    read = [read_list(storage.join(base, file)) for file in (train_list, val_list, test_list) if file]
    train = read[0]
    present = np.unique(train.labels)
    num_classes = int(present[-1]) + 1
    if len(present) < num_classes:
        absent = next(label for label, found in enumerate(present) if label != found)
        error = ValueError(f"{train.file} has no image of label {absent}, but labels up to {num_classes - 1}")
        # a label beyond all images is a typing error: going on would make a class of every number below it
        (stop if num_classes > len(train.labels) else complain)(error)
    for listing in read[1:]:
        if (outside := np.flatnonzero(listing.labels >= num_classes)).size:
            first = f"{listing.file}:{listing.lines[outside[0]]}: label {listing.labels[outside[0]]}"
            where = f"is outside 0..{num_classes - 1}, the labels of {train.file}"
            complain(ValueError(f"{first} {where}{and_more(outside)}"))
    read = [_with_labels_below(num_classes, listing) for listing in read]
    class_names = _folder_names(train, num_classes)
    if class_names_file:
        class_names = _read_class_names(storage.join(base, class_names_file), num_classes)
    root = storage.join(base, image_root or "")
    return _listed_splits(read, root=root, class_names=class_names, complain=complain)


def _with_labels_below(num_classes: int, listing: Listing) -> Listing:
    kept = np.flatnonzero(listing.labels < num_classes)
    if len(kept) == len(listing.labels):
        return listing
    if not len(kept):
        raise ValueError(f"{listing.file} has no image with a label of the training list, 0..{num_classes - 1}")
    paths, lines = ([values[i] for i in kept] for values in (listing.paths, listing.lines))
    return Listing(listing.file, paths, listing.labels[kept], lines)


def read_list(file: str) -> Listing:
    """Parse a file of `path label` per line; blank lines are skipped. Raises ValueError with file:line."""
    paths, labels, lines = [], [], []
    for number, line in enumerate(storage.read_text(file).split("\n"), start=1):
        if not (line := line.strip()):
            continue
        place = f"{file}:{number}"
        path, *label = line.rsplit(None, 1)
        if not label:
            raise ValueError(f"{place}: {path!r} has no label, a line is `path label`")
        if not (label[0].isascii() and label[0].isdigit() and len(label[0]) < 10):
            raise ValueError(f"{place}: label {label[0]!r} is not a whole number from 0 up")
        paths.append(_inside(path, place))
        labels.append(int(label[0]))
        lines.append(number)
    if not paths:
        raise ValueError(f"{file} is empty: it should hold one `path label` per line")
    return Listing(file, paths, np.array(labels, np.int32), lines)


def inat(*, data_dir: str | None, image_root: str | None = None, complain: Complain = stop) -> Splits:
    """iNaturalist 2018: data_dir/train2018.json and val2018.json, which is the test set: test labels are not public.

    Labels are the categories in the order of their ids. image_root is relative to data_dir, and data_dir by default.
    Raises ValueError or FileNotFoundError that names the file.
    """
    holds = "train2018.json, val2018.json and the folder train_val2018 with the images"
    root = storage.existing(data_dir, source="inat", holds=holds, files=("train2018.json", "val2018.json"))
    files = [os.path.join(root, file) for file in ("train2018.json", "val2018.json")]
    train_json, val_json = (_read_json(file) for file in files)
    try:
        categories = sorted(train_json["categories"], key=lambda category: category["id"])
        label_of = {category["id"]: label for label, category in enumerate(categories)}
        class_names = tuple(str(category["name"]) for category in categories)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{files[0]} is not an iNaturalist file: categories need {error}") from error
    read = [_json_listing(file, data, label_of) for file, data in zip(files, (train_json, val_json), strict=True)]
    image_root = storage.join(root, image_root or "")
    return _listed_splits(read, root=image_root, class_names=class_names, complain=complain)


def _json_listing(file: str, data: dict[str, Any], label_of: dict[int, int]) -> Listing:
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


def _listed_splits(read: Sequence[Listing], *, root: str, class_names: tuple[str, ...], complain: Complain) -> Splits:
    """[train, (val,) test] -> Splits, once all images are known to exist and no training image is in another split."""
    train_paths = set(read[0].paths)
    for listing in read[1:]:
        if shared := train_paths.intersection(listing.paths):
            where = f"both in {read[0].file} and in {listing.file}"
            complain(ValueError(f"{min(shared)} is {where}: an image belongs to one split{and_more(shared)}"))
    folders: dict[str, frozenset[str]] = {}
    for listing in read:
        if absent := _missing(root, listing.paths, folders):
            count = f"{len(absent)} of {len(listing.paths)} images of {listing.file}"
            complain(FileNotFoundError(f"{count} are not under {root}, the first is {absent[0]}"))
    sources = [
        Source(np.array([os.path.join(root, path) for path in listing.paths], object), listing.labels, class_names)
        for listing in read
    ]
    return Splits(sources[0], sources[1] if len(sources) == 3 else None, sources[-1])


def _missing(root: str, paths: Sequence[str], folders: dict[str, frozenset[str]]) -> list[str]:
    """The paths that are no files. One scan per folder: 437,513 questions to a network disk would take an hour.

    folders: file names by folder, filled here, shared between lists.
    """
    split = os.sep  # `_inside` left no other form of a path, and `os.path.split` takes several times as long
    new = [parent for parent in {path.rpartition(split)[0]: None for path in paths} if parent not in folders]
    names = storage.each(storage.file_names, [os.path.join(root, parent) for parent in new])
    folders |= zip(new, names, strict=True)
    parts = ((path, *path.rpartition(split)) for path in paths)
    return [path for path, parent, _, name in parts if name not in folders[parent]]


def _inside(path: str, place: str) -> str:
    """The path in its shortest form; raises ValueError if it is absolute or climbs out of the image root."""
    if os.sep == "/" and _PLAIN_PATH.fullmatch(path):  # nothing to shorten; this is asked of 437,513 lines
        return path
    short = os.path.normpath(path)
    if storage.is_url(path) or os.path.isabs(short) or short == os.pardir or short.startswith(os.pardir + os.sep):
        raise ValueError(f"{place}: path {path!r} leaves the image root, paths are relative to it")
    return short


def _folder_names(train: Listing, num_classes: int) -> tuple[str, ...]:
    labels = train.labels.tolist()
    pairs = {(path.rpartition(os.sep)[0], label) for path, label in zip(train.paths, labels, strict=True)}
    labels_in = Counter(folder for folder, _ in pairs)
    folders_of = Counter(label for _, label in pairs)
    own = {label: folder for folder, label in pairs if folder and labels_in[folder] == folders_of[label] == 1}
    top = os.path.commonpath(own.values()) if own else ""
    if top in own.values():  # one class folder lies around the others: nothing to cut off
        top = ""
    cut = len(top) + 1 if top else 0
    return tuple(own[label][cut:] if label in own else f"class {label}" for label in range(num_classes))


def _read_class_names(file: str, num_classes: int) -> tuple[str, ...]:
    class_names = tuple(line.strip() for line in storage.read_text(file).strip().split("\n"))
    if len(class_names) != num_classes:
        raise ValueError(f"{file} names {len(class_names)} classes, but the training list has {num_classes}")
    return class_names


def _read_json(file: str) -> dict[str, Any]:
    try:
        return json.loads(storage.read_text(file))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
