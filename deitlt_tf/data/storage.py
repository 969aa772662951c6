"""Files and folders on disk, read with `os`, or at a URL (gs://, s3://, hdfs://, ...), read with `tf.io.gfile`.

Every operation on a URL is a request over a network. So a folder is listed once instead of being asked for each file,
a file is read in one piece, and `each` runs many requests at a time. TensorFlow is imported only for URLs.
"""

import codecs
import contextlib
import errno
import io
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, TypeVar

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")  # compared with names in lower case
# Folders that systems and disks leave, in lower case: macOS's archives, Synology's thumbnails, waste baskets, ...
SYSTEM_FOLDERS = ("__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found")
REQUESTS = 16  # at a time, because they wait for the network nearly always
Item = TypeVar("Item")


def is_url(path: str) -> bool:
    """Whether the path has a scheme, as gs://bucket/folder has."""
    return "://" in path


def join(folder: str, path: str) -> str:
    """folder/path; `path` alone if it is a URL or absolute."""
    return path if is_url(path) else os.path.join(folder, path)


def is_dir(path: str) -> bool:
    """Whether there is such a folder. Raises ValueError or OSError if a request to a URL fails."""
    if not is_url(path):
        return os.path.isdir(path)
    with contextlib.suppress(FileNotFoundError), _requests(path) as gfile:
        return gfile.stat(path).is_directory  # not `gfile.isdir`, because it is False when the request fails
    return False


def is_file(path: str) -> bool:
    """Whether there is such a file. Raises ValueError or OSError if a request to a URL fails."""
    if not is_url(path):
        return os.path.isfile(path)
    with contextlib.suppress(FileNotFoundError), _requests(path) as gfile:
        return not gfile.stat(path).is_directory
    return False


def require_data_dir(data_dir: str | None, *, source: str, holds: str, files: Sequence[str] = ()) -> str:
    """`data_dir`, after a check that it is a folder with these files.

    source: name of the source that needs it. holds: description of its content. Both are for the error messages.
    Raises ValueError if `data_dir` is empty, FileNotFoundError if it or one of the files is missing.
    """
    if not data_dir:
        raise ValueError(f"`data_dir` is missing: source {source} needs a folder with {holds}")
    if not is_dir(data_dir):
        raise FileNotFoundError(f"data_dir={data_dir} is not a folder: it should hold {holds}")
    for file in files:
        if not is_file(join(data_dir, file)):
            raise FileNotFoundError(f"{join(data_dir, file)} is missing: `data_dir` should hold {holds}")
    return data_dir


def below_common_folder(paths: Sequence[str]) -> list[str]:
    """The paths without the innermost folder that holds all of them, so they stay equal when that folder is moved."""
    # Not `os.path.commonpath`, because it would make one slash of the two in a URL.
    cut = max(0, os.path.commonprefix([min(paths), max(paths)]).rfind("/"))  # noqa: RUF071 (cut at a slash)
    return [path[cut:] for path in paths]


def size(path: str) -> int:
    """Size of a file, bytes."""
    if not is_url(path):
        return os.path.getsize(path)
    with _requests(path) as gfile:
        return gfile.stat(path).length


def open_file(path: str) -> io.BufferedReader | io.BytesIO:
    """The file, open for reading. At a URL all its bytes are fetched at once."""
    if not is_url(path):
        return open(path, "rb")
    with _requests(path) as gfile, gfile.GFile(path, "rb") as stream:
        return io.BytesIO(stream.read())


def first_bytes(path: str, count: int) -> bytes:
    """The first bytes of a file, without reading the rest."""
    if not is_url(path):
        with open(path, "rb") as stream:
            return stream.read(count)
    with _requests(path) as gfile, gfile.GFile(path, "rb") as stream:
        return stream.read(count)


def read_text(path: str) -> str:
    """The text of a file in UTF-8, or in UTF-16 with its mark at the beginning, with \\n at the end of each line.

    Raises ValueError that names the line of other bytes, OSError for a file that cannot be read.
    """
    with open_file(path) as stream:
        data = stream.read()
    utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if utf_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        what = f"{error.reason}, byte {data[error.start]:#x} in line {line}"
        raise ValueError(f"{path} is not UTF-8 text: {what}. Save it again with the encoding UTF-8.") from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise ValueError(f"{path} is not UTF-8 text: a zero in line {line}. Save it again with the encoding UTF-8.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or a folder that systems leave everywhere."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def subfolders(folder: str) -> tuple[str, ...]:
    """Sorted names of the folders in `folder` that are not hidden; none if there is no such folder."""
    if not is_dir(folder):
        return ()
    if is_url(folder):
        return tuple(sorted(_entries(folder)[0]))
    with os.scandir(folder) as entries:
        return tuple(sorted(entry.name for entry in entries if not is_hidden(entry.name) and _holds(entry.is_dir)))


def file_names(folder: str) -> frozenset[str]:
    """Names of the files in `folder`; none if there is no such folder.

    At a URL, names of folders without a slash at their end are among them: one request per name would take hours.
    """
    if is_url(folder):
        with contextlib.suppress(FileNotFoundError):
            return frozenset(name for name in _list_names(folder) if not name.endswith("/"))
        return frozenset()
    if not os.path.isdir(folder):
        return frozenset()
    with os.scandir(folder) as entries:
        return frozenset(entry.name for entry in entries if _holds(entry.is_file))


def _holds(question: Callable[[], bool]) -> bool:
    """question(); False where it cannot be answered, as for a link to itself."""
    try:
        return question()
    except OSError:
        return False


def walk(folder: str, *, onerror: Callable[[OSError], Any]) -> Iterator[tuple[str, list[str], list[str]]]:
    """(folder, names of folders in it, names of files in it), for `folder` and all folders below, as `os.walk` does.

    Folders that the caller removes from the first list are not entered. At a URL hidden names are left out.
    Links to folders are followed after all other folders. Each folder is entered once, however many links lead to it,
    and a folder that holds `folder` not at all, so that a link cannot lead in circles.
    onerror: called with the error when a folder cannot be read.
    """
    if not is_url(folder):
        above = Path(os.path.dirname(os.path.abspath(folder))).resolve()
        waiting, entered = [folder], {str(parent) for parent in (above, *above.parents)}
        while waiting:
            for parent, folders, names in os.walk(waiting.pop(0), onerror=onerror):
                if (real := os.path.realpath(parent)) in entered:
                    folders.clear()
                    continue
                entered.add(real)
                yield parent, folders, names
                links = [os.path.join(parent, name) for name in sorted(folders)]
                waiting += filter(os.path.islink, links)
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
    """[function(path) for path in paths]; many at a time, in threads, if one of them is a URL."""
    if not any(map(is_url, paths)):
        return [function(path) for path in paths]
    with ThreadPool(REQUESTS) as pool:
        return pool.map(function, paths, chunksize=1)


def _entries(url: str) -> tuple[list[str], list[str]]:
    """Names of folders and names of files at a URL, without hidden ones.

    A name with a slash at its end (gs:// has it) is a folder, a name with the suffix of an image is a file. That needs
    one request for the listing, and one more for each other name.
    """
    names = [name for name in _list_names(url) if not is_hidden(name.rstrip("/"))]
    unclear = [name for name in names if not name.lower().endswith(("/", *IMAGE_SUFFIXES))]
    folders = {*itertools.compress(unclear, each(is_dir, [join(url, name) for name in unclear]))}
    folders |= {name for name in names if name.endswith("/")}
    return [name.rstrip("/") for name in names if name in folders], [name for name in names if name not in folders]


def _list_names(url: str) -> list[str]:
    """Names of files and folders at a URL, as the file system writes them."""
    with _requests(url) as gfile:
        return [name for name in gfile.listdir(url) if name.strip("/")]


@contextlib.contextmanager
def _requests(url: str) -> Iterator[Any]:
    """`tf.io.gfile`; its errors become Python's, in one sentence that names the URL."""
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
