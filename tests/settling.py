"""Awaiting what other threads or processes do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable


def settle(ready: Callable[[], object], seconds: float = 20) -> None:
    """Await a condition. Raises `AssertionError` when it does not come true within `seconds`."""
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.01)


def run_within(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    """Run it on a loop of its own. Raises `TimeoutError` when it takes longer."""

    async def bounded() -> None:
        async with asyncio.timeout(seconds):
            await work()

    asyncio.run(bounded())
