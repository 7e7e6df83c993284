"""Whether a datasource could use a topic filter, for who is writing it.

Invariant of this file: a topic has no problem exactly when the datasource could be saved with it and its lists admit a
subscribe: `check_filter` and `topic_admission` decide both there and here. The texts are longer here, because authors
may know what is allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tidegate.domain import rights
from tidegate.domain.profiles import BrokerProfile, Transport
from tidegate.domain.stream_policy import StreamPolicy, TopicAdmission, iot_topics, topic_admission
from tidegate.domain.switches import disabled_text
from tidegate.domain.users import User
from tidegate.errors import Denied, InvalidInput, NotFound
from tidegate.ports.profiles import ProfileStore
from tidegate.protocol.topics import check_filter, has_wildcard
from tidegate.usecases.control_plane.author_profiles import Opened

#: Filters that a text names. A list of a profile has up to 100.
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class TopicCheck:
    """What is known of a topic filter at a broker.

    Attributes:
        valid: whether it is a topic filter of this broker.
        problem: why a datasource with it would show nothing, for its author; None when nothing stands against it.
        wildcard: whether it may match several topics.
        covered_by: the filter of the broker profile that covers it; `#` when the profile allows every topic; None when
            none does.
        fed_by: the topic filter of the IoT rule that feeds it; None where there is none, and for external brokers.
    """

    valid: bool
    problem: str | None
    wildcard: bool = False
    covered_by: str | None = None
    fed_by: str | None = None


class CheckTopic:
    """Checks topic filters while they are typed."""

    def __init__(self, *, editable: Opened, profiles: ProfileStore, policy: StreamPolicy) -> None:
        self._editable = editable
        self._profiles = profiles
        self._policy = policy

    def __call__(self, user: User, dashboard_id: str | None, broker_id: str, topic: str) -> TopicCheck:
        """
        Args:
            dashboard_id: the dashboard that is edited. None asks for no dashboard, as editors and admins may.
            topic: as it was typed; spaces around it do not count, as in a datasource.

        Raises:
            Denied: the user may not edit the dashboard, or is no author without one, or may not use the profile.
            NotFound: no such dashboard is known to the user, or no such profile to an author who may use any.
        """
        if dashboard_id is not None:
            self._editable(user, dashboard_id)
        else:
            rights.check_author(user)
        broker = self._profiles.broker(broker_id)
        if broker is None and rights.trusted_author(user):
            raise NotFound("Broker profile not found")
        if broker is None or not rights.may_use(user, broker):
            raise Denied("You may use broker profiles that allow public use")
        return check_topic(broker, topic.strip(), self._policy)


def check_topic(broker: BrokerProfile, topic: str, policy: StreamPolicy) -> TopicCheck:
    """What `CheckTopic` answers, without asking who may know it."""
    try:
        check_filter(topic, broker.transport.topic_limits)
    except InvalidInput as error:
        return TopicCheck(False, error.message)
    admission = topic_admission(broker, topic, policy)
    return TopicCheck(
        valid=True,
        problem=disabled_text("mqtt") if "mqtt" not in policy.enabled else _problem(broker, admission, policy),
        wildcard=has_wildcard(topic),
        covered_by=admission.by_broker,
        fed_by=admission.by_operator if broker.transport is Transport.IOT_CORE else None,
    )


def _problem(broker: BrokerProfile, admission: TopicAdmission, policy: StreamPolicy) -> str | None:
    if admission.refusal is None:
        return None
    if admission.by_broker is None:
        return f"The broker profile does not allow this topic. It allows {_list(broker.topic_allowlist)}."
    if admission.by_operator is not None:
        return "In production the broker profile needs a list of allowed topics. An administrator adds them."
    if broker.transport is Transport.EXTERNAL:
        return f"REALTIME_MQTT_ALLOWED_TOPICS does not allow this topic. It allows {_list(policy.allowed_topics)}."
    rules = iot_topics(policy.allowed_topics, policy.iot_topic_prefix)
    return f"No rule of IoT Core brings this topic in. Rules bring in {_list(rules)}."


def _list(filters: Sequence[str]) -> str:
    shown = ", ".join(filters[:_SHOWN])
    further = len(filters) - _SHOWN
    return f"{shown} and {further} more" if further > 0 else shown or "none"
