"""The one decision: may this subscription receive data now?

Invariant of this file: `allowed` is pure, and it is the only place that answers the question. Subscribing, fan-out,
revalidation and introspection all call it. Nothing else decides.

It decides from little data, on purpose. An *access item* mirrors the few facts of a dashboard or a user that a
decision reads. It is written in the same transaction as the record it mirrors. A missing access item means denied.

Whoever may see a dashboard is a *member* or a *guest* of it. `is_member` is the only place that tells them apart. A
member needs neither link nor publicity. A guest, with a login or without, is bound to the share version, and to the
owner: what a deactivated owner shows to guests is shown no longer. A withdrawal ends the guests of some datasources
only; `guest_floor` is the only place that tells them from the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class Role(StrEnum):
    """What a user may do everywhere."""

    ADMIN = "admin"
    EDITOR = "editor"
    VIEWER = "viewer"


def is_admin(role: Role) -> bool:
    """Whether the role stands above every dashboard's own rules. This is the only test for "is an admin"."""
    return role is Role.ADMIN


class AclLevel(StrEnum):
    """What a user may do on one dashboard."""

    VIEWER = "viewer"
    EDITOR = "editor"
    MANAGER = "manager"


class Visibility(StrEnum):
    """Who may see a dashboard: its members, holders of its link, or everybody."""

    PRIVATE = "private"
    LINK = "link"
    PUBLIC = "public"


#: The `sub` of a viewer who is not signed in.
PUBLIC_SUBJECT = "public"


#: How long an answer of the access table, or an audience, may be used: seconds from the start of its read.
FRESH_S = 1.0


#: Datasources that a withdrawal names at most. One that would name more ends the guests of the whole dashboard.
MAX_WITHDRAWN = 1000


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """A revocation that ended the guests of some datasources only, together with those before it.

    Attributes:
        share_version: the dashboard's after it. With any other share version it means nothing: a later revocation ended
            all guests. So an operation that knows nothing of withdrawals ends everybody.
        floor: the lowest share version of guests whose right it left alone.
        floors: datasource id -> the lowest share version of guests of that datasource.
    """

    share_version: int
    floor: int
    floors: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class DashboardAccess:
    """The access item of one dashboard.

    Attributes:
        dashboard_id: its id.
        share_version: integer that every revocation raises by one; starts at 0.
        visibility: who may see it.
        owner_id: user id of the owner, who needs no ACL entry.
        acl: user id -> level.
        intents: datasource id -> intent hash (hex) of what that datasource connects to.
        deleted: a tombstone: the dashboard is gone and stays denied.
        remote: the dashboard belongs to a remote API, whose introspection admitted the viewer. Only its revoked
            versions are known here: every share version below `share_version` is revoked. See `remote_access_item`.
        withdrawal: the last revocation that ended the guests of some datasources only; None when there was none.
        revision: of the document that is stored; 0 where it is not known, as of a remote API's dashboard.
    """

    dashboard_id: str
    share_version: int
    visibility: Visibility
    owner_id: str
    acl: Mapping[str, AclLevel] = field(default_factory=dict)
    intents: Mapping[str, str] = field(default_factory=dict)
    deleted: bool = False
    remote: bool = False
    withdrawal: Withdrawal | None = None
    revision: int = 0


class Shared(Protocol):
    """A dashboard, or its access item."""

    @property
    def share_version(self) -> int: ...
    @property
    def withdrawal(self) -> Withdrawal | None: ...


def guest_floor(dashboard: Shared, datasource_id: str | None = None) -> int:
    """The lowest share version that a guest may have.

    `datasource_id`: of this datasource. None: of at least one datasource that the dashboard may have.
    """
    withdrawal = dashboard.withdrawal
    if withdrawal is None or withdrawal.share_version != dashboard.share_version:
        return dashboard.share_version
    return withdrawal.floors.get(datasource_id or "", withdrawal.floor)


def guest_version_holds(dashboard: Shared, share_version: int | None, datasource_id: str | None = None) -> bool:
    """Whether a guest's share version has not been revoked. `datasource_id`: as in `guest_floor`."""
    return (
        share_version is not None and guest_floor(dashboard, datasource_id) <= share_version <= dashboard.share_version
    )


def withdraw(dashboard: Shared, datasource_ids: Iterable[str]) -> Withdrawal | None:
    """The withdrawal that ends the guests of these datasources, and of those that earlier ones ended.

    It is for the next share version. None when it would name too many: then every guest's right ends.
    """
    version, floor = dashboard.share_version + 1, guest_floor(dashboard)
    before = dashboard.withdrawal
    known = before.floors if before is not None and before.share_version == dashboard.share_version else {}
    floors = {**known, **dict.fromkeys(datasource_ids, version)}
    return Withdrawal(version, floor, floors) if len(floors) <= MAX_WITHDRAWN else None


def remote_access_item(dashboard_id: str, revoked_below: int) -> DashboardAccess:
    """The access item of a dashboard of a remote API.

    `revoked_below`: the highest share version that a revocation event of that API named; 0 when there was none.
    """
    return DashboardAccess(dashboard_id, revoked_below, Visibility.PRIVATE, owner_id="", remote=True)


@dataclass(frozen=True, slots=True)
class UserAccess:
    """The access item of one user.

    Attributes:
        user_id: its id.
        role: the global role.
        active: false once deactivated or deleted.
        session_version: integer that a password reset, a deactivation, the loss of admin rights and a sign-out
            everywhere raise by one.
    """

    user_id: str
    role: Role
    active: bool
    session_version: int


@dataclass(frozen=True, slots=True)
class Principal:
    """The person a session token speaks for.

    Attributes:
        subject: user id, or `PUBLIC_SUBJECT`.
        share_version: for guests, the dashboard's share version when the token was minted. A guest with a login has
            both versions. None for members.
        session_version: the user's session version when the token was minted. None for public viewers, and for
            tokens of an API that does not state it.
    """

    subject: str
    share_version: int | None = None
    session_version: int | None = None

    @property
    def is_public(self) -> bool:
        return self.subject == PUBLIC_SUBJECT


@dataclass(frozen=True, slots=True)
class Claim:
    """What a subscription rests on: everything `allowed` needs to know of it.

    Attributes:
        dashboard_id, datasource_id: what is watched.
        principal: who watches.
        intent_hash: hash of the intent the session token was minted for.
        expires_at: the token's `exp`, epoch seconds.
    """

    dashboard_id: str
    datasource_id: str
    principal: Principal
    intent_hash: str
    expires_at: int


class Refusal(StrEnum):
    """Why `allowed` says no. Logs and metrics show `value`."""

    EXPIRED = "expired"
    REVOKED = "revoked"
    INTENT_CHANGED = "intent_changed"
    #: The dashboard has no such datasource any longer, or it is switched off or cannot be connected to.
    REMOVED = "removed"
    #: Not an answer of `allowed`: the operator switched the protocol off, or realtime as a whole. See `Switches`.
    SWITCHED_OFF = "switched_off"

    @property
    def retryable(self) -> bool:
        """Whether a new session token, minted now, may help. It does not for a revoked viewer, nor while a switch is
        off, nor for a datasource that is not there."""
        return self not in (Refusal.REVOKED, Refusal.REMOVED, Refusal.SWITCHED_OFF)


def owner_that_counts(dashboard: DashboardAccess) -> str | None:
    """The user id of the owner, without whose access item guests are denied. None when no guest is admitted anyway."""
    no_guests = dashboard.deleted or dashboard.remote or dashboard.visibility is Visibility.PRIVATE
    return None if no_guests else dashboard.owner_id


def open_to_guests(dashboard: DashboardAccess, owner: UserAccess | None) -> bool:
    """Whether the dashboard is shown to anybody who is not a member: by link or to everybody, by an active owner.

    `owner`: the owner's access item. None is an unknown owner: nobody is shown anything.
    """
    counts = owner_that_counts(dashboard)
    return counts is not None and owner is not None and owner.user_id == counts and owner.active


def may_see(
    dashboard: DashboardAccess | None,
    user: UserAccess | None,
    owner: UserAccess | None,
    principal: Principal,
    datasource_id: str | None = None,
) -> bool:
    """Whether `principal` may see the dashboard at all, or with `datasource_id` that datasource of it.

    Args:
        dashboard: its access item. None when there is none, which means denied.
        user: the access item of a signed-in principal; ignored for public ones. None is an unknown user: denied.
        owner: the access item of the dashboard's owner, for guests: see `open_to_guests`.
        principal: the viewer.
        datasource_id: None asks for the dashboard, whatever the datasource.
    """
    if dashboard is None or dashboard.deleted:
        return False
    if dashboard.remote:
        # The API admitted the viewer. Its users and ACLs are not known here, only the versions it revoked since.
        if principal.share_version is None:
            return not principal.is_public
        return principal.share_version >= dashboard.share_version
    as_guest = open_to_guests(dashboard, owner) and guest_version_holds(
        dashboard, principal.share_version, datasource_id
    )
    if principal.is_public:
        return as_guest
    if user is None or not user.active or user.user_id != principal.subject:
        return False
    if principal.session_version is not None and principal.session_version != user.session_version:
        return False
    return as_guest or is_member(dashboard, user)


class HasMembers(Protocol):
    """A dashboard, or its access item."""

    @property
    def owner_id(self) -> str: ...
    @property
    def acl(self) -> Mapping[str, object]: ...


class MayBeMember(Protocol):
    """A user, or a user's access item."""

    @property
    def user_id(self) -> str: ...
    @property
    def role(self) -> Role: ...
    @property
    def active(self) -> bool: ...


def is_member(dashboard: HasMembers, user: MayBeMember | None) -> bool:
    """Whether the user needs neither link nor publicity: an active admin, the owner, or somebody in the ACL.

    This is what "member" means, everywhere. A public dashboard makes nobody a member. `user` is None for who has no
    login, or an unknown one.
    """
    if user is None or not user.active:
        return False
    return is_admin(user.role) or user.user_id == dashboard.owner_id or user.user_id in dashboard.acl


def allowed(
    claim: Claim, dashboard: DashboardAccess | None, user: UserAccess | None, owner: UserAccess | None, now: float
) -> Refusal | None:
    """Decide whether the subscription that rests on `claim` may receive data at `now`.

    Args:
        claim: what the subscription rests on.
        dashboard: access item of `claim.dashboard_id`. None when none is stored, which means denied.
        user: access item of the principal when signed in; None for public viewers.
        owner: access item of the dashboard's owner, where `owner_that_counts` names one.
        now: epoch seconds.

    Returns:
        None when allowed, else why not. Revocation is reported before expiry: a viewer who lost the right learns
        it even if the token has run out meanwhile.
    """
    if not may_see(dashboard, user, owner, claim.principal, claim.datasource_id):
        return Refusal.REVOKED
    assert dashboard is not None  # may_see denies a missing one
    if not dashboard.remote and claim.datasource_id not in dashboard.intents:
        return Refusal.REMOVED
    if not dashboard.remote and dashboard.intents[claim.datasource_id] != claim.intent_hash:
        return Refusal.INTENT_CHANGED
    if now >= claim.expires_at:
        return Refusal.EXPIRED
    return None
