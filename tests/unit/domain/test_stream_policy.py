"""Which streams anybody may have: external brokers behind the allowlists, in development and in production."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tidegate.domain.egress import EgressPolicy
from tidegate.domain.intents import build_intent
from tidegate.domain.partitions import partition_of
from tidegate.domain.profiles import BrokerProfile, Transport
from tidegate.domain.stream_policy import StreamPolicy, stream_for
from tidegate.domain.subscriptions import Stream
from tidegate.errors import PolicyBlocked

EGRESS = EgressPolicy(("broker.example",), (1883, 8883))
POLICY = StreamPolicy(frozenset({"mqtt"}), (), "stage", EGRESS)
BROKER = BrokerProfile("b", "b", Transport.EXTERNAL, "mqtts://broker.example", topic_allowlist=("site/#",))


def stream(topic: str, broker: BrokerProfile = BROKER, policy: StreamPolicy = POLICY) -> Stream:
    datasource = {"id": "s", "type": "mqtt", "settings": {"brokerProfileId": "b", "topic": topic}}
    return stream_for(build_intent("d", datasource, broker=broker), broker, policy, 1)


def test_an_external_brokers_stream_is_the_relays() -> None:
    made = stream("site/+/t")
    assert made.relayed and made.allowed_topic is None and made.intent is not None
    assert made.intent["topic"] == "site/+/t" and "dashboardId" not in made.intent


@pytest.mark.parametrize(
    ("topic", "brokers", "gateways", "refusal"),
    [
        ("site/a", ("site/#",), (), None),
        ("site/a", (), ("site/+",), None),
        ("site/a", ("site/#",), ("site/+",), None),
        ("other", ("site/#",), (), "broker policy"),
        ("#", ("site/#",), (), "broker policy"),
        ("site/a/b", ("site/#",), ("site/+",), "gateway policy"),
        ("site/a", (), (), "allowlist is required"),
    ],
)
def test_the_brokers_allowlist_then_the_gateways(
    topic: str, brokers: tuple[str, ...], gateways: tuple[str, ...], refusal: str | None
) -> None:
    broker, policy = replace(BROKER, topic_allowlist=brokers), POLICY._replace(allowed_topics=gateways)
    if refusal is None:
        stream(topic, broker, policy)
        return
    with pytest.raises(PolicyBlocked, match=refusal):
        stream(topic, broker, policy)


@pytest.mark.parametrize(
    ("topic", "allowed_topic"),
    [("stage/thing/t", "stage/#"), ("stage/+/t", "stage/#"), ("site/t", None), ("other/thing/t", None), ("#", None)],
)
def test_iot_core_is_read_below_the_stages_prefix_only(topic: str, allowed_topic: str | None) -> None:
    """Other stages of the account publish there too. The other allowed topics are for external brokers."""
    core = BrokerProfile("b", "b", Transport.IOT_CORE)
    policy = POLICY._replace(allowed_topics=("site/#", "stage/#", "other/#"))
    if allowed_topic is not None:
        assert stream(topic, core, policy).allowed_topic == allowed_topic
        return
    with pytest.raises(PolicyBlocked, match="gateway policy"):
        stream(topic, core, policy)


def test_outside_production_no_allowlist_is_needed() -> None:
    stream("a", replace(BROKER, topic_allowlist=()), POLICY._replace(egress=EGRESS._replace(production=False)))


@pytest.mark.parametrize("url", ["mqtt://other.example", "mqtts://broker.example:99", "mqtt://10.0.0.1", "ftp://x"])
def test_a_broker_that_may_not_be_connected_to(url: str) -> None:
    with pytest.raises(PolicyBlocked):
        stream("site/a", replace(BROKER, broker_url=url))


def test_the_toggle() -> None:
    with pytest.raises(PolicyBlocked, match="MQTT protocol is disabled"):
        stream("site/a", policy=POLICY._replace(enabled=frozenset({"sse"})))


def test_all_streams_of_a_broker_are_of_one_partition() -> None:
    assert len({partition_of(stream(f"site/{number}")) for number in range(50)}) == 1
    others = [replace(BROKER, profile_id=f"b{number}") for number in range(50)]
    assert len({partition_of(stream("site/a", topic)) for topic in others}) > 1
