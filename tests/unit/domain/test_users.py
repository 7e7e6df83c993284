"""A user's password hash does not show."""

from __future__ import annotations

from tidegate.domain.access import Role
from tidegate.domain.users import User


def test_a_password_hash_is_in_no_repr() -> None:
    user = User("u", "a@b.example", Role.VIEWER, True, 1, "$argon2id$secret")
    assert "secret" not in repr(user) and "secret" not in f"{[user]}"
