"""Doubles of what is not a store: a clock moved by hand, ids that count, a platform that remembers what it was sent."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from uuid import UUID

from tidegate.domain.crowds import CrowdPart
from tidegate.domain.subscriptions import CatchUpRequest
from tidegate.ports.delivery import (
    CatchUpQueue,
    CrowdQueue,
    Delivery,
    M,
    OutboundMessage,
    OutboundQueue,
    Sender,
    SendResult,
)
from tidegate.ports.limits import KeyHasher
from tidegate.ports.relay_workers import RelayWorkers
from tidegate.ports.runtime import Clock, Ids, Observer


class Died(BaseException):
    """The process is gone: nothing catches it."""


class ManualClock(Clock):
    """Time, moved by hand."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._now = now
        self._monotonic = 1000.0

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        self._now += seconds
        self._monotonic += seconds


class CountingIds(Ids):
    """Ids that count."""

    def __init__(self) -> None:
        self._next = 0

    def new_id(self) -> str:
        self._next += 1
        return f"id-{self._next:017d}"

    def new_uuid(self) -> str:
        self._next += 1
        return str(UUID(int=self._next))

    def new_share_token(self) -> str:
        self._next += 1
        return f"share-{self._next:026d}"


class PlainKeys(KeyHasher):
    """Keys that hide nothing."""

    def key(self, *parts: str) -> str:
        return "|".join(part.lower() for part in parts)

    def known(self) -> list[Callable[..., str]]:
        return [self.key]


class MemorySender(Sender):
    """`answers` says what becomes of posts to a connection; without an entry they are
    delivered."""

    def __init__(self) -> None:
        self.sent: dict[str, list[dict[str, Any]]] = {}  # batches taken apart
        self.posts: list[tuple[str, int]] = []  # connection, bytes
        self.bodies: list[tuple[str, bytes]] = []
        self.answers: dict[str, Delivery] = {}
        self.closed: list[str] = []

    def post(self, connection_id: str, body: bytes) -> Delivery:
        delivery = self.answers.get(connection_id, Delivery.DELIVERED)
        if delivery is Delivery.DELIVERED:
            frame = json.loads(body)
            self.posts.append((connection_id, len(body)))
            self.bodies.append((connection_id, body))
            self.sent.setdefault(connection_id, []).extend(frame.get("messages", [frame]))
        return delivery

    def post_many(
        self,
        posts: Iterable[OutboundMessage],
        *,
        before_each: Callable[[OutboundMessage], bool] | None = None,
        deadline: float | None = None,
    ) -> Sequence[SendResult]:
        return [
            SendResult(
                post,
                self.post(post.connection_id, post.body)
                if before_each is None or before_each(post)
                else Delivery.WITHHELD,
            )
            for post in posts
        ]

    def send(self, outgoing: OutboundQueue[M]) -> None:
        """Everything that is there. Time is over at once: no window has to pass."""
        while (message := outgoing.take(float("inf"))) is not None:
            sent = outgoing.before(message)
            if sent is not None:
                outgoing.answered(sent, self.post(sent.connection_id, sent.body))

    def wake(self) -> None: ...

    def end(self) -> None: ...

    def exists(self, connection_id: str) -> bool:
        return self.answers.get(connection_id) is not Delivery.GONE

    def close(self, connection_id: str) -> None:
        self.closed.append(connection_id)

    def data(self, connection_id: str) -> list[Any]:
        """Payloads of the `data` frames a connection received."""
        return [frame["payload"] for frame in self.sent.get(connection_id, []) if frame["type"] == "data"]


class MemoryCrowdQueue(CrowdQueue):
    """Keeps the parts that were asked for."""

    def __init__(self) -> None:
        self.asked: list[CrowdPart] = []
        self.delays: list[int] = []

    def ask(self, parts: Sequence[CrowdPart], delay_s: int = 0) -> None:
        self.asked += parts
        self.delays.append(delay_s)


class MemoryCatchUpQueue(CatchUpQueue):
    """Keeps what was queued."""

    def __init__(self) -> None:
        self.queued: list[CatchUpRequest] = []

    def queue(self, request: CatchUpRequest) -> None:
        self.queued.append(request)

    def queue_many(self, requests: Sequence[CatchUpRequest], deadline: float) -> Sequence[CatchUpRequest]:
        for request in requests:
            self.queue(request)
        return []


class MemoryRelayWorkers(RelayWorkers):
    """Notes which partitions were started."""

    def __init__(self) -> None:
        self.started: list[tuple[int, bool]] = []

    def start(self, partition: int, *, successor: bool = False) -> None:
        self.started.append((partition, successor))


class MemoryObserver(Observer):
    """Keeps what was counted and logged."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, ...], int] = {}
        self.times: dict[str, list[float]] = {}
        self.faults: list[tuple[str, BaseException]] = []
        self.said: dict[str, str] = {}

    def count(self, name: str, value: int = 1, **dimensions: str) -> None:
        key = (name, *(dimensions[dimension] for dimension in sorted(dimensions)))
        self.counts[key] = self.counts.get(key, 0) + value

    def time(self, name: str, milliseconds: float) -> None:
        self.times.setdefault(name, []).append(milliseconds)

    def about(self, **fields: str) -> None:
        self.said |= fields

    def info(self, message: str, **fields: object) -> None:
        return

    def warning(self, message: str, **fields: object) -> None:
        return

    def fault(self, message: str, error: BaseException, **fields: object) -> None:
        self.faults.append((message, error))
