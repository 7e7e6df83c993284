"""Work on many things at the same time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")

#: Calls at the same time; each waits for the network, so a small function has time for many.
WIDTH = 16


def in_parallel(work: Callable[[A], B], items: Sequence[A], width: int = WIDTH) -> list[B]:
    """`work` on every item, several at a time, results in order. The first failure is raised when all have ended."""
    if len(items) <= 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(min(width, len(items))) as pool:
        return list(pool.map(work, items))
