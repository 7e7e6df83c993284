from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from management_server import ManagementServer


@pytest.fixture
def management() -> Iterator[ManagementServer]:
    server = ManagementServer()
    yield server
    server.close()
