"""A server of pages in memory for the browser of this machine: it answers GET and HEAD of known paths, nothing else.

A page cannot send data to this server or to another one. The server answers no other method, and its
Content-Security-Policy lets a page connect to this server only. A request for another host name than that of the server
is refused: a page of the internet whose name is pointed at this machine (DNS rebinding) could read the model otherwise.
"""

import gzip
import http.server
import ipaddress
import socket
import sys
import threading
from typing import Any, NamedTuple
from urllib.parse import urlsplit

# blob: allows pictures that the page itself makes. 'wasm-unsafe-eval' allows WebAssembly, but no evaluation of scripts.
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",  # with the line above, WebAssembly may use several threads
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",  # because another run may be at the same address tomorrow
}
SECONDS = 30  # without a byte from or to a browser, after which its connection is closed
CONNECTIONS = 64  # at the same time; a browser opens six
CHUNK = 2**20  # bytes that are sent at a time; SECONDS count anew for each
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Content(NamedTuple):
    """The answer for one path. kind: media type. body: bytes to send. gzipped: whether `body` is compressed."""

    kind: str
    body: bytes
    gzipped: bool = False


class Server(http.server.ThreadingHTTPServer):
    """A server of `contents`, {"/path": Content}, at http://host:port. port: 0 means any free port.

    It listens from its construction on and answers during `serve_forever`. Raises OSError, in one sentence, where it
    cannot listen.
    """

    daemon_threads = True
    allow_reuse_port = False  # a second server at the same port is an error

    def __init__(self, host: str, port: int) -> None:
        self.contents: dict[str, Content] = {}
        self.host, self.free = host, threading.BoundedSemaphore(CONNECTIONS)
        try:
            self.address_family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            super().__init__((host, port), _Handler)
        except OSError as error:
            advice = "choose another --port (0: any free one)" if port else "choose another --host"
            reason = error.strerror or str(error)
            raise OSError(f"cannot listen at {host}, port {port} ({reason}): {advice}.") from error

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread; "503" where CONNECTIONS are open already."""
        if self.free.acquire(blocking=False):
            try:
                super().process_request(request, client_address)
            except RuntimeError:  # the system gives no more threads
                self.free.release()
                raise
        else:
            request.settimeout(1)
            request.sendall(BUSY)
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore browsers that close a connection or fall silent; report every other error as usual."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)

    def is_called(self, host: str) -> bool:
        """Whether a Host header is an IP address, localhost, or the host of this server, with or without a port."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
            if name in ("localhost", self.host.lower()):
                return True
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    @property
    def url(self) -> str:
        """The address of the page."""
        host, port = str(self.server_address[0]), self.server_address[1]
        return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers one request from the contents of its server."""

    server: Server
    protocol_version = "HTTP/1.1"
    timeout = SECONDS

    def version_string(self) -> str:
        return "deitlt_tf"

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def answer(self, *, with_body: bool) -> None:
        if not self.server.is_called(self.headers.get("Host", "")):
            advice = f"This page is at {self.server.url}: it answers to an IP address, to localhost and to --host only."
            self.send_error(421, explain=advice)
            return
        content = self.server.contents.get(self.path.partition("?")[0])
        if content is None:
            self.send_error(404)
            return
        body, gzipped = content.body, content.gzipped
        if gzipped and "gzip" not in self.headers.get("Accept-Encoding", ""):
            body, gzipped = gzip.decompress(body), False
        self.send_response(200)
        self.send_header("Content-Type", content.kind)
        self.send_header("Content-Length", str(len(body)))
        if gzipped:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        if with_body:
            for start in range(0, len(body), CHUNK):
                self.wfile.write(body[start : start + CHUNK])

    def end_headers(self) -> None:
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *args: Any) -> None:
        """Print nothing, so the terminal shows the address and no requests."""
