"""The MQTT broker, used with an independent client."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiomqtt
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from tests.fake_upstreams.tools import CREDENTIALS, WAIT_S, RunningUpstreams, run

TOPIC = "site/north/temperature"
USER = (CREDENTIALS.username, CREDENTIALS.secret)


async def numbers(client: aiomqtt.Client, count: int) -> list[int]:
    """The numbers of the next events, which must be the sequence's own."""
    found: list[int] = []
    while len(found) < count:
        found.append(json.loads(await payload(client))["n"])
    return found


async def payload(client: aiomqtt.Client) -> bytes:
    async with asyncio.timeout(WAIT_S):
        message = await anext(client.messages)
    assert isinstance(message.payload, bytes)
    return message.payload


def number(code: int | ReasonCode | None) -> int | None:
    """A reason code as the client counts them."""
    return code.value if isinstance(code, ReasonCode) else code


def test_the_sequence_is_published_whole_and_in_order(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with running.client(identifier="reader") as client:
            await client.subscribe(TOPIC, qos=1)
            first = json.loads(await payload(client))["n"]
            assert await numbers(client, 20) == list(range(first + 1, first + 21))
            report = await running.report("mqtt")
        assert report["places"][TOPIC]["now"] == 1 and report["places"][TOPIC]["messages"] >= 21
        assert [client["id"] for client in report["open"]] == ["reader"]

    run(tmp_path, test)


def test_the_first_event_is_the_last_value_and_marked_as_retained(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with running.client() as client:
            await client.subscribe(TOPIC)
            await payload(client)  # now something is retained
            async with running.client() as late:
                await late.subscribe(TOPIC)
                message, following = await anext(late.messages), await anext(late.messages)
                assert message.retain and not following.retain

    run(tmp_path, test)


def test_wildcards_reach_what_they_match_and_nothing_protected(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with running.client() as anonymous, running.client(*USER) as named:
            for client, wanted in (
                (anonymous, {TOPIC, "site/south/temperature"}),
                (named, {TOPIC, "site/south/temperature", "protected/temperature"}),
            ):
                await client.subscribe("#")
                seen: set[str] = set()
                for _ in range(20):
                    seen.add(str((await anext(client.messages)).topic))
                assert seen == wanted
            async with running.client() as narrow:
                await narrow.subscribe("site/+/temperature")
                assert {str((await anext(narrow.messages)).topic) for _ in range(8)} == {
                    TOPIC,
                    "site/south/temperature",
                }

    run(tmp_path, test)


def test_messages_of_clients_are_passed_on_and_retained(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with running.client() as sender, running.client() as reader:
            await reader.subscribe("mine/#", qos=1)
            for qos in (0, 1):
                await sender.publish(f"mine/{qos}", b"\xff\x00", qos=qos, retain=qos == 1)
                message = await anext(reader.messages)
                assert (str(message.topic), message.payload, message.qos) == (f"mine/{qos}", b"\xff\x00", qos)
            async with running.client() as late:
                await late.subscribe("mine/#", qos=0)
                message = await anext(late.messages)
                assert (str(message.topic), message.qos, message.retain) == ("mine/1", 0, True)
            await sender.publish("mine/1", b"", qos=1, retain=True)  # forgets it
            async with running.client() as later:
                await later.subscribe("mine/#")
                await sender.publish("mine/2", b"next")
                assert await payload(later) == b"next"

    run(tmp_path, test)


def test_unsubscribing_and_overlapping_filters(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with running.client() as client:
            await client.subscribe([("mine/#", 0), ("mine/a", 1)])
            await client.publish("mine/a", b"1", qos=1)
            assert (await anext(client.messages)).qos == 1
            await client.unsubscribe("mine/#")
            await client.publish("mine/b", b"2", qos=1)
            await client.publish("mine/a", b"3", qos=1)
            assert await payload(client) == b"3"  # once for two filters, and nothing for the one given up
            places = (await running.report("mqtt"))["places"]
            assert (places["mine/#"]["now"], places["mine/#"]["messages"]) == (0, 1)
            assert (places["mine/a"]["now"], places["mine/a"]["messages"]) == (1, 2)

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("tls", "name", "password", "code"),
    [
        (False, None, None, None),
        (False, *USER, None),
        (False, USER[0], "wrong", 134),
        (False, "somebody", USER[1], 134),
        (False, USER[0], None, 134),
        (True, *USER, None),
        (True, USER[0], "wrong", 134),
        (True, None, None, 135),
    ],
)
def test_who_may_connect(tmp_path: Path, tls: bool, name: str | None, password: str | None, code: int | None) -> None:
    """134 is "bad user name or password", 135 "not authorised", in the numbers of the client."""

    async def test(running: RunningUpstreams) -> None:
        client = running.client(name, password, tls=tls)
        if code is None:
            async with client:
                await client.subscribe(TOPIC)
                assert len(await numbers(client, 3)) == 3
                report = await running.report("mqtt")
                assert report["authorization"] == {"with": int(bool(name)), "without": int(not name)}
        else:
            with pytest.raises(aiomqtt.MqttCodeError) as refused:
                await client.__aenter__()
            assert number(refused.value.rc) == code
            report = await running.report("mqtt")
            assert (report["now"], report["ever"], report["refused"]) == (0, 0, 1)
        assert CREDENTIALS.secret not in json.dumps(report)

    run(tmp_path, test)


def test_tls_verifies_with_the_ca_and_not_without(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        port = urlsplit(running.at.mqtts_url).port
        context = ssl.create_default_context(cafile=running.at.ca)
        context.verify_flags |= ssl.VERIFY_X509_STRICT  # the default of Python 3.13
        for host in ("127.0.0.1", "localhost"):
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=host)
            writer.close()
        for other, host in ((ssl.create_default_context(), "localhost"), (context, "example.com")):
            with pytest.raises(ssl.SSLCertVerificationError):
                await asyncio.open_connection("127.0.0.1", port, ssl=other, server_hostname=host)
        assert (tmp_path / "server.key").stat().st_mode & 0o077 == 0

    run(tmp_path, test)


def test_protected_topics_and_bad_filters_are_refused(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with running.client() as anonymous, running.client(*USER) as named:
            for topic_filter in ("protected/temperature", "protected/#"):
                assert await granted(anonymous, topic_filter) == [128]
                assert await granted(named, topic_filter) == [1]
        report = await running.report("mqtt")
        assert report["places"]["protected/#"]["refused"] == 1

    run(tmp_path, test)


async def granted(client: aiomqtt.Client, topic_filter: str) -> list[int | None]:
    codes = await client.subscribe(topic_filter, qos=1)
    return [number(code) for code in codes]


def test_the_newer_of_two_clients_of_one_id_wins(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with running.client(identifier="same") as newer:
            with pytest.raises(aiomqtt.MqttError):
                async with running.client(identifier="other") as older:
                    await older.subscribe(TOPIC)
                    async with running.client(identifier="other"):
                        while True:
                            await anext(older.messages)
            await newer.subscribe(TOPIC)
            assert len(await numbers(newer, 3)) == 3

    run(tmp_path, test)


def test_a_will_is_published_when_its_client_is_dropped_only(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with running.client() as watcher:
            await watcher.subscribe("wills")
            address = urlsplit(running.at.mqtt_url)
            for order in ("orderly", "dropped"):
                will = aiomqtt.Will("wills", order)
                client = aiomqtt.Client(str(address.hostname), int(address.port or 0), will=will)
                await client.__aenter__()
                if order == "orderly":
                    await client.__aexit__(None, None, None)
                else:
                    connection = client._client.socket()
                    assert connection is not None
                    connection.close()
            assert await payload(watcher) == b"dropped"

    run(tmp_path, test)


def test_a_burst_topic_is_published_while_somebody_wants_it(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        loop = asyncio.get_running_loop()
        async with running.client() as client:
            await client.subscribe("burst/200", qos=1)
            started = loop.time()
            found = await numbers(client, 100)
            assert found == list(range(found[0], found[0] + 100))
            assert 0.4 < loop.time() - started < 5
            await client.unsubscribe("burst/200")
            sent = (await running.report("mqtt"))["places"]["burst/200"]["messages"]
            await client.subscribe(TOPIC)
            await numbers(client, 5)
            assert (await running.report("mqtt"))["places"]["burst/200"]["messages"] == sent

    run(tmp_path, test, interval=0.05)


@pytest.mark.parametrize(("copies", "count"), [(False, 1), (True, 2)])
def test_version_5_names_the_subscriptions_of_a_message(copies: bool, count: int, tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        address = urlsplit(running.at.mqtt_url)
        reader = aiomqtt.Client(
            str(address.hostname), int(address.port or 0), protocol=aiomqtt.ProtocolVersion.V5, timeout=WAIT_S
        )
        async with reader, running.client() as sender:
            for identifier, wanted in ((1, "mine/+"), (2, "mine/a")):
                made: Any = Properties  # which has no types
                properties = made(PacketTypes.SUBSCRIBE)
                properties.SubscriptionIdentifier = identifier
                await reader.subscribe(wanted, qos=1, properties=properties)
            await sender.publish("mine/a", b"1", qos=1)
            await sender.publish("mine/b", b"2", qos=1)
            named: list[int] = []
            for _ in range(count):
                message = await anext(reader.messages)
                assert message.payload == b"1" and message.properties is not None
                named += getattr(message.properties, "SubscriptionIdentifier")  # noqa: B009
            assert sorted(named) == [1, 2]
            assert await payload(reader) == b"2"

    run(tmp_path, test, interval=60, mqtt_copies=copies)


def test_a_broker_of_the_older_version_only_says_so(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        address = urlsplit(running.at.mqtt_url)
        newer = aiomqtt.Client(str(address.hostname), int(address.port or 0), protocol=aiomqtt.ProtocolVersion.V5)
        with pytest.raises(aiomqtt.MqttError):
            await newer.__aenter__()
        async with running.client() as older:
            await older.subscribe(TOPIC)

    run(tmp_path, test, mqtt_versions=(4,))


def test_a_forbidden_topic_and_a_closing_connack_end_the_connection(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        port = urlsplit(running.at.mqtt_url).port
        connect, connack = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00", b"\x20\x02\x00\x00"
        subscribe = b"\x82\x10\x00\x01\x00\x0bforbidden/a\x00"
        await running.fault("mqtt", "connack-close", **{"for": 1})
        for sent in (connect, connect + subscribe):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            assert await reader.read() == connack
            writer.close()
        report = await running.until("mqtt", lambda report: report["now"] == 0)
        assert (report["ever"], report["refused"], report["fault"]["fault"]) == (2, 1, "none")

    run(tmp_path, test)


@pytest.mark.parametrize("abrupt", [False, True])
def test_drop_disconnects_every_client(tmp_path: Path, abrupt: bool) -> None:
    async def test(running: RunningUpstreams) -> None:
        with pytest.raises(aiomqtt.MqttError):
            async with running.client() as client, running.client() as other:
                await asyncio.gather(client.subscribe(TOPIC), other.subscribe(TOPIC))
                assert (await running.fault("mqtt", "drop", abrupt=abrupt))["closed"] == 2
                await running.until("mqtt", lambda report: report["now"] == 0)
                while True:
                    await anext(client.messages)
        async with running.client() as again:
            await again.subscribe(TOPIC)
            assert len(await numbers(again, 2)) == 2

    run(tmp_path, test)


def test_stall_keeps_open_and_loses_nothing(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with running.client() as client:
            await client.subscribe("burst/100", qos=1)
            first = (await numbers(client, 1))[0]
            await running.fault("mqtt", "stall")
            before = (await running.report("mqtt"))["messages"]
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await asyncio.Event().wait()  # time in which 20 events fall due
            report = await running.report("mqtt")
            assert (report["now"], report["messages"]) == (1, before)
            await running.fault("mqtt", "none")
            assert await numbers(client, 40) == list(range(first + 1, first + 41))

    run(tmp_path, test, interval=1.0)


def test_damaged_and_slow_payloads(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with running.client() as client:
            await client.subscribe("mine", qos=1)
            await running.fault("mqtt", "garbage", **{"for": 1})
            await client.publish("mine", b"1")
            with pytest.raises(ValueError):
                json.loads(await payload(client))
            await running.fault("mqtt", "oversize", **{"for": 1})
            await client.publish("mine", b"2")
            large = await payload(client)
            assert len(large) > 131_072 and json.loads(large)["event"] == 2
            await running.fault("mqtt", "slow", **{"for": 1})
            started = asyncio.get_running_loop().time()
            await client.publish("mine", b"3" * 40)
            assert await payload(client) == b"3" * 40
            assert asyncio.get_running_loop().time() - started > 0.2
            assert (await running.report("mqtt"))["fault"]["fault"] == "none"

    run(tmp_path, test, interval=60)


@pytest.mark.parametrize(("status", "code"), [(401, 135), (503, 136)])
def test_refuse_answers_as_connack(tmp_path: Path, status: int, code: int) -> None:
    async def test(running: RunningUpstreams) -> None:
        await running.fault("mqtt", "refuse", status=status)
        with pytest.raises(aiomqtt.MqttCodeError) as refused:
            await running.client().__aenter__()
        assert number(refused.value.rc) == code

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"\x10\x0c\x00\x04MQTT\x06\x02\x00\x00\x00\x00", b"\x20\x02\x00\x01"),  # this level is not spoken
        (b"\x10\x0c\x00\x04MQTT\x04\x00\x00\x00\x00\x00", b"\x20\x02\x00\x02"),  # no id, and not a clean session
        (b"\xc0\x00", b""),  # PINGREQ first
        (b"GET / HTTP/1.1\r\n\r\n", b""),
        (b"\x10\xff\xff\xff\xff\x01", b""),  # five bytes of length
        (b"\x10\xff\xff\xff\x7f", b""),  # 256 MiB
        (b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00\x34\x05\x00\x01a\x00\x01", b"\x20\x02\x00\x00"),  # QoS 2
    ],
)
def test_who_breaks_the_protocol_is_closed(tmp_path: Path, sent: bytes, answer: bytes) -> None:
    async def test(running: RunningUpstreams) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(running.at.mqtt_url).port)
        writer.write(sent)
        assert await reader.read() == answer
        writer.close()
        await running.until("mqtt", lambda report: report["now"] == 0)

    run(tmp_path, test)


def test_a_client_that_is_silent_for_too_long_is_closed(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(running.at.mqtt_url).port)
        writer.write(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x01\x00\x00")
        started = asyncio.get_running_loop().time()
        assert await reader.read() == b"\x20\x02\x00\x00"
        assert 1.4 < asyncio.get_running_loop().time() - started < 4
        writer.close()

    run(tmp_path, test)
