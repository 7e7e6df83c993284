"""The internal API under `/internal/gateway`. It has flat errors and a bearer token of its own, and the edge has no
route to it.

Authentication comes before any limiter. Otherwise anyone who can reach this API could use up the limits of the
gateways that poll it.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from functions.api.deps import address_of, check_service_token, services_of
from functions.api.wiring import ApiServices
from tidegate.errors import InvalidInput, LimiterUnavailable, LimitReached, TidegateError, Unauthenticated, Unavailable
from tidegate.protocol import strict_json


class FlatError(BaseModel):
    """Errors of the internal API."""

    error: str
    reason: str | None = None


class IntrospectRequest(BaseModel):
    sessionToken: str  # noqa: N815 - the spelling of the internal API
    dashboardId: str | None = None  # noqa: N815
    datasourceId: str | None = None  # noqa: N815


class IntrospectAnswer(BaseModel):
    dashboardId: str  # noqa: N815
    datasourceId: str  # noqa: N815
    credentialProfileId: str | None  # noqa: N815
    scope: str
    intent: dict[str, Any]


class RevokedTokensRequest(BaseModel):
    sinceCursor: str | None = None  # noqa: N815
    limit: int | None = None


class RevokedToken(BaseModel):
    eventId: str  # noqa: N815
    dashboardId: str  # noqa: N815
    shareTokenVersion: int  # noqa: N815
    revokedAt: str  # noqa: N815


class RevokedTokensAnswer(BaseModel):
    events: list[RevokedToken]
    nextCursor: str  # noqa: N815
    cursorExpired: bool  # noqa: N815


class ConsumeRequest(BaseModel):
    scope: str
    key: str
    limitPerMinute: int  # noqa: N815


class ConsumeAnswer(BaseModel):
    allowed: bool
    retryAfterMs: int  # noqa: N815
    remaining: int
    reason: str


_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": FlatError} for status in (400, 401, 403, 404, 405, 413, 429, 500, 503)
}
router = APIRouter(prefix="/internal/gateway", tags=["internal"], responses=_REFUSALS)


def _described(request: type[BaseModel], answer: type[BaseModel]) -> dict[str, Any]:
    """What OpenAPI says of a route. The framework does not read the body, because its errors would not be flat."""
    schema = {"content": {"application/json": {"schema": request.model_json_schema()}}}
    return {"response_model": None, "responses": {200: {"model": answer}}, "openapi_extra": {"requestBody": schema}}


#: Largest request body, bytes.
MAX_BODY = 256 * 1024


@router.post("/datasource-introspect", **_described(IntrospectRequest, IntrospectAnswer))
async def introspect(request: Request) -> JSONResponse:
    """`{sessionToken, dashboardId?, datasourceId?}` to the intent it may stream, secrets included."""

    def answer(services: ApiServices, body: dict[str, Any]) -> dict[str, Any]:
        limit = services.settings.introspection_rate_limit_per_min
        _limit(request, services, "gateway-introspection", limit, "Too many introspection requests")
        token = body.get("sessionToken")
        if not isinstance(token, str) or not token.strip():
            raise InvalidInput("sessionToken is required")
        try:
            return services.introspect(token.strip(), _text(body, "dashboardId"), _text(body, "datasourceId"))
        except Unauthenticated as error:
            raise Unauthenticated("Invalid or expired datasource session token") from error

    return await _handle(request, answer, "Datasource introspection failed")


@router.post("/revoked-tokens", **_described(RevokedTokensRequest, RevokedTokensAnswer))
async def revoked_tokens(request: Request) -> JSONResponse:
    """`{sinceCursor, limit}` to the events after the cursor."""

    def answer(services: ApiServices, body: dict[str, Any]) -> dict[str, Any]:
        limit = services.settings.revoked_tokens_rate_limit_per_min
        _limit(request, services, "gateway-revoked-tokens", limit, "Too many revoked token polling requests")
        page = services.revoked_tokens(_text(body, "sinceCursor"), body.get("limit"))
        return {"events": page.events, "nextCursor": page.next_cursor, "cursorExpired": page.cursor_expired}

    return await _handle(request, answer, "Revoked token feed request failed")


@router.post("/rate-limit/consume", **_described(ConsumeRequest, ConsumeAnswer))
async def consume(request: Request) -> JSONResponse:
    """`{scope, key, limitPerMinute}` counted as one call."""

    def answer(services: ApiServices, body: dict[str, Any]) -> dict[str, Any]:
        return services.consume_rate_limit(body.get("scope"), body.get("key"), body.get("limitPerMinute"))

    return await _handle(request, answer, "Gateway limiter consume request failed")


def method_not_allowed() -> JSONResponse:
    """The answer to another method than POST, flat as every error here."""
    return JSONResponse({"error": "Method not allowed"}, 405)


async def _handle(request: Request, answer: Any, failed: str) -> JSONResponse:
    services = services_of(request)
    try:
        check_service_token(request)
        return JSONResponse(answer(services, await _body(request)))
    except LimiterUnavailable:
        body = {"error": "Security limiter unavailable"}
        if request.url.path.endswith("/consume"):
            body["reason"] = "backend_fail_closed"
        return JSONResponse(body, 503)
    except _TooLarge:
        return JSONResponse({"error": "Request body is too large"}, 413)
    except LimitReached as error:
        return JSONResponse({"error": error.refusal}, error.status)
    except TidegateError as error:
        if error.status < 500 and not isinstance(error, Unavailable):
            return JSONResponse({"error": error.message}, error.status)
        services.observer.fault("internal request failed", error)
        return JSONResponse({"error": failed}, error.status)
    except Exception as error:  # its text goes to the log only
        services.observer.fault("internal request failed", error)
        return JSONResponse({"error": failed}, 500)


class _TooLarge(Exception):
    pass


async def _body(request: Request) -> dict[str, Any]:
    raw = await request.body()
    if len(raw) > MAX_BODY:
        raise _TooLarge
    if not raw.strip():
        return {}
    try:
        body = strict_json.loads(raw)
    except InvalidInput as error:
        raise InvalidInput("Invalid JSON payload") from error
    if not isinstance(body, dict):
        raise InvalidInput("Invalid JSON payload")
    return body


def _limit(request: Request, services: ApiServices, scope: str, per_minute: int, refusal: str) -> None:
    services.rates.consume(scope, address_of(request, services), per_minute, refusal=refusal)


def _text(body: dict[str, Any], name: str) -> str | None:
    value = body.get(name)
    return value if isinstance(value, str) and value else None
