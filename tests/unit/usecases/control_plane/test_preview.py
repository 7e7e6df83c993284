"""Previews on doubles: when they end, what is a fault, and that nothing is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest

from tests.containers.gateway import EGRESS, FakeProfiles
from tests.doubles.platform import CountingIds, ManualClock, MemoryObserver
from tests.doubles.stores import MemoryCaps, MemoryConnections, MemoryLastValues, MemoryStreams
from tidegate.domain.access import Role, Visibility
from tidegate.domain.audit import AuditEvent
from tidegate.domain.dashboards import Dashboard
from tidegate.domain.intents import IntentDefaults
from tidegate.domain.limits import FailureMode
from tidegate.domain.profiles import BrokerProfile, Transport
from tidegate.domain.stream_policy import StreamPolicy
from tidegate.domain.subscriptions import Fault, LastValue, Stream
from tidegate.domain.users import User
from tidegate.errors import Denied, InvalidInput, LimitReached, NotFound, Unavailable
from tidegate.ports.relay import (
    MqttRequest,
    Opened,
    Oversize,
    UpstreamEvent,
    UpstreamFault,
    UpstreamMessage,
    UpstreamRequest,
    Upstreams,
)
from tidegate.protocol.messages import ErrorCode
from tidegate.usecases.control_plane.preview import AT_ONCE, MOST_MESSAGES, Preview, Previewed, PreviewPolicy
from tidegate.usecases.control_plane.resolve_intents import ResolveIntents
from tidegate.usecases.limits.connection_quota import ConnectionQuota

EDITOR = User("editor", "e@x.example", Role.EDITOR, True, 1, "")
HELPER = User("helper", "h@x.example", Role.VIEWER, True, 1, "")
BOARD = Dashboard("d", "editor", Visibility.PRIVATE, "token", 0, {})
URL = {"url": "https://up.example/"}
#: A source that says nothing is waited for so long, seconds.
LONGEST_S = 0.2


class Sources(Upstreams):
    """Yields the events, raises the faults, and waits for ever at None. Counts what is open."""

    def __init__(self, *events: UpstreamEvent | Exception | None) -> None:
        self.events = events
        self.made, self.connected, self.asked = 0, 0, list[UpstreamRequest | MqttRequest]()

    def __call__(self) -> Sources:
        self.made += 1
        return self

    async def open(self, request: UpstreamRequest | MqttRequest, last_id: str) -> AsyncIterator[UpstreamEvent]:
        self.asked.append(request)
        self.connected += 1
        try:
            for event in self.events:
                if event is None:
                    await asyncio.Event().wait()
                elif isinstance(event, Exception):
                    raise event
                else:
                    yield event
        finally:
            self.connected -= 1

    async def close(self) -> None:
        assert not self.connected, "connections end before their adapter does"
        self.made -= 1


class Container:
    def __init__(self, *events: UpstreamEvent | Exception | None, **policy: Any) -> None:
        self.sources, self.clock, self.profiles = Sources(*events), ManualClock(), FakeProfiles()
        self.caps, self.streams, self.last_values = MemoryCaps(MemoryConnections()), MemoryStreams(), MemoryLastValues()
        self.profiles.by_broker["core"] = BrokerProfile("core", "core", Transport.IOT_CORE)
        self.recorded: list[AuditEvent] = []
        self.looked_at: list[str] = []
        self.full = False
        profiles: Any = self.profiles
        audit: Any = self
        limits: Any = self
        self.requests: Callable[[Stream], UpstreamRequest | MqttRequest] = lambda stream: UpstreamRequest(
            stream.protocol, str((stream.intent or {})["url"]), {}
        )
        streams = StreamPolicy(frozenset({"mqtt", "sse"}), ("a/#",), "a", EGRESS)
        waits = {"longest_s": LONGEST_S, "further_s": 0.02, "poll_s": 0.005}
        self.preview = Preview(
            policy=PreviewPolicy(**{"enabled": True, "streams": streams, "max_bytes": 20, **waits, **policy}),
            editable=self.editable,
            profiles=profiles,
            resolve=ResolveIntents(profiles=profiles, defaults=IntentDefaults()),
            limits=limits,
            quota=ConnectionQuota(
                store=self.caps,
                failure_mode=FailureMode.CLOSED,
                timeout_ms=1000,
                clock=self.clock,
                observer=MemoryObserver(),
            ),
            requests=lambda stream: self.requests(stream),
            connect=self.sources,
            streams=self.streams,
            last_values=self.last_values,
            audit=audit,
            clock=self.clock,
            ids=CountingIds(),
        )

    def editable(self, user: User, dashboard_id: str) -> Dashboard:
        if dashboard_id != "d":
            raise NotFound("Dashboard not found")
        return BOARD

    def record(self, event: AuditEvent) -> None:
        self.recorded.append(event)

    def deadline(self) -> None: ...

    def upstream(self, owner_id: str, stream_key: str, deadline: object) -> None:
        self.looked_at.append(owner_id)
        if self.full:
            raise LimitReached("Too many upstreams")

    def ask(self, settings: Mapping[str, Any] = URL, kind: str = "sse", user: User = EDITOR) -> Previewed:
        try:
            return self.preview(user, "d", kind, settings)
        finally:
            assert (self.sources.made, self.sources.connected) == (0, 0), "something is left"
            assert not any(holders for holders in self.caps.holders.values()), "a place is left"


def message(number: int) -> UpstreamMessage:
    return UpstreamMessage(str(number).encode())


def test_it_ends_with_five_messages() -> None:
    found = Container(Opened(), *map(message, range(9))).ask()
    assert [each.payload for each in found.messages] == ["0", "1", "2", "3", "4"] and found.fault is None
    assert len(found.messages) == MOST_MESSAGES


def test_it_waits_little_after_the_first_message() -> None:
    found = Container(Opened(), message(1), message(2), None, longest_s=600).ask()
    assert [each.payload for each in found.messages] == ["1", "2"] and found.fault is None


def test_a_source_that_says_nothing_is_no_fault() -> None:
    assert Container(Opened(), None).ask() == Previewed([])


def test_a_source_that_does_not_answer_is_one() -> None:
    fault = Container(None).ask().fault
    assert fault is not None and fault.code == ErrorCode.CONNECT_TIMEOUT and "0.2 seconds" in fault.text


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (UpstreamFault(ErrorCode.AUTH_FAILED, "no"), ErrorCode.AUTH_FAILED),
        (Oversize(), ErrorCode.MESSAGE_TOO_LARGE),
        (UpstreamMessage(b"x" * 21), ErrorCode.MESSAGE_TOO_LARGE),
        (UpstreamMessage(b"{"), ErrorCode.PROTOCOL_ERROR),
    ],
)
def test_a_fault_ends_it_and_what_came_is_shown(event: UpstreamEvent | Exception, code: ErrorCode) -> None:
    found = Container(Opened(), message(1), event, message(2)).ask()
    assert [each.payload for each in found.messages] == ["1"]
    assert found.fault is not None and found.fault.code == code


def test_a_value_that_is_taken_back_is_no_message() -> None:
    found = Container(Opened(), UpstreamMessage(b"", deleted=True), message(1), None).ask()
    assert [each.payload for each in found.messages] == ["1"]


def test_a_fault_of_ours_leaves_nothing() -> None:
    with pytest.raises(ZeroDivisionError):
        Container(Opened(), message(1), ZeroDivisionError()).ask()


@pytest.mark.parametrize(
    ("settings", "kind", "code"),
    [
        ({"url": "https://10.0.0.1/"}, "sse", ErrorCode.POLICY_BLOCKED),
        (URL, "websocket", ErrorCode.POLICY_BLOCKED),
        ({"brokerProfileId": "core", "topic": "b/x"}, "mqtt", ErrorCode.POLICY_BLOCKED),
    ],
)
def test_what_a_subscribe_would_be_refused_is_a_fault(settings: dict[str, str], kind: str, code: ErrorCode) -> None:
    container = Container(Opened(), message(1))
    fault = container.ask(settings, kind).fault
    assert fault is not None and fault.code == code and not container.sources.asked and not container.looked_at


def test_the_owners_limit_of_upstreams_holds() -> None:
    container = Container(Opened(), message(1))
    container.full = True
    fault = container.ask().fault
    assert fault == Fault(ErrorCode.RATE_LIMITED, "Too many upstreams")
    assert container.looked_at == ["editor"] and not container.sources.asked


def test_with_realtime_off_nothing_is_connected() -> None:
    container = Container(Opened(), message(1), enabled=False)
    fault = container.ask().fault
    assert fault is not None and fault.text == "Realtime is disabled" and not container.sources.asked


def test_what_saving_refuses_is_refused() -> None:
    container = Container(Opened(), message(1))
    for settings, kind, error in (
        ({}, "sse", InvalidInput),
        (URL | {"credentialProfileId": "none"}, "sse", InvalidInput),
        (URL, "clock", InvalidInput),
    ):
        with pytest.raises(error):
            container.ask(settings, kind)
    with pytest.raises(Denied):
        container.ask({"brokerProfileId": "core", "topic": "a/x"}, "mqtt", HELPER)
    assert not container.sources.asked and not container.recorded


def test_a_store_that_does_not_answer_is_no_fault_of_the_source() -> None:
    container = Container(Opened())

    def down(_stream: Stream) -> UpstreamRequest:
        raise Unavailable("down")

    container.requests = down
    with pytest.raises(Unavailable):
        container.ask()


def test_a_user_has_two_at_the_same_time() -> None:
    container = Container(Opened(), message(1))
    for number in range(AT_ONCE):
        assert container.caps.take("preview#editor", 0, AT_ONCE, f"other-{number}")
    with pytest.raises(LimitReached, match="at most 2 at the same time"):
        container.preview(EDITOR, "d", "sse", URL)
    assert not container.sources.asked
    container.caps.release("preview#editor", 0, "other-0")
    assert container.preview(EDITOR, "d", "sse", URL).messages
    assert container.caps.take("preview#editor", 0, AT_ONCE, "third"), "it gave its place back"


def test_the_audit_log_is_told_who_and_of_which_kind() -> None:
    container = Container(Opened(), message(1), None)
    container.ask()
    (event,) = container.recorded
    assert (event.action, event.actor_id, event.target_id) == ("datasource.previewed", "editor", "d")
    assert event.metadata == {"type": "sse"}


TOPIC = {"brokerProfileId": "core", "topic": "a/+"}


def value(number: int, topic: str = "a/x") -> LastValue:
    return LastValue(str(number), number, f"m{number}", topic)


def registered(container: Container) -> Stream:
    (stream,) = container.streams.of_source("a/#").streams
    return stream


def test_known_values_of_iot_core_are_answered_at_once() -> None:
    container = Container(longest_s=600)
    probe = Container()
    probe.ask(TOPIC, "mqtt")
    key = registered(probe).stream_key
    for number in range(7):
        container.last_values.put_if_newer(key, value(number, f"a/{number}"))
    found = container.ask(TOPIC, "mqtt")
    assert [(each.payload, each.topic) for each in found.messages] == [(str(n), f"a/{n}") for n in range(2, 7)]
    assert not container.sources.asked


def test_a_stream_of_iot_core_is_registered_for_a_minute_only() -> None:
    container = Container()
    assert container.ask(TOPIC, "mqtt") == Previewed([])
    assert registered(container).last_requested_at == int(container.clock.now()) - 86_400 + 60


def test_a_stream_that_somebody_watches_stays_as_it_is() -> None:
    probe = Container()
    probe.ask(TOPIC, "mqtt")
    container, stream = Container(), registered(probe)
    now = int(container.clock.now())
    watched = Stream(stream.stream_key, "mqtt", "json", stream.allowed_topic, stream.topic_filter, now)
    container.streams.touch(watched)
    container.ask(TOPIC, "mqtt")
    assert registered(container).last_requested_at == now


def test_values_that_come_meanwhile_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    container, looks = Container(longest_s=600, further_s=0.05), list[int]()
    newest = container.last_values.newest

    def come(stream_key: str) -> Any:
        looks.append(1)
        if len(looks) == 3:
            container.last_values.put_if_newer(stream_key, value(1))
        return newest(stream_key)

    monkeypatch.setattr(container.last_values, "newest", come)
    found = container.ask(TOPIC, "mqtt")
    assert [(each.payload, each.topic, each.at) for each in found.messages] == [("1", "a/x", 0.001)]
