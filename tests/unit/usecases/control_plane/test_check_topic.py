"""What an author is told of a topic agrees with what a subscribe would be told."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.domain.egress import EgressPolicy
from tidegate.domain.intents import build_intent
from tidegate.domain.profiles import BrokerProfile, Transport
from tidegate.domain.stream_policy import StreamPolicy, stream_for
from tidegate.errors import InvalidInput, PolicyBlocked
from tidegate.protocol.topics import covers
from tidegate.usecases.control_plane.check_topic import TopicCheck, check_topic

POLICY = StreamPolicy(frozenset({"mqtt"}), ("stage/#", "site/+"), "stage", EgressPolicy(("broker.example",), (1883,)))
CORE = BrokerProfile("b", "b", Transport.IOT_CORE, topic_allowlist=("stage/plant/#", "stage/+/t"))
FAR = BrokerProfile("b", "b", Transport.EXTERNAL, "mqtt://broker.example", topic_allowlist=("site/#",))


@pytest.mark.parametrize(
    ("broker", "topic", "expected"),
    [
        (CORE, "stage/plant/a", TopicCheck(True, None, False, "stage/plant/#", "stage/#")),
        (CORE, "stage/+/t", TopicCheck(True, None, True, "stage/+/t", "stage/#")),
        (replace(CORE, topic_allowlist=()), "stage/x", TopicCheck(True, None, False, "#", "stage/#")),
        (FAR, "site/a", TopicCheck(True, None, False, "site/#", None)),
    ],
)
def test_an_admitted_topic(broker: BrokerProfile, topic: str, expected: TopicCheck) -> None:
    assert check_topic(broker, topic, POLICY) == expected


@pytest.mark.parametrize(
    ("broker", "topic", "valid", "allowed"),
    [
        (CORE, "", False, "must not be empty"),
        (CORE, "a/#/b", False, "'#' must stand alone"),
        (CORE, "a" * 257, False, "256 bytes"),
        (CORE, "stage/other/x", True, "stage/plant/#, stage/+/t"),
        (replace(CORE, topic_allowlist=()), "site/a", True, "bring in stage/#"),
        (FAR, "other", True, "It allows site/#"),
        (FAR, "site/a/b", True, "REALTIME_MQTT_ALLOWED_TOPICS does not allow this topic. It allows stage/#, site/+"),
    ],
)
def test_a_problem_names_what_is_allowed(broker: BrokerProfile, topic: str, valid: bool, allowed: str) -> None:
    found = check_topic(broker, topic, POLICY)
    assert found.valid is valid and found.problem is not None and allowed in found.problem


def test_a_long_list_is_cut() -> None:
    broker = replace(CORE, topic_allowlist=tuple(f"stage/{number}" for number in range(7)))
    assert str(check_topic(broker, "stage/x", POLICY).problem).endswith("stage/4 and 2 more.")


def test_a_protocol_that_is_off() -> None:
    problem = check_topic(CORE, "stage/plant/a", POLICY._replace(enabled=frozenset())).problem
    assert problem is not None and "disabled" in problem


_LEVEL = st.sampled_from(["stage", "site", "plant", "a", "+", "#", "$SYS", ""])
_FILTER = st.lists(_LEVEL, min_size=1, max_size=4).map("/".join)
_LISTS = st.lists(_FILTER.filter(lambda text: "#" not in text[:-1]), max_size=2).map(tuple)


@given(_FILTER, _LISTS, _LISTS, st.sampled_from([CORE, FAR]), st.booleans())
def test_it_agrees_with_saving_and_subscribing(
    topic: str, own: tuple[str, ...], operators: tuple[str, ...], broker: BrokerProfile, production: bool
) -> None:
    broker = replace(broker, topic_allowlist=own)
    policy = POLICY._replace(allowed_topics=operators, egress=POLICY.egress._replace(production=production))
    found = check_topic(broker, topic.strip(), policy)
    datasource = {"id": "s", "type": "mqtt", "settings": {"brokerProfileId": "b", "topic": topic}}
    try:
        intent = build_intent("d", datasource, broker=broker)
    except InvalidInput:
        assert not found.valid and found.problem is not None
        return
    assert found.valid
    try:
        stream = stream_for(intent, broker, policy, 1)
    except PolicyBlocked:
        assert found.problem is not None
        return
    assert found.problem is None
    assert found.covered_by is not None and (not own or covers(found.covered_by, topic))
    assert found.fed_by == stream.allowed_topic and found.wildcard is stream.by_topic
