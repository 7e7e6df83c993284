"""`python -m functions.relay` runs the same workers as a plain process, for a container service."""

from __future__ import annotations

import asyncio
import signal

from functions.relay.wiring import RelayServices, relay_services
from functions.relay.worker import bring_threads, work

#: How long a partition is left alone when another worker has its lease, or nobody watches its streams, seconds.
_AGAIN_S = 5.0


async def hold(services: RelayServices, partition: int) -> None:
    """Run workers for a partition, one after another, until cancelled."""
    while True:
        try:
            await work(services, partition, float("inf"))
        except Exception as error:
            services.observer.fault("relay worker failed", error, partition=partition)
        await asyncio.sleep(_AGAIN_S)


async def main() -> None:
    bring_threads()
    services = relay_services()
    workers = [asyncio.create_task(hold(services, partition)) for partition in range(services.partitions)]
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, lambda: [worker.cancel() for worker in workers])
    await asyncio.gather(*workers, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main())
