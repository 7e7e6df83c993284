"""Who may do what to a dashboard, by the user's role and by the level in the dashboard's ACL.

Only those who may manage sharing change visibility. A signed-in user with a valid share token may stream.
"""

from __future__ import annotations

from tidegate.domain.access import AclLevel, Role, Visibility, is_admin, is_member
from tidegate.domain.dashboards import Dashboard, DashboardSummary
from tidegate.domain.profiles import BrokerProfile, CredentialProfile
from tidegate.domain.users import User
from tidegate.errors import Denied


def check_admin(user: User) -> None:
    """Refuse everybody but admins: accounts, profiles and operations are theirs. Raises `Denied`."""
    if not is_admin(user.role):
        raise Denied("Only administrators may do this")


def check_author(user: User) -> None:
    """Refuse users who may not use profiles: they are not shown them either. Raises `Denied`."""
    if not trusted_author(user):
        raise Denied("Only editors and administrators may do this")


def may_create(user: User) -> bool:
    return trusted_author(user)


def may_list_all(user: User) -> bool:
    """Whether the user's list shows everybody's dashboards."""
    return is_admin(user.role)


def may_read(dashboard: Dashboard, user: User) -> bool:
    return dashboard.visibility is Visibility.PUBLIC or is_member(dashboard, user)


def may_edit(dashboard: Dashboard, user: User) -> bool:
    return may_delete(dashboard, user) or _level(dashboard, user) in (AclLevel.EDITOR, AclLevel.MANAGER)


def may_share(dashboard: Dashboard, user: User) -> bool:
    """Whether the user may change visibility, rotate the share token and edit the ACL."""
    return may_delete(dashboard, user) or _level(dashboard, user) is AclLevel.MANAGER


def may_delete(dashboard: Dashboard, user: User) -> bool:
    return is_admin(user.role) or user.user_id == dashboard.owner_id


def may_own(user: User) -> bool:
    """Whether the user may be made the owner: somebody active who might have made the dashboard."""
    return user.active and may_create(user)


def may_know_owner(summary: DashboardSummary, user: User) -> bool:
    """Whether a list tells the user who the owner is. It does not know who else may edit."""
    return is_admin(user.role) or user.user_id == summary.owner_id


def trusted_author(user: User) -> bool:
    """Whether the user, as an author, may use profiles that are not for public use."""
    return is_admin(user.role) or user.role is Role.EDITOR


def may_use(user: User, profile: BrokerProfile | CredentialProfile) -> bool:
    """Whether the user, as an author, may attach the profile to a dashboard."""
    return profile.allow_public_use or trusted_author(user)


def _level(dashboard: Dashboard, user: User) -> AclLevel | None:
    entry = dashboard.acl.get(user.user_id)
    return entry.level if entry else None
