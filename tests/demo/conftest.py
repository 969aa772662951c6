"""A server of the demo that answers until its test ends."""

import threading

import pytest

from deitlt_tf.demo.server import Server


@pytest.fixture
def serving():
    """serving(contents) -> the server, which answers until the test ends."""
    started = []

    def start(contents):
        server = Server("127.0.0.1", 0)
        server.contents |= contents
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.shutdown()
        server.server_close()
