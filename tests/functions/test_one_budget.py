"""One address has one budget, whichever gateway it comes through: ours, or another that asks the internal API."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from functions.api.main import make_handler as api_handler
from functions.api.wiring import api_services
from tests.deployment import SECRETS
from tests.functions.events import event
from tests.functions.test_api import Api, claims
from tests.functions.test_gateway import Demo, Gateway, demo, gateway_over
from tests.servers.management import ManagementServer
from tidegate.adapters.dynamodb import limits
from tidegate.domain.client_ip import ip_key
from tidegate.domain.limits import window_of
from tidegate.providers.control_plane import ControlPlaneProviders

__all__ = ["demo"]

CONNECT, BY_IP, BY_SHARE = "realtime-connect-ip", "realtime-public-subscribe-ip", "realtime-public-subscribe-share"
#: Allowed in a minute. One address gets a twentieth of what is shared by version, which is 2.
LIMIT = {CONNECT: 4, BY_IP: 4, BY_SHARE: 40}
LIMITS = {
    "REALTIME_CONNECT_RATE_LIMIT_IP_PER_MIN": {CONNECT: "4"},
    "REALTIME_PUBLIC_SUBSCRIBE_RATE_LIMIT_IP_PER_MIN": {BY_IP: "4"},
    "REALTIME_PUBLIC_SUBSCRIBE_RATE_LIMIT_SHARE_TOKEN_PER_MIN": {BY_SHARE: "40"},
}


def hashed(text: str) -> str:
    """The key as Freeboard's gateway makes it."""
    return hashlib.sha256(text.strip().lower().encode()).hexdigest()[:32]


@pytest.fixture(autouse=True)
def one_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test ends in another minute than it began in."""
    window = window_of(int(time.time() * 1000))
    monkeypatch.setattr(limits, "window_of", lambda *_: window)


class Both:
    """Ours and another gateway, which count for one address."""

    def __init__(
        self, scope: str, address: str, demo: Demo, platform: ManagementServer, other_says: str, hops: str = "0"
    ) -> None:
        env = {**demo.api.env, "REALTIME_TRUST_PROXY_HOPS": hops, "API_TRUST_PROXY_HOPS": hops}
        env |= {name: by_scope[scope] for name, by_scope in LIMITS.items() if scope in by_scope}
        self._scope, self._address, self._demo = scope, address, demo
        self._gateway: Gateway = gateway_over(env, platform)
        self._api = Api(api_handler(api_services(env)), env)
        self._providers = ControlPlaneProviders(env)
        self._version = int(claims(demo.token())["shareTokenVersion"])
        self._key = hashed(f"{demo.dashboard_id}:{self._version}") if scope == BY_SHARE else other_says
        self._number = 0

    def other(self) -> bool:
        """Whether the other gateway is told that one more may pass."""
        body = {"scope": self._scope, "key": self._key, "limitPerMinute": LIMIT[self._scope]}
        status, answer = self._api.internal("rate-limit/consume", body)
        assert status == 200, answer
        return bool(answer["allowed"])

    def ours(self, forwarded: str | None = None) -> bool:
        """Whether one more passes through our gateway. `forwarded`: what one trusted proxy has written."""
        self._number += 1
        name = f"c{self._number}="
        opened = event("websocket_connect")
        opened["requestContext"] |= {"connectionId": name}
        opened["requestContext"]["identity"] |= {"sourceIp": self._address}
        opened["headers"] |= {"X-Forwarded-For": forwarded or ""}
        opened["multiValueHeaders"] = {}
        status = self._gateway.connect(opened, None)["statusCode"]
        if self._scope == CONNECT:
            assert status in (200, 429)
            return bool(status == 200)
        assert status == 200
        self._gateway.say(name, self._demo.subscribe() | {"sessionToken": self._token()})
        (ack,) = [frame for frame in self._gateway.frames(name) if frame["type"] == "ack"]
        assert ack["ok"] or ack["errorCode"] == "STREAM_RATE_LIMITED", ack
        return bool(ack["ok"])

    def _token(self) -> str:
        token = self._demo.token()
        if self._scope != BY_SHARE:
            return token
        # What is shared by version is spent by tokens that name no viewer.
        tokens = self._providers.session_tokens
        return tokens.sign(replace(tokens.verify(token, self._providers.clock.now()), viewer_id=None))


def spent(scope: str, by: Callable[[], bool], but: int) -> None:
    for number in range(LIMIT[scope] - but):
        assert by(), f"{number} of {LIMIT[scope]}"


FORMS = [
    ("198.51.100.7", hashed("198.51.100.7")),
    ("::ffff:198.51.100.7", hashed("198.51.100.7")),
    ("198.51.100.7", "198.51.100.7"),
    ("198.51.100.7", "198.51.100.7:4711"),
    ("198.51.100.7", "::FFFF:198.51.100.7"),
    ("198.51.100.7", "[::ffff:c633:6407]:443"),
    ("2001:db8:1:2::7", hashed("2001:db8:1:2::/64")),
    ("2001:db8:1:2::7", "2001:DB8:1:2:0:0:0:7"),
    ("2001:db8:1:2::7", "[2001:db8:1:2::7%eth0]:443"),
    ("2001:db8:1:2::7", "2001:db8:1:2::8"),
]


@pytest.mark.parametrize(("address", "other_says"), FORMS)
@pytest.mark.parametrize("scope", [CONNECT, BY_IP])
def test_an_address_has_one_budget(
    demo: Demo, management: ManagementServer, scope: str, address: str, other_says: str
) -> None:
    """Another gateway hashes the address, or says it as it stands."""
    both = Both(scope, address, demo, management, other_says)
    spent(scope, both.other, 1)
    assert [both.ours(), both.ours(), both.other()] == [True, False, False]


@pytest.mark.parametrize("scope", [CONNECT, BY_IP, BY_SHARE])
def test_the_other_gateway_sees_what_ours_counted(demo: Demo, management: ManagementServer, scope: str) -> None:
    both = Both(scope, "198.51.100.7", demo, management, hashed("198.51.100.7"))
    if scope == BY_SHARE:  # of it one address may spend two
        spent(scope, both.other, 1)
        assert [both.ours(), both.other(), both.ours()] == [True, False, False]
        return
    spent(scope, both.ours, 1)
    assert [both.other(), both.other(), both.ours()] == [True, False, False]


def test_what_proxies_write_is_one_address(demo: Demo, management: ManagementServer) -> None:
    both = Both(CONNECT, "10.0.0.1", demo, management, hashed("198.51.100.7"), hops="1")
    assert both.other()
    forms = ["198.51.100.7", "203.0.113.9, ::FFFF:198.51.100.7", '"[::ffff:c633:6407]:443"', "1.2.3.4, 198.51.100.7:80"]
    assert [both.ours(form) for form in forms] == [True, True, True, False]


def test_each_gateway_is_held_to_its_own_limit(demo: Demo) -> None:
    """A refusal is remembered by the limit that it was for."""

    def allowed(limit: int) -> bool:
        body = {"scope": CONNECT, "key": "198.51.100.7", "limitPerMinute": limit}
        return bool(demo.api.internal("rate-limit/consume", body)[1]["allowed"])

    assert [allowed(limit) for limit in (1, 1, 3, 3, 3)] == [True, False, True, True, False]


def test_metrics_tell_who_counts(demo: Demo, management: ManagementServer, capsys: pytest.CaptureFixture[str]) -> None:
    both = Both(CONNECT, "198.51.100.7", demo, management, hashed("198.51.100.7"))
    assert both.other()
    shown = {line.get("scope") for line in _lines(capsys.readouterr().out) if "limiter" in line}
    assert f"gateway-{CONNECT}" in shown and CONNECT not in shown


def _lines(text: str) -> list[Mapping[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


@pytest.mark.parametrize("form", ["::ffff:1.2.3.4", '"1.2.3.4:80"', "[::FFFF:1.2.3.4]:80", " 1.2.3.4 "])
def test_every_limit_counts_an_address_in_one_form(form: str) -> None:
    """Whatever names the address, `ip_key` makes the unit of every limit: logins, guesses, mints, connects."""
    assert ip_key(form) == "1.2.3.4"
    assert ip_key("[2001:DB8:1:2::7%eth0]:443") == ip_key("2001:db8:1:2::8") == "2001:db8:1:2::/64"


@pytest.mark.parametrize("name", ["login", "guess", "mint", "introspect", "feed"])
def test_the_api_counts_all_forms_of_an_address_together(demo: Demo, name: str) -> None:
    env = {
        **demo.api.env,
        "DATASOURCE_TOKEN_MINT_RATE_LIMIT_PUBLIC_IP_PER_MIN": "4",
        "GATEWAY_INTROSPECTION_RATE_LIMIT_PER_MIN": "4",
        "GATEWAY_REVOKED_TOKENS_RATE_LIMIT_PER_MIN": "4",
    }
    hops = "2" if name in ("introspect", "feed") else "1"  # the edge is not in between
    env |= {"API_TRUST_PROXY_HOPS": hops, "REALTIME_TRUST_PROXY_HOPS": hops}
    handler = api_handler(api_services(env))
    number = count(1)

    def status(address: str) -> int:
        nth = next(number)
        method, path, body = {
            "login": ("POST", "/api/auth/login", {"email": f"n{nth}@x.example", "password": "x"}),
            "guess": ("GET", f"/api/share/wrong-{nth}", None),
            "mint": ("POST", "/api/datasource-sessions", {"dashboardId": demo.dashboard_id, "datasourceId": "t"}),
            "introspect": ("POST", "/internal/gateway/datasource-introspect", {"sessionToken": "x"}),
            "feed": ("POST", "/internal/gateway/revoked-tokens", {}),
        }[name]
        token = SECRETS["GATEWAY_SERVICE_TOKEN_ARN"] if path.startswith("/internal") else None
        return Api(handler, env, token)(method, path, body, **{"x-forwarded-for": f"1.2.3.4, {address}"})[0]

    allowed = 30 if name in ("login", "guess") else 4
    forms = ["2001:db8:1:2::7", "[2001:DB8:1:2::8]:443", "2001:db8:1:2:0:0:0:9%eth0"]
    assert 429 not in [status(forms[number % 3]) for number in range(allowed)]
    assert status("2001:db8:1:2::ffff") == 429
    assert status("2001:db8:1:3::7") != 429
