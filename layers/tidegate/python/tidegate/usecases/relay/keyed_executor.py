"""Threads for the blocking work of streams. Work of one stream is done in order; streams work at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tidegate.domain.subscriptions import Stream
from tidegate.usecases.delivery.fan_out import FanOut

T = TypeVar("T")

#: How many threads. With several, a store that is slow for one stream does not delay all others.
THREADS = 8


class KeyedExecutor:
    """Threads, each with its own fan-out. A stream always uses the same thread, so its messages keep their order."""

    def __init__(self, make_fan_out: Callable[[], FanOut]) -> None:
        self._threads = [(ThreadPoolExecutor(1, f"stream-{number}"), make_fan_out()) for number in range(THREADS)]

    def fan_out_of(self, stream: Stream) -> FanOut:
        """The fan-out of the stream's thread.

        Its caches are for that thread only. `has_audience` may be called from any thread.
        """
        return self._of(stream)[1]

    def run(self, stream: Stream, work: Callable[[], T]) -> Awaitable[T]:
        """Run `work` on the stream's thread, after all work that was given for the same stream before."""
        return asyncio.get_running_loop().run_in_executor(self._of(stream)[0], work)

    def close(self) -> None:
        """Start no more work. Work that runs is not waited for."""
        for executor, _ in self._threads:
            executor.shutdown(wait=False, cancel_futures=True)

    def _of(self, stream: Stream) -> tuple[ThreadPoolExecutor, FanOut]:
        return self._threads[int(stream.stream_key[:8], 16) % THREADS]
