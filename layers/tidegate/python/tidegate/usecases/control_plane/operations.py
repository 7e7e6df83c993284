"""What an operator looks at: what is connected, what fails, how far revocation is, what waits in queues.

Invariant of this file: a part that could not be read is None, and is named. It is never shown as zero, and never keeps
the other parts from being shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tidegate.domain.audit import AuditEvent
from tidegate.domain.relay import Lease, is_overdue
from tidegate.domain.revocations import Task, TaskKind
from tidegate.domain.rights import check_admin
from tidegate.domain.subscriptions import Stream
from tidegate.domain.users import User
from tidegate.ports.control_plane import AuditLog
from tidegate.ports.revocation import FullRevalidationRuns, RevalidationQueue
from tidegate.ports.runtime import Clock, Observer
from tidegate.usecases.limits.rate_limits import RateLimits
from tidegate.usecases.parallel import in_parallel

#: How long one part may take, seconds. It is as long as a deep health check gives one store.
PART_S = 2.0
#: Most streams of the relay that are looked at, and most that are named because they fail.
STREAMS, NAMED = 1000, 50


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the summary. `read` reads it, by the monotonic second that it is given."""

    name: str
    read: Callable[[float], Any]


class OperationsSummary:
    """Reads all parts at the same time."""

    def __init__(self, *, parts: Sequence[Part], clock: Clock, observer: Observer) -> None:
        self._parts = parts
        self._clock = clock
        self._observer = observer

    def __call__(self, actor: User) -> Mapping[str, Any]:
        """Name -> what was read; None for what did not answer. Raises `Denied` for anybody but an admin."""
        check_admin(actor)
        read = in_parallel(self._read, self._parts, width=max(1, len(self._parts)))
        return dict(zip((part.name for part in self._parts), read, strict=True))

    def _read(self, part: Part) -> Any:
        try:
            return part.read(self._clock.monotonic() + PART_S)
        except Exception as error:  # whatever it is, the other parts are shown
            self._observer.fault("part of the summary not read", error, part=part.name)
            return None


@dataclass(frozen=True, slots=True)
class Count:
    """`more`: whether there are more than were counted."""

    count: int
    more: bool


def counted(one: Callable[[int], tuple[int, bool]], shards: int) -> Count:
    """The sum over all shards, which are counted at the same time."""
    found = in_parallel(one, range(shards))
    return Count(sum(count for count, _ in found), any(more for _, more in found))


@dataclass(frozen=True, slots=True)
class FailingUpstream:
    """An upstream that is not connected, and why. `source`: what it connects to, without query."""

    protocol: str
    source: str
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Upstreams:
    """The relay's upstreams.

    Attributes:
        connected: how many are.
        failing: those that are not, with their last fault; at most `NAMED`.
        failing_count: how many there are of them.
        idle: how many are neither: nobody watches them, or they are being connected.
        more: whether there are more than were looked at.
    """

    connected: int
    failing: Sequence[FailingUpstream]
    failing_count: int
    idle: int
    more: bool


def upstreams(streams: Sequence[Stream], most: int = STREAMS) -> Upstreams:
    """What is to be said of these streams, of which at most `most` were to be read."""
    connected = [stream for stream in streams if stream.connected]
    failing = sorted(_failing(streams), key=lambda one: (one.code, one.source))
    idle = len(streams) - len(connected) - len(failing)
    return Upstreams(len(connected), failing[:NAMED], len(failing), idle, len(streams) >= most)


def _failing(streams: Sequence[Stream]) -> Iterator[FailingUpstream]:
    for stream in streams:
        if stream.fault is not None and not stream.connected:
            yield FailingUpstream(stream.protocol, source_of(stream.intent or {}), stream.fault.code, stream.fault.text)


def source_of(intent: Mapping[str, object]) -> str:
    """What a stream connects to, for operators: a URL without query, and the topic where it has one."""
    try:
        parts = urlsplit(str(intent.get("url") or intent.get("brokerUrl") or ""))
        host = (parts.hostname or "") + (f":{parts.port}" if parts.port else "")
    except ValueError:
        return "?"
    url = f"{parts.scheme}://{host}{parts.path}" if host else "?"
    return f"{url} {intent['topic']}" if "topic" in intent else url


@dataclass(frozen=True, slots=True)
class RelayPartition:
    """Who runs a partition of the relay.

    Attributes:
        state: `held`, `overdue` when its worker has most likely died, `free` when nobody has it.
        until: when the lease ends, epoch seconds; None when nobody has it.
        successor: whether a worker waits to take over.
    """

    partition: int
    state: str
    until: float | None
    successor: bool


def relay_partition(partition: int, lease: Lease | None, now: float) -> RelayPartition:
    if lease is None or lease.until <= now:
        return RelayPartition(partition, "free", None, False)
    return RelayPartition(
        partition, "overdue" if is_overdue(lease, now) else "held", lease.until, bool(lease.successor)
    )


class DemandFullRevalidation:
    """Asks for a full revalidation, for an operator."""

    def __init__(
        self,
        *,
        runs: FullRevalidationRuns,
        tasks: RevalidationQueue,
        rates: RateLimits,
        audit: AuditLog,
        clock: Clock,
    ) -> None:
        self._runs = runs
        self._tasks = tasks
        self._rates = rates
        self._audit = audit
        self._clock = clock

    def __call__(self, actor: User) -> None:
        """Ask that every subscription be checked again now. One that runs already does not count: another follows it.

        Raises:
            Denied: the actor is no admin.
            LimitReached: somebody has asked in this minute.
            Unavailable: a store, the limiter or the queue did not answer.
        """
        check_admin(actor)
        self._rates.consume("full-revalidation", "all", 1, refusal="A full revalidation was asked for in this minute")
        now = self._clock.now()
        self._runs.demand(int(now))
        self._tasks.queue(Task(TaskKind.FULL))
        event = AuditEvent(
            "operations.full_revalidation", actor.user_id, "operations", "full-revalidation", int(now * 1000)
        )
        self._audit.record(event)
