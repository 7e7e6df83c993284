"""What revocation needs: the feed, its cursor, the task queue, and the runs of full revalidations; conventions as in
`ports.runtime`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tidegate.domain.revocations import FeedPage, Task


class RevalidationQueue(Protocol):
    """The queue of revalidation work. What is queued is done at least once."""

    def queue(self, task: Task, delay_s: int = 0) -> None: ...


class CursorStore(Protocol):
    """Our own reader's place in the feed."""

    def cursor(self) -> int | None:
        """Id up to which events were applied; None before the first."""

    def move_cursor(self, old: int | None, new: int) -> bool:
        """Conditional on the old value. False when another reader moved it."""


@dataclass(frozen=True, slots=True)
class RevalidationRun:
    """A run of a full revalidation: the right to carry it on.

    Attributes:
        owner: this run's own id; another run of the same pass has another.
        began: when the pass began, epoch seconds; earlier runs of it may have been interrupted.
        progress: step -> where earlier runs were.
    """

    owner: str
    began: int
    progress: Mapping[str, str]


class FullRevalidationRuns(Protocol):
    """The one full revalidation: when it is due, who runs it, how far it is."""

    def begin(self, owner: str, now: int, interval_s: int, life_s: int) -> RevalidationRun | None:
        """Begin a pass that is due, or carry on one left unfinished; None when neither, or while a run's lease holds.

        Due: the last one began `interval_s` ago or more, or a pass was demanded since. `now` is epoch seconds; the
        lease holds for `life_s`. One conditional write: of several callers at once, one gets it. A repetition by the
        same owner gets it again.
        """

    def note(self, run: RevalidationRun, step: str, position: str) -> bool:
        """Write down how far a step is. False when another run has the pass."""

    def pause(self, run: RevalidationRun) -> None:
        """Let the lease go, keep the progress. Harmless when another run has the pass."""

    def end(self, run: RevalidationRun) -> None:
        """The pass is complete. Harmless when another run has it."""

    def demand(self, now: int) -> None:
        """A pass is due now, whatever the interval; one that runs already does not count. `now` is epoch seconds."""


class RevocationFeed(Protocol):
    def read(self, after: int, limit: int, now: float) -> FeedPage:
        """Retained events with an id above `after`, ascending, at most `limit`."""
