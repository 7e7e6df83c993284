"""The users table: `user#id` for users, and `email#address`, so that an e-mail address belongs to one user only.

Invariant of this file: user, e-mail item, access item and event are written in one transaction.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from tidegate.adapters.dynamodb.access import put_user
from tidegate.adapters.dynamodb.client import DynamoDb, Item, TransactionFailed, put_action, update_action
from tidegate.adapters.dynamodb.revocations import DynamoRevocations
from tidegate.domain.access import Role
from tidegate.domain.users import User, access_of
from tidegate.errors import Conflict
from tidegate.ports.control_plane import Page, UserStore, UserWrite

_KIND = "user"
_USER, _EMAIL = "user#", "email#"


class DynamoUsers(UserStore):
    """Users, their e-mail addresses and their access items."""

    def __init__(self, db: DynamoDb, revocations: DynamoRevocations, *, table: str, access_table: str) -> None:
        self._db = db
        self._revocations = revocations
        self._table = table
        self._access = access_table

    def get(self, user_id: str) -> User | None:
        item = self._db.get(self._table, _key(user_id))
        return _user(item) if item else None

    def by_email(self, email: str) -> User | None:
        item = self._db.get(self._table, _email_key(email))
        return self.get(item["user_id"]) if item else None

    def all(self, limit: int, cursor: str | None) -> Page[User]:
        start = None
        if cursor:
            user = self.by_email(cursor)
            start = {"kind": _KIND, "email": cursor, **_key(user.user_id)} if user else None
        items = list(
            self._db.query(self._table, "#kind = :kind", {"kind": _KIND}, index="all", limit=limit, start=start)
        )
        return Page([_user(item) for item in items], items[-1]["email"] if len(items) == limit else None)

    def write(self, write: UserWrite, now_ms: int) -> int | None:
        user = write.after
        own = (
            put_action(self._table, _item(user), "attribute_not_exists(#key)")
            if write.before is None
            else put_action(self._table, _item(user), "#row_version = :seen", {"seen": write.before.row_version})
        )
        actions: list[dict[str, Any]] = [own, put_user(self._access, access_of(user))]
        if write.before is None:
            email = _email_key(user.email) | {"user_id": user.user_id}
            actions.append(put_action(self._table, email, "attribute_not_exists(#key)"))
        try:
            return self._revocations.write_with(actions, write.revocation, now_ms)
        except TransactionFailed as failure:
            if 2 in failure.failed:
                raise Conflict("A user with this e-mail exists already", code="email_taken") from failure
            raise Conflict("The user was changed meanwhile. Load it again.") from failure


def share_actions(table: str, dashboard_id: str, was: Set[str], now: Set[str]) -> list[dict[str, Any]]:
    """The actions that keep, with each user, the dashboards whose ACL names them.

    Args:
        was, now: ids of the users in the dashboard's ACL before and after.
    """
    # The row version grows as well, so that a write of the user that read it before fails and starts over.
    added, dropped = (
        "ADD #shared_dashboards :dashboard, #row_version :one",
        "DELETE #shared_dashboards :dashboard ADD #row_version :one",
    )
    return [
        update_action(table, _key(user_id), update, "attribute_exists(#key)", {"dashboard": {dashboard_id}, "one": 1})
        for update, users in ((added, now - was), (dropped, was - now))
        for user_id in sorted(users)
    ]


def _key(user_id: str) -> dict[str, str]:
    return {"key": _USER + user_id}


def _email_key(email: str) -> dict[str, str]:
    return {"key": _EMAIL + email}


def _item(user: User) -> Item:
    item: Item = {
        **_key(user.user_id),
        "kind": _KIND,
        "email": user.email,
        "role": user.role.value,
        "active": user.active,
        "session_version": user.session_version,
        "password_hash": user.password_hash,
        "must_change_password": user.must_change_password,
        "row_version": user.row_version,
        "created_at_ms": user.created_at_ms,
        "updated_at_ms": user.updated_at_ms,
    }
    if user.shared_dashboards:
        item["shared_dashboards"] = user.shared_dashboards
    return item


def _user(item: Item) -> User:
    return User(
        user_id=item["key"].removeprefix(_USER),
        email=item["email"],
        role=Role(item["role"]),
        active=item["active"],
        session_version=item["session_version"],
        password_hash=item["password_hash"],
        must_change_password=item["must_change_password"],
        shared_dashboards=item.get("shared_dashboards", frozenset()),
        row_version=item["row_version"],
        created_at_ms=item["created_at_ms"],
        updated_at_ms=item["updated_at_ms"],
    )
