"""The guard of this folder refuses what it is there to refuse."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest


async def a_connection() -> None:
    await asyncio.open_connection("127.0.0.1", 9)


async def a_process() -> None:
    await asyncio.create_subprocess_exec(sys.executable, "-V")


@pytest.mark.parametrize(
    "attempt",
    [
        lambda: subprocess.run([sys.executable, "-V"], check=False),
        lambda: socket.create_connection(("127.0.0.1", 9)),
        lambda: socket.socket().connect_ex(("127.0.0.1", 9)),
        lambda: socket.create_server(("127.0.0.1", 0)),
        lambda: asyncio.run(a_connection()),
        lambda: asyncio.run(a_process()),
    ],
    ids=["process", "connect", "connect_ex", "bind", "asyncio connection", "asyncio process"],
)
def test_processes_and_sockets_are_refused(attempt: Callable[[], object]) -> None:
    with pytest.raises(pytest.fail.Exception, match="belongs to tests/contracts"):
        attempt()
