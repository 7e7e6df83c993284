"""What a remote API says through the internal API, understood strictly.

Invariant of this file: an answer that is not wholly as the contract has it is no answer (`Unavailable`): nothing
of it is used, nobody is admitted by it, and no event in it is skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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

#: Makes of a kind and a digest what may be stored: keyed, since the plain digest of a weak secret would tell it.
Fingerprint = Callable[[str, str], str]

#: Longest cursor that is kept, characters; the contract's are about 70.
_MAX_CURSOR = 2048


@dataclass(frozen=True, slots=True)
class IntrospectionKey:
    """Session tokens the API has to answer alike: one answer stands for all of them.

    Tokens of one class speak for the same principal (share version included), about the same datasource and intent.
    """

    dashboard_id: str
    datasource_id: str
    principal: Principal
    intent_hash: str

    @classmethod
    def of(cls, claim: Claim) -> IntrospectionKey:
        """The class of the token a claim was made from."""
        return cls(claim.dashboard_id, claim.datasource_id, claim.principal, claim.intent_hash)


@dataclass(frozen=True, slots=True)
class Introspection:
    """A token the API answered for.

    Attributes:
        intent: what the datasource connects to, secrets included: never logged, never sent to a client.
    """

    intent: Mapping[str, object] = field(repr=False)

    def stream(self, policy: StreamPolicy, fingerprint: Fingerprint, last_requested_at: int) -> Stream:
        """The stream the intent is delivered from; no secret is in it.

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
        """The key of that stream, whatever policies say. Raises `Unavailable`, or `PolicyBlocked` as `stream` does
        when it can be no stream at all."""
        return stream_key(_stored(_own_form(self.intent)[0], fingerprint))

    def to_connect(self) -> Intent:
        """What the relay connects to, in the form of our own intents: SSE and WebSocket with the credential in `url` or
        `headers`, MQTT with `username`, `password` and `ca`. Never logged, never stored. Raises as `stream_key`."""
        return _own_form(self.intent)[0]


@dataclass(frozen=True, slots=True)
class ShareRevoked:
    """Every share version of the dashboard below this one is revoked.

    `revoked_at_ms`: epoch milliseconds, for metrics; 0 when the API does not say it in a way we can read.
    """

    dashboard_id: str
    share_version: int
    revoked_at_ms: int = 0


@dataclass(frozen=True, slots=True)
class RemotePage:
    """One read of the external feed.

    Attributes:
        events: in the feed's order.
        next_cursor: opaque; where to go on.
        expired: the cursor given was of no use, so events may have been missed.
    """

    events: tuple[ShareRevoked, ...]
    next_cursor: str
    expired: bool


def read_introspection(body: Body) -> Introspection:
    """A positive answer of `datasource-introspect`. Raises `Denied` when it is for another scope."""
    if _text(body, "scope") != STREAM_SCOPE:
        raise Denied("Datasource token scope mismatch")
    intent = body.get("intent")
    if not isinstance(intent, Mapping):
        raise _malformed("intent")
    return Introspection(intent)


def read_page(body: Body) -> RemotePage:
    """An answer of `revoked-tokens`."""
    events, expired = body.get("events"), body.get("cursorExpired", False)
    if not isinstance(events, list):
        raise _malformed("events")
    if not isinstance(expired, bool):
        raise _malformed("cursorExpired")
    cursor = _text(body, "nextCursor")
    if len(cursor) > _MAX_CURSOR:
        raise _malformed("nextCursor")
    return RemotePage(tuple(_event(one) for one in events), cursor, expired)


def read_rate(body: Body) -> RateDecision:
    """An answer of `rate-limit/consume`. Raises `Unavailable` when the API could not count and says no."""
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
    """The intent as our own are, and the broker profile it implies."""
    protocol = _text(answer, "protocol")
    if protocol in ("sse", "websocket"):
        return _http_form(protocol, answer), None
    if protocol == "mqtt":
        return _mqtt_form(protocol, answer)
    return {"protocol": protocol}, None


def _http_form(protocol: str, answer: Body) -> Intent:
    headers = answer.get("headers")
    if not isinstance(headers, Mapping) or not all(isinstance(one, str) for pair in headers.items() for one in pair):
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
    try:
        check_filter(topic)
    except InvalidInput as error:
        raise PolicyBlocked("MQTT topic is not valid") from error
    allowlist = _texts(answer, "topicAllowlist") if answer.get("topicAllowlist") else []
    # The contract has no `transport`: where it is not stated, the broker is an external one.
    transport = Transport.IOT_CORE if answer.get("transport") == Transport.IOT_CORE.value else Transport.EXTERNAL
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
        # The one option that adds trust; those that would switch a check off are not ours to follow.
        "ca": tls.get("ca", ""),
    }
    return intent, replace(broker, broker_url=url)


def _stored(intent: Intent, fingerprint: Fingerprint) -> Intent:
    """What of an intent is stored: all of it where the bridge serves it; where the relay does, what tells it from
    others without telling what it is. The relay asks the API again when it connects."""
    if intent.get("transport") == Transport.IOT_CORE.value:
        return intent
    stored = {"protocol": intent["protocol"], "introspected": fingerprint("introspected", intent_hash(intent))}
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
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise _malformed(name)
    return value


def _integer(body: Body, name: str) -> int:
    value = body.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _malformed(name)
    return value


def _malformed(name: str) -> Unavailable:
    return Unavailable(f"The API's answer is malformed: {name}", code="api_malformed")
