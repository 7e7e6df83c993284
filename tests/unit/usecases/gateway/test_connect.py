from __future__ import annotations

import pytest

from tests.containers.gateway import GatewayContainer
from tidegate.domain.limits import FailureMode
from tidegate.errors import Denied, Disabled, LimiterUnavailable, LimitReached, Unavailable
from tidegate.usecases.gateway.connect import Handshake


def handshake(number: int = 0, ip: str = "1.2.3.4", origin: str | None = None) -> Handshake:
    return Handshake(f"c{number}", ip, origin, False)


def test_admits_and_counts_a_connection() -> None:
    world = GatewayContainer()
    world.connect(handshake())
    connection = world.connections.rows["c0"]
    assert connection.slots == {"ip#ip|1.2.3.4#0"} and connection.opened_at == int(world.clock.now())
    assert world.end_connection.disconnected("c0") and not world.end_connection.disconnected("c0")
    assert not any(world.caps.holders.values())


def test_open_connections_of_one_address() -> None:
    world = GatewayContainer(per_ip=2)
    world.connect(handshake(0))
    world.connect(handshake(1))
    with pytest.raises(LimitReached):
        world.connect(handshake(2))
    world.connect(handshake(3, ip="5.6.7.8"))
    world.end_connection.disconnected("c0")
    world.connect(handshake(4))


def test_rate_of_one_address() -> None:
    world = GatewayContainer(rate=2)
    for number in range(2):
        world.connect(handshake(number))
    with pytest.raises(LimitReached):
        world.connect(handshake(2))
    assert "c2" not in world.connections.rows
    world.clock.advance(60)
    world.connect(handshake(3))


def test_switched_off_and_foreign_origins() -> None:
    with pytest.raises(Disabled):
        GatewayContainer(enabled=False).connect(handshake())
    world = GatewayContainer(origins=["https://dash.example"])
    world.connect(handshake(origin="https://DASH.example"))
    for origin in (None, "https://evil.example"):
        with pytest.raises(Denied):
            world.connect(handshake(1, origin=origin))


def down(*_args: object, **_options: object) -> bool:
    raise Unavailable("down")


def test_a_limiter_that_is_down_refuses_by_default() -> None:
    world = GatewayContainer()
    world.rate_store.count = down  # type: ignore[method-assign, assignment]
    with pytest.raises(LimiterUnavailable):
        world.connect(handshake())
    lenient = GatewayContainer(failure_mode=FailureMode.OPEN)
    lenient.rate_store.count = down  # type: ignore[method-assign, assignment]
    lenient.caps.take = down  # type: ignore[method-assign]
    lenient.connect(handshake())
    assert "c0" in lenient.connections.rows


def test_a_connection_that_could_not_be_stored_is_not_counted() -> None:
    world = GatewayContainer()
    world.connections.open = down  # type: ignore[method-assign, assignment]
    with pytest.raises(Unavailable):
        world.connect(handshake())
    assert not any(world.caps.holders.values())
