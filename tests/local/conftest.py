"""One whole stack for the tests of this folder: emulator, deployed app, edge and device, on free ports."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fixtures.local_stack.config import PORT_VARIABLES, Config
from fixtures.local_stack.publisher import Publisher
from fixtures.local_stack.up import down, up


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def free_config(state: Path) -> Config:
    """A stack of its own beside whatever runs."""
    names = list(PORT_VARIABLES.values())
    return replace(Config(state=state), **dict(zip(names, free_ports(len(names)), strict=True)))  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return free_config(tmp_path_factory.mktemp("stack"))


@pytest.fixture(scope="session")
def stack(config: Config) -> Iterator[Mapping[str, Any]]:
    # One full pass in the first minute, then none for a day: it would sweep the rows that tests write by hand.
    running = up(config, {"REALTIME_PUBLIC_FULL_REVALIDATE_INTERVAL_MS": "86400000"})
    yield running
    assert set(down(config)) == {"emulator", "edge", "sources"}


@pytest.fixture(scope="session")
def device(stack: Mapping[str, Any]) -> Iterator[Publisher]:
    with Publisher(stack["mqtt"]) as connected:
        yield connected
