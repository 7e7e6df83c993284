"""Reads the answers of a remote API, strictly. A remote API serves the internal API for its gateways.

Invariant of this file: an answer that differs from the internal API in any part counts as no answer: `Unavailable` is
raised. Nothing of it is used, nobody is admitted by it, and no event in it is skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from tidegate.domain.access import Claim, Principal
from tidegate.domain.intents import IDLE_TIMEOUT_MS, KEEPALIVE_S, Intent, intent_hash, stream_key
from tidegate.domain.limits import WINDOW_MS, RateDecision
from tidegate.domain.profiles import BrokerProfile, Transport
from tidegate.domain.stream_policy import StreamPolicy, stream_for
from tidegate.domain.subscriptions import Stream
from tidegate.domain.tokens import STREAM_SCOPE
from tidegate.errors import Denied, InvalidInput, PolicyBlocked, Unavailable
from tidegate.protocol.topics import check_filter

Body = Mapping[str, object]

#: Makes a fingerprint, which may be stored, of a kind and a digest. It is keyed: a plain digest of a weak secret could
#: be guessed.
Fingerprint = Callable[[str, str], str]

#: Longest cursor that is kept, characters. Cursors of the internal API have about 70.
_MAX_CURSOR = 2048


@dataclass(frozen=True, slots=True)
class IntrospectionKey:
    """Names session tokens that the API has to answer alike, so that one answer stands for all of them.

    Tokens with equal keys speak for the same principal (share version included), and for the same datasource and
    intent.
    """

    dashboard_id: str
    datasource_id: str
    principal: Principal
    intent_hash: str

    @classmethod
    def of(cls, claim: Claim) -> IntrospectionKey:
        """The key of the token a claim was made from."""
        return cls(claim.dashboard_id, claim.datasource_id, claim.principal, claim.intent_hash)


@dataclass(frozen=True, slots=True)
class Introspection:
    """The API's answer for a token that it admits.

    Attributes:
        intent: what the datasource connects to, secrets included. Never logged, never sent to a client.
    """

    intent: Mapping[str, object] = field(repr=False)

    def stream(self, policy: StreamPolicy, fingerprint: Fingerprint, last_requested_at: int) -> Stream:
        """The stream that the intent is delivered from. It holds no secret.

        Args:
            last_requested_at: epoch seconds.

        Raises:
            PolicyBlocked: the operator's or the broker profile's policy forbids it, or nothing here serves it.
            Unavailable: the intent is malformed.
        """
        intent, broker = _own_form(self.intent)
        stream = stream_for(intent, broker, policy, last_requested_at)
        if not stream.relayed:
            return stream
        stored = _stored(intent, fingerprint)
        return replace(stream, stream_key=stream_key(stored), intent=stored)

    def stream_key(self, fingerprint: Fingerprint) -> str:
        """The key of that stream, whether or not a policy allows it.

        Raises:
            PolicyBlocked: the intent's MQTT topic is not valid, so there can be no stream.
            Unavailable: the intent is malformed.
        """
        return stream_key(_stored(_own_form(self.intent)[0], fingerprint))

    def is_of(self, key: str, fingerprints: Iterable[Fingerprint]) -> bool:
        """Whether a stream of this key delivers the intent, under any of the fingerprints. Raises as `stream_key`."""
        return any(self.stream_key(fingerprint) == key for fingerprint in fingerprints)

    def to_connect(self) -> Intent:
        """What the relay connects to, in the form of our own intents. Never logged, never stored.

        SSE and WebSocket intents have the credential in `url` or `headers`. MQTT intents have `username`, `password`
        and `ca`. Raises as `stream_key` does.
        """
        return _own_form(self.intent)[0]


@dataclass(frozen=True, slots=True)
class ShareRevoked:
    """Every share version of the dashboard below this one is revoked.

    `revoked_at_ms`: epoch milliseconds, for metrics only; 0 when the API does not state it in a form we can read.
    """

    dashboard_id: str
    share_version: int
    revoked_at_ms: int = 0


@dataclass(frozen=True, slots=True)
class RemotePage:
    """One read of a remote API's feed.

    Attributes:
        events: in the feed's order.
        next_cursor: where the next read starts; opaque.
        expired: the API no longer knew the given cursor, so events may have been missed.
    """

    events: tuple[ShareRevoked, ...]
    next_cursor: str
    expired: bool


def read_introspection(body: Body) -> Introspection:
    """Read a positive answer of `datasource-introspect`.

    Raises:
        Denied: it is for another scope.
        Unavailable: the answer is malformed.
    """
    if _text(body, "scope") != STREAM_SCOPE:
        raise Denied("Datasource token scope mismatch")
    intent = body.get("intent")
    if not isinstance(intent, Mapping):
        raise _malformed("intent")
    return Introspection(intent)


def read_page(body: Body) -> RemotePage:
    """Read an answer of `revoked-tokens`. Raises `Unavailable` when it is malformed."""
    events, expired = body.get("events"), body.get("cursorExpired", False)
    if not isinstance(events, list):
        raise _malformed("events")
    if not isinstance(expired, bool):
        raise _malformed("cursorExpired")
    cursor = _text(body, "nextCursor")
    if len(cursor) > _MAX_CURSOR:
        raise _malformed("nextCursor")
    return RemotePage(tuple(_event(event) for event in events), cursor, expired)


def read_rate(body: Body) -> RateDecision:
    """Read an answer of `rate-limit/consume`.

    Raises:
        Unavailable: the answer is malformed, or the API could not count and therefore refused.
    """
    allowed, reason = body.get("allowed"), body.get("reason")
    if not isinstance(allowed, bool):
        raise _malformed("allowed")
    if allowed:
        return RateDecision(True, max(0, _integer(body, "remaining")), 0, counted=reason != "backend_fail_open")
    if reason == "backend_fail_closed":
        raise Unavailable("The API could not count", code="api_unavailable")
    return RateDecision(False, 0, min(max(1, _integer(body, "retryAfterMs")), WINDOW_MS))


def _event(event: object) -> ShareRevoked:
    if not isinstance(event, Mapping):
        raise _malformed("events")
    dashboard_id, version = _text(event, "dashboardId"), _integer(event, "shareTokenVersion")
    try:
        moment = datetime.fromisoformat(str(event.get("revokedAt")))
    except ValueError:
        return ShareRevoked(dashboard_id, version)
    return ShareRevoked(dashboard_id, version, int(moment.timestamp() * 1000) if moment.tzinfo else 0)


def _own_form(answer: Body) -> tuple[Intent, BrokerProfile | None]:
    """The intent in the form of our own, and the broker profile it implies."""
    protocol = _text(answer, "protocol")
    if protocol in ("sse", "websocket"):
        return _http_form(protocol, answer), None
    if protocol == "mqtt":
        return _mqtt_form(protocol, answer)
    return {"protocol": protocol}, None


def _http_form(protocol: str, answer: Body) -> Intent:
    headers = answer.get("headers")
    if not isinstance(headers, Mapping) or not all(isinstance(text, str) for pair in headers.items() for text in pair):
        raise _malformed("headers")
    return {
        "protocol": protocol,
        "url": _text(answer, "url"),
        "parser": _parser(answer),
        "headers": dict(sorted(headers.items())),
        "protocols": _texts(answer, "protocols"),
        "idleTimeoutMs": _bounded(answer, "idleTimeoutMs", *IDLE_TIMEOUT_MS),
    }


def _mqtt_form(protocol: str, answer: Body) -> tuple[Intent, BrokerProfile]:
    topic, profile_id = _text(answer, "topic"), _text(answer, "brokerProfileId")
    # `transport` is optional in the internal API. Where it is not stated, the broker is an external one.
    transport = Transport.IOT_CORE if answer.get("transport") == Transport.IOT_CORE.value else Transport.EXTERNAL
    try:
        check_filter(topic, transport.topic_limits)
    except InvalidInput as error:
        raise PolicyBlocked("MQTT topic is not valid") from error
    allowlist = _texts(answer, "topicAllowlist") if answer.get("topicAllowlist") else []
    broker = BrokerProfile(profile_id, "", transport, topic_allowlist=tuple(allowlist))
    intent: dict[str, object] = {
        "protocol": protocol,
        "brokerProfileId": profile_id,
        "topic": topic,
        "parser": _parser(answer),
        "transport": transport.value,
    }
    if transport is Transport.IOT_CORE:
        return intent, broker
    tls = answer.get("tls") or {}
    if not isinstance(tls, Mapping) or not isinstance(tls.get("ca", ""), str):
        raise _malformed("tls")
    url = _text(answer, "brokerUrl")
    intent |= {
        "brokerUrl": url,
        "qos": _bounded(answer, "qos", 0, 1),
        "keepaliveSeconds": _bounded(answer, "keepaliveSeconds", *KEEPALIVE_S),
        "username": _optional_text(answer, "username"),
        "password": _optional_text(answer, "password"),
        # The only option that adds trust. Options that would switch a check off are ignored.
        "ca": tls.get("ca", ""),
    }
    return intent, replace(broker, broker_url=url)


def _stored(intent: Intent, fingerprint: Fingerprint) -> Intent:
    """The part of an intent that is stored.

    An intent that the bridge serves is stored whole: it holds no secret. Of an intent that the relay serves, only the
    protocol, the broker profile's id and a fingerprint are stored. The fingerprint tells intents apart without
    revealing them. The relay asks the API again when it connects.
    """
    if intent.get("transport") == Transport.IOT_CORE.value:
        return intent
    stored = {"protocol": intent["protocol"], "fingerprint": fingerprint("intent", intent_hash(intent))}
    return stored | ({"brokerProfileId": intent["brokerProfileId"]} if "brokerProfileId" in intent else {})


def _parser(answer: Body) -> str:
    return "text" if answer.get("parser") == "text" else "json"


def _bounded(answer: Body, name: str, low: int, high: int) -> int:
    return min(max(_integer(answer, name), low), high)


def _optional_text(answer: Body, name: str) -> str | None:
    return None if answer.get(name) is None else _text(answer, name)


def _text(body: Body, name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise _malformed(name)
    return value


def _texts(body: Body, name: str) -> list[str]:
    value = body.get(name)
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise _malformed(name)
    return value


def _integer(body: Body, name: str) -> int:
    value = body.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _malformed(name)
    return value


def _malformed(name: str) -> Unavailable:
    return Unavailable(f"The API's answer is malformed: {name}", code="api_malformed")
