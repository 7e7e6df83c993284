"""Awaiting what other threads or processes do."""

from __future__ import annotations

import time
from collections.abc import Callable


def settle(ready: Callable[[], object], seconds: float = 20) -> None:
    """Await a condition. Raises `AssertionError` when it does not come true within `seconds`."""
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.01)
