"""Resolves names to addresses, with the system's resolver."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

#: (host, port) -> all addresses of the host. Raises `OSError`.
Resolve = Callable[[str, int], Awaitable[list[str]]]

#: Lookups at the same time. Others wait.
LOOKUPS = 16
#: A lookup cannot be ended: a name server that does not answer holds its thread for half a minute. So lookups have
#: threads of their own, and leases and stores always find one.
_THREADS = ThreadPoolExecutor(LOOKUPS, "resolve")


async def resolve(host: str, port: int) -> list[str]:
    """All addresses of a name. Raises `OSError`."""
    found = await asyncio.get_running_loop().run_in_executor(
        _THREADS, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    )
    return list(dict.fromkeys(str(address[0]) for *_, address in found))
