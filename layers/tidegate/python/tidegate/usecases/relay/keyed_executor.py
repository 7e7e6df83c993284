"""Threads for the blocking work of streams: one stream's work is done in order, different streams' side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tidegate.domain.subscriptions import Stream
from tidegate.usecases.delivery.fan_out import FanOut

T = TypeVar("T")

#: How many threads. A store that keeps one stream waiting does not keep all others waiting.
THREADS = 8


class KeyedExecutor:
    """Threads with a fan-out each. A stream always takes the same thread, so its messages keep their order."""

    def __init__(self, make_fan_out: Callable[[], FanOut]) -> None:
        self._threads = [(ThreadPoolExecutor(1, f"stream-{number}"), make_fan_out()) for number in range(THREADS)]

    def fan_out_of(self, stream: Stream) -> FanOut:
        """The fan-out of the stream's thread. Its caches are for that thread; `has_audience` may be asked from any."""
        return self._of(stream)[1]

    def run(self, stream: Stream, work: Callable[[], T]) -> Awaitable[T]:
        """Run `work` on the stream's thread, after what was given for the same stream before."""
        return asyncio.get_running_loop().run_in_executor(self._of(stream)[0], work)

    def close(self) -> None:
        """Start nothing more. What runs is not waited for."""
        for executor, _ in self._threads:
            executor.shutdown(wait=False, cancel_futures=True)

    def _of(self, stream: Stream) -> tuple[ThreadPoolExecutor, FanOut]:
        return self._threads[int(stream.stream_key[:8], 16) % THREADS]
