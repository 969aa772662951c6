"""Progress bars, alike everywhere. No TensorFlow."""

import sys
from typing import Any


def bar_of(title: str | None) -> dict[str, Any]:
    """Settings of a progress bar: none without a title, and few lines where they go to a log file."""
    return {"desc": title, "disable": title is None, "mininterval": 0.5 if sys.stderr.isatty() else 30}
