"""Unit tests start no process and open no connection. One that tries fails, so that they stay fast."""

from __future__ import annotations

import socket
import subprocess
from typing import NoReturn

import pytest


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_options: object) -> NoReturn:
        # Not an `Exception`, so that no code under test takes it for an upstream that is down.
        pytest.fail("a unit test starts no process and uses no socket: such a test belongs to tests/contracts")

    monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
    for method in ("connect", "connect_ex", "bind"):
        monkeypatch.setattr(socket.socket, method, refuse)
