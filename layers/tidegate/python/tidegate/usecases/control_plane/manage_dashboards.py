"""Dashboards: create, read, update and delete them, and say who may see them.

Invariants of this file: every change is one `DashboardWrite`, and a change that takes a right away has its event in
that write. A change that leaves the document alone reads no profile, because the stored intents stay.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from tidegate.domain import rights
from tidegate.domain.access import AclLevel, Visibility, is_member
from tidegate.domain.audit import AuditEvent
from tidegate.domain.dashboard_lists import MOST_LOOKED_AT, Wanted
from tidegate.domain.dashboards import AclEntry, Dashboard, DashboardSummary, access_of
from tidegate.domain.documents import check_document
from tidegate.domain.emails import normalise_email
from tidegate.domain.intents import intent_hash
from tidegate.domain.revocations import Revocation, RevocationReason
from tidegate.domain.users import User
from tidegate.errors import Conflict, Denied, InvalidInput, NotFound
from tidegate.ports.control_plane import AuditLog, DashboardStore, DashboardWrite, Page, UserStore
from tidegate.ports.profiles import ProfileStore
from tidegate.ports.runtime import Clock, Ids
from tidegate.usecases.control_plane.author_profiles import check_author
from tidegate.usecases.control_plane.from_what_stands import from_what_stands
from tidegate.usecases.control_plane.resolve_intents import ProfilesRead, Resolved, ResolveIntents


class ManageDashboards:
    """What users do with dashboards. A user who may not know of a dashboard gets `NotFound`.

    Only who replaces the document says from which revision, so only that may raise `Conflict`. Every other change is
    made from what stands now.
    """

    def __init__(
        self,
        *,
        dashboards: DashboardStore,
        users: UserStore,
        profiles: ProfileStore,
        resolve: ResolveIntents,
        audit: AuditLog,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._dashboards = dashboards
        self._users = users
        self._profiles = profiles
        self._resolve = resolve
        self._audit = audit
        self._clock = clock
        self._ids = ids

    # --- reading ------------------------------------------------------------------------------------------

    def get(self, user: User | None, dashboard_id: str) -> Dashboard:
        """A public dashboard, or one that the user may read. Raises `NotFound`."""
        dashboard = self._dashboards.get(dashboard_id)
        if dashboard is None:
            raise NotFound("Dashboard not found")
        if not is_member(dashboard, user) and not self._shown_to_guests(dashboard, Visibility.PUBLIC):
            raise NotFound("Dashboard not found")
        return dashboard

    def by_share_token(self, share_token: str) -> Dashboard:
        """The dashboard that a link leads to. Raises `NotFound`, also when it is private or has no active owner."""
        dashboard = self._dashboards.by_share_token(share_token)
        if dashboard is None or not self._shown_to_guests(dashboard, Visibility.LINK, Visibility.PUBLIC):
            raise NotFound("Dashboard not found")
        return dashboard

    def editable(self, user: User, dashboard_id: str) -> Dashboard:
        """A dashboard that the user may edit. Raises `NotFound`, `Denied`."""
        dashboard = self._readable(user, dashboard_id)
        if not rights.may_edit(dashboard, user):
            raise Denied("You may not edit this dashboard")
        return dashboard

    def shareable(self, user: User, dashboard_id: str) -> Dashboard:
        """A dashboard whose sharing the user may manage. Raises `NotFound`, `Denied`."""
        dashboard = self._readable(user, dashboard_id)
        if not rights.may_share(dashboard, user):
            raise Denied("You may not manage the sharing of this dashboard")
        return dashboard

    def owned(self, user: User, limit: int, cursor: str | None) -> Page[DashboardSummary]:
        """The user's own dashboards; for admins, all dashboards."""
        if rights.may_list_all(user):
            return self._dashboards.all(limit, cursor)
        return self._dashboards.owned_by(user.user_id, limit, cursor)

    def found(
        self, user: User, wanted: Wanted, limit: int, cursor: str | None
    ) -> tuple[Page[DashboardSummary], list[DashboardSummary], bool]:
        """As `owned` and `shared_with`, in the order and of the kind that is wanted.

        The last part is whether there are dashboards that were not looked at: see `MOST_LOOKED_AT`. Raises
        `InvalidInput` for a cursor of another list.
        """
        read = self.owned(user, MOST_LOOKED_AT, None)
        shown, following = wanted.page(read.items, limit, cursor)
        return Page(shown, following), wanted.found(self.shared_with(user)), read.cursor is not None

    def emails(self, user_ids: Iterable[str]) -> Mapping[str, str]:
        """User id -> e-mail, of those that exist. It does not decide who may be told."""
        return {user_id: user.email for user_id, user in self._users.get_all(user_ids).items()}

    def shared_with(self, user: User) -> Iterable[DashboardSummary]:
        """The dashboards whose ACL names the user, by title. A store returns them in any order."""
        found = self._dashboards.summaries(user.shared_dashboards)
        return sorted(found, key=lambda summary: (summary.title.casefold(), summary.dashboard_id))

    # --- the document -------------------------------------------------------------------------------------

    def create(self, user: User, document: Mapping[str, Any]) -> Dashboard:
        """Create a private dashboard. Raises `Denied`, or `InvalidInput` when the document is not valid."""
        if not rights.may_create(user):
            raise Denied("Only editors and administrators may create dashboards")
        checked, now_ms = check_document(document), self._now_ms()
        dashboard = Dashboard(
            dashboard_id=self._ids.new_id(),
            owner_id=user.user_id,
            visibility=Visibility.PRIVATE,
            share_token=self._ids.new_share_token(),
            share_version=0,
            document=checked,
            created_at_ms=now_ms,
            updated_at_ms=now_ms,
        )
        resolved = self._resolve(dashboard.dashboard_id, checked)
        _refuse_problems(resolved, {datasource["id"] for datasource in checked["datasources"]})
        self._dashboards.write(
            DashboardWrite(None, dashboard, access_of(dashboard, resolved.hashes), resolved.intents), now_ms
        )
        self._record("dashboard.created", user, dashboard, {})
        return dashboard

    @from_what_stands
    def update(self, user: User, dashboard_id: str, document: Mapping[str, Any], expected_revision: int) -> Dashboard:
        """Replace the document. Raises `Conflict` when the dashboard no longer has the revision that the caller saw."""
        before = self.editable(user, dashboard_id)
        if before.revision != expected_revision:
            raise Conflict(
                "Dashboard was changed since you loaded it. Reload to get the latest version.",
                current_revision=before.revision,
            )
        checked = check_document(document)
        after = replace(before, document=checked, revision=before.revision + 1)
        if checked == before.document:
            after = self._write(before, after, None)
        else:
            after = self._write_document(user, before, after)
        self._record("dashboard.updated", user, after, {"fields": ["document"]})
        return after

    @from_what_stands
    def delete(self, user: User, dashboard_id: str) -> None:
        """Delete the dashboard; all its viewers lose their right. Raises `Denied`, `NotFound`."""
        before = self._readable(user, dashboard_id)
        if not rights.may_delete(before, user):
            raise Denied("Only the owner or an administrator may delete this dashboard")
        now_ms = self._now_ms()
        tombstone = replace(before, share_version=before.share_version + 1)
        self._dashboards.write(
            DashboardWrite(
                before,
                None,
                access_of(tombstone, {}, deleted=True),
                {},
                intents_before=self._dashboards.intents(dashboard_id),
                revocation=_event(RevocationReason.DASHBOARD_DELETED, tombstone),
            ),
            now_ms,
        )
        self._record("dashboard.deleted", user, before, {})

    # --- sharing ------------------------------------------------------------------------------------------

    @from_what_stands
    def set_visibility(self, user: User, dashboard_id: str, visibility: Visibility) -> Dashboard:
        """Change who may see the dashboard. Viewers who came by link or publicity lose their right.

        A dashboard that was private gets a new share token.
        """
        before = self.shareable(user, dashboard_id)
        if before.visibility is visibility:
            return before
        was_private = before.visibility is Visibility.PRIVATE
        after = replace(
            before,
            visibility=visibility,
            share_token=self._ids.new_share_token() if was_private else before.share_token,
            share_version=before.share_version + 1,
        )
        after = self._write(before, after, RevocationReason.VISIBILITY_CHANGED)
        change = {"from": before.visibility.value, "to": visibility.value}
        self._record("dashboard.visibility.updated", user, after, change)
        return after

    @from_what_stands
    def rotate_share_token(self, user: User, dashboard_id: str) -> Dashboard:
        """Give the dashboard a new share token. Viewers who came by link or publicity lose their right."""
        before = self.shareable(user, dashboard_id)
        after = replace(before, share_token=self._ids.new_share_token(), share_version=before.share_version + 1)
        after = self._write(before, after, RevocationReason.SHARE_TOKEN_ROTATED)
        self._record("dashboard.share_token.rotated", user, after, {})
        return after

    @from_what_stands
    def grant(self, user: User, dashboard_id: str, email: str, level: AclLevel) -> Dashboard:
        """Add a user to the ACL, or change the user's level."""
        before = self.shareable(user, dashboard_id)
        member = self._active_user(email)
        if member.user_id == before.owner_id:
            raise InvalidInput("The owner needs no entry")
        entry = AclEntry(member.user_id, level, user.user_id, self._now_ms())
        after = replace(before, acl={**before.acl, member.user_id: entry})
        after = self._write(before, after, None)
        self._record("dashboard.acl.upserted", user, after, {"userId": member.user_id, "level": level.value})
        return after

    @from_what_stands
    def revoke(self, user: User, dashboard_id: str, member_id: str) -> Dashboard:
        """Remove a user from the ACL. No change when the user is not in it."""
        before = self.shareable(user, dashboard_id)
        if member_id not in before.acl:
            return before
        after = replace(before, acl={user_id: entry for user_id, entry in before.acl.items() if user_id != member_id})
        after = self._write(before, after, RevocationReason.ACL_REMOVED, member_id=member_id)
        self._record("dashboard.acl.revoked", user, after, {"userId": member_id})
        return after

    @from_what_stands
    def set_owner(self, user: User, dashboard_id: str, email: str) -> Dashboard:
        """Make somebody else the owner. What guests are shown goes on, by the new owner. The old one is no member any
        longer, unless an admin. No change when the user is the owner already.

        The new owner is active at the moment of the write, so no deactivation is overlooked.

        Raises:
            Denied: for anybody but admins.
            NotFound: `user_not_found`, no active user has this e-mail.
            InvalidInput: `owner_not_editor`, the user might not have made the dashboard.
        """
        before = self._readable(user, dashboard_id)
        rights.check_admin(user)
        owner = self._active_user(email)
        if owner.user_id == before.owner_id:
            return before
        if not rights.may_own(owner):
            raise InvalidInput("The owner must be an editor or an administrator", code="owner_not_editor")
        acl = {user_id: entry for user_id, entry in before.acl.items() if user_id != owner.user_id}
        after = self._write(
            before,
            replace(before, owner_id=owner.user_id, acl=acl),
            RevocationReason.OWNER_CHANGED,
            member_id=before.owner_id,
            relies_on=owner.user_id,
        )
        self._record("dashboard.owner.updated", user, after, {"from": before.owner_id, "to": owner.user_id})
        return after

    # --- helpers ----------------------------------------------------------------------------------------------

    def _write(
        self,
        before: Dashboard,
        after: Dashboard,
        reason: RevocationReason | None,
        *,
        member_id: str | None = None,
        relies_on: str | None = None,
    ) -> Dashboard:
        """Write a change that leaves the document alone. The stored intents stay."""
        now_ms = self._now_ms()
        after = replace(after, row_version=before.row_version + 1, updated_at_ms=now_ms)
        revocation = _event(reason, after, member_id) if reason else None
        access = access_of(after, {})
        write = DashboardWrite(before, after, access, None, revocation=revocation, relies_on=relies_on)
        self._dashboards.write(write, now_ms)
        return after

    def _write_document(self, user: User, before: Dashboard, after: Dashboard) -> Dashboard:
        """Write a changed document, resolved once. Viewers of a datasource whose intent changed or is gone lose it."""
        changed = _changed_datasources(before.document, after.document)
        profiles = ProfilesRead(self._profiles)
        check_author(user, after.document, changed, profiles)
        resolved = self._resolve(after.dashboard_id, after.document, profiles)
        _refuse_problems(resolved, changed)
        stored = self._dashboards.intents(before.dashboard_id)
        hashes = resolved.hashes
        revoked = any(hashes.get(datasource_id) != intent_hash(intent) for datasource_id, intent in stored.items())
        now_ms = self._now_ms()
        after = replace(after, row_version=before.row_version + 1, updated_at_ms=now_ms)
        self._dashboards.write(
            DashboardWrite(
                before,
                after,
                access_of(after, hashes),
                resolved.intents,
                intents_before=stored,
                revocation=_event(RevocationReason.DATASOURCES_CHANGED, after) if revoked else None,
            ),
            now_ms,
        )
        return after

    def _readable(self, user: User, dashboard_id: str) -> Dashboard:
        dashboard = self._dashboards.get(dashboard_id)
        if dashboard is None or not rights.may_read(dashboard, user):
            raise NotFound("Dashboard not found")
        if not is_member(dashboard, user) and not self._shown_to_guests(dashboard, Visibility.PUBLIC):
            raise NotFound("Dashboard not found")
        return dashboard

    def _shown_to_guests(self, dashboard: Dashboard, *visible: Visibility) -> bool:
        """Whether guests are shown the dashboard: it is visible in one of these ways, and its owner is active."""
        if dashboard.visibility not in visible:
            return False
        owner = self._users.get(dashboard.owner_id)
        return owner is not None and owner.active

    def _active_user(self, email: str) -> User:
        """The active user with this e-mail. Raises `NotFound`, or `InvalidInput` when it is no e-mail."""
        user = self._users.by_email(normalise_email(email))
        if user is None or not user.active:
            raise NotFound("No active user has this e-mail", code="user_not_found")
        return user

    def _record(self, action: str, user: User, dashboard: Dashboard, metadata: Mapping[str, object]) -> None:
        event = AuditEvent(action, user.user_id, "dashboard", dashboard.dashboard_id, self._now_ms(), metadata)
        self._audit.record(event)

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1000)


def _event(reason: RevocationReason, dashboard: Dashboard, member_id: str | None = None) -> Revocation:
    return Revocation(reason, dashboard.dashboard_id, dashboard.share_version, member_id)


def _changed_datasources(before: Mapping[str, Any], after: Mapping[str, Any]) -> set[str]:
    """Ids of the datasources that are new or have changed. The order of keys does not count."""
    was = {datasource["id"]: json.dumps(datasource, sort_keys=True) for datasource in before["datasources"]}
    now = [(datasource["id"], json.dumps(datasource, sort_keys=True)) for datasource in after["datasources"]]
    return {datasource_id for datasource_id, text in now if was.get(datasource_id) != text}


def _refuse_problems(resolved: Resolved, changed: set[str]) -> None:
    """Every datasource that the author changed must resolve. One that broke without their doing may stay.

    Raises `InvalidInput`.
    """
    for datasource_id, problem in resolved.problems.items():
        if datasource_id in changed:
            raise InvalidInput(f"Datasource '{datasource_id}': {problem.message}", code="datasource_unresolved")
