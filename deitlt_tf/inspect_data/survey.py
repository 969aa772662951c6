"""What can be told of a data set's files without decoding them: sizes, damage, copies, missing folders. In threads.

surveyed = {split: survey.look(source, ...) for split, source in ...}     a Look per image
survey.copies(...), survey.absent_folders(...)                            what follows from them
"""

import hashlib
import io
import os
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.pool import ThreadPool
from typing import Any, BinaryIO, NamedTuple

from tqdm import tqdm

from deitlt_tf.data import storage
from deitlt_tf.data.dataset import Source, names
from deitlt_tf.inspect_data import headers

THREADS = 16  # they wait for the disk most of the time: more than cores, few enough for a network disk
FINGERPRINT = 1024  # bytes at the end; compressed images of equal length rarely share them


class Look(NamedTuple):
    """What one image showed: its header, length in bytes and a checksum of its last bytes; or what is wrong with it.

    problem: a sentence that names the image, "" where it is good. missing: there is no such file. doubt: a problem that
    the decoder does not share.
    """

    header: headers.Header | None = None
    length: int = 0
    tail: int = 0
    problem: str = ""
    missing: bool = False
    doubt: str = ""


def look(source: Source, *, max_pixels: int, title: str | None = None) -> list[Look]:
    """A `Look` per image, in order; images of more than `max_pixels` pixels are a problem, as in `decode`.

    source: paths or encoded images. title: of a progress bar; None: no bar.
    """
    jobs = list(zip(source.images, names(source), [max_pixels] * len(source), strict=True))
    return list(_in_threads(_look, jobs, title=title))


def _look(job: tuple[str | bytes, str, int]) -> Look:
    image, name, max_pixels = job
    try:
        with _open(image) as stream:
            length = len(stream.getbuffer()) if isinstance(stream, io.BytesIO) else os.fstat(stream.fileno()).st_size
            header = headers.read(stream, length=length)
            stream.seek(max(0, length - FINGERPRINT))
            tail = zlib.crc32(stream.read(FINGERPRINT))
    except FileNotFoundError:
        return Look(problem=f"{name}: no such file", missing=True)
    except OSError as error:
        return Look(problem=f"{name}: {error.strerror or error}")
    except ValueError as error:
        return Look(problem=f"{name}: {error}")
    if header.width * header.height > max_pixels:
        size = f"{header.width} x {header.height} pixels"
        return Look(problem=f"{name}: {size} are more than the limit of {max_pixels} (max_pixels)")
    return Look(header, length, tail)


def _open(image: str | bytes) -> BinaryIO:
    return storage.opened(image) if isinstance(image, str) else io.BytesIO(image)


def _in_threads(function: Callable, jobs: Sequence, *, title: str | None) -> Iterator[Any]:
    shown = {"desc": title, "total": len(jobs), "disable": title is None, "leave": False}
    # in blocks: handing over one job costs more than a look at a small file
    with ThreadPool(THREADS) as pool:
        yield from tqdm(pool.imap(function, jobs, chunksize=256), **shown)


def copies(surveyed: dict[str, tuple[Source, list[Look]]], *, title: str | None = None) -> list[list[tuple[str, int]]]:
    """Groups of images with the same bytes, each a list of (split, index). Images with a problem are left out.

    Only images of equal length and equal last bytes are read whole: among JPEGs, next to none that are no copies.
    """
    alike: dict[tuple[int, int], list[tuple[str, int]]] = defaultdict(list)
    for split, (_, looks) in surveyed.items():
        for index, seen in enumerate(looks):
            if not seen.problem:
                alike[seen.length, seen.tail].append((split, index))
    suspects = [image for group in alike.values() if len(group) > 1 for image in group]
    images = [surveyed[split][0].images[index] for split, index in suspects]
    same: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for suspect, digest in zip(suspects, _in_threads(_digest, images, title=title), strict=True):
        same[digest].append(suspect)
    return [group for group in same.values() if len(group) > 1]


def _digest(image: str | bytes) -> str:
    with _open(image) as stream:
        return hashlib.file_digest(stream, hashlib.sha256).hexdigest()


def absent_folders(paths: Iterable[str], missing: Iterable[str]) -> dict[str, int]:
    """{folder: listed images in it}: the topmost folders of which every listed image is missing, largest first.

    paths: all listed images, relative to their root, which itself is not named; missing: those of them not there.
    """
    listed, gone = _by_folder(paths), _by_folder(missing)
    whole = {folder for folder, count in gone.items() if count == listed[folder]}
    topmost = [folder for folder in whole if os.path.dirname(folder) not in whole]
    return {folder: listed[folder] for folder in sorted(topmost, key=lambda folder: (-listed[folder], folder))}


def _by_folder(paths: Iterable[str]) -> Counter[str]:
    """How many of the paths lie in each folder, at any depth."""
    counts: Counter[str] = Counter()
    for folder, count in Counter(map(os.path.dirname, paths)).items():
        while folder:
            counts[folder] += count
            folder = os.path.dirname(folder)
    return counts
