"""Create users, change their roles, reset their passwords, and deactivate them.

Invariants of this file: a change that takes a right away writes its event in the same transaction, and raises the
session version. An active admin is always left: the store's condition sees to it, not a look before the write.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Mapping
from dataclasses import replace

from tidegate.domain.access import Role, is_admin
from tidegate.domain.audit import AuditEvent
from tidegate.domain.emails import normalise_email
from tidegate.domain.passwords import check_password
from tidegate.domain.revocations import Revocation, RevocationReason
from tidegate.domain.rights import check_admin
from tidegate.domain.users import User
from tidegate.errors import InvalidInput, NotFound
from tidegate.ports.control_plane import AuditLog, Page, PasswordHasher, UserStore, UserWrite
from tidegate.ports.runtime import Clock, Ids
from tidegate.usecases.control_plane.from_what_stands import from_what_stands


class ManageUsers:
    """What admins do with accounts."""

    def __init__(self, *, users: UserStore, passwords: PasswordHasher, audit: AuditLog, clock: Clock, ids: Ids) -> None:
        self._users = users
        self._passwords = passwords
        self._audit = audit
        self._clock = clock
        self._ids = ids

    def all(self, actor: User, limit: int, cursor: str | None, containing: str = "") -> Page[User]:
        """One page of all users, or of those whose e-mail has `containing` in it. Raises `Denied` but for admins."""
        check_admin(actor)
        return self._users.all(limit, cursor, containing.strip().lower())

    def create(self, actor: User | None, email: str, role: Role, password: str | None = None) -> tuple[User, str]:
        """Create a user. Without a password a one-time password is made. Returns (user, password).

        `actor` is None when the first admin is created from outside the API.
        """
        if actor is not None:
            check_admin(actor)
        one_time = password is None
        email = normalise_email(email)
        password = one_time_password() if password is None else check_password(password, email)
        now_ms = self._now_ms()
        user = User(
            user_id=self._ids.new_id(),
            email=email,
            role=role,
            active=True,
            session_version=1,
            password_hash=self._passwords.hash(password),
            must_change_password=one_time,
            password_set_at_ms=now_ms,
            created_at_ms=now_ms,
            updated_at_ms=now_ms,
        )
        self._users.write(UserWrite(None, user, by=actor.user_id if actor else None), now_ms)
        self._record("user.admin_created", actor, user, {"role": role.value})
        return user, password

    @from_what_stands
    def change(self, actor: User, user_id: str, *, role: Role | None = None, active: bool | None = None) -> User:
        """Change the role, or activate or deactivate. Admins cannot take their own admin rights (`InvalidInput`).

        Raises `Conflict` when `actor` has lost the admin rights meanwhile, or no active admin would be left.
        """
        check_admin(actor)
        user = self._get(user_id)
        if user_id == actor.user_id and (active is False or (role is not None and not is_admin(role))):
            raise InvalidInput("You cannot take your own admin rights; ask another admin")
        changed = replace(
            user, role=user.role if role is None else role, active=user.active if active is None else active
        )
        if changed == user:
            return user
        revocation = None
        deactivated = user.active and not changed.active
        if deactivated or (is_admin(user.role) and not is_admin(changed.role)):
            reason = RevocationReason.USER_DEACTIVATED if deactivated else RevocationReason.ROLE_LOWERED
            revocation = Revocation(reason, user_id=user_id)
            changed = replace(changed, session_version=user.session_version + 1)
        changed = self._write(user, changed, revocation, by=actor.user_id)
        self._record("user.admin_updated", actor, changed, {"role": changed.role.value, "active": changed.active})
        return changed

    @from_what_stands
    def reset_password(self, actor: User, user_id: str) -> str:
        """Give a user a one-time password and return it. All logins of the user end.

        Raises `InvalidInput` for one's own: whoever finds an admin's login open would keep it that way.
        """
        check_admin(actor)
        if user_id == actor.user_id:
            raise InvalidInput(
                "Change your own password with POST /api/users/me/password, which asks for the current one",
                code="own_password",
            )
        password = one_time_password()
        user = self._get(user_id)
        changed = replace(
            user,
            password_hash=self._passwords.hash(password),
            must_change_password=True,
            password_set_at_ms=self._now_ms(),
            session_version=user.session_version + 1,
            ended_logins=frozenset(),
        )
        self._write(user, changed, Revocation(RevocationReason.PASSWORD_RESET, user_id=user_id))
        self._record("password_reset.admin_issued", actor, user, {})
        return password

    def _write(self, before: User, after: User, revocation: Revocation | None, *, by: str | None = None) -> User:
        now_ms = self._now_ms()
        after = replace(after, row_version=before.row_version + 1, updated_at_ms=now_ms)
        self._users.write(UserWrite(before, after, revocation, by), now_ms)
        return after

    def _get(self, user_id: str) -> User:
        user = self._users.get(user_id)
        if user is None:
            raise NotFound("User not found")
        return user

    def _record(self, action: str, actor: User | None, user: User, metadata: Mapping[str, object]) -> None:
        actor_id = actor.user_id if actor else None
        self._audit.record(AuditEvent(action, actor_id, "user", user.user_id, self._now_ms(), metadata))

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1000)


def one_time_password() -> str:
    """20 random characters."""
    alphabet = string.ascii_letters + string.digits
    return "".join(secrets.choice(alphabet) for _ in range(20))
