"""A server on this machine that answers as servers on the network do: slowly, wrongly, or not at all."""

import contextlib
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Reply = Callable[[BaseHTTPRequestHandler], None]


class ImageServer:
    """replies: {path: replies to its requests in turn, the last one for all that follow}. asked: {path: requests}."""

    def __init__(self) -> None:
        self.replies: dict[str, list[Reply]] = {}
        self.asked: dict[str, int] = defaultdict(int)
        self.base = ""
        self.lock = threading.Lock()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        with self.lock:
            turn = self.asked[handler.path]
            self.asked[handler.path] += 1
        replies = self.replies.get(handler.path, [status(404)])
        replies[min(turn, len(replies) - 1)](handler)


def image(data: bytes, *, announced: int | None = None) -> Reply:
    """200 with these bytes; announced: another Content-Length than theirs."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data) if announced is None else announced))
        handler.send_header("Content-Type", "image/jpeg")  # whatever it is
        handler.end_headers()
        with contextlib.suppress(OSError):
            handler.wfile.write(data)
        handler.close_connection = True

    return reply


def endless(data: bytes) -> Reply:
    """200 without a length, and bytes that do not end before the other side hangs up."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        with contextlib.suppress(OSError):
            while True:
                handler.wfile.write(data)

    return reply


def status(code: int, **headers: str) -> Reply:
    """This status without content, with headers such as Retry_After."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return reply


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    """No answer: the connection ends."""
    handler.close_connection = True


@contextlib.contextmanager
def serving() -> Iterator[ImageServer]:
    """A server at `server.base`, until the block ends."""
    state = ImageServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            state.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.base = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
