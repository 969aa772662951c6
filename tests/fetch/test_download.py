"""One image from its address: what is tried again, what is given up, and that nothing else is ever opened."""

import contextlib
import threading
import time

import pytest
from helpers.encodings import encoded, picture
from helpers.image_server import endless, hang_up, image, status

from deitlt_tf.fetch.download import Limits, ServerAway, download, present
from deitlt_tf.fetch.pace import Pace, Stopped

JPEG = encoded(picture(), "JPEG")
LIMITS = Limits(max_bytes=100_000, max_pixels=10_000, tries=3, backoff=0.01)


@pytest.fixture
def fetch_one(server, tmp_path):
    """fetch_one(*replies) -> (answer, number of requests, bytes of the file or None)."""

    def call(*replies, url=None, limits=LIMITS):
        server.replies["/x"] = list(replies)
        path = tmp_path / "x"
        answer = download(url or f"{server.base}/x", path, pace=Pace(1e4, threading.Event()), limits=limits)
        return answer, server.asked["/x"], path.read_bytes() if path.exists() and answer.status == "ok" else None

    return call


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(hang_up, id="cut before the answer"),
        pytest.param(image(JPEG[:100], announced=len(JPEG)), id="cut in the answer"),
        pytest.param(image(JPEG, announced=len(JPEG) - 40), id="shorter length told"),
        pytest.param(image(b""), id="empty"),
        pytest.param(status(500), id="500"),
        pytest.param(status(503, Retry_After="0"), id="503"),
        pytest.param(status(429, Retry_After="0"), id="429"),
        pytest.param(status(429, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"), id="429 until a date"),
    ],
)
def test_what_may_pass_is_tried_again(fetch_one, first):
    answer, requests, data = fetch_one(first, image(JPEG))
    assert (answer.status, requests, data) == ("ok", 2, JPEG)
    assert answer.bytes == len(JPEG) and answer.suffix == ".jpg"


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (hang_up, "failed"),
        (status(502), "failed"),
        (image(JPEG[:100], announced=len(JPEG)), "failed"),
        (image(JPEG, announced=len(JPEG) - 40), "refused"),
    ],
)
def test_what_does_not_pass_is_given_up_after_all_tries(fetch_one, reply, kind):
    answer, requests, _ = fetch_one(reply)
    assert (answer.status, requests) == (kind, 3) and answer.reason


@pytest.mark.parametrize(
    ("reply", "kind", "reason"),
    [
        (status(404), "gone", "Not Found"),
        (status(410), "gone", "Gone"),
        (status(403), "gone", "Forbidden"),
        (image(b"<html>not here</html>"), "refused", "not a JPEG, PNG"),
        (image(JPEG, announced=200_000), "refused", "200000 bytes are more than the limit of 100000"),
        (endless(bytes(1000)), "refused", "more bytes than the limit"),
        (image(encoded(picture(200, 90), "PNG")), "refused", "200 x 90 pixels are more than the limit"),
        (status(302, Location="file:///etc/passwd"), "refused", "not an address of http or https: file:///etc/passwd"),
        (status(301, Location="ftp://example.org/x.jpg"), "refused", "not an address of http or https"),
        (status(302, Location="http://[::1/x.jpg"), "refused", "not an address that can be asked"),
    ],
)
def test_what_is_final_is_asked_once(fetch_one, reply, kind, reason):
    answer, requests, _ = fetch_one(reply)
    assert (answer.status, requests) == (kind, 1) and reason in answer.reason


def drips(handler):
    """A byte of an image now and then."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(JPEG)))
    handler.end_headers()
    with contextlib.suppress(OSError):
        for byte in JPEG[:200]:
            handler.wfile.write(bytes([byte]))
            time.sleep(0.02)


def test_a_server_that_sends_a_byte_now_and_then_is_given_up(fetch_one, monkeypatch):
    monkeypatch.setattr("deitlt_tf.fetch.download.LONGEST", 0.1)
    answer, requests, content = fetch_one(drips, limits=Limits(max_bytes=100_000, max_pixels=10_000, tries=1))
    assert (answer.status, requests, content) == (
        "failed",
        1,
        None,
    ) and "not complete after 0.1 seconds" in answer.reason


def test_chunks_are_put_together(fetch_one):
    def chunked(handler):
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for part in (JPEG[:10], JPEG[10:]):
            handler.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        handler.wfile.write(b"0\r\n\r\n")
        handler.close_connection = True

    answer, _, content = fetch_one(chunked)
    assert answer.status == "ok" and content == JPEG


def test_redirects_are_followed_and_not_for_ever(fetch_one, server):
    server.replies["/y"] = [image(JPEG)]
    assert fetch_one(status(301, Location="/y"))[0].status == "ok"
    answer, requests, _ = fetch_one(status(301, Location="/x"))
    assert answer.status == "refused" and requests == 1 + 6 and "redirects" in answer.reason


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "/etc/passwd", "ftp://x/y", "", "http://", "http://[::1", "data:,x"]
)
def test_other_addresses_are_never_opened(fetch_one, url, tmp_path):
    answer = download(url, tmp_path / "x", pace=Pace(1e4, threading.Event()), limits=LIMITS)
    assert answer.status == "refused" and not (tmp_path / "x").exists()


def test_passwords_of_this_machine_are_not_sent(server, monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    headers = []
    server.replies["/x"] = [lambda handler: (headers.append(dict(handler.headers)), image(JPEG)(handler))]
    download(f"{server.base}/x", tmp_path / "x", pace=Pace(1e4, threading.Event()), limits=LIMITS)
    assert "Authorization" not in headers[0] and headers[0]["Accept-Encoding"] == "identity"
    assert headers[0]["User-Agent"].startswith("deitlt_tf/")


def test_a_server_that_asks_for_too_much_rest(fetch_one):
    with pytest.raises(ServerAway, match="asks to be left alone for 2 hours"):
        fetch_one(status(503, Retry_After="7200"))


def test_a_stop_ends_it_before_the_request(server, tmp_path):
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        download(f"{server.base}/x", tmp_path / "x", pace=Pace(1e4, stop), limits=LIMITS)
    assert not server.asked


def test_an_image_that_is_there_is_known_by_its_content(tmp_path):
    path = tmp_path / "1.jpg"
    path.write_bytes(JPEG)
    answer = present(path, limits=LIMITS)
    assert answer is not None and (answer.status, answer.bytes, answer.suffix) == ("ok", len(JPEG), ".jpg")
    path.write_bytes(JPEG[:-20])
    assert present(path, limits=LIMITS) is None
