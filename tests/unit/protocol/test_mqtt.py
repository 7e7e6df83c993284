"""Packets of our client: read by the fake broker's codec, and against the standard's own examples."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.fake_upstreams import mqtt_packets as broker
from tidegate.protocol import mqtt
from tidegate.protocol.mqtt import V5, V311, Malformed, Publish, Welcome

texts = st.text(st.characters(exclude_characters="\0+#", codec="utf-8"), min_size=1, max_size=300)
versions = st.sampled_from((V311, V5))


def body(packet: bytes) -> bytes:
    """A packet without its first byte and its length."""
    reader = mqtt.Reader(packet[1:])
    size, rest = reader.variable(), reader.rest()
    assert len(rest) == size
    return rest


@given(versions, texts, st.integers(0, 65_535), st.none() | texts, st.none() | texts)
def test_a_broker_reads_who_connects(
    version: int, client_id: str, keepalive_s: int, username: str | None, password: str | None
) -> None:
    password = None if username is None else password
    sent = mqtt.connect(version, client_id, keepalive_s, username, password)
    read = broker.read_connect(body(sent))
    assert (read.level, read.client_id, read.clean, read.keep_alive) == (version, client_id, True, keepalive_s)
    assert (read.username, read.password) == (username, None if password is None else password.encode())


@given(versions, st.integers(1, 65_535), texts, st.integers(0, 1), st.integers(0, 268_435_455))
def test_a_broker_reads_what_is_subscribed(version: int, packet_id: int, topic: str, qos: int, identifier: int) -> None:
    read = broker.read_subscribe(body(mqtt.subscribe(version, packet_id, topic, qos, identifier)), version)
    named = identifier if version == V5 else 0
    assert read == (packet_id, [broker.Subscription(topic, qos, named, retained=int(version == V5))])
    sent = mqtt.unsubscribe(version, packet_id, topic)
    assert broker.read_unsubscribe(body(sent), version) == (packet_id, [topic])


@given(versions, texts, st.binary(), st.booleans(), st.lists(st.integers(1, 268_435_455), max_size=3))
def test_what_a_broker_publishes_is_read(
    version: int, topic: str, payload: bytes, retain: bool, identifiers: list[int]
) -> None:
    for qos, packet_id in ((0, 0), (1, 77)):
        named = tuple(identifiers) if version == V5 else ()
        sent = broker.publish(broker.Message(topic, payload, qos, retain, packet_id, named), version)
        assert mqtt.read_publish(version, sent[0] & 0x0F, body(sent)) == Publish(
            topic, payload, qos, retain, packet_id, named
        )


@pytest.mark.parametrize(
    ("offered", "answer", "welcome"),
    [
        (V311, b"\0\0", Welcome(V311, 0)),
        (V311, b"\0\5", Welcome(V311, 5)),
        (V5, b"\0\0\0", Welcome(V5, 0, identifiers=True)),
        (V5, b"\0\x87\0", Welcome(V5, 0x87, identifiers=True)),
        (V5, b"\0\0", Welcome(V311, 0)),  # it knows only 3.1.1, and does not look at what it was offered
        (V5, b"\0\1", Welcome(V311, 1)),
        (V5, b"\0\0\5\x13\0\x1e\x29\0", Welcome(V5, 0, keepalive_s=30)),
        # A reason and a pair of texts are read over; so is the largest packet.
        (V5, b"\0\0\x12\x1f\0\1r\x26\0\1k\0\1v\x27\0\1\0\0\x29\1", Welcome(V5, 0, identifiers=True)),
    ],
)
def test_how_a_broker_welcomes(offered: int, answer: bytes, welcome: Welcome) -> None:
    assert mqtt.read_connack(offered, answer) == welcome


def test_acknowledgements() -> None:
    assert mqtt.read_acknowledgement(V311, b"\0\7\x80") == (7, 0x80)
    assert mqtt.read_acknowledgement(V5, b"\0\7\0\1") == (7, 1)
    assert mqtt.read_acknowledgement(V311, b"\0\7") == (7, 0)  # UNSUBACK of 3.1.1


@pytest.mark.parametrize(
    "data",
    [
        b"\0\0",  # no topic, or an alias that was not allowed
        b"\0\2a",  # ends early
        b"\0\1\xff\0",  # not UTF-8
        b"\0\1a\2\x7f\0",  # a property that does not exist
        b"\0\1a\xff\xff\xff\xff\1",  # a length of five bytes
    ],
)
def test_messages_that_the_standard_does_not_allow(data: bytes) -> None:
    with pytest.raises(Malformed):
        mqtt.read_publish(V5, 0, data)


@given(versions, st.integers(0, 15), st.binary(max_size=80))
def test_bytes_of_anybody_raise_nothing_else(version: int, flags: int, data: bytes) -> None:
    for read in (mqtt.read_connack, mqtt.read_acknowledgement):
        with suppress(Malformed):
            read(version, data)
    with suppress(Malformed):
        mqtt.read_publish(version, flags, data)


@pytest.mark.parametrize("topic", ["x" * 65_536, "\ud800"])
def test_a_text_that_mqtt_cannot_carry_is_not_sent(topic: str) -> None:
    with pytest.raises(ValueError):
        mqtt.subscribe(V5, 1, topic, 0, 1)
