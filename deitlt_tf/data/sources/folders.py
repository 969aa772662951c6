"""Images in folders: one folder of images per class, in train/ and test/ or not split yet."""

import itertools
import os

import numpy as np

from deitlt_tf.data import storage
from deitlt_tf.data.dataset import Complain, Source, Splits, and_more, split_off, stop

HOLDS = "train/ and test/ or val/ with a folder of images per class, or the class folders alone"


def read(*, data_dir: str | None, test_fraction: float = 0.2, split_seed: int = 0, complain: Complain = stop) -> Splits:
    """data_dir/{train,val,test}/<class>/**/*.jpg, or data_dir/<class>/**/*.jpg with a stratified test set split off.

    JPEG, PNG, WebP and BMP in any depth; classes in alphabetical order; hidden files and folders are ignored, links
    followed down to the class folder. With val/ but no test/, val/ is the test set. train/, val/ and test/ count as
    splits when they hold folders. A class may have no folder in val/ or test/; a folder without images is an error.
    Raises FileNotFoundError or ValueError that names the folder.
    """
    root = storage.existing(data_dir, source="folder", holds=HOLDS)
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
        complain(ValueError(f"{first} is a class that train/ does not have{and_more(unknown)}"))
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
        raise ValueError(f"{root} has no class folders: --data_dir holds {HOLDS}")
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
        mistakes.append(ValueError(f"rename {wrong[0]!r}: its name is not UTF-8{and_more(wrong)}"))
    return sorted(filter(_is_utf8, found)), mistakes


def _is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
