"""The MQTT codec: bytes as the standard has them, and nothing but `Malformed` for what it does not allow."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.fake_upstreams import mqtt_packets as packets
from fixtures.fake_upstreams.mqtt_packets import Malformed, Message, Subscription, Type

CONNECT = b"\x00\x04MQTT\x04"


def test_connect_with_everything() -> None:
    body = CONNECT + b"\xee\x00\x0a" + b"\x00\x02id" + b"\x00\x01w\x00\x04gone" + b"\x00\x01u\x00\x02\xff\x00"
    connect = packets.read_connect(body)
    assert (connect.client_id, connect.clean, connect.keep_alive) == ("id", True, 10)
    assert connect.will == Message("w", b"gone", qos=1, retain=True)
    assert (connect.username, connect.password) == ("u", b"\xff\x00")


def test_connect_of_another_level_is_read_as_far_as_its_level() -> None:
    assert packets.read_connect(b"\x00\x04MQTT\x06anything").level == 6


def test_version_5_as_the_standard_s_tables_have_it() -> None:
    connect = packets.read_connect(b"\x00\x04MQTT\x05\xc2\x00\x0a\x00\x00\x02id\x00\x01u\x00\x01p")
    assert (connect.level, connect.client_id, connect.username, connect.password) == (5, "id", "u", b"p")
    assert packets.read_subscribe(b"\x00\x07\x03\x0b\x80\x01\x00\x01a\x11", packets.V5) == (
        7,
        [Subscription("a", 1, identifier=128, retained=1)],
    )
    assert packets.read_unsubscribe(b"\x00\x08\x00\x00\x01b", packets.V5) == (8, ["b"])
    assert packets.connack(packets.BAD_PASSWORD, packets.V5) == b"\x20\x03\x00\x86\x00"
    assert packets.publish(Message("a", b"1", identifiers=(1, 128)), packets.V5) == (
        b"\x30\x0a\x00\x01a\x05\x0b\x01\x0b\x80\x011"
    )


@pytest.mark.parametrize(
    "body",
    [
        b"\x00\x06MQIsdp\x03\x02\x00\x00\x00\x00",
        CONNECT + b"\x03\x00\x00\x00\x00",  # reserved flag
        CONNECT + b"\x42\x00\x00\x00\x00\x00\x00",  # password without user name
        CONNECT + b"\x22\x00\x00\x00\x00",  # will flags without a will
        CONNECT + b"\x02\x00\x00\x00\x00more",
        CONNECT + b"\x02\x00\x00\x00\x05id",
        CONNECT + b"\x02\x00\x00\x00\x01\x00",  # U+0000
        CONNECT + b"\x02\x00\x00\x00\x01\xff",  # not UTF-8
    ],
)
def test_connects_the_standard_does_not_allow(body: bytes) -> None:
    with pytest.raises(Malformed):
        packets.read_connect(body)


@pytest.mark.parametrize("first", [0x00, 0xF0, 0x50, 0x80, 0x81, 0xC1, 0x11])
def test_types_and_flags_the_standard_does_not_allow(first: int) -> None:
    with pytest.raises(Malformed):
        packets.packet_type(first)


def test_subscribe_and_unsubscribe() -> None:
    assert packets.read_subscribe(b"\x00\x07\x00\x03a/#\x01\x00\x01b\x00") == (
        7,
        [Subscription("a/#", 1), Subscription("b", 0)],
    )
    assert packets.read_unsubscribe(b"\x00\x08\x00\x01b") == (8, ["b"])
    for body in (b"\x00\x07", b"\x00\x00\x00\x01a\x00", b"\x00\x07\x00\x01a\x03"):
        with pytest.raises(Malformed):
            packets.read_subscribe(body)


@pytest.mark.parametrize(
    ("size", "header"),
    [(0, b"\x00"), (127, b"\x7f"), (128, b"\x80\x01"), (16_383, b"\xff\x7f"), (16_384, b"\x80\x80\x01")],
)
def test_remaining_length_as_the_standard_s_table_has_it(size: int, header: bytes) -> None:
    assert packets.packet(Type.PUBLISH, bytes(size))[1 : 1 + len(header)] == header


@given(st.text(st.characters(exclude_characters="\0+#", codec="utf-8"), min_size=1), st.binary(), st.booleans())
def test_what_is_published_is_read_back(topic: str, payload: bytes, acknowledged: bool) -> None:
    message = Message(topic, payload, *((1, True, 77) if acknowledged else (0, False, 0)))
    whole = packets.publish(message)
    body = packets.acknowledge(Type.PUBACK, 1)  # two bytes of header, as below 128 bytes
    assert packets.read_puback(body[2:]) == 1
    start = next(at for at in range(1, 5) if whole[at] < 0x80) + 1
    assert packets.read_publish(whole[0], whole[start:]) == message


@given(st.integers(0, 255), st.binary(max_size=60))
def test_bytes_of_anybody_raise_nothing_else(first: int, body: bytes) -> None:
    readers = (packets.read_connect, packets.read_puback, packets.read_subscribe, packets.read_unsubscribe)
    with suppress(Malformed):
        packets.packet_type(first)
    with suppress(Malformed):
        packets.read_publish(first, body)
    for read in readers:
        for data in (body, CONNECT + body):
            with suppress(Malformed):
                read(data)


@pytest.mark.parametrize(
    ("topic_filter", "valid"),
    [
        ("#", True),
        ("+", True),
        ("a/+/b", True),
        ("a/#", True),
        ("/", True),
        ("+/+", True),
        ("", False),
        ("a#", False),
        ("a/#/b", False),
        ("a+", False),
        ("a/+b", False),
    ],
)
def test_filters(topic_filter: str, valid: bool) -> None:
    assert packets.filter_valid(topic_filter) is valid


@pytest.mark.parametrize(
    ("topic_filter", "topic", "expected"),
    [
        ("sport/tennis/player1/#", "sport/tennis/player1", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
        ("sport/#", "sport", True),
        ("sport/tennis/+", "sport/tennis/player1", True),
        ("sport/tennis/+", "sport/tennis/player1/ranking", False),
        ("sport/+", "sport", False),
        ("sport/+", "sport/", True),
        ("+/+", "/finance", True),
        ("/+", "/finance", True),
        ("+", "/finance", False),
        ("#", "a/b", True),
        ("#", "$SYS/x", False),
        ("+/x", "$SYS/x", False),
        ("$SYS/#", "$SYS/x", True),
        ("a/b/#", "a", False),
        ("A", "a", False),
    ],
)
def test_matching_as_in_the_standard_s_examples(topic_filter: str, topic: str, expected: bool) -> None:
    assert packets.matches(topic_filter, topic) is expected
