"""Run blocking work on many items at the same time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")

#: Calls at the same time. Each mostly waits for the network, so even a small function can run many.
WIDTH = 16


def in_parallel(work: Callable[[A], B], items: Sequence[A], width: int = WIDTH) -> list[B]:
    """Run `work` on every item, at most `width` at a time. Returns the results in the order of the items.

    If calls fail, the first failure in that order is raised, after all calls have ended.
    """
    if len(items) <= 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(min(width, len(items))) as pool:
        return list(pool.map(work, items))
