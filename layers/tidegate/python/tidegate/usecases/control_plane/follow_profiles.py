"""Bring every dashboard up to date with the profiles it uses, whatever dies on the way.

Invariant of this file: a change of a profile is written with the profile, and ended only when every dashboard using it
has followed; a dashboard follows in one transaction with a note that it did, so however often a change is taken up
again, its share version is raised once and no viewer who came back is terminated a second time.
"""

from __future__ import annotations

from dataclasses import replace

from tidegate.domain.dashboards import access_of
from tidegate.domain.profiles import ProfileChange
from tidegate.domain.revocations import Revocation, RevocationReason
from tidegate.errors import Conflict
from tidegate.ports.control_plane import DashboardStore, DashboardWrite, ProfileStore
from tidegate.ports.runtime import Clock, Observer
from tidegate.usecases.control_plane.resolve_intents import ResolveIntents

#: Tries of a dashboard that others are changing at the same time.
_ATTEMPTS = 4


class FollowProfiles:
    """Follow changes of profiles, dashboard by dashboard."""

    def __init__(
        self,
        *,
        profiles: ProfileStore,
        dashboards: DashboardStore,
        resolve: ResolveIntents,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self._profiles = profiles
        self._dashboards = dashboards
        self._resolve = resolve
        self._clock = clock
        self._observer = observer

    def __call__(self, deadline: float) -> bool:
        """Follow every open change. Whether all were ended before `deadline` (monotonic seconds).

        Raises `Unavailable`; what was done stays done.
        """
        changes = self._profiles.open_changes()
        self._observer.count("profile_changes_open", len(changes))
        done = [self.one(change, deadline) for change in changes]
        return all(done)

    def one(self, change: ProfileChange, deadline: float) -> bool:
        """Follow one change; as `__call__`. A dashboard that keeps being changed does not hold up the others."""
        if not change.followed:
            every = True
            for dashboard_id in self._profiles.used_by(change.kind, change.profile_id):
                if self._clock.monotonic() >= deadline:
                    return False
                every = self._follow(change, dashboard_id) and every
            if not every:
                return False
        self._profiles.end_change(change)
        return True

    def _follow(self, change: ProfileChange, dashboard_id: str) -> bool:
        for _ in range(_ATTEMPTS):
            if self._profiles.has_followed(change, dashboard_id):
                return True
            before = self._dashboards.get(dashboard_id)
            if before is None:
                return True  # deleted: its viewers are terminated for that
            now_ms = int(self._clock.now() * 1000)
            version = before.share_version + (1 if change.withdrawn else 0)
            after = replace(before, share_version=version, row_version=before.row_version + 1, updated_at_ms=now_ms)
            intents_before = self._dashboards.intents(dashboard_id)
            resolved = self._resolve(dashboard_id, after.document)
            reason = (
                RevocationReason.PROFILE_POLICY_CHANGED if change.withdrawn else RevocationReason.DATASOURCES_CHANGED
            )
            write = DashboardWrite(
                before,
                after,
                access_of(after, resolved.hashes),
                resolved.intents,
                intents_before=intents_before,
                follows=change,
                revocation=Revocation(reason, dashboard_id, version),
            )
            try:
                self._dashboards.write(write, now_ms)
            except Conflict:
                continue
            return True
        self._observer.warning("a dashboard has not followed its profile yet", dashboard=dashboard_id)
        return False
