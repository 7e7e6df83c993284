"""The users table: `user#id` for users, `email#address`, so that an e-mail address belongs to one user only, and
`admins`, the ids of the active admins.

Invariants of this file: user, e-mail item, access item, list of admins and event are written in one transaction. The
last id never leaves the list.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any

from tidegate.adapters.dynamodb.access import put_user
from tidegate.adapters.dynamodb.client import DynamoDb, Item, TransactionFailed, put_action, update_action
from tidegate.adapters.dynamodb.revocations import DynamoRevocations
from tidegate.domain.access import Role
from tidegate.domain.users import User, access_of, is_active_admin
from tidegate.errors import ChangedMeanwhile, Conflict
from tidegate.ports.control_plane import Page, UserStore, UserWrite

_KIND = "user"
_USER, _EMAIL = "user#", "email#"
_ADMINS = {"key": "admins"}
#: Most users that a page of a search looks at. An item has some 500 bytes, so that is half a megabyte.
_SEARCHED = 1000


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

    def get_all(self, user_ids: Iterable[str]) -> Mapping[str, User]:
        keys = [_key(user_id) for user_id in dict.fromkeys(user_ids)]
        users = [_user(item) for item in self._db.get_many(self._table, keys)] if keys else []
        return {user.user_id: user for user in users}

    def by_email(self, email: str) -> User | None:
        item = self._db.get(self._table, _email_key(email))
        return self.get(item["user_id"]) if item else None

    def all(self, limit: int, cursor: str | None, containing: str = "") -> Page[User]:
        start = None
        if cursor:
            user = self.by_email(cursor)
            start = {"kind": _KIND, "email": cursor, **_key(user.user_id)} if user else None
        most = _SEARCHED if containing else limit
        items = self._db.query(self._table, "#kind = :kind", {"kind": _KIND}, index="all", limit=most, start=start)
        found: list[User] = []
        for number, item in enumerate(items, 1):
            if containing in item["email"]:
                found.append(_user(item))
            if len(found) == limit or number == most:
                return Page(found, item["email"])
        return Page(found, None)

    def write(self, write: UserWrite, now_ms: int) -> int | None:
        user = write.after
        own = (
            put_action(self._table, _item(user), "attribute_not_exists(#key)")
            if write.before is None
            else put_action(self._table, _item(user), "#row_version = :seen", {"seen": write.before.row_version})
        )
        actions: list[dict[str, Any]] = [own, put_user(self._access, access_of(user))]
        email_at = admins_at = -1
        if write.before is None:
            email = _email_key(user.email) | {"user_id": user.user_id}
            email_at = len(actions)
            actions.append(put_action(self._table, email, "attribute_not_exists(#key)"))
        admins = self._admins_action(write)
        if admins is not None:
            admins_at = len(actions)
            actions.append(admins)
        try:
            return self._revocations.write_with(actions, write.revocation, now_ms)
        except TransactionFailed as failure:
            if email_at in failure.failed:
                raise Conflict("A user with this e-mail exists already", code="email_taken") from failure
            if 0 not in failure.failed and admins_at in failure.failed:
                raise self._why_not(write) from failure
            raise ChangedMeanwhile("The user was changed meanwhile. Load it again.") from failure

    def _admins_action(self, write: UserWrite) -> dict[str, Any] | None:
        """The action that keeps the list of active admins. None when the write does not concern it.

        A set of ids can be written twice without harm, which a counter cannot.
        """
        user, was = write.after, write.before is not None and is_active_admin(write.before)
        values: Item = {"ids": {user.user_id}}
        if is_active_admin(user):
            # Also when nothing changes: so the list mends itself.
            if was or write.by is None:
                return update_action(self._table, _ADMINS, "ADD #ids :ids", values=values)
            values["by"] = write.by
            return update_action(self._table, _ADMINS, "ADD #ids :ids", "contains(#ids, :by)", values)
        if not was:
            return None
        values |= {"user": user.user_id, "by": write.by or user.user_id, "one": 1}
        condition = "contains(#ids, :by) AND contains(#ids, :user) AND size(#ids) > :one"
        return update_action(self._table, _ADMINS, "DELETE #ids :ids", condition, values)

    def _why_not(self, write: UserWrite) -> Conflict:
        """Why the list of admins did not take the change. It is read afterwards, for the text only."""
        ids = (self._db.get(self._table, _ADMINS) or {}).get("ids", frozenset())
        if write.by is not None and write.by not in ids:
            return Conflict("You are no administrator any more", code="no_admin_any_more")
        return Conflict("The last active administrator stays. Make somebody else one first.", code="last_admin")

    def end_login(self, user_id: str, note: str, forget: Set[str]) -> None:
        self._change_ended(user_id, "ADD #ended_logins :notes, #row_version :one", frozenset({note}))
        if forget:
            self._change_ended(user_id, "DELETE #ended_logins :notes ADD #row_version :one", forget)

    def _change_ended(self, user_id: str, update: str, notes: Set[str]) -> None:
        # Users are never deleted, so the condition holds: it only keeps an update from making half a user.
        values = {"notes": frozenset(notes), "one": 1}
        self._db.update(self._table, _key(user_id), update, "attribute_exists(#key)", values)


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
        "password_set_at_ms": user.password_set_at_ms,
        "row_version": user.row_version,
        "created_at_ms": user.created_at_ms,
        "updated_at_ms": user.updated_at_ms,
    }
    if user.shared_dashboards:
        item["shared_dashboards"] = user.shared_dashboards
    if user.ended_logins:
        item["ended_logins"] = user.ended_logins
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
        password_set_at_ms=item["password_set_at_ms"],
        ended_logins=item.get("ended_logins", frozenset()),
        shared_dashboards=item.get("shared_dashboards", frozenset()),
        row_version=item["row_version"],
        created_at_ms=item["created_at_ms"],
        updated_at_ms=item["updated_at_ms"],
    )
