"""The images of a table on disk: where each one lies, and which are missing."""

import os
from typing import TYPE_CHECKING

import numpy as np

from deitlt_tf.data import storage
from deitlt_tf.data.paths import SUFFIXES, IdPaths, TextPaths
from deitlt_tf.data.table import journal, keys

if TYPE_CHECKING:
    import pyarrow as pa


def by_id(root: str, ids: np.ndarray) -> tuple[IdPaths, np.ndarray]:
    """(paths, bool [N] whether there is such a file) of images named by their number: root/123/4567123.jpg, or flat.

    root: folder or URL, filled by `fetch`, or a folder with files 4567123.jpg. Each folder is listed once.
    """
    folders = [name for name in storage.subfolders(root) if len(name) == 3 and name.isdigit()]
    flat = not folders
    listed = storage.each(_numbers_in, [root] if flat else [storage.join(root, name) for name in folders])
    there = np.concatenate([np.zeros(0, np.int64), *listed])  # codes: number and suffix
    if not flat:  # a file in another folder than that of its number is not found by `IdPaths`
        places = np.repeat([int(name) for name in folders], [len(codes) for codes in listed])
        there = there[there // len(SUFFIXES) % 1000 == places]
    there.sort()
    if not len(there):
        return IdPaths(root, ids, flat=flat), np.zeros(len(ids), bool)
    found = np.minimum(np.searchsorted(there, ids * len(SUFFIXES)), len(there) - 1)
    exists = there[found] // len(SUFFIXES) == ids
    return IdPaths(root, ids, np.where(exists, there[found] % len(SUFFIXES), 0), flat=flat), exists


def _numbers_in(folder: str) -> np.ndarray:
    """int64, codes of the files in a folder that are called by a number: number * len(SUFFIXES) + suffix."""
    codes = []
    for name in storage.file_names(folder):
        stem, dot, suffix = name.rpartition(".")
        if (
            dot + suffix in SUFFIXES
            and stem.isascii()
            and stem.isdigit()
            and len(stem) < 20
            and int(stem) <= keys.LARGEST
        ):
            codes.append(int(stem) * len(SUFFIXES) + SUFFIXES.index(dot + suffix))
    return np.array(codes, np.int64)


def by_path(root: str, texts: "pa.Array") -> tuple[TextPaths, np.ndarray]:
    """(paths, bool [N] whether there is such a file) of images at paths from `root`. Each folder is listed once.

    Raises ValueError for a path that leaves `root`.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    outside = pc.match_substring_regex(texts, r"^([/\\~]|[A-Za-z]:|[a-z0-9]+://)|(^|/)\.\.(/|$)")
    if (count := pc.sum(outside).as_py() or 0) > 0:
        first = texts[pc.index(outside, True).as_py()].as_py()
        raise ValueError(
            f"path {first!r} of the table leaves the image root, paths are relative to it ({count} such paths)."
        )
    folders = pc.replace_substring_regex(texts, r"(^|/)[^/]*$", "").dictionary_encode()
    codes = folders.indices.to_numpy(zero_copy_only=False)
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=len(folders.dictionary)))
    names = storage.each(_file_names, [storage.join(root, str(name)) for name in folders.dictionary.to_pylist()])
    exists = np.zeros(len(texts), bool)
    start = 0
    for end, there in zip(ends.tolist(), names, strict=True):
        inside = order[start:end]
        own = pc.replace_substring_regex(texts.take(pa.array(inside)), "^.*/", "")
        known = pa.array(sorted(there), pa.large_string())
        exists[inside] = pc.is_in(own, value_set=known).to_numpy(zero_copy_only=False)
        start = end
    return TextPaths(root, texts), exists


def _file_names(folder: str) -> list[str]:
    """Names of the files in a folder, without those that are not UTF-8, which TensorFlow cannot open."""
    return [name for name in storage.file_names(folder) if not any("\ud800" <= letter <= "\udfff" for letter in name)]


def given_up(root: str) -> np.ndarray:
    """int64, sorted numbers of the images that `fetch` could not get, as its journal in `root` says."""
    path = os.path.join(root, journal.FILE)
    if storage.is_url(root) or not os.path.isfile(path):
        return np.zeros(0, np.int64)
    return np.unique(np.array([entry.key for entry in journal.read(path) if entry.status != journal.OK], np.int64))
