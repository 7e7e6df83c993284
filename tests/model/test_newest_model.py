"""All interleavings of storing, sending, looking again, settling and catching up: the value that a viewer was sent last
is the newest, and it stops being so as soon as one safeguard is taken out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.doubles import stores
from tests.doubles.stores import MemoryLastValues
from tests.model.explorer import Explorer, Violation
from tests.model.newest import Newest, Short
from tidegate.domain.subscriptions import LastValue
from tidegate.ports.gateway import Admission, Verdict
from tidegate.usecases.delivery import bridge, crowds, settle, together
from tidegate.usecases.delivery import catch_up as catching_up
from tidegate.usecases.delivery.failures import FailureHandler
from tidegate.usecases.delivery.settle import Settle
from tidegate.usecases.delivery.together import LATE_S, Together

SCENES: dict[str, Callable[[], Newest]] = {
    "three messages": lambda: Newest(3),
    "three messages, the first is throttled": lambda: Newest(3, throttled=["message 1"], catch_ups=3),
    "two messages, both are throttled": lambda: Newest(2, throttled=["message 1", "message 2"], catch_ups=2),
    "two messages, one is throttled and not queued, one dies or hears nothing": lambda: Newest(
        2, throttled=["message 1"], refused=["message 1"], faults=1, catch_ups=1
    ),
    "three messages of two topics": lambda: Newest(3, topics=["a/b", "a/c"]),
    "three messages of two topics while a viewer comes": lambda: Newest(
        3, topics=["a/b", "a/c"], welcome=True, catch_ups=1
    ),
    "three messages at once, kept apart": lambda: Newest(3, apart=True, catch_ups=2),
    "two messages at once, kept apart, one dies or hears nothing": lambda: Newest(2, apart=True, faults=1),
    "two messages to two viewers, a short quota": lambda: Newest(2, viewers=2, short=Short()),
    "three messages, a short quota": lambda: Newest(3, short=Short()),
    "two messages to two viewers, a short quota, one dies or hears nothing": lambda: Newest(
        2, viewers=2, short=Short(), faults=1
    ),
    "two messages, a short quota, no time": lambda: Newest(2, short=Short(0.0), catch_ups=4),
    "three messages, a short quota, time is soon over": lambda: Newest(3, short=Short(0.15), catch_ups=3),
    "two messages, two invocations die or hear nothing": lambda: Newest(2, faults=2),
    "three messages, one invocation dies or hears nothing": lambda: Newest(3, faults=1, catch_ups=2),
    "two messages while a viewer comes, one dies or hears nothing": lambda: Newest(2, welcome=True, faults=1),
    "three messages to a part of a crowd": lambda: Newest(3, parts=4),
    "two messages to a part of a crowd, two invocations die or hear nothing": lambda: Newest(2, parts=6, faults=2),
    "three messages in batches": lambda: Newest(3, batched=0.0, parts=6),
    "two messages in batches, one dies or hears nothing": lambda: Newest(2, batched=0.0, parts=6, faults=1),
    "three messages in batches that are late": lambda: Newest(3, batched=LATE_S + 1, parts=6),
    "a message in a batch that is late, one dies or hears nothing": lambda: Newest(
        1, batched=LATE_S + 1, parts=4, faults=1
    ),
}
#: Smaller versions of the scenes that are large.
SMALL: dict[str, Callable[[], Newest]] = {
    "three messages, the first is throttled": lambda: Newest(2, throttled=["message 1"], catch_ups=1),
    "two messages, two invocations die or hear nothing": lambda: Newest(2, faults=1),
    "three messages, one invocation dies or hears nothing": lambda: Newest(2, faults=1),
    "two messages while a viewer comes, one dies or hears nothing": lambda: Newest(2, welcome=True),
    "three messages to a part of a crowd": lambda: Newest(2, parts=3),
    "two messages to a part of a crowd, two invocations die or hear nothing": lambda: Newest(1, parts=3, faults=1),
}


@pytest.mark.parametrize("name", SCENES)
def test_the_value_sent_last_is_the_newest(
    name: str, pytestconfig: pytest.Config, record_property: Callable[[str, object], None]
) -> None:
    scene = SCENES[name] if pytestconfig.getoption("--full") else SMALL.get(name, SCENES[name])
    explored = Explorer(scene()).explore()
    record_property("explored", explored.told(name))
    assert explored.ends and explored.states > 100


# --- the model has teeth -------------------------------------------------------------------------------------


class NotesForgotten(MemoryLastValues):
    """Settling ends although somebody noted an older value meanwhile."""

    def note_settled(
        self, stream_key: str, sent: LastValue | None, topic: str | None = None, shard: int | None = None
    ) -> bool:
        there = self.get(stream_key, topic, shard)
        assert there is not None
        return super().note_settled(stream_key, sent and replace(sent, overtaken=there.overtaken), topic, shard)


class NewerIgnored(MemoryLastValues):
    """Settling ends although a newer value was stored meanwhile."""

    def note_settled(
        self, stream_key: str, sent: LastValue | None, topic: str | None = None, shard: int | None = None
    ) -> bool:
        there = self.get(stream_key, topic, shard)
        assert there is not None
        return super().note_settled(stream_key, sent and replace(there, overtaken=sent.overtaken), topic, shard)


class EndsAnyway(MemoryLastValues):
    """Settling ends although a newer value was stored, and noted, meanwhile."""

    def note_settled(
        self, stream_key: str, sent: LastValue | None, topic: str | None = None, shard: int | None = None
    ) -> bool:
        return super().note_settled(stream_key, None, topic, shard)


class OneSeries(MemoryLastValues):
    """A stream has one last value, whatever its topics."""

    def get(self, stream_key: str, topic: str | None = None, shard: int | None = None) -> LastValue | None:
        return super().get(stream_key)

    def put_if_newer(self, stream_key: str, value: LastValue) -> bool:
        there = self.rows.get(stream_key)
        if there is not None and there.order > value.order:
            return False
        self.rows[stream_key] = value
        return True

    def note_overtaken(self, stream_key: str, now: float, topic: str | None = None, shard: int | None = None) -> bool:
        return super().note_overtaken(stream_key, now)

    def note_settled(
        self, stream_key: str, sent: LastValue | None, topic: str | None = None, shard: int | None = None
    ) -> bool:
        return super().note_settled(stream_key, sent)


class NobodyWaits(MemoryLastValues):
    """A value that comes too early is stored, and left to nobody."""

    def admit(self, stream_key: str, value: LastValue, now_ms: int, interval_ms: int) -> Admission:
        admission = super().admit(stream_key, value, now_ms, interval_ms)
        return Admission(Verdict.LEAVE) if admission.verdict is Verdict.WAIT else admission


class CarriedNotesForgotten(MemoryLastValues):
    """Carrying ends although somebody noted an older value meanwhile."""

    def end_carrying(self, key: str, topic: str | None, carrier: str, sent: LastValue, now: int, ms: int) -> bool:
        there = self.get(key, topic)
        assert there is not None
        return super().end_carrying(key, topic, carrier, replace(sent, overtaken=there.overtaken), now, ms)


class CarriedNewerIgnored(MemoryLastValues):
    """Carrying ends although a newer value was stored, and left to it, meanwhile."""

    def end_carrying(self, key: str, topic: str | None, carrier: str, sent: LastValue, now: int, ms: int) -> bool:
        there = self.get(key, topic)
        assert there is not None
        return super().end_carrying(key, topic, carrier, replace(there, overtaken=sent.overtaken), now, ms)


class NobodyCarries(MemoryLastValues):
    """A call leaves the rest to another that does not carry."""

    def carry(self, key: str, topic: str | None, carrier: str, now_ms: int) -> LastValue | None:
        newest = super().carry(key, topic, carrier, now_ms)
        return None if newest is not None and newest.payload != "1" else newest


#: Stores without a safeguard.
WITHOUT = {
    "the note that a call which carries reads": CarriedNotesForgotten,
    "the newest value as a condition of the end of carrying": CarriedNewerIgnored,
    "somebody who carries when the rest is left": NobodyCarries,
    "the wait for others to send": NobodyWaits,
    "a last value for each topic": OneSeries,
    "the note that a settling sender reads": NotesForgotten,
    "the newest value as a condition of the end": NewerIgnored,
    "a condition of the end": EndsAnyway,
}


@pytest.mark.parametrize(
    ("taken_out", "scene"),
    [
        (
            "the failure when no catch-up can be queued",
            lambda: Newest(1, throttled=["message 1"], refused=["message 1"]),
        ),
        ("the look after a send", lambda: Newest(2)),
        ("a last value for each topic", lambda: Newest(2, topics=["a/b", "a/c"])),
        ("the wait for others to send", lambda: Newest(2, apart=True)),
        ("the note that a settling sender reads", lambda: Newest(3)),
        ("the newest value as a condition of the end", lambda: Newest(3)),
        ("the note that a call which carries reads", lambda: Newest(3, short=Short())),
        ("the newest value as a condition of the end of carrying", lambda: Newest(2, short=Short())),
        ("somebody who carries when the rest is left", lambda: Newest(2, short=Short())),
        ("the newest value after a repetition", lambda: Newest(2, faults=1)),
        ("the end of a claim", lambda: Newest(2, faults=1)),
        ("the catch-up of one that newer values passed", lambda: Newest(2, welcome=True, catch_ups=4)),
        ("the catch-ups of a settling that ends early", lambda: Newest(3, catch_ups=4)),
        ("a condition of the end", lambda: Newest(2, parts=3)),
        ("the next invocation of a part", lambda: Newest(2, parts=6)),
        ("the end of a claim", lambda: Newest(2, parts=6, faults=1)),
        ("the look after a send", lambda: Newest(2, batched=0.0, parts=6)),
        ("the newest value after a repetition", lambda: Newest(2, batched=0.0, parts=6, faults=1)),
        ("the note that a settling sender reads", lambda: Newest(3, batched=0.0, parts=6)),
        ("a condition of the end", lambda: Newest(2, batched=LATE_S + 1, parts=6)),
        ("the end of a claim", lambda: Newest(2, batched=LATE_S + 1, parts=6, faults=1)),
    ],
)
def test_without_any_one_safeguard_it_fails(
    taken_out: str, scene: Callable[[], Newest], monkeypatch: pytest.MonkeyPatch
) -> None:
    explored = scene()
    explored.store_class = WITHOUT.get(taken_out, MemoryLastValues)
    match taken_out:
        case "the failure when no catch-up can be queued":
            monkeypatch.setattr(FailureHandler, "or_fail", FailureHandler.__call__)
        case "the look after a send":
            monkeypatch.setattr(Settle, "after", lambda *_: None)
            monkeypatch.setattr(Together, "_overtaken", lambda *_: False)
        case "the newest value after a repetition":
            monkeypatch.setattr(bridge, "REPEATED_S", float("inf"))
            monkeypatch.setattr(together, "REPEATED_S", float("inf"))
        case "the end of a claim":
            monkeypatch.setattr(stores, "SETTLE_S", 10_000)
        case "the catch-up of one that newer values passed":
            monkeypatch.setattr(catching_up, "_SENDS", 1)
            Explorer(scene()).explore()
            explored.catch_ups_end = True
        case "the next invocation of a part":
            monkeypatch.setattr(crowds, "_SENDS", 1)
            Explorer(scene()).explore()
            explored.parts_end = True
        case "the catch-ups of a settling that ends early":
            monkeypatch.setattr(settle, "_SENDS", 1)
            Explorer(scene()).explore()
            monkeypatch.setattr(Settle, "__init__", without_catch_ups(Settle.__init__))
    with pytest.raises(Violation) as found:
        Explorer(explored).explore()
    assert found.value.trace


def without_catch_ups(init: Callable[..., None]) -> Callable[..., None]:
    def prepared(self: Settle, **needs: object) -> None:
        init(self, **needs | {"catch_up": lambda _row: None})

    return prepared
