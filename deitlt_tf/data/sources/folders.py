"""Images in folders: one folder of images per class, in train/ and test/, or without splits."""

import itertools
import os
import re
from collections import Counter
from typing import NamedTuple

import numpy as np

from deitlt_tf.data import storage
from deitlt_tf.data.dataset import (
    Complain,
    Note,
    Source,
    Splits,
    and_more,
    names_below,
    plain_name,
    print_note,
    raise_mistake,
    split_off,
)

HOLDS = "train/ and test/ or val/ with a folder of images per class, or the class folders alone"
# What the folders of splits are called, in lower case and without words such as "set" at their end.
_SPLIT_OF = {"train": "train", "training": "train", "test": "test", "testing": "test"}
_SPLIT_OF |= dict.fromkeys(("val", "valid", "validation", "validate", "dev", "eval", "evaluation"), "val")
_MOST_NAMED, _MOST_COUNTED = 5, 10  # folders and suffixes in a note

# Files that nobody takes for images, in lower case; they are left out without a word.
_NO_IMAGE = re.compile(
    r"""(thumbs\.db | desktop\.ini | icon\r | readme | licen[cs]e | copying | notice | makefile | \w+sums?) | .*\.(
    txt | md | rst | csv | tsv | json | jsonl | xml | ya?ml | toml | ini | cfg | conf | log | html? | css | js | pdf |
    docx? | xlsx? | pptx? | od[tsp] | rtf | db | sqlite | lnk | url | webloc | desktop | py | ipynb | sh | bat |
    zip | tar | t?gz | bz2 | xz | 7z | rar | np[yz] | pkl | pickle | pth? | h5 | hdf5 | mat | tfrecord | parquet |
    mp[34] | wav | m4[av] | mov | avi | mkv | webm | mpe?g | 3gp | mts | thm | xmp | aae | pp3 | md5 | sha\d+)""",
    re.VERBOSE | re.DOTALL,
)
# Copies that programs leave next to an image, and downloads that are not complete: left out, and counted.
_LEFTOVERS = ("~", "_original", ".bak", ".orig", ".tmp", ".part", ".partial", ".crdownload", ".download", ".icloud")
# How files begin that are read, whatever their names. A text can begin with BM, but zeros do not follow there.
_SIGNATURES = (
    re.compile(rb"\xff\xd8\xff"),
    re.compile(rb"\x89PNG\r\n\x1a\n"),
    re.compile(rb"RIFF....WEBP", re.DOTALL),
    re.compile(rb"BM....\0\0\0\0", re.DOTALL),
)


class _Contents(NamedTuple):
    """What lies below a class folder.

    paths: sorted, of the images. left_out: {suffix: number} of the files that may be meant as images, and are not read.
    by_content: {suffix: number} of the files that are read although their suffix is not that of an image.
    inner: folders directly below that hold images, if no image lies in the class folder itself.
    """

    paths: list[str]
    left_out: Counter[str]
    by_content: Counter[str]
    inner: list[str]
    mistakes: list[Exception]


def read(
    *,
    data_dir: str | None,
    test_fraction: float = 0.2,
    split_seed: int = 0,
    complain: Complain = raise_mistake,
    note: Note = print_note,
) -> Splits:
    """data_dir/{train,val,test}/<class>/**/*.jpg, or data_dir/<class>/**/*.jpg with images of each class held out.

    JPEG, PNG, WebP and BMP at any depth are read, classes in alphabetical order. A file of another suffix, or of none,
    is read if its first bytes are those of an image. Hidden files and folders are ignored. Links are followed.
    train/, val/ and test/ count as splits if they hold folders; Train/, Testing/, valid/, ... mean the same. With val/
    but no test/, val/ is the test set. A class may have no folder in val/ or test/; a folder without images is an
    error. Names of classes are compared without blanks at their ends and in one Unicode form.
    test_fraction, split_seed: share of each class that becomes the test set where there are no splits, and its seed.
    note: gets a sentence on files and folders that are left out, and on folders that may be meant as classes.
    Raises FileNotFoundError or ValueError that names the folder.
    """
    root = storage.require_data_dir(data_dir, source="folder", holds=HOLDS)
    folders = _split_folders(root, note=note)
    if not folders:
        whole = _read_folder(root, class_names=tuple(_class_folders(root)), complain=complain, note=note)
        train, test = split_off(whole, test_fraction, seed=split_seed, argument="test_fraction")
        return Splits(train, None, test)
    if "train" not in folders:
        first = next(iter(folders.values()))
        raise FileNotFoundError(f"{root} has {first}/ but no train/ with a folder of images per class")
    if len(folders) == 1:
        raise FileNotFoundError(
            f"{root} has {folders['train']}/ but neither test/ nor val/ with class folders: add one, "
            f"or pass data_dir={os.path.join(root, folders['train'])} to have a test set split off"
        )
    class_names = tuple(_class_folders(os.path.join(root, folders["train"])))
    train, *val, test = [
        _read_folder(os.path.join(root, folders[split]), class_names=class_names, complain=complain, note=note)
        for split in ("train", "val", "test")
        if split in folders
    ]
    return Splits(train, val[0] if val else None, test)


def _split_folders(root: str, *, note: Note) -> dict[str, str]:
    """{split: name of its folder in `root`}; {} if `root` holds class folders.

    Raises ValueError for two folders of one split, or if splits hold images without class folders.
    """
    names = storage.subfolders(root)
    split_of = {name: split for name in names if (split := _split_of(name))}
    holding = [name for name in split_of if storage.subfolders(os.path.join(root, name))]
    folders: dict[str, str] = {}
    for name in holding:
        split = split_of[name]
        if split in folders:
            both = f"{root} has {folders[split]}/ and {name}/, which both mean the split {split}"
            raise ValueError(f"{both}: put their images together, or rename one of them.")
        folders[split] = name
    if folders and (others := [name for name in names if name not in holding]):
        note(
            f"{root} has folders that are not read: {_some(others)}. Splits are called train, val and test, "
            "and hold a folder of images per class."
        )
    if not folders and len(split_of) == len(names) and len({*split_of.values()}) > 1:
        raise ValueError(f"{root} has {_some(names)}, but no class folders in them: it should hold {HOLDS}")
    return folders


def _split_of(name: str) -> str | None:
    """The split that a folder of this name means: Training, train_set and TRAIN are train."""
    word = re.sub(r"[ _-]*(set|split|data|images?)$", "", plain_name(name).lower())
    return _SPLIT_OF.get(word)


def _read_folder(root: str, *, class_names: tuple[str, ...], complain: Complain, note: Note) -> Source:
    """The images of one split, whose class folders lie in `root`."""
    folders, train_classes = _class_folders(root), set(class_names)
    if unknown := sorted(set(folders) - train_classes):
        first = os.path.join(root, folders[unknown[0]])
        complain(ValueError(f"{first} is a class that train/ does not have{and_more(unknown)}"))
    known = [name for name in folders if name in train_classes]
    contents = storage.each(_contents, [os.path.join(root, folders[name]) for name in known])
    for mistake in itertools.chain.from_iterable(content.mistakes for content in contents):
        complain(mistake)
    of_class = dict(zip(known, contents, strict=True))
    _tell(root, of_class, note=note)
    if not any(content.paths for content in contents):
        raise ValueError(f"{root} holds no images of the classes in train/")
    paths = [path for name in known for path in of_class[name].paths]
    labels = [label for label, name in enumerate(class_names) if name in of_class for _ in of_class[name].paths]
    return Source(np.array(paths, object), np.array(labels, np.int32), class_names, names_below(root, paths))


def _tell(root: str, contents: dict[str, _Contents], *, note: Note) -> None:
    """Notes on files with other suffixes, and on folders in class folders that may be meant as classes."""
    if by_content := sum((content.by_content for content in contents.values()), Counter()):
        note(f"{root} has images of other suffixes, which are read by their content: {_counted(by_content)}.")
    if left_out := sum((content.left_out for content in contents.values()), Counter()):
        note(f"{root} has files that are not read, as they are not JPEG, PNG, WebP or BMP: {_counted(left_out)}.")
    nested = {name: content.inner for name, content in contents.items() if len(content.inner) > 1}
    single = {name: content.inner for name, content in contents.items() if len(content.inner) == 1}
    if not nested and len(single) == len(contents) == len({inner[0] for inner in single.values()}) > 1:
        nested = single  # genera of one species each; one inner name everywhere would be that of no class
    if nested:
        examples = [f"{name}/ ({_some(inner)})" for name, inner in list(nested.items())[:_MOST_NAMED]]
        note(
            f"{root}: the images of {len(nested)} of {len(contents)} classes lie in folders of their own, such as "
            f"{', '.join(examples)}. If the inner folders are the classes, move them up to {root}."
        )


def _some(names: list[str] | tuple[str, ...]) -> str:
    """`a/, b/`; after _MOST_NAMED names the list ends with `...`."""
    more = ", ..." if len(names) > _MOST_NAMED else ""
    return ", ".join(f"{name}/" for name in names[:_MOST_NAMED]) + more


def _counted(left_out: Counter[str]) -> str:
    """`20 .tif, 1 without suffix`, the most frequent first."""
    counts = [(ascii(suffix)[1:-1] or "without suffix", count) for suffix, count in left_out.most_common()]
    rest = sum(count for _, count in counts[_MOST_COUNTED:])
    parts = [f"{count} {suffix}" for suffix, count in counts[:_MOST_COUNTED]]
    return ", ".join([*parts, f"{rest} others"] if rest else parts)


def _class_folders(root: str) -> dict[str, str]:
    """{class: name of its folder in `root`}, by class.

    Raises ValueError if there are none, or if two folders are of one class.
    """
    folders: dict[str, str] = {}
    for folder in storage.subfolders(root):
        name = plain_name(folder)
        if name in folders:
            # with !a, because the two look alike
            both = f"{root} has the folders {folders[name]!a} and {folder!a}"
            raise ValueError(
                f"{both}, which have one name, {name!r}: put their images together, or rename one of them."
            )
        folders[name] = folder
    if not folders:
        raise ValueError(f"{root} has no class folders: `data_dir` should hold {HOLDS}")
    return dict(sorted(folders.items()))


def _contents(class_folder: str) -> _Contents:
    """The images below a class folder, what else is there, and the mistakes, not raised."""
    paths: list[str] = []
    mistakes: list[Exception] = []
    left_out: Counter[str] = Counter()
    by_content: Counter[str] = Counter()
    inner: set[str] = set()
    # With `onerror`, because otherwise a folder without permission to read would count as empty.
    for parent, folders, files in storage.walk(class_folder, onerror=mistakes.append):
        folders[:] = sorted(name for name in folders if not storage.is_hidden(name))
        images = [name for name in files if _is_image(parent, name, left_out=left_out, by_content=by_content)]
        paths += [os.path.join(parent, name) for name in images]
        if images:
            inner.add(parent.removeprefix(class_folder).strip("/" + os.sep).split(os.sep)[0])
    if not paths:
        inner_folders = () if left_out else storage.subfolders(class_folder)
        others = _counted(left_out) if left_out else f"folders ({_some(inner_folders)})" if inner_folders else ""
        but = f", only {others}" if others else ""
        mistakes.append(ValueError(f"class folder {class_folder} holds no images (JPEG, PNG, WebP, BMP){but}"))
    if unreadable := [path for path in paths if not _is_utf8(path)]:
        reason = "its name is not UTF-8, and TensorFlow reads no other names"
        mistakes.append(ValueError(f"rename {unreadable[0]!r}: {reason}{and_more(unreadable)}"))
    nested = [] if "" in inner else sorted(inner)
    return _Contents(sorted(filter(_is_utf8, paths)), left_out, by_content, nested, mistakes)


def _is_image(folder: str, name: str, *, left_out: Counter[str], by_content: Counter[str]) -> bool:
    """Whether the name is that of an image, or the file begins as one. Files of other suffixes are counted."""
    lower = name.lower()
    suffix = os.path.splitext(lower)[1]
    if lower.endswith(_LEFTOVERS):
        left_out[suffix] += 1  # also .icloud, which begins with a dot: an image that iCloud keeps elsewhere
        return False
    if storage.is_hidden(name) or _NO_IMAGE.fullmatch(lower):
        return False
    if suffix in storage.IMAGE_SUFFIXES:
        return True
    path = os.path.join(folder, name)
    try:
        start = storage.first_bytes(path, 16) if storage.is_file(path) else b""  # no pipes, which never end
    except OSError:
        start = b""
    if any(signature.match(start) for signature in _SIGNATURES):
        by_content[suffix] += 1
        return True
    left_out[suffix] += 1
    return False


def _is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
