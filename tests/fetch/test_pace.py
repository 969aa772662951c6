"""How often a server is asked."""

import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from deitlt_tf.fetch.pace import Pace, Stopped, retry_after


def test_requests_to_one_server_keep_their_distance():
    pace = Pace(50, threading.Event())
    start = time.monotonic()
    threads = [threading.Thread(target=pace.wait, args=["a"]) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - start >= 0.1


def test_a_server_that_rests_keeps_no_other_waiting():
    pace = Pace(50, threading.Event())
    pace.pause("a", 3600)
    pace.wait("b")
    assert pace.free_at["a"] - time.monotonic() > 3000


def test_a_pause_holds_for_those_who_wait_already():
    pace = Pace(1000, threading.Event())
    pace.pause("a", 0.05)
    start = time.monotonic()
    pace.wait("a")
    assert time.monotonic() - start >= 0.045


def test_a_stop_wakes_all():
    stop = threading.Event()
    pace = Pace(1, stop)
    pace.pause("a", 60)
    threading.Timer(0.02, stop.set).start()
    with pytest.raises(Stopped):
        pace.wait("a")


def test_the_header_is_a_number_or_a_date():
    assert retry_after("120") == 120 and retry_after(" 0 ") == 0
    later = retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True))
    assert later is not None and 85 < later <= 90
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert retry_after("Wed, 21 Oct 99999999999999999999 07:28:00 GMT") is None
    assert retry_after(None) is retry_after("") is retry_after("soon") is None
    assert retry_after("9" * 30) == float("inf")
