"""`$connect`: admit or refuse a browser's WebSocket. Nothing is sent here, and no token is needed.

The checks, in this order: realtime is on, the origin, the rate of this address, the open connections of this address.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from tidegate.domain.limits import CONNECT_IP_SCOPE, Cap, Rate, gateway_key
from tidegate.domain.subscriptions import Connection
from tidegate.domain.switches import REALTIME_OFF
from tidegate.errors import Denied, Disabled, LimitReached
from tidegate.ports.gateway import ConnectionStore
from tidegate.ports.limits import KeyHasher
from tidegate.ports.runtime import Clock, Observer
from tidegate.usecases.limits.connection_quota import ConnectionQuota
from tidegate.usecases.limits.rate_limits import RateLimits, logged_address, stored_address


@dataclass(frozen=True, slots=True)
class Handshake:
    """What `$connect` knows of a browser.

    Attributes:
        connection_id: the id that the platform gave the connection.
        ip_key: the client's address in the form that limits count (`domain.client_ip.ip_key`).
        origin: the Origin header, None when absent.
        batch: whether the query asked for `batch` frames.
    """

    connection_id: str
    ip_key: str
    origin: str | None
    batch: bool


class ConnectPolicy(NamedTuple):
    """Settings of the handshake. An empty `allowed_origins` allows every origin."""

    enabled: bool
    allowed_origins: Collection[str]
    rate_per_minute: int
    connections_per_ip: int

    def check_origin(self, origin: str | None) -> None:
        """Raises `Denied` for an origin that is not allowed. None is no Origin header."""
        if self.allowed_origins and (origin or "").lower() not in self.allowed_origins:
            raise Denied("Origin is not allowed", code="origin_not_allowed")

    def rate(self, key: str) -> Rate:
        """How often this address may connect. `key`: the address, as `gateway_key` makes it."""
        limit = self.rate_per_minute
        return Rate(CONNECT_IP_SCOPE, key, limit, f"Too many handshakes from this address: at most {limit} in a minute")

    def cap(self, ip: str) -> Cap:
        """How many connections this address may have. `ip`: what is stored of the address."""
        limit = self.connections_per_ip
        return Cap(f"ip#{ip}", limit, f"Too many open connections from this address: at most {limit}")


class Connect:
    """Admit a connection."""

    def __init__(
        self,
        *,
        policy: ConnectPolicy,
        rates: RateLimits,
        quota: ConnectionQuota,
        connections: ConnectionStore,
        keys: KeyHasher,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self._policy = policy
        self._rates = rates
        self._quota = quota
        self._connections = connections
        self._keys = keys
        self._clock = clock
        self._observer = observer

    def __call__(self, handshake: Handshake) -> None:
        """Admit, or raise the refusal.

        Raises:
            Disabled: realtime is off.
            Denied: the origin is not allowed.
            LimitReached: the address has connected too often, or has too many open connections.
            Unavailable: a store did not answer; the connection is not counted.
        """
        policy = self._policy
        if not policy.enabled:
            raise Disabled(REALTIME_OFF)
        policy.check_origin(handshake.origin)
        deadline, key = self._rates.deadline(), gateway_key(handshake.ip_key)
        rate = policy.rate(key)
        try:
            self._rates.consume(rate.scope, rate.key, rate.limit, refusal=rate.refusal, deadline=deadline)
        except LimitReached:
            self._observer.about(address=logged_address(self._keys, key))
            raise
        ip = stored_address(self._keys, key)
        self._observer.about(address=ip)
        cap = policy.cap(ip)
        slot = self._quota.take(cap.name, handshake.connection_id, cap.limit, refusal=cap.refusal, deadline=deadline)
        taken = frozenset() if slot is None else frozenset({slot})
        try:
            self._connections.open(
                Connection(
                    connection_id=handshake.connection_id,
                    ip=ip,
                    opened_at=int(self._clock.now()),
                    batch=handshake.batch,
                    slots=taken,
                )
            )
        except BaseException:
            # The connection is not admitted, so its slot goes back, whatever went wrong.
            self._quota.free(taken, handshake.connection_id, deadline)
            raise
        self._observer.count("connections_opened")
