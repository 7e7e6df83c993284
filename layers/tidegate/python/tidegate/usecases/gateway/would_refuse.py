"""Whether a connect or a subscribe would be refused now, for a browser that sees only 1006 of a refused handshake.

It asks what `Connect` and `Subscribe` ask, in their order, with their policies and texts. A new connection and a new
subscription are meant: what only one connection knows of itself is not asked.

Invariant of this file: nothing is counted, taken or held, and nobody is told what the real call would not tell. Where
the real call stops at the first refusal, this does.
"""

from __future__ import annotations

from tidegate.domain.limits import gateway_key
from tidegate.domain.switches import REALTIME_OFF
from tidegate.errors import Disabled, TidegateError
from tidegate.ports.limits import KeyHasher
from tidegate.ports.runtime import Clock
from tidegate.ports.tokens import SessionTokens
from tidegate.usecases.gateway.authorizer import LocalAuthorizer
from tidegate.usecases.gateway.connect import ConnectPolicy
from tidegate.usecases.gateway.subscribe import SubscribePolicy
from tidegate.usecases.limits.look import LookAtLimits
from tidegate.usecases.limits.rate_limits import stored_address


class WouldRefuse:
    """Answers with the refusal that the real call would raise now; None when it would be admitted.

    `Unavailable` among them says that it could not be found out.
    """

    def __init__(
        self,
        *,
        connect: ConnectPolicy,
        subscribe: SubscribePolicy,
        limits: LookAtLimits,
        keys: KeyHasher,
        tokens: SessionTokens,
        authorizer: LocalAuthorizer,
        clock: Clock,
    ) -> None:
        self._connect = connect
        self._subscribe = subscribe
        self._limits = limits
        self._keys = keys
        self._tokens = tokens
        self._authorizer = authorizer
        self._clock = clock

    def connect(self, ip_key: str, origin: str | None) -> TidegateError | None:
        """A handshake from this address.

        Args:
            ip_key: the address in the form that limits count (`domain.client_ip.ip_key`).
            origin: the Origin header. None is not held against the caller: a browser sends it with every handshake, but
                not with a GET to its own origin.
        """
        try:
            self._check_connect(ip_key, origin)
        except TidegateError as refusal:
            return refusal
        return None

    def _check_connect(self, ip_key: str, origin: str | None) -> None:
        policy = self._connect
        if not policy.enabled:
            raise Disabled(REALTIME_OFF)
        if origin is not None:
            policy.check_origin(origin)
        deadline, key = self._limits.deadline(), gateway_key(ip_key)
        self._limits.rate(policy.rate(key), deadline)
        self._limits.cap(policy.cap(stored_address(self._keys, key)), deadline)

    def subscribe(self, ip_key: str, dashboard_id: str, datasource_id: str | None, token: str) -> TidegateError | None:
        """A subscribe with this token, on a new connection from this address.

        `datasource_id`: None for that of the token. With a token for a whole dashboard, None asks for what refuses all
        its datasources.
        """
        try:
            self._check_subscribe(ip_key, dashboard_id, datasource_id, token)
        except TidegateError as refusal:
            return refusal
        return None

    def _check_subscribe(self, ip_key: str, dashboard_id: str, datasource_id: str | None, token: str) -> None:
        policy, limits = self._subscribe, self._limits
        if not policy.enabled:
            raise Disabled(REALTIME_OFF)
        claims = self._tokens.verify(token, self._clock.now())
        whole = datasource_id is None and claims.for_dashboard
        narrowed = claims.of_datasource(dashboard_id, datasource_id or claims.datasource_id)
        deadline = limits.deadline()
        for rate in policy.rates(claims, stored_address(self._keys, gateway_key(ip_key)), watching=False):
            limits.rate(rate, deadline)
        if whole:
            self._authorizer.check_dashboard(claims)
        else:
            authorization = self._authorizer(narrowed, token, self._clock.now())
            if authorization.stream.relayed and authorization.owner_id is not None:
                limits.upstream(authorization.owner_id, authorization.stream.stream_key, deadline)
        limits.cap(policy.cap(dashboard_id), deadline)
