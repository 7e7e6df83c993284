"""The FastAPI application: its routes, its errors, and what every request and every answer passes.

Invariant of this file: every answer, a fault's included, has the headers of `_HEADERS`. A route may only say another
`Cache-Control`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from functions.api import admin_routes, console_routes, internal, routes
from functions.api.wiring import ApiServices
from tidegate.domain.client_ip import ORIGIN_HEADER
from tidegate.domain.identifiers import MAX_IDENTIFIER
from tidegate.domain.limits import gateway_key
from tidegate.errors import Conflict, KeyNotYetKnown, LimiterUnavailable, LimitReached, TidegateError, Unavailable
from tidegate.usecases.limits.rate_limits import logged_address

#: Answers hold tokens and what one caller may see. So nobody keeps them unless the route says so, and no link in them
#: tells where it was found.
_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}

#: It says that the process answers, so it must not depend on a secret. Whoever asks around the edge evades nothing.
HEALTH = "/api/healthz"

#: What a page of an allowed origin may send. Logins travel in `Authorization`, never in cookies.
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST, PUT, PATCH, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, If-Match, If-None-Match",
    "Access-Control-Max-Age": "600",
}


def create_app(services: ApiServices) -> FastAPI:
    """The application over its services."""
    docs = services.settings.api_docs_enabled
    app = FastAPI(
        title="Tidegate API",
        version="1",
        docs_url="/api/docs" if docs else None,
        openapi_url="/api/openapi.json" if docs else None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would name the API's own host, which is not the edge's
        # As the routers have them. `include_router` makes them again at the first request, a tenth of a second long.
        routes=[route for module in (routes, console_routes, admin_routes, internal) for route in module.router.routes],
    )
    app.state.services = services
    app.add_exception_handler(TidegateError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.middleware("http")(_every_request)
    return app


async def _every_request(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Answer a request, with the headers of every answer.

    `/internal` is not behind the edge, and has its own token. No page of any origin may call it.
    """
    services: ApiServices = request.app.state.services
    internal = request.url.path.startswith("/internal/")
    allowed_origins = () if internal else services.settings.allowed_origins
    origin = request.headers.get("origin")
    allowed = origin in allowed_origins
    try:
        if not internal and request.url.path != HEALTH and not _through_the_edge(request, services):
            response: Response = _answer(403, "not_through_edge", "Use the public address")
        elif allowed and request.method == "OPTIONS" and "access-control-request-method" in request.headers:
            response = Response(status_code=204, headers=_PREFLIGHT)
        else:
            response = await call_next(request)
    except TidegateError as error:
        # Of the origin's secret: exception handlers look at what routes raise, and not at what is raised here.
        response = await _refused(request, error)
    except Exception as error:
        # Here, and not in an exception handler: FastAPI calls that one outside of every middleware.
        response = _fault(request, error)
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    if allowed_origins:
        response.headers.add_vary_header("Origin")
    if allowed:
        response.headers["Access-Control-Allow-Origin"] = str(origin)
        response.headers["Access-Control-Expose-Headers"] = "ETag"
    return response


def _through_the_edge(request: Request, services: ApiServices) -> bool:
    """Whether the request came by the edge. Those that go around it evade its limits and headers.

    Raises `Unavailable` when the origin's secret cannot be read.
    """
    return services.origin is None or services.origin.accepts(request.headers.get(ORIGIN_HEADER, ""))


def _route(request: Request) -> str:
    """The template of the request's route. Logs name it, and never the path, which may hold a share token."""
    return str(getattr(request.scope.get("route"), "path", ""))


def _answer(status: int, code: str, message: str, **further: object) -> JSONResponse:
    return JSONResponse({"error": {"code": code, "message": message, **further}}, status)


async def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, TidegateError)
    services: ApiServices = request.app.state.services
    services.observer.count("api_refusals", code=error.code)
    _name_dashboard(request, services)
    further: dict[str, object] = {}
    message = error.message
    if isinstance(error, Conflict) and error.current_revision is not None:
        further["currentRevision"] = error.current_revision
    if isinstance(error, LimitReached) and error.retry_after_ms is not None:
        further["retryAfterMs"] = error.retry_after_ms
    if isinstance(error, Unavailable) and not isinstance(error, LimiterUnavailable):
        if not isinstance(error, KeyNotYetKnown):  # anybody can send a token that names an invented key
            services.observer.fault("could not check", error, route=_route(request))
        message = "The service is temporarily unavailable. Try again."
    else:
        _log_refused(request, services, error)
    return _answer(error.status, error.code, message, **further)


def _log_refused(request: Request, services: ApiServices, error: TidegateError) -> None:
    """With the hash of the address where a limit refused: whoever asks too often can be told apart."""
    key = getattr(request.state, "address", None)
    if isinstance(error, LimitReached) and key is not None:
        services.observer.about(address=logged_address(services.keys, gateway_key(key)))
    services.observer.info("call refused", route=_route(request), code=error.code)


def _name_dashboard(request: Request, services: ApiServices) -> None:
    """Put the dashboard that the path names into the log. One that a body names, its route puts there."""
    named = request.scope.get("path_params", {}).get("dashboard_id")
    if named:
        services.observer.about(dashboard=str(named)[:MAX_IDENTIFIER])


async def _invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    if all(problem["loc"][0] == "path" for problem in error.errors()):
        return _answer(404, "not_found", "Not found")  # no identifier is so long
    problems = [
        f"{'.'.join(str(part) for part in problem['loc'][1:]) or problem['loc'][0]}: {problem['msg']}"
        for problem in error.errors()
    ]
    return _answer(400, "invalid_input", "; ".join(problems[:5]))


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == 405 and request.url.path.startswith(internal.router.prefix):
        return internal.method_not_allowed()
    names = {400: "invalid_input", 404: "not_found", 405: "method_not_allowed"}
    return _answer(error.status_code, names.get(error.status_code, "error"), str(error.detail))


def _fault(request: Request, error: Exception) -> JSONResponse:
    services: ApiServices = request.app.state.services
    services.observer.count("faults")
    _name_dashboard(request, services)
    services.observer.fault("request failed", error, route=_route(request))
    return _answer(500, "internal_error", "Something went wrong on our side")
