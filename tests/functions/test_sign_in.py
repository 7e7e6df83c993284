"""Signing in as Lambda runs it: one-time passwords, sign-out, renewal, and what stops guessing."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from functions.api import deps, routes
from functions.api.main import make_handler
from functions.api.wiring import api_services
from local_stack.seed import mqtt
from ops.admin import first_admin
from tests.functions.test_api import PASSWORD, Api, broker, code, dashboard, person
from tidegate.adapters.password_argon2 import Argon2Passwords
from tidegate.adapters.system import SystemClock
from tidegate.domain.access import Claim, Principal, Refusal, allowed
from tidegate.domain.revocations import RevocationReason
from tidegate.providers.control_plane import ControlPlaneProviders

DAY_S = 86_400
NEW = "Even-longer-2"
#: What somebody with a one-time password may call.
WITH_ONE_TIME_PASSWORD = {
    ("GET", "/api/users/me"),
    ("POST", "/api/users/me/password"),
    ("POST", "/api/auth/logout"),
    ("POST", "/api/auth/logout-everywhere"),
}
#: What takes no login. Of these, reading a history takes a session token.
WITHOUT_LOGIN = {
    ("POST", "/api/auth/login"),
    ("GET", "/api/share/{share_token}"),
    ("GET", "/api/realtime"),
    ("GET", "/api/healthz"),
    ("GET", "/api/dashboards/{dashboard_id}/history"),
}


class Time:
    """The clock of everything, moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead_s = 0.0
        self._now = SystemClock.now
        monkeypatch.setattr(SystemClock, "now", lambda _clock: self.now())

    def now(self) -> float:
        return self._now(SystemClock()) + self.ahead_s


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    return Time(monkeypatch)


@pytest.fixture(params=["dynamodb"])
def anonymous(deployed: Mapping[str, str], request: pytest.FixtureRequest) -> Api:
    env = {**deployed, "API_TRUST_PROXY_HOPS": "1", "REALTIME_TRUST_PROXY_HOPS": "1"}
    env["SECURITY_LIMITER_BACKEND"] = request.param
    return Api(make_handler(api_services(env)), env)


@pytest.fixture
def admin(anonymous: Api) -> Api:
    first_admin(anonymous.env, "admin@x.example", PASSWORD)
    return anonymous.login("admin@x.example")


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The passwords that were verified."""
    seen: list[str] = []
    verify = Argon2Passwords.verify

    def noted(hasher: Argon2Passwords, password_hash: str, password: str) -> bool:
        seen.append(password)
        return verify(hasher, password_hash, password)

    monkeypatch.setattr(Argon2Passwords, "verify", noted)
    return seen


#: moto checks a condition and writes in two steps, so calls at once are counted in memory. `tests/e2e` counts attempts
#: at once in the emulator's tables.
in_memory = pytest.mark.parametrize("anonymous", ["memory"], indirect=True)


def from_address(api: Api, address: str) -> Api:
    return Api(api.handler, api.env, api.token, {"x-forwarded-for": address})


def at_once(count: int, call: Callable[[int], Any]) -> list[Any]:
    """`count` calls that begin together, each in a thread of its own."""
    ready = Barrier(count)

    def one(number: int) -> Any:
        loop = asyncio.new_event_loop()  # the handler runs in the loop of its thread
        asyncio.set_event_loop(loop)
        try:
            ready.wait()
            return call(number)
        finally:
            loop.close()

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(one, range(count)))


def newcomer(admin: Api) -> tuple[str, str]:
    """A new user's id and one-time password."""
    made = admin.ok("POST", "/api/users", {"email": "new@x.example", "role": "editor"})
    return made["user"]["id"], made["oneTimePassword"]


# --- one-time passwords ------------------------------------------------------------------------------------


def api_routes() -> Iterator[tuple[str, APIRoute]]:
    """Every method and route of the API."""
    for route in routes.router.routes:
        assert isinstance(route, APIRoute)
        yield from ((method, route) for method in route.methods or ())


def test_every_route_asks_for_a_password_of_ones_own(admin: Api) -> None:
    anonymous, (_, one_time) = Api(admin.handler, admin.env), newcomer(admin)
    one_held = anonymous.login("new@x.example", one_time)
    open_to_all = WITHOUT_LOGIN | WITH_ONE_TIME_PASSWORD
    seen = set()
    for method, route in api_routes():
        # A sign-out ends the login it is called with, or all of them.
        held = anonymous.login("new@x.example", one_time) if (method, route.path) in open_to_all else one_held
        answer = held(method, re.sub(r"{\w+}", "x", route.path), None if method in ("GET", "DELETE") else {})
        if answer[1] is None or answer[1].get("error", {}).get("code") != "password_change_required":
            seen.add((method, route.path))
        if held is not one_held:
            one_held = anonymous.login("new@x.example", one_time)
    assert seen == open_to_all


def test_no_route_takes_a_login_past_the_rule() -> None:
    def asks(dependant: Dependant) -> bool:
        return dependant.call is deps.own_password or any(asks(inner) for inner in dependant.dependencies)

    for method, route in api_routes():
        which = (method, route.path)
        assert asks(route.dependant) == (which not in WITH_ONE_TIME_PASSWORD | WITHOUT_LOGIN), which


def test_a_one_time_password_lets_one_change_it_and_then_everything(admin: Api) -> None:
    anonymous = Api(admin.handler, admin.env)
    _, one_time = newcomer(admin)
    held = anonymous.login("new@x.example", one_time)
    assert code(held("GET", "/api/dashboards")) == (403, "password_change_required")
    assert held.ok("GET", "/api/users/me")["mustChangePassword"] is True
    held.ok("POST", "/api/users/me/password", {"currentPassword": one_time, "newPassword": NEW})
    anonymous.login("new@x.example", NEW).ok("GET", "/api/dashboards")


def test_a_one_time_password_ends_after_a_day(admin: Api, time: Time) -> None:
    anonymous = Api(admin.handler, admin.env)
    user_id, one_time = newcomer(admin)
    body = {"email": "new@x.example", "password": one_time}
    time.ahead_s = DAY_S - 60
    assert anonymous("POST", "/api/auth/login", body)[0] == 200
    time.ahead_s = DAY_S + 60
    refused = anonymous("POST", "/api/auth/login", body)
    assert code(refused) == (401, "invalid_credentials") and "admin" in refused[1]["error"]["message"]
    assert refused == anonymous("POST", "/api/auth/login", body | {"password": "wrong"}), "nobody learns it was right"
    again = Api(admin.handler, admin.env).login("admin@x.example").ok("POST", f"/api/users/{user_id}/password:reset")
    assert anonymous("POST", "/api/auth/login", body | {"password": again["oneTimePassword"]})[0] == 200


def test_a_one_time_password_that_ended_is_no_current_password_either(admin: Api, time: Time) -> None:
    _, one_time = newcomer(admin)
    time.ahead_s = DAY_S - 60
    held = Api(admin.handler, admin.env).login("new@x.example", one_time)
    time.ahead_s = DAY_S + 60
    change = {"currentPassword": one_time, "newPassword": NEW}
    assert code(held("POST", "/api/users/me/password", change)) == (403, "one_time_password_expired")


@pytest.mark.parametrize(
    ("new", "named"),
    [
        (PASSWORD, "password_unchanged"),
        ("short", "weak_password"),
        ("x" * 257, "invalid_input"),
        ("qwertyuiop123", "weak_password"),
        ("QwertyUiop123", "weak_password"),
        ("viewer@x.example", "weak_password"),
        ("Viewer@X.example", "weak_password"),
    ],
)
def test_new_passwords_that_are_refused(admin: Api, new: str, named: str) -> None:
    viewer = person(admin, "viewer")
    change = {"currentPassword": PASSWORD, "newPassword": new}
    assert code(viewer("POST", "/api/users/me/password", change)) == (400, named)


def test_a_long_password_of_one_kind_of_character_is_fine(admin: Api) -> None:
    viewer = person(admin, "viewer")
    viewer.ok("POST", "/api/users/me/password", {"currentPassword": PASSWORD, "newPassword": "correct horse battery"})


# --- sign-out and renewal ----------------------------------------------------------------------------------


def test_a_sign_out_ends_one_login(admin: Api) -> None:
    viewer = person(admin, "viewer")
    other = Api(admin.handler, admin.env).login("viewer@x.example")
    renewed = Api(admin.handler, admin.env, viewer.ok("POST", "/api/auth/renew")["token"])
    viewer.ok("POST", "/api/auth/logout")
    for ended in (viewer, renewed):
        assert code(ended("GET", "/api/users/me")) == (401, "unauthenticated")
        assert ended("POST", "/api/auth/renew")[0] == ended("POST", "/api/auth/logout")[0] == 401
    other.ok("GET", "/api/users/me")


def test_logins_that_were_ended_are_forgotten_when_they_would_have_ended(admin: Api, time: Time) -> None:
    user_id = person(admin, "viewer").ok("GET", "/api/users/me")["id"]
    for _ in range(3):
        Api(admin.handler, admin.env).login("viewer@x.example").ok("POST", "/api/auth/logout")
    table = admin.env["TIDEGATE_TABLE_USERS"]
    db = ControlPlaneProviders(admin.env).db
    assert len((db.get(table, {"key": f"user#{user_id}"}) or {})["ended_logins"]) == 3
    time.ahead_s = 13 * 3600
    Api(admin.handler, admin.env).login("viewer@x.example").ok("POST", "/api/auth/logout")
    assert len((db.get(table, {"key": f"user#{user_id}"}) or {})["ended_logins"]) == 1


def test_sign_outs_all_hold(admin: Api) -> None:
    person(admin, "viewer")
    logins = [Api(admin.handler, admin.env).login("viewer@x.example") for _ in range(8)]
    assert [login("POST", "/api/auth/logout")[0] for login in logins] == [204] * 8
    assert [login("GET", "/api/users/me")[0] for login in logins] == [401] * 8


def test_a_sign_out_everywhere_ends_logins_and_streams(admin: Api) -> None:
    viewer = person(admin, "viewer")
    other = Api(admin.handler, admin.env).login("viewer@x.example")
    user_id = viewer.ok("GET", "/api/users/me")["id"]
    made = dashboard(admin, mqtt("t", broker(admin), "demo/x"))
    admin.ok("PUT", f"/api/dashboards/{made['id']}/acl", {"email": "viewer@x.example", "level": "viewer"})
    access = ControlPlaneProviders(admin.env).access

    def refusal() -> Refusal | None:
        read = access.read([made["id"]], [user_id])
        of = read.dashboards[made["id"]]
        claim = Claim(made["id"], "t", Principal(user_id, None, 1), of.intents["t"], 2**40)
        return allowed(claim, of, read.users[user_id], read.owner_of(made["id"]), 0)

    assert refusal() is None
    viewer.ok("POST", "/api/auth/logout-everywhere")
    assert refusal() is Refusal.REVOKED
    assert viewer("GET", "/api/users/me")[0] == other("GET", "/api/users/me")[0] == 401
    events = ControlPlaneProviders(admin.env).revocations.read(0, 100, 0).events
    assert [(event.revocation.reason, event.revocation.user_id) for event in events] == [
        (RevocationReason.SIGNED_OUT, user_id)
    ]


def test_a_login_is_renewed_while_it_is_used_but_not_for_ever(admin: Api, time: Time) -> None:
    login = admin
    hours = 0
    while True:
        status, answer = login("POST", "/api/auth/renew")
        if status != 200:
            break
        login = Api(admin.handler, admin.env, answer["token"])
        hours += 1
        time.ahead_s += 3600
    assert hours == 12 and status == 401, "AUTH_LOGIN_MAX_SECONDS is twelve hours"
    assert admin("GET", "/api/users/me")[0] == 401


def test_a_login_that_is_not_renewed_ends(admin: Api, time: Time) -> None:
    time.ahead_s = 2 * 3600 + 1
    assert code(admin("POST", "/api/auth/renew")) == (401, "token_expired")


def test_what_ended_is_not_renewed(admin: Api) -> None:
    viewer = person(admin, "viewer")
    admin.ok("PATCH", f"/api/users/{viewer.ok('GET', '/api/users/me')['id']}", {"active": False})
    assert code(viewer("POST", "/api/auth/renew")) == (401, "unauthenticated")


# --- guesses -----------------------------------------------------------------------------------------------


@in_memory
def test_of_fourteen_guesses_at_once_five_are_judged(admin: Api, anonymous: Api, judged: list[str]) -> None:
    judged.clear()
    wrong = {"email": "admin@x.example", "password": "no"}
    answers = at_once(14, lambda _: anonymous("POST", "/api/auth/login", wrong)[0])
    assert (len(judged), answers.count(401), answers.count(429)) == (5, 5, 9)


@in_memory
def test_right_logins_at_once_give_back_what_they_took(admin: Api, anonymous: Api) -> None:
    right = {"email": "admin@x.example", "password": PASSWORD}
    wrong = right | {"password": "no"}
    for _ in range(4):
        assert anonymous("POST", "/api/auth/login", wrong)[0] == 401
    for _ in range(6):
        assert anonymous("POST", "/api/auth/login", right)[0] == 200
    assert at_once(5, lambda _: anonymous("POST", "/api/auth/login", right)[0]).count(200) >= 1
    assert anonymous("POST", "/api/auth/login", wrong)[0] == 401, "the fifth wrong one is judged"
    assert anonymous("POST", "/api/auth/login", right)[0] == 429


def test_strangers_at_many_addresses_do_not_lock_the_owner_out(admin: Api, anonymous: Api, judged: list[str]) -> None:
    home = from_address(anonymous, "198.51.100.7")
    home.login("admin@x.example")
    judged.clear()
    wrong = {"email": "admin@x.example", "password": "no"}
    answers = [
        from_address(anonymous, f"203.0.113.{number}")("POST", "/api/auth/login", wrong)[0]
        for number in range(1, 23)
        for _ in range(5)
    ]
    assert (len(judged), answers.count(401), answers.count(429)) == (100, 100, 10)
    elsewhere = from_address(anonymous, "203.0.113.99")
    assert elsewhere("POST", "/api/auth/login", wrong | {"password": PASSWORD})[0] == 429
    home.login("admin@x.example")


def test_an_address_has_a_limit_over_all_accounts(anonymous: Api, judged: list[str], time: Time) -> None:
    time.ahead_s = 60 - time.now() % 60  # a minute that begins
    answers = [
        anonymous("POST", "/api/auth/login", {"email": f"nobody{number}@x.example", "password": "no"})[0]
        for number in range(32)
    ]
    assert (len(judged), answers.count(401), answers.count(429)) == (30, 30, 2)


@in_memory
def test_of_fourteen_wrong_current_passwords_at_once_five_are_judged(admin: Api, judged: list[str]) -> None:
    viewer = person(admin, "viewer")
    judged.clear()
    wrong = {"currentPassword": "no", "newPassword": NEW}
    answers = at_once(14, lambda _: viewer("POST", "/api/users/me/password", wrong)[0])
    assert (len(judged), answers.count(403), answers.count(429)) == (5, 5, 9)
    assert viewer("POST", "/api/users/me/password", wrong | {"currentPassword": PASSWORD})[0] == 429


@in_memory
def test_guesses_at_share_tokens_count(admin: Api, anonymous: Api) -> None:
    made = dashboard(admin, mqtt("t", broker(admin), "demo/x"))
    shared = admin.ok("PUT", f"/api/dashboards/{made['id']}/visibility", {"visibility": "link"})
    right = f"/api/share/{shared['shareToken']}"
    for _ in range(40):
        anonymous.ok("GET", right)
    answers = at_once(40, lambda number: anonymous("GET", f"/api/share/guess{number}")[0])
    assert (answers.count(404), answers.count(429)) == (30, 10)
    assert anonymous("GET", right)[0] == 429, "or a guess that is right would pass"
    assert from_address(anonymous, "198.51.100.7")("GET", right)[0] == 200


def test_a_wrong_share_token_at_the_mint_counts_once(admin: Api, time: Time) -> None:
    made = dashboard(admin, mqtt("t", broker(admin), "demo/x"))
    shared = admin.ok("PUT", f"/api/dashboards/{made['id']}/visibility", {"visibility": "link"})
    env = {**admin.env, "DATASOURCE_TOKEN_MINT_RATE_LIMIT_PUBLIC_IP_PER_MIN": "10"}
    anonymous = Api(make_handler(api_services(env)), env)
    body = {"dashboardId": made["id"], "datasourceId": "t"}
    time.ahead_s = 60 - time.now() % 60  # a minute that begins
    answers = [
        anonymous("POST", "/api/datasource-sessions", body | {"shareToken": f"guess{number}"})[0]
        for number in range(12)
    ]
    assert (answers.count(403), answers.count(429)) == (10, 2)
    right = body | {"shareToken": shared["shareToken"]}
    assert anonymous("POST", "/api/datasource-sessions", right)[0] == 429, "or a guess that is right would pass"
    anonymous.ok("GET", f"/api/share/{shared['shareToken']}")
