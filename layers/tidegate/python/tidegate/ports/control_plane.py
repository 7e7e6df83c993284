"""What the control plane's use cases need from their stores. Conventions: see `ports.runtime`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from tidegate.domain.access import DashboardAccess
    from tidegate.domain.audit import AuditEvent, AuditQuery, AuditRow
    from tidegate.domain.dashboards import Dashboard, DashboardSummary
    from tidegate.domain.intents import Intent
    from tidegate.domain.profile_changes import ProfileChange
    from tidegate.domain.revocations import Revocation
    from tidegate.domain.users import User

T = TypeVar("T")


class FollowRequests(Protocol):
    """The queue of requests to follow changes of profiles."""

    def ask(self, delay_s: int = 0) -> None:
        """Ask that every open change be followed, `delay_s` seconds from now. Asking often is harmless."""


class PasswordHasher(Protocol):
    def hash(self, password: str) -> str:
        """Argon2id, PHC string format."""

    def verify(self, password_hash: str, password: str) -> bool: ...


class CredentialCipher(Protocol):
    """Encrypts secrets with AES-256-GCM. The profile id is the associated data."""

    def encrypt(self, profile_id: str, secret: Mapping[str, str]) -> str:
        """Returns an opaque text that names its key. Raises `Unavailable` when the key's service does not answer."""

    def decrypt(self, profile_id: str, sealed: str) -> Mapping[str, str]:
        """The secret's parts by name.

        Raises:
            SecretUnreadable: the text cannot be decrypted, now or later.
            Unavailable: the key's service did not answer.
        """


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list. `cursor` is opaque; None on the last page."""

    items: Sequence[T]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class DashboardWrite:
    """Everything that one change of a dashboard writes, in one transaction: all or nothing.

    Attributes:
        before: the dashboard as it was read; None to create one. The write is conditional on its row version.
        after: the dashboard as it shall be, with `after.row_version == before.row_version + 1`. None to delete it; then
            a tombstone stays in the access table.
        access: the access item after the change. Its `intents` count only when `intents` are written.
        intents: datasource id -> canonical intent, stored beside the access item. None for a change that leaves the
            document alone: then the stored intents, their hashes and the uses of profiles stay. The intents name the
            revision of each profile they were built from. A profile that has another revision now is a `Conflict`,
            because the intents would be stale.
        intents_before: the stored intents, read after `before`. Compared with `intents` they show which uses of
            profiles end. A write of other intents in between is noticed: it changes the row version.
        follows: the change of a profile that this write follows. `Conflict` when the dashboard has followed it already.
        revocation: the event to record; None when nobody loses a right.
        relies_on: id of a user who must be active at the moment of the write, else `Conflict`. None for nobody.
    """

    before: Dashboard | None
    after: Dashboard | None
    access: DashboardAccess
    intents: Mapping[str, Intent] | None
    intents_before: Mapping[str, Intent] = field(default_factory=dict)
    follows: ProfileChange | None = None
    revocation: Revocation | None = None
    relies_on: str | None = None


class DashboardStore(Protocol):
    def get(self, dashboard_id: str) -> Dashboard | None: ...

    def intents(self, dashboard_id: str) -> Mapping[str, Intent]:
        """Datasource id -> intent, as last written. Empty when there is no such dashboard."""

    def by_share_token(self, share_token: str) -> Dashboard | None:
        """*Index*, then the dashboard itself is read: its token must still be this one."""

    def owned_by(self, owner_id: str, limit: int, cursor: str | None) -> Page[DashboardSummary]:
        """*Index.*"""

    def all(self, limit: int, cursor: str | None) -> Page[DashboardSummary]:
        """*Index.*"""

    def summaries(self, dashboard_ids: Iterable[str]) -> Sequence[DashboardSummary]:
        """Summaries of the dashboards that exist, in no order."""

    def write(self, write: DashboardWrite, now_ms: int) -> int | None:
        """Carry out the write in one transaction: dashboard, access item, intents, uses of profiles, the
        `shared_dashboards` of users added to or removed from the ACL, and the event.

        Repeating is safe: a write whose answer was lost is recognised as done.

        Returns:
            The event's id; None without an event.

        Raises:
            ChangedMeanwhile: the dashboard, or a profile or user that it names, is not as it was read.
            TooManyAtOnce: it names more profiles and users than one transaction holds.
        """


@dataclass(frozen=True, slots=True)
class UserWrite:
    """Everything that one change of a user writes: the user, the access item, and the event when rights are lost.

    `by`: id of the admin who changes somebody's rights; None for users themselves, and for the first admin.
    """

    before: User | None
    after: User
    revocation: Revocation | None = None
    by: str | None = None


class UserStore(Protocol):
    def get(self, user_id: str) -> User | None: ...

    def get_all(self, user_ids: Iterable[str]) -> Mapping[str, User]:
        """User id -> user, of those that exist, in one read for each hundred."""

    def by_email(self, email: str) -> User | None:
        """Strongly consistent: an e-mail has an item of its own that names its user."""

    def all(self, limit: int, cursor: str | None, containing: str = "") -> Page[User]:
        """*Index.* Ordered by e-mail.

        `containing`, in small letters, keeps the users whose e-mail has it in it. A page looks at 1000 users at most:
        it may have fewer than `limit`, even none, and a cursor.
        """

    def write(self, write: UserWrite, now_ms: int) -> int | None:
        """Carry out the write in one transaction. Returns the event's id, None without an event.

        The condition is the row version; for a new user, that the e-mail is free. A write that takes or gives admin
        rights has two further ones: `by` is an active admin at that moment, and an active admin is left. Raises
        `Conflict` otherwise.
        """

    def end_login(self, user_id: str, note: str, forget: Set[str]) -> None:
        """Add a note to the user's `ended_logins`, then drop those of `forget`. Repeating changes nothing.

        The row version grows, so that a write of the user that was read before starts over.
        """


class AuditLog(Protocol):
    def record(self, event: AuditEvent) -> None:
        """Record the event if possible. A failure is counted and logged, never raised.

        Events that somebody without rights can repeat are counted in one row: see `domain.audit`.
        """

    def page(self, query: AuditQuery) -> Page[AuditRow]:
        """The newest rows that the query wants. *Index*, where the query has a `key`.

        It reads `query.limit` rows and shows those that pass all filters. So with more than one filter a page may have
        fewer rows, even none, and a cursor.
        """
