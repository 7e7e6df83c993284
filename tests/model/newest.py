"""Device messages of one stream, each handled by an invocation of its own, and catch-ups beside them: what the viewer
was sent last is the newest value."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from tests.doubles.platform import ManualClock, MemoryObserver
from tests.doubles.stores import MemoryLastValues
from tests.model.actors import DASHBOARD, DATASOURCE, HASH, MEMBER, NOW, OWNER, STREAM, USERS, AttemptIds, StepSender
from tests.model.explorer import Actor, Answer, Answers, Call, Scene, Script, State, Store, Violation
from tidegate.domain.access import AclLevel, Claim, DashboardAccess, Principal, Visibility
from tidegate.domain.client_queues import Batch
from tidegate.domain.crowds import Audience, CrowdPart
from tidegate.domain.send_quota import SendQuota
from tidegate.domain.subscriptions import (
    TOLD_ALL,
    CatchUpRequest,
    LastValue,
    Stream,
    Subscription,
    SubscriptionKey,
)
from tidegate.errors import TidegateError
from tidegate.ports.delivery import Delivery, OutboundQueue, SendQuotaStore
from tidegate.ports.gateway import AccessSnapshot, SourceStreams
from tidegate.usecases.delivery.audiences import Audiences
from tidegate.usecases.delivery.bridge import Bridge, DeviceMessage
from tidegate.usecases.delivery.carry import Carry
from tidegate.usecases.delivery.catch_up import CatchUp
from tidegate.usecases.delivery.crowds import SendPart, ShardSender
from tidegate.usecases.delivery.failures import FailureHandler
from tidegate.usecases.delivery.fan_out import FanOut
from tidegate.usecases.delivery.fresh_access import FreshAccess
from tidegate.usecases.delivery.interval import Interval
from tidegate.usecases.delivery.paced_queue import Pace
from tidegate.usecases.delivery.senders import OneShotSender, Patience
from tidegate.usecases.delivery.settle import Settle
from tidegate.usecases.delivery.together import Together

ROW = Subscription(
    SubscriptionKey(DASHBOARD, "c", DATASOURCE),
    "generation",
    Claim(DASHBOARD, DATASOURCE, Principal(MEMBER, None, 1), HASH, int(NOW) + 10_000),
    STREAM.stream_key,
    visible=True,
)
ACCESS = DashboardAccess(DASHBOARD, 1, Visibility.LINK, OWNER, {MEMBER: AclLevel.VIEWER}, {DATASOURCE: HASH})
#: An invocation that failed or died comes back so much later, seconds.
REPEATED_AFTER_S = 60


@dataclass(frozen=True, slots=True)
class Short:
    """A send quota that is used up: each call of the bridge is refused, then granted one send, and so on.

    Attributes:
        patience_s: how long a call may wait for it.
    """

    patience_s: float = 15.0


class ShortQuota(SendQuotaStore):
    """What one process is granted. It is nobody else's, so asking is no step."""

    def __init__(self) -> None:
        self._asked = 0

    def take(self, item: int, wanted: int, now_ms: int, deadline: float) -> int:
        self._asked += 1
        return 1 - self._asked % 2

    def throttled(self, item: int, deadline: float) -> None: ...


class WaitingSender(StepSender):
    """Waits for what is due, in the time of its process."""

    def __init__(self, answers: Answers, clock: ManualClock) -> None:
        super().__init__(answers)
        self._clock = clock

    def send(self, outgoing: OutboundQueue[Batch]) -> None:
        while True:
            super().send(cast(Any, Now(outgoing, self._clock)))
            if (due := outgoing.due) is None:
                return
            self._clock.advance(max(0.001, due - self._clock.monotonic()))


class Now:
    """A queue of which messages are taken now."""

    def __init__(self, queue: OutboundQueue[Batch], clock: ManualClock) -> None:
        self._clock = clock
        self.take = lambda _now: queue.take(clock.monotonic())
        self.before, self.answered, self.throttled = queue.before, queue.answered, queue.throttled


class Unchanging:
    """The stores that nobody writes here: reading them is no step."""

    def __init__(self, stream: Stream = STREAM, viewers: int = 1) -> None:
        self._stream = stream
        self._rows = [
            ROW if not number else replace(ROW, key=ROW.key._replace(connection_id=f"c{number}"))
            for number in range(viewers)
        ]

    def audience(self, _stream_key: str) -> Audience:
        return Audience(self._rows)

    def first_shard(self, _stream_key: str) -> Audience:
        return Audience(self._rows, whole=False)

    def get(self, _key: SubscriptionKey) -> Subscription:
        return ROW

    def read(self, *_ids: object) -> AccessSnapshot:
        return AccessSnapshot({DASHBOARD: ACCESS}, USERS)

    def version_of(self, _allowed_topic: str | None) -> int:
        return 1

    def of_source(self, _allowed_topic: str | None) -> SourceStreams:
        return SourceStreams(1, [self._stream])


def device_message(
    number: int,
    topic: str,
    stream: Stream,
    *,
    apart: bool,
    viewers: int = 1,
    short: Short | None = None,
    crowd: bool = False,
    batched: float | None = None,
) -> Script:
    """The value `number`, handled by a process of its own; again a minute later when that fails or dies.

    `batched`: it comes in a batch, so many seconds after it was published. None: it comes by itself.
    """

    def script(answers: Answers) -> str:
        while True:
            try:
                tries = answers.ask("platform", "begin")
                # With a short quota, messages come so late that each may be sent at once.
                later_s = REPEATED_AFTER_S * (tries - 1) + (0.15 * number if short else 0.0) + (batched or 0.0)
                name = f"{number}.{tries}"
                bridge = _bridge(
                    answers, stream, later_s, apart=apart, viewers=viewers, short=short, name=name, crowd=crowd
                )
                message = DeviceMessage("a/#", topic, str(number).encode(), int(NOW * 1000) + number, "")
                if batched is None:
                    bridge(message)
                elif bridge.batch([message]):
                    continue
            except TidegateError:
                continue
            return "handled"

    return script


def _bridge(
    answers: Answers,
    stream: Stream,
    later_s: float,
    *,
    apart: bool,
    viewers: int,
    short: Short | None,
    name: str,
    crowd: bool,
) -> Bridge:
    """That of one process. `name`: what its ids begin with."""
    clock, observer, unchanging = ManualClock(), MemoryObserver(), cast(Any, Unchanging(stream, viewers))
    pace = patience = carry = None
    clock.advance(later_s)
    last_values, catch_ups = cast(Any, Store(answers, "last values")), cast(Any, Store(answers, "catch-ups"))
    handler = FailureHandler(catch_ups=catch_ups, end_connection=cast(Any, None), clock=clock, observer=observer)
    audiences = Audiences(unchanging.first_shard if crowd else unchanging.audience, clock)
    if short is not None:
        pace = Pace(ShortQuota(), SendQuota(1), clock=clock, chance=lambda: 0.0, observer=observer)
        patience = Patience(clock, short.patience_s)
    sending = OneShotSender(
        access=FreshAccess(unchanging, audiences, clock),
        sender=cast(Any, WaitingSender(answers, clock) if short else StepSender(answers)),
        failure_handler=handler,
        observer=observer,
        pace=pace,
        patience=patience,
    )
    if short is not None:
        carry = Carry(sending, last_values, 10, clock.advance, clock, cast(Any, AttemptIds(name)), observer)
    interval = Interval(last_values=last_values, per_second=10, clock=clock, sleep=clock.advance)
    fan_out = FanOut(
        audiences=audiences,
        last_values=last_values,
        send=sending,
        max_message_bytes=1000,
        clock=clock,
        observer=observer,
        interval=interval if apart else None,
        crowds=cast(Any, Store(answers, "crowds")),
        carry=carry,
        chance=lambda: 1.0,
    )
    together = Together(
        fan_out=fan_out,
        last_values=last_values,
        interval=interval,
        send=cast(Any, sending),
        crowds=cast(Any, Store(answers, "crowds")),
        clock=clock,
        observer=observer,
    )
    return Bridge(
        enabled=True,
        max_payload_bytes=1000,
        streams=unchanging,
        together=together,
        fan_out=fan_out,
        settle=Settle(
            last_values=last_values, fan_out=fan_out, catch_up=handler.or_fail, clock=clock, observer=observer
        ),
        clock=clock,
        observer=observer,
        patience=patience,
    )


def part() -> Script:
    """One message of the queue of parts. The viewer is the part's only one."""

    def script(answers: Answers) -> str:
        while True:
            try:
                tries = answers.ask("platform", "begin")
                _send_part(answers, REPEATED_AFTER_S * (tries - 1))(answers.ask("platform", "asked part"))
            except TidegateError:
                continue
            return "handled"

    return script


def _send_part(answers: Answers, later_s: float) -> SendPart:
    clock, observer, unchanging = ManualClock(), MemoryObserver(), cast(Any, Unchanging())
    clock.advance(later_s)
    last_values, catch_ups = cast(Any, Store(answers, "last values")), cast(Any, Store(answers, "catch-ups"))
    audiences = Audiences(unchanging.audience, clock)
    send = OneShotSender(
        access=FreshAccess(unchanging, audiences, clock),
        sender=cast(Any, StepSender(answers)),
        failure_handler=FailureHandler(
            catch_ups=catch_ups, end_connection=cast(Any, None), clock=clock, observer=observer
        ),
        observer=observer,
    )
    fan_out = FanOut(
        audiences=audiences,
        last_values=last_values,
        send=send,
        max_message_bytes=1000,
        clock=clock,
        observer=observer,
    )
    return SendPart(
        last_values=last_values,
        sender_of=lambda _shard: ShardSender(fan_out, send),
        queue=cast(Any, Store(answers, "crowds")),
        patience=None,
        clock=clock,
        observer=observer,
    )


def catch_up() -> Script:
    """One message of the catch-up queue."""

    def script(answers: Answers) -> str:
        unchanging = cast(Any, Unchanging())
        use_case = CatchUp(
            subscriptions=unchanging,
            streams=unchanging,
            last_values=cast(Any, Store(answers, "last values")),
            access=unchanging,
            sender=cast(Any, StepSender(answers)),
            catch_ups=cast(Any, Store(answers, "catch-ups")),
            end_connection=cast(Any, None),
            clock=ManualClock(),
            observer=MemoryObserver(),
        )
        while True:
            try:
                seen = answers.ask("platform", "asked")
                use_case(CatchUpRequest(ROW.key, ROW.generation, STREAM.stream_key, dict(seen), TOLD_ALL))
            except TidegateError:
                continue
            return "handled"

    return script


#: `CatchUpRequest.seen` as pairs.
Seen = tuple[tuple[str, tuple[int, str]], ...]


@dataclass(frozen=True, slots=True)
class Values:
    """What the stores hold.

    Attributes:
        stored: the last values, with what was noted about each.
        settling: until when a sender settles, by key of the last value.
        next_ms, waits_until_ms: when the next value may be sent, and until when somebody waits for that, likewise.
        carriers: who carries it, and until when, likewise.
        sent: the number that each viewer was sent last, by connection and topic.
        tries: how often each actor has begun.
        throttled: who has had its answer "throttled".
        refused: whose request for a catch-up was refused by the queue.
        catch_ups: those that were asked for, each with the orders of the values that the viewer has seen.
        parts: those that were asked for; of a crowd only that of its first shard.
        noted, parts_until: as `settling`, for the part of a crowd.
    """

    stored: Mapping[Any, LastValue] = field(default_factory=dict)
    settling: Mapping[Any, float] = field(default_factory=dict)
    next_ms: Mapping[Any, int] = field(default_factory=dict)
    waits_until_ms: Mapping[Any, int] = field(default_factory=dict)
    carriers: Mapping[Any, tuple[str, int]] = field(default_factory=dict)
    sent: Mapping[tuple[str, str], int] = field(default_factory=dict)
    tries: Mapping[str, int] = field(default_factory=dict)
    throttled: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()
    catch_ups: tuple[Seen, ...] = ()
    parts: tuple[CrowdPart, ...] = ()
    noted: Mapping[Any, int] = field(default_factory=dict)
    parts_until: Mapping[Any, float] = field(default_factory=dict)


class Newest(Scene[Values]):
    """One viewer of one stream, or some.

    Attributes:
        store_class: the last values; another one leaves a safeguard out.
    """

    store_class: type[MemoryLastValues] = MemoryLastValues
    #: What a catch-up asks for is lost: a safeguard taken out.
    catch_ups_end = False
    #: What a part asks for is lost: a safeguard taken out.
    parts_end = False

    def __init__(
        self,
        messages: int,
        *,
        catch_ups: int = 0,
        welcome: bool = False,
        throttled: Sequence[str] = (),
        refused: Sequence[str] = (),
        topics: Sequence[str] = ("a/b",),
        apart: bool = False,
        viewers: int = 1,
        short: Short | None = None,
        faults: int = 0,
        parts: int = 0,
        batched: float | None = None,
    ) -> None:
        """
        Args:
            messages: device messages, each with an actor.
            topics: the messages' topics, in turn.
            apart: values of a topic are kept apart. All messages come at the same moment.
            short: the send quota that is used up; None has none. Values are kept apart, and each comes when the
                interval of the one before is over.
            catch_ups: most that may be asked for.
            welcome: a viewer who subscribed has a catch-up under way.
            throttled: actors whose first message to the viewer is refused.
            refused: actors whose first request for a catch-up does not reach the queue.
            parts: the viewer is in a part of a crowd: most that the part may be asked for. 0: there is no crowd. With
                `batched`: most parts that may be asked for.
            batched: as for `device_message`.
        """
        self._parts = parts
        self.faults = faults
        self._throttled = frozenset(throttled)
        self._refused = frozenset(refused)
        self._asked = catch_ups
        #: The newest message of each topic, as frames name topics.
        self._last = {
            (connection, topics[number % len(topics)] if len(topics) > 1 else ""): number
            for number in range(1, messages + 1)
            for connection in ("c", *(f"c{viewer}" for viewer in range(1, viewers)))
        }
        stream = STREAM if len(topics) == 1 else replace(STREAM, topic_filter="a/+")
        again: dict[str, Any] = {"crashes": True, "lossy": True, "again": True}
        self.actors = (
            *(
                Actor(
                    f"message {number}",
                    device_message(
                        number,
                        topics[number % len(topics)],
                        stream,
                        apart=apart or short is not None,
                        viewers=viewers,
                        short=short,
                        crowd=parts > 0 and batched is None,
                        batched=batched,
                    ),
                    **again,
                )
                for number in range(1, messages + 1)
            ),
            *([Actor("welcome", catch_up(), **again)] if welcome else []),
            *(
                Actor(f"catch-up {number}", catch_up(), after=f"asked {number}", **again)
                for number in range(1, catch_ups + 1)
            ),
            *(Actor(f"part {number}", part(), after=f"part {number}", **again) for number in range(1, parts + 1)),
        )

    def start(self) -> Values:
        return Values()

    def key(self, stores: Values) -> Hashable:
        noted = frozenset((key, value.payload, value.overtaken) for key, value in stores.stored.items())
        maps = (
            frozenset(each.items())
            for each in (
                stores.settling,
                stores.next_ms,
                stores.waits_until_ms,
                stores.carriers,
                stores.sent,
                stores.tries,
                stores.noted,
                stores.parts_until,
            )
        )
        return noted, *maps, stores.throttled, stores.refused, stores.catch_ups, stores.parts

    def environment(self, stores: Values) -> Iterator[tuple[str, Values]]:
        return iter(())

    def perform(self, stores: Values, actor: str, call: Call) -> tuple[Values, Answer, str | None]:
        match call.store:
            case "platform":
                return self._begin(stores, actor, call)
            case "crowds":
                return self._ask_part(stores, actor, call)
            case "catch-ups":
                return self._ask(stores, actor, call)
            case "sender":
                if actor in self._throttled - stores.throttled:
                    return replace(stores, throttled=stores.throttled | {actor}), ("got", Delivery.THROTTLED), None
                frame = json.loads(call.args[1])
                sent = {**stores.sent, (call.args[0], frame.get("topic", "")): frame["payload"]}
                return replace(stores, sent=sent), ("got", Delivery.DELIVERED), None
        last_values = self.store_class()
        last_values.rows.update(stores.stored)
        last_values.settling_until.update(stores.settling)
        last_values.next_ms.update(stores.next_ms)
        last_values.waits_until_ms.update(stores.waits_until_ms)
        last_values.noted.update(stores.noted)
        last_values.parts_until.update(stores.parts_until)
        last_values.carriers.update(stores.carriers)
        answer = getattr(last_values, call.method)(*call.args)
        changed = replace(
            stores,
            stored=dict(last_values.rows),
            settling=dict(last_values.settling_until),
            next_ms=dict(last_values.next_ms),
            waits_until_ms=dict(last_values.waits_until_ms),
            noted=dict(last_values.noted),
            parts_until=dict(last_values.parts_until),
            carriers=dict(last_values.carriers),
        )
        return changed, ("got", answer), None

    def _begin(self, stores: Values, actor: str, call: Call) -> tuple[Values, Answer, str | None]:
        """An invocation begins, or reads its message."""
        if call.method == "asked":
            seen = stores.catch_ups[int(actor.split()[1]) - 1] if actor.startswith("catch-up") else ()
            return stores, ("got", seen), None
        if call.method == "asked part":
            return stores, ("got", stores.parts[int(actor.split()[1]) - 1]), None
        tries = stores.tries.get(actor, 0) + 1
        return replace(stores, tries={**stores.tries, actor: tries}), ("got", tries), None

    def _ask(self, stores: Values, actor: str, call: Call) -> tuple[Values, Answer, str | None]:
        """Ask for a catch-up."""
        if self.catch_ups_end and not actor.startswith("message"):
            return stores, ("got", None), None
        many = call.method == "queue_many"
        (request,) = call.args[0] if many else call.args
        if actor in self._refused - stores.refused:
            return replace(stores, refused=stores.refused | {actor}), ("got", (request,)), None
        catch_ups = (*stores.catch_ups, tuple(sorted(request.seen.items())))
        assert len(catch_ups) <= self._asked, "the scene has too few catch-ups"
        return replace(stores, catch_ups=catch_ups), ("got", () if many else None), f"asked {len(catch_ups)}"

    def _ask_part(self, stores: Values, actor: str, call: Call) -> tuple[Values, Answer, str | None]:
        """Ask that the part be sent. A message of the queue more is one actor more."""
        if self.parts_end and actor.startswith("part"):
            return stores, ("got", None), None
        assert len(stores.parts) < self._parts, "the scene has too few parts"
        parts = (*stores.parts, call.args[0][0])
        return replace(stores, parts=parts), ("got", None), f"part {len(parts)}"

    def check_end(self, state: State[Values]) -> None:
        for value in state.stores.stored.values():
            for connection, topic in self._last:
                sent = state.stores.sent.get((connection, topic))
                if topic == (value.topic or "") and sent != json.loads(value.payload):
                    raise Violation(f"the newest value is {value.payload}, and {sent} was sent last to {connection}")
        if not self.faults and state.stores.sent != self._last:  # else an invocation may have died twice
            raise Violation(f"the newest of each topic are {self._last}, and {state.stores.sent} were sent last")
