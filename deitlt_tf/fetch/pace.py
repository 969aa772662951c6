"""How often a server is asked: at most so many requests a second, and not at all while it wants to be left alone."""

import email.utils
import threading
import time
from collections import defaultdict

LONGEST_PAUSE = 3600.0  # seconds; a server that asks for more is left for another day
DEFAULT_PAUSE = 30.0  # seconds after 429 or 503 without Retry-After


class Stopped(Exception):
    """The program is to end, so a request that was waiting for its turn is not made."""


class Pace:
    """Turns for requests, for each server by itself.

    rate: requests a second to one server. stop: set when the program is to end.
    """

    def __init__(self, rate: float, stop: threading.Event):
        self.interval, self.stop = 1 / rate, stop
        self.lock = threading.Lock()
        self.free_at: dict[str, float] = defaultdict(float)  # time.monotonic() of the next turn

    def wait(self, server: str) -> None:
        """Returns when it is this request's turn. Raises Stopped if the program is to end before."""
        while True:
            with self.lock:
                now = time.monotonic()
                left = self.free_at[server] - now
                if left <= 0 and not self.stop.is_set():
                    self.free_at[server] = now + self.interval
                    return
            self.rest(left)

    def rest(self, seconds: float) -> None:
        """Sleeps. Raises Stopped if the program is to end."""
        if self.stop.wait(max(0.0, seconds)):
            raise Stopped

    def pause(self, server: str, seconds: float) -> None:
        """No request to this server begins within the next `seconds`."""
        with self.lock:
            self.free_at[server] = max(self.free_at[server], time.monotonic() + seconds)


def retry_after(value: str | None) -> float | None:
    """Seconds to wait of a Retry-After header, a number or a date; None without a header that can be read."""
    value = (value or "").strip()
    if value.isascii() and value.isdigit():
        return float(value) if len(value) < 12 else float("inf")
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError, OSError):
        return None
