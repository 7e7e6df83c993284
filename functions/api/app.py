"""The FastAPI application: its routes, its errors, and the check that every request passes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from functions.api import internal, routes
from functions.api.wiring import ApiServices
from tidegate.domain.client_ip import ORIGIN_HEADER
from tidegate.errors import Conflict, LimiterUnavailable, LimitReached, TidegateError, Unavailable


def create_app(services: ApiServices) -> FastAPI:
    """The application over its services."""
    docs = services.settings.api_docs_enabled
    app = FastAPI(
        title="Tidegate API",
        version="1",
        docs_url="/api/docs" if docs else None,
        openapi_url="/api/openapi.json" if docs else None,
        redoc_url=None,
    )
    app.state.services = services
    app.include_router(routes.router)
    app.include_router(internal.router)
    app.add_exception_handler(TidegateError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _fault)
    app.middleware("http")(_through_the_edge)
    return app


async def _through_the_edge(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Refuse requests that go around the edge, because they evade its limits and headers.

    `/internal` is not behind the edge. It has its own token.
    """
    origin = request.app.state.services.origin
    public = not request.url.path.startswith("/internal/")
    if origin is not None and public and not origin.accepts(request.headers.get(ORIGIN_HEADER, "")):
        return _answer(403, "not_through_edge", "Use the public address")
    return await call_next(request)


def _answer(status: int, code: str, message: str, **further: object) -> JSONResponse:
    return JSONResponse({"error": {"code": code, "message": message, **further}}, status)


async def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, TidegateError)
    services: ApiServices = request.app.state.services
    services.observer.count("api_refusals", code=error.code)
    further: dict[str, object] = {}
    message = error.message
    if isinstance(error, Conflict) and error.current_revision is not None:
        further["currentRevision"] = error.current_revision
    if isinstance(error, LimitReached) and error.retry_after_ms is not None:
        further["retryAfterMs"] = error.retry_after_ms
    if isinstance(error, Unavailable) and not isinstance(error, LimiterUnavailable):
        services.observer.fault("could not check", error)
        message = "The service is temporarily unavailable. Try again."
    return _answer(error.status, error.code, message, **further)


async def _invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    if all(problem["loc"][0] == "path" for problem in error.errors()):
        return _answer(404, "not_found", "Not found")  # no identifier is so long
    problems = [
        f"{'.'.join(str(part) for part in problem['loc'][1:]) or problem['loc'][0]}: {problem['msg']}"
        for problem in error.errors()
    ]
    return _answer(400, "invalid_input", "; ".join(problems[:5]))


async def _http(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    names = {400: "invalid_input", 404: "not_found", 405: "method_not_allowed"}
    return _answer(error.status_code, names.get(error.status_code, "error"), str(error.detail))


async def _fault(request: Request, error: Exception) -> JSONResponse:
    services: ApiServices = request.app.state.services
    services.observer.count("faults")
    services.observer.fault("request failed", error, path=request.scope.get("route_path", ""))
    return _answer(500, "internal_error", "Something went wrong on our side")
