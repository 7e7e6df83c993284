"""Users as stored. Invariant of this file: a password hash never appears in a `repr`."""

from __future__ import annotations

from dataclasses import dataclass, field

from tidegate.domain.access import Role, UserAccess, is_admin


@dataclass(frozen=True, slots=True)
class User:
    """An account.

    Attributes:
        user_id: 21 URL-safe characters.
        email: as `domain.emails.normalise_email` spells it; unique.
        role: the global role.
        active: false once deactivated.
        session_version: +1 on every change or reset of the password, on deactivation, with the loss of admin rights,
            and on a sign-out everywhere. Older login and session tokens then end.
        password_hash: Argon2id in PHC string format.
        must_change_password: set with a one-time password. Until it is changed, the login is good for little else.
        password_set_at_ms: when the password was set or issued, epoch milliseconds.
        ended_logins: notes of logins that were ended one by one. See `domain.logins`.
        shared_dashboards: ids of dashboards whose ACL names this user.
        row_version: +1 per write. Stores put their conditions on it.
    """

    user_id: str
    email: str
    role: Role
    active: bool
    session_version: int
    password_hash: str = field(repr=False)
    must_change_password: bool = False
    password_set_at_ms: int = 0
    ended_logins: frozenset[str] = frozenset()
    shared_dashboards: frozenset[str] = frozenset()
    row_version: int = 1
    created_at_ms: int = 0
    updated_at_ms: int = 0


def is_active_admin(user: User) -> bool:
    """Whether the user can act as an admin now. There is always one of whom this is true: see `UserStore.write`."""
    return user.active and is_admin(user.role)


def access_of(user: User) -> UserAccess:
    """The access item that mirrors the user."""
    return UserAccess(user.user_id, user.role, user.active, user.session_version)
