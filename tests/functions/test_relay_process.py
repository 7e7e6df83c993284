"""The relay as a process that stays: how it ends, and beside functions. Real tables, a real source, real signals."""

from __future__ import annotations

import itertools
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Event

import pytest

from tests.contracts.test_container_credentials import Agent
from tests.functions.test_gateway import Demo, Gateway, demo
from tests.functions.test_relay import (
    Served,
    errors,
    numbers,
    relay_env,
    relay_process,
    relay_workers,
    served,
    watched,
)
from tests.servers import numbers as sources
from tests.servers.management import ManagementServer
from tests.settling import settle
from tidegate.adapters.aws.sigv4 import FULL_URI
from tidegate.domain.partitions import partition_of
from tidegate.domain.relay import Kind, Lease, is_of
from tidegate.providers.control_plane import ControlPlaneProviders

__all__ = ["demo", "relay_env", "served"]


class Relay:
    """The partition of the only stream there is, and what its viewer has."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.container = ControlPlaneProviders(gateway.env)
        (self._stream,) = self.container.streams.of_source(None).streams
        self._partition = partition_of(self._stream)

    @property
    def lease(self) -> Lease | None:
        return self.container.relay_leases.current(self._partition)

    def held_by(self, kind: Kind) -> bool:
        lease = self.lease
        others = (each for each in Kind if each not in (kind, Kind.FUNCTION))
        return lease is not None and is_of(lease.owner, kind) and not any(is_of(lease.owner, each) for each in others)

    def settle(self, ready: Callable[[], bool]) -> None:
        """Await what is stored. It is asked seldom: the tables' emulator has the workers to serve as well."""
        asked = 0.0

        def seldom() -> bool:
            nonlocal asked
            if time.monotonic() < asked + 0.2:
                return False
            asked = time.monotonic()
            return ready()

        settle(seldom, 30)

    def is_left(self) -> bool:
        lease = self.lease
        return lease is not None and lease.leaving

    def newest(self) -> int:
        """The number of the value that was delivered last, as it is stored."""
        return int(self.container.last_values.newest(self._stream.stream_key)[0].message_id)

    def goes_on(self) -> None:
        until_then = len(numbers(self.gateway))
        settle(lambda: len(numbers(self.gateway)) >= until_then + 5, 30)

    def odd(self) -> list[tuple[int, int]]:
        """Pairs of values that are not in sequence: something between them is missing, or came twice."""
        assert not errors(self.gateway)
        return [pair for pair in itertools.pairwise(numbers(self.gateway)) if pair[1] != pair[0] + 1]


@pytest.fixture
def relay(
    relay_env: Mapping[str, str],
    management: ManagementServer,
    demo: Demo,
    served: Served,
    monkeypatch: pytest.MonkeyPatch,
) -> Relay:
    """A viewer of ten values a second, each with an id. None gives way to a newer one."""
    monkeypatch.setattr(sources, "PER_SECOND", 10)
    env = {**relay_env, "REALTIME_MAX_UPDATES_PER_SECOND": "0", "RELAY_CODE": "code"}
    return Relay(watched(env, management, demo, f"http://127.0.0.1:{served.port}/stream"))


def ended(process: subprocess.Popen[bytes]) -> bool:
    return process.wait(30) == 0


def test_a_process_that_is_told_to_end_hands_over_what_it_has_not_sent_yet(
    relay: Relay, management: ManagementServer, tmp_path: Path
) -> None:
    """Viewers are slow at that moment, so values wait to be sent: they are stored as delivered, and nobody else would
    send them. Credentials are those of a container."""
    agent, open_again = Agent(), Event()
    open_again.set()

    def answer(_method: str, _connection: str, _nth: int) -> int:
        assert open_again.wait(20)
        return 200

    env = {**relay.gateway.env, "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", FULL_URI: agent.uri}
    agent.lives_s = 4e9  # until it is counted from now
    try:
        with relay_process(env) as first:
            relay.goes_on()
            assert agent.asked and relay.held_by(Kind.SERVICE)
            well = tmp_path / "well"
            with relay_process({**env, "RELAY_HEALTH_FILE": str(well)}) as second:
                settle(well.exists, 30)
                management.answer = answer
                open_again.clear()
                stored = relay.newest()
                relay.settle(lambda: relay.newest() >= stored + 5)
                first.send_signal(signal.SIGTERM)
                relay.settle(relay.is_left)
                open_again.set()
                assert ended(first)
                relay.goes_on()
                assert not relay.odd()
                # The second signal does not wait for a successor, and the partition is free at once.
                second.send_signal(signal.SIGTERM)
                relay.settle(relay.is_left)
                second.send_signal(signal.SIGTERM)
                assert ended(second) and relay.lease is None
    finally:
        open_again.set()
        agent.close()


def test_functions_and_a_process_at_once_hand_over_in_both_orders(relay: Relay) -> None:
    """From functions to the service and back, while both run. One at a time sends, and no value is lost."""
    env = relay.gateway.env
    with relay_workers(env, newest=True):
        relay.goes_on()
        assert relay.held_by(Kind.FUNCTION)
        with relay_process(env) as process:
            relay.settle(lambda: relay.held_by(Kind.SERVICE))
            relay.goes_on()
            with relay_workers({**env, "RELAY_SPARE": "true"}, newest=True):
                relay.goes_on()
                assert relay.held_by(Kind.SERVICE), "a function that still runs takes nothing from the service"
            with relay_workers(env, newest=True):
                relay.settle(lambda: relay.held_by(Kind.FUNCTION))
                relay.goes_on()
                process.send_signal(signal.SIGTERM)
                assert ended(process) and relay.held_by(Kind.FUNCTION), "a process takes back nothing"
                relay.goes_on()
                assert not relay.odd()
