from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.management import ManagementServer
from tests.servers.remote_api import ContractServer


@pytest.fixture
def management() -> Iterator[ManagementServer]:
    server = ManagementServer()
    yield server
    server.close()


@pytest.fixture
def external() -> Iterator[ContractServer]:
    server = ContractServer()
    yield server
    server.close()
