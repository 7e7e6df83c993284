"""`GET /api/healthz`: shallow without any store, and deep over all of them on moto."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from typing import Any

import pytest

from functions.api.main import make_handler
from functions.api.wiring import api_services
from ops.admin import first_admin
from tests.deployment import SECRETS
from tests.doubles.platform import ManualClock, MemoryObserver
from tests.functions.test_api import PASSWORD, Api, code
from tidegate import tables
from tidegate.adapters.aws.json_client import AwsError, JsonClient
from tidegate.domain import secret_names
from tidegate.usecases.control_plane.health import CHECK_S, Check, Checked, DeepHealth

TOKEN = SECRETS["GATEWAY_SERVICE_TOKEN_ARN"]
NAMES = [
    *(("table", table.name) for table in tables.ALL_TABLES),
    *(("secret", name) for name in ("jwt", "jwt-gateway", "service-token", "limiter-salt")),
    *(("queue", name) for name in ("catch-ups", "crowds", "revalidation", "profiles")),
]


def over(env: Mapping[str, str], token: str | None = None) -> Api:
    return Api(make_handler(api_services(env)), env, token)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Makes every call fail that names a resource, by a part of its name."""
    call, parts = JsonClient.call, list[str]()

    def failing(client: JsonClient, operation: str, payload: Mapping[str, Any], **options: Any) -> dict[str, Any]:
        if any(part in str(payload) for part in parts):
            raise AwsError("any", operation, "AccessDeniedException", f"no {payload}", False, {}, status=400)
        return call(client, operation, payload, **options)

    monkeypatch.setattr(JsonClient, "call", failing)
    return parts


def test_shallow_asks_nothing(deployed: Mapping[str, str], broken: list[str]) -> None:
    broken.append("")
    # With an edge, every other route would ask for its secret.
    env = {**deployed, "ORIGIN_SECRET_ARN": deployed["LIMITER_HASH_SALT_ARN"]}
    assert over(env)("GET", "/api/healthz") == (200, {"status": "ok", "checks": None})
    assert code(over(env)("GET", "/api/users/me")) == (503, "secret_unavailable")


def test_deep_is_for_the_service_token(deployed: Mapping[str, str]) -> None:
    first_admin(deployed, "admin@x.example", PASSWORD)
    login = over(deployed).login("admin@x.example").token
    for token in (None, "wrong", login):
        assert code(over(deployed, token)("GET", "/api/healthz?deep=true")) == (401, "unauthenticated")
    assert over(deployed, "wrong")("GET", "/api/healthz")[0] == 200
    assert code(over(deployed, TOKEN)("GET", "/api/healthz?deep=perhaps")) == (400, "invalid_input")


def test_deep_says_how_long_each_took(deployed: Mapping[str, str]) -> None:
    answer = over(deployed, TOKEN).ok("GET", "/api/healthz?deep=true")
    assert answer["status"] == "ok"
    assert [(check["kind"], check["name"]) for check in answer["checks"]] == NAMES
    assert all(check["ok"] is True and check["ms"] >= 0 for check in answer["checks"])
    with_edge = {**deployed, "ORIGIN_SECRET_ARN": deployed["LIMITER_HASH_SALT_ARN"]}
    names = [check["name"] for check in over(with_edge, TOKEN).ok("GET", "/api/healthz?deep=true")["checks"]]
    assert "origin" in names


VARIABLES = {
    **{table.name: table.variable for table in tables.ALL_TABLES},
    **{name: variable for variable, name in secret_names.SECRETS.items()},
    "catch-ups": "CATCH_UP_QUEUE_URL",
    "crowds": "CROWD_QUEUE_URL",
    "revalidation": "REVALIDATION_QUEUE_URL",
    "profiles queue": "PROFILES_QUEUE_URL",
}


def test_one_that_does_not_answer_is_named_and_no_more(
    deployed: Mapping[str, str], broken: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    api = over(deployed, TOKEN)
    assert api("GET", "/api/healthz?deep=true")[0] == 200  # and the service token is known
    for kind, name in NAMES:
        resource = deployed[VARIABLES["profiles queue" if (kind, name) == ("queue", "profiles") else name]]
        broken[:] = [f"'{resource}'"]
        status, answer = api("GET", "/api/healthz?deep=true")
        assert (status, answer["status"]) == (503, "failing")
        failing = [check for check in answer["checks"] if not check["ok"]]
        assert [(check["kind"], check["name"]) for check in failing] == [(kind, name)]
        assert set(failing[0]) == {"kind", "name", "ok", "ms"} and resource not in str(answer), "no internals"
        logged = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        faults = [line for line in logged if line.get("message") == "health check failed"]
        assert [(line["kind"], line["name"]) for line in faults] == [(kind, name)]
    broken.clear()
    assert api("GET", "/api/healthz?deep=true")[0] == 200


def test_a_service_token_that_cannot_be_read_is_no_refusal(deployed: Mapping[str, str], broken: list[str]) -> None:
    broken.append("")
    assert code(over(deployed, "wrong")("GET", "/api/healthz?deep=true")) == (503, "secret_unavailable")


def test_checks_run_at_the_same_time_and_each_has_its_end() -> None:
    clock, observer, all_there = ManualClock(), MemoryObserver(), threading.Barrier(40, timeout=30)
    deadlines: list[float] = []

    def ask(deadline: float) -> None:
        all_there.wait()  # it is passed only when all are asked at the same time
        deadlines.append(deadline - clock.monotonic())

    checks = [Check("table", str(number), ask) for number in range(40)]
    found = DeepHealth(checks=checks, clock=clock, observer=observer)()
    assert found == [Checked("table", str(number), True, 0.0) for number in range(40)]
    assert deadlines == [CHECK_S] * 40


def test_a_check_that_hangs_is_ended(deployed: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call of the checks has a deadline that is its own, and not the client's longer one."""
    call, given = JsonClient.call, list[tuple[str, float | None]]()

    def noted(client: JsonClient, operation: str, payload: Mapping[str, Any], **options: Any) -> dict[str, Any]:
        given.append((operation, options.get("deadline")))
        return call(client, operation, payload, **options)

    api = over(deployed, TOKEN)
    assert api("GET", "/api/healthz?deep=true")[0] == 200
    monkeypatch.setattr(JsonClient, "call", noted)
    assert api("GET", "/api/healthz?deep=true")[0] == 200
    latest = time.monotonic() + CHECK_S  # of a check that began just now
    assert len(given) == len(NAMES)
    assert not [operation for operation, deadline in given if deadline is None or deadline > latest]
