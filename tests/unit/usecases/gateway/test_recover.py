"""A viewer who was away gets what came between: the points since the last value that the viewer has."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.containers.gateway import DASHBOARD, GatewayContainer
from tidegate.adapters.aws.catch_up_queue import read_catch_up, written_catch_up
from tidegate.domain.access import FRESH_S
from tidegate.domain.history import History, Point
from tidegate.domain.subscriptions import LastValue, Stream
from tidegate.ports.delivery import Delivery
from tidegate.ports.history import Series
from tidegate.usecases.delivery.keep_history import WRITE_S, KeepInBatches
from tidegate.usecases.gateway import recover

EVERY_MS = 1000
HISTORY = {"seconds": 600, "everyMs": EVERY_MS}


class Scene:
    """A datasource with a history. `truth`: all values that were handled, by topic, as (seq, number)."""

    def __init__(self, topic: str = "a/b", history: dict[str, int] | None = HISTORY, *, batches: bool = False) -> None:
        """`batches`: the values are kept as the relay does, and written when the scene says so."""
        self.container = made = GatewayContainer()
        made.add_datasource("s", topic, history=history)
        self.truth: dict[str | None, list[tuple[str, float]]] = {}
        self.keep = None
        if batches:
            self.keep = KeepInBatches(lambda: made.history, made.clock, made.observer)
            self.keep._thread = object()  # type: ignore[assignment]  # `write` is called by the scene
        kept = self.keep or made.fan_out._keep
        assert kept is not None
        self._kept = kept
        made.fan_out._keep = self._keep_value
        #: Called while a value is handled: it is stored as the newest, and is `kept`, or is not yet.
        self.meanwhile: Callable[[bool], None] = lambda kept: None
        made.subscribed("before", "s")
        made.clock.advance(10)

    def _keep_value(self, stream: Stream, value: LastValue) -> None:
        self.truth.setdefault(value.topic, []).append((value.seq, float(value.payload)))
        self.meanwhile(False)
        self._kept(stream, value)
        self.meanwhile(True)

    def say(self, number: float, topic: str = "a/b") -> None:
        self.container.publish(str(number).encode(), topic=topic)

    def come(self, since: str | None, *, name: str = "c", batch: bool = False) -> dict[str, Any]:
        """Subscribe, and return the ack."""
        self.container.open(name, ip=name, batch=batch)
        asked = {"type": "subscribe", "requestId": "r", "dashboardId": DASHBOARD, "datasourceId": "s"}
        asked |= {"sessionToken": self.container.token("s")} | ({"since": since} if since else {})
        self.container.handle(name, json.dumps(asked))
        return self.frames("ack", name)[0]

    def frames(self, kind: str, name: str = "c") -> list[dict[str, Any]]:
        frames = [
            inner for frame in self.container.sender.sent.get(name, []) for inner in frame.get("messages", [frame])
        ]
        return [frame for frame in frames if frame["type"] == kind]

    def settle(self, lively: Callable[[], object] = lambda: None) -> None:
        """Catch-ups come three seconds after they were asked for. The relay writes every five.

        `lively` is called before each catch-up: the source goes on.
        """
        written = self.container.clock.monotonic()
        while self.container.catch_ups.queued:
            queued, self.container.catch_ups.queued = self.container.catch_ups.queued, []
            self.container.clock.advance(3)
            if self.keep is not None and self.container.clock.monotonic() - written >= WRITE_S:
                self.keep.write()
                written = self.container.clock.monotonic()
            for request in queued:
                lively()
                self.container.catch_up(read_catch_up(written_catch_up(request)))

    @property
    def end(self) -> dict[str, Any]:
        (end,) = [frame for frame in self.frames("history") if frame.get("end")]
        return end


@dataclass
class Chart:
    """What a client of the protocol makes of its frames: points and values of a topic, each in its bucket."""

    points: dict[int, dict[str, Any]]
    values: dict[str, float]

    @classmethod
    def of(cls, scene: Scene, topic: str | None = None) -> Chart:
        points: dict[int, dict[str, Any]] = {}
        for frame in scene.frames("history"):
            if frame.get("topic") == topic:
                for point in frame["points"]:
                    at = round(datetime.fromisoformat(point["at"]).timestamp() * 1000)
                    points[at] = point
        values = {
            frame["seq"]: float(frame["payload"]) for frame in scene.frames("data") if frame.get("topic") == topic
        }
        return cls(points, values)

    def has(self, seq: str) -> bool:
        """Whether a value is in a point or came as a value, as the protocol says it."""
        at_ms = int(seq[:15])
        point = self.points.get(at_ms - at_ms % EVERY_MS)
        return seq in self.values or (point is not None and point["seq"] >= seq)


def check(scene: Scene, since: str, topic: str | None = None) -> None:
    """No gap, and no point that counts something twice or not at all."""
    chart, truth = Chart.of(scene, topic), scene.truth.get(topic, [])
    assert not [seq for seq, _ in truth if seq > since and not chart.has(seq)]
    for at_ms, point in chart.points.items():
        within = [(seq, number) for seq, number in truth if at_ms <= int(seq[:15]) < at_ms + EVERY_MS]
        within = [(seq, number) for seq, number in within if seq <= point["seq"]]
        numbers = [number for _, number in within]
        assert (point["least"], point["most"]) == (min(numbers), max(numbers))
        assert (point["seq"], point["last"]) == max(within)


def newest(scene: Scene, topic: str | None = None) -> str:
    return scene.truth[topic][-1][0]


def test_what_came_between_comes_in_order_before_what_is_live() -> None:
    scene = Scene()
    scene.say(1)
    since = newest(scene)
    for number in (5, 9, 2):
        scene.container.clock.advance(0.4)
        scene.say(number)
    assert scene.come(since)["recovered"] is True
    scene.container.clock.advance(1)
    scene.say(7)
    kinds = [frame["type"] for frame in scene.container.sender.sent["c"]]
    assert kinds == ["ack", "status", "history", "data", "data"], "the newest value, and then what is live"
    (frame,) = scene.frames("history")
    assert [point["at"] for point in frame["points"]] == sorted(point["at"] for point in frame["points"])
    scene.settle()
    assert scene.end["recovered"] is True
    check(scene, since)


def test_nothing_came_between() -> None:
    scene = Scene()
    scene.say(1)
    calls = scene.container.history.calls
    assert scene.come(newest(scene))["recovered"] is True
    scene.settle()
    assert scene.container.history.calls == calls, "the last value says so"
    assert (scene.end["points"], scene.end["recovered"]) == ([], True)


def test_of_a_source_that_never_rests_it_ends_too() -> None:
    """What the relay has written is always behind the newest value."""
    scene = Scene(batches=True)
    scene.say(0)
    since = newest(scene)
    scene.say(1)
    assert scene.come(since)["recovered"] is True
    scene.settle(lively=lambda: scene.say(2))
    assert scene.end["recovered"] is True
    check(scene, since)


def test_topics_that_are_too_long_to_be_remembered_end_it() -> None:
    scene, topics = Scene("a/+"), [f"a/{str(number) * 6000}" for number in range(5)]
    for topic in topics:
        scene.say(1, topic)
    since = newest(scene, topics[0])
    scene.say(2, topics[4])
    scene.come(since)
    scene.settle()
    assert scene.end["recovered"] is False and scene.container.catch_ups.queued == []


def test_what_came_between_is_read_twice_by_topic() -> None:
    scene = Scene("a/+")
    scene.say(0, "a/x")
    since = newest(scene, "a/x")
    for topic in ("a/1", "a/2"):
        scene.say(1, topic)
    calls = scene.container.history.calls
    scene.come(since)
    assert scene.container.history.calls == calls + 2
    scene.settle()
    assert scene.container.history.calls == calls + 4


def test_who_does_not_ask_gets_what_they_got() -> None:
    scene = Scene()
    scene.say(1)
    assert "recovered" not in scene.come(None)
    scene.settle()
    assert scene.frames("history") == [] and scene.container.catch_ups.queued == []


def test_without_a_history_nothing_is_recovered() -> None:
    scene = Scene(history=None)
    scene.say(1)
    (value,) = scene.container.last_values.rows.values()
    assert scene.come(value.seq)["recovered"] is False
    scene.settle()
    assert scene.frames("history") == [] and scene.container.history.calls == 0


@pytest.mark.parametrize("gone_s", [599, 601])
def test_the_history_reaches_so_far_back(gone_s: int) -> None:
    scene = Scene()
    scene.container.clock.advance(700)
    scene.say(1)
    since = newest(scene)
    scene.container.clock.advance(gone_s - 1)
    scene.say(2)
    scene.container.clock.advance(0.9)
    assert scene.come(since)["recovered"] is (gone_s < 600)


def test_what_was_before_anybody_asked_is_not_there() -> None:
    scene = Scene()
    began = round(scene.container.clock.now()) - 10
    scene.say(1)
    assert scene.come(f"{began * 1000 - 1:015d}")["recovered"] is False


def test_a_stream_that_broke_meanwhile_may_have_missed_something() -> None:
    """Of the relay. The stream says since when it is connected."""
    scene = Scene()
    scene.say(1)
    since, (stream,) = newest(scene), scene.container.streams.rows.values()
    at = int(since[:15]) // 1000
    for connected, connected_at, holds in ((True, at - 5, True), (True, at + 5, False), (False, at - 5, False)):
        relayed = replace(stream, allowed_topic=None, connected=connected, connected_at=connected_at)
        asked = scene.container.recover.at_once("s", relayed, History(600, EVERY_MS), since, [])
        assert asked.left.recovered is holds


def test_a_history_that_cannot_be_read_refuses_nobody() -> None:
    scene = Scene()
    scene.say(1)
    scene.container.history.fails = True
    ack = scene.come(f"{int(newest(scene)[:15]) - 1:015d}")
    assert ack["ok"] and ack["recovered"] is False and len(scene.frames("data")) == 1


def test_points_that_may_not_arrive_come_again() -> None:
    scene = Scene()
    scene.say(1)
    since = newest(scene)
    scene.say(2)
    scene.container.clock.advance(60)
    scene.say(3)
    post, lost = scene.container.sender.post, list[bytes]()

    def loses(connection_id: str, body: bytes) -> Delivery:
        if b'"history"' in body:
            lost.append(body)
            return Delivery.FAILED
        return post(connection_id, body)

    scene.container.sender.post = loses  # type: ignore[method-assign]
    scene.come(since)
    scene.container.sender.post = post  # type: ignore[method-assign]
    scene.settle()
    assert lost and scene.end["recovered"]
    check(scene, since)


def test_points_are_not_sent_by_a_right_that_is_too_old() -> None:
    scene = Scene()
    scene.say(1)
    since = newest(scene)
    scene.say(2)
    read = scene.container.history.read

    def slow(*given: Any, **named: Any) -> Any:
        scene.container.clock.advance(FRESH_S)
        return read(*given, **named)

    scene.container.history.read = slow  # type: ignore[method-assign]
    scene.come(since)
    scene.container.history.read = read  # type: ignore[method-assign]
    assert scene.frames("history") == []
    scene.container.revoke()
    scene.settle()
    assert scene.frames("history") == [], "the right was lost meanwhile"


def test_more_topics_than_are_sent_are_for_the_viewer_to_read() -> None:
    scene = Scene("a/+")
    scene.say(0, "a/0")
    since = newest(scene, "a/0")
    for number in range(recover.MOST_RECOVERED + 1):
        scene.say(number, f"a/{number}")
    assert scene.come(since)["recovered"] is False
    scene.settle()
    assert [frame["points"] for frame in scene.frames("history")] == [[]] and not scene.end["recovered"]


def test_more_bytes_than_are_sent_are_for_the_viewer_to_read() -> None:
    scene = Scene()
    scene.say(1)
    since, (stream,) = newest(scene), scene.container.streams.rows.values()
    now_ms = round(scene.container.clock.now() * 1000)
    at = [now_ms - now_ms % 1000 + number * 1000 for number in range(1, 300)]
    for start_ms in at:
        point = Point(start_ms, f"{start_ms:015d}", f'"{"x" * 400}"')
        scene.container.history.add(Series(stream.stream_key), point, 10**10)
    scene.container.clock.advance(310)
    newest_value = LastValue("1", at[-1], "")
    found = scene.container.recover.at_once("s", stream, History(600, EVERY_MS), since, [newest_value])
    assert found.left.recovered is False
    assert sum(len(frame) for _, frame in found.frames) < recover.MOST_BYTES * 1.2


def test_topics_are_recovered_each() -> None:
    scene = Scene("a/+")
    scene.say(0, "a/x")
    since = newest(scene, "a/x")
    for number in range(6):
        scene.say(number, f"a/{number % 3}")
    assert scene.come(since)["recovered"] is True
    scene.settle()
    for topic in ("a/0", "a/1", "a/2"):
        check(scene, since, topic)
    assert scene.end["recovered"]


def test_frames_fit_into_messages() -> None:
    scene = Scene()
    scene.say(1)
    since, (stream,) = newest(scene), scene.container.streams.rows.values()
    now_ms = round(scene.container.clock.now() * 1000)
    at = [now_ms - now_ms % 1000 + number * 1000 for number in range(150)]
    for start_ms in at:
        point = Point(start_ms, f"{start_ms + 999:015d}", f'"{"x" * 400}"')
        scene.container.history.add(Series(stream.stream_key), point, 10**10)
    scene.container.clock.advance(160)
    newest_value = LastValue("1", at[-1] + 999, "")
    found = scene.container.recover.at_once("s", stream, History(600, EVERY_MS), since, [newest_value])
    sizes = [len(frame) for _, frame in found.frames]
    assert len(sizes) > 2 and max(sizes) < 32_000 and found.left.recovered
    shown = [point["seq"] for _, frame in found.frames for point in json.loads(frame)["points"]]
    assert shown[-150:] == [f"{start_ms + 999:015d}" for start_ms in at]


#: Values that are handled: (number, seconds before it).
VALUES = st.lists(st.tuples(st.integers(0, 9), st.sampled_from([0.0, 0.2, 0.7, 1.5])), min_size=1, max_size=8)
#: After the viewer has come: what takes longer than the lag of an index is not the subject here.
SOON = st.lists(st.tuples(st.integers(0, 9), st.sampled_from([0.0, 0.1, 0.3])), max_size=8)


class Play:
    """A scene in which the viewer comes before, after, or while a value is handled."""

    def __init__(self, *, batches: bool, batch: bool, writes: set[int], late: str) -> None:
        """
        Args:
            writes: after which values the relay writes.
            late: a value is kept only after the viewer has come and another value was handled, as of a slow call. The
                other one is handled `before` the viewer comes, or `after`. Not with `batches`: the relay handles the
                values of a stream one after the other, on one thread (`usecases.relay.keyed_executor`).
        """
        self.scene = Scene(batches=batches)
        self.scene.say(0)
        self.since = newest(self.scene)
        self.scene.container.subscriptions.lag()
        self._batch, self._writes, self._late = batch, writes, "" if batches else late
        self._handled = 0

    def say(self, number: int, after_s: float) -> None:
        self.scene.container.clock.advance(after_s)
        self.scene.say(number)
        if self.scene.keep is not None and self._handled in self._writes:
            self.scene.keep.write()
        self._handled += 1

    def come(self) -> None:
        assert self.scene.come(self.since, batch=self._batch)["recovered"] is True

    def come_when(self, is_kept: bool) -> None:
        """The viewer comes while the next value is handled: when it is kept already, or not yet."""

        def meanwhile(kept: bool) -> None:
            if kept is is_kept:
                self.scene.meanwhile = lambda kept: None
                if self._late == "before" and not kept:
                    self.say(4, 1.1)
                self.come()
                if self._late == "after" and not kept:
                    self.say(4, 1.1)

        self.scene.meanwhile = meanwhile


@settings(max_examples=150, deadline=None)
@given(
    away=VALUES,
    after=SOON,
    lively=st.booleans(),
    inside=st.sampled_from([None, False, True]),
    unseen=st.integers(0, 8),
    batches=st.booleans(),
    batch=st.booleans(),
    writes=st.sets(st.integers(0, 20)),
    late=st.sampled_from(["", "before", "after"]),
)
def test_however_it_interleaves_nothing_is_missing_and_nothing_twice(
    away: list[tuple[int, float]],
    after: list[tuple[int, float]],
    lively: bool,
    inside: bool | None,
    unseen: int,
    batches: bool,
    batch: bool,
    writes: set[int],
    late: str,
) -> None:
    """`inside`: None, the viewer comes between two values; else see `Play.come_when`. `unseen`: how many values go by
    until the index has the viewer's row."""
    play = Play(batches=batches, batch=batch, writes=writes, late=late)
    for value in away[:-1]:
        play.say(*value)
    if inside is not None:
        play.come_when(inside)
    play.say(*away[-1])
    if inside is None:
        play.come()
    for value in after[:unseen]:
        play.say(*value)
    play.scene.container.subscriptions.catch_up()
    for value in after[unseen:]:
        play.say(*value)
    play.scene.settle(lively=(lambda: play.say(7, 0.1)) if lively else lambda: None)
    assert play.scene.end["recovered"] is True
    play.say(8, 1.0)
    check(play.scene, play.since)
