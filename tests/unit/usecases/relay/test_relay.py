"""The relay over doubles: who holds a shard, what is delivered, what is handed over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from itertools import groupby
from threading import Event
from typing import Any

import pytest

from tests.doubles.platform import CountingIds, MemoryObserver, MemoryRelayWorkers
from tests.doubles.relay_leases import MemoryRelayLeases
from tests.doubles.stores import MemoryLastValues, MemoryStreams
from tests.settling import run_within
from tidegate.adapters.system import SystemClock
from tidegate.domain.history import History
from tidegate.domain.partitions import partition_of
from tidegate.domain.profiles import BrokerProfile, CredentialProfile, CredentialType, Transport
from tidegate.domain.relay import CLAIM_AFTER_S, LEASE_S, OVERDUE_S, Kind, worker_version
from tidegate.domain.subscriptions import Fault, LastValue, Stream
from tidegate.errors import Unavailable
from tidegate.ports.relay import (
    Broker,
    MqttRequest,
    NobodyListens,
    Opened,
    UpstreamEvent,
    UpstreamFault,
    UpstreamMessage,
    UpstreamRequest,
)
from tidegate.protocol.messages import ErrorCode
from tidegate.usecases.relay import keep_lease
from tidegate.usecases.relay import upstream as upstreaming
from tidegate.usecases.relay import worker as relaying
from tidegate.usecases.relay.check_credentials import CheckCredentials
from tidegate.usecases.relay.upstream import Upstream
from tidegate.usecases.relay.upstream_requests import StoredUpstreamRequests
from tidegate.usecases.relay.worker import RelayWorker

HOME = ("https://source.example:443",)


class Source:
    """A source that numbers what it says, and every connection to it."""

    def __init__(self, *, ids: bool = True) -> None:
        self.ids = ids
        self.sent = 0
        self.opened: list[tuple[UpstreamRequest | MqttRequest, str]] = []
        self.open_now = 0
        self.fault: UpstreamFault | None = None
        self.refuses: UpstreamFault | None = None
        self.breaks = 0
        self.answers = asyncio.Event()
        self.answers.set()
        self.flows = asyncio.Event()
        self.flows.set()
        self._said = asyncio.Condition()
        self._history: list[UpstreamMessage] = []

    async def say(self, payload: bytes | None = None, *, topic: str = "", deleted: bool = False) -> None:
        async with self._said:
            self.sent += 1
            said = payload if payload is not None else str(self.sent).encode()
            message_id = str(self.sent) if self.ids else ""
            self._history.append(UpstreamMessage(said, message_id, topic=topic, deleted=deleted))
            self._said.notify_all()

    async def break_off(self, fault: UpstreamFault) -> None:
        """End the connections there are; new ones are welcome."""
        async with self._said:
            self.fault = fault
            self.breaks += 1
            self._said.notify_all()

    async def open(self, request: UpstreamRequest | MqttRequest, last_id: str) -> AsyncIterator[UpstreamEvent]:
        self.opened.append((request, last_id))
        self.open_now += 1
        breaks = self.breaks
        at = int(last_id) if last_id and self.ids else len(self._history)
        try:
            await self.answers.wait()
            if self.refuses is not None:
                raise UpstreamFault(self.refuses.code, self.refuses.text)
            yield Opened()
            while True:
                async with self._said:
                    while at >= len(self._history) and self.breaks == breaks:
                        await self._said.wait()
                await self.flows.wait()
                if self.breaks > breaks and self.fault is not None:
                    raise self.fault
                yield self._history[at]
                at += 1
        finally:
            self.open_now -= 1

    async def close(self) -> None: ...


class RecordingFanOut:
    """A fan-out that remembers what it was given, by whom."""

    def __init__(self) -> None:
        self.values: list[str] = []
        self.by: list[str] = []
        self.told: list[tuple[str, str]] = []
        self.states: list[str] = []
        self.audience = True
        self.down = self.broken = False
        self.asked = self.asking = self.refused = 0
        self.answered: Event | None = None

    def has_audience(self, _stream: Stream) -> bool:
        if self.answered is not None:
            self.asking += 1
            assert self.answered.wait(20)
        return self.audience


class OneWorker:
    """The fan-out of one worker: refuses what its lease does not cover."""

    def __init__(self, viewers: RecordingFanOut, last_values: MemoryLastValues, name: str) -> None:
        self._viewers, self._last_values, self._name = viewers, last_values, name
        self.may: Callable[[], bool] = lambda: True

    def deliver(self, stream: Stream, value: LastValue) -> None:
        self._viewers.asked += 1
        if self._viewers.broken:
            raise RuntimeError("a fault of ours")
        if self._viewers.down:
            raise Unavailable("down")
        if self._last_values.put_if_newer(stream.stream_key, value) and self.may():
            self._viewers.values.append(value.payload)
            self._viewers.by.append(self._name)

    def notify(self, _stream: Stream, code: ErrorCode, text: str, *, status: bool = False) -> None:
        self._viewers.told.append((code.value, text))

    def connected(self, _stream: Stream) -> None:
        if self._viewers.refused:
            self._viewers.refused -= 1
            raise Unavailable("down")
        self._viewers.states.append("connected")


class Frames:
    """What a worker sends with. What still waits may leave only while the lease holds."""

    healthy = True

    def __init__(self) -> None:
        self.may: Callable[[], bool] = lambda: True
        self.flushed = 0

    def flush(self) -> bool:
        assert self.may(), "flushed too late"
        self.flushed += 1
        return True


class Profiles:
    def __init__(self) -> None:
        self.profile: CredentialProfile | None = CredentialProfile("p", "p", CredentialType.BEARER, HOME)
        self.brokers: BrokerProfile | None = None
        self.down = False
        self.checked = 0

    def broker(self, _profile_id: str) -> BrokerProfile | None:
        return self.brokers

    def credential(self, _profile_id: str) -> CredentialProfile | None:
        self.checked += 1
        if self.down:
            raise Unavailable("down")
        return self.profile

    def credential_and_secret(self, _profile_id: str) -> tuple[CredentialProfile, str] | None:
        if self.down:
            raise Unavailable("down")
        return None if self.profile is None else (self.profile, f"sealed {self.profile.secret_revision}")


class Cipher:
    def __init__(self) -> None:
        self.opened = 0
        self.down = False

    def decrypt(self, profile_id: str, sealed: str) -> Mapping[str, str]:
        self.opened += 1
        if self.down:
            raise Unavailable("down")
        if sealed != "sealed 1":
            return {"username": "u", "password": sealed, "token": sealed}
        return {"username": "u", "password": "p4ss"} if profile_id == "basic" else {"token": "t0ken"}


class RelayContainer:
    """One stream, one source, workers as they come."""

    def __init__(self, *, per_second: int = 0, ids: bool = True, credential: bool = False) -> None:
        intent: dict[str, object] = {"protocol": "sse", "url": "https://source.example/", "headers": {"A": "b"}}
        if credential:
            intent |= {"credentialProfileId": "p", "credentialRevision": 1, "authPlacement": "header"}
        self.stream = Stream(
            "stream", "sse", "json", None, None, last_requested_at=int(SystemClock().now()), intent=intent
        )
        self.streams, self.last_values, self.leases = MemoryStreams(), MemoryLastValues(), MemoryRelayLeases()
        self.streams.rows["stream"] = self.stream
        self.source, self.viewers, self.relay_workers = Source(ids=ids), RecordingFanOut(), MemoryRelayWorkers()
        self.profiles, self.cipher, self.observer = Profiles(), Cipher(), MemoryObserver()
        self.frames: list[Frames] = []
        self._per_second = per_second
        self._workers = self.nobody = 0
        self.reconnect_ms = (1, 5)
        self.partition = partition_of(self.stream)

    def relay(
        self,
        *,
        handover_s: float = 45.0,
        version: str = "settings",
        enabled: frozenset[str] = frozenset({"sse", "mqtt"}),
    ) -> RelayWorker:
        self._workers += 1
        worker = OneWorker(self.viewers, self.last_values, f"worker {self._workers}")
        fan_out: Any = worker
        profiles: Any = self.profiles
        cipher: Any = self.cipher
        requests = StoredUpstreamRequests(profiles=profiles, cipher=cipher)

        def make(stream: Stream) -> Upstream:
            async def request() -> UpstreamRequest | MqttRequest:
                if self.nobody:
                    self.nobody -= 1
                    raise NobodyListens("nobody")
                return requests(stream)

            return Upstream(
                stream,
                upstreams=self.source,
                request=request,
                last_values=self.last_values,
                fan_out=fan_out,
                in_order=in_order,
                note=lambda connected, fault: self.streams.note_status(
                    stream, connected, fault, at=int(SystemClock().now())
                ),
                reconnect_ms=self.reconnect_ms,
                per_second=self._per_second,
                chance=lambda: 0.5,
                clock=SystemClock(),
                observer=self.observer,
            )

        async def notify_disabled(stream: Stream) -> None:
            worker.notify(stream, ErrorCode.POLICY_BLOCKED, "off")

        ids = CountingIds()
        ids._next = self._workers * 100
        self.frames.append(Frames())
        relay = RelayWorker(
            leases=self.leases,
            streams=self.streams,
            relay_workers=self.relay_workers,
            version=version,
            enabled=enabled,
            notify_disabled=notify_disabled,
            make_upstream=make,
            has_audience=self.viewers.has_audience,
            check_credentials=CheckCredentials(profiles=profiles, observer=self.observer),
            sender=self.frames[-1],
            handover_s=handover_s,
            clock=SystemClock(),
            ids=ids,
            observer=self.observer,
        )
        worker.may = self.frames[-1].may = relay.may_send
        return relay

    def begin(
        self, relay: RelayWorker, *, seconds: float = 60, successor: bool = False, newest: bool = False
    ) -> asyncio.Task[str]:
        stop_at = SystemClock().monotonic() + seconds
        return asyncio.create_task(relay.run(self.partition, stop_at, successor=successor, newest=newest))


async def in_order(work: Callable[[], object]) -> object:
    return work()


async def settle(ready: Callable[[], bool], seconds: float = 10) -> None:
    """Await a condition. Raises `TimeoutError`."""

    async def wait() -> None:
        while not ready():
            await asyncio.sleep(0.005)

    async with asyncio.timeout(seconds):
        await wait()


async def end(*tasks: asyncio.Task[str]) -> None:
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def talking(container: RelayContainer) -> AsyncIterator[None]:
    """The source says something a hundred times a second meanwhile."""
    on = True

    async def talk() -> None:
        while on:
            await container.source.say()
            await asyncio.sleep(0.01)

    talker = asyncio.create_task(talk())
    try:
        yield
    finally:
        on = False
        await talker


def run(work: Callable[[], Awaitable[None]]) -> None:
    run_within(60, work)


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same steps, closer together."""
    for name, seconds in (("REFRESH_S", 0.02), ("GRACE_S", 0.1), ("EXIT_S", 0.2), ("_TICK_S", 0.01)):
        monkeypatch.setattr(relaying, name, seconds)


def test_what_the_source_says_is_delivered_and_the_credential_is_in_place() -> None:
    async def work() -> None:
        container = RelayContainer(credential=True)
        task = container.begin(container.relay())
        await settle(lambda: container.viewers.states == ["connected"])
        for _ in range(20):
            await container.source.say()
        await settle(lambda: len(container.viewers.values) == 20)
        assert container.viewers.values == [str(n) for n in range(1, 21)]
        (request, _), *_ = container.source.opened
        assert isinstance(request, UpstreamRequest)
        assert request.credential is not None and "t0ken" not in repr(request)
        assert request.credential.sent(request.url, request.headers, "sse") == (
            "https://source.example/",
            {"A": "b", "Authorization": "Bearer t0ken"},
        )
        assert container.streams.rows["stream"].connected
        await end(task)
        assert container.source.open_now == 0, "no upstream is left behind"

    run(work)


def test_a_break_is_told_and_goes_on_where_it_was() -> None:
    async def work() -> None:
        container = RelayContainer()
        task = container.begin(container.relay())
        await settle(lambda: container.viewers.states == ["connected"])
        await container.source.say()
        await settle(lambda: container.viewers.values == ["1"])
        await container.source.break_off(UpstreamFault(ErrorCode.IDLE_TIMEOUT, "Stream idle timeout"))
        await container.source.say()
        await settle(lambda: container.viewers.values == ["1", "2"])
        assert container.viewers.told == [("STREAM_IDLE_TIMEOUT", "Stream idle timeout")]
        assert container.viewers.states == ["connected", "connected"] and container.source.opened[-1][1] == "1"
        await end(task)

    run(work)


def test_who_subscribes_to_a_broken_upstream_hears_why() -> None:
    async def work() -> None:
        container = RelayContainer()
        long_ago = replace(container.stream, last_requested_at=container.stream.last_requested_at - 60)
        container.streams.rows["stream"] = long_ago
        container.source.refuses = UpstreamFault(ErrorCode.CONNECT_REFUSED, "Upstream rejected connection")
        task = container.begin(container.relay())
        await settle(lambda: len(container.source.opened) > 20)
        refused = ("STREAM_CONNECT_REFUSED", "Upstream rejected connection")
        assert container.viewers.told == [refused], "told once"
        container.streams.touch(container.stream)
        await settle(lambda: len(container.viewers.told) > 1)
        assert set(container.viewers.told) == {refused}
        await end(task)

    run(work)


@pytest.mark.parametrize("kind", ["connected", "refused"])
def test_a_status_that_could_not_be_stored_is_told_once_it_can(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstreaming, "_AGAIN_S", (0.01,))

    async def work() -> None:
        container = RelayContainer()
        note, down = container.streams.note_status, [3]

        def failing(*args: Any, **named: Any) -> bool:
            if down[0]:
                down[0] -= 1
                raise Unavailable("down")
            return note(*args, **named)

        if kind == "connected":
            container.streams.note_status = failing  # type: ignore[method-assign]
        task = container.begin(container.relay())
        await settle(lambda: container.viewers.states == ["connected"])
        assert container.streams.rows["stream"].connected
        if kind == "refused":
            await container.source.say()
            await settle(lambda: len(container.viewers.by) == 1)
            container.streams.note_status = failing  # type: ignore[method-assign]
            container.source.answers.clear()
            await container.source.break_off(UpstreamFault(ErrorCode.CONNECT_FAILED, "broke"))
            await settle(lambda: ("STREAM_CONNECT_FAILED", "broke") in container.viewers.told)
            assert container.streams.rows["stream"].fault == Fault("STREAM_CONNECT_FAILED", "broke")
            container.source.answers.set()
            await container.source.say()  # the connection before was short, so a value proves this one
            await settle(lambda: container.viewers.states == ["connected", "connected"])
        assert not down[0]
        await end(task)

    run(work)


@pytest.mark.parametrize("same", [True, False])
def test_a_successor_tells_what_changed_while_it_stood_by(same: bool) -> None:
    """The upstream of the one that ends broke; the successor's is connected. Its viewers were told the fault last."""

    async def work() -> None:
        container = RelayContainer()
        first = container.begin(container.relay())
        await settle(lambda: container.viewers.states == ["connected"])
        if not same:
            container.streams.note_status(container.stream, False, Fault("STREAM_CONNECT_FAILED", "broke"))
        second = container.begin(container.relay(), successor=True)
        assert await first == "handed over"
        await container.source.say()
        await settle(lambda: container.viewers.by == ["worker 2"])
        expected = ["connected"] if same else ["connected", "connected"]
        await settle(lambda: container.streams.rows["stream"].connected and container.viewers.states == expected)
        await end(second)

    run(work)


def test_a_successor_tells_a_change_that_it_could_store_but_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstreaming, "_AGAIN_S", (0.01,))

    async def work() -> None:
        container = RelayContainer()
        first = container.begin(container.relay())
        await settle(lambda: container.viewers.states == ["connected"])
        container.streams.note_status(container.stream, False, Fault("STREAM_CONNECT_FAILED", "broke"))
        container.viewers.refused = 2
        second = container.begin(container.relay(), successor=True)
        assert await first == "handed over"
        await settle(lambda: container.viewers.states == ["connected", "connected"])
        assert container.streams.rows["stream"].connected and not container.viewers.refused
        await end(second)

    run(work)


def test_while_nobody_can_be_asked_for_it_waits_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a remote API a stream may be wanted before its first viewer is seen: nothing has failed."""
    monkeypatch.setattr(upstreaming, "_NOBODY_S", 0.01)

    async def work() -> None:
        container = RelayContainer()
        container.nobody = 3
        task = container.begin(container.relay())
        await settle(lambda: container.viewers.states == ["connected"])
        assert container.nobody == 0 and not container.viewers.told
        assert not [name for name, *_ in container.observer.counts if name == "upstream_faults"]
        await end(task)

    run(work)


def test_garbage_is_told_and_the_stream_goes_on() -> None:
    async def work() -> None:
        container = RelayContainer()
        task = container.begin(container.relay())
        await settle(lambda: container.viewers.states == ["connected"])
        await container.source.say(b"{not JSON")
        await container.source.say()
        await settle(lambda: container.viewers.values == ["2"])
        assert container.viewers.told == [("STREAM_PROTOCOL_ERROR", "Payload parsing failed")]
        await end(task)

    run(work)


def test_a_value_that_is_taken_back_is_null_and_no_fault() -> None:
    async def work() -> None:
        container = RelayContainer()
        task = container.begin(container.relay())
        await settle(lambda: container.viewers.states == ["connected"])
        await container.source.say(b"", deleted=True)
        await settle(lambda: container.viewers.values == ["null"])
        assert container.viewers.told == []
        await end(task)

    run(work)


def test_a_changed_credential_profile_is_not_used() -> None:
    async def work() -> None:
        container = RelayContainer(credential=True)
        assert container.profiles.profile is not None
        container.profiles.profile = replace(container.profiles.profile, connection_revision=2)
        task = container.begin(container.relay())
        await settle(lambda: len(container.viewers.told) > 0)
        assert container.viewers.told[0][0] == "STREAM_POLICY_BLOCKED" and not container.source.opened
        await end(task)

    run(work)


@pytest.mark.parametrize(
    "destinations", [(), ("https://example:443", "http://source.example:80", "wss://source.example:443")]
)
def test_a_destination_that_is_gone_keeps_the_secret_here(destinations: tuple[str, ...]) -> None:
    """The profile as it is now decides, even for an intent that was built when it allowed more."""

    async def work() -> None:
        container = RelayContainer(credential=True)
        assert container.profiles.profile is not None
        container.profiles.profile = replace(container.profiles.profile, destinations=destinations)
        task = container.begin(container.relay())
        await settle(lambda: len(container.viewers.told) > 0)
        told = ("STREAM_POLICY_BLOCKED", "The credential profile does not allow this URL")
        assert container.viewers.told[0] == told and not container.source.opened
        assert container.cipher.opened == 0, "the secret was not even opened"
        await end(task)

    run(work)


@pytest.mark.parametrize("headers", [{"Host: a": "b"}, {"A": "b\r\nHost: c"}, {"": "b"}, {"A": " b"}, {"A": "\ud800"}])
def test_a_stored_header_that_cannot_be_sent_is_refused(headers: dict[str, str]) -> None:
    async def work() -> None:
        container = RelayContainer()
        container.stream = replace(container.stream, intent={**(container.stream.intent or {}), "headers": headers})
        container.streams.rows["stream"] = container.stream
        container.partition = partition_of(container.stream)
        task = container.begin(container.relay())
        await settle(lambda: len(container.viewers.told) > 0)
        told = ("STREAM_POLICY_BLOCKED", "A header of the datasource cannot be sent")
        assert container.viewers.told[0] == told and not container.source.opened
        await end(task)

    run(work)


def test_a_broker_is_entered_with_its_credential_as_the_profiles_are_now() -> None:
    async def work() -> None:
        container = RelayContainer()
        intent = {"protocol": "mqtt", "brokerProfileId": "b", "brokerRevision": 3, "topic": "a/#", "qos": 1}
        intent |= {"keepaliveSeconds": 30, "credentialProfileId": "basic", "credentialRevision": 1}
        container.stream = replace(container.stream, protocol="mqtt", intent=intent)
        container.streams.rows["stream"] = container.stream
        container.partition = partition_of(container.stream)
        container.profiles.profile = CredentialProfile("basic", "basic", CredentialType.BASIC)
        tls = {"ca": "PEM"}
        broker = BrokerProfile("b", "b", Transport.EXTERNAL, "mqtts://h", tls=tls, connection_revision=3)
        container.profiles.brokers = broker
        running = container.begin(container.relay())
        await settle(lambda: container.source.open_now == 1)
        request, _ = container.source.opened[0]
        assert request == MqttRequest(Broker("b", "mqtts://h", "u", "p4ss", "PEM", 1), "a/#", 1, 30)
        assert "p4ss" not in repr(request)
        container.profiles.brokers = replace(broker, connection_revision=4)
        await container.source.break_off(UpstreamFault(ErrorCode.CONNECT_FAILED, "gone"))
        await settle(
            lambda: (ErrorCode.POLICY_BLOCKED.value, "The broker profile was changed") in container.viewers.told
        )
        assert container.source.open_now == 0
        await end(running)

    asyncio.run(work())


def test_a_delivery_that_breaks_begins_the_upstream_again() -> None:
    async def work() -> None:
        container = RelayContainer()
        task = container.begin(container.relay())
        await settle(lambda: container.viewers.states == ["connected"])
        container.viewers.broken = True
        await container.source.say()
        await settle(lambda: len(container.source.opened) == 2 and container.source.open_now == 1)
        container.viewers.broken = False
        await container.source.say()
        await settle(lambda: "2" in container.viewers.values)
        assert [message for message, _ in container.observer.faults] == ["upstream broke"]
        await end(task)

    run(work)


def test_the_lease_is_renewed_though_looking_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaying, "LEASE_S", 0.3)
    monkeypatch.setattr(keep_lease, "LEASE_S", 0.3)

    async def work() -> None:
        container, answered = RelayContainer(), Event()
        relay = container.relay()
        task = container.begin(relay)
        await settle(lambda: container.viewers.states == ["connected"])
        container.viewers.answered = answered
        quiet = replace(container.stream, stream_key="quiet", last_requested_at=container.stream.last_requested_at - 60)
        while partition_of(quiet) != container.partition:
            quiet = replace(quiet, stream_key=quiet.stream_key + "!")
        container.streams.rows[quiet.stream_key] = quiet
        await settle(lambda: container.viewers.asking > 0)
        renewals: set[float] = set()
        while len(renewals) < 8:
            assert relay.may_send(), "the lease ran out"
            renewals.add(container.leases.rows[container.partition].until)
            await asyncio.sleep(0.01)
        answered.set()
        await end(task)
        assert container.leases.current(container.partition) is None, "and is let go when the worker is told to end"

    run(work)


def test_one_worker_holds_a_partition() -> None:
    async def work() -> None:
        container = RelayContainer()
        first = container.begin(container.relay())
        await settle(lambda: container.source.open_now == 1)
        assert await container.begin(container.relay()) == "not needed" and container.source.open_now == 1
        await end(first)

    run(work)


def test_nobody_listens_and_the_partition_is_released() -> None:
    async def work() -> None:
        container = RelayContainer()
        container.streams.rows["stream"] = replace(
            container.stream, last_requested_at=container.stream.last_requested_at - 60
        )
        task = container.begin(container.relay())
        await settle(lambda: container.source.open_now == 1)
        container.viewers.audience = False
        assert await task == "nobody listens"
        assert container.source.open_now == 0 and container.leases.current(container.partition) is None
        assert not container.streams.rows["stream"].connected and not container.relay_workers.started
        # A stream that is wanted again is connected again.
        container.viewers.audience = True
        again = container.begin(container.relay())
        await settle(lambda: container.source.open_now == 1)
        await end(again)

    run(work)


def test_a_worker_without_anything_to_do_ends_at_once() -> None:
    async def work() -> None:
        container = RelayContainer()
        container.streams.rows.clear()
        assert (
            await container.begin(container.relay()) == "nobody listens"
            and container.leases.current(container.partition) is None
        )

    run(work)


def test_a_worker_whose_sender_broke_releases_the_partition() -> None:
    async def work() -> None:
        container = RelayContainer()
        task = container.begin(container.relay())
        await settle(lambda: container.viewers.states == ["connected"])
        container.frames[0].healthy = False
        assert await task == "broken" and container.leases.current(container.partition) is None
        assert container.source.open_now == 0

    run(work)


def test_what_could_not_be_delivered_is_tried_again_until_something_newer_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(upstreaming, "_AGAIN_S", (0.01,) * 500)

    async def work() -> None:
        container = RelayContainer()
        task = container.begin(container.relay())
        await settle(lambda: container.viewers.states == ["connected"])
        container.viewers.down = True
        await container.source.say()
        await settle(lambda: container.viewers.asked >= 3)
        container.viewers.down = False
        await settle(lambda: container.viewers.values == ["1"])
        container.viewers.down = True
        await container.source.say()
        await settle(lambda: container.viewers.asked >= 6)
        await container.source.say()
        await settle(lambda: container.viewers.asked >= 9)
        container.viewers.down = False
        await settle(lambda: container.viewers.values[-1] == "3")
        assert container.viewers.values in (["1", "3"], ["1", "2", "3"])
        await end(task)

    run(work)


def test_a_worker_that_lost_its_lease_sends_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaying, "LEASE_S", 0.6)  # it looks after its lease three times as often

    async def work() -> None:
        container = RelayContainer()
        task = container.begin(container.relay())
        await settle(lambda: container.viewers.states == ["connected"])
        await container.source.say()
        await settle(lambda: container.viewers.values == ["1"])
        held = container.leases.rows[container.partition]
        container.leases.rows[container.partition] = replace(held, owner="another", fence=held.fence + 1)
        async with asyncio.timeout(10):
            assert await task == "overtaken"
        await container.source.say()
        assert container.viewers.values == ["1"] and container.source.open_now == 0

    run(work)


def test_a_store_that_does_not_answer_silences_before_another_may_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaying, "LEASE_S", 0.3)
    monkeypatch.setattr(keep_lease, "LEASE_S", 0.3)

    async def work() -> None:
        container = RelayContainer()
        relay = container.relay()
        task = container.begin(relay)
        await settle(lambda: container.viewers.states == ["connected"])
        container.leases.down = True
        assert await task == "overtaken" and not relay.may_send()

    run(work)


def test_the_newest_value_wins_and_the_last_one_is_delivered() -> None:
    async def work() -> None:
        container = RelayContainer(per_second=20)
        task = container.begin(container.relay())
        await settle(lambda: container.viewers.states == ["connected"])
        for _ in range(200):
            await container.source.say()
            await asyncio.sleep(0.001)
        await settle(lambda: "200" in container.viewers.values)
        numbers = [int(value) for value in container.viewers.values]
        assert numbers == sorted(set(numbers)) and numbers[-1] == 200 and len(numbers) < 60
        await end(task)

    run(work)


def test_fifty_devices_behind_a_wildcard_are_all_seen() -> None:
    """Each publishes once in a moment, and ten values a second are allowed: of each topic, not of all together."""

    async def work() -> None:
        container = RelayContainer(per_second=10)
        task = container.begin(container.relay())
        await settle(lambda: container.viewers.states == ["connected"])
        for turn in (b"1", b"2", b"3"):
            for device in range(50):
                await container.source.say(b'"%d-%b"' % (device, turn), topic=f"t/{device}")
        await settle(lambda: {f'"{device}-3"' for device in range(50)} <= set(container.viewers.values))
        for device in range(50):
            of = [value for value in container.viewers.values if value.startswith(f'"{device}-')]
            assert of == sorted(set(of)), "in order, none twice"
        await end(task)

    run(work)


def test_without_conflation_a_store_that_fails_for_a_moment_loses_nothing() -> None:
    async def work() -> None:
        container = RelayContainer()
        task = container.begin(container.relay())
        await settle(lambda: container.viewers.states == ["connected"])
        container.viewers.down = True
        for _ in range(3):
            await container.source.say()
        await settle(lambda: container.viewers.asked >= 2)
        container.viewers.down = False
        await settle(lambda: container.viewers.values == ["1", "2", "3"])
        await end(task)

    run(work)


async def standing_by(container: RelayContainer) -> tuple[Upstream, asyncio.Task[None]]:
    """An upstream that stands by, on its own: there is no lease."""
    upstream = container.relay()._make_upstream(container.stream)
    worker: Any = upstream._fan_out
    worker.may = lambda: True
    task = asyncio.create_task(upstream.run(standby=True))
    await settle(lambda: container.source.open_now == 1)
    return upstream, task


@pytest.mark.parametrize("connected", [False, True])
def test_what_a_predecessor_delivered_before_the_standby_read_it_does_not_come_twice(connected: bool) -> None:
    """On a busy machine a standby is not connected yet when it takes over, or has not read what was said."""

    async def work() -> None:
        container = RelayContainer()
        gate = container.source.flows if connected else container.source.answers
        gate.clear()
        upstream, task = await standing_by(container)
        for _ in range(3):
            await container.source.say()
        container.last_values.put_if_newer("stream", LastValue("3", int(SystemClock().now() * 1000), "3"))
        taking_over = asyncio.create_task(upstream.take_over())
        await asyncio.sleep(0)
        gate.set()
        await taking_over
        await container.source.say()
        await settle(lambda: bool(container.viewers.values))
        assert container.viewers.values == ["4"]
        task.cancel()
        await asyncio.wait([task])

    run(work)


def test_a_source_that_does_not_repeat_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstreaming, "_BEHIND_S", 0.05)

    async def work() -> None:
        container = RelayContainer()
        upstream, task = await standing_by(container)
        await container.source.say()
        container.last_values.put_if_newer("stream", LastValue("0", int(SystemClock().now() * 1000), "of before"))
        await upstream.take_over()
        await settle(lambda: container.viewers.values == ["1"])
        task.cancel()
        await asyncio.wait([task])

    run(work)


def test_a_successor_delivers_the_newest_of_each_topic() -> None:
    """What it read while it stood by, as far as it is the newest of its topic."""

    async def work() -> None:
        container = RelayContainer(per_second=10, ids=False)
        upstream, task = await standing_by(container)
        for turn in (b"1", b"2"):
            for device in range(5):
                await container.source.say(b'"%d-%b"' % (device, turn), topic=f"t/{device}")
        await settle(lambda: len(upstream._waiting) == 10)
        assert container.viewers.values == []
        await upstream.take_over()
        await settle(lambda: len(container.viewers.values) == 5)
        assert container.viewers.values == [f'"{device}-2"' for device in range(5)]
        task.cancel()
        await asyncio.wait([task])

    run(work)


@pytest.mark.parametrize("ids", [True, False], ids=["with ids", "without"])
def test_ten_handovers_in_a_row_lose_nothing(ids: bool) -> None:
    """A hundred messages a second; with ids none twice either, and never two workers at a time."""

    async def work() -> None:
        container = RelayContainer(ids=ids)
        worker = container.begin(container.relay(handover_s=1000.0), seconds=900)
        await settle(lambda: container.viewers.states == ["connected"])
        async with talking(container):
            for number in range(10):
                asked = [(container.partition, True)] * (number + 1)
                await settle(lambda asked=asked: container.relay_workers.started == asked)  # type: ignore[misc]
                successor = container.begin(container.relay(handover_s=1000.0), seconds=900, successor=True)
                assert await worker == "handed over"
                worker = successor
        await settle(lambda: str(container.source.sent) in container.viewers.values)
        numbers = [int(value) for value in container.viewers.values]
        assert set(numbers) == set(range(1, container.source.sent + 1)), "nothing is lost"
        if ids:
            assert numbers == sorted(set(numbers)), "and nothing repeated"
        order = [name for name, _ in groupby(container.viewers.by)]
        names = [f"worker {n}" for n in range(1, 12)]
        assert order == names[: len(order)], "each sends only after the one before it has ended"
        await end(worker)
        assert container.source.open_now == 0

    run(work)


@pytest.mark.parametrize(("per_second", "repeated"), [(1000, 0), (0, 30)], ids=["conflated", "not"])
def test_what_a_standby_repeats_of_a_source_without_ids(
    per_second: int, repeated: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the newest value wins the newest is enough; else nothing may be lost, so everything comes again."""
    monkeypatch.setattr(RelayWorker, "may_send", lambda _relay: True)

    async def work() -> None:
        container = RelayContainer(ids=False, per_second=per_second)
        holder, standby = (container.relay()._make_upstream(container.stream) for _ in range(2))
        for worker, waits in ((holder, False), (standby, True)):
            asyncio.create_task(worker.run(standby=waits))  # noqa: RUF006 - ends with the loop
            await worker.connected.wait()
        for number in range(1, 31):
            await container.source.say()
            await settle(lambda n=number: container.viewers.values[-1:] == [str(n)])  # type: ignore[misc]
        await holder.pause()
        await container.source.say()
        await settle(lambda: len(standby._waiting) == 31)
        await standby.take_over()
        await settle(lambda: container.viewers.values[-1:] == ["31"])
        assert len(container.viewers.values) == 30 + repeated + 1

    run(work)


def test_streams_are_read_again_when_somebody_waits_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quiet worker reads a version a second, not all streams."""
    monkeypatch.setattr(relaying, "GRACE_S", 30.0)

    async def work() -> None:
        container = RelayContainer()
        task = container.begin(container.relay())
        await settle(lambda: container.viewers.states == ["connected"])
        before, looks = container.streams.queries, container.streams.asked
        await settle(lambda: container.streams.asked > looks + 20)
        assert container.streams.queries == before, "nothing changed, nothing was read"
        other = replace(container.stream, stream_key="other")
        while partition_of(other) != container.partition:
            other = replace(other, stream_key=other.stream_key + "!")
        container.streams.touch(other)
        await settle(lambda: container.viewers.states == ["connected"] * 2)
        await end(task)

    run(work)


def test_who_comes_while_a_stream_is_let_go_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaying, "GRACE_S", 0.2)

    async def work() -> None:
        container = RelayContainer()
        container.streams.rows["stream"] = replace(
            container.stream, last_requested_at=container.stream.last_requested_at - 60
        )
        task = container.begin(container.relay())
        await settle(lambda: container.source.open_now == 1)
        release_if_idle = container.streams.release_if_idle

        def someone_comes_first(stream: Stream) -> bool:
            container.streams.release_if_idle = release_if_idle  # type: ignore[method-assign]
            container.streams.touch(replace(stream, last_requested_at=stream.last_requested_at + 1))
            container.viewers.audience = True
            return release_if_idle(stream)

        container.streams.release_if_idle = someone_comes_first  # type: ignore[method-assign]
        container.viewers.audience = False
        await settle(lambda: container.viewers.audience)
        await container.source.say()
        await settle(lambda: container.viewers.values == ["1"])
        assert len(container.source.opened) == 1 and container.source.open_now == 1, "it was never let go"
        await end(task)

    run(work)


def test_what_a_dead_worker_left_as_connected_is_not_until_it_is() -> None:
    async def work() -> None:
        container = RelayContainer()
        container.streams.rows["stream"] = replace(container.stream, connected=True)
        container.source.answers.clear()
        task = container.begin(container.relay())
        await settle(lambda: container.source.open_now == 1)
        assert not container.streams.rows["stream"].connected, "it has not answered yet"
        container.source.answers.set()
        await settle(lambda: container.streams.rows["stream"].connected)
        await end(task)

    run(work)


def test_a_successor_replaces_a_holder_that_died() -> None:
    async def work() -> None:
        container = RelayContainer()
        died = container.leases.claim(container.partition, "dead", SystemClock().now() - LEASE_S - CLAIM_AFTER_S - 1)
        assert died is not None
        task = container.begin(container.relay(), successor=True)
        await settle(lambda: container.leases.rows[container.partition].owner != "dead")
        await container.source.say()
        await settle(lambda: container.viewers.values == ["1"])
        await end(task)

    run(work)


@pytest.mark.parametrize("died", [True, False], ids=["died", "handed over"])
def test_a_stream_with_a_history_says_since_when_it_misses_nothing(died: bool) -> None:
    """Of a holder that died it does not: what that one had gathered is lost. One that hands over has written it."""

    async def work() -> None:
        container, before = RelayContainer(), list[asyncio.Task[str]]()
        container.streams.rows["stream"] = replace(container.stream, history=History(60, 1000, 10**10))
        if died:
            assert container.leases.claim(container.partition, "dead", SystemClock().now() - LEASE_S - 60)
        else:
            before = [container.begin(container.relay(handover_s=1000.0), seconds=900)]
            await settle(lambda: container.streams.rows["stream"].connected)
        container.streams.rows["stream"] = replace(container.streams.rows["stream"], connected=True, connected_at=1)
        first = container.leases.rows[container.partition].owner
        task = container.begin(container.relay(), successor=True)
        await settle(lambda: container.leases.rows[container.partition].owner != first)
        await container.source.say()
        await settle(lambda: container.viewers.values == ["1"] and container.streams.rows["stream"].connected)
        assert (container.streams.rows["stream"].connected_at == 1) is not died
        await end(task, *before)

    run(work)


def test_a_worker_that_finds_the_lease_overdue_connects_at_once_and_claims_at_its_end() -> None:
    async def work() -> None:
        container = RelayContainer()
        # It ends half a second from now for whoever wants to claim.
        died = container.leases.claim(container.partition, "dead", SystemClock().now() - LEASE_S - CLAIM_AFTER_S + 0.5)
        assert died is not None
        task = container.begin(container.relay())
        await settle(lambda: container.source.open_now == 1)
        await container.source.say()
        assert container.leases.rows[container.partition].owner == "dead" and not container.viewers.values
        await settle(lambda: container.viewers.values == ["1"])
        assert container.leases.rows[container.partition].fence == died.fence + 1
        await end(task)

    run(work)


def test_an_overdue_holder_that_lives_hands_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was slow, not dead: whoever thought so is its successor, and a third one is not needed."""
    monkeypatch.setattr(relaying, "LEASE_S", 0.6)

    async def work() -> None:
        container = RelayContainer()
        slow = container.begin(container.relay())
        await settle(lambda: container.viewers.states == ["connected"])
        lease = container.leases.rows[container.partition]
        container.leases.rows[container.partition] = replace(lease, until=lease.until - OVERDUE_S - 1)
        others = [container.begin(container.relay()) for _ in range(2)]
        await settle(lambda: container.source.open_now > 1)
        while not slow.done():
            await container.source.say()
            await asyncio.sleep(0.005)
        assert await slow == "handed over"
        await settle(lambda: str(container.source.sent) in container.viewers.values)
        assert container.viewers.values == [str(n) for n in range(1, container.source.sent + 1)]
        await end(*others)

    run(work)


def test_a_worker_with_other_settings_takes_over_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A running function keeps the settings it was started with; two new ones at once are no harm."""
    monkeypatch.setattr(relaying, "LEASE_S", 0.3)

    async def work() -> None:
        container = RelayContainer()
        old = container.begin(container.relay(version="old"))
        await settle(lambda: container.viewers.states == ["connected"])
        assert await container.begin(container.relay(version="new")) == "not needed", "a process may be the older one"
        new = [container.begin(container.relay(version="new"), newest=True) for _ in range(2)]
        while not old.done():
            await container.source.say()
            await asyncio.sleep(0.005)
        assert await old == "handed over" and container.frames[0].flushed == 1
        await settle(lambda: any(task.done() for task in new))
        (ended,) = [task for task in new if task.done()]
        (running,) = [task for task in new if not task.done()]
        assert await ended == "not needed"
        await settle(lambda: str(container.source.sent) in container.viewers.values)
        assert container.viewers.values == [str(n) for n in range(1, container.source.sent + 1)]
        await end(running)

    run(work)


SERVICE = worker_version("settings", "code", Kind.SERVICE)


def test_a_service_stays_though_nobody_listens() -> None:
    async def work() -> None:
        container = RelayContainer()
        relay = container.relay(version=SERVICE)
        worker = container.begin(relay)
        await settle(lambda: container.viewers.states == ["connected"])
        container.viewers.audience = False
        await settle(lambda: container.source.open_now == 0)
        looked = container.streams.asked + 2 * relaying.EXIT_S / relaying.REFRESH_S
        await settle(lambda: container.streams.asked > looked)  # a function would have ended meanwhile
        assert not worker.done() and relay.may_send()
        relay.stop(30)
        assert await worker == "out of time"
        assert container.leases.current(container.partition) is None

    run(work)


@pytest.mark.parametrize("ids", [True, False], ids=["with ids", "without"])
def test_a_process_that_is_told_to_end_loses_nothing_when_another_is_there(ids: bool) -> None:
    async def work() -> None:
        container = RelayContainer(ids=ids)
        first = container.relay(version=SERVICE)
        ending = container.begin(first)
        await settle(lambda: container.viewers.states == ["connected"])
        assert await container.begin(container.relay(version=SERVICE), newest=True) == "not needed"
        async with talking(container):
            await settle(lambda: len(container.viewers.values) >= 20)
            first.stop(30)
            await settle(lambda: (lease := container.leases.current(container.partition)) is not None and lease.leaving)
            assert not ending.done() and first.may_send(), "it goes on until another one is connected"
            second = container.begin(container.relay(version=SERVICE))
            assert await ending == "handed over" and container.frames[0].flushed == 1
            until_then = container.source.sent
            await settle(lambda: container.source.sent >= until_then + 20)
        await settle(lambda: str(container.source.sent) in container.viewers.values)
        numbers = [int(value) for value in container.viewers.values]
        assert set(numbers) == set(range(1, container.source.sent + 1)), "nothing is lost"
        assert not ids or numbers == sorted(set(numbers)), "and nothing repeated"
        assert not container.relay_workers.started, "no function was asked for"
        await end(second)

    run(work)


def test_without_another_it_sends_what_it_has_and_the_next_goes_on_behind_it() -> None:
    async def work() -> None:
        container = RelayContainer()
        first = container.relay(version=SERVICE)
        ending = container.begin(first)
        await settle(lambda: container.viewers.states == ["connected"])
        for _ in range(20):
            await container.source.say()
        first.stop(0.05)
        assert await ending == "out of time" and container.frames[0].flushed == 1
        await container.source.say()  # while nobody is connected
        second = container.begin(container.relay(version=SERVICE))
        await settle(lambda: "21" in container.viewers.values)
        assert container.viewers.values == [str(number) for number in range(1, 22)]
        await end(second)

    run(work)


def test_a_standby_that_is_told_to_end_is_no_successor() -> None:
    """Once it is noted as the successor it is handed the partition, and hands it on."""

    async def work() -> None:
        container = RelayContainer()
        first = container.relay(version=SERVICE)
        holding = container.begin(first)
        await settle(lambda: container.viewers.states == ["connected"])
        container.source.answers.clear()
        second = container.relay(version="newer")
        standing_by = container.begin(second, newest=True)
        await settle(lambda: container.source.open_now == 2)
        second.stop(30)
        container.source.answers.set()
        assert await standing_by == "not needed"
        lease = container.leases.current(container.partition)
        assert lease is not None and not lease.successor and not holding.done()
        await end(holding)

    run(work)


def test_a_store_that_does_not_answer_is_told_again_that_the_holder_ends() -> None:
    async def work() -> None:
        container = RelayContainer()
        first = container.relay(version=SERVICE)
        ending = container.begin(first)
        await settle(lambda: container.viewers.states == ["connected"])
        container.leases.down = True
        first.stop(30)
        await settle(lambda: bool(container.observer.faults))
        container.leases.down = False
        await settle(lambda: (lease := container.leases.current(container.partition)) is not None and lease.leaving)
        second = container.begin(container.relay(version=SERVICE))
        assert await ending == "handed over"
        await end(second)

    run(work)


def test_what_is_switched_off_ends_and_viewers_are_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaying, "LEASE_S", 0.3)

    async def work() -> None:
        container = RelayContainer()
        old = container.begin(container.relay(version="on"))
        await settle(lambda: container.viewers.states == ["connected"])
        off = container.relay(version="off", enabled=frozenset())
        assert await container.begin(off, newest=True) == "nobody listens" and container.frames[1].flushed == 1
        assert await old == "handed over" and container.source.open_now == 0
        assert container.viewers.told == [("STREAM_POLICY_BLOCKED", "off")]
        assert not container.streams.rows["stream"].connected
        off = container.relay(version="off", enabled=frozenset())
        assert await container.begin(off, newest=True) == "nobody listens"
        assert len(container.viewers.told) == 1, "the minute's worker says nothing new"
        again = container.begin(container.relay(version="on"))
        await settle(lambda: container.viewers.states == ["connected"] * 2)
        await end(again)

    run(work)


@pytest.mark.parametrize("steps", range(16))
def test_it_ends_when_a_message_comes_at_the_moment_in_which_it_is_ended(steps: int) -> None:
    """At every step of the loop from the message on. One before it is held back, so the next one is awaited with a
    limit of time."""

    async def work() -> None:
        container = RelayContainer(per_second=1)
        relay = container.relay()
        running = container.begin(relay)
        await settle(lambda: container.viewers.states == ["connected"])
        await container.source.say()
        await settle(lambda: container.viewers.values == ["1"])
        await container.source.say()
        (active,) = relay._active.values()
        await settle(lambda: active.upstream._conflator is not None and active.upstream._conflator.next_at is not None)
        await container.source.say()
        for _ in range(steps):
            await asyncio.sleep(0)
        active.task.cancel()
        await asyncio.wait([active.task], timeout=5)
        assert active.task.done()
        await end(running)

    run(work)
