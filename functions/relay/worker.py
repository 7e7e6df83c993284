"""A relay worker as an asynchronous invocation. It runs until nobody watches its streams, or its time ends."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from functions.relay.wiring import RelayRun, RelayServices, relay_services
from tidegate.adapters.aws.relay_workers import read_start
from tidegate.providers.process import Handler, lambda_handler

#: Part of the function's time that is kept for sending what is under way when it ends, seconds.
_RESERVE_S = 5.0
#: Threads of an event loop, for stores and leases. Lookups of names have their own.
_THREADS = 64


def make_handler(services: RelayServices) -> Handler:
    def handle(event: dict[str, Any], context: Any) -> dict[str, Any]:
        stop_at = time.monotonic() + context.get_remaining_time_in_millis() / 1000 - _RESERVE_S
        partition, successor = read_start(event)
        ended = asyncio.run(_invocation(services, partition, stop_at, successor))
        services.observer.flush()
        return {"ended": ended}

    return handle


async def _invocation(services: RelayServices, partition: int, stop_at: float, successor: bool) -> str:
    bring_threads()
    # The platform starts workers with the newest code and settings only: the alias moves in one step. A plain process
    # may have older ones than another.
    return await work(services, partition, stop_at, successor=successor, newest=True)


def bring_threads() -> None:
    """Give the running event loop enough threads. Slow stores must not keep a lease from being renewed."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS, "relay"))


async def work(
    services: RelayServices, partition: int, stop_at: float, *, successor: bool = False, newest: bool = False
) -> str:
    """Run a worker from its claim to its end, at `stop_at` (monotonic seconds) at the latest. Returns why it ended."""
    return await run_to_end(
        services, RelayRun(services.container), partition, stop_at, successor=successor, newest=newest
    )


async def run_to_end(
    services: RelayServices,
    run: RelayRun,
    partition: int,
    stop_at: float,
    *,
    successor: bool = False,
    newest: bool = False,
) -> str:
    """The same with a worker that is made already."""
    flushing = asyncio.create_task(_flush(services))
    try:
        return await run.relay.run(partition, stop_at, successor=successor, newest=newest)
    finally:
        flushing.cancel()
        await run.close()


async def _flush(services: RelayServices) -> None:
    """Write the metrics every 30 seconds. An invocation lasts for minutes, and they should not wait so long."""
    while True:
        await asyncio.sleep(30)
        services.observer.flush()


handler = lambda_handler(make_handler, relay_services)
