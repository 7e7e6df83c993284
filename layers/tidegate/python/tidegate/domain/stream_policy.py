"""Which streams the operator allows: protocols switched on, allowed topics, public use of profiles.

Invariant of this file: a topic filter is admitted only when a pattern of the allowlist covers all of it. A stream that
no IoT rule would feed is refused, because otherwise it would just stay silent.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from tidegate.domain.destinations import serves
from tidegate.domain.egress import EgressPolicy, check_url
from tidegate.domain.intents import Intent, connection_of, stream_key
from tidegate.domain.profiles import BrokerProfile, CredentialProfile, Transport
from tidegate.domain.subscriptions import Stream
from tidegate.domain.switches import disabled_text
from tidegate.errors import Denied, PolicyBlocked
from tidegate.protocol.topics import first_covering

if TYPE_CHECKING:
    from tidegate.domain.history import History


#: Stands for a list that is empty, and so admits every topic.
ANY_TOPIC = "#"


class StreamPolicy(NamedTuple):
    """The operator's settings that decide about streams.

    Attributes:
        enabled: protocols switched on, of `sse`, `websocket`, `mqtt`.
        allowed_topics: `REALTIME_MQTT_ALLOWED_TOPICS`.
        iot_topic_prefix: `REALTIME_IOT_TOPIC_PREFIX`; each allowed topic below it is also an IoT rule.
        egress: where upstreams may be.
    """

    enabled: frozenset[str]
    allowed_topics: tuple[str, ...]
    iot_topic_prefix: str
    egress: EgressPolicy


def iot_topics(allowed_topics: Iterable[str], prefix: str) -> tuple[str, ...]:
    """The allowed topics that are read from IoT Core: those below the stage's prefix. There is one IoT rule for each.

    Stages of one account and region have different prefixes, so no message reaches two of them. The other allowed
    topics are for external brokers only.
    """
    return tuple(topic for topic in allowed_topics if topic.startswith(f"{prefix}/"))


def check_public_use(broker: BrokerProfile | None, credential: CredentialProfile | None, *, member: bool) -> None:
    """Refuse everybody but members a profile that is not for public use.

    Args:
        broker, credential: the profiles that the datasource uses.
        member: the answer of `domain.access.is_member` for the viewer. A login alone makes nobody a member.

    Raises:
        Denied: `public_use_denied`.
    """
    if member:
        return
    if broker is not None and not broker.allow_public_use:
        raise Denied("Broker profile does not allow public usage", code="public_use_denied")
    if credential is not None and not credential.allow_public_use:
        raise Denied("Credential profile does not allow public usage", code="public_use_denied")


def check_destination(intent: Intent, credential: CredentialProfile | None) -> None:
    """Refuse everybody a stream whose credential may not be sent to its URL. A broker's credential goes to the broker.

    The message is for viewers, so it names neither profile nor URL.

    Args:
        intent: canonical intent.
        credential: the profile that it names, as it is now.

    Raises:
        Denied: `destination_denied`.
    """
    protocol = str(intent.get("protocol"))
    if credential is None or protocol not in ("sse", "websocket"):
        return
    if not serves(credential, str(intent["url"]), protocol):
        raise Denied("Credential profile does not allow this URL", code="destination_denied")


def stream_for(intent: Intent, broker: BrokerProfile | None, policy: StreamPolicy, last_requested_at: int) -> Stream:
    """The stream an intent is delivered from.

    Args:
        intent: canonical intent.
        broker: the broker profile of an MQTT intent.
        policy: the operator's.
        last_requested_at: epoch seconds.

    Raises:
        PolicyBlocked: the protocol is off, or no allowlist admits the topic, or the URL may not be connected to.
    """
    protocol = str(intent["protocol"])
    if protocol not in policy.enabled:
        raise PolicyBlocked(disabled_text(protocol))
    if protocol in ("sse", "websocket"):
        check_url(str(intent["url"]), protocol, policy.egress)
        return _relayed(intent, last_requested_at)
    if broker is None:
        raise PolicyBlocked("Realtime protocol is not supported by this deployment")
    topic_filter = str(intent["topic"])
    admission = topic_admission(broker, topic_filter, policy)
    if admission.refusal is not None:
        raise PolicyBlocked(admission.refusal)
    if broker.transport is Transport.EXTERNAL:
        check_url(str(broker.broker_url), protocol, policy.egress)
        return _relayed(intent, last_requested_at)
    return Stream(
        stream_key=stream_key(intent),
        protocol=protocol,
        parser=str(intent["parser"]),
        allowed_topic=admission.by_operator,
        topic_filter=topic_filter,
        last_requested_at=last_requested_at,
        history=_history(intent, last_requested_at),
    )


class TopicAdmission(NamedTuple):
    """What admits a topic filter, and what does not.

    Attributes:
        by_broker: the filter of the broker profile's allowlist that covers it; None when none does, `#` when the list
            is empty.
        by_operator: the allowed topic that covers it; None when none does. For `iot-core` it is the one whose IoT rule
            feeds it. For an external broker it is `#` when the operator allows every topic.
        refusal: what viewers are told; None when the filter is admitted.
    """

    by_broker: str | None
    by_operator: str | None
    refusal: str | None


def topic_admission(broker: BrokerProfile, topic_filter: str, policy: StreamPolicy) -> TopicAdmission:
    """Whether the lists of the broker profile and of the operator admit a topic filter.

    `topic_filter`: well formed.
    """
    own = broker.topic_allowlist
    by_broker = first_covering(own, topic_filter) if own else ANY_TOPIC
    if broker.transport is Transport.IOT_CORE:
        by_operator = first_covering(iot_topics(policy.allowed_topics, policy.iot_topic_prefix), topic_filter)
    else:
        by_operator = first_covering(policy.allowed_topics, topic_filter) if policy.allowed_topics else ANY_TOPIC
    refusal = None
    if by_broker is None:
        refusal = "MQTT topic is blocked by broker policy"
    elif by_operator is None:
        refusal = "MQTT topic is blocked by gateway policy"
    elif broker.transport is Transport.EXTERNAL and policy.egress.production and not policy.allowed_topics and not own:
        refusal = "MQTT topic allowlist is required in production"
    return TopicAdmission(by_broker, by_operator, refusal)


def _history(intent: Intent, now: int) -> History | None:
    if "historySeconds" not in intent:
        return None
    from tidegate.domain.history import ASKED_S, of_intent  # here, because few ask for it and it slows cold starts

    asked = of_intent(intent)
    return None if asked is None else replace(asked, until=now + ASKED_S, since=now)


def _relayed(intent: Intent, last_requested_at: int) -> Stream:
    """A stream of the relay, which connects to what the intent says."""
    return Stream(
        stream_key=stream_key(intent),
        protocol=str(intent["protocol"]),
        parser=str(intent["parser"]),
        allowed_topic=None,
        topic_filter=None,
        last_requested_at=last_requested_at,
        intent=connection_of(intent),
        history=_history(intent, last_requested_at),
    )
