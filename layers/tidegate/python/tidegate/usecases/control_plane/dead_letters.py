"""Messages that failed again and again: how many there are, and trying them again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tidegate.domain.audit import AuditEvent
from tidegate.domain.rights import check_admin
from tidegate.domain.users import User
from tidegate.errors import NotFound
from tidegate.ports.control_plane import AuditLog
from tidegate.ports.operations import DeadLetterQueue
from tidegate.ports.runtime import Clock, Observer
from tidegate.usecases.control_plane.operations import PART_S
from tidegate.usecases.parallel import in_parallel

#: Most messages that one call moves, and how long it may take, seconds. A call again moves the rest.
MOST, MOVING_S = 500, 15.0


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """What a dead-letter queue holds.

    Attributes:
        queue: its name.
        sources: names of the queues whose messages come here.
        messages: how many there are; None when it could not be checked.
        oldest_ms: when the oldest of up to ten was first sent, epoch milliseconds. None when there is none, or it could
            not be checked.
    """

    queue: str
    sources: Sequence[str]
    messages: int | None
    oldest_ms: int | None


@dataclass(frozen=True, slots=True)
class DeadQueue:
    """A dead-letter queue with the names of the queues whose messages come there."""

    sources: Sequence[str]
    queue: DeadLetterQueue


class ManageDeadLetters:
    """Looks at the dead-letter queues, and empties them."""

    def __init__(self, *, queues: Mapping[str, DeadQueue], audit: AuditLog, clock: Clock, observer: Observer) -> None:
        self._queues = queues
        self._audit = audit
        self._clock = clock
        self._observer = observer

    def all(self, actor: User) -> Sequence[DeadLetters]:
        """Every queue, all asked at the same time. Raises `Denied` for anybody but an admin."""
        check_admin(actor)
        return self.each(self._clock.monotonic() + PART_S)

    def each(self, deadline: float) -> Sequence[DeadLetters]:
        """As `all`, for whoever has checked the right. `deadline` is in monotonic seconds."""
        return in_parallel(lambda name: self._look(name, deadline), list(self._queues), width=max(1, len(self._queues)))

    def move_back(self, actor: User | None, name: str, most: int = MOST) -> tuple[int, int | None]:
        """Send what a queue holds back to where it came from. Returns how many were moved, and how many are left.

        What fails again comes back. Repeating is harmless: so is every message of these queues.

        Args:
            actor: None for an operator, whom AWS has let in.
            most: how many are moved, and never more than `MOST`.

        Raises:
            Denied: the actor is no admin.
            NotFound: there is no such queue.
            Unavailable: SQS did not answer. What was moved stays moved.
        """
        if actor is not None:
            check_admin(actor)
        found = self._queues.get(name)
        if found is None:
            raise NotFound("There is no such queue")
        # What fails again meanwhile is not moved once more.
        there = found.queue.depth(self._clock.monotonic() + PART_S).all
        moved = found.queue.move_back(min(there, most, MOST), self._clock.monotonic() + MOVING_S)
        at_ms, by = int(self._clock.now() * 1000), actor.user_id if actor else None
        self._audit.record(AuditEvent("operations.dead_letters_redriven", by, "queue", name, at_ms, {"moved": moved}))
        return moved, self._look(name, self._clock.monotonic() + PART_S).messages

    def _look(self, name: str, deadline: float) -> DeadLetters:
        found = self._queues[name]
        messages = oldest = None
        try:
            messages = found.queue.depth(deadline).all
            oldest = found.queue.oldest_ms(deadline) if messages else None
        except Exception as error:  # whatever it is, the other queues are shown
            self._observer.fault("part of the summary not read", error, part=f"dead letters of {name}")
        return DeadLetters(name, found.sources, messages, oldest)
