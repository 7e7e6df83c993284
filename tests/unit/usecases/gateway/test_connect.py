from __future__ import annotations

from contextlib import suppress

import pytest

from tests.containers.gateway import GatewayContainer
from tidegate.domain.limits import FailureMode, gateway_key
from tidegate.errors import Denied, Disabled, LimiterUnavailable, LimitReached, Unavailable
from tidegate.usecases.gateway import connect as connect_module
from tidegate.usecases.gateway.connect import Handshake
from tidegate.usecases.limits import rate_limits


def handshake(number: int = 0, ip: str = "1.2.3.4", origin: str | None = None) -> Handshake:
    return Handshake(f"c{number}", ip, origin, False)


def test_admits_and_counts_a_connection() -> None:
    container = GatewayContainer()
    container.connect(handshake())
    connection = container.connections.rows["c0"]
    assert connection.slots == {f"ip#ip|{gateway_key('1.2.3.4')}#0"}
    assert connection.opened_at == int(container.clock.now())
    assert container.end_connection.disconnected("c0") and not container.end_connection.disconnected("c0")
    assert not any(container.caps.holders.values())


def test_open_connections_of_one_address() -> None:
    container = GatewayContainer(per_ip=2)
    container.connect(handshake(0))
    container.connect(handshake(1))
    with pytest.raises(LimitReached):
        container.connect(handshake(2))
    container.connect(handshake(3, ip="5.6.7.8"))
    container.end_connection.disconnected("c0")
    container.connect(handshake(4))


def test_rate_of_one_address() -> None:
    container = GatewayContainer(rate=2)
    for number in range(2):
        container.connect(handshake(number))
    with pytest.raises(LimitReached):
        container.connect(handshake(2))
    assert "c2" not in container.connections.rows
    container.clock.advance(60)
    container.connect(handshake(3))


@pytest.mark.parametrize("rate", [1, 2], ids=["refused", "admitted"])
def test_the_log_is_given_a_hash_of_the_address(rate: int) -> None:
    container = GatewayContainer(rate=rate)
    container.connect(handshake(0))
    container.observer.said.clear()
    with suppress(LimitReached):
        container.connect(handshake(1))
    assert container.observer.said == {"address": container.connections.rows["c0"].ip}


def test_a_refusal_stays_one_when_the_address_cannot_be_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a remote API that counts, the salt may not have been read yet."""
    container = GatewayContainer(rate=1)
    container.connect(handshake(0))
    monkeypatch.setattr(connect_module, "stored_address", down)
    monkeypatch.setattr(rate_limits, "stored_address", down)
    with pytest.raises(LimitReached):
        container.connect(handshake(1))
    assert container.observer.said["address"] == "unknown"


def test_switched_off_and_foreign_origins() -> None:
    with pytest.raises(Disabled):
        GatewayContainer(enabled=False).connect(handshake())
    container = GatewayContainer(origins=["https://dash.example"])
    container.connect(handshake(origin="https://DASH.example"))
    for origin in (None, "https://evil.example"):
        with pytest.raises(Denied):
            container.connect(handshake(1, origin=origin))


def down(*_args: object, **_options: object) -> bool:
    raise Unavailable("down")


def test_a_limiter_that_is_down_refuses_by_default() -> None:
    container = GatewayContainer()
    container.rate_store.count = down  # type: ignore[method-assign, assignment]
    with pytest.raises(LimiterUnavailable):
        container.connect(handshake())
    lenient = GatewayContainer(failure_mode=FailureMode.OPEN)
    lenient.rate_store.count = down  # type: ignore[method-assign, assignment]
    lenient.caps.take = down  # type: ignore[method-assign]
    lenient.connect(handshake())
    assert "c0" in lenient.connections.rows


def test_a_connection_that_could_not_be_stored_is_not_counted() -> None:
    container = GatewayContainer()
    container.connections.open = down  # type: ignore[method-assign, assignment]
    with pytest.raises(Unavailable):
        container.connect(handshake())
    assert not any(container.caps.holders.values())
