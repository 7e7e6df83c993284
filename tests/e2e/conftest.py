"""One whole stack for the tests of this folder: emulator, deployed app, edge and device, on free ports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from local_stack.config import Config, on_free_ports
from local_stack.up import down, up


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return on_free_ports(tmp_path_factory.mktemp("stack"))


@pytest.fixture(scope="session")
def settings() -> Mapping[str, str]:
    return {
        # One full revalidation in the first minute, then none for a day: it would sweep the rows that tests write.
        "REALTIME_PUBLIC_FULL_REVALIDATE_INTERVAL_MS": "86400000",
        # A rotation waits for the end of tokens that the old value signed.
        "DATASOURCE_SESSION_TTL_SECONDS": "60",
    }


@pytest.fixture(scope="session")
def stack(config: Config, settings: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
    running = up(config, settings)
    yield running
    assert set(down(config)) == {"emulator", "fake_upstreams", "edge"}
