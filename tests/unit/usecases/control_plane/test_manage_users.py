"""What takes a user's right away carries its event in the same write."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest

from tests.doubles.platform import CountingIds, ManualClock
from tidegate.domain.access import Role
from tidegate.domain.audit import AuditEvent
from tidegate.domain.revocations import RevocationReason
from tidegate.domain.users import User
from tidegate.ports.control_plane import AuditLog, PasswordHasher, UserStore, UserWrite
from tidegate.usecases.control_plane.manage_users import ManageUsers

ADMIN = User("admin", "admin@x.example", Role.ADMIN, True, 1, "old")
OTHER = User("other", "other@x.example", Role.ADMIN, True, 1, "old")


class Users:
    """Two admins; keeps the last write."""

    def __init__(self) -> None:
        self.writes: list[UserWrite] = []

    def get(self, user_id: str) -> User | None:
        return {"admin": ADMIN, "other": OTHER}.get(user_id)

    def write(self, write: UserWrite, now_ms: int) -> int | None:
        self.writes.append(write)
        return None


class Passwords:
    def hash(self, password: str) -> str:
        return f"hash of {password}"

    def verify(self, password_hash: str, password: str) -> bool:
        return password_hash == password


class Audit:
    def record(self, event: AuditEvent) -> None:
        return


@pytest.mark.parametrize(
    ("change", "reason", "raised"),
    [
        (lambda manage: manage.change(ADMIN, "other", active=False), RevocationReason.USER_DEACTIVATED, True),
        (lambda manage: manage.change(ADMIN, "other", role=Role.VIEWER), RevocationReason.ROLE_LOWERED, True),
        (lambda manage: manage.reset_password(ADMIN, "other"), RevocationReason.PASSWORD_RESET, True),
    ],
    ids=["deactivated", "no admin any more", "reset"],
)
def test_a_lost_right_is_one_write_with_its_event(
    change: Callable[[ManageUsers], object], reason: RevocationReason, raised: bool
) -> None:
    users = Users()
    manage = ManageUsers(
        users=cast(UserStore, users),
        passwords=cast(PasswordHasher, Passwords()),
        audit=cast(AuditLog, Audit()),
        clock=ManualClock(),
        ids=CountingIds(),
    )
    change(manage)
    (write,) = users.writes
    assert write.revocation is not None
    assert (write.revocation.reason, write.revocation.user_id) == (reason, "other")
    assert write.after.session_version == OTHER.session_version + (1 if raised else 0)
