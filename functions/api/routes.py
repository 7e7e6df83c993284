"""The public API under `/api`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response

from functions.api import models as m
from functions.api.deps import Address, CurrentUser, MaybeUser, Services
from tidegate.domain import rights
from tidegate.domain.dashboards import Dashboard
from tidegate.domain.profiles import BROKER, CREDENTIAL
from tidegate.domain.users import User
from tidegate.errors import InvalidInput
from tidegate.protocol import messages
from tidegate.usecases.control_plane.mint import MintRequest

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": m.ErrorAnswer, "description": description}
    for status, description in {
        400: "The request is wrong; the message says what is allowed",
        401: "No login, or one that is no longer valid",
        403: "Not allowed",
        404: "Not there, or not to be known",
        409: "Somebody else was first",
        429: "Too many requests",
        503: "Could not be checked; try again",
    }.items()
}
router = APIRouter(prefix="/api", responses=_ERRORS)
Limit = Annotated[int, Query(ge=1, le=200)]
Cursor = Annotated[str | None, Query(max_length=300)]


# --- login and users ---------------------------------------------------------------------------------------


@router.post("/auth/login", tags=["users"])
def login(body: m.LoginRequest, services: Services, address: Address) -> m.LoginAnswer:
    """Log in with e-mail and password. The token goes into `Authorization: Bearer` of every other call."""
    done = services.login(body.email, body.password, address)
    return m.LoginAnswer(
        token=done.token, expires_at=messages.timestamp(done.expires_at), user=m.UserAnswer.of(done.user)
    )


@router.get("/users/me", tags=["users"])
def me(user: CurrentUser) -> m.UserAnswer:
    """The user who is logged in."""
    return m.UserAnswer.of(user)


@router.post("/users/me/password", tags=["users"], status_code=204)
def change_password(body: m.ChangePassword, user: CurrentUser, services: Services) -> Response:
    """Change one's own password. Every login and session token minted before ends, this one too."""
    services.users.change_password(user, body.current_password, body.new_password)
    return Response(status_code=204)


@router.get("/users", tags=["users"])
def users(user: CurrentUser, services: Services, limit: Limit = 50, cursor: Cursor = None) -> m.UserList:
    """All users, by e-mail. For admins."""
    page = services.users.all(user, limit, cursor)
    return m.UserList(users=[m.UserAnswer.of(listed) for listed in page.items], cursor=page.cursor)


@router.post("/users", tags=["users"], status_code=201)
def create_user(body: m.CreateUser, user: CurrentUser, services: Services) -> m.CreatedUser:
    """Create a user. Without a password the answer holds a one-time password, once. For admins."""
    created, password = services.users.create(user, body.email, body.role, body.password)
    return m.CreatedUser(user=m.UserAnswer.of(created), one_time_password=password if body.password is None else None)


@router.patch("/users/{user_id}", tags=["users"])
def change_user(user_id: str, body: m.ChangeUser, user: CurrentUser, services: Services) -> m.UserAnswer:
    """Change a user's role, or deactivate or activate the user. For admins."""
    return m.UserAnswer.of(services.users.change(user, user_id, role=body.role, active=body.active))


@router.post("/users/{user_id}/password:reset", tags=["users"])
def reset_password(user_id: str, user: CurrentUser, services: Services) -> m.OneTimePassword:
    """Give a user a one-time password. What the user's old tokens opened ends. For admins."""
    return m.OneTimePassword(one_time_password=services.users.reset_password(user, user_id))


# --- profiles ----------------------------------------------------------------------------------------------


@router.get("/credential-profiles", tags=["profiles"])
def credentials(user: CurrentUser, services: Services) -> list[m.CredentialAnswer]:
    """All credential profiles, without their secrets. For editors and admins."""
    return [m.CredentialAnswer.of(profile) for profile in services.profiles.credentials(user)]


@router.post("/credential-profiles", tags=["profiles"], status_code=201)
def create_credential(body: m.CredentialRequest, user: CurrentUser, services: Services) -> m.CredentialAnswer:
    """Create a credential profile. The secret goes in and is never shown again. For admins."""
    return m.CredentialAnswer.of(services.profiles.create_credential(user, body.profile(), body.secret or {}))


@router.put("/credential-profiles/{profile_id}", tags=["profiles"])
def update_credential(
    profile_id: str, body: m.CredentialRequest, user: CurrentUser, services: Services
) -> m.CredentialAnswer:
    """Replace a credential profile. Without `secret` the stored one stays. For admins."""
    changed = services.profiles.update_credential(user, profile_id, body.profile(), body.secret)
    return m.CredentialAnswer.of(changed)


@router.delete("/credential-profiles/{profile_id}", tags=["profiles"], status_code=204)
def delete_credential(profile_id: str, user: CurrentUser, services: Services) -> Response:
    """Delete a credential profile. Streams that used it end. For admins."""
    services.profiles.delete(user, CREDENTIAL, profile_id)
    return Response(status_code=204)


@router.get("/broker-profiles", tags=["profiles"])
def brokers(user: CurrentUser, services: Services) -> list[m.BrokerAnswer]:
    """All broker profiles. For editors and admins."""
    return [m.BrokerAnswer.of(profile) for profile in services.profiles.brokers(user)]


@router.post("/broker-profiles", tags=["profiles"], status_code=201)
def create_broker(body: m.BrokerRequest, user: CurrentUser, services: Services) -> m.BrokerAnswer:
    """Create a broker profile. For admins."""
    return m.BrokerAnswer.of(services.profiles.create_broker(user, body.profile()))


@router.put("/broker-profiles/{profile_id}", tags=["profiles"])
def update_broker(profile_id: str, body: m.BrokerRequest, user: CurrentUser, services: Services) -> m.BrokerAnswer:
    """Replace a broker profile. For admins."""
    return m.BrokerAnswer.of(services.profiles.update_broker(user, profile_id, body.profile()))


@router.delete("/broker-profiles/{profile_id}", tags=["profiles"], status_code=204)
def delete_broker(profile_id: str, user: CurrentUser, services: Services) -> Response:
    """Delete a broker profile. Streams that used it end. For admins."""
    services.profiles.delete(user, BROKER, profile_id)
    return Response(status_code=204)


# --- dashboards --------------------------------------------------------------------------------------------


@router.get("/dashboards", tags=["dashboards"])
def dashboards(user: CurrentUser, services: Services, limit: Limit = 50, cursor: Cursor = None) -> m.DashboardList:
    """One's own dashboards page by page (an admin's hold everybody's), and all that are shared with one."""
    page = services.dashboards.owned(user, limit, cursor)
    return m.DashboardList(
        dashboards=[m.SummaryAnswer.of(summary) for summary in page.items],
        shared=[m.SummaryAnswer.of(summary) for summary in services.dashboards.shared_with(user)],
        cursor=page.cursor,
    )


@router.post("/dashboards", tags=["dashboards"], status_code=201)
def create_dashboard(
    body: m.DocumentRequest, user: CurrentUser, services: Services, response: Response
) -> m.DashboardAnswer:
    """Create a dashboard from a document. It is private. For editors and admins."""
    return _shown(services.dashboards.create(user, body.document), user, response)


@router.get("/dashboards/{dashboard_id}", tags=["dashboards"])
def dashboard(dashboard_id: str, user: MaybeUser, services: Services, response: Response) -> m.DashboardAnswer:
    """A dashboard that one may see. Without a login, only a public one."""
    return _shown(services.dashboards.get(user, dashboard_id), user, response)


@router.put("/dashboards/{dashboard_id}", tags=["dashboards"])
def update_dashboard(
    dashboard_id: str,
    body: m.DocumentRequest,
    user: CurrentUser,
    services: Services,
    response: Response,
    if_match: Annotated[str | None, Header()] = None,
) -> m.DashboardAnswer:
    """Replace the document. `If-Match` carries the revision it was loaded with. For its editors, managers and owner."""
    text = (if_match or "").strip().strip('"')
    if not text.isdigit() or int(text) < 1:
        raise InvalidInput('If-Match is required: the revision you loaded, such as "3"', code="revision_required")
    changed = services.dashboards.update(user, dashboard_id, body.document, int(text))
    return _shown(changed, user, response)


@router.delete("/dashboards/{dashboard_id}", tags=["dashboards"], status_code=204)
def delete_dashboard(dashboard_id: str, user: CurrentUser, services: Services) -> Response:
    """Delete a dashboard. Its viewers get nothing more within a second. For its owner and admins."""
    services.dashboards.delete(user, dashboard_id)
    return Response(status_code=204)


@router.put("/dashboards/{dashboard_id}/visibility", tags=["sharing"])
def set_visibility(
    dashboard_id: str, body: m.VisibilityRequest, user: CurrentUser, services: Services, response: Response
) -> m.DashboardAnswer:
    """Set who may see the dashboard, as its manager or owner. A change revokes what link and public viewers hold."""
    return _shown(services.dashboards.set_visibility(user, dashboard_id, body.visibility), user, response)


@router.post("/dashboards/{dashboard_id}/share-token:rotate", tags=["sharing"])
def rotate(dashboard_id: str, user: CurrentUser, services: Services, response: Response) -> m.DashboardAnswer:
    """Replace the share token, as manager or owner. The old one, and what was minted with it, is revoked."""
    return _shown(services.dashboards.rotate_share_token(user, dashboard_id), user, response)


@router.put("/dashboards/{dashboard_id}/acl", tags=["sharing"])
def grant(
    dashboard_id: str, body: m.AclRequest, user: CurrentUser, services: Services, response: Response
) -> m.DashboardAnswer:
    """Give a user a right on the dashboard, or change it, as its manager or owner."""
    return _shown(services.dashboards.grant(user, dashboard_id, body.email, body.level), user, response)


@router.delete("/dashboards/{dashboard_id}/acl/{member_id}", tags=["sharing"])
def revoke(
    dashboard_id: str, member_id: str, user: CurrentUser, services: Services, response: Response
) -> m.DashboardAnswer:
    """Take a user's right on the dashboard away, as its manager or owner."""
    return _shown(services.dashboards.revoke(user, dashboard_id, member_id), user, response)


@router.get("/share/{share_token}", tags=["sharing"])
def shared(share_token: str, services: Services, response: Response) -> m.DashboardAnswer:
    """The dashboard a link viewer may see."""
    return _shown(services.dashboards.by_share_token(share_token), None, response)


@router.post("/datasource-sessions", tags=["sessions"], status_code=201)
def mint(body: m.SessionRequest, user: MaybeUser, services: Services, address: Address) -> m.SessionAnswer:
    """Mint a session token for one datasource. Without a login, for a viewer by link or of a public dashboard."""
    minted = services.mint(
        MintRequest(user, address, body.dashboard_id, body.datasource_id, body.share_token, body.current_token)
    )
    return m.SessionAnswer(token=minted.token, expires_at=messages.timestamp(minted.expires_at))


# --- operations --------------------------------------------------------------------------------------------


@router.get("/operations/audit", tags=["operations"])
def audit(
    user: CurrentUser,
    services: Services,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    action_prefix: Annotated[str, Query(alias="actionPrefix", max_length=100)] = "",
) -> m.AuditList:
    """The newest audit events first. For admins."""
    rights.check_admin(user)
    return m.AuditList(
        events=[
            m.AuditAnswer(
                action=event.action,
                actor_id=event.actor_id,
                target_type=event.target_type,
                target_id=event.target_id,
                at=messages.timestamp(event.at_ms / 1000),
                metadata=dict(event.metadata),
            )
            for event in services.audit.newest(limit, action_prefix)
        ]
    )


def _shown(dashboard: Dashboard, user: User | None, response: Response) -> m.DashboardAnswer:
    response.headers["ETag"] = f'"{dashboard.revision}"'
    if user is None:
        return m.DashboardAnswer.of(dashboard, edit=False, share=False, member=False)
    return m.DashboardAnswer.of(
        dashboard,
        edit=rights.may_edit(dashboard, user),
        share=rights.may_share(dashboard, user),
        member=rights.may_read(dashboard, user),
    )
