"""One image from its address: asked politely, a few times, checked, and put in place as a whole or not at all."""

import hashlib
import http.cookiejar
import os
import random
import threading
import time
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import urllib3

import deitlt_tf
from deitlt_tf.data.table.journal import FAILED, GONE, OK, REFUSED
from deitlt_tf.fetch.pace import DEFAULT_PAUSE, LONGEST_PAUSE, Pace, Stopped, retry_after
from deitlt_tf.inspect_data import headers

SUFFIX_OF = {"JPEG": ".jpg", "PNG": ".png", "WebP": ".webp", "BMP": ".bmp"}
REDIRECTS = 5
TIMEOUT = (10, 30)  # seconds: to connect, and between two pieces of the answer
LONGEST = 600.0  # seconds for one image
PIECE = 2**16  # bytes
BUSY = (429, 503)  # the server asks to be left alone
PASSING = (408, 425, 500, 502, 504)  # errors that may be over at the next try
_LOCAL = threading.local()


class ServerAway(Exception):
    """The server asks to be left alone for longer than a program should wait."""


@dataclass(frozen=True)
class Limits:
    """max_bytes, max_pixels: of an image. tries: how often it is asked for. backoff: seconds before the second try."""

    max_bytes: int
    max_pixels: int
    tries: int = 5
    backoff: float = 1.0


@dataclass(frozen=True)
class Answer:
    """What came of an image: fields of a line of the journal, and the suffix that its content has."""

    status: str
    http: int = 0
    reason: str = ""
    bytes: int = 0
    sha256: str = ""
    suffix: str = ""


class _TryAgain(Exception):
    """A try failed in a way that may pass. answer: what is written if it was the last one. seconds: to wait."""

    def __init__(self, answer: Answer, seconds: float | None = None):
        super().__init__(answer.reason)
        self.answer, self.seconds = answer, seconds


def download(url: str, temporary: Path, *, pace: Pace, limits: Limits) -> Answer:
    """Fetch the image at `url` into the file `temporary`, which is there if the status is OK.

    Raises Stopped if the program is to end, ServerAway, and OSError if the file cannot be written.
    """
    for tried in range(limits.tries):
        try:
            return _one_try(url, temporary, pace=pace, limits=limits)
        except _TryAgain as failure:
            temporary.unlink(missing_ok=True)
            answer = failure.answer
            if tried + 1 < limits.tries:
                # Not all at once: connections that were cut together would come back together.
                wait = limits.backoff * 2**tried * random.uniform(0.75, 1.25)
                pace.rest(wait if failure.seconds is None else failure.seconds)
    return answer


def _one_try(url: str, temporary: Path, *, pace: Pace, limits: Limits) -> Answer:
    for _ in range(REDIRECTS + 1):
        parts = _parsed(url)
        if parts is None:
            return Answer(REFUSED, reason=f"not an address of http or https: {url[:200]}")
        pace.wait(parts.netloc)
        try:
            with _session().get(url, stream=True, allow_redirects=False, timeout=TIMEOUT) as response:
                if response.is_redirect:
                    url = urllib.parse.urljoin(url, response.headers["Location"])
                    continue
                return _content(response, temporary, server=parts.netloc, pace=pace, limits=limits)
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
            return Answer(REFUSED, reason=f"not an address that can be asked: {error}"[:200])
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise _TryAgain(Answer(FAILED, reason=_plain(error))) from error
        except ValueError as error:  # an address that is none, of the table or of a redirect
            return Answer(REFUSED, reason=f"not an address that can be asked: {error}"[:200])
    return Answer(REFUSED, reason=f"more than {REDIRECTS} redirects")


def _parsed(url: str) -> urllib.parse.SplitResult | None:
    """The parts of an address of http or https; None of any other."""
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        return None
    return parts if parts.scheme in ("http", "https") and parts.netloc else None


def _content(response: requests.Response, temporary: Path, *, server: str, pace: Pace, limits: Limits) -> Answer:
    code = response.status_code
    if code in BUSY:
        seconds = retry_after(response.headers.get("Retry-After"))
        seconds = DEFAULT_PAUSE if seconds is None else seconds
        if seconds > LONGEST_PAUSE:
            raise ServerAway(f"{server} answers {code} and asks to be left alone for {seconds / 3600:.3g} hours")
        pace.pause(server, seconds)
        raise _TryAgain(Answer(FAILED, code, response.reason), 0.0)
    if code in PASSING:
        raise _TryAgain(Answer(FAILED, code, response.reason))
    if code != 200:
        return Answer(GONE if 400 <= code < 500 else REFUSED, code, response.reason)
    announced = response.headers.get("Content-Length", "")
    if announced.isascii() and announced.isdigit() and int(announced[:20]) > limits.max_bytes:
        return Answer(REFUSED, code, f"{announced[:20]} bytes are more than the limit of {limits.max_bytes}")
    length, digest, end = 0, hashlib.sha256(), time.monotonic() + LONGEST
    with temporary.open("wb") as file:
        # Not decoded: the request asks for the bytes as they are, so a compressed answer cannot swell here.
        # And by what has come, not by whole pieces: a server that sends a byte now and then is given up, too.
        while piece := response.raw.read1(PIECE, decode_content=False):
            length += len(piece)
            if length > limits.max_bytes:
                return Answer(REFUSED, code, f"more bytes than the limit of {limits.max_bytes}")
            if pace.stop.is_set():
                raise Stopped
            if time.monotonic() > end:
                raise _TryAgain(Answer(FAILED, code, f"not complete after {LONGEST:g} seconds"))
            file.write(piece)
            digest.update(piece)
        file.flush()
        os.fsync(file.fileno())
    return checked(temporary, length, digest.hexdigest(), code=code, limits=limits)


def checked(path: Path, length: int, sha256: str, *, code: int, limits: Limits) -> Answer:
    """The answer for a file: OK if it is an image as a whole and not too large, by its content.

    Raises _TryAgain if it is cut off or damaged, as when the server has told a wrong length.
    """
    try:
        with path.open("rb") as stream:
            header = headers.read(stream, length=length)
    except ValueError as error:
        answer = Answer(REFUSED, code, str(error), length)
        if str(error) == headers.UNKNOWN:
            return answer
        raise _TryAgain(answer) from error
    if header.width * header.height > limits.max_pixels:
        size = f"{header.width} x {header.height} pixels"
        return Answer(REFUSED, code, f"{size} are more than the limit of {limits.max_pixels}", length)
    return Answer(OK, code, "", length, sha256, SUFFIX_OF[header.format])


def present(path: Path, *, limits: Limits) -> Answer | None:
    """The answer for an image that is there already, because the program was killed before it could write the line."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, hashlib.sha256).hexdigest()
        length = stream.tell()
    try:
        answer = checked(path, length, digest, code=0, limits=limits)
    except _TryAgain:
        return None
    return answer if answer.status == OK else None


def _session() -> requests.Session:
    """The connections of this thread, without cookies and without what ~/.netrc holds."""
    if not hasattr(_LOCAL, "session"):
        session = requests.Session()
        session.headers["User-Agent"] = f"deitlt_tf/{deitlt_tf.__version__} fetch"
        session.headers["Accept-Encoding"] = "identity"
        session.auth = _no_password
        session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
        _LOCAL.session = session
    return _LOCAL.session


def _no_password(request: Any) -> Any:
    return request


def _plain(error: Exception) -> str:
    """What went wrong, without addresses of objects."""
    reason = getattr(error, "reason", None) or (error.args[0] if error.args else error)
    return f"{type(error).__name__}: {str(reason).rpartition('>: ')[2]}"[:200]
