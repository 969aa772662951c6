"""Check the files of a data set without decoding them: sizes, damage, copies, missing folders.

checks = survey.check_files(source, max_pixels=...)     a FileCheck per image, in threads
survey.copies({"train": (source, checks), ...})         groups of images with the same bytes
survey.absent_folders(paths, missing)                   folders without any of their images
"""

import hashlib
import io
import os
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.pool import ThreadPool
from typing import Any, NamedTuple

from tqdm import tqdm

from deitlt_tf.data import storage
from deitlt_tf.data.dataset import Source, image_names
from deitlt_tf.data.decode import MAX_SIDE
from deitlt_tf.data.progress import bar_of
from deitlt_tf.inspect_data import headers

THREADS = 16  # more than cores, because they wait for the disk most of the time; few enough for a network disk
FINGERPRINT = 1024  # bytes at the end that are compared; compressed images of equal length rarely share them


class FileCheck(NamedTuple):
    """The result for one image.

    header: None if it cannot be read. length: bytes. checksum: of the last FINGERPRINT bytes.
    problem: a sentence that names the image, "" if it is good. missing: whether there is no such file.
    doubt: a problem of the header that the decoder does not have.
    """

    header: headers.Header | None = None
    length: int = 0
    checksum: int = 0
    problem: str = ""
    missing: bool = False
    doubt: str = ""


def check_files(source: Source, *, max_pixels: int, title: str | None = None) -> list[FileCheck]:
    """A `FileCheck` per image, in the order of the source.

    source: paths or encoded images. max_pixels: an image with more is a problem, as in `data.decode`.
    title: of a progress bar; None: no bar.
    """
    jobs = list(zip(source.images, image_names(source), [max_pixels] * len(source), strict=True))
    return list(_in_threads(_check_file, jobs, title=title))


def _check_file(job: tuple[str | bytes, str, int]) -> FileCheck:
    image, name, max_pixels = job
    try:
        with open_image(image) as stream:
            length = len(stream.getbuffer()) if isinstance(stream, io.BytesIO) else os.fstat(stream.fileno()).st_size
            header = headers.read(stream, length=length)
            stream.seek(max(0, length - FINGERPRINT))
            checksum = zlib.crc32(stream.read(FINGERPRINT))
    except FileNotFoundError:
        return FileCheck(problem=f"{name}: no such file", missing=True)
    except OSError as error:
        return FileCheck(problem=f"{name}: {error.strerror or error}")
    except ValueError as error:
        return FileCheck(problem=f"{name}: {error}")
    size = f"{header.width} x {header.height} pixels"
    if header.width * header.height > max_pixels:
        return FileCheck(problem=f"{name}: {size} are more than the limit of {max_pixels} (`max_pixels`)")
    if max(header.width, header.height) > MAX_SIDE:
        return FileCheck(problem=f"{name}: {size}, a side of more than {MAX_SIDE} is not read")
    return FileCheck(header, length, checksum)


def open_image(image: str | bytes) -> io.BufferedReader | io.BytesIO:
    """The bytes of an image, a path or encoded, open for reading."""
    return storage.open_file(image) if isinstance(image, str) else io.BytesIO(image)


def _in_threads(function: Callable, jobs: Sequence, *, title: str | None) -> Iterator[Any]:
    """function(job) of every job, in their order, with a progress bar if there is a title."""
    progress = {"total": len(jobs), "leave": False} | bar_of(title)
    # In blocks, because passing one job to a thread takes longer than the check of a small file.
    with ThreadPool(THREADS) as pool:
        yield from tqdm(pool.imap(function, jobs, chunksize=256), **progress)


def copies(
    checked: dict[str, tuple[Source, list[FileCheck]]], *, title: str | None = None
) -> list[list[tuple[str, int]]]:
    """Groups of images with the same bytes, each a list of (split, index). Images with a problem are left out.

    Only images of equal length and equal last bytes are read as a whole. Among JPEGs nearly all of these are copies.
    checked: {split: (source, its checks)}. title: of a progress bar; None: no bar.
    """
    equal_ends: dict[tuple[int, int], list[tuple[str, int]]] = defaultdict(list)
    for split, (_, checks) in checked.items():
        for index, check in enumerate(checks):
            if not check.problem:
                equal_ends[check.length, check.checksum].append((split, index))
    suspects = [image for group in equal_ends.values() if len(group) > 1 for image in group]
    images = [checked[split][0].images[index] for split, index in suspects]
    same: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for suspect, digest in zip(suspects, _in_threads(_digest, images, title=title), strict=True):
        same[digest].append(suspect)
    return [group for group in same.values() if len(group) > 1]


def _digest(image: str | bytes) -> str:
    with open_image(image) as stream:
        return hashlib.file_digest(stream, hashlib.sha256).hexdigest()


def absent_folders(paths: Iterable[str], missing: Iterable[str]) -> dict[str, int]:
    """{folder: number of its listed images} of the topmost folders whose listed images are all missing, largest first.

    paths: all listed images, relative to their root. missing: those of them that do not exist. The root itself is not
    in the result.
    """
    listed, absent = _by_folder(paths), _by_folder(missing)
    complete = {folder for folder, count in absent.items() if count == listed[folder]}
    topmost = [folder for folder in complete if os.path.dirname(folder) not in complete]
    return {folder: listed[folder] for folder in sorted(topmost, key=lambda folder: (-listed[folder], folder))}


def parents(path: str) -> Iterator[str]:
    """The folders that hold a relative path, from the innermost out, without the root itself."""
    while (folder := os.path.dirname(path)) not in ("", path):
        yield folder
        path = folder


def _by_folder(paths: Iterable[str]) -> Counter[str]:
    """{folder: number of the paths in it, at any depth}."""
    counts: Counter[str] = Counter()
    for folder, count in Counter(map(os.path.dirname, paths)).items():
        for each in (folder, *parents(folder)) if folder else ():
            counts[each] += count
    return counts
