"""A secret that is changed while upstreams are connected with it: the connection changes, and viewers go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from tests.doubles.platform import MemoryObserver
from tests.unit.usecases.relay.test_relay import Profiles, RelayContainer, Source, end, in_a_hurry, run, settle
from tests.unit.usecases.relay.test_upstream_endings import Skipping
from tidegate.domain.profiles import BrokerProfile, CredentialProfile, CredentialType, Transport
from tidegate.domain.subscriptions import Stream
from tidegate.ports.relay import MqttRequest, Opened, UpstreamEvent, UpstreamFault, UpstreamMessage, UpstreamRequest
from tidegate.protocol.messages import ErrorCode
from tidegate.usecases.relay import reading
from tidegate.usecases.relay import worker as relaying
from tidegate.usecases.relay.check_credentials import CHECK_S, CheckCredentials
from tidegate.usecases.relay.reading import REPLACE_S, Readings
from tidegate.usecases.relay.upstream_requests import StoredUpstreamRequests

__all__ = ["in_a_hurry"]

AUTH_FAILED = ("STREAM_AUTH_FAILED", "no")


class Door(Source):
    """A source that knows with which secret each connection came.

    Attributes:
        now: the revisions of the secrets of the connections that are open or being opened.
        silent: revisions whose connects are never answered.
        wrong: revisions that are refused.
        most: how many connections it admits at the same time.
    """

    def __init__(self, *, ids: bool = True) -> None:
        super().__init__(ids=ids)
        self.now: list[int] = []
        self.silent: set[int] = set()
        self.wrong: set[int] = set()
        self.most = 2
        self.turned_away = 0

    async def open(self, request: UpstreamRequest | MqttRequest, last_id: str) -> AsyncIterator[UpstreamEvent]:
        revision = request.secret_revision
        if len(self.now) >= self.most:
            self.turned_away += 1
            raise UpstreamFault(ErrorCode.CONNECT_FAILED, "one is enough")
        self.now.append(revision)
        try:
            if revision in self.silent:
                await asyncio.Event().wait()
            if revision in self.wrong:
                self.opened.append((request, last_id))
                raise UpstreamFault(ErrorCode.AUTH_FAILED, "no", refused=True)
            async for event in super().open(request, last_id):
                yield event
        finally:
            self.now.remove(revision)


class Changing(RelayContainer):
    """A stream with a credential, whose secret changes."""

    def __init__(self, *, ids: bool = True) -> None:
        super().__init__(credential=True, ids=ids)
        self.source: Door = Door(ids=ids)

    def change(self) -> None:
        assert self.profiles.profile is not None
        self.profiles.profile = replace(
            self.profiles.profile, secret_revision=self.profiles.profile.secret_revision + 1
        )

    def count(self, name: str) -> int:
        return sum(times for (counted, *_), times in self.observer.counts.items() if counted == name)

    async def connected(self) -> asyncio.Task[str]:
        task = self.begin(self.relay())
        await settle(lambda: self.viewers.states == ["connected"])
        return task


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaying, "CHECK_S", 0.02)


@pytest.mark.parametrize("ids", [True, False], ids=["with ids", "without ids"])
def test_viewers_go_on_without_an_error_and_miss_nothing(ids: bool) -> None:
    async def work() -> None:
        container = Changing(ids=ids)
        task = await container.connected()
        for _ in range(3):
            await container.source.say()
        await settle(lambda: container.viewers.values == ["1", "2", "3"])
        container.change()
        await settle(lambda: container.source.now == [2])
        for _ in range(3):
            await container.source.say()
        await settle(lambda: len(container.viewers.values) == 6)
        assert container.viewers.values == ["1", "2", "3", "4", "5", "6"]
        assert container.viewers.states == ["connected"] and not container.viewers.told
        assert container.streams.rows["stream"].connected and container.count("upstream_faults") == 0
        first, second = container.source.opened
        assert isinstance(first[0], UpstreamRequest) and isinstance(second[0], UpstreamRequest)
        assert first[0].credential != second[0].credential and second[1] == ("3" if ids else "")
        await end(task)
        assert not container.source.now

    run(work)


def test_what_both_connections_bring_is_delivered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first goes on until the second is open, which then repeats what came since its request."""

    async def work() -> None:
        container = Changing()
        task = await container.connected()
        container.source.answers.clear()
        container.change()
        await settle(lambda: container.source.now == [1, 2])
        for _ in range(5):
            await container.source.say()
        await settle(lambda: len(container.viewers.values) == 5)
        container.source.answers.set()
        await settle(lambda: container.source.now == [2])
        await container.source.say()
        await settle(lambda: len(container.viewers.values) >= 6)
        assert container.viewers.values == ["1", "2", "3", "4", "5", "6"]
        await end(task)

    run(work)


def test_changed_twice_in_a_row_the_last_one_counts() -> None:
    async def work() -> None:
        container = Changing()
        container.source.silent = {2}
        task = await container.connected()
        container.change()
        await settle(lambda: container.source.now == [1, 2])
        container.change()
        await settle(lambda: container.source.now == [3])
        await container.source.say()
        await settle(lambda: container.viewers.values == ["1"])
        assert not container.viewers.told and container.count("upstreams_replaced") == 1
        await end(task)

    run(work)


def test_a_secret_that_keeps_changing_does_not_keep_the_old_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound counts from the first change that was noticed."""
    monkeypatch.setattr(reading, "REPLACE_S", 0.3)

    async def work() -> None:
        container = Changing()
        container.source.silent = set(range(2, 1000))
        task = await container.connected()
        began = asyncio.get_running_loop().time()
        while 1 in container.source.now:
            container.change()
            await asyncio.sleep(0.05)
            assert asyncio.get_running_loop().time() < began + 10, "it goes on and on"
        assert not container.viewers.told
        await end(task)

    run(work)


def test_changed_while_it_is_connecting() -> None:
    async def work() -> None:
        container = Changing()
        container.source.silent = {1}
        task = container.begin(container.relay())
        await settle(lambda: container.source.now == [1])
        container.change()
        await settle(lambda: container.source.now == [2] and container.viewers.states == ["connected"])
        assert not container.viewers.told
        await end(task)

    run(work)


def test_changed_while_its_request_is_prepared() -> None:
    """The secret that was read is old before it is used: it is read again, and never sent."""

    async def work() -> None:
        asked: list[int] = []
        made: list[int] = []

        async def request() -> UpstreamRequest:
            asked.append(1)
            if len(asked) == 1:
                readings.note_secret(2)
            return UpstreamRequest("sse", "https://h/", {}, secret_revision=len(asked))

        async def connect(request: UpstreamRequest | MqttRequest) -> AsyncIterator[UpstreamEvent]:
            made.append(request.secret_revision)
            yield Opened()

        readings = Readings(request=request, connect=connect, take=nothing, replaced=nothing)
        await readings.read()
        assert made == [2]

    run(work)


def test_a_wrong_one_is_told_as_a_fault_and_tried_again_when_it_changes() -> None:
    async def work() -> None:
        container = Changing()
        container.source.wrong = {2}
        container.reconnect_ms = (1, 600_000)
        task = await container.connected()
        container.change()
        await settle(lambda: container.viewers.told == [AUTH_FAILED] and not container.source.now)
        checked = container.profiles.checked
        await settle(lambda: container.profiles.checked >= checked + 3)
        assert len(container.source.opened) == 2, "it was not hammered, though it was checked"
        container.change()
        await settle(lambda: container.source.now == [3])
        await container.source.say()
        await settle(lambda: container.viewers.values == ["1"])
        assert container.viewers.told == [AUTH_FAILED] and container.viewers.states == ["connected", "connected"]
        await end(task)

    run(work)


def test_a_source_that_admits_one_connection_is_asked_again_alone() -> None:
    async def work() -> None:
        container = Changing()
        container.source.most = 1
        task = await container.connected()
        container.change()
        await settle(lambda: container.source.now == [2])
        await container.source.say()
        await settle(lambda: container.viewers.values == ["1"])
        assert container.source.turned_away == 1 and not container.viewers.told
        await end(task)

    run(work)


def test_what_cannot_be_checked_is_kept_and_noticed_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long that takes: "could not be checked" is not "changed"."""
    monkeypatch.setattr(reading, "REPLACE_S", 0.05)

    async def work() -> None:
        container = Changing()
        task = await container.connected()
        container.profiles.down = True
        container.change()
        await settle(lambda: container.count("credential_checks_failed") >= 15)
        await container.source.say()
        await settle(lambda: container.viewers.values == ["1"])
        assert container.source.now == [1] and not container.viewers.told
        assert container.count("upstreams_replaced") == 0
        container.profiles.down = False
        await settle(lambda: container.source.now == [2])
        assert not container.viewers.told
        await end(task)

    run(work)


@pytest.mark.parametrize("comes_back", [True, False], ids=["in time", "too late"])
def test_while_the_key_does_not_answer_the_old_connection_stays_for_a_while(
    monkeypatch: pytest.MonkeyPatch, comes_back: bool
) -> None:
    """That the secret has changed is known then, so the old connection ends even if no other can be made."""
    monkeypatch.setattr(reading, "REPLACE_S", 60 if comes_back else 0.2)
    monkeypatch.setattr(reading, "_AGAIN_S", 0.02)

    async def work() -> None:
        container = Changing()
        task = await container.connected()
        container.cipher.down = True
        asked = container.cipher.opened
        container.change()
        await settle(lambda: container.cipher.opened >= asked + 3)
        could_not = ("STREAM_CONNECT_FAILED", "Upstream could not be prepared")
        if comes_back:
            assert container.source.now == [1]
        else:
            await settle(lambda: not container.source.now and could_not in container.viewers.told)
        container.cipher.down = False
        await settle(lambda: container.source.now == [2])
        await settle(lambda: container.viewers.states == ["connected"] * (1 if comes_back else 2))
        assert set(container.viewers.told) == (set() if comes_back else {could_not})
        await end(task)

    run(work)


def test_a_deleted_profile_ends_the_connection() -> None:
    async def work() -> None:
        container = Changing()
        task = await container.connected()
        container.profiles.profile = None
        await settle(lambda: not container.source.now and bool(container.viewers.told))
        assert set(container.viewers.told) == {("STREAM_POLICY_BLOCKED", "The credential profile was changed")}
        await end(task)

    run(work)


def test_changed_while_a_worker_hands_over() -> None:
    """The one that ends and the one that stands by both change theirs. Every value comes once."""

    async def work() -> None:
        container = Changing()
        first = await container.connected()
        await container.source.say()
        await settle(lambda: container.viewers.values == ["1"])
        container.source.answers.clear()
        second = container.begin(container.relay(), successor=True)
        await settle(lambda: container.source.now == [1, 1])
        container.change()
        container.source.most = 4
        await settle(lambda: container.source.now == [1, 1, 2, 2])
        await container.source.say()
        container.source.answers.set()
        assert await first == "handed over"
        await container.source.say()
        await settle(lambda: len(container.viewers.values) >= 3)
        assert container.viewers.values == ["1", "2", "3"] and container.viewers.by[-1] == "worker 2"
        assert container.source.now == [2] and not container.viewers.told
        await end(second)

    run(work)


@pytest.mark.parametrize("second", ["silent", "unprepared"])
def test_how_long_the_old_connection_lives_at_most(second: str) -> None:
    """From the notice on, whatever the one that replaces it does. Before that, a check comes every `CHECK_S`."""
    ended_at: list[float] = []

    async def work() -> None:
        loop = asyncio.get_running_loop()

        async def request() -> UpstreamRequest:
            if second == "unprepared" and readings.replacing:
                await asyncio.Event().wait()
            return UpstreamRequest("sse", "https://h/", {}, secret_revision=2 if readings.replacing else 1)

        async def connect(request: UpstreamRequest | MqttRequest) -> AsyncIterator[UpstreamEvent]:
            if request.secret_revision == 2:
                await asyncio.Event().wait()
            try:
                yield Opened()
                while True:
                    await asyncio.sleep(0.1)
                    yield UpstreamMessage(b"1")
            finally:
                ended_at.append(loop.time())

        readings = Readings(request=request, connect=connect, take=nothing, replaced=nothing)
        task = asyncio.create_task(readings.read())
        await asyncio.sleep(100)
        readings.note_secret(2)
        await asyncio.sleep(100)
        assert not task.done()
        task.cancel()

    with asyncio.Runner(loop_factory=Skipping) as runner:
        runner.run(work())
    assert ended_at == [pytest.approx(100 + REPLACE_S)]
    assert CHECK_S + REPLACE_S == 15


def test_a_check_is_one_read_for_each_credential() -> None:
    """20 streams of two credentials, and one without: two reads."""

    async def work() -> None:
        profiles, noted = Profiles(), list[int | None]()
        check = CheckCredentials(profiles=profiles, observer=MemoryObserver())  # type: ignore[arg-type]
        streams = [using(f"{number}", "a" if number % 2 else "b") for number in range(20)]
        await check([(stream, noted.append) for stream in [*streams, using("x", None)]])
        assert profiles.checked == 2 and noted == [1] * 20
        await check([(using("x", None), noted.append)])
        await check([])
        assert profiles.checked == 2, "without a credential nothing is read"

    run(work)


def test_one_credential_that_cannot_be_understood_does_not_keep_the_others_from_being_checked() -> None:
    class Odd(Profiles):
        def credential(self, profile_id: str) -> CredentialProfile | None:
            if profile_id == "odd":
                raise KeyError("secret_revision")
            return super().credential(profile_id)

    async def work() -> None:
        profiles, noted, observer = Odd(), list[int | None](), MemoryObserver()
        check = CheckCredentials(profiles=profiles, observer=observer)  # type: ignore[arg-type]
        await check([(using("1", "odd"), noted.append), (using("2", "p"), noted.append)])
        assert noted == [1] and [message for message, _ in observer.faults] == ["credential not checked"]

    run(work)


def test_a_broker_is_not_entered_with_a_credential_of_another_type() -> None:
    """The type may have changed since the dashboard was saved."""
    profiles = Profiles()
    profiles.profile = CredentialProfile("p", "p", CredentialType.BEARER, secret_revision=2)
    profiles.brokers = BrokerProfile("b", "b", Transport.EXTERNAL, "mqtts://h")
    requests = StoredUpstreamRequests(profiles=profiles, cipher=None)  # type: ignore[arg-type]
    intent = {"protocol": "mqtt", "brokerProfileId": "b", "brokerRevision": 1, "topic": "a", "qos": 0}
    intent |= {"keepaliveSeconds": 30, "credentialProfileId": "p", "credentialRevision": 1}
    with pytest.raises(UpstreamFault) as fault:
        requests(Stream("s", "mqtt", "json", None, None, last_requested_at=0, intent=intent))
    assert fault.value.refused and fault.value.code is ErrorCode.AUTH_FAILED


async def nothing(*_: object) -> None: ...


def using(key: str, profile_id: str | None) -> Stream:
    intent = {"credentialProfileId": profile_id}
    return Stream(key, "sse", "json", None, None, last_requested_at=0, intent=intent)
