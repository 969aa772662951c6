"""The journal of `fetch`: one JSON object a line, written when an image is there or given up.

    {"id": 4567123, "status": "ok", "http": 200, "bytes": 83211, "sha256": "...", "file": "123/4567123.jpg",
     "url": "..."}

The last line of an image counts. A line that is cut off, because the process was killed, is left out.
"""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from deitlt_tf.data.table import keys

FILE = "fetch.jsonl"  # in the folder of the images
# ok: the image is there. gone: the server has no such image. refused: what came is no image, too large, or elsewhere.
# failed: the server or the network did not answer as often as it was tried.
OK, GONE, REFUSED, FAILED = "ok", "gone", "refused", "failed"


class Entry(NamedTuple):
    """One line. key: number of the image, see `selection.image_keys`. url: a hash of the address that was asked."""

    key: int
    status: str
    file: str
    url: int


def line(
    *, image: str, key: int, status: str, url: str, http: int = 0, reason: str = "", **content: Any
) -> dict[str, Any]:
    """The object of a line. image: as the table names it. content: bytes, sha256 and file of an image that is there."""
    fields: dict[str, Any] = {"id": int(image) if str(key) == image else image, "key": key, "status": status}
    if str(key) == image:
        del fields["key"]
    return fields | ({"http": http} if http else {}) | ({"reason": reason} if reason else {}) | content | {"url": url}


def read(path: str) -> Iterator[Entry]:
    """The lines of a journal. Raises ValueError that names the line of anything else, unless it is the last one."""
    damaged = 0
    with open(path, encoding="utf-8", errors="replace") as stream:
        for number, text in enumerate(stream, start=1):
            if damaged:
                raise ValueError(f"{path}:{damaged} is no line of a journal of fetch: remove that line.")
            try:
                fields = json.loads(text)
                key = int(fields.get("key", fields["id"]))
                yield Entry(key, str(fields["status"]), str(fields.get("file", "")), url_key(str(fields["url"])))
            except (ValueError, KeyError, TypeError, AttributeError):
                damaged = number


def url_key(url: str) -> int:
    """A hash of an address, which is compared with that of the table."""
    return keys.seed_of(url)
