"""A folder of bytes in memory, served to this machine's browser: GET and HEAD of known paths, nothing else.

There is no way to send anything in: no other method is answered, and the Content-Security-Policy lets a page load from
this server alone and send nothing elsewhere.
"""

import gzip
import http.server
import socket
import sys
from typing import NamedTuple

# blob: is a picture that the page itself made; 'wasm-unsafe-eval' compiles WebAssembly, and evaluates no script.
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",  # with the one above: WebAssembly may use several threads
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",  # another run may stand at the same address tomorrow
}


class Content(NamedTuple):
    """body: as it is sent; gzipped: whether it is compressed, which every browser undoes."""

    kind: str
    body: bytes
    gzipped: bool = False


class Server(http.server.ThreadingHTTPServer):
    """`contents`, {"/path": Content}, at http://host:port (0: a free port). Listens at once, answers in serve_forever.

    Raises OSError, in one sentence, where it cannot listen.
    """

    daemon_threads = True
    allow_reuse_port = False  # another server at the same port is an error, not a lottery

    def __init__(self, host: str, port: int):
        self.contents: dict[str, Content] = {}
        try:
            self.address_family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            super().__init__((host, port), _Handler)
        except OSError as error:
            advice = "choose another --port (0: any free one)" if port else "choose another --host"
            reason = error.strerror or str(error)
            raise OSError(f"cannot listen at {host}, port {port} ({reason}): {advice}.") from error

    def handle_error(self, request, client_address):
        """A browser that hangs up is no error; anything else is told as usual."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def version_string(self) -> str:
        return "deitlt_tf"

    def do_GET(self):
        self.answer(with_body=True)

    def do_HEAD(self):
        self.answer(with_body=False)

    def answer(self, *, with_body: bool):
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
            self.wfile.write(body)

    def end_headers(self):
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *args):
        """Silence: the terminal shows the address, and nothing that a visitor does."""
