"""What every answer of the API has, errors included: headers, CORS, and no address or secret of ours."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from functions.api.main import make_handler
from functions.api.wiring import ApiServices, api_services
from tests.functions.events import request
from tidegate.adapters.json_observer import JsonObserver
from tidegate.providers.process import with_ids

PAGE, OTHER = "https://dash.example.com", "https://evil.example.com"
SHARE_TOKEN = "a-share-token-that-nobody-may-read"
DOWN = {"AWS_ENDPOINT_URL_DYNAMODB": "http://127.0.0.1:9"}


def over(services: ApiServices, method: str, path: str, **headers: str) -> dict[str, Any]:
    answer: dict[str, Any] = make_handler(services)(request(method, path, **headers), None)
    return answer


def answer(env: Mapping[str, str], method: str, path: str, **headers: str) -> dict[str, Any]:
    return over(api_services(env), method, path, **headers)


def broken(env: Mapping[str, str]) -> ApiServices:
    """Services with a fault of ours: whatever asks for dashboards fails in a way that nobody expects."""
    return api_services(env)._replace(dashboards=cast(Any, None))


def test_every_answer_says_how_it_may_be_kept(deployed: Mapping[str, str]) -> None:
    edge = {**deployed, "ORIGIN_SECRET_ARN": deployed["GATEWAY_SERVICE_TOKEN_ARN"]}
    answers = {
        200: answer({**deployed, "API_DOCS_ENABLED": "true"}, "GET", "/api/openapi.json"),
        204: answer({**deployed, "API_ALLOWED_ORIGINS": PAGE}, "OPTIONS", "/api/users/me", **preflight(PAGE)),
        400: answer(deployed, "POST", "/api/auth/login"),
        401: answer(deployed, "GET", "/api/users/me"),
        403: answer(edge, "GET", "/api/users/me"),
        404: answer(deployed, "GET", "/api/nothing"),
        405: answer(deployed, "DELETE", "/api/auth/login"),
        500: over(broken(deployed), "GET", f"/api/share/{SHARE_TOKEN}"),
        503: answer({**deployed, **DOWN}, "GET", f"/api/share/{SHARE_TOKEN}"),
    }
    internal = answer(deployed, "POST", "/internal/gateway/revoked-tokens")
    assert {status: given["statusCode"] for status, given in answers.items()} == {status: status for status in answers}
    for given in (*answers.values(), internal):
        headers = given["headers"]
        assert headers.get("cache-control") == "no-store", given
        assert headers.get("x-content-type-options") == "nosniff", given
        assert headers.get("referrer-policy") == "no-referrer", given


@pytest.mark.parametrize("path", ["/api/dashboards/", "/api/users/me/", f"/api/share/{SHARE_TOKEN}/"])
def test_no_answer_leads_to_the_apis_own_host(deployed: Mapping[str, str], path: str) -> None:
    given = answer(deployed, "GET", path)
    assert given["statusCode"] == 404 and "location" not in given["headers"]


@pytest.mark.parametrize("status", [404, 500, 503])
def test_errors_and_logs_name_the_route(
    deployed: Mapping[str, str], caplog: pytest.LogCaptureFixture, status: int
) -> None:
    """A path may hold a share token."""
    # Guesses at share tokens are counted first: the limiter is down too, and lets them through.
    down = {**DOWN, "SECURITY_LIMITER_FAILURE_MODE": "fail-open"}
    env = {**deployed, **down} if status == 503 else deployed
    services = broken(env) if status == 500 else api_services(env)
    lines: list[str] = []
    services = services._replace(observer=JsonObserver("api", "qa", write=lines.append))
    with caplog.at_level(logging.INFO):
        given = over(services, "GET", f"/api/share/{SHARE_TOKEN}")
    assert given["statusCode"] == status
    logged = "".join(lines)
    assert status == 404 or '"route":"/api/share/{share_token}"' in logged
    assert SHARE_TOKEN not in given["body"] + logged + caplog.text


def test_logs_of_refused_calls_tell_requests_dashboards_and_addresses_apart(deployed: Mapping[str, str]) -> None:
    lines: list[str] = []
    hops = {"API_TRUST_PROXY_HOPS": "1", "REALTIME_TRUST_PROXY_HOPS": "1"}
    env = {**deployed, **hops, "DATASOURCE_TOKEN_MINT_RATE_LIMIT_PUBLIC_IP_PER_MIN": "1"}
    services = api_services(env)._replace(observer=JsonObserver("api", "qa", write=lines.append))
    handler = with_ids(make_handler, services)

    def logged(path: str, body: object, address: str) -> dict[str, str]:
        lines.clear()
        asked = request("POST", path, body, **{"x-forwarded-for": address})
        asked["requestContext"]["requestId"] = "request-1"
        handler(asked, SimpleNamespace(aws_request_id="invocation-1"))
        (found,) = [line for line in map(json.loads, lines) if line.get("message") == "call refused"]
        assert (found["request_id"], found["api_request_id"]) == ("invocation-1", "request-1")
        assert address not in "".join(lines)
        return dict(found)

    path, body = "/api/datasource-sessions", {"dashboardId": "dashboard-1", "datasourceId": "d", "shareToken": "x" * 32}
    first, limited, other = (logged(path, body, f"203.0.113.{last}") for last in (77, 77, 78))
    assert (first["code"], first["dashboard"], first.get("address")) == ("not_found", "dashboard-1", None)
    assert limited["code"] == "limit_reached" and len(limited["address"]) == 32
    assert logged(path, body, "203.0.113.78")["address"] != limited["address"] and other["code"] == "not_found"
    named = logged("/api/dashboards/dashboard-2/session", {}, "203.0.113.79")
    assert (named["route"], named["dashboard"]) == ("/api/dashboards/{dashboard_id}/session", "dashboard-2")


@pytest.mark.parametrize("path", ["/api/users/me", "/api/dashboards/x", f"/api/share/{SHARE_TOKEN}", "/api/none"])
def test_an_origin_secret_that_cannot_be_read_is_no_fault_and_no_refusal(
    deployed: Mapping[str, str], path: str
) -> None:
    """It is read before any route is found, where no exception handler looks."""
    edge = {"ORIGIN_SECRET_ARN": "gone", "API_ALLOWED_ORIGINS": PAGE}
    lines: list[str] = []
    services = api_services({**deployed, **edge})._replace(observer=JsonObserver("api", "qa", write=lines.append))
    asked = over(services, "OPTIONS", path, **preflight(PAGE))
    called = over(services, "GET", path, origin=PAGE)
    for given in (asked, called):
        told = json.loads(given["body"])
        text = "The service is temporarily unavailable. Try again."
        assert (given["statusCode"], told) == (503, {"error": {"code": "secret_unavailable", "message": text}})
        assert cors(given)["access-control-allow-origin"] == PAGE, "a page can read that it may try again"
        assert given["headers"]["cache-control"] == "no-store"
    assert SHARE_TOKEN not in "".join(lines) and '"message":"could not check"' in "".join(lines)


def preflight(origin: str, method: str = "PUT") -> dict[str, str]:
    asked = "authorization,content-type,if-match"
    return {"origin": origin, "access-control-request-method": method, "access-control-request-headers": asked}


def cors(given: Mapping[str, Any]) -> dict[str, str]:
    return {name: value for name, value in given["headers"].items() if name.startswith("access-control-")}


def test_listed_origins_may_call(deployed: Mapping[str, str]) -> None:
    services = api_services({**deployed, "API_ALLOWED_ORIGINS": f"{PAGE},https://two.example:8443"})
    asked = over(services, "OPTIONS", "/api/dashboards/x", **preflight(PAGE))
    assert (asked["statusCode"], cors(asked)["access-control-allow-origin"]) == (204, PAGE)
    methods = {name.strip() for name in cors(asked)["access-control-allow-methods"].split(",")}
    assert methods == {"GET", "POST", "PUT", "PATCH", "DELETE"}
    named = {name.strip().lower() for name in cors(asked)["access-control-allow-headers"].split(",")}
    assert named == {"authorization", "content-type", "if-match", "if-none-match"}
    for failing in (services, services._replace(dashboards=cast(Any, None))):
        called = over(failing, "GET", "/api/dashboards/x", origin=PAGE)
        assert called["statusCode"] in (404, 500)
        assert cors(called) == {"access-control-allow-origin": PAGE, "access-control-expose-headers": "ETag"}
        assert called["headers"]["vary"] == "Origin"
    assert "access-control-allow-credentials" not in {**cors(asked), **cors(called)}


@pytest.mark.parametrize(
    "origin", [OTHER, "null", "https://dash.example.com.evil.example", "http://dash.example.com", ""]
)
def test_other_origins_may_not(deployed: Mapping[str, str], origin: str) -> None:
    """Also those that a pattern might take for a listed one."""
    services = api_services({**deployed, "API_ALLOWED_ORIGINS": PAGE})
    asked = over(services, "OPTIONS", "/api/dashboards/x", **preflight(origin))
    called = over(services, "GET", "/api/dashboards/x", origin=origin)
    assert (asked["statusCode"], cors(asked), cors(called)) == (405, {}, {})
    assert called["headers"]["vary"] == "Origin", "what one origin was told is not for another"


def test_no_origin_may_call_unless_listed_and_the_internal_api_is_for_none(deployed: Mapping[str, str]) -> None:
    for env, path in (
        (deployed, "/api/dashboards/x"),
        ({**deployed, "API_ALLOWED_ORIGINS": PAGE}, "/internal/gateway/revoked-tokens"),
    ):
        asked = answer(env, "OPTIONS", path, **preflight(PAGE))
        assert (asked["statusCode"], cors(asked), cors(answer(env, "GET", path, origin=PAGE))) == (405, {}, {})
