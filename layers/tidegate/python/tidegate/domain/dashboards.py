"""Dashboards as stored.

Invariant of this file: `row_version` grows by one with every write, `revision` only with a write of the document.
Clients see the revision. Stores put their conditions on the row version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tidegate.domain.access import AclLevel, DashboardAccess, Visibility, Withdrawal


@dataclass(frozen=True, slots=True)
class AclEntry:
    """One user's right on one dashboard. Times are epoch milliseconds."""

    user_id: str
    level: AclLevel
    granted_by: str
    granted_at_ms: int


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A dashboard and who may see it.

    Attributes:
        dashboard_id: 21 URL-safe characters.
        owner_id: user id.
        visibility: who may see it.
        share_token: 32 URL-safe characters; part of the link that is shared.
        share_version: integer that every revocation raises by one; starts at 0.
        document: the validated document, version 1.
        acl: user id -> entry.
        revision: starts at 1, +1 per write of the document.
        row_version: starts at 1, +1 per write of any kind.
        created_at_ms, updated_at_ms: epoch milliseconds.
        withdrawal: see `DashboardAccess`.
    """

    dashboard_id: str
    owner_id: str
    visibility: Visibility
    share_token: str
    share_version: int
    document: Mapping[str, object]
    acl: Mapping[str, AclEntry] = field(default_factory=dict)
    revision: int = 1
    row_version: int = 1
    created_at_ms: int = 0
    updated_at_ms: int = 0
    withdrawal: Withdrawal | None = None

    @property
    def title(self) -> str:
        return str(self.document.get("title", ""))


@dataclass(frozen=True, slots=True)
class DashboardSummary:
    """What a list shows of a dashboard."""

    dashboard_id: str
    owner_id: str
    title: str
    visibility: Visibility
    revision: int
    updated_at_ms: int


def access_of(dashboard: Dashboard, intents: Mapping[str, str], *, deleted: bool = False) -> DashboardAccess:
    """The access item that mirrors the dashboard.

    Args:
        dashboard: as it will be stored.
        intents: datasource id -> intent hash.
        deleted: make the tombstone of a dashboard that is being deleted.
    """
    return DashboardAccess(
        dashboard_id=dashboard.dashboard_id,
        share_version=dashboard.share_version,
        visibility=dashboard.visibility,
        owner_id=dashboard.owner_id,
        acl={} if deleted else {user_id: entry.level for user_id, entry in dashboard.acl.items()},
        intents={} if deleted else dict(intents),
        deleted=deleted,
        withdrawal=dashboard.withdrawal,
        revision=dashboard.revision,
    )
