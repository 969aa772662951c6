"""Known paths are read, nothing is taken in, and a port that is not free is one sentence."""

import gzip
import http.client
import socket
import threading
import time

import pytest

from deitlt_tf.demo import server as module
from deitlt_tf.demo.server import Content, Server


def respond(server, method: str, path: str, **headers) -> tuple[int, dict, bytes]:
    """Status, headers and body of the answer to one request."""
    connection = http.client.HTTPConnection(*server.server_address, timeout=5)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    response = answer.status, dict(answer.getheaders()), answer.read()
    connection.close()
    return response


def test_known_paths_are_read_and_nothing_is_taken(serving):
    packed = Content("text/javascript", gzip.compress(b"script"), gzipped=True)
    server = serving({"/": Content("text/html", b"page"), "/script.js": packed})
    assert server.server_address[0] == "127.0.0.1" and server.url == f"http://127.0.0.1:{server.server_address[1]}/"
    status, headers, body = respond(server, "GET", "/?x=1")
    assert (status, body, headers["Content-Type"]) == (200, b"page", "text/html")
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy.pop("default-src") == "'none'"
    assert {word for words in policy.values() for word in words.split()} == {
        "'self'", "'none'", "blob:", "'wasm-unsafe-eval'",
    }  # fmt: skip
    assert policy["connect-src"] == "'self'" and policy["form-action"] == "'none'"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert respond(server, "HEAD", "/")[1:] == (headers, b"")
    status, headers, body = respond(server, "GET", "/script.js", **{"Accept-Encoding": "br, gzip"})
    assert (headers["Content-Encoding"], body) == ("gzip", packed.body)
    status, headers, body = respond(server, "GET", "/script.js")
    assert "Content-Encoding" not in headers and body == b"script"
    for path in ("/nothing", "/../flags.cfg", "//etc/passwd", "/%2e%2e/x"):
        status, headers, _ = respond(server, "GET", path)
        assert status == 404 and "Content-Security-Policy" in headers
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        assert respond(server, method, "/")[0] == 501


def test_a_port_that_is_not_free_and_a_host_that_is_none_are_told():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(OSError, match=rf"cannot listen at 127\.0\.0\.1, port {port} \(.*\): choose another --port"):
            Server("127.0.0.1", port)
    with pytest.raises(OSError, match=r"cannot listen at nowhere\.invalid, port 0 .*: choose another --host"):
        Server("nowhere.invalid", 0)


OURS = ("127.0.0.1", "127.0.0.1:8000", "localhost", "LOCALHOST:8000", "[::1]:8000", "192.168.0.7:80")
OTHERS = (
    *("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "x-localhost"),
    *("[::1", "", ":8000", "[evil.example]:80", "evil.example#localhost", "evil.example/127.0.0.1"),
)


@pytest.mark.parametrize("host", OURS)
def test_ip_addresses_and_localhost_are_answered(serving, host):
    assert respond(serving({"/": Content("text/html", b"page")}), "GET", "/", Host=host)[::2] == (200, b"page")


@pytest.mark.parametrize("host", OTHERS)
def test_a_foreign_host_name_reads_nothing(serving, host):
    """A page of evil.example, which points its name at this machine, sends its own name."""
    server = serving({"/": Content("text/html", b"private model")})
    for method in ("GET", "HEAD"):
        status, headers, body = respond(server, method, "/", Host=host)
        assert status == 421 and b"private" not in body and "Content-Security-Policy" in headers
    assert server.url.encode() in respond(server, "GET", "/", Host=host)[2]


def test_the_host_that_the_server_was_given_is_answered():
    with Server("localhost", 0) as server:
        server.host = "My-Box.local"  # as --host=My-Box.local, a name that this machine may not have
        assert server.is_called("my-box.local:8000") and server.is_called("MY-BOX.local")
        assert not server.is_called("other-box.local")


def test_a_silent_connection_is_closed(serving, monkeypatch):
    monkeypatch.setattr(module._Handler, "timeout", 0.2)
    server = serving({"/": Content("text/html", b"page")})
    for sent in (b"", b"GET / HTTP/1.1\r\nHost: localhost\r\n"):
        with socket.create_connection(server.server_address, timeout=5) as silent:
            silent.sendall(sent)
            assert silent.recv(1) == b""  # closed by the server
    assert module.SECONDS == 30


def test_connections_are_limited_and_free_again_afterwards(serving, monkeypatch):
    monkeypatch.setattr(module, "CONNECTIONS", 3)
    server = serving({"/": Content("text/html", b"page")})
    before = threading.active_count()
    silent = [socket.create_connection(server.server_address, timeout=5) for _ in range(3)]
    for _ in range(20):
        assert respond(server, "GET", "/")[0] == 503
    assert threading.active_count() <= before + 3
    for connection in silent:
        connection.close()
    deadline = time.monotonic() + 5
    while (status := respond(server, "GET", "/")[0]) == 503 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert status == 200


@pytest.mark.slow
def test_a_large_body_arrives_whole_although_the_browser_is_slow(serving, monkeypatch):
    monkeypatch.setattr(module._Handler, "timeout", 1)
    body = bytes(range(256)) * 2**16  # 16 MiB
    server = serving({"/network.onnx": Content("application/octet-stream", body)})
    connection = http.client.HTTPConnection(*server.server_address, timeout=5)
    connection.request("GET", "/network.onnx")
    answer, parts = connection.getresponse(), []
    while part := answer.read(2**21):
        parts.append(part)
        time.sleep(0.3)  # 2.4 s in all, more than the time limit
    connection.close()
    assert b"".join(parts) == body
