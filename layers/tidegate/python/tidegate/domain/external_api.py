"""What an external API says through the internal contract, understood strictly.

Invariant of this file: an answer that is not wholly as the contract has it is no answer (`CouldNotCheck`): nothing
of it is used, nobody is admitted by it, and no event in it is skipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from tidegate.domain.access import Claim, Principal
from tidegate.domain.errors import CouldNotCheck, Denied, InvalidInput, PolicyBlocked
from tidegate.domain.intents import Intent
from tidegate.domain.limits import WINDOW_MS, RateDecision
from tidegate.domain.profiles import BrokerProfile, Transport
from tidegate.domain.stream_policy import StreamPolicy, stream_for
from tidegate.domain.subscriptions import Stream
from tidegate.domain.tokens import STREAM_SCOPE
from tidegate.domain.topics import check_filter

Body = Mapping[str, object]

#: Longest cursor that is kept, characters; the contract's are about 70.
_MAX_CURSOR = 2048


@dataclass(frozen=True, slots=True)
class TokenClass:
    """Session tokens the API has to answer alike: one answer stands for all of them.

    Tokens of one class speak for the same principal (share version included), about the same datasource and intent.
    """

    dashboard_id: str
    datasource_id: str
    principal: Principal
    intent_hash: str

    @classmethod
    def of(cls, claim: Claim) -> TokenClass:
        """The class of the token a claim was made from."""
        return cls(claim.dashboard_id, claim.datasource_id, claim.principal, claim.intent_hash)


@dataclass(frozen=True, slots=True)
class Introspected:
    """A token the API answered for.

    Attributes:
        intent: what the datasource connects to, secrets included: never logged, never sent to a client.
    """

    intent: Mapping[str, object] = field(repr=False)

    def stream(self, policy: StreamPolicy, wanted_at: int) -> Stream:
        """The stream the intent is delivered from.

        Raises:
            PolicyBlocked: the operator's or the broker profile's policy forbids it, or nothing here serves it.
            CouldNotCheck: the intent is malformed.
        """
        intent, broker = _own_form(self.intent)
        if intent.get("protocol") in ("sse", "websocket"):
            # The API's answer has the credential in it, and a stream's intent is stored.
            raise PolicyBlocked("Realtime protocol is not supported beside another API")
        return stream_for(intent, broker, policy, wanted_at)


@dataclass(frozen=True, slots=True)
class ShareRevoked:
    """Every share version of the dashboard below this one is revoked.

    `revoked_at_ms`: epoch milliseconds, for metrics; 0 when the API does not say it in a way we can read.
    """

    dashboard_id: str
    share_version: int
    revoked_at_ms: int = 0


@dataclass(frozen=True, slots=True)
class ExternalPage:
    """One read of the external feed.

    Attributes:
        events: in the feed's order.
        next_cursor: opaque; where to go on.
        expired: the cursor given was of no use, so events may have been missed.
    """

    events: tuple[ShareRevoked, ...]
    next_cursor: str
    expired: bool


def read_introspection(body: Body) -> Introspected:
    """A positive answer of `datasource-introspect`. Raises `Denied` when it is for another scope."""
    if _text(body, "scope") != STREAM_SCOPE:
        raise Denied("Datasource token scope mismatch")
    intent = body.get("intent")
    if not isinstance(intent, Mapping):
        raise _malformed("intent")
    return Introspected(intent)


def read_page(body: Body) -> ExternalPage:
    """An answer of `revoked-tokens`."""
    events, expired = body.get("events"), body.get("cursorExpired", False)
    if not isinstance(events, list):
        raise _malformed("events")
    if not isinstance(expired, bool):
        raise _malformed("cursorExpired")
    cursor = _text(body, "nextCursor")
    if len(cursor) > _MAX_CURSOR:
        raise _malformed("nextCursor")
    return ExternalPage(tuple(_event(one) for one in events), cursor, expired)


def read_rate(body: Body) -> RateDecision:
    """An answer of `rate-limit/consume`. Raises `CouldNotCheck` when the API could not count and says no."""
    allowed, reason = body.get("allowed"), body.get("reason")
    if not isinstance(allowed, bool):
        raise _malformed("allowed")
    if allowed:
        return RateDecision(True, max(0, _integer(body, "remaining")), 0, counted=reason != "backend_fail_open")
    if reason == "backend_fail_closed":
        raise CouldNotCheck("The API could not count", code="api_unavailable")
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


def _own_form(answer: Mapping[str, object]) -> tuple[Intent, BrokerProfile | None]:
    """The intent as our own are, without secrets, so that its hash tells none; and the broker profile it implies."""
    protocol = _text(answer, "protocol")
    if protocol != "mqtt" or answer.get("transport") != Transport.IOT_CORE.value:
        # The contract has no `transport`: where it is not stated, the broker is an external one.
        return {"protocol": protocol}, None
    topic, profile_id = _text(answer, "topic"), _text(answer, "brokerProfileId")
    try:
        check_filter(topic)
    except InvalidInput as error:
        raise PolicyBlocked("MQTT topic is not valid") from error
    allowlist = answer.get("topicAllowlist") or []
    if not isinstance(allowlist, list) or not all(isinstance(one, str) for one in allowlist):
        raise _malformed("topicAllowlist")
    intent = {
        "protocol": protocol,
        "brokerProfileId": profile_id,
        "topic": topic,
        "parser": "text" if answer.get("parser") == "text" else "json",
        "transport": Transport.IOT_CORE.value,
    }
    return intent, BrokerProfile(profile_id, "", Transport.IOT_CORE, topic_allowlist=tuple(allowlist))


def _text(body: Body, name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise _malformed(name)
    return value


def _integer(body: Body, name: str) -> int:
    value = body.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _malformed(name)
    return value


def _malformed(name: str) -> CouldNotCheck:
    return CouldNotCheck(f"The API's answer is malformed: {name}", code="api_malformed")
