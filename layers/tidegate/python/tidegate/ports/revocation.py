"""What revocation needs: the feed, its cursor, the task queue, and the runs of full revalidations.

Conventions: see `ports.runtime`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tidegate.domain.revocations import FeedPage, Task


class RevalidationQueue(Protocol):
    """The queue of revalidation tasks. Every task is carried out at least once."""

    def queue(self, task: Task, delay_s: int = 0) -> None: ...


class BuriedTasks(Protocol):
    """The dead-letter queue of revalidation, for tasks that failed again and again."""

    def bury(self, task: Task) -> None: ...

    def bury_unread(self, body: str) -> None:
        """Bury a message that is no task, as it came."""


class CursorStore(Protocol):
    """The place of our own reader in the feed."""

    def cursor(self) -> int | None:
        """Id of the last event that was applied; None before the first."""

    def move_cursor(self, old: int | None, new: int) -> bool:
        """Store the new cursor, conditional on the old one. False when another reader moved it."""


@dataclass(frozen=True, slots=True)
class RevalidationRun:
    """A run of a full revalidation: the right to carry it on. An interrupted one takes several runs.

    Attributes:
        owner: id of this run. Every run has its own.
        began: when the full revalidation began, epoch seconds. Earlier runs of it may have been interrupted.
        progress: step -> position that earlier runs reached.
    """

    owner: str
    began: int
    progress: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RevocationState:
    """How far revocation is.

    Attributes:
        newest: id of the newest event; 0 before the first.
        applied: id of the last event that our reader has applied; 0 before the first.
        waiting_since_ms: when the oldest event was recorded that it has not applied, epoch milliseconds. None when
            there is none, or it is past its retention.
        began: when the last full revalidation began, epoch seconds; None before the first.
        open: whether that one goes on.
        demanded: whether another one was asked for since.
        ended: when the last one ended that ended, epoch seconds; None before the first.
        connections: how many open connections that one found.
    """

    newest: int
    applied: int
    waiting_since_ms: int | None
    began: int | None
    open: bool
    demanded: bool
    ended: int | None
    connections: int | None


class FullRevalidationRuns(Protocol):
    """The state of the full revalidation: when it is due, who runs it, how far it is. There is only one at a time."""

    def begin(self, owner: str, now: int, interval_s: int, life_s: int, switches: str = "") -> RevalidationRun | None:
        """Begin a full revalidation that is due, or carry on an unfinished one.

        It is also due when `switches` differ from those that the last one began with. From then on, for `SETTLING_S`,
        one is due whenever it is asked for, because functions with the old settings may still admit subscribes while a
        deployment goes on.

        It is due when the last one began `interval_s` seconds ago or more, or when one was demanded since. The writes
        are conditional, so of several callers at the same time only one gets the run. A repetition by the same owner
        gets it again.

        Args:
            owner: id of the new run.
            now: epoch seconds.
            interval_s: least time between two beginnings, seconds.
            life_s: how long the run's lease holds, seconds.
            switches: the digest of what the operator switched on.

        Returns:
            The run; None when nothing is due or unfinished, or while the lease of another run holds.
        """

    def note(self, run: RevalidationRun, step: str, position: str) -> bool:
        """Store how far a step is. False when another run has taken over."""

    def pause(self, run: RevalidationRun) -> None:
        """Give the lease back and keep the progress. Harmless when another run has taken over."""

    def end(self, run: RevalidationRun, ended: int = 0, connections: int | None = None) -> None:
        """The full revalidation is complete. Harmless when another run has taken over.

        `ended`: when, epoch seconds. `connections`: how many it found; None when that is not known.
        """

    def demand(self, now: int) -> None:
        """Make a full revalidation due now, whatever the interval. `now` is epoch seconds.

        One that runs already does not count: another follows it.
        """


class RevocationFeed(Protocol):
    def read(self, after: int, limit: int, now: float) -> FeedPage:
        """Read retained events with an id above `after`, ascending, at most `limit`. `now` is epoch seconds."""
