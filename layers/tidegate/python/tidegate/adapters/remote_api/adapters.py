"""Ports of the gateway, served by the three calls of a remote API's internal API."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic

from tidegate.adapters.remote_api.client import CONSUME, INTROSPECT, REVOKED_TOKENS, RemoteApiClient, Reply
from tidegate.domain.limits import WINDOW_MS, RateDecision, gateway_key
from tidegate.domain.remote_api import Introspection, RemotePage, read_introspection, read_page, read_rate
from tidegate.errors import ApiTimeout, Denied, InvalidInput, NotFound, Unauthenticated, Unavailable
from tidegate.ports.limits import KeyHasher, RateCounter
from tidegate.ports.remote_api import Introspections, RemoteFeed


class HttpIntrospections(Introspections):
    """Introspects tokens at the remote API, over HTTP."""

    def __init__(self, client: RemoteApiClient, timeout_ms: int) -> None:
        self._client = client
        self._timeout_s = timeout_ms / 1000

    def introspect(self, token: str, dashboard_id: str, datasource_id: str) -> Introspection:
        payload = {"sessionToken": token, "dashboardId": dashboard_id, "datasourceId": datasource_id}
        reply = self._client.post(INTROSPECT, payload, self._timeout_s)
        match reply.status:
            case 400:
                raise InvalidInput("Datasource cannot be streamed", code="not_streamable")
            case 401:
                raise Unauthenticated("Invalid datasource session token")
            case 403:
                raise Denied("Dashboard access denied")
            case 404:
                raise NotFound("Dashboard or datasource not found")
        return read_introspection(reply.body)


class HttpRemoteFeed(RemoteFeed):
    """Reads the remote API's feed over HTTP."""

    def __init__(self, client: RemoteApiClient, timeout_ms: int) -> None:
        self._client = client
        self._timeout_s = timeout_ms / 1000

    def read(self, cursor: str | None, limit: int) -> RemotePage:
        reply = self._client.post(REVOKED_TOKENS, {"sinceCursor": cursor, "limit": limit}, self._timeout_s)
        return read_page(_answered(reply).body)


class HttpRates(RateCounter):
    """Counts at the remote API, so that all its gateways share one limit."""

    def __init__(self, client: RemoteApiClient) -> None:
        self._client = client

    def count(
        self, key: str, limit: int, now_ms: int, window_ms: int, request_id: str, deadline: float
    ) -> RateDecision:
        """`key` is `namespace#scope#key`, where the last part is made with `RemoteApiKeys`.

        The internal API takes no request id, so a call whose answer was lost is not repeated. Its windows are minutes.

        Raises:
            ValueError: the window is not a minute.
            ApiTimeout, ApiBusy, Unavailable: the API did not count.
        """
        if window_ms != WINDOW_MS:
            raise ValueError("the internal API counts by the minute only")
        timeout_s = deadline - monotonic()
        if timeout_s <= 0:
            raise ApiTimeout("The limiter did not answer in time")
        _, scope, hashed = key.rsplit("#", 2)
        payload = {"scope": scope, "key": hashed, "limitPerMinute": limit}
        return read_rate(_answered(self._client.post(CONSUME, payload, timeout_s)).body)


class RemoteApiKeys(KeyHasher):
    """Keys for `HttpRates`. Every gateway of the API has to make the same keys, so they have no salt."""

    def key(self, *parts: str) -> str:
        """`gateway_key` of the last part."""
        return gateway_key(parts[-1])

    def known(self) -> Sequence[Callable[..., str]]:
        return [self.key]


def _answered(reply: Reply) -> Reply:
    if reply.status != 200:
        raise Unavailable("The API refused the call", code="api_unavailable")
    return reply
