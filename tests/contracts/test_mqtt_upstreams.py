"""MQTT brokers of the outside against a real broker on loopback, plain and over TLS, with faults."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.fake_upstreams.tools import CREDENTIALS, WAIT_S, RunningUpstreams, run
from tidegate.adapters.upstreams.mqtt_brokers import BrokerLimits, MqttUpstreams
from tidegate.adapters.upstreams.resolving import Resolve, resolve
from tidegate.domain.egress import EgressPolicy
from tidegate.ports.relay import (
    Broker,
    MqttRequest,
    Opened,
    Oversize,
    UpstreamEvent,
    UpstreamFault,
    UpstreamMessage,
)
from tidegate.protocol.messages import ErrorCode

NORTH, SOUTH = "site/north/temperature", "site/south/temperature"
LIMITS = BrokerLimits(max_qos=1, max_connections=10, idle_s=0.2, max_bytes=10_000, pause_s=(0.05, 60.0))


@asynccontextmanager
async def upstreams(
    running: RunningUpstreams, *, private: bool = True, resolver: Resolve = resolve, answer_s: float = 3, **limits: Any
) -> AsyncIterator[MqttUpstreams]:
    ports = tuple(int(urlsplit(url).port or 0) for url in (running.at.mqtt_url, running.at.mqtts_url))
    policy = EgressPolicy((), ports, allow_private=private, production=False)
    made = MqttUpstreams(policy, replace(LIMITS, **limits), connect_timeout_s=answer_s, resolve=resolver)
    try:
        yield made
    finally:
        await made.close()


def plain(running: RunningUpstreams, topic: str = NORTH, *, password: str | None = None, qos: int = 1) -> MqttRequest:
    name = None if password is None else CREDENTIALS.username
    return MqttRequest(Broker("b", running.at.mqtt_url, name, password), topic, qos)


def secure(running: RunningUpstreams, *, ca: str | None = None, host: str | None = None) -> MqttRequest:
    authority = Path(running.at.ca).read_text(encoding="ascii") if ca is None else ca
    url = running.at.mqtts_url
    if host is not None:
        url = url.replace(str(urlsplit(url).hostname), host)
    return MqttRequest(Broker("b", url, CREDENTIALS.username, CREDENTIALS.secret, authority), "protected/temperature")


@asynccontextmanager
async def opened(made: MqttUpstreams, asked: MqttRequest) -> AsyncIterator[AsyncIterator[UpstreamEvent]]:
    events = made.open(asked, "")
    assert isinstance(events, AsyncGenerator)
    async with aclosing(events):
        yield events


async def take(made: MqttUpstreams, asked: MqttRequest, count: int) -> list[UpstreamEvent]:
    """The first events; raises what ends it before."""
    found: list[UpstreamEvent] = []
    async with opened(made, asked) as events:
        async for event in events:
            found.append(event)
            if len(found) == count:
                break
    return found


async def fault_of(made: MqttUpstreams, asked: MqttRequest) -> UpstreamFault:
    with pytest.raises(UpstreamFault) as fault:
        await take(made, asked, 10_000)
    return fault.value


def numbers(events: Sequence[UpstreamEvent]) -> list[int]:
    return [json.loads(event.payload)["n"] for event in events if isinstance(event, UpstreamMessage)]


def test_messages_come_whole_and_in_order(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with upstreams(running) as made:
            found = await take(made, plain(running), 12)
            assert found[0] == Opened()
            got = numbers(found)
            assert len(got) == 11 and got[1:] == list(range(got[1], got[1] + 10))  # the first may be the retained one

    run(tmp_path, test)


def test_streams_share_one_connection_and_a_filter(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with upstreams(running) as made:
            found = await asyncio.gather(
                *(take(made, plain(running, topic), 6) for topic in (NORTH, NORTH, SOUTH, "#"))
            )
            assert all(len(numbers(events)) == 5 for events in found)
            assert (await running.report("mqtt"))["ever"] == 1
            # Who comes later to a filter that is there gets what came last at once, though the broker says nothing.
            async with opened(made, plain(running)) as first:
                await anext(first), await anext(first)
                await running.fault("mqtt", "stall", **{"for": 60})
                assert len(numbers(await take(made, plain(running), 2))) == 1
                await running.fault("mqtt", "none")

    run(tmp_path, test)


def test_the_last_to_leave_unsubscribes_and_an_idle_connection_ends(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with upstreams(running) as made:
            async with opened(made, plain(running)) as first:
                await anext(first)
                await take(made, plain(running), 2)
                await take(made, plain(running, SOUTH), 2)
                await running.until("mqtt", lambda report: not report["places"][SOUTH]["now"])
                assert (await running.report("mqtt"))["places"][NORTH]["now"] == 1
            await running.until("mqtt", lambda report: not report["places"][NORTH]["now"] and report["open"])
            await running.until("mqtt", lambda report: not report["open"])
            await take(made, plain(running), 2)
            assert (await running.report("mqtt"))["ever"] == 2

    run(tmp_path, test)


def test_a_connection_per_credential_up_to_the_limit(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with upstreams(running, max_connections=1, idle_s=60) as made:
            async with opened(made, plain(running)) as first:
                await anext(first)
                full = await fault_of(made, plain(running, password=CREDENTIALS.secret))
                assert (full.code, full.refused) == (ErrorCode.RATE_LIMITED, False)
            # An idle one makes room.
            await take(made, plain(running, password=CREDENTIALS.secret), 2)
            await running.until("mqtt", lambda report: len(report["open"]) == 1)

    run(tmp_path, test)


@pytest.mark.parametrize("in_use", [True, False], ids=["in use", "idle"])
def test_a_connection_with_an_older_secret_makes_room_and_is_not_kept(tmp_path: Path, in_use: bool) -> None:
    """It ends with its last stream, though idle connections are kept. Meanwhile it keeps nobody from the newer one."""

    async def test(running: RunningUpstreams) -> None:
        old, new = (plain(running, password=CREDENTIALS.secret) for _ in range(2))
        old = replace(old, broker=replace(old.broker, secret_revision=1))
        new = replace(new, broker=replace(new.broker, secret_revision=2))
        async with upstreams(running, max_connections=1, idle_s=60) as made:
            async with AsyncExitStack() as streams:
                first, second = [await streams.enter_async_context(opened(made, old)) for _ in range(2)]
                await anext(first)
                await anext(second)
                if not in_use:
                    await streams.aclose()
                assert len(await take(made, new, 2)) == 2
                if in_use:
                    await anext(first)
                    assert len((await running.report("mqtt"))["open"]) == 2
            await running.until("mqtt", lambda report: len(report["open"]) == 1)
            assert len(await take(made, new, 2)) == 2
            assert (await running.report("mqtt"))["ever"] == 2, "the newer one is the one that was kept"

    run(tmp_path, test)


def test_passwords_right_and_wrong_and_a_refusal_is_not_hammered(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with upstreams(running) as made:
            await take(made, plain(running, "protected/temperature", password=CREDENTIALS.secret), 2)
            for _ in range(5):
                wrong = await fault_of(made, plain(running, password="wrong"))
                assert (wrong.code, wrong.refused) == (ErrorCode.AUTH_FAILED, True)
                assert "wrong" not in f"{wrong!r} {wrong}"
            assert (await running.report("mqtt"))["refused"] == 1
        assert "wrong" not in repr(plain(running, password="wrong"))

    run(tmp_path, test)


def test_a_filter_the_broker_refuses(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with upstreams(running) as made:
            refused = await fault_of(made, plain(running, "protected/temperature"))
            assert (refused.code, refused.refused) == (ErrorCode.AUTH_FAILED, True)
            await take(made, plain(running), 2)  # the connection stands

    run(tmp_path, test)


def test_tls_by_the_brokers_name_with_its_own_authority(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with upstreams(running) as made:
            assert len(await take(made, secure(running), 3)) == 3
            strange = await fault_of(made, secure(running, ca=""))
            assert strange.code is ErrorCode.CONNECT_FAILED
            garbled = await fault_of(made, secure(running, ca="no certificate"))
            assert garbled.code is ErrorCode.CONNECT_FAILED

        async def loopback(_host: str, _port: int) -> list[str]:
            return ["127.0.0.1"]

        async with upstreams(running, resolver=loopback) as made:
            other = await fault_of(made, secure(running, host="another.example"))
            assert other.code is ErrorCode.CONNECT_FAILED

    run(tmp_path, test)


def test_a_drop_is_told_to_all_and_the_first_to_come_back_connects_for_all(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with upstreams(running, pause_s=(0.0, 60.0)) as made:
            watching = [asyncio.create_task(fault_of(made, plain(running, topic))) for topic in (NORTH, SOUTH, NORTH)]
            await running.until("mqtt", lambda report: report["places"].get(SOUTH, {}).get("now"))
            await running.fault("mqtt", "drop")
            faults = await asyncio.gather(*watching)
            assert {fault.code for fault in faults} == {ErrorCode.CONNECT_FAILED}
            await asyncio.gather(*(take(made, plain(running, topic), 3) for topic in (NORTH, SOUTH)))
            assert (await running.report("mqtt"))["ever"] == 2

    run(tmp_path, test)


def test_a_broker_that_is_down_is_asked_once_in_a_pause(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with upstreams(running, pause_s=(60.0, 60.0)) as made:
            await running.fault("mqtt", "refuse", status=503)
            faults = await asyncio.gather(*(fault_of(made, plain(running, f"site/{n}")) for n in range(20)))
            faults.append(await fault_of(made, plain(running)))
            assert {(fault.code, fault.refused) for fault in faults} == {(ErrorCode.CONNECT_FAILED, False)}
            assert (await running.report("mqtt"))["refused"] == 1

    run(tmp_path, test)


def test_a_payload_beyond_the_limit_is_told(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with upstreams(running, max_bytes=5) as made:
            assert (await take(made, plain(running), 3))[1:] == [Oversize(), Oversize()]

    run(tmp_path, test)


@pytest.mark.parametrize("answer", [[], ["127.0.0.1"], ["93.184.216.34", "10.0.0.1"], ["::ffff:127.0.0.1"]])
def test_nothing_is_connected_to_that_the_policy_refuses(answer: list[str], tmp_path: Path) -> None:
    async def lying(_host: str, _port: int) -> list[str]:
        return answer

    async def test(running: RunningUpstreams) -> None:
        async with upstreams(running, private=False, resolver=lying) as made:
            port = urlsplit(running.at.mqtt_url).port
            for url in (f"mqtt://broker.example:{port}", "mqtt://broker.example:1", "http://broker.example"):
                fault = await fault_of(made, MqttRequest(Broker("b", url), NORTH))
                assert (fault.code, fault.refused) == (ErrorCode.POLICY_BLOCKED, True)
        assert (await running.report("mqtt"))["ever"] == 0

    run(tmp_path, test)


def test_closing_while_connecting_leaves_no_connection(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        for turns in range(12):
            async with upstreams(running) as made:
                asking = asyncio.create_task(take(made, plain(running), 10_000))
                for _ in range(turns):
                    await asyncio.sleep(0.001)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        await running.until("mqtt", lambda report: not report["open"])

    run(tmp_path, test)


def test_brokers_that_do_not_answer_delay_nobody(tmp_path: Path) -> None:
    """A TLS handshake that nobody answers occupies no thread, ends in time, and is ended at once when asked."""

    async def test(running: RunningUpstreams) -> None:
        begun = 0

        async def silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal begun
            begun += 1
            writers.append(writer)

        writers: list[asyncio.StreamWriter] = []
        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        policy = EgressPolicy((), (port,), allow_private=True, production=False)
        for answer_s in (0.2, 60):
            begun = 0
            made = MqttUpstreams(policy, LIMITS, connect_timeout_s=answer_s)
            requests = [
                MqttRequest(Broker(f"b{n}", f"{scheme}://127.0.0.1:{port}"), NORTH)
                for n, scheme in enumerate(["mqtts", "mqtt"] * 40)
            ]
            asking = [asyncio.create_task(fault_of(made, request)) for request in requests]
            if answer_s < 1:
                assert {fault.code for fault in await asyncio.gather(*asking)} == {ErrorCode.CONNECT_TIMEOUT}
            while answer_s > 1 and begun < len(requests):
                await asyncio.sleep(0.001)
            for one in asking:
                one.cancel()
            await made.close()
        for writer in writers:
            writer.close()
        server.close()

    run(tmp_path, test)


def test_who_comes_while_an_idle_connection_closes_gets_another(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with upstreams(running, max_connections=1, idle_s=0.0) as made:
            for _ in range(10):
                await take(made, plain(running), 2)
                await asyncio.sleep(0)  # the idle timer is due
                assert len(await take(made, plain(running), 3)) == 3

    run(tmp_path, test)


def test_a_slow_stream_loses_the_oldest(tmp_path: Path) -> None:
    """And never holds up the others."""

    async def test(running: RunningUpstreams) -> None:
        async with upstreams(running) as made, opened(made, plain(running, "burst/1000")) as slow:
            await anext(slow)
            quick = await take(made, plain(running, "burst/1000"), 1500)
            got = numbers(quick)
            assert got == list(range(got[0], got[0] + len(got)))
            behind = numbers([await anext(slow) for _ in range(900)])
            assert behind == list(range(behind[0], behind[0] + 900)) and behind[0] > got[0]

    run(tmp_path, test)


@pytest.mark.parametrize("times", [1, 2, 5])
def test_a_broker_that_accepts_and_closes_at_once_is_connected_again(times: int, tmp_path: Path) -> None:
    """CONNACK and the end arrive together: a connection that is accepted and dead must not be given to anybody."""

    async def test(running: RunningUpstreams) -> None:
        async with upstreams(running, pause_s=(0.0, 60.0)) as made:
            await running.fault("mqtt", "connack-close", **{"for": times})
            for _ in range(times):
                fault = await fault_of(made, plain(running))
                assert (fault.code, fault.refused) == (ErrorCode.CONNECT_FAILED, False)
            found = await asyncio.gather(take(made, plain(running), 3), take(made, plain(running, SOUTH), 3))
            assert [len(numbers(events)) for events in found] == [2, 2]
            assert (await running.report("mqtt"))["ever"] == times + 1

    run(tmp_path, test)


def test_a_subscribe_that_nobody_answers_ends_the_connection_for_all(tmp_path: Path) -> None:
    """And the next attempt is made on a new one."""

    async def test(running: RunningUpstreams) -> None:
        async with upstreams(running, pause_s=(0.0, 60.0), answer_s=0.2) as made:
            async with opened(made, plain(running)) as first:
                await anext(first)
                await running.fault("mqtt", "stall")
                mute = await fault_of(made, plain(running, SOUTH))
                assert mute.code is ErrorCode.CONNECT_TIMEOUT
                await ending(first)
                await running.fault("mqtt", "none")
            assert len(await take(made, plain(running, SOUTH), 2)) == 2
            # One more: the filter that nobody answered for was tried alone first.
            assert (await running.report("mqtt"))["ever"] == 3

    run(tmp_path, test)


VERSIONS = pytest.mark.parametrize("versions", [(4,), (5,), (4, 5)], ids=["3.1.1", "5", "both"])


async def ending(events: AsyncIterator[UpstreamEvent]) -> UpstreamFault:
    """Take events until the fault that ends them."""
    with pytest.raises(UpstreamFault) as fault:
        while True:
            await anext(events)
    return fault.value


async def publish(running: RunningUpstreams, topic: str, *payloads: bytes, retain: bool = False) -> None:
    """Publish, and see that the broker has taken it."""
    async with running.client() as sender:
        for payload in payloads:
            await sender.publish(topic, payload, qos=1, retain=retain)


async def payloads(events: AsyncIterator[UpstreamEvent], count: int) -> list[bytes]:
    """The payloads of the next events, each of which must be a message."""
    found = [await anext(events) for _ in range(count)]
    assert all(isinstance(event, UpstreamMessage) for event in found), found
    return [event.payload for event in found if isinstance(event, UpstreamMessage)]


def only(versions: tuple[int, ...]) -> dict[str, Any]:
    """Options of a broker of these versions, which publishes nothing by itself."""
    return {"mqtt_versions": versions, "interval": 60}


@VERSIONS
def test_messages_come_in_every_version(versions: tuple[int, ...], tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with upstreams(running, idle_s=0.0) as made:
            for _ in range(3):
                assert numbers(await take(made, plain(running), 3))
                assert numbers(await take(made, secure(running), 3))
                await running.until("mqtt", lambda report: not report["open"])

    run(tmp_path, test, mqtt_versions=versions)


def test_a_forbidden_filter_is_refused_alone_and_ends_no_shared_connection(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with upstreams(running, pause_s=(0.0, 60.0)) as made:
            # The first time nobody can know.
            async with opened(made, plain(running)) as other:
                await anext(other)
                first = await fault_of(made, plain(running, "forbidden/a"))
                assert (first.code, first.refused) == (ErrorCode.CONNECT_FAILED, False)
                await ending(other)
            async with opened(made, plain(running)) as other:
                await anext(other)
                before = (await running.report("mqtt"))["ever"]
                for topic in ("forbidden/a", "forbidden/b", "forbidden/#"):
                    for _ in range(5):
                        fault = await fault_of(made, plain(running, topic))
                        assert (fault.code, fault.refused) == (ErrorCode.AUTH_FAILED, True)
                        assert fault.text == "MQTT broker closes the connection on this topic"
                # A filter that the broker grants is found to be none of them.
                assert len(await take(made, plain(running, SOUTH), 3)) == 3
                got = numbers([await anext(other) for _ in range(10)])
                assert got[1:] == list(range(got[1], got[1] + 9))
                # Each forbidden one was tried once, on a connection of its own; and so was the granted one.
                assert (await running.report("mqtt"))["ever"] == before + 4

    run(tmp_path, test)


def test_a_filter_that_mqtt_cannot_carry_is_refused_alone(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with upstreams(running) as made, opened(made, plain(running)) as other:
            await anext(other)
            for topic in ("\ud800", "x" * 65_536):
                fault = await fault_of(made, plain(running, topic))
                assert (fault.code, fault.refused) == (ErrorCode.POLICY_BLOCKED, True)
            assert len(numbers([await anext(other) for _ in range(3)])) == 3
            assert (await running.report("mqtt"))["ever"] == 1

    run(tmp_path, test)


def test_a_stream_that_leaves_while_it_subscribes_leaves_nothing_behind(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with upstreams(running) as made, opened(made, plain(running)) as other:
            await anext(other)
            await running.fault("mqtt", "stall")
            leaving = asyncio.create_task(take(made, plain(running, SOUTH), 2))
            await running.until("mqtt", lambda report: report["places"].get(SOUTH, {}).get("now"))
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
            await running.fault("mqtt", "none")
            await running.until("mqtt", lambda report: not report["places"][SOUTH]["now"])

    run(tmp_path, test)


def test_a_refused_filter_is_tried_again_after_the_pause(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with upstreams(running, pause_s=(0.0, 0.0)) as made:
            for _ in range(3):
                await fault_of(made, plain(running, "forbidden/a"))
            assert (await running.report("mqtt"))["places"]["forbidden/a"]["refused"] == 3

    run(tmp_path, test)


@pytest.mark.parametrize("versions", [(4,), (4, 5)], ids=["3.1.1", "5"])
@pytest.mark.parametrize("copies", [False, True])
def test_a_retained_message_is_for_who_subscribes(versions: tuple[int, ...], copies: bool, tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        await publish(running, "t/a", b"old", retain=True)
        async with upstreams(running) as made, opened(made, plain(running, "t/+")) as first:
            assert await anext(first) == Opened()
            assert await payloads(first, 1) == [b"old"]
            await publish(running, "t/a", b"new")  # live, and not retained
            assert await payloads(first, 1) == [b"new"]
            for wider in ("t/a", "t/#", "#"):
                async with opened(made, plain(running, wider)) as second:
                    await anext(second)
                    assert await payloads(second, 1) == [b"old"]
                    await publish(running, "t/b", wider.encode())
                    assert await payloads(first, 1) == [wider.encode()]

    run(tmp_path, test, **only(versions), mqtt_copies=copies)


@pytest.mark.parametrize("versions", [(4,), (4, 5)], ids=["3.1.1", "5"])
def test_a_higher_qos_brings_nobody_the_retained_message_again(versions: tuple[int, ...], tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        await publish(running, "t/a", b"old", retain=True)
        async with upstreams(running) as made, opened(made, plain(running, "t/a", qos=0)) as first:
            await anext(first)
            assert await payloads(first, 1) == [b"old"]
            async with opened(made, plain(running, "t/a", qos=1)) as second:
                await anext(second)
                assert await payloads(second, 1) == [b"old"]
                await publish(running, "t/a", b"new")
                assert await payloads(first, 1) == await payloads(second, 1) == [b"new"]

    run(tmp_path, test, **only(versions))


@pytest.mark.parametrize("versions", [(4,), (4, 5)], ids=["3.1.1", "5"])
@pytest.mark.parametrize("copies", [False, True])
def test_copies_for_overlapping_filters_are_one_message(
    versions: tuple[int, ...], copies: bool, tmp_path: Path
) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with (
            upstreams(running) as made,
            opened(made, plain(running, "t/+")) as first,
            opened(made, plain(running, "t/a")) as second,
        ):
            await anext(first), await anext(second)
            await publish(running, "t/a", b"1", b"2", b"3", b"1")
            assert await payloads(first, 4) == await payloads(second, 4) == [b"1", b"2", b"3", b"1"]
            await publish(running, "t/b", b"4", b"4")  # only one filter matches: both are messages
            assert await payloads(first, 2) == [b"4", b"4"]

    run(tmp_path, test, **only(versions), mqtt_copies=copies)


@pytest.mark.parametrize("versions", [(4,), (4, 5)], ids=["3.1.1", "5"])
def test_an_empty_message_takes_the_value_back_once(versions: tuple[int, ...], tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with (
            upstreams(running) as made,
            opened(made, plain(running, "t/+")) as first,
            opened(made, plain(running, "t/a")) as second,
        ):
            await anext(first), await anext(second)
            await publish(running, "t/a", b"1", b"", b"2", retain=True)
            for events in (first, second):
                assert [await anext(events) for _ in range(3)] == [
                    UpstreamMessage(b"1", topic="t/a"),
                    UpstreamMessage(b"", topic="t/a", deleted=True),
                    UpstreamMessage(b"2", topic="t/a"),
                ]
            await publish(running, "t/a", b"", b"3", retain=True)
            # Who comes later gets what is left: nothing but what came after.
            async with opened(made, plain(running, "t/a")) as third:
                await anext(third)
                assert await payloads(third, 1) == [b"3"]

    run(tmp_path, test, **only(versions), mqtt_copies=True)


def test_who_joins_a_filter_gets_the_last_message_of_each_topic(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with upstreams(running) as made, opened(made, plain(running, "t/+")) as first:
            await anext(first)
            await publish(running, "t/a", b"1", b"2")
            await publish(running, "t/b", b"3")
            assert await payloads(first, 3) == [b"1", b"2", b"3"]
            async with opened(made, plain(running, "t/+")) as second:
                await anext(second)  # the last messages are put before the answer
                await publish(running, "t/c", b"4")
                assert await payloads(second, 3) == [b"2", b"3", b"4"]

    run(tmp_path, test, interval=60)


def test_a_packet_beyond_what_is_kept_is_read_to_its_end(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with upstreams(running, max_bytes=5) as made, opened(made, plain(running, "t")) as events:
            await anext(events)
            await running.fault("mqtt", "oversize", **{"for": 1})
            await publish(running, "t", b"1" * 100, b"2")
            assert [await anext(events) for _ in range(2)] == [Oversize(), UpstreamMessage(b"2", topic="t")]

    run(tmp_path, test, interval=60)


def test_an_unsubscribe_that_nobody_answers_ends_the_connection(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with upstreams(running, answer_s=0.2) as made, opened(made, plain(running)) as other:
            await anext(other)
            async with opened(made, plain(running, SOUTH)) as leaving:
                await anext(leaving)
                await running.fault("mqtt", "stall")
            assert (await ending(other)).code is ErrorCode.CONNECT_TIMEOUT

    run(tmp_path, test)


def test_a_broker_that_falls_silent_is_found_by_the_keep_alive(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        request = replace(plain(running), keepalive_s=1)
        async with upstreams(running, answer_s=0.5) as made, opened(made, request) as events:
            await anext(events)
            await running.fault("mqtt", "stall")
            assert (await ending(events)).code is ErrorCode.CONNECT_TIMEOUT

    run(tmp_path, test)


#: CONNACK and PINGRESP, SUBACK of the first request, in version 5.
WELCOME, GRANTED = b"\x20\x03\x00\x00\x00\xd0\x00", b"\x90\x04\x00\x01\x00\x00"


@asynccontextmanager
async def scripted(*answers: bytes, then: bytes = b"", mute: bool = False) -> AsyncIterator[str]:
    """A broker that sends each answer after something came, and then one byte of `then` for ever, or nothing.

    `mute`: it does not read what comes after the first, and does not close when its client does.
    """
    writers: list[asyncio.StreamWriter] = []
    release = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        for answer in answers:
            await reader.read(1000)
            writer.write(answer)
        with suppress(OSError):
            while then and not writer.is_closing():
                writer.write(then)
                await asyncio.sleep(0.01)
        if mute:
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            await release.wait()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        release.set()
        for writer in writers:
            writer.transport.abort()
        server.close()


def scripted_client(url: str, answer_s: float = 0.2) -> MqttUpstreams:
    policy = EgressPolicy((), (int(urlsplit(url).port or 0),), allow_private=True, production=False)
    return MqttUpstreams(policy, LIMITS, connect_timeout_s=answer_s)


@pytest.mark.parametrize(
    ("answers", "then", "code"),
    [
        ((), b"", ErrorCode.CONNECT_TIMEOUT),  # no CONNACK
        ((), b"\xff", ErrorCode.CONNECT_FAILED),  # a packet whose length never ends
        ((b"\x20\x03\x00\x00\x00",), b"", ErrorCode.CONNECT_TIMEOUT),  # no PINGRESP
        ((b"\x20\x03\x00\x97\x00",), b"", ErrorCode.CONNECT_FAILED),  # a quota, in version 5
        ((b"\x20\xff\xff\x03",), b"\0", ErrorCode.CONNECT_TIMEOUT),  # a CONNACK that comes byte by byte
        ((WELCOME, b""), b"", ErrorCode.CONNECT_TIMEOUT),  # no SUBACK
        ((WELCOME, b""), b"\xd0\x00", ErrorCode.CONNECT_TIMEOUT),  # signs of life, and no SUBACK
        ((WELCOME, GRANTED + b"\x30\xff\x7f"), b"\0", ErrorCode.CONNECT_TIMEOUT),  # a message byte by byte
        ((WELCOME, GRANTED + b"\xff\x00"), b"", ErrorCode.CONNECT_FAILED),  # a packet of no client's
        ((WELCOME, GRANTED + b"\x34\x05\x00\x01a\x00\x01"), b"", ErrorCode.CONNECT_FAILED),  # QoS 2
        ((WELCOME, GRANTED + b"\xe0\x02\x8b\x00"), b"", ErrorCode.CONNECT_FAILED),  # DISCONNECT of version 5
    ],
)
def test_no_wait_for_a_broker_is_without_end(answers: tuple[bytes, ...], then: bytes, code: ErrorCode) -> None:
    async def test() -> None:
        async with asyncio.timeout(WAIT_S), scripted(*answers, then=then) as url:
            made = scripted_client(url)
            fault = await fault_of(made, MqttRequest(Broker("b", url), NORTH, keepalive_s=1))
            assert fault.code is code
            await made.close()

    asyncio.run(test())


def test_what_arrives_at_once_is_taken_while_it_is_read() -> None:
    """Three times as many messages as are kept for a stream come in one piece."""
    burst = b"".join(b"\x30\x08\x00\x01t\x00" + b"%04d" % number for number in range(3000))

    async def test() -> None:
        async with asyncio.timeout(WAIT_S), scripted(WELCOME, GRANTED + burst) as url:
            made = scripted_client(url)
            async with opened(made, MqttRequest(Broker("b", url), "t")) as events:
                assert await anext(events) == Opened()
                assert await payloads(events, 3000) == [b"%04d" % number for number in range(3000)]
            await made.close()

    asyncio.run(test())


def test_closing_waits_for_no_broker() -> None:
    """One that neither reads nor closes, with a message half sent."""

    async def test() -> None:
        async with asyncio.timeout(WAIT_S), scripted(WELCOME, GRANTED + b"\x30\x7f", mute=True) as url:
            made = scripted_client(url)
            async with opened(made, MqttRequest(Broker("b", url), NORTH)) as events:
                await anext(events)
                await made.close()

    asyncio.run(test())
