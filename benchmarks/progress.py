"""Steps on the screen: whatever takes longer than two seconds shows that it runs, and how far it is."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

_TTY = sys.stdout.isatty()
#: When a running step first says how far it is, seconds. On a terminal it goes on like that, on one line. In a log it
#: waits twice as long each time, up to `_MOST_S`.
EVERY_S = 2.0
_MOST_S = 30.0
#: Threads that load tables.
_THREADS = 8

T = TypeVar("T")


class Progress:
    """How much of a step is done. Safe to use from several threads."""

    def __init__(self, name: str, total: int | None) -> None:
        self._name = name
        self._total = total
        self._done = 0
        self._started = time.monotonic()
        self._lock = threading.Lock()

    def advance(self, count: int = 1) -> None:
        """So many more are done."""
        with self._lock:
            self._done += count

    def line(self, mark: str) -> str:
        """One line for the screen: a mark, seconds since the start, the step, and how much of it is done."""
        done = "" if self._total is None else f": {self._done:,} of {self._total:,}"
        return f"  {mark:>4} {time.monotonic() - self._started:6.1f} s  {self._name}{done}"


@contextmanager
def step(name: str, total: int | None = None, every_s: float = EVERY_S) -> Iterator[Progress]:
    """Print how far the step is while it runs, and a line when it ends.

    Args:
        name: what is done, in a few words.
        total: how much there is to do, in pieces that are reported with `advance`. None where nobody counts.
        every_s: when it is printed first, seconds.
    """
    progress, ended = Progress(name, total), threading.Event()

    def beat() -> None:
        wait_s = every_s
        while not ended.wait(wait_s):
            print(progress.line("..."), end="\r" if _TTY else "\n", flush=True)
            wait_s = wait_s if _TTY else min(2 * wait_s, _MOST_S)

    shower = threading.Thread(target=beat, daemon=True)
    shower.start()
    mark = "fail"
    try:
        yield progress
        mark = "ok"
    finally:
        ended.set()
        shower.join()
        print(progress.line(mark), flush=True)


def for_all(name: str, work: Callable[[T], object], items: Sequence[T] | Iterable[T], count: int) -> None:
    """Do the work for each of `count` items, eight at a time, as one step. Raises what the work raises."""
    with step(name, count) as progress:

        def piece(item: T) -> None:
            work(item)
            progress.advance()

        with ThreadPoolExecutor(_THREADS) as pool:
            for _ in pool.map(piece, items):
                pass
