"""Revocation events, as the feed holds them.

Invariant of this file: event ids are integers without gaps. A reader at id n knows every event up to n.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class RevocationReason(StrEnum):
    """The operation that revoked, for operators, logs and metrics."""

    SHARE_TOKEN_ROTATED = "share_token_rotated"
    VISIBILITY_CHANGED = "visibility_changed"
    DASHBOARD_DELETED = "dashboard_deleted"
    PROFILE_POLICY_CHANGED = "profile_policy_changed"
    DATASOURCES_CHANGED = "datasources_changed"
    ACL_REMOVED = "acl_removed"
    OWNER_CHANGED = "owner_changed"
    USER_DEACTIVATED = "user_deactivated"
    ROLE_LOWERED = "role_lowered"
    PASSWORD_RESET = "password_reset"
    SIGNED_OUT = "signed_out"
    OTHER = "other"

    @classmethod
    def of(cls, text: str) -> RevocationReason:
        """The reason. `OTHER` when a newer version wrote one that is not known here: the event counts all the same."""
        try:
            return cls(text)
        except ValueError:
            return cls.OTHER


@dataclass(frozen=True, slots=True)
class Revocation:
    """What an operation asks to be recorded. The feed gives it an id when it is written.

    Attributes:
        reason: the operation.
        dashboard_id: the dashboard concerned; None for an event about a user on all dashboards.
        share_version: the dashboard's share version after the change; None for an event about a user.
        user_id: the user who lost a right; None when it concerns every viewer of the dashboard.
    """

    reason: RevocationReason
    dashboard_id: str | None = None
    share_version: int | None = None
    user_id: str | None = None


@dataclass(frozen=True, slots=True)
class RevocationEvent:
    """A recorded revocation.

    Attributes:
        event_id: integer, gapless, starting at 1.
        revocation: what happened.
        revoked_at_ms: epoch milliseconds of the write.
    """

    event_id: int
    revocation: Revocation
    revoked_at_ms: int


@dataclass(frozen=True, slots=True)
class SavedDocument:
    """A dashboard's document that was saved: its new revision, and when, in epoch milliseconds to the second."""

    dashboard_id: str
    revision: int
    saved_at_ms: int


class TaskKind(StrEnum):
    """What revalidation is asked to do."""

    DASHBOARD = "dashboard"
    USER = "user"
    POLL = "poll"
    FULL = "full"
    SLOT = "slot"
    RELAYS = "relays"
    EXPIRED = "expired"
    DOCUMENT = "document"


#: What the schedule asks for again and again.
OF_THE_SCHEDULE = frozenset({TaskKind.POLL, TaskKind.EXPIRED, TaskKind.RELAYS, TaskKind.FULL})

#: When a task is tried again after it failed for the first time, the second time and so on, seconds. After the last one
#: it is dead. Stores that do not answer for a quarter of an hour make none dead. SQS delays by 15 minutes at most.
AGAIN_AFTER_S = (30, 120, 480, 900)


@dataclass(frozen=True, slots=True)
class Task:
    """One piece of revalidation work.

    Attributes:
        target: a dashboard's or user's id. For a slot, its name and its holder with a space between. Else empty.
        since_ms: time of the event that made this task necessary, epoch milliseconds; 0 when there was none.
        revision: of the document that was saved. Only of `DOCUMENT`, as the next two.
        after: the connection that was told last; "" when it is to begin with the first.
        viewers: the connections that are still to be told; empty for all that watch the dashboard.
        tries: how often it has failed.
    """

    kind: TaskKind
    target: str = ""
    since_ms: int = 0
    revision: int = 0
    after: str = ""
    viewers: tuple[str, ...] = ()
    tries: int = 0


def task_for(revocation: Revocation, revoked_at_ms: int) -> Task:
    """The task of an event: check the dashboard's subscriptions again, or the user's on every dashboard."""
    if revocation.dashboard_id is not None:
        return Task(TaskKind.DASHBOARD, revocation.dashboard_id, revoked_at_ms)
    return Task(TaskKind.USER, revocation.user_id or "", revoked_at_ms)


def task_for_saved(saved: SavedDocument) -> Task:
    """The task of a saved document: tell who watches the dashboard."""
    return Task(TaskKind.DOCUMENT, saved.dashboard_id, saved.saved_at_ms, saved.revision)


def tasks_for(events: Iterable[RevocationEvent]) -> list[Task]:
    """The tasks of several events. Each dashboard and user is there once, with the time of its first event."""
    tasks: dict[tuple[TaskKind, str], Task] = {}
    for event in events:
        task = task_for(event.revocation, event.revoked_at_ms)
        tasks.setdefault((task.kind, task.target), task)
    return list(tasks.values())


@dataclass(frozen=True, slots=True)
class FeedPage:
    """One read of the feed.

    Attributes:
        events: ascending by id, without gaps from the cursor on.
        head: id of the newest event written so far (0 when there was none yet).
        oldest: id of the oldest event still retained (head + 1 when none is).
    """

    events: tuple[RevocationEvent, ...]
    head: int
    oldest: int

    def misses(self, after: int, limit: int) -> bool:
        """Whether events are missing for a reader that was at id `after` and asked for `limit` events.

        That is so when events are past their retention. It is also so when the feed ends before `after`: then it is
        another feed, for example of a restored table.
        """
        whole = range(after + 1, min(self.head, after + limit) + 1)
        return after > self.head or [event.event_id for event in self.events] != list(whole)
