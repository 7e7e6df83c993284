"""The public API under `/api`."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response

from functions.api import models as m
from functions.api.deps import (
    Address,
    CurrentLogin,
    CurrentUser,
    MaybeUser,
    OneTimeLogin,
    PathId,
    Services,
    SessionToken,
    StrictRoute,
    bearer,
    check_service_token,
)
from functions.api.entity_tags import entity_tag, matches
from functions.api.wiring import ApiServices
from tidegate.domain import rights
from tidegate.domain.access import Visibility
from tidegate.domain.audit import MAX_ACTION, moment_ms
from tidegate.domain.dashboard_lists import Sort, Wanted
from tidegate.domain.dashboards import Dashboard
from tidegate.domain.identifiers import MAX_IDENTIFIER
from tidegate.domain.limits import REALTIME_ASKED_SCOPE
from tidegate.domain.profiles import BROKER, CREDENTIAL
from tidegate.domain.projection import shown_dashboard
from tidegate.domain.users import User
from tidegate.errors import InvalidInput
from tidegate.protocol import messages
from tidegate.usecases.control_plane.mint import MintRequest
from tidegate.usecases.control_plane.read_history import HistoryRequest

#: How every route may refuse.
ERRORS: dict[int | str, dict[str, Any]] = {
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
#: The headers say what the answer would be.
_NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "The caller has this answer already"}}
router = APIRouter(prefix="/api", responses=ERRORS, route_class=StrictRoute)
Limit = Annotated[int, Query(ge=1, le=200)]
#: What `If-Match` may be: a revision, with quotation marks or without, or an entity tag of a dashboard.
_REVISION = re.compile(r'\s*"*0*(?P<revision>[1-9][0-9]{0,17})(-[0-9a-f]{1,64})?"*\s*')
IfMatch = Annotated[str | None, Header()]
AskedId = Annotated[str | None, Query(alias="dashboardId", max_length=MAX_IDENTIFIER)]
#: How often an address may ask about realtime in a minute. A page asks after a handshake that failed: that is twice as
#: often as an address may connect by default.
ASKS_PER_ADDRESS = 120
IfNoneMatch = Annotated[str | None, Header()]
#: An e-mail has the longest cursor.
Cursor = Annotated[str | None, Query(max_length=254)]


# --- login and users ---------------------------------------------------------------------------------------


@router.post("/auth/login", tags=["users"])
def login(body: m.LoginRequest, services: Services, address: Address) -> m.LoginAnswer:
    """Log in with e-mail and password. The token goes into `Authorization: Bearer` of every other call.

    The token is valid for `AUTH_LOGIN_TTL_SECONDS`, and can be renewed. An unknown e-mail, a wrong password, a one-time
    password that is older than a day, and a deactivated account get the same answer, 401 `invalid_credentials`.

    After a login with a one-time password, `mustChangePassword` is true. Then every call is answered with 403
    `password_change_required`, but for `GET /api/users/me`, `POST /api/users/me/password` and the two sign-outs.

    After `AUTH_LOGIN_MAX_ATTEMPTS` failures within `AUTH_LOGIN_WINDOW_SECONDS`, with one e-mail from one address, both
    together are locked for `AUTH_LOGIN_LOCK_SECONDS`. `AUTH_LOGIN_ACCOUNT_MAX_ATTEMPTS` limits one e-mail over all
    addresses. Addresses where somebody logged in with it before are not held to that. Above a limit the answer is 429.

    Whatever the e-mails, an address may try 30 times in a minute.
    """
    return m.LoginAnswer.of(services.login(body.email, body.password, address))


@router.post("/auth/renew", tags=["users"])
def renew(login: CurrentLogin, services: Services) -> m.LoginAnswer:
    """Renew a login while it is used. Best asked when half of the token's life is over.

    The new token is valid for `AUTH_LOGIN_TTL_SECONDS`, but not beyond `AUTH_LOGIN_MAX_SECONDS` after signing in. The
    old one stays valid until it expires. Both belong to the same login: a sign-out ends both.
    """
    return m.LoginAnswer.of(services.logins.renew(login))


@router.post("/auth/logout", tags=["users"], status_code=204)
def logout(login: OneTimeLogin, services: Services) -> Response:
    """Sign out: end this login, and no other.

    Its tokens are answered with 401 from now on, also those it was renewed with. A call that is repeated is too.
    Session tokens that were minted with it stay valid until they expire, and cannot be renewed.
    """
    services.logins.end(login)
    return Response(status_code=204)


@router.post("/auth/logout-everywhere", tags=["users"], status_code=204)
def logout_everywhere(login: OneTimeLogin, services: Services) -> Response:
    """Sign out everywhere: every login and session token that the user was given before ends, and so do the streams
    they opened."""
    services.logins.end_all(login.user)
    return Response(status_code=204)


@router.get("/users/me", tags=["users"])
def me(login: OneTimeLogin) -> m.UserAnswer:
    """The user who is logged in."""
    return m.UserAnswer.of(login.user)


@router.post("/users/me/password", tags=["users"], status_code=204)
def change_password(body: m.ChangePassword, login: OneTimeLogin, services: Services) -> Response:
    """Change one's own password.

    Every login and session token that the user was given before ends, the one of this call too. A wrong current
    password is answered with 403 `wrong_password`, a one-time password that is older than a day with 403
    `one_time_password_expired`. Wrong ones of a user count like failed logins, up to 429.

    A password has 12 to 256 characters of any kind. One that is used often, repeats itself, or is the e-mail address is
    answered with 400 `weak_password`. The current one is answered with 400 `password_unchanged`.

    A login that is ended while the call runs changes nothing, and is answered with 401.
    """
    services.change_own_password(login, body.current_password, body.new_password)
    return Response(status_code=204)


@router.get("/users", tags=["users"])
def users(
    user: CurrentUser,
    services: Services,
    limit: Limit = 50,
    cursor: Cursor = None,
    query: Annotated[str, Query(max_length=254)] = "",
) -> m.UserList:
    """All users, sorted by e-mail, page by page. For admins.

    `query` keeps those whose e-mail has it in it, in capitals or not. A page looks at 1000 users at most. So with a
    `query` it may show fewer than `limit`, or none, while there is a `cursor`.
    """
    page = services.users.all(user, limit, cursor, query)
    return m.UserList(users=[m.UserAnswer.of(listed) for listed in page.items], cursor=page.cursor)


@router.post("/users", tags=["users"], status_code=201)
def create_user(body: m.CreateUser, user: CurrentUser, services: Services) -> m.CreatedUser:
    """Create a user. For admins.

    Without a password, the answer holds a one-time password. It is never shown again, works for a day, and has to be
    changed first. An e-mail that is in use is answered with 409 `email_taken`, however it is written. Before the @ it
    has ASCII characters only. A domain in another script gets its `xn--` form. Anything else, such as an invisible
    character, is 400 `invalid_email`.
    """
    created, password = services.users.create(user, body.email, body.role, body.password)
    return m.CreatedUser(user=m.UserAnswer.of(created), one_time_password=password if body.password is None else None)


@router.patch("/users/{user_id}", tags=["users"])
def change_user(user_id: PathId, body: m.ChangeUser, user: CurrentUser, services: Services) -> m.UserAnswer:
    """Change a user's role, or deactivate or activate the user. For admins.

    A field that is left out stays as it is. Deactivation ends the user's logins and streams. What the user's dashboards
    show by link or to everybody ends too, and comes back with activation, or with another owner; members keep them. Who
    is an admin no longer loses every login and stream, and logs in again. Admins cannot take their own admin rights:
    that is answered with 400. The last active admin stays: 409 `last_admin`. Two admins cannot remove each other at
    once: the second is answered with 409 `no_admin_any_more`.
    """
    return m.UserAnswer.of(services.users.change(user, user_id, role=body.role, active=body.active))


@router.post("/users/{user_id}/password:reset", tags=["users"])
def reset_password(user_id: PathId, user: CurrentUser, services: Services) -> m.OneTimePassword:
    """Give a user a one-time password, which works for a day. For admins.

    Every login and session token that the user was given before ends, and so do the streams they opened. One's own
    password is changed with `POST /api/users/me/password`: here that is answered with 400 `own_password`.
    """
    return m.OneTimePassword(one_time_password=services.users.reset_password(user, user_id))


# --- profiles ----------------------------------------------------------------------------------------------


@router.get("/credential-profiles", tags=["profiles"])
def credentials(user: CurrentUser, services: Services) -> list[m.CredentialAnswer]:
    """All credential profiles, without their secrets. For editors and admins."""
    return [m.CredentialAnswer.of(profile) for profile in services.profiles.credentials(user)]


@router.post("/credential-profiles", tags=["profiles"], status_code=201)
def create_credential(
    body: m.CredentialRequest, user: CurrentUser, services: Services, response: Response
) -> m.CredentialAnswer:
    """Create a credential profile. For admins.

    The secret goes in and is never shown again. It is sent only to the profile's `destinations`. A name that is in use
    is answered with 409 `name_taken`.
    """
    made = services.profiles.create_credential(user, body.profile(), body.secret or {})
    response.headers["ETag"] = f'"{made.revision}"'
    return m.CredentialAnswer.of(made)


@router.put("/credential-profiles/{profile_id}", tags=["profiles"])
def update_credential(
    profile_id: PathId,
    body: m.CredentialReplacement,
    user: CurrentUser,
    services: Services,
    response: Response,
    if_match: IfMatch = None,
) -> m.CredentialAnswer:
    """Replace a credential profile. For admins.

    `If-Match` carries the `revision` that was loaded, and is answered as for dashboards: 400 `revision_required`
    without it, 409 `conflict` for another one than the current. `destinations` must be stated.

    Without `secret`, the stored one stays. When the secret, the type or `headerName` changed, the relay connects again
    within seconds, and viewers stay. When a destination was taken away, viewers need a new session token. A datasource
    whose URL is no longer covered has no stream any longer. When public use is withdrawn, viewers by link and of public
    dashboards lose the streams that use the profile.
    """
    revision = _revision(if_match)
    changed = services.profiles.update_credential(user, profile_id, body.profile(), body.secret, revision)
    response.headers["ETag"] = f'"{changed.revision}"'
    return m.CredentialAnswer.of(changed)


@router.delete("/credential-profiles/{profile_id}", tags=["profiles"], status_code=204)
def delete_credential(profile_id: PathId, user: CurrentUser, services: Services) -> Response:
    """Delete a credential profile. For admins.

    Datasources that name it have no stream any longer. Viewers by link and of public dashboards lose their streams on
    every dashboard that used it.
    """
    services.profiles.delete(user, CREDENTIAL, profile_id)
    return Response(status_code=204)


@router.get("/broker-profiles", tags=["profiles"])
def brokers(user: CurrentUser, services: Services) -> list[m.BrokerAnswer]:
    """All broker profiles. For editors and admins."""
    return [m.BrokerAnswer.of(profile) for profile in services.profiles.brokers(user)]


@router.post("/broker-profiles", tags=["profiles"], status_code=201)
def create_broker(body: m.BrokerRequest, user: CurrentUser, services: Services, response: Response) -> m.BrokerAnswer:
    """Create a broker profile. For admins. A name that is in use is answered with 409 `name_taken`."""
    made = services.profiles.create_broker(user, body.profile())
    response.headers["ETag"] = f'"{made.revision}"'
    return m.BrokerAnswer.of(made)


@router.put("/broker-profiles/{profile_id}", tags=["profiles"])
def update_broker(
    profile_id: PathId,
    body: m.BrokerReplacement,
    user: CurrentUser,
    services: Services,
    response: Response,
    if_match: IfMatch = None,
) -> m.BrokerAnswer:
    """Replace a broker profile. For admins.

    `If-Match` carries the `revision` that was loaded, and is answered as for dashboards: 400 `revision_required`
    without it, 409 `conflict` for another one than the current. `topicAllowlist` must be stated.

    Streams that use it connect again when its transport, address, credential or TLS options changed. Their viewers need
    a new session token then. A topic that is no longer on its list has no stream any longer. When public use is
    withdrawn, viewers by link and of public dashboards lose the streams that use the profile.
    """
    changed = services.profiles.update_broker(user, profile_id, body.profile(), _revision(if_match))
    response.headers["ETag"] = f'"{changed.revision}"'
    return m.BrokerAnswer.of(changed)


@router.delete("/broker-profiles/{profile_id}", tags=["profiles"], status_code=204)
def delete_broker(profile_id: PathId, user: CurrentUser, services: Services) -> Response:
    """Delete a broker profile. For admins.

    Datasources that name it have no stream any longer. Viewers by link and of public dashboards lose their streams on
    every dashboard that used it.
    """
    services.profiles.delete(user, BROKER, profile_id)
    return Response(status_code=204)


# --- dashboards --------------------------------------------------------------------------------------------


@router.get("/dashboards", tags=["dashboards"])
def dashboards(
    user: CurrentUser,
    services: Services,
    limit: Limit = 50,
    cursor: Cursor = None,
    query: Annotated[str, Query(max_length=200)] = "",
    visibility: Visibility | None = None,
    sort: Sort | None = None,
) -> m.DashboardList:
    """Dashboards of one's own, page by page, and those that others share with one.

    For an admin, `dashboards` holds everybody's. `shared` comes whole with every page, by
    title, without the owners.

    Without `query`, `visibility` and `sort` they come by id. With one of them, those whose title has `query` in it, in
    whatever case, come with the one first that was changed last, or by title. For each such page 2000 dashboards are
    looked at, at most: `more` says that there are others. A cursor belongs to a list with the same three.
    """
    more = False
    if query or visibility is not None or sort is not None:
        wanted = Wanted(query, visibility, sort or Sort.UPDATED)
        page, shared, more = services.dashboards.found(user, wanted, limit, cursor)
    else:
        page, shared = services.dashboards.owned(user, limit, cursor), list(services.dashboards.shared_with(user))
    owners = {summary.owner_id for summary in (*page.items, *shared) if rights.may_know_owner(summary, user)}
    emails = {user.user_id: user.email, **services.dashboards.emails(owners - {user.user_id})}
    return m.DashboardList(
        dashboards=[m.SummaryAnswer.of(summary, user, emails) for summary in page.items],
        shared=[m.SummaryAnswer.of(summary, user, emails) for summary in shared],
        cursor=page.cursor,
        more=more,
    )


@router.post("/dashboards", tags=["dashboards"], status_code=201)
def create_dashboard(
    body: m.DocumentRequest, user: CurrentUser, services: Services, response: Response
) -> m.DashboardAnswer:
    """Create a dashboard from a document. It is private, and belongs to whoever creates it. For editors and admins.

    A document has at most 350000 bytes, 200 datasources and 200 panes. A document that is not as it must be is answered
    with 400 `invalid_document`, which names what is allowed. Every datasource in it must resolve: otherwise the
    answer is 400 `datasource_unresolved`. Either way nothing is created. `POST /api/dashboards:validate` tells of a
    document before it is saved.

    Ids of panes are unique, and so are those of the widgets of a pane. Of a pane's `layout`, `x` is an integer from 0
    to 11, `y` to 10000, `w` from 1 to 12 and `h` from 1 to 100. All panes together have at most 1000 widgets.

    A datasource may ask for a short history of its values: `settings.history` with `seconds`, 1 to 7200, and `everyMs`,
    1000 or more, with at most 2000 points, `seconds * 1000 / everyMs`. It is read with `GET
    /api/dashboards/{dashboard_id}/history`.

    Names of `headers` and of `protocols` are tokens of RFC 9110. Values of `headers` have no line breaks or other
    control characters. A query credential is added to the `url` without its fragment.

    A document holds no secret. Headers such as `Authorization`, `Cookie` and `X-Api-Key`, user info in a URL, and
    parameters of a URL such as `token` and `key` are refused with 400 `invalid_document`. A name is refused when one of
    its words is of that kind, so `X-Keyboard` and `monkey` are not. Put the secret into a credential profile, and name
    that in `credentialProfileId`.
    """
    return _shown(services.dashboards.create(user, body.document), user, services, response)


@router.get(
    "/dashboards/{dashboard_id}", tags=["dashboards"], response_model=m.DashboardAnswer, responses=_NOT_MODIFIED
)
def dashboard(
    dashboard_id: PathId,
    user: MaybeUser,
    services: Services,
    response: Response,
    if_none_match: IfNoneMatch = None,
) -> m.DashboardAnswer | Response:
    """A dashboard that the caller may see, as much of it as is for the caller: see `DashboardAnswer`.

    Without a login, only a public one. Everything else is answered with 404, so that nobody learns which ids exist. A
    viewer by link uses `GET /api/share/{share_token}`.

    `ETag` names this answer, for this caller. With it in `If-None-Match` the answer is 304 without a body, as long as
    the caller would be shown the same. Whether the caller may see the dashboard is asked first, each time.
    """
    return _shown_anew(services.dashboards.get(user, dashboard_id), user, services, response, if_none_match)


@router.put("/dashboards/{dashboard_id}", tags=["dashboards"])
def update_dashboard(
    dashboard_id: PathId,
    body: m.DocumentRequest,
    user: CurrentUser,
    services: Services,
    response: Response,
    if_match: IfMatch = None,
) -> m.DashboardAnswer:
    """Replace a dashboard's document. For its editors, its managers and its owner.

    `If-Match` carries the revision that the document was loaded with. Without it the answer is 400 `revision_required`.
    With another revision than the current one it is 409 `conflict`. The limits are those of `POST /api/dashboards`.

    Viewers of a datasource that was changed or removed lose its stream, and may ask for a new session token. Who is
    neither editor nor admin may add only profiles that are for public use: anything else is answered with 403.
    """
    changed = services.dashboards.update(user, dashboard_id, body.document, _revision(if_match))
    return _shown(changed, user, services, response)


@router.delete("/dashboards/{dashboard_id}", tags=["dashboards"], status_code=204)
def delete_dashboard(dashboard_id: PathId, user: CurrentUser, services: Services) -> Response:
    """Delete a dashboard. For its owner. All of its viewers lose their streams."""
    services.dashboards.delete(user, dashboard_id)
    return Response(status_code=204)


@router.put("/dashboards/{dashboard_id}/visibility", tags=["sharing"])
def set_visibility(
    dashboard_id: PathId, body: m.VisibilityRequest, user: CurrentUser, services: Services, response: Response
) -> m.DashboardAnswer:
    """Set who may see a dashboard: members only, everybody with the link, or everybody. For its managers and its owner.

    A change ends the streams of viewers by link and of public viewers. Out of `private`, the dashboard gets a new share
    token. The visibility that it has already changes nothing.
    """
    return _shown(services.dashboards.set_visibility(user, dashboard_id, body.visibility), user, services, response)


@router.post("/dashboards/{dashboard_id}/share-token:rotate", tags=["sharing"])
def rotate(dashboard_id: PathId, user: CurrentUser, services: Services, response: Response) -> m.DashboardAnswer:
    """Replace a dashboard's share token. For its managers and its owner.

    The old link does not work any longer. Session tokens that were minted with it are revoked, and their streams end.
    """
    return _shown(services.dashboards.rotate_share_token(user, dashboard_id), user, services, response)


@router.put("/dashboards/{dashboard_id}/acl", tags=["sharing"])
def grant(
    dashboard_id: PathId, body: m.AclRequest, user: CurrentUser, services: Services, response: Response
) -> m.DashboardAnswer:
    """Give a user a right on a dashboard, or change it. For its managers and its owner.

    An e-mail that no active user has is answered with 404 `user_not_found`, what is no e-mail with 400. The owner needs
    no right: that is answered with 400.
    """
    return _shown(services.dashboards.grant(user, dashboard_id, body.email, body.level), user, services, response)


@router.delete("/dashboards/{dashboard_id}/acl/{member_id}", tags=["sharing"])
def revoke(
    dashboard_id: PathId, member_id: PathId, user: CurrentUser, services: Services, response: Response
) -> m.DashboardAnswer:
    """Take a user's right on a dashboard away. For its managers and its owner.

    The user's streams of this dashboard end, unless the user may see it in another way. For somebody who has no right,
    nothing changes.
    """
    return _shown(services.dashboards.revoke(user, dashboard_id, member_id), user, services, response)


@router.put("/dashboards/{dashboard_id}/owner", tags=["sharing"])
def set_owner(
    dashboard_id: PathId, body: m.OwnerRequest, user: CurrentUser, services: Services, response: Response
) -> m.DashboardAnswer:
    """Make another user the owner of a dashboard. For admins.

    What it shows by link and to everybody goes on, or comes back if the owner before was deactivated. That owner loses
    the dashboard, and the streams of it that were opened as its owner, and gets a right only if somebody gives one. The
    new owner must be an active user, else it is 404 `user_not_found`, and an editor or an admin, else it is 400
    `owner_not_editor`. For who is the owner already, nothing changes.
    """
    return _shown(services.dashboards.set_owner(user, dashboard_id, body.email), user, services, response)


@router.get("/share/{share_token}", tags=["sharing"], response_model=m.DashboardAnswer, responses=_NOT_MODIFIED)
def shared(
    share_token: PathId, services: Services, address: Address, response: Response, if_none_match: IfNoneMatch = None
) -> m.DashboardAnswer | Response:
    """The dashboard that a share token opens, as viewers by link see it. A login changes nothing.

    A token that was replaced, and one of a dashboard that is private now, are answered with 404.

    `ETag` and `If-None-Match` are as of `GET /api/dashboards/{dashboard_id}`.

    After 30 wrong tokens in a minute an address is answered with 429.
    """
    found = services.share_guesses(address, lambda: services.dashboards.by_share_token(share_token))
    return _shown_anew(found, None, services, response, if_none_match)


@router.post("/datasource-sessions", tags=["sessions"], status_code=201)
def mint(body: m.SessionRequest, user: MaybeUser, services: Services, address: Address) -> m.SessionAnswer:
    """Mint a session token for one datasource of one dashboard. It opens one stream: see the protocol.

    A user who may see the dashboard needs a login only. A viewer by link sends `shareToken`, with a login or without. A
    public dashboard needs neither. The token is valid for `DATASOURCE_SESSION_TTL_SECONDS`.

    With a login, a user gets at most `DATASOURCE_TOKEN_MINT_RATE_LIMIT_USER_PER_MIN` tokens in a minute. Without one,
    the first token makes a new viewer. An address gets `DATASOURCE_TOKEN_MINT_RATE_LIMIT_PUBLIC_IP_PER_MIN` of them in
    a minute, and a dashboard `DATASOURCE_TOKEN_MINT_RATE_LIMIT_SHARE_TOKEN_PER_MIN`. For every other token, of any
    datasource of the same dashboard, send one that is still valid as `currentToken`. Then it is the same viewer, who
    has a budget of its own. Above a limit the answer is 429, and 503 `limiter_unavailable` when the limiter does not
    answer.

    A datasource whose profile is not for public use is for members only: an admin, the owner, and who is in the ACL.
    Everybody else is answered with 403 `public_use_denied`, with a login or without.
    """
    services.observer.about(dashboard=body.dashboard_id)
    minted = services.mint(
        MintRequest(user, address, body.dashboard_id, body.datasource_id, body.share_token, body.current_token)
    )
    return m.SessionAnswer(token=minted.token, expires_at=messages.timestamp(minted.expires_at))


@router.post("/dashboards/{dashboard_id}/session", tags=["sessions"], status_code=201)
def mint_for_dashboard(
    dashboard_id: PathId,
    body: m.DashboardSessionRequest,
    user: MaybeUser,
    services: Services,
    address: Address,
) -> m.DashboardSessionAnswer:
    """Mint one session token for all datasources of a dashboard. With it, one `subscribe` opens all their streams.

    Who gets one, the limits and `currentToken` are as for `POST /api/datasource-sessions`. It counts as one token. The
    two kinds may name each other as `currentToken`.

    What a datasource asks for is checked when it is subscribed to, each time. So a viewer who may see the dashboard
    gets a token, and is refused those datasources whose profiles are not for public use.

    Ask for the next token at `refreshAfter`. It is spread over a quarter of the token's life, so that viewers who came
    together do not come back together. Compare it with `serverTime`, not with the clock of the device.
    """
    minted = services.mint(MintRequest(user, address, dashboard_id, None, body.share_token, body.current_token))
    return m.DashboardSessionAnswer(
        token=minted.token,
        expires_at=messages.timestamp(minted.expires_at),
        refresh_after=messages.timestamp(minted.refresh_after),
        server_time=messages.timestamp(minted.minted_at),
    )


@router.get("/realtime", tags=["sessions"])
def realtime(
    request: Request,
    services: Services,
    address: Address,
    dashboard_id: AskedId = None,
    datasource_id: Annotated[str | None, Query(alias="datasourceId", max_length=MAX_IDENTIFIER)] = None,
    authorization: Annotated[str | None, Header()] = None,
) -> m.RealtimeAnswer:
    """Whether realtime is on, what is limited, and whether a connect or a subscribe would be refused now.

    A browser sees of a refused handshake only that the connection is closed, with 1006. So ask here before coming back.
    `connect` is about a new connection from the address of this call. It knows of an `Origin` only when the call has
    one: a browser sends none with a GET to its own origin.

    `subscribe` is about a new subscription on a new connection. It needs `dashboardId`, and the session token in place
    of a login, as `Authorization: Bearer <session token>`. Without `datasourceId` it is about the token's datasource.
    With a token for a whole dashboard it is then about what refuses all of them, and one may still be refused for
    itself.

    It counts in no limit of connecting and subscribing, and takes no place. So a place that is free now may be taken by
    somebody else meanwhile. Where a remote API decides, both are null.

    An address may ask 120 times in a minute. Above that the answer is 429, and 503 `limiter_unavailable` when the
    limiter does not answer.
    """
    refusal = f"Too many questions about realtime from this address: at most {ASKS_PER_ADDRESS} in a minute"
    services.rates.consume(REALTIME_ASKED_SCOPE, address, ASKS_PER_ADDRESS, refusal=refusal)
    token = bearer(authorization) if dashboard_id is not None else None
    if dashboard_id is None and datasource_id is not None:
        raise InvalidInput("datasourceId needs a dashboardId")
    connect = subscribe = None
    if services.would_refuse is not None:
        connect = m.Verdict.of(services.would_refuse.connect(address, request.headers.get("origin")))
        if dashboard_id is not None and token is not None:
            subscribe = m.Verdict.of(services.would_refuse.subscribe(address, dashboard_id, datasource_id, token))
    return m.RealtimeAnswer.of(services.settings, services.clock.now(), connect, subscribe)


@router.get("/dashboards/{dashboard_id}/history", tags=["sessions"], response_model=m.HistoryAnswer)
def history(
    dashboard_id: PathId,
    services: Services,
    address: Address,
    token: SessionToken,
    datasource_id: Annotated[str, Query(alias="datasourceId", min_length=1, max_length=MAX_IDENTIFIER)],
    topic: Annotated[str | None, Query(min_length=1, max_length=4096)] = None,
    since: Annotated[str | None, Query(max_length=60)] = None,
    until: Annotated[str | None, Query(max_length=30)] = None,
) -> Response:
    """The short history of a datasource that asks for one, the newest first.

    `Authorization` carries a session token, of the dashboard or of the datasource, in place of a login. Whoever may not
    subscribe now is refused. A datasource without `settings.history` is answered with 404 `no_history`.

    `topic` is required where the topic filter has a wildcard, and wrong elsewhere. `since` is the `seq` of the newest
    value that the viewer has: then only newer points come. An answer has at most 2000 points and some 256 KB. For those
    before them, send its `next` as `until`.

    A point stands for the values of `everyMs` milliseconds. Of a stream of the relay, the last seconds may be missing.

    A viewer may read as often in a minute as begin subscriptions: four times
    `REALTIME_MAX_SUBSCRIPTIONS_PER_CONNECTION`. Public viewers of one address may read as often as all connections
    that it may have. Above that the answer is 429.
    """
    until_ms = None if until is None else moment_ms(until, "until")
    asked = HistoryRequest(token, dashboard_id, datasource_id, address, topic, since, until_ms)
    page = services.read_history(asked)
    following = None if page.next_ms is None else messages.timestamp(page.next_ms / 1000)
    rest = json.dumps({"everyMs": page.every_ms, "seconds": page.seconds, "next": following}, separators=(",", ":"))
    # Made as text: the last values have the digits that the source wrote.
    text = f'{{"points":[{",".join(point.encode() for point in page.points)}],{rest[1:]}'
    return Response(text.encode("utf-8", "replace"), media_type="application/json")


# --- operations --------------------------------------------------------------------------------------------


@router.get("/operations/audit", tags=["operations"])
def audit(
    user: CurrentUser,
    services: Services,
    limit: Annotated[int, Query(ge=1, le=200)] = 100,
    cursor: Cursor = None,
    action: Annotated[str | None, Query(min_length=1, max_length=MAX_ACTION)] = None,
    actor: Annotated[str | None, Query(min_length=1, max_length=MAX_IDENTIFIER)] = None,
    target: Annotated[str | None, Query(min_length=1, max_length=MAX_IDENTIFIER)] = None,
    begin: Annotated[str | None, Query(alias="from", max_length=30)] = None,
    end: Annotated[str | None, Query(alias="to", max_length=30)] = None,
) -> m.AuditList:
    """Audit events, the newest first, page by page. For admins.

    Events are kept 400 days. What somebody without rights can repeat, such as refused logins, is counted: one entry for
    each action, actor, target and five minutes.

    `action`, `actor` and `target` keep events with just this action, user id, or id of what it was done to. `from` and
    `to` keep what is at or after one moment and before the other, in the form that answers have. All of them may be
    combined. A page reads `limit` events that one of the three selects. With more than one of them it may show fewer,
    or none, while there is a `cursor`. A cursor is a place in the log, and stays good while new events come.
    """
    page = services.read_audit(
        user, limit=limit, cursor=cursor, action=action, actor_id=actor, target_id=target, begin=begin, end=end
    )
    return m.AuditList(events=[m.AuditAnswer.of(row) for row in page.items], cursor=page.cursor)


@router.get("/healthz", tags=["operations"])
def healthz(
    request: Request, services: Services, response: Response, deep: Annotated[bool, Query()] = False
) -> m.HealthAnswer:
    """Whether the process answers. It asks nothing else, needs no edge and no secret.

    With `deep=true` and the service token, as `Authorization: Bearer <service token>`, every table, secret and queue is
    asked, at the same time and for two seconds at most. The answer says of each whether it answered, and in how many
    milliseconds. It is 503 when one did not. Without the service token it is 401, as with the internal API.
    """
    if not deep:
        return m.HealthAnswer(status="ok")
    check_service_token(request)
    checks = services.deep_health()
    healthy = all(check.ok for check in checks)
    response.status_code = 200 if healthy else 503
    return m.HealthAnswer(
        status="ok" if healthy else "failing",
        checks=[m.CheckAnswer.model_validate(asdict(check)) for check in checks],
    )


def _revision(if_match: str | None) -> int:
    """The revision that `If-Match` carries. Raises `InvalidInput`."""
    if not (found := _REVISION.fullmatch(if_match or "")):
        raise InvalidInput('If-Match is required: the revision you loaded, such as "3"', code="revision_required")
    return int(found["revision"])


def _shown(dashboard: Dashboard, user: User | None, services: ApiServices, response: Response) -> m.DashboardAnswer:
    shown = shown_dashboard(dashboard, user)
    answer = m.DashboardAnswer.of(shown, services.dashboards.emails(shown.acl or ()))
    response.headers["ETag"] = entity_tag(answer)
    return answer


def _shown_anew(
    dashboard: Dashboard, user: User | None, services: ApiServices, response: Response, if_none_match: str | None
) -> m.DashboardAnswer | Response:
    """The dashboard, or 304 when the caller has this very answer already."""
    answer = _shown(dashboard, user, services, response)
    response.headers["Vary"] = "Authorization"
    if answer.share_token is None:
        # Who has it keeps it, and asks each time whether it still holds. With a share token in it nobody keeps it.
        response.headers["Cache-Control"] = "private, no-cache"
    if matches(if_none_match, response.headers["ETag"]):
        return Response(status_code=304, headers=dict(response.headers))
    return answer
