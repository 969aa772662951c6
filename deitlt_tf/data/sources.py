"""WHERE the images are: a folder, list files, iNaturalist JSON, CIFAR-LT, digits or any TFDS set.

    load(name, data_dir=..., ...) -> Splits(train, val, test), each a Source(images, labels, class_names)

Folders and files may be URLs of any file system that TensorFlow knows (`storage`).
Nothing is decoded here, except where a data set comes as pixels (CIFAR, digits). Labels keep the data set's own order.
"""

import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence, Sized
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from deitlt_tf.data import storage

DIGITS_TEST_PER_CLASS = 60
_PLAIN_PATH = re.compile(r"[^/\\:.][^/\\:]*(/[^/\\:.][^/\\:]*)*")  # no part empty or with a dot in front
Complain = Callable[[Exception], None]
FOLDER_HOLDS = "train/ and test/ or val/ with a folder of images per class, or the class folders alone"


@dataclass(frozen=True, eq=False)
class Source:
    """Images, their labels and the names of the classes.

    images: uint8 [N, H, W, 3] pixels, or a 1-D array of N file paths (str) or of N encoded images (bytes).
    labels: int32 [N], 0..C-1.
    class_names: C names, in label order.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.kind:
            raise ValueError(
                f"images must be uint8 [N, H, W, 3], paths or bytes; got {self.images.dtype} {self.images.shape}"
            )
        if self.labels.dtype != np.int32 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(f"labels must be int32 [{len(self.images)}]; got {self.labels.dtype} {self.labels.shape}")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def kind(self) -> str:
        """What `images` holds: "pixels", "paths" or "encoded"; "" where it is none of them."""
        if self.images.ndim == 4 and self.images.shape[-1] == 3 and self.images.dtype == np.uint8:
            return "pixels"
        if self.images.ndim != 1 or not len(self.images):
            return ""
        return "paths" if isinstance(self.images[0], str) else "encoded" if isinstance(self.images[0], bytes) else ""


@dataclass(frozen=True, eq=False)
class Splits:
    """A data set: three sources with the same class names; `val` is None where there is no validation split."""

    train: Source
    val: Source | None
    test: Source

    def __post_init__(self) -> None:
        if any(part is not None and part.class_names != self.train.class_names for part in (self.val, self.test)):
            raise ValueError("train, val and test must have the same class names in the same order")


def stop(error: Exception) -> None:
    """The usual way to complain of a mistake in the data: raise it."""
    raise error


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
        "folder": lambda: folder(
            data_dir=data_dir, test_fraction=test_fraction, split_seed=split_seed, complain=complain
        ),
        "list": lambda: lists(
            data_dir=data_dir,
            train_list=train_list,
            val_list=val_list,
            test_list=test_list,
            image_root=image_root,
            class_names_file=class_names_file,
            complain=complain,
        ),
        "inat": lambda: inat(data_dir=data_dir, image_root=image_root, complain=complain),
        "cifar10_lt": lambda: cifar("cifar10", data_dir=data_dir, download=download),
        "cifar100_lt": lambda: cifar("cifar100", data_dir=data_dir, download=download),
        "digits_lt": lambda: digits(split_seed=split_seed),
        "tfds:<name>": lambda: tfds_set(
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
        complain(ValueError(f"class {train.class_names[empty[0]]!r} has no training images{_and_more(empty)}"))
    return Splits(train, val, splits.test)


def _and_more(mistakes: Sized) -> str:
    """What follows a sentence on the first of several like mistakes."""
    return f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""


def _existing(data_dir: str | None, *, source: str, holds: str, files: Sequence[str] = ()) -> str:
    if not data_dir:
        raise ValueError(f"source {source} needs --data_dir, a folder with {holds}")
    if not storage.is_dir(data_dir):
        raise FileNotFoundError(f"--data_dir={data_dir} is not a folder: it should hold {holds}")
    for file in files:
        if not storage.is_file(storage.join(data_dir, file)):
            raise FileNotFoundError(f"{storage.join(data_dir, file)} is missing: --data_dir should hold {holds}")
    return data_dir


def class_counts(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """n_c = number of images of class c, int64 [num_classes], in one pass over the labels."""
    counts = np.bincount(labels, minlength=num_classes)
    if len(counts) > num_classes:
        raise ValueError(f"label {len(counts) - 1} is outside 0..{num_classes - 1}")
    return counts


def names(source: Source) -> list[str]:
    """A printable name of each image: its path, or "image 17" where it has none."""
    return list(source.images) if source.kind == "paths" else [f"image {i}" for i in range(len(source))]


def below_common_folder(paths: Sequence[str]) -> list[str]:
    """The paths from the innermost folder on that holds all of them, which may have been moved since."""
    # `commonpath` would make one slash of the two in a URL
    cut = max(0, os.path.commonprefix([min(paths), max(paths)]).rfind("/"))  # noqa: RUF071 (cut at a slash)
    return [path[cut:] for path in paths]


def take(source: Source, indices: np.ndarray) -> Source:
    """The images at `indices`, in that order."""
    return Source(source.images[indices], source.labels[indices], source.class_names)


def long_tail_counts(counts: np.ndarray, *, imbalance: float, imbalance_type: str) -> np.ndarray:
    """exp: n_i = int(n_max (1/rho)^(i/(C-1))); step: n_max in the first half of the classes, then int(n_max/rho).

    counts: images per class, in the data set's class order; n_max is their maximum. A class never keeps more than it
    has, nor less than one image (the official profile can round to zero). Returns int64 [C].
    Source: val-iisc/DeiT-LT datasets.py (get_img_num_per_cls); float for float, because int() cuts off.
    """
    if not imbalance >= 1:
        raise ValueError(
            f"--imbalance={imbalance:g} must be at least 1: it is the largest class divided by the smallest"
        )
    classes, n_max, ratio = len(counts), int(max(counts)), 1 / imbalance
    profiles = {
        "exp": lambda i: n_max * ratio ** (i / max(classes - 1, 1)),
        "step": lambda i: n_max if i < classes // 2 else n_max * ratio,
    }
    if imbalance_type not in profiles:
        raise ValueError(f"--imbalance_type={imbalance_type} is unknown: choose {' or '.join(profiles)}")
    return np.minimum(counts, [max(1, int(profiles[imbalance_type](i))) for i in range(classes)])


def subsample(labels: np.ndarray, counts: Sequence[int], *, seed: int) -> np.ndarray:
    """Indices of counts[c] images of each class c, classes in order, each shuffled: the official choice of images.

    One legacy NumPy generator runs through all classes, so the choice of a class depends on the classes before it.
    Source: val-iisc/DeiT-LT datasets.py (gen_imbalanced_data).
    """
    rng = np.random.RandomState(seed)
    by_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(class_counts(labels, len(counts)))[:-1])
    for members in by_class:
        rng.shuffle(members)
    return np.concatenate([members[:count] for members, count in zip(by_class, counts, strict=True)])


def split_off(source: Source, fraction: float, *, seed: int, flag: str) -> tuple[Source, Source]:
    """(rest, part): `part` is a stratified, seeded `fraction` of the images; a class of one image stays in `rest`.

    flag: the flag that set the fraction, for the error when it leaves less than an image per class on either side.
    """
    from sklearn.model_selection import train_test_split  # takes a second to import, and most sources come split

    single = class_counts(source.labels, len(source.class_names))[source.labels] == 1
    several = np.flatnonzero(~single)
    if not 0 < fraction < 1:
        raise ValueError(f"{flag}={fraction:g} must lie between 0 and 1")
    try:
        _, part = train_test_split(several, test_size=fraction, stratify=source.labels[several], random_state=seed)
    except ValueError as error:
        raise ValueError(f"{flag}={fraction:g} cannot split {len(several)} images by class: {error}") from error
    in_part = np.isin(np.arange(len(source)), part)
    return take(source, ~in_part), take(source, in_part)


# ---- folder ----------------------------------------------------------------------------------------------------------


def folder(
    *, data_dir: str | None, test_fraction: float = 0.2, split_seed: int = 0, complain: Complain = stop
) -> Splits:
    """data_dir/{train,val,test}/<class>/**/*.jpg, or data_dir/<class>/**/*.jpg with a stratified test set split off.

    JPEG, PNG, WebP and BMP in any depth; classes in alphabetical order; hidden files and folders are ignored, links
    followed down to the class folder. With val/ but no test/, val/ is the test set. train/, val/ and test/ count as
    splits when they hold folders. A class may have no folder in val/ or test/; a folder without images is an error.
    Raises FileNotFoundError or ValueError that names the folder.
    """
    root = _existing(data_dir, source="folder", holds=FOLDER_HOLDS)
    splits = [split for split in ("train", "val", "test") if storage.subfolders(os.path.join(root, split))]
    if not splits:
        whole = _read_folder(root, class_names=_class_folders(root), complain=complain)
        train, test = split_off(whole, test_fraction, seed=split_seed, flag="--test_fraction")
        return Splits(train, None, test)
    if "train" not in splits:
        raise FileNotFoundError(f"{root} has {splits[0]}/ but no train/ with a folder of images per class")
    if splits == ["train"]:
        raise FileNotFoundError(
            f"{root} has train/ but neither test/ nor val/ with class folders: add one, "
            f"or pass --data_dir={os.path.join(root, 'train')} to have a test set split off"
        )
    class_names = _class_folders(os.path.join(root, "train"))
    train, *val, test = [
        _read_folder(os.path.join(root, split), class_names=class_names, complain=complain) for split in splits
    ]
    return Splits(train, val[0] if val else None, test)


def _read_folder(root: str, *, class_names: tuple[str, ...], complain: Complain) -> Source:
    present = _class_folders(root)
    if unknown := sorted(set(present) - set(class_names)):
        first = os.path.join(root, unknown[0])
        complain(ValueError(f"{first} is a class that train/ does not have{_and_more(unknown)}"))
    present = [name for name in present if name not in unknown]
    found = storage.each(_image_files, [os.path.join(root, name) for name in present])
    for mistake in itertools.chain.from_iterable(mistakes for _, mistakes in found):
        complain(mistake)
    files = {name: images for name, (images, _) in zip(present, found, strict=True)}
    if not any(files.values()):
        raise ValueError(f"{root} holds no images of the classes in train/")
    labels = [label for label, name in enumerate(class_names) for _ in files.get(name, ())]
    return Source(
        np.array([path for name in present for path in files[name]], object), np.array(labels, np.int32), class_names
    )


def _class_folders(root: str) -> tuple[str, ...]:
    if not (found := storage.subfolders(root)):
        raise ValueError(f"{root} has no class folders: --data_dir holds {FOLDER_HOLDS}")
    return found


def _image_files(class_folder: str) -> tuple[list[str], list[Exception]]:
    """Sorted paths of the images below a folder, and what is wrong there."""
    found: list[str] = []
    mistakes: list[Exception] = []
    # without `onerror` a folder that may not be read would pass as empty
    for parent, folders, files in storage.walk(class_folder, onerror=mistakes.append):
        folders[:] = [name for name in folders if not name.startswith(".")]
        images = [name for name in files if name.lower().endswith(storage.IMAGE_SUFFIXES) and not name.startswith(".")]
        found += [os.path.join(parent, name) for name in images]
    if not found:
        mistakes.append(
            ValueError(f"class folder {class_folder} holds no images ({', '.join(storage.IMAGE_SUFFIXES)})")
        )
    if wrong := [path for path in found if not _is_utf8(path)]:  # TensorFlow takes no other file names
        mistakes.append(ValueError(f"rename {wrong[0]!r}: its name is not UTF-8{_and_more(wrong)}"))
    return sorted(filter(_is_utf8, found)), mistakes


def _is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


# ---- list files and iNaturalist JSON ---------------------------------------------------------------------------------


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
    base = _existing(data_dir or os.curdir, source="list", holds=f"{', '.join(files)} and the images", files=files)
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
            complain(ValueError(f"{first} {where}{_and_more(outside)}"))
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
    root = _existing(data_dir, source="inat", holds=holds, files=("train2018.json", "val2018.json"))
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
            complain(ValueError(f"{min(shared)} is {where}: an image belongs to one split{_and_more(shared)}"))
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


# ---- TensorFlow Datasets and digits ----------------------------------------------------------------------------------


def cifar(name: str, *, data_dir: str | None = None, download: bool = True) -> Splits:
    """`cifar10` or `cifar100` as pixels, in the official order, which TFDS shuffles and its `id` feature remembers."""
    import tensorflow_datasets as tfds

    builder = _prepared(name, data_dir=data_dir, download=download)
    class_names = tuple(builder.info.features["label"].names)

    def read(split: str) -> Source:
        data = tfds.as_numpy(builder.as_dataset(split=split, batch_size=-1))
        order = np.argsort(data["id"].astype("S"))  # "train_00000", "train_00001", ...
        return Source(data["image"][order], data["label"][order].astype(np.int32), class_names)

    return Splits(read("train"), None, read("test"))


def tfds_set(
    name: str, *, data_dir: str | None = None, download: bool = True, test_fraction: float = 0.2, split_seed: int = 0
) -> Splits:
    """Any TFDS set with the features image and label; images stay encoded, all in memory (ImageNet-LT: about 20 GB).

    Splits train, validation, test; one whose labels are hidden (-1) counts as missing. Without test, validation is the
    test set; without both, a stratified one is split off train.
    """
    import tensorflow_datasets as tfds

    builder = _prepared(name, data_dir=data_dir, download=download)
    features = builder.info.features
    features = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
    if not (
        isinstance(features.get("label"), tfds.features.ClassLabel)
        and isinstance(features.get("image"), tfds.features.Image)
        and features["image"].np_dtype == np.uint8
    ):
        raise ValueError(
            f"tfds:{name} is no classification set: it needs the features image (uint8) and label (ClassLabel)"
        )
    class_names = tuple(features["label"].names)
    decoders = tfds.decode.PartialDecoding(
        {"image": True, "label": True}, decoders={"image": tfds.decode.SkipDecoding()}
    )

    def dataset(split: str) -> Iterable[dict[str, Any]]:
        return tfds.as_numpy(builder.as_dataset(split=split, decoders=decoders))

    def read(split: str) -> Source:
        examples = [(example["image"], example["label"]) for example in dataset(split)]
        images, labels = zip(*examples, strict=True)
        return Source(np.array(images, object), np.array(labels, np.int32), class_names)

    labelled = [
        split
        for split in ("train", "validation", "test")
        if split in builder.info.splits and next(iter(dataset(split)))["label"] >= 0
    ]
    if "train" not in labelled:
        raise ValueError(f"tfds:{name} has no labelled split `train`, only {', '.join(builder.info.splits)}")
    if labelled == ["train"]:
        train, test = split_off(read("train"), test_fraction, seed=split_seed, flag="--test_fraction")
        return Splits(train, None, test)
    train, *val, test = [read(split) for split in labelled]
    return Splits(train, val[0] if val else None, test)


def _prepared(name: str, *, data_dir: str | None, download: bool) -> Any:
    """The TFDS builder of `name`, its files present; raises FileNotFoundError, or OSError if they cannot be fetched."""
    import requests  # what TFDS downloads with
    import tensorflow_datasets as tfds

    where = data_dir or os.path.expanduser("~/tensorflow_datasets")
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        raise ValueError(f"TensorFlow Datasets knows no data set {name}, nor is there one in {where}") from error
    if builder.is_prepared():
        return builder
    if not download:
        raise FileNotFoundError(f"{name} is not in {where}, where TensorFlow Datasets keeps it, and downloading is off")
    try:
        for url in list(builder.url_infos)[:1]:
            requests.head(url, timeout=30)  # fails at once without a network, where TFDS would retry for minutes
        builder.download_and_prepare()
    except Exception as error:  # TFDS raises whatever its downloaders and its scripts for single data sets raise
        reason = " ".join(str(error).split())[:300]
        raise OSError(
            f"{name} is not in {where} and TensorFlow Datasets cannot fetch it, so --data_dir should name a folder "
            f"where it lies prepared ({type(error).__name__}: {reason})"
        ) from error
    return builder


def digits(*, split_seed: int = 0) -> Splits:
    """1797 handwritten digits, 8x8 grey, bundled with scikit-learn, as RGB 0..255; test set: 60 per class, seeded."""
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels = np.rint(data.images * (255 / 16)).astype(np.uint8)
    class_names = tuple(str(name) for name in data.target_names)
    whole = Source(np.repeat(pixels[..., None], 3, axis=-1), data.target.astype(np.int32), class_names)
    test = np.sort(subsample(whole.labels, [DIGITS_TEST_PER_CLASS] * len(class_names), seed=split_seed))
    return Splits(take(whole, np.setdiff1d(np.arange(len(whole)), test)), None, take(whole, test))
