"""A viewer who was away comes back while values are handled, each by an invocation of its own: what the viewer ends
with, drawn as the protocol says, has every value."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from tests.doubles.platform import ManualClock, MemoryObserver
from tests.doubles.stores import MemoryHistory, MemoryLastValues
from tests.model.actors import NOW, STREAM, StepSender
from tests.model.explorer import Actor, Answer, Answers, Call, Scene, Script, State, Store, Violation
from tests.model.newest import ROW, Unchanging
from tidegate.domain.crowds import Audience
from tidegate.domain.history import History, Point, Recovering
from tidegate.domain.subscriptions import LastValue, Stream
from tidegate.ports.delivery import Delivery
from tidegate.ports.history import Series
from tidegate.protocol.messages import timestamp
from tidegate.usecases.delivery.audiences import Audiences
from tidegate.usecases.delivery.failures import FailureHandler
from tidegate.usecases.delivery.fan_out import FanOut
from tidegate.usecases.delivery.fresh_access import FreshAccess
from tidegate.usecases.delivery.keep_history import KeepEach
from tidegate.usecases.delivery.senders import OneShotSender
from tidegate.usecases.gateway.recover import Recover

EVERY_MS = 1000
ASKED = History(600, EVERY_MS, until=10**10)
KEPT = replace(STREAM, history=ASKED)
#: The viewer has everything up to this moment, epoch milliseconds.
SINCE_MS = int(NOW * 1000)
SINCE = f"{SINCE_MS:015d}"


def value(number: int) -> LastValue:
    """The values of a bucket and of the one before: 600 ms apart."""
    return LastValue(str(number), SINCE_MS + number * 600, "")


class _Index:
    """The audience as the index has it: reading it is a step."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    def audience(self, _stream_key: str) -> Audience:
        return Audience([ROW] if self._answers.ask("index", "audience") else [])


def message(number: int, stream: Stream) -> Script:
    """One value, handled by a process of its own."""

    def script(answers: Answers) -> str:
        clock, observer, history = ManualClock(), MemoryObserver(), cast(Any, Store(answers, "history"))
        audiences = Audiences(_Index(answers).audience, clock)
        catch_ups = cast(Any, None)
        handler = FailureHandler(catch_ups=catch_ups, end_connection=cast(Any, None), clock=clock, observer=observer)
        sending = OneShotSender(
            access=FreshAccess(cast(Any, Unchanging()), audiences, clock),
            sender=cast(Any, StepSender(answers)),
            failure_handler=handler,
            observer=observer,
        )
        FanOut(
            audiences=audiences,
            last_values=cast(Any, Store(answers, "last values")),
            send=sending,
            max_message_bytes=1000,
            clock=clock,
            observer=observer,
            keep=KeepEach(lambda: history, clock),
        ).deliver(stream, value(number))
        return "handled"

    return script


def viewer(answers: Answers) -> str:
    """Subscribes with `since`."""
    sender, recover = StepSender(answers, ROW), _recover(answers)
    answers.ask("index", "visible")
    newest = answers.ask("last values", "newest", KEPT.stream_key)
    found = recover.at_once(ROW.key.datasource_id, KEPT, ASKED, SINCE, newest)
    for _, frame in found.frames:
        sender.post("c", frame)
    answers.ask("catch-ups", "queue", found.left)
    return "welcome"


def catch_up(answers: Answers) -> str:
    """Comes so late that the index has the viewer's row."""
    sender, recover = StepSender(answers, ROW), _recover(answers)
    answers.ask("index", "seen")
    left: Recovering = answers.ask("catch-ups", "asked")
    while True:
        newest = answers.ask("last values", "newest", KEPT.stream_key)
        found = recover.the_rest(ROW.key.datasource_id, KEPT.stream_key, left, newest)
        if found.ended:
            break
        left = found.left
    for _, frame in found.frames:
        sender.post("c", frame)
    return "ended"


def _recover(answers: Answers) -> Recover:
    return Recover(cast(Any, Store(answers, "history")), ManualClock())


@dataclass(frozen=True, slots=True)
class Shown:
    """What the stores hold, and what the viewer was sent.

    Attributes:
        last: the last value.
        kept: the history.
        seen: whether the index has the viewer's row.
        left: what the catch-up was asked for.
        values: each `seq` that came as data.
        points: the beginning of a bucket to (`seq`, least, most) of the point that came last.
        recovered: of the frame with `end`.
        newest_once: the values that were the newest when they came. What is older is dropped, for everybody.
    """

    last: Mapping[Any, LastValue] = field(default_factory=dict)
    kept: Mapping[tuple[Series, int], tuple[Point, ...]] = field(default_factory=dict)
    seen: bool = False
    left: Recovering | None = None
    values: frozenset[str] = frozenset()
    points: Mapping[str, tuple[str, float, float]] = field(default_factory=dict)
    recovered: bool | None = None
    newest_once: frozenset[LastValue] = frozenset()


class Away(Scene[Shown]):
    """One viewer, and so many messages."""

    def __init__(self, messages: int) -> None:
        #: Ends in which the viewer was told that nothing is missing.
        self.recovered = 0
        self.actors = (
            *(Actor(f"message {number}", message(number, KEPT)) for number in range(1, messages + 1)),
            Actor("viewer", viewer),
            Actor("catch-up", catch_up, after="asked"),
        )

    def start(self) -> Shown:
        return Shown()

    def key(self, stores: Shown) -> Hashable:
        return (
            frozenset(stores.last.items()),
            frozenset(stores.kept.items()),
            stores.seen,
            repr(stores.left),
            stores.values,
            frozenset(stores.points.items()),
            stores.recovered,
            stores.newest_once,
        )

    def perform(self, stores: Shown, actor: str, call: Call) -> tuple[Shown, Answer, str | None]:
        match call.store, call.method:
            case "index", "audience":
                return stores, ("got", stores.seen), None
            case "index", "visible":
                return stores, ("got", None), None
            case "index", "seen":
                return replace(stores, seen=True), ("got", None), None
            case "catch-ups", "queue":
                return replace(stores, left=call.args[0]), ("got", None), "asked"
            case "catch-ups", _:
                return stores, ("got", stores.left), None
            case "sender", _:
                return _sent(stores, json.loads(call.args[1])), ("got", Delivery.DELIVERED), None
        return *(_kept(stores, call) if call.store == "history" else _stored(stores, call)), None

    def check_end(self, state: State[Shown]) -> None:
        stores = state.stores
        if stores.recovered is None:
            raise Violation("there was no end")
        if not stores.recovered:  # a call took longer to keep its value than the catch-up looked: it says so
            return
        self.recovered += 1
        for each in stores.newest_once:
            seq, least, most = stores.points.get(_bucket(each), ("", 0, 0))
            inside = seq >= each.seq and least <= float(each.payload) <= most
            if each.seq not in stores.values and not inside:
                raise Violation(f"the value {each.payload} is missing")


def _kept(stores: Shown, call: Call) -> tuple[Shown, Answer]:
    history = MemoryHistory()
    history.items.update(stores.kept)
    answer = getattr(history, call.method)(*call.args, **dict(call.options))
    got = tuple(answer) if call.method == "read" else answer
    return replace(stores, kept=dict(history.items)), ("got", got)


def _stored(stores: Shown, call: Call) -> tuple[Shown, Answer]:
    last_values = MemoryLastValues()
    last_values.rows.update(stores.last)
    answer = getattr(last_values, call.method)(*call.args)
    was_newest = frozenset([call.args[1]] if answer is True else [])
    changed = replace(stores, last=dict(last_values.rows), newest_once=stores.newest_once | was_newest)
    return changed, ("got", answer)


def _bucket(each: LastValue) -> str:
    """When the value's bucket begins, as frames say it."""
    return timestamp((each.timestamp_ms - each.timestamp_ms % EVERY_MS) / 1000)


def _sent(stores: Shown, frame: Mapping[str, Any]) -> Shown:
    if frame["type"] == "data":
        return replace(stores, values=stores.values | {frame["seq"]})
    points = {point["at"]: (point["seq"], point["least"], point["most"]) for point in frame["points"]}
    recovered = frame.get("recovered", stores.recovered)
    return replace(stores, points={**stores.points, **points}, recovered=recovered)
