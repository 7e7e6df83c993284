"""Senders that share the send quota, in time that nobody waits for."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, cast

from tests.doubles.platform import CountingIds, MemoryObserver
from tests.doubles.send_quota import MemorySendQuota
from tests.doubles.stores import MemoryLastValues
from tests.doubles.turns import Turns
from tests.model.actors import OWNER, USERS
from tidegate.domain.access import PUBLIC_SUBJECT, Claim, DashboardAccess, Principal, Visibility
from tidegate.domain.client_queues import ClientQueues, Frame, Missed
from tidegate.domain.crowds import Audience, CrowdPart
from tidegate.domain.send_quota import SendQuota
from tidegate.domain.subscriptions import Stream, Subscription, SubscriptionKey
from tidegate.errors import Unavailable
from tidegate.ports.delivery import CrowdQueue, Delivery, OutboundQueue
from tidegate.ports.gateway import AccessSnapshot, SourceStreams
from tidegate.protocol import messages
from tidegate.usecases.delivery.audiences import Audiences
from tidegate.usecases.delivery.bridge import Bridge, DeviceMessage
from tidegate.usecases.delivery.carry import Carry
from tidegate.usecases.delivery.crowds import SendPart, ShardSender
from tidegate.usecases.delivery.fan_out import FanOut
from tidegate.usecases.delivery.fresh_access import FreshAccess
from tidegate.usecases.delivery.interval import Interval
from tidegate.usecases.delivery.paced_queue import Pace, PacedQueue
from tidegate.usecases.delivery.send_queue import SendQueue
from tidegate.usecases.delivery.senders import OneShotSender, Patience
from tidegate.usecases.delivery.settle import Settle

PER_SECOND = 10
#: Senders that were refused spread their next ask by so much, and what a message and the stores take.
SPREAD_S, SLACK_S = 0.02, 0.03
#: From asking for a part to its invocation, seconds.
QUEUE_S = 0.05


def stream_of(name: str) -> Stream:
    return Stream(name, "mqtt", "json", "a/#", f"a/{name}", 0)


class Viewers:
    """Who watches which stream, everybody with a right to."""

    def __init__(self, audiences: dict[str, int]) -> None:
        self.rows = {
            name: [
                Subscription(
                    SubscriptionKey(name, f"{name}-{number}", "s"),
                    "attempt",
                    Claim(name, "s", Principal(PUBLIC_SUBJECT, 1), "hash", 10**10),
                    name,
                    True,
                )
                for number in range(count)
            ]
            for name, count in audiences.items()
        }

    def audience(self, name: str) -> Audience:
        return Audience(self.rows[name])

    def read(self, dashboards: Iterable[str], _users: object) -> AccessSnapshot:
        return AccessSnapshot(
            {name: DashboardAccess(name, 1, Visibility.LINK, OWNER, {}, {"s": "hash"}) for name in dashboards},
            USERS,
        )

    def version_of(self, _allowed_topic: str | None) -> int:
        return 1

    def of_source(self, _allowed_topic: str | None) -> SourceStreams:
        return SourceStreams(1, [stream_of(name) for name in self.rows])


class Slow:
    """A store whose calls take a moment each, and may fail."""

    def __init__(self, world: World, store: object, chance: random.Random) -> None:
        self._world, self._store, self._chance = world, store, chance

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            self._world.turns.sleep(self._chance.random() * self._world.store_s)
            return getattr(self._store, name)(*args)

        return call


class World:
    """The stores, the platform, and who sends."""

    def __init__(
        self,
        audiences: dict[str, int],
        per_second: int,
        *,
        seed: int = 1,
        store_s: float = 0.004,
        conflate: bool = True,
    ) -> None:
        self.turns, self.viewers, self.chance = Turns(), Viewers(audiences), random.Random(seed)
        self.quota = MemorySendQuota(SendQuota(per_second))
        self.values, self.ids, self.observer = MemoryLastValues(), CountingIds(), MemoryObserver()
        self.store_s, self.conflate = store_s, conflate
        #: connection -> (when, number)
        self.sent: dict[str, list[tuple[float, int]]] = {}
        self.per_window: Counter[int] = Counter()
        self.missed: list[Missed] = []
        self.crowds: CrowdQueue | None = None
        self.failed: list[str] = []
        self.under_way: Counter[str] = Counter()
        self.most_under_way: Counter[str] = Counter()

    # --- the platform ---------------------------------------------------------------------------------------

    def send(self, outgoing: OutboundQueue[Any]) -> None:
        """Twenty-five messages are answered in a few milliseconds."""
        taken = 0
        while True:
            now = self.turns.monotonic()
            message = outgoing.take(now)
            if message is not None:
                sent = outgoing.before(message)
                if sent is not None:
                    self.delivered(now, sent.connection_id, json.loads(sent.body))
                    outgoing.answered(sent, Delivery.DELIVERED)
                taken += 1
                if taken % 25 == 0:
                    self.turns.sleep(0.002)
                continue
            due = outgoing.due
            if outgoing.ended and not outgoing.ready(now) and due is None:
                return
            self.turns.sleep(0.005 if due is None else max(0.001, due - now))

    def delivered(self, now: float, connection_id: str, body: dict[str, Any]) -> None:
        """A message reached a viewer."""
        self.sent.setdefault(connection_id, []).append((now, body["payload"]))

    # --- the bridge -----------------------------------------------------------------------------------------

    def publish(self, at: float, name: str, number: int) -> None:
        self.turns.begin(at, lambda: self._deliver(name, number))

    def _deliver(self, name: str, number: int) -> None:
        self.under_way[name] += 1
        self.most_under_way[name] = max(self.most_under_way[name], self.under_way[name])
        stamp = int(self.turns.now() * 1000)
        try:
            self.bridge()(DeviceMessage("a/#", f"a/{name}", str(number).encode(), stamp, f"{number:06d}"))
        except Unavailable as error:
            self.failed.append(error.code or "")
        finally:
            self.under_way[name] -= 1

    def pace(self) -> Pace:
        return Pace(self.quota, self.quota.quota, clock=self.turns, chance=self.chance.random, observer=self.observer)

    def one_shot(self, audiences: Audiences, patience: Patience) -> OneShotSender:
        """That of one process."""
        return OneShotSender(
            access=FreshAccess(cast(Any, self.viewers), audiences, self.turns),
            sender=cast(Any, self),
            failure_handler=cast(Any, self),
            observer=self.observer,
            pace=self.pace(),
            patience=patience,
        )

    def bridge(self) -> Bridge:
        """That of one process."""
        turns, viewers = self.turns, cast(Any, self.viewers)
        values = cast(Any, Slow(self, self.values, self.chance))
        audiences, patience = Audiences(viewers.audience, turns), Patience(turns, 15.0)
        send = self.one_shot(audiences, patience)
        fan_out = FanOut(
            audiences=audiences,
            last_values=values,
            send=send,
            max_message_bytes=10_000,
            clock=turns,
            observer=self.observer,
            crowds=self.crowds,
            interval=Interval(last_values=values, per_second=PER_SECOND, clock=turns, sleep=turns.sleep)
            if self.conflate
            else None,
            carry=Carry(send, values, PER_SECOND, turns.sleep, turns, self.ids, self.observer)
            if self.conflate
            else None,
            chance=lambda: 1.0,
        )
        return Bridge(
            enabled=True,
            max_payload_bytes=1000,
            streams=viewers,
            fan_out=fan_out,
            settle=Settle(
                last_values=values, fan_out=fan_out, catch_up=self.or_fail, clock=turns, observer=self.observer
            ),
            clock=turns,
            observer=self.observer,
            patience=patience,
        )

    def or_fail(self, left: Iterable[str | Missed]) -> None:
        """The failure handler: who missed something gets a catch-up."""
        self.missed += [each for each in left if isinstance(each, Missed)]

    # --- a relay worker ---------------------------------------------------------------------------------------

    def relay(self, name: str, values: Sequence[tuple[float, int]], seconds: float) -> None:
        """A worker with one upstream. It sends until `seconds`."""
        queues = ClientQueues(conflate=True)
        audiences = Audiences(self.viewers.audience, self.turns)
        access = FreshAccess(cast(Any, self.viewers), audiences, self.turns)
        inner = SendQueue(queues, access=access, left=lambda _left: None, observer=self.observer)

        def hold_back(held: bool) -> None:
            queues.held_back = held

        def add(number: int) -> None:
            for row in audiences.of(name):
                queues.add(Frame(row, messages.data("s", str(number), 0.0, "1"), True))

        def work() -> None:
            outgoing = PacedQueue(inner, self.pace(), hold_back)
            while self.turns.at < seconds:
                self.send(outgoing)
                self.turns.sleep(0.005)

        for at, number in values:
            self.turns.begin(at, partial(add, number))
        self.turns.begin(0.0, work)

    # --- what came of it ------------------------------------------------------------------------------------

    def numbers(self, name: str) -> list[list[int]]:
        """What each viewer of a stream was sent."""
        return [[number for _, number in self.sent.get(row.key.connection_id, [])] for row in self.viewers.rows[name]]

    def delays(self, name: str, published: dict[int, float]) -> list[float]:
        return [
            at - published[number]
            for row in self.viewers.rows[name]
            for at, number in self.sent.get(row.key.connection_id, [])
        ]


class PartsWorld(World):
    """A world whose audiences are sent to in parts, each by an invocation. `parts`: how many were asked for."""

    def __init__(self, audiences: dict[str, int], per_second: int, **options: Any) -> None:
        super().__init__(audiences, per_second, **options)
        self.crowds = self
        self.parts = 0

    def audience_of(self, _part: CrowdPart, stream_key: str) -> Audience:
        """Whom the invocation of a part finds."""
        return self.viewers.audience(stream_key)

    def ask(self, parts: Sequence[CrowdPart], delay_s: int = 0) -> None:
        for part in parts:
            self.parts += 1
            self.turns.begin(self.turns.at + QUEUE_S + delay_s, partial(self._send_part, part))

    def _send_part(self, part: CrowdPart) -> None:
        turns, patience = self.turns, Patience(self.turns, 90.0)
        values = cast(Any, Slow(self, self.values, self.chance))
        audiences = Audiences(partial(self.audience_of, part), turns)
        send = self.one_shot(audiences, patience)
        fan_out = FanOut(
            audiences=audiences,
            last_values=values,
            send=send,
            max_message_bytes=10_000,
            clock=turns,
            observer=self.observer,
        )
        SendPart(
            last_values=values,
            sender_of=lambda _shard: ShardSender(fan_out, send),
            queue=self,
            patience=patience,
            clock=turns,
            observer=self.observer,
        )(part)
