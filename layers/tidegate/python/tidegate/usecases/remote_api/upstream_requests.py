"""What the relay connects to, asked of a remote API with a viewer's session token.

With a remote API nothing of an upstream is stored but a mark (see `domain.external_api`): its URL and headers may hold
a credential. So whenever something is to be connected to, the API is asked what, as anybody's who is subscribed; the
answer must have the stream's mark.

Invariant of this file: an upstream is connected to only while somebody is subscribed whom the API grants it, and a
stream never becomes another one: a changed datasource or credential has another mark, and is another stream.
"""

from __future__ import annotations

from tidegate.domain.intents import Intent
from tidegate.domain.remote_api import Introspection, IntrospectionKey
from tidegate.domain.subscriptions import Stream, Subscription
from tidegate.errors import Denied, InvalidInput, NotFound, PolicyBlocked, Unauthenticated, Unavailable
from tidegate.ports.gateway import SubscriptionStore
from tidegate.ports.limits import KeyHasher
from tidegate.ports.relay import Broker, MqttRequest, NobodyListens, Requests, UpstreamFault, UpstreamRequest
from tidegate.ports.remote_api import Introspections
from tidegate.ports.runtime import Clock, Observer
from tidegate.protocol.messages import ErrorCode
from tidegate.usecases.relay.upstream_requests import http_request, mqtt_request
from tidegate.usecases.remote_api.introspection import IntrospectionBudget, introspect

#: Viewers on whose behalf is asked before a stream counts as refused: one may just have lost the right.
_VIEWERS = 3


class RemoteUpstreamRequests(Requests):
    """What is there by asking. Safe to use from several threads."""

    def __init__(
        self,
        *,
        introspections: Introspections,
        subscriptions: SubscriptionStore,
        keys: KeyHasher,
        limit: IntrospectionBudget,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self._introspections = introspections
        self._subscriptions = subscriptions
        self._keys = keys
        self._limit = limit
        self._clock = clock
        self._observer = observer

    def __call__(self, stream: Stream) -> UpstreamRequest | MqttRequest:
        """`Unavailable` when the API does not say, or is asked enough for this minute."""
        for viewer in self._viewers(stream):
            introspection = self._ask(viewer)
            if introspection is not None:
                return self._request(stream, introspection)
        raise UpstreamFault(ErrorCode.AUTH_FAILED, "Dashboard access denied", refused=True)

    def _viewers(self, stream: Stream) -> list[Subscription]:
        """Those whose tokens last longest, one of each class. Raises `NobodyListens`."""
        now = self._clock.now()
        rows = self._subscriptions.audience(stream.stream_key)
        rows = [row for row in rows if row.session_token is not None and row.claim.expires_at > now]
        if not rows:
            raise NobodyListens("Nobody is subscribed", code="nobody_listens")
        freshest: dict[IntrospectionKey, Subscription] = {}
        for row in sorted(rows, key=lambda row: row.claim.expires_at, reverse=True):
            freshest.setdefault(IntrospectionKey.of(row.claim), row)
        return list(freshest.values())[:_VIEWERS]

    def _ask(self, viewer: Subscription) -> Introspection | None:
        """None when the API says no: whoever revalidates ends that viewer's subscription."""
        if not self._limit.take():
            raise Unavailable("The API is asked too often", code="api_busy")
        claim, token = viewer.claim, viewer.session_token or ""
        try:
            return introspect(self._introspections, self._observer, token, claim.dashboard_id, claim.datasource_id)
        except (Denied, NotFound, Unauthenticated, InvalidInput):
            return None

    def _request(self, stream: Stream, introspection: Introspection) -> UpstreamRequest | MqttRequest:
        try:
            same = introspection.stream_key(self._keys.key) == stream.stream_key
        except PolicyBlocked:
            same = False
        if not same:
            raise UpstreamFault(ErrorCode.POLICY_BLOCKED, "The datasource was changed", refused=True)
        intent = introspection.to_connect()
        if stream.protocol == "mqtt":
            return mqtt_request(intent, _broker(intent))
        headers = intent["headers"]
        assert isinstance(headers, dict)
        return http_request(intent, str(intent["url"]), headers)


def _broker(intent: Intent) -> Broker:
    name, password = (None if intent[one] is None else str(intent[one]) for one in ("username", "password"))
    return Broker(str(intent["brokerProfileId"]), str(intent["brokerUrl"]), name, password, str(intent["ca"]))
