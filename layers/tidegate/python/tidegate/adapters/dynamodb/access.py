"""The access table: `dash#id`, `user#id`, and beside each dashboard `intents#id`, read only where intents matter; and
for dashboards of a remote API `revoked#id`.

Invariant of this file: only `put_dashboard`/`put_user` actions write the first three, always inside the transaction
that changes what they mirror; the version in `revoked#id` only ever grows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from tidegate.adapters.dynamodb.client import ConditionFailed, DynamoDb, Item, put_action, update_action
from tidegate.domain.access import AclLevel, DashboardAccess, Role, UserAccess, Visibility, remote_access_item
from tidegate.ports.gateway import AccessSnapshot, AccessStore
from tidegate.ports.remote_api import RevokedVersions

_DASHBOARD, _USER, _INTENTS, _REVOKED = "dash#", "user#", "intents#", "revoked#"


class DynamoAccess(AccessStore):
    """Access items and intents, as the control plane writes them."""

    def __init__(self, db: DynamoDb, table: str) -> None:
        self._db = db
        self._table = table

    def read(self, dashboard_ids: Iterable[str], user_ids: Iterable[str]) -> AccessSnapshot:
        keys = [f"{_DASHBOARD}{one}" for one in dict.fromkeys(dashboard_ids)]
        keys += [f"{_USER}{one}" for one in dict.fromkeys(user_ids)]
        if len(keys) == 1:
            item = self._db.get(self._table, {"key": keys[0]})
            items = [item] if item else []
        else:
            items = self._db.get_many(self._table, [{"key": key} for key in keys])
        dashboards, users = {}, {}
        for item in items:
            if item["key"].startswith(_DASHBOARD):
                dashboard = _dashboard(item)
                dashboards[dashboard.dashboard_id] = dashboard
            else:
                user = _user(item)
                users[user.user_id] = user
        return AccessSnapshot(dashboards, users)

    def intent(self, dashboard_id: str, datasource_id: str) -> Mapping[str, object] | None:
        return stored_intents(self._db, self._table, dashboard_id, only=datasource_id).get(datasource_id)


class DynamoRemoteAccess(AccessStore, RevokedVersions):
    """Access items of the dashboards of a remote API, and up to where their versions are revoked.

    Every id is a dashboard: whether it exists, the API said when it answered for the viewer.
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
            items = self._db.get_many(self._table, [{"key": _REVOKED + one} for one in ids])
        versions = {item["key"].removeprefix(_REVOKED): int(item["revoked_below"]) for item in items}
        return AccessSnapshot({one: remote_access_item(one, versions.get(one, 0)) for one in ids}, {})

    def intent(self, dashboard_id: str, datasource_id: str) -> Mapping[str, object] | None:
        """The API's intents are not kept here."""
        return None

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
    """Datasource id -> intent of a dashboard, or of the one datasource of it."""
    item = db.get(table, {"key": _INTENTS + dashboard_id}) or {}
    texts: Mapping[str, str] = item.get("intents", {})
    return {one: json.loads(text) for one, text in texts.items() if only in (None, one)}


def put_dashboard(
    table: str, access: DashboardAccess, intents: Mapping[str, Mapping[str, object]] | None
) -> list[dict[str, Any]]:
    """The actions that write a dashboard's access item and its intents; without `intents` those stored stay."""
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
                # As text: the order of keys is part of an intent.
                "intents": {one: json.dumps(intent, separators=(",", ":")) for one, intent in intents.items()},
            },
        ),
    ]


def _fields(access: DashboardAccess) -> Item:
    """What an access item says of its dashboard, apart from the intents."""
    return {
        "share_version": access.share_version,
        "visibility": access.visibility.value,
        "owner_id": access.owner_id,
        "acl": {user_id: level.value for user_id, level in access.acl.items()},
        "deleted": access.deleted,
    }


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
    )


def _user(item: Item) -> UserAccess:
    return UserAccess(
        user_id=item["key"].removeprefix(_USER),
        role=Role(item["role"]),
        active=item["active"],
        session_version=item["session_version"],
    )
