"""What the routes need: the services, the signed-in user, the client's address."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Header, Path, Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from functions.api.wiring import ApiServices
from tidegate.domain.client_ip import client_ip, ip_key
from tidegate.domain.identifiers import MAX_IDENTIFIER
from tidegate.domain.logins import check_password_is_own
from tidegate.domain.users import User
from tidegate.errors import InvalidInput, Unauthenticated
from tidegate.protocol import strict_json
from tidegate.usecases.control_plane.logins import UsedLogin

#: An identifier in a path. A longer one is answered with 404, because nothing has it.
PathId = Annotated[str, Path(max_length=MAX_IDENTIFIER)]


class StrictRequest(Request):
    """A request whose body is read as `strict_json` says."""

    async def json(self) -> Any:
        try:
            return strict_json.loads(await self.body())
        except InvalidInput as error:
            # The framework passes no other error on with its text.
            raise HTTPException(error.status, error.message) from error


class StrictRoute(APIRoute):
    """A route that reads a `StrictRequest`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            return await handle(StrictRequest(request.scope, request.receive))

        return strictly


def services_of(request: Request) -> ApiServices:
    services: ApiServices = request.app.state.services
    return services


Services = Annotated[ApiServices, Depends(services_of)]


def bearer(authorization: str | None) -> str:
    """The token of an `Authorization` header. Raises `Unauthenticated` when it holds none."""
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("Authorization must be: Bearer <token>")
    return token.strip()


def any_login(services: Services, authorization: Annotated[str | None, Header()] = None) -> UsedLogin | None:
    """The login of the call; None without one. An expired or wrong login raises `Unauthenticated`: such a caller is
    never treated as anonymous."""
    return None if authorization is None else services.logins.use(bearer(authorization))


def own_password(login: Annotated[UsedLogin | None, Depends(any_login)]) -> UsedLogin | None:
    """The login of the call. Raises `Denied` while its password is a one-time password.

    Every other dependency that gives a user comes through here, but for `OneTimeLogin`.
    """
    if login is not None:
        check_password_is_own(login.user)
    return login


def optional_user(login: Annotated[UsedLogin | None, Depends(own_password)]) -> User | None:
    """The signed-in user; None without a login."""
    return None if login is None else login.user


def required_user(user: Annotated[User | None, Depends(optional_user)]) -> User:
    if user is None:
        raise Unauthenticated("Log in first")
    return user


def required_login(login: Annotated[UsedLogin | None, Depends(own_password)]) -> UsedLogin:
    return _signed_in(login)


def one_time_login(login: Annotated[UsedLogin | None, Depends(any_login)]) -> UsedLogin:
    return _signed_in(login)


def _signed_in(login: UsedLogin | None) -> UsedLogin:
    if login is None:
        raise Unauthenticated("Log in first")
    return login


def session_token(authorization: Annotated[str | None, Header()] = None) -> str:
    """The session token of the call, not yet verified. Raises `Unauthenticated` without one."""
    if authorization is None:
        raise Unauthenticated("Authorization must carry a session token")
    return bearer(authorization)


MaybeUser = Annotated[User | None, Depends(optional_user)]
CurrentUser = Annotated[User, Depends(required_user)]
#: Where a viewer, and not a login, asks.
SessionToken = Annotated[str, Depends(session_token)]
CurrentLogin = Annotated[UsedLogin, Depends(required_login)]
#: A login that may be with a one-time password. Only for changing it, for signing out, and for reading oneself.
OneTimeLogin = Annotated[UsedLogin, Depends(one_time_login)]


def check_service_token(request: Request) -> None:
    """Raises `Unauthenticated` unless the call brings the service token."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if not (scheme == "Bearer" and services_of(request).service_token.accepts(token)):
        raise Unauthenticated("Unauthorized")


def address_of(request: Request, services: Services) -> str:
    """The part of the client's address that limits count. `/internal` is called around the edge, so it has one proxy
    fewer."""
    event = request.scope.get("aws.event") or {}
    source = event.get("requestContext", {}).get("http", {}).get("sourceIp")
    if source is None and request.client is not None:
        source = request.client.host
    hops = services.settings.api_trust_proxy_hops
    if request.url.path.startswith("/internal/"):
        hops = max(0, hops - 1)
    found = client_ip(source, request.headers.getlist("x-forwarded-for"), hops)
    if found.warning:
        services.observer.count("addresses_not_derived")
        services.observer.warning("client address not derived", reason=found.warning)
    request.state.address = ip_key(found.address)
    return str(request.state.address)


Address = Annotated[str, Depends(address_of)]
