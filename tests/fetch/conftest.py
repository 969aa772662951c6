"""What the tests of fetch share: a server on this machine, a table of its images, and the command."""

import csv
import json

import pytest
from helpers.encodings import encoded, picture
from helpers.image_server import image, serving

from deitlt_tf.fetch import __main__ as fetch
from deitlt_tf.fetch import download, pace

JPEG = encoded(picture(), "JPEG")
TAKES = ("rate", "connections", "tries", "max_mb", "again")


@pytest.fixture
def server():
    with serving() as started:
        yield started


@pytest.fixture
def hurry(monkeypatch):
    """Waits between two tries are a hundredth of what they are."""
    monkeypatch.setattr(download.Limits, "backoff", 0.01)
    monkeypatch.setattr(pace, "DEFAULT_PAUSE", 0.05)
    monkeypatch.setattr(download, "DEFAULT_PAUSE", 0.05)


@pytest.fixture
def table(tmp_path, server):
    """table({id: replies}) -> a CSV file of these images, of one class, and their server answers so."""

    def write(replies, *, urls=None, **columns):
        path = tmp_path / "table.csv"
        with path.open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["photo_id", "genus", "species", "photo_url", *columns])
            for number, (key, turns) in enumerate(replies.items()):
                server.replies[f"/{key}.jpg"] = turns if isinstance(turns, list) else [turns]
                url = (urls or {}).get(key, f"{server.base}/{key}.jpg")
                writer.writerow([key, "Aus", "bus", url, *(values[number] for values in columns.values())])
        return path

    return write


@pytest.fixture
def run_fetch(program, tmp_path):
    """run_fetch(table, *arguments) -> (exit code, what was printed, {id: line of the journal})."""

    def call(path, *arguments):
        folder = tmp_path / "images"
        arguments = (f"--table={path}", f"--data_dir={folder}", "--rate=1000", *arguments)
        code, printed = program(fetch, *arguments, takes=TAKES)
        log = folder / "fetch.jsonl"
        texts = log.read_text().splitlines() if log.is_file() else []
        lines = [json.loads(text) for text in texts if text.startswith("{")]
        return code, printed, {line["id"]: line for line in lines}

    return call


@pytest.fixture
def good():
    """The reply with an image."""
    return image(JPEG)
