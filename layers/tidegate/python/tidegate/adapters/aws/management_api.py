"""The management API of the managed WebSocket (`@connections`): send to a connection, look whether it exists, close it.

Messages are sent one at a time or many at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from time import monotonic, time
from urllib.parse import quote, urlsplit

from tidegate.adapters.aws.bulk_sender import BulkSender
from tidegate.adapters.aws.http import HttpClient, NotAnswered
from tidegate.adapters.aws.sigv4 import CredentialSource, PostSigner, Signer
from tidegate.errors import Unavailable
from tidegate.ports.delivery import Delivery, M, OutboundMessage, OutboundQueue, Sendable, Sender, SendResult
from tidegate.ports.runtime import Observer

_SERVICE = "execute-api"
_TIMEOUT_S = 10.0
_BASE64 = re.compile(r"[A-Za-z0-9_-]*=*")


class ManagementApi(Sender):
    """Sends to the connections of one WebSocket API."""

    def __init__(self, endpoint: str, *, region: str, credentials: CredentialSource, observer: Observer) -> None:
        """`endpoint` is the stage's callback URL, for example `https://id.execute-api.eu-west-1.amazonaws.com/live`."""
        self._http = HttpClient(endpoint)
        self._signer = Signer(credentials, region, _SERVICE)
        self._observer = observer
        self._prefix = f"{self._http.prefix}/@connections/"
        self._post_signer = PostSigner(self._signer, self._http.host, self._prefix)
        parts = urlsplit(endpoint)
        tls = parts.scheme == "https"
        port = parts.port or (443 if tls else 80)
        self._bulk = BulkSender(parts.hostname or "", port, tls=tls, encoded=self.encoded)

    # --- one at a time ------------------------------------------------------------------------------------

    def post(self, connection_id: str, body: bytes) -> Delivery:
        return self.post_many([OutboundMessage(connection_id, body)])[0].delivery

    def exists(self, connection_id: str) -> bool:
        """Raises `Unavailable` when the platform did not say."""
        try:
            status = self._request("GET", connection_id)
        except NotAnswered as error:
            raise Unavailable("The platform did not answer") from error
        if status in (200, 410):
            return status == 200
        raise Unavailable("The platform did not say", code=f"status_{status}")

    def close(self, connection_id: str) -> None:
        try:
            status = self._request("DELETE", connection_id)
        except NotAnswered:
            status = 0
        if status not in (200, 204, 410):
            # A failed close is only counted. The full revalidation tries to close such connections again.
            self._observer.count("connections_not_closed")

    def _request(self, method: str, connection_id: str) -> int:
        path = self._prefix + _escaped(connection_id)
        headers = self._signer.headers(method, self._http.host, path, b"", time())
        return self._http.request(method, path, headers, b"", monotonic() + _TIMEOUT_S).status

    # --- many at once -------------------------------------------------------------------------------------

    def post_many(
        self,
        posts: Iterable[OutboundMessage],
        *,
        before_each: Callable[[OutboundMessage], bool] | None = None,
        deadline: float | None = None,
    ) -> Sequence[SendResult]:
        """`deadline` is monotonic seconds; without it, all messages together get ten seconds."""
        listed = _Listed(list(posts), before_each)
        self._bulk.send(listed, monotonic() + _TIMEOUT_S if deadline is None else deadline)
        return listed.results()

    def send(self, outgoing: OutboundQueue[M]) -> None:
        """Send until the queue has ended and all is answered. For one thread at a time."""
        self._bulk.send(outgoing)

    def wake(self) -> None:
        self._bulk.wake()

    def end(self) -> None:
        self._bulk.end()

    def encoded(self, message: Sendable) -> bytes:
        """The whole signed request for a message, as bytes."""
        return self._post_signer.request(_escaped(message.connection_id), message.body, time())


def _escaped(connection_id: str) -> str:
    """A connection id as a segment of a path. Ids are usually Base64, which can be encoded at a tenth of the cost."""
    if _BASE64.fullmatch(connection_id):
        return connection_id.replace("=", "%3D")
    return quote(connection_id, safe="")


class _Listed:
    """A `ports.delivery.OutboundQueue` of messages that are all there when sending begins. None waits for another."""

    ended = True
    due = None

    def __init__(
        self, messages: Sequence[OutboundMessage], before_each: Callable[[OutboundMessage], bool] | None
    ) -> None:
        self._messages = messages
        self._next = 0
        self._before_each = before_each
        self._deliveries: dict[int, Delivery] = {}  # by `id`, so that two equal messages have two entries

    def results(self) -> list[SendResult]:
        return [SendResult(message, self._deliveries.get(id(message), Delivery.FAILED)) for message in self._messages]

    def ready(self, _now: float) -> int:
        return len(self._messages) - self._next

    def take(self, _now: float) -> OutboundMessage | None:
        if self._next == len(self._messages):
            return None
        self._next += 1
        return self._messages[self._next - 1]

    def before(self, message: OutboundMessage) -> OutboundMessage | None:
        if self._before_each is None or self._before_each(message):
            return message
        self._deliveries[id(message)] = Delivery.WITHHELD
        return None

    def answered(self, message: OutboundMessage, delivery: Delivery) -> None:
        self._deliveries[id(message)] = delivery

    def throttled(self) -> None: ...
