"""Fetch all images of a table that are not there yet."""

import array
import contextlib
import csv
import itertools
import json
import shutil
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np
from tqdm import tqdm

from deitlt_tf.data import storage
from deitlt_tf.data.dataset import print_note, raise_mistake
from deitlt_tf.data.paths import SUFFIXES, IdPaths, relative_path
from deitlt_tf.data.progress import bar_of
from deitlt_tf.data.sources import tables
from deitlt_tf.data.table import images, journal, selection
from deitlt_tf.data.table.choices import Rows
from deitlt_tf.data.table.files import TableFile
from deitlt_tf.data.table.journal import FAILED, GONE, OK, REFUSED
from deitlt_tf.data.table.keys import image_keys
from deitlt_tf.fetch.download import Answer, Limits, ServerAway, download, present
from deitlt_tf.fetch.pace import Pace, Stopped
from deitlt_tf.recipes.data import Data
from deitlt_tf.runs.files import replacing
from deitlt_tf.runs.lock import locked

UNFINISHED = ".unfinished"  # folder of images that are being fetched, in the folder of the images
CITED_AT_ONCE = 2**16  # lines of attribution.csv that are looked at together
WAITING = 4  # images for each connection that are read from the table ahead of it
ATTRIBUTION = "attribution.csv"
CITED = ("license", "creator", "rights_holder", "scientific_name")  # roles in attribution.csv


def fetch(data: Data, *, rate: float, connections: int, limits: Limits, again: bool = False) -> None:
    """Download the images that a run with these settings uses to `data.data_dir`, and print what came of it.

    rate: requests a second to one server. connections: at a time. again: ask once more for what was given up.
    Raises ValueError that says how many images could not be fetched, and what is wrong with the table before.
    """
    files = tables.open_table(data.table)
    for file in files:
        if "url" not in file.roles:
            file.require("photo_url", argument="table")
    if not data.data_dir:
        raise ValueError("`data_dir` is missing: name the folder that the images are to be in.")
    if storage.is_url(data.data_dir):
        raise ValueError(f"`data_dir`={data.data_dir}: fetch writes to a disk only. Name a folder, and copy it there.")
    rows = tables.choose(
        files,
        rank=data.rank,
        keep=data.keep,
        test_where=data.test_where,
        split_by=data.split_by,
        min_images=data.min_images,
        max_images=data.max_images,
        split_seed=data.split_seed,
        by_path=False,
        complain=raise_mistake,
        note=print_note,
    )
    folder = Path(data.data_dir)
    with locked(folder, argument="data_dir"):
        shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
        fetching = _Fetching(files, rows, folder, limits=limits, again=again)
        _require_own_attribution(folder / ATTRIBUTION)
        (folder / UNFINISHED).mkdir()
        try:
            counts = fetching.run(rate=rate, connections=connections)
        finally:
            shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
            cited = write_attribution(files, rows, folder)
    if not any("license" in file.roles for file in files):
        print_note("the table has no column of licences, so attribution.csv has none: see the page on tables.")
    print(f"{cited} of {len(rows)} images are in {folder}: {_in_words(counts)}.")
    if counts[FAILED]:
        raise ValueError(f"{counts[FAILED]} images could not be fetched this time: the same command tries them again.")


def _in_words(counts: Counter[str]) -> str:
    words = {OK: "fetched now", "before": "there before", GONE: "not on the server", REFUSED: "refused"}
    return ", ".join(f"{counts[status]} {text}" for status, text in words.items() if counts[status]) or "none fetched"


@dataclass
class _Known:
    """The last line of each image in a journal. keys: sorted int64; statuses, urls, files: of these."""

    keys: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    statuses: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int8))
    urls: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def line_of(self, key: int) -> tuple[str, int]:
        """(status, hash of the address) of an image, ("", 0) if the journal does not have it."""
        place = int(np.searchsorted(self.keys, key))
        if place == len(self.keys) or self.keys[place] != key:
            return "", 0
        return _STATUSES[self.statuses[place]], int(self.urls[place])


_STATUSES = (OK, GONE, REFUSED, FAILED)


def _read_journal(path: Path) -> _Known:
    """What is known from earlier calls; a line at the end that is cut off is removed from the file."""
    if not path.is_file():
        return _Known()
    with path.open("rb+") as stream:
        data_end = stream.seek(0, 2)
        while data_end:  # to the end of the last whole line
            start = max(0, data_end - 2**16)
            stream.seek(start)
            cut = stream.read(data_end - start).rfind(b"\n")
            data_end = start + cut + 1 if cut >= 0 else start
            if cut >= 0:
                break
        stream.truncate(data_end)
    found, statuses, urls = array.array("q"), array.array("b"), array.array("q")
    for entry in journal.read(str(path)):
        if entry.status not in _STATUSES:
            raise ValueError(f"{path} has the status {entry.status!r}, which this version does not know.")
        found.append(entry.key)
        statuses.append(_STATUSES.index(entry.status))
        urls.append(entry.url)
    if not found:
        return _Known()
    numbers = np.array(found)
    distinct, last = np.unique(numbers[::-1], return_index=True)
    last = len(numbers) - 1 - last
    return _Known(distinct, np.array(statuses)[last], np.array(urls)[last])


@dataclass(frozen=True)
class _Image:
    """A row whose image is to be fetched. old: its file from another address, which the new one replaces."""

    key: int
    image: str
    url: str
    old: str = ""


class _Fetching:
    """Rows, their folder, and what is known of them."""

    def __init__(self, files: Sequence[TableFile], rows: Rows, folder: Path, *, limits: Limits, again: bool):
        self.files, self.rows, self.folder, self.limits, self.again = files, rows, folder, limits, again
        self.known = _read_journal(folder / journal.FILE)
        self.paths, self.there = images.by_id(str(folder), rows.ids)
        if self.paths.flat and self.there.any():
            raise ValueError(f"{folder} has images that fetch has not put there: name another `data_dir`.")
        self.paths = IdPaths(str(folder), rows.ids, self.paths.codes % len(SUFFIXES))
        self.counts: Counter[str] = Counter()
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.error: BaseException | None = None

    def run(self, *, rate: float, connections: int) -> Counter[str]:
        """{status: number of images}, "before" those that were there. Raises the error that ended it early."""
        pace = Pace(rate, self.stop)
        room = threading.BoundedSemaphore(connections * WAITING)
        pool = ThreadPoolExecutor(connections)
        speed = f"at most {rate:g} requests a second to one server"
        print(f"{len(self.rows)} images of the table, {speed}, to {self.folder}")
        with (
            (self.folder / journal.FILE).open("a", encoding="utf-8") as log,
            tqdm(total=len(self.rows), unit="image", **bar_of("fetching")) as bar,
        ):
            try:
                for image in self._missing(log, bar):
                    room.acquire()
                    if self.stop.is_set():
                        break
                    future = pool.submit(self._fetch, image, pace, log, bar)
                    future.add_done_callback(lambda done: self._end(done, room))
            except BaseException as error:
                self.error = error
                self.stop.set()
            finally:
                with contextlib.suppress(KeyboardInterrupt):
                    self._finish(pool)
        if isinstance(self.error, ServerAway):
            raise ValueError(f"{self.error}: start the same command again after that.") from self.error
        if self.error:
            raise self.error
        return self.counts

    def _finish(self, pool: ThreadPoolExecutor) -> None:
        """Wait for the images that are on their way; after Ctrl+C, end them."""
        try:
            pool.shutdown(wait=True, cancel_futures=self.stop.is_set())
        except KeyboardInterrupt as error:
            self.error = error
            self.stop.set()
            pool.shutdown(wait=True, cancel_futures=True)

    def _end(self, done: Future, room: threading.BoundedSemaphore) -> None:
        room.release()
        error = None if done.cancelled() else done.exception()
        if error and not isinstance(error, Stopped):
            self.error = self.error or error
            self.stop.set()

    def _missing(self, log: TextIO, bar: tqdm) -> Iterator[_Image]:
        """The rows whose images are to be fetched; all others are counted."""
        name = "id" if all("id" in file.roles for file in self.files) else "url"
        for places, block in selection.cells(self.files, self.rows, ("url", name) if name != "url" else ("url",)):
            cells = zip(places.tolist(), block["url"].to_pylist(), block[name].to_pylist(), strict=True)
            for place, url, image in cells:
                found = self._state(place, url or "", image, log)
                if found is None:
                    bar.update()
                else:
                    yield found

    def _state(self, place: int, url: str, image: str, log: TextIO) -> _Image | None:
        """The image of a row if it is to be fetched; None if it is there or was given up, which is counted."""
        key = int(self.rows.ids[place])
        status, asked = self.known.line_of(key)
        same = asked == journal.url_key(url)
        if self.there[place]:
            if status == OK and same:
                self.counts["before"] += 1
                return None
            old = Path(self.paths[place])
            if not status and (answer := present(old, limits=self.limits)):
                self._write(_Image(key, image, url), answer, log, file=relative_path(key, old.suffix))
                self.counts["before"] += 1
                return None
            return _Image(key, image, url, str(old))
        if status in (GONE, REFUSED) and same and not self.again:
            self.counts[status] += 1
            return None
        return _Image(key, image, url)

    def _fetch(self, image: _Image, pace: Pace, log: TextIO, bar: tqdm) -> None:
        temporary = self.folder / UNFINISHED / str(image.key)
        try:
            answer = download(image.url, temporary, pace=pace, limits=self.limits)
            file = ""
            if answer.status == OK:
                file = relative_path(image.key, answer.suffix)
                target = self.folder / file
                target.parent.mkdir(exist_ok=True)
                temporary.replace(target)
                if image.old and Path(image.old) != target:
                    Path(image.old).unlink(missing_ok=True)
        finally:
            temporary.unlink(missing_ok=True)
        self._write(image, answer, log, file=file)
        with self.lock:
            self.counts[answer.status] += 1
            bar.update()

    def _write(self, image: _Image, answer: Answer, log: TextIO, *, file: str) -> None:
        fields = {key: value for key, value in asdict(answer).items() if value and key != "suffix"}
        fields |= {"file": file} if file else {}
        line = journal.line(image=image.image, key=image.key, url=image.url, **fields)
        with self.lock:
            log.write(json.dumps(line) + "\n")
            log.flush()


def _require_own_attribution(path: Path) -> None:
    """Raises ValueError if there is a file at `path` and `fetch` did not write it."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as stream:
        names = stream.readline().split(",")
    if names[:2] != ["id", "file"]:
        raise ValueError(f"{path} was not written by fetch: move it, or name another `data_dir`.")


def _of_earlier_calls(path: Path, rows: Rows) -> Iterator[dict[str, str]]:
    """The lines of attribution.csv on images that are there and not among the rows."""
    import pyarrow as pa

    if not path.is_file():
        return
    ids = np.sort(rows.ids)
    with path.open(newline="", encoding="utf-8") as stream:
        lines = csv.DictReader(stream)
        while block := list(itertools.islice(lines, CITED_AT_ONCE)):
            keys = image_keys(pa.array([line["id"] for line in block], pa.string()))
            places = np.minimum(np.searchsorted(ids, keys), len(ids) - 1)
            for line, again in zip(block, (ids[places] == keys).tolist(), strict=True):
                if not again and (path.parent / line["file"]).is_file():
                    yield line


def write_attribution(files: Sequence[TableFile], rows: Rows, folder: Path) -> int:
    """Write attribution.csv with a row for each image that is in the folder. Returns the number of those in `rows`.

    What earlier calls have fetched for other rows stays in the file.
    """
    paths, there = images.by_id(str(folder), rows.ids)
    before = _of_earlier_calls(folder / ATTRIBUTION, rows)
    first = next(before, None)
    roles = [role for role in CITED if any(role in file.roles for file in files) or (first and role in first)]
    name = "id" if all("id" in file.roles for file in files) else "url"
    with (
        replacing(folder / ATTRIBUTION) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as stream,
    ):
        writer = csv.writer(stream)
        writer.writerow(["id", "file", *roles, "url"])
        for line in itertools.chain([first] if first else [], before):
            writer.writerow([line.get(column, "") for column in ("id", "file", *roles, "url")])
        for places, block in selection.cells(files, rows, list(dict.fromkeys([name, *roles, "url"]))):
            columns = [block[role].to_pylist() for role in (name, *roles, "url")]
            for place, (image, *cells) in zip(places.tolist(), zip(*columns, strict=True), strict=True):
                if there[place]:
                    file = Path(paths[place]).relative_to(folder).as_posix()
                    writer.writerow([image, file, *cells])
    return int(there.sum())
