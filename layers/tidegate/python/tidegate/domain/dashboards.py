"""Dashboards as stored.

Invariant of this file: `row_version` grows by one with every write of any kind, `revision` only with a write of the
document; clients see the revision, stores put their conditions on the row version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tidegate.domain.access import AclLevel, DashboardAccess, Visibility


@dataclass(frozen=True, slots=True)
class AclEntry:
    """One user's right on one dashboard; times are epoch milliseconds."""

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
        visibility, share_token, share_version: see the vocabulary; the token is 32 URL-safe characters.
        acl: user id -> entry.
        document: the validated document v1.
        revision: starts at 1, +1 per document write.
        row_version: starts at 1, +1 per write of any kind.
        created_at_ms, updated_at_ms: epoch milliseconds.
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
        deleted: write the tombstone of a dashboard that is going away.
    """
    return DashboardAccess(
        dashboard_id=dashboard.dashboard_id,
        share_version=dashboard.share_version,
        visibility=dashboard.visibility,
        owner_id=dashboard.owner_id,
        acl={} if deleted else {user_id: entry.level for user_id, entry in dashboard.acl.items()},
        intents={} if deleted else dict(intents),
        deleted=deleted,
    )
