"""Learn from a remote API what the relay connects to, with the session token of a subscribed viewer.

With a remote API only the fingerprint of an upstream is stored (see `domain.remote_api`), because its URL and headers
may hold a credential. So before every connect the API is asked with the token of a viewer who is subscribed. The answer
must have the stream's fingerprint.

Invariants of this file: an upstream is connected only while a viewer is subscribed whom the API authorizes for it. A
stream never changes what it connects to: another datasource or credential has another fingerprint, so it is another
stream.
"""

from __future__ import annotations

from tidegate.domain.intents import Intent
from tidegate.domain.remote_api import Introspection, IntrospectionKey
from tidegate.domain.subscriptions import Stream, Subscription
from tidegate.errors import Denied, InvalidInput, NotFound, PolicyBlocked, Unauthenticated, Unavailable
from tidegate.ports.gateway import SubscriptionStore
from tidegate.ports.limits import KeyHasher
from tidegate.ports.relay import Broker, MqttRequest, NobodyListens, UpstreamFault, UpstreamRequest, UpstreamRequests
from tidegate.ports.remote_api import Introspections
from tidegate.ports.runtime import Clock, Observer
from tidegate.protocol.messages import ErrorCode
from tidegate.usecases.relay.upstream_requests import http_request, mqtt_request
from tidegate.usecases.remote_api.introspection import IntrospectionBudget, introspect

#: Viewers whose tokens are tried before a stream counts as refused: a single one may just have lost the right.
_VIEWERS = 3


class RemoteUpstreamRequests(UpstreamRequests):
    """`ports.relay.UpstreamRequests` answered by a remote API. Safe to use from several threads."""

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
        self._budget = limit
        self._clock = clock
        self._observer = observer

    def __call__(self, stream: Stream) -> UpstreamRequest | MqttRequest:
        """See `ports.relay.UpstreamRequests`.

        Raises:
            UpstreamFault: the API refuses every viewer that was tried, or the datasource was changed.
            NobodyListens: nobody is subscribed with a token that still holds.
            Unavailable: the API did not answer the question, or this minute's budget is spent.
        """
        for viewer in self._viewers(stream):
            introspection = self._ask(viewer)
            if introspection is not None:
                return self._request(stream, introspection)
        raise UpstreamFault(ErrorCode.AUTH_FAILED, "Dashboard access denied", refused=True)

    def _viewers(self, stream: Stream) -> list[Subscription]:
        """Up to `_VIEWERS` subscriptions, one of each introspection key, whose tokens last longest.

        Raises `NobodyListens`.
        """
        now = self._clock.now()
        rows = self._subscriptions.audience(stream.stream_key).rows
        rows = [row for row in rows if row.session_token is not None and row.claim.expires_at > now]
        if not rows:
            raise NobodyListens("Nobody is subscribed", code="nobody_listens")
        freshest: dict[IntrospectionKey, Subscription] = {}
        for row in sorted(rows, key=lambda row: row.claim.expires_at, reverse=True):
            freshest.setdefault(IntrospectionKey.of(row.claim), row)
        return list(freshest.values())[:_VIEWERS]

    def _ask(self, viewer: Subscription) -> Introspection | None:
        """Ask with this viewer's token. None when the API says no; revalidation then ends the viewer's subscription."""
        if not self._budget.take():
            raise Unavailable("The API is asked too often", code="api_busy")
        claim, token = viewer.claim, viewer.session_token or ""
        try:
            return introspect(self._introspections, self._observer, token, claim.dashboard_id, claim.datasource_id)
        except (Denied, NotFound, Unauthenticated, InvalidInput):
            return None

    def _request(self, stream: Stream, introspection: Introspection) -> UpstreamRequest | MqttRequest:
        try:
            same = introspection.is_of(stream.stream_key, self._keys.known())
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
    name, password = (None if intent[part] is None else str(intent[part]) for part in ("username", "password"))
    return Broker(str(intent["brokerProfileId"]), str(intent["brokerUrl"]), name, password, str(intent["ca"]))
