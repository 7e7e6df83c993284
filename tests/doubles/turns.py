"""Work that waits, in time that is nobody's: one at a time, each until it sleeps. The same at every run."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from threading import Semaphore, Thread, current_thread

from tidegate.ports.runtime import Clock


class _Worker:
    def __init__(self, work: Callable[[], object]) -> None:
        self.turn, self.thread, self.work = Semaphore(0), Thread(target=self._run, daemon=True), work
        self.fault: BaseException | None = None
        self.done: Callable[[], object] = lambda: None

    def _run(self) -> None:
        self.turn.acquire()
        try:
            self.work()
        except BaseException as fault:  # raised again by `Turns.run`
            self.fault = fault
        self.done()


class Turns(Clock):
    """A clock, and those who wait for it."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._epoch = now
        self.at = 0.0
        self._waiting: list[tuple[float, int, _Worker]] = []
        self._workers: dict[Thread, _Worker] = {}
        self._number = 0
        self._back = Semaphore(0)

    def now(self) -> float:
        return self._epoch + self.at

    def monotonic(self) -> float:
        return self.at

    def begin(self, at: float, work: Callable[[], object]) -> None:
        """Have work begin at a moment, seconds."""
        worker = _Worker(work)
        worker.done = self._back.release
        self._workers[worker.thread] = worker
        worker.thread.start()
        self._wait(at, worker)

    def sleep(self, seconds: float) -> None:
        """Called by the work: let others work for so long."""
        worker = self._workers[current_thread()]
        self._wait(self.at + max(0.0, seconds), worker)
        self._back.release()
        worker.turn.acquire()

    def run(self) -> None:
        """Until all is done. Raises what any of them raised."""
        while self._waiting:
            self.at, _, worker = heapq.heappop(self._waiting)
            worker.turn.release()
            self._back.acquire()
            if worker.fault is not None:
                raise worker.fault

    def _wait(self, at: float, worker: _Worker) -> None:
        self._number += 1
        heapq.heappush(self._waiting, (at, self._number, worker))
