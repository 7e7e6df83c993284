"""What the control plane's use cases need from their stores, as Protocols; conventions as in `ports.runtime`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from tidegate.domain.access import DashboardAccess
    from tidegate.domain.dashboards import Dashboard, DashboardSummary
    from tidegate.domain.intents import Intent
    from tidegate.domain.profiles import BrokerProfile, CredentialProfile, ProfileChange
    from tidegate.domain.revocations import Revocation
    from tidegate.domain.tokens import UserClaims
    from tidegate.domain.users import User

T = TypeVar("T")


class FollowRequests(Protocol):
    """The queue of requests to follow changes of profiles."""

    def ask(self) -> None:
        """Ask that whatever change is open be followed now. Asking often is harmless."""


class UserTokens(Protocol):
    def verify(self, token: str, now: float) -> UserClaims:
        """Check a login token. Raises `Unauthenticated`."""

    def sign(self, claims: UserClaims) -> str: ...


class PasswordHasher(Protocol):
    def hash(self, password: str) -> str:
        """Argon2id, PHC string format."""

    def verify(self, password_hash: str, password: str) -> bool: ...


class CredentialCipher(Protocol):
    """AES-256-GCM with the profile id as associated data."""

    def encrypt(self, profile_id: str, secret: Mapping[str, str]) -> str:
        """An opaque text that names its key. Raises `Unavailable` when the key's service does not answer."""

    def decrypt(self, profile_id: str, sealed: str) -> Mapping[str, str]:
        """The secret's parts by name.

        Raises:
            SecretUnreadable: the text cannot be opened, now or later. Unavailable: the key's service did not answer.
        """


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list. `cursor` is opaque; None on the last page."""

    items: Sequence[T]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class DashboardWrite:
    """Everything one change of a dashboard writes: one transaction, all or nothing.

    Attributes:
        before: the dashboard as read, None to create; the condition is on its row version.
        after: as it shall be (`after.row_version == before.row_version + 1`), None to delete (a tombstone stays in
            access).
        access: the access item after the change; its `intents` count only when `intents` are written.
        intents: datasource id -> canonical intent, stored beside the access item. None: what is stored stays, with its
            hashes and the uses of profiles; for a change that leaves the document alone. Each profile the intents were
            built from must still have the revision they name, else `Conflict` (they would be stale).
        intents_before: those stored, read after `before`; with `intents` they tell which uses of profiles go. Whoever
            wrote others since has moved the row version.
        follows: change of a profile that this write follows; a dashboard that has followed it already is a `Conflict`.
        revocation: event to record, None when nobody loses a right.
    """

    before: Dashboard | None
    after: Dashboard | None
    access: DashboardAccess
    intents: Mapping[str, Intent] | None
    intents_before: Mapping[str, Intent] = field(default_factory=dict)
    follows: ProfileChange | None = None
    revocation: Revocation | None = None


class DashboardStore(Protocol):
    def get(self, dashboard_id: str) -> Dashboard | None: ...

    def intents(self, dashboard_id: str) -> Mapping[str, Intent]:
        """Datasource id -> intent, as last written. Empty for a dashboard that is not there."""

    def by_share_token(self, share_token: str) -> Dashboard | None:
        """*Index*, then the dashboard itself, whose token must still be this one."""

    def owned_by(self, owner_id: str, limit: int, cursor: str | None) -> Page[DashboardSummary]:
        """*Index.*"""

    def all(self, limit: int, cursor: str | None) -> Page[DashboardSummary]:
        """*Index.*"""

    def summaries(self, dashboard_ids: Iterable[str]) -> Sequence[DashboardSummary]:
        """Of those that exist, in no order."""

    def write(self, write: DashboardWrite, now_ms: int) -> int | None:
        """Carry out the write in one transaction: dashboard, access item, intents, uses of profiles, the
        `shared_dashboards` of users added to or removed from the ACL, and the event.

        Returns the event's id, None without event. Raises `Conflict` when the dashboard (or a used profile) is
        not as it was read. A write whose answer was lost is found done when repeated.
        """


@dataclass(frozen=True, slots=True)
class UserWrite:
    """Everything one change of a user writes: user, access item, and the event when rights are lost."""

    before: User | None
    after: User
    revocation: Revocation | None = None


class UserStore(Protocol):
    def get(self, user_id: str) -> User | None: ...

    def by_email(self, email: str) -> User | None:
        """Through the e-mail's own item, so strongly consistent."""

    def all(self, limit: int, cursor: str | None) -> Page[User]:
        """*Index.* Ordered by e-mail."""

    def write(self, write: UserWrite, now_ms: int) -> int | None:
        """One transaction, conditional on the row version, or on the e-mail being free when creating. Raises
        `Conflict`."""


class ProfileStore(Protocol):
    """Credential and broker profiles; names are unique per kind."""

    def credential(self, profile_id: str) -> CredentialProfile | None: ...

    def broker(self, profile_id: str) -> BrokerProfile | None: ...

    def credentials(self) -> Sequence[CredentialProfile]: ...

    def brokers(self) -> Sequence[BrokerProfile]: ...

    def sealed_secret(self, profile_id: str) -> str | None:
        """The encrypted secret of a credential profile; never part of the profile itself."""

    def write_credential(
        self,
        before: CredentialProfile | None,
        after: CredentialProfile,
        sealed_secret: str | None,
        change: ProfileChange | None = None,
    ) -> None:
        """Create or replace, conditional on `revision`; None keeps the stored secret. Raises `Conflict`.

        `change` is written in the same transaction, here and below: what dashboards have to follow is never lost.
        """

    def write_broker(
        self, before: BrokerProfile | None, after: BrokerProfile, change: ProfileChange | None = None
    ) -> None:
        """Create or replace, conditional on `revision`. A broker's use of a credential profile is kept with it."""

    def delete(self, kind: str, profile_id: str, revision: int, change: ProfileChange | None = None) -> None:
        """Delete, conditional on `revision`. Raises `Conflict`. The uses stay until dashboards drop them."""

    def open_changes(self) -> Sequence[ProfileChange]:
        """Changes that were written and not ended."""

    def has_followed(self, change: ProfileChange, dashboard_id: str) -> bool:
        """Whether a `DashboardWrite` of this dashboard followed the change."""

    def end_change(self, change: ProfileChange) -> None:
        """Every dashboard has followed: remove the traces. Whoever dies in between leaves it open, but followed."""

    def used_by(self, kind: str, profile_id: str) -> Sequence[str]:
        """Ids of dashboards that use the profile, directly or, for credentials, through a broker profile."""


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """Who did what to what. `metadata` never holds a secret."""

    action: str
    actor_id: str | None
    target_type: str
    target_id: str
    at_ms: int
    metadata: Mapping[str, object] = field(default_factory=dict)


class AuditLog(Protocol):
    def record(self, event: AuditEvent) -> None:
        """Best effort: a failure is counted and logged, never raised."""

    def newest(self, limit: int, action_prefix: str = "") -> Sequence[AuditEvent]: ...
