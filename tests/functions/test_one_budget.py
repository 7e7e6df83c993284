"""One address has one budget, whichever gateway it comes through: ours, or another that asks the internal API."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from functions.api.main import make_handler as api_handler
from functions.api.wiring import api_services
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

    def __init__(self, scope: str, address: str, demo: Demo, platform: ManagementServer, other_says: str) -> None:
        env = {**demo.api.env, "REALTIME_TRUST_PROXY_HOPS": "0"}
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

    def ours(self) -> bool:
        """Whether one more passes through our gateway."""
        self._number += 1
        name = f"c{self._number}="
        opened = event("websocket_connect")
        opened["requestContext"] |= {"connectionId": name}
        opened["requestContext"]["identity"] |= {"sourceIp": self._address}
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
