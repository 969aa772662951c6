"""Known paths are read, nothing is taken in, and a port that is not free is one sentence."""

import gzip
import http.client
import socket

import pytest

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
