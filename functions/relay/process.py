"""A process that stays and runs workers for all partitions, as a task of the relay's service.

    each second: a partition is free, or its holder wants a successor -> a worker runs until it has handed over
    SIGTERM or SIGINT -> each worker asks for a successor, and hands over to it; without one it releases its partition
    the same signal again -> workers release their partitions at once

Invariant of this file: what ends this process in time ends its workers by `RelayWorker.stop`. They send what they have
begun to send before they give a partition away. Only a second signal, and `ENDED_S`, cut that short.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from pathlib import Path

from functions.relay.wiring import RelayRun, RelayServices, relay_services, version_of
from functions.relay.worker import bring_threads, run_to_end
from tidegate.domain.relay import ENDED_S, LEAVE_S, Lease, may_claim, runs_by, wants_successor

#: How often a partition that another worker holds is looked at, and the pause after a worker that failed, seconds.
LOOK_S, AGAIN_S = 1.0, 5.0
#: How often the process says that it is well, seconds.
BEAT_S = 5.0
#: How long workers that were cut short may take, seconds: to close their connections, and what is under way.
_CUT_S = 10.0


class RelayProcess:
    """The workers of this process. `run` returns when all have ended, after `stop`."""

    def __init__(self, services: RelayServices) -> None:
        self._services = services
        self._version = version_of(services.container, service=True)
        self._stopping = asyncio.Event()
        self._runs: dict[int, RelayRun] = {}
        self._looked: set[int] = set()
        self._holding: list[asyncio.Task[None]] = []

    @property
    def well(self) -> bool:
        """Whether every partition is looked after. It is not before the table of leases has answered once for each.

        A table that does not answer later makes no process unwell: another process would not reach it either.
        """
        return len(self._looked) == self._services.partitions and not any(task.done() for task in self._holding)

    def stop(self) -> None:
        """Hand over and end. The second time, end without a hand-over."""
        if self._stopping.is_set():
            self._cut()
            return
        self._services.observer.info("relay process ends", workers=len(self._runs))
        self._stopping.set()
        for run in self._runs.values():
            run.relay.stop(LEAVE_S)

    async def run(self) -> None:
        self._holding = [asyncio.create_task(self._hold(partition)) for partition in range(self._services.partitions)]
        await self._stopping.wait()
        _, late = await asyncio.wait(self._holding, timeout=ENDED_S - _CUT_S)
        if late:
            self._services.observer.warning("relay process was cut short", workers=len(late))
            self._cut()
            await asyncio.wait(late, timeout=_CUT_S)
        self._services.observer.flush()

    def _cut(self) -> None:
        for task in self._holding:
            task.cancel()

    async def _hold(self, partition: int) -> None:
        """Run workers for a partition, one after another, until the process is to end.

        A process takes a partition from a worker of another version once, because it was started with the newest code
        and settings. When another process is started after it, it is this one that is older.
        """
        newest, container, observer = True, self._services.container, self._services.observer
        while not self._stopping.is_set():
            pause_s = LOOK_S
            try:
                lease = await asyncio.to_thread(container.relay_leases.current, partition)
                self._looked.add(partition)
                newest = newest and not (lease is not None and runs_by(lease.owner, self._version))
                if self._is_wanted(lease, newest):
                    newest = await self._work(partition, newest) == "not needed" and newest
            except Exception as error:
                observer.fault("relay worker failed", error, partition=partition)
                pause_s = AGAIN_S
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._stopping.wait()

    def _is_wanted(self, lease: Lease | None, newest: bool) -> bool:
        now = self._services.container.clock.now()
        wanted = may_claim(lease, now) or wants_successor(lease, self._version, now, newest=newest)
        return wanted and not self._stopping.is_set()

    async def _work(self, partition: int, newest: bool) -> str:
        run = self._runs[partition] = RelayRun(self._services.container, service=True)
        try:
            return await run_to_end(self._services, run, partition, float("inf"), newest=newest)
        finally:
            del self._runs[partition]


async def beat(process: RelayProcess, file: Path) -> None:
    """Touch a file while the process is well. The platform's health check looks how old it is."""
    while True:
        if process.well:
            await asyncio.to_thread(file.touch)
        await asyncio.sleep(BEAT_S)


async def main() -> None:
    """Run until a signal ends the process. `RELAY_HEALTH_FILE` names the file for the health check, if there is one."""
    bring_threads()
    services = relay_services()
    process = RelayProcess(services)
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, process.stop)
    file = services.container.env.get("RELAY_HEALTH_FILE", "")
    beating = asyncio.create_task(beat(process, Path(file))) if file else None
    await process.run()
    if beating is not None:
        beating.cancel()
