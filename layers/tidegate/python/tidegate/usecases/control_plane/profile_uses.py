"""Which dashboards name a profile: what an admin looks at before taking something away from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tidegate.domain.dashboards import DashboardSummary
from tidegate.domain.profiles import CREDENTIAL
from tidegate.domain.rights import check_admin
from tidegate.domain.users import User
from tidegate.errors import NotFound
from tidegate.ports.control_plane import DashboardStore
from tidegate.ports.profiles import ProfileStore

#: Most dashboards that an answer names. Nobody reads a longer list, and their items, which hold the documents, are read
#: whole.
MOST = 50


@dataclass(frozen=True, slots=True)
class Uses:
    """`more`: whether there are dashboards besides these."""

    dashboards: Sequence[DashboardSummary]
    more: bool


class ProfileUses:
    """Finds the dashboards that use a profile."""

    def __init__(self, *, profiles: ProfileStore, dashboards: DashboardStore) -> None:
        self._profiles = profiles
        self._dashboards = dashboards

    def __call__(self, actor: User, kind: str, profile_id: str) -> Uses:
        """Up to `MOST` dashboards, by title. Of a credential profile, also those that use it through a broker profile.

        Raises:
            Denied: the actor is no admin.
            NotFound: there is no such profile.
        """
        check_admin(actor)
        profile = self._profiles.credential(profile_id) if kind == CREDENTIAL else self._profiles.broker(profile_id)
        if profile is None:
            raise NotFound(f"{kind.title()} profile not found")
        ids = self._profiles.used_by(kind, profile_id, MOST + 1)
        found = self._dashboards.summaries(ids[:MOST])
        return Uses(sorted(found, key=lambda each: (each.title.lower(), each.dashboard_id)), len(ids) > MOST)
