"""The access table.

Its keys are `dash#id` and `user#id` for access items, and `intents#id` for a dashboard's intents, which are read only
where they matter. For dashboards of a remote API it has `revoked#id`.

Invariants of this file: the first three are written only by the actions of `put_dashboard` and `put_user`, inside the
transaction that changes what they mirror. The version in `revoked#id` only grows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from tidegate.adapters.dynamodb.client import (
    ConditionFailed,
    DynamoDb,
    Item,
    check_action,
    put_action,
    update_action,
)
from tidegate.domain.access import (
    AclLevel,
    DashboardAccess,
    Role,
    UserAccess,
    Visibility,
    Withdrawal,
    owner_that_counts,
    remote_access_item,
)
from tidegate.ports.gateway import AccessSnapshot, AccessStore
from tidegate.ports.remote_api import RevokedVersions
from tidegate.tables import DASHBOARD_ACCESS

_DASHBOARD, _USER, _INTENTS, _REVOKED = DASHBOARD_ACCESS, "user#", "intents#", "revoked#"


class DynamoAccess(AccessStore):
    """Reads the access items and intents that the control plane writes."""

    def __init__(self, db: DynamoDb, table: str) -> None:
        self._db = db
        self._table = table

    def read(self, dashboard_ids: Iterable[str], user_ids: Iterable[str]) -> AccessSnapshot:
        asked = dict.fromkeys(user_ids)
        keys = [f"{_DASHBOARD}{dashboard_id}" for dashboard_id in dict.fromkeys(dashboard_ids)]
        keys += [f"{_USER}{user_id}" for user_id in asked]
        dashboards, users = {}, {}
        for item in self._items(keys):
            if item["key"].startswith(_DASHBOARD):
                dashboard = _dashboard(item)
                dashboards[dashboard.dashboard_id] = dashboard
            else:
                user = _user(item)
                users[user.user_id] = user
        owners = dict.fromkeys(owner_that_counts(dashboard) for dashboard in dashboards.values())
        for item in self._items([f"{_USER}{owner}" for owner in owners if owner is not None and owner not in asked]):
            users[_user(item).user_id] = _user(item)
        return AccessSnapshot(dashboards, users)

    def _items(self, keys: Sequence[str]) -> list[Item]:
        if len(keys) == 1:
            item = self._db.get(self._table, {"key": keys[0]})
            return [item] if item else []
        return self._db.get_many(self._table, [{"key": key} for key in keys])

    def intent(self, dashboard_id: str, datasource_id: str) -> Mapping[str, object] | None:
        return stored_intents(self._db, self._table, dashboard_id, only=datasource_id).get(datasource_id)

    def intents_of(self, dashboard_id: str) -> Mapping[str, Mapping[str, object]]:
        return stored_intents(self._db, self._table, dashboard_id)


class DynamoRemoteAccess(AccessStore, RevokedVersions):
    """Access items of a remote API's dashboards, made from the share versions that the API has revoked.

    Every id counts as a dashboard that exists: the API said so when it admitted the viewer.
    """

    def __init__(self, db: DynamoDb, table: str) -> None:
        self._db = db
        self._table = table

    def read(self, dashboard_ids: Iterable[str], user_ids: Iterable[str]) -> AccessSnapshot:
        ids = list(dict.fromkeys(dashboard_ids))
        if len(ids) == 1:
            item = self._db.get(self._table, {"key": _REVOKED + ids[0]})
            items = [item] if item else []
        else:
            items = self._db.get_many(self._table, [{"key": _REVOKED + dashboard_id} for dashboard_id in ids])
        versions = {item["key"].removeprefix(_REVOKED): int(item["revoked_below"]) for item in items}
        dashboards = {
            dashboard_id: remote_access_item(dashboard_id, versions.get(dashboard_id, 0)) for dashboard_id in ids
        }
        return AccessSnapshot(dashboards, {})

    def intent(self, dashboard_id: str, datasource_id: str) -> Mapping[str, object] | None:
        """Always None: a remote API's intents are not kept here."""
        return None

    def intents_of(self, dashboard_id: str) -> Mapping[str, Mapping[str, object]]:
        """Always empty, for the same reason."""
        return {}

    def raise_to(self, dashboard_id: str, version: int) -> None:
        with suppress(ConditionFailed):
            self._db.update(
                self._table,
                {"key": _REVOKED + dashboard_id},
                "SET #revoked_below = :version",
                "attribute_not_exists(#revoked_below) OR #revoked_below < :version",
                {"version": version},
            )


def stored_intents(
    db: DynamoDb, table: str, dashboard_id: str, *, only: str | None = None
) -> dict[str, Mapping[str, object]]:
    """Datasource id -> intent of a dashboard. `only` names a datasource: then no other is returned."""
    item = db.get(table, {"key": _INTENTS + dashboard_id}) or {}
    texts: Mapping[str, str] = item.get("intents", {})
    return {datasource_id: json.loads(text) for datasource_id, text in texts.items() if only in (None, datasource_id)}


def put_dashboard(
    table: str, access: DashboardAccess, intents: Mapping[str, Mapping[str, object]] | None
) -> list[dict[str, Any]]:
    """The actions that write a dashboard's access item and its intents. Without `intents` the stored ones stay."""
    if intents is None:
        values = _fields(access)
        sets = ", ".join(f"#{name} = :{name}" for name in values)
        return [
            update_action(
                table, {"key": _DASHBOARD + access.dashboard_id}, f"SET {sets}", "attribute_exists(#intents)", values
            )
        ]
    return [
        put_action(
            table,
            {
                "key": _DASHBOARD + access.dashboard_id,
                **_fields(access),
                "intents": dict(access.intents),
            },
        ),
        put_action(
            table,
            {
                "key": _INTENTS + access.dashboard_id,
                # As text, because the order of its keys is part of an intent.
                "intents": {
                    datasource_id: json.dumps(intent, separators=(",", ":"))
                    for datasource_id, intent in intents.items()
                },
            },
        ),
    ]


def active_user_action(table: str, user_id: str) -> dict[str, Any]:
    """The action that lets a transaction fail unless the user is active. It looks at the access item, because another
    action of the same transaction may write the user's own."""
    return check_action(table, {"key": _USER + user_id}, "#active = :active", {"active": True})


def _fields(access: DashboardAccess) -> Item:
    """What an access item says of its dashboard, without the intents."""
    return {
        "share_version": access.share_version,
        "visibility": access.visibility.value,
        "owner_id": access.owner_id,
        "acl": {user_id: level.value for user_id, level in access.acl.items()},
        "deleted": access.deleted,
        "withdrawal": withdrawal_item(access.withdrawal),
        "revision": access.revision,
    }


def withdrawal_item(withdrawal: Withdrawal | None) -> Item | None:
    """A withdrawal as tables hold it."""
    if withdrawal is None:
        return None
    return {
        "share_version": withdrawal.share_version,
        "floor": withdrawal.floor,
        "floors": dict(withdrawal.floors),
    }


def stored_withdrawal(item: Item | None) -> Withdrawal | None:
    """What `withdrawal_item` made."""
    return None if item is None else Withdrawal(item["share_version"], item["floor"], item["floors"])


def put_user(table: str, access: UserAccess) -> dict[str, Any]:
    """The action that writes a user's access item."""
    return put_action(
        table,
        {
            "key": _USER + access.user_id,
            "role": access.role.value,
            "active": access.active,
            "session_version": access.session_version,
        },
    )


def _dashboard(item: Item) -> DashboardAccess:
    return DashboardAccess(
        dashboard_id=item["key"].removeprefix(_DASHBOARD),
        share_version=item["share_version"],
        visibility=Visibility(item["visibility"]),
        owner_id=item["owner_id"],
        acl={user_id: AclLevel(level) for user_id, level in item["acl"].items()},
        intents=item["intents"],
        deleted=item["deleted"],
        withdrawal=stored_withdrawal(item["withdrawal"]),
        revision=item["revision"],
    )


def _user(item: Item) -> UserAccess:
    return UserAccess(
        user_id=item["key"].removeprefix(_USER),
        role=Role(item["role"]),
        active=item["active"],
        session_version=item["session_version"],
    )
