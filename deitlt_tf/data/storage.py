"""WHERE files lie: on disk, asked through `os`; behind a URL (gs://, s3://, hdfs://, ...), through `tf.io.gfile`.

Every question about a URL is a request over a network. So a folder is asked once for all that is in it, a file is read
in one piece, and `each` asks many at a time. TensorFlow is imported for URLs alone.
"""

import contextlib
import errno
import io
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.pool import ThreadPool
from typing import Any, BinaryIO, TypeVar

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")  # compared in lower case
REQUESTS = 16  # at a time; they wait for the network nearly always
Item = TypeVar("Item")


def is_url(path: str) -> bool:
    return "://" in path


def join(folder: str, path: str) -> str:
    """`path` as seen from `folder`: itself if it is a URL or absolute."""
    return path if is_url(path) else os.path.join(folder, path)


def is_dir(path: str) -> bool:
    """Whether there is such a folder; raises ValueError or OSError where a URL cannot be asked."""
    if not is_url(path):
        return os.path.isdir(path)
    with contextlib.suppress(FileNotFoundError), _requests(path) as gfile:
        return gfile.stat(path).is_directory  # `gfile.isdir` is silent about what keeps it from asking
    return False


def is_file(path: str) -> bool:
    """Whether there is such a file; raises as `is_dir` does."""
    if not is_url(path):
        return os.path.isfile(path)
    with contextlib.suppress(FileNotFoundError), _requests(path) as gfile:
        return not gfile.stat(path).is_directory
    return False


def existing(data_dir: str | None, *, source: str, holds: str, files: Sequence[str] = ()) -> str:
    """`data_dir`, once it is there with all `files`; else raises what says that `source` needs it and what it holds."""
    if not data_dir:
        raise ValueError(f"source {source} needs --data_dir, a folder with {holds}")
    if not is_dir(data_dir):
        raise FileNotFoundError(f"--data_dir={data_dir} is not a folder: it should hold {holds}")
    for file in files:
        if not is_file(join(data_dir, file)):
            raise FileNotFoundError(f"{join(data_dir, file)} is missing: --data_dir should hold {holds}")
    return data_dir


def below_common_folder(paths: Sequence[str]) -> list[str]:
    """The paths from the innermost folder on that holds all of them, which may have been moved since."""
    # `commonpath` would make one slash of the two in a URL
    cut = max(0, os.path.commonprefix([min(paths), max(paths)]).rfind("/"))  # noqa: RUF071 (cut at a slash)
    return [path[cut:] for path in paths]


def size(path: str) -> int:
    """Bytes of a file."""
    if not is_url(path):
        return os.path.getsize(path)
    with _requests(path) as gfile:
        return gfile.stat(path).length


def opened(path: str) -> BinaryIO:
    """A file to be read from its start: of a URL all bytes, fetched at once."""
    if not is_url(path):
        return open(path, "rb")
    with _requests(path) as gfile, gfile.GFile(path, "rb") as stream:
        return io.BytesIO(stream.read())


def read_text(path: str) -> str:
    """Raises ValueError for bytes that are not UTF-8, OSError for a file that cannot be read."""
    try:
        with io.TextIOWrapper(opened(path), encoding="utf-8-sig") as stream:
            return stream.read()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error


def subfolders(folder: str) -> tuple[str, ...]:
    """Sorted names of the folders in `folder` that are not hidden; none where it is no folder."""
    if not is_dir(folder):
        return ()
    if is_url(folder):
        return tuple(sorted(_entries(folder)[0]))
    with os.scandir(folder) as entries:
        return tuple(sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")))


def file_names(folder: str) -> frozenset[str]:
    """Names of the files in `folder`; none where it is no folder.

    At a URL folders are among them where no slash marks them: to ask about each name would take hours.
    """
    if is_url(folder):
        with contextlib.suppress(FileNotFoundError):
            return frozenset(name for name in _listed(folder) if not name.endswith("/"))
        return frozenset()
    if not os.path.isdir(folder):
        return frozenset()
    with os.scandir(folder) as entries:
        return frozenset(entry.name for entry in entries if entry.is_file())


def walk(folder: str, *, onerror: Callable[[OSError], Any]) -> Iterator[tuple[str, list[str], list[str]]]:
    """(folder, names of folders in it, names of files in it) for `folder` and all below that stay in the first list.

    onerror: called with what keeps a folder from being read. At a URL what is hidden is left out.
    """
    if not is_url(folder):
        yield from os.walk(folder, onerror=onerror)
        return
    try:
        folders, names = _entries(folder)
    except OSError as error:
        onerror(error)
        return
    yield folder, folders, names
    for name in folders:
        yield from walk(join(folder, name), onerror=onerror)


def each(function: Callable[[str], Item], paths: Sequence[str]) -> list[Item]:
    """[function(path) for path in paths]; many at a time, in threads, if they are URLs."""
    if not any(map(is_url, paths)):
        return [function(path) for path in paths]
    with ThreadPool(REQUESTS) as pool:
        return pool.map(function, paths, chunksize=1)


def _entries(url: str) -> tuple[list[str], list[str]]:
    """Names of folders and of files at a URL, none hidden: one listing, and a question for each name without a mark.

    A slash at its end marks a folder (gs:// has it), the suffix of an image a file.
    """
    names = [name for name in _listed(url) if not name.startswith(".")]
    marked = ("/", *IMAGE_SUFFIXES)
    asked = [name for name in names if not name.lower().endswith(marked)]
    folders = {*itertools.compress(asked, each(is_dir, [join(url, name) for name in asked]))}
    folders |= {name for name in names if name.endswith("/")}
    return [name.rstrip("/") for name in names if name in folders], [name for name in names if name not in folders]


def _listed(url: str) -> list[str]:
    with _requests(url) as gfile:
        return [name for name in gfile.listdir(url) if name.strip("/")]


@contextlib.contextmanager
def _requests(url: str) -> Iterator[Any]:
    """`tf.io.gfile`, whose errors become Python's, in one sentence that names the URL."""
    import tensorflow as tf

    try:
        yield tf.io.gfile
    except tf.errors.NotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url) from error
    except tf.errors.UnimplementedError as error:
        known = ", ".join(f"{scheme}://" for scheme in sorted(tf.io.gfile.get_registered_schemes()) if scheme)
        raise ValueError(f"{url}: this TensorFlow knows no such file system, only {known}") from error
    except tf.errors.OpError as error:
        raise OSError(errno.EIO, " ".join(error.message.split()) or type(error).__name__, url) from error
