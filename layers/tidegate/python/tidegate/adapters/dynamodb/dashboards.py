"""The dashboards table.

Invariant of this file: a dashboard, its access item, its intents, its uses of profiles and the event of its change are
written in one transaction, conditional on the dashboard's row version. A change may leave the intents and uses alone:
they were written with the document that is still stored, so they stay right.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tidegate.adapters.dynamodb.access import (
    active_user_action,
    put_dashboard,
    stored_intents,
    stored_withdrawal,
    withdrawal_item,
)
from tidegate.adapters.dynamodb.client import DynamoDb, Item, TransactionFailed, delete_action, put_action
from tidegate.adapters.dynamodb.profiles import follow_action, use_actions
from tidegate.adapters.dynamodb.revocations import DynamoRevocations
from tidegate.adapters.dynamodb.users import share_actions
from tidegate.domain.access import AclLevel, Visibility
from tidegate.domain.dashboards import AclEntry, Dashboard, DashboardSummary
from tidegate.domain.intents import Intent, profile_uses
from tidegate.errors import ChangedMeanwhile, TooManyAtOnce
from tidegate.ports.control_plane import DashboardStore, DashboardWrite, Page

_KIND = "dashboard"
#: Actions of a change in one transaction. DynamoDB takes 100 (its quota page), and two are for the event.
_MOST_ACTIONS = 98


class DynamoDashboards(DashboardStore):
    """Stores dashboards, and with a change everything else that it writes."""

    def __init__(
        self,
        db: DynamoDb,
        revocations: DynamoRevocations,
        *,
        table: str,
        access_table: str,
        profiles_table: str,
        users_table: str,
    ) -> None:
        self._db = db
        self._revocations = revocations
        self._table = table
        self._access = access_table
        self._profiles = profiles_table
        self._users = users_table

    def get(self, dashboard_id: str) -> Dashboard | None:
        item = self._db.get(self._table, {"dashboard_id": dashboard_id})
        return _dashboard(item) if item else None

    def intents(self, dashboard_id: str) -> Mapping[str, Intent]:
        return stored_intents(self._db, self._access, dashboard_id)

    def by_share_token(self, share_token: str) -> Dashboard | None:
        found = self._db.query(
            self._table, "#share_token = :token", {"token": share_token}, index="by_share_token", limit=1
        )
        for item in found:
            dashboard = self.get(item["dashboard_id"])
            if dashboard is not None and dashboard.share_token == share_token:
                return dashboard
        return None

    def owned_by(self, owner_id: str, limit: int, cursor: str | None) -> Page[DashboardSummary]:
        start = {"owner_id": owner_id, "dashboard_id": cursor} if cursor else None
        items = self._db.query(
            self._table, "#owner_id = :owner", {"owner": owner_id}, index="by_owner", limit=limit, start=start
        )
        return _page(list(items), limit)

    def all(self, limit: int, cursor: str | None) -> Page[DashboardSummary]:
        start = {"kind": _KIND, "dashboard_id": cursor} if cursor else None
        items = self._db.query(self._table, "#kind = :kind", {"kind": _KIND}, index="all", limit=limit, start=start)
        return _page(list(items), limit)

    def summaries(self, dashboard_ids: Iterable[str]) -> Sequence[DashboardSummary]:
        keys = [{"dashboard_id": dashboard_id} for dashboard_id in dict.fromkeys(dashboard_ids)]
        return [_summary(item) for item in self._db.get_many(self._table, keys)] if keys else []

    def write(self, write: DashboardWrite, now_ms: int) -> int | None:
        actions = [self._own(write), *put_dashboard(self._access, write.access, write.intents)]
        if write.intents is not None:
            used = profile_uses(write.before.document, write.intents_before) if write.before else frozenset()
            uses = profile_uses(write.after.document, write.intents) if write.after else frozenset()
            actions += use_actions(self._profiles, write.access.dashboard_id, used, uses)
        was = set(write.before.acl) if write.before else set()
        now = set(write.after.acl) if write.after else set()
        actions += share_actions(self._users, write.access.dashboard_id, was, now)
        if write.follows is not None:
            actions.append(follow_action(self._profiles, write.follows, write.access.dashboard_id))
        if write.relies_on is not None:
            actions.append(active_user_action(self._access, write.relies_on))
        if len(actions) > _MOST_ACTIONS:
            raise TooManyAtOnce(
                f"The change touches too many profiles and users at once: it needs {len(actions)} writes and checks, "
                f"at most {_MOST_ACTIONS} are allowed. Make it in smaller steps."
            )
        try:
            return self._revocations.write_with(actions, write.revocation, now_ms)
        except TransactionFailed as failure:
            what = "dashboard" if 0 in failure.failed else "profile or user"
            raise ChangedMeanwhile(f"A {what} was changed meanwhile. Try again.") from failure

    def _own(self, write: DashboardWrite) -> dict[str, Any]:
        if write.before is None:
            assert write.after is not None
            return put_action(self._table, _item(write.after), "attribute_not_exists(#dashboard_id)")
        condition, values = "#row_version = :seen", {"seen": write.before.row_version}
        if write.after is None:
            return delete_action(self._table, {"dashboard_id": write.before.dashboard_id}, condition, values)
        return put_action(self._table, _item(write.after), condition, values)


def _item(dashboard: Dashboard) -> Item:
    return {
        "dashboard_id": dashboard.dashboard_id,
        "kind": _KIND,
        "owner_id": dashboard.owner_id,
        "title": dashboard.title,
        "visibility": dashboard.visibility.value,
        "share_token": dashboard.share_token,
        "share_version": dashboard.share_version,
        "acl": {
            user_id: {"level": entry.level.value, "granted_by": entry.granted_by, "granted_at_ms": entry.granted_at_ms}
            for user_id, entry in dashboard.acl.items()
        },
        "document": json.dumps(dashboard.document, separators=(",", ":"), ensure_ascii=False),
        "revision": dashboard.revision,
        "row_version": dashboard.row_version,
        "created_at_ms": dashboard.created_at_ms,
        "updated_at_ms": dashboard.updated_at_ms,
        "withdrawal": withdrawal_item(dashboard.withdrawal),
    }


def _dashboard(item: Item) -> Dashboard:
    return Dashboard(
        dashboard_id=item["dashboard_id"],
        owner_id=item["owner_id"],
        visibility=Visibility(item["visibility"]),
        share_token=item["share_token"],
        share_version=item["share_version"],
        document=json.loads(item["document"]),
        acl={
            user_id: AclEntry(user_id, AclLevel(entry["level"]), entry["granted_by"], entry["granted_at_ms"])
            for user_id, entry in item["acl"].items()
        },
        revision=item["revision"],
        row_version=item["row_version"],
        created_at_ms=item["created_at_ms"],
        updated_at_ms=item["updated_at_ms"],
        withdrawal=stored_withdrawal(item["withdrawal"]),
    )


def _summary(item: Item) -> DashboardSummary:
    return DashboardSummary(
        dashboard_id=item["dashboard_id"],
        owner_id=item["owner_id"],
        title=item["title"],
        visibility=Visibility(item["visibility"]),
        revision=item["revision"],
        updated_at_ms=item["updated_at_ms"],
    )


def _page(items: list[Item], limit: int) -> Page[DashboardSummary]:
    cursor = items[-1]["dashboard_id"] if len(items) == limit else None
    return Page([_summary(item) for item in items], cursor)
