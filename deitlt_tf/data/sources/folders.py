"""Images in folders: one folder of images per class, in train/ and test/, or without splits."""

import itertools
import os

import numpy as np

from deitlt_tf.data import storage
from deitlt_tf.data.dataset import Complain, Source, Splits, and_more, raise_mistake, split_off

HOLDS = "train/ and test/ or val/ with a folder of images per class, or the class folders alone"


def read(
    *, data_dir: str | None, test_fraction: float = 0.2, split_seed: int = 0, complain: Complain = raise_mistake
) -> Splits:
    """data_dir/{train,val,test}/<class>/**/*.jpg, or data_dir/<class>/**/*.jpg with a stratified test set split off.

    JPEG, PNG, WebP and BMP at any depth are read, classes in alphabetical order. Hidden files and folders are ignored.
    Links are followed down to the class folder. train/, val/ and test/ count as splits if they hold folders. With val/
    but no test/, val/ is the test set. A class may have no folder in val/ or test/; a folder without images is an
    error.
    test_fraction, split_seed: share of each class that becomes the test set where there are no splits, and its seed.
    Raises FileNotFoundError or ValueError that names the folder.
    """
    root = storage.require_data_dir(data_dir, source="folder", holds=HOLDS)
    splits = [split for split in ("train", "val", "test") if storage.subfolders(os.path.join(root, split))]
    if not splits:
        whole = _read_folder(root, class_names=_class_folders(root), complain=complain)
        train, test = split_off(whole, test_fraction, seed=split_seed, argument="test_fraction")
        return Splits(train, None, test)
    if "train" not in splits:
        raise FileNotFoundError(f"{root} has {splits[0]}/ but no train/ with a folder of images per class")
    if splits == ["train"]:
        raise FileNotFoundError(
            f"{root} has train/ but neither test/ nor val/ with class folders: add one, "
            f"or pass data_dir={os.path.join(root, 'train')} to have a test set split off"
        )
    class_names = _class_folders(os.path.join(root, "train"))
    train, *val, test = [
        _read_folder(os.path.join(root, split), class_names=class_names, complain=complain) for split in splits
    ]
    return Splits(train, val[0] if val else None, test)


def _read_folder(root: str, *, class_names: tuple[str, ...], complain: Complain) -> Source:
    """The images of one split, whose class folders lie in `root`."""
    folders = _class_folders(root)
    if unknown := sorted(set(folders) - set(class_names)):
        first = os.path.join(root, unknown[0])
        complain(ValueError(f"{first} is a class that train/ does not have{and_more(unknown)}"))
    known = [name for name in folders if name not in unknown]
    contents = storage.each(_image_files, [os.path.join(root, name) for name in known])
    for mistake in itertools.chain.from_iterable(mistakes for _, mistakes in contents):
        complain(mistake)
    files = {name: images for name, (images, _) in zip(known, contents, strict=True)}
    if not any(files.values()):
        raise ValueError(f"{root} holds no images of the classes in train/")
    paths = [path for name in known for path in files[name]]
    labels = [label for label, name in enumerate(class_names) for _ in files.get(name, ())]
    return Source(np.array(paths, object), np.array(labels, np.int32), class_names)


def _class_folders(root: str) -> tuple[str, ...]:
    """Names of the class folders in `root`; raises ValueError if there are none."""
    if not (folders := storage.subfolders(root)):
        raise ValueError(f"{root} has no class folders: `data_dir` should hold {HOLDS}")
    return folders


def _image_files(class_folder: str) -> tuple[list[str], list[Exception]]:
    """Sorted paths of the images below a class folder, and the mistakes there, not raised."""
    paths: list[str] = []
    mistakes: list[Exception] = []
    # With `onerror`, because otherwise a folder without permission to read would count as empty.
    for parent, folders, files in storage.walk(class_folder, onerror=mistakes.append):
        folders[:] = [name for name in folders if not name.startswith(".")]
        images = [name for name in files if name.lower().endswith(storage.IMAGE_SUFFIXES) and not name.startswith(".")]
        paths += [os.path.join(parent, name) for name in images]
    if not paths:
        mistakes.append(
            ValueError(f"class folder {class_folder} holds no images ({', '.join(storage.IMAGE_SUFFIXES)})")
        )
    if unreadable := [path for path in paths if not _is_utf8(path)]:
        reason = "its name is not UTF-8, and TensorFlow reads no other names"
        mistakes.append(ValueError(f"rename {unreadable[0]!r}: {reason}{and_more(unreadable)}"))
    return sorted(filter(_is_utf8, paths)), mistakes


def _is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
