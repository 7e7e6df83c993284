"""Bring every dashboard up to date with the profiles it uses, whatever crashes on the way.

Invariant of this file: a change of a profile is stored together with the profile, and it ends only when every dashboard
that uses the profile has followed. A dashboard follows in one transaction, which also notes that it has followed. So
however often a change is taken up again, the share version is raised once, and no viewer who has come back is
terminated a second time.
"""

from __future__ import annotations

from dataclasses import replace

from tidegate.domain.access import withdraw
from tidegate.domain.dashboards import access_of
from tidegate.domain.intents import using
from tidegate.domain.profile_changes import ProfileChange
from tidegate.domain.revocations import Revocation, RevocationReason
from tidegate.errors import Conflict, TooManyAtOnce
from tidegate.ports.control_plane import DashboardStore, DashboardWrite
from tidegate.ports.profiles import ProfileStore
from tidegate.ports.runtime import Clock, Observer
from tidegate.usecases.control_plane.resolve_intents import ResolveIntents

#: How often a dashboard is tried that others are changing at the same time.
_ATTEMPTS = 4


class FollowProfiles:
    """Follows changes of profiles, dashboard by dashboard."""

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
        """Follow every open change. True when all of them ended before `deadline` (monotonic seconds).

        Raises:
            Unavailable: a store did not answer. What was done stays done; a repetition does the rest.
        """
        changes = self._profiles.open_changes()
        self._observer.count("profile_changes_open", len(changes))
        done = [self.one(change, deadline) for change in changes]
        return all(done)

    def one(self, change: ProfileChange, deadline: float) -> bool:
        """Follow one change; otherwise as `__call__`.

        A dashboard that keeps being changed by others does not keep the rest from following.
        """
        if not change.followed:
            all_followed = True
            for dashboard_id in self._profiles.used_by(change.kind, change.profile_id):
                if self._clock.monotonic() >= deadline:
                    return False
                all_followed = self._follow(change, dashboard_id) and all_followed
            if not all_followed:
                return False
        self._profiles.end_change(change)
        return True

    def _follow(self, change: ProfileChange, dashboard_id: str) -> bool:
        for _ in range(_ATTEMPTS):
            if self._profiles.has_followed(change, dashboard_id):
                return True
            before = self._dashboards.get(dashboard_id)
            if before is None:
                return True  # deleted: that change terminates its viewers
            now_ms = int(self._clock.now() * 1000)
            after = replace(before, row_version=before.row_version + 1, updated_at_ms=now_ms)
            intents_before = self._dashboards.intents(dashboard_id)
            resolved = self._resolve(dashboard_id, after.document)
            if change.withdrawn:
                concerned = using(change.kind, change.profile_id, after.document, intents_before, resolved.intents)
                withdrawal = withdraw(before, concerned)
                after = replace(after, share_version=before.share_version + 1, withdrawal=withdrawal)
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
                revocation=Revocation(reason, dashboard_id, after.share_version),
            )
            try:
                self._dashboards.write(write, now_ms)
            except Conflict:
                continue
            except TooManyAtOnce:
                break  # another attempt would be as large
            return True
        self._observer.warning("a dashboard has not followed its profile yet", dashboard=dashboard_id)
        return False
