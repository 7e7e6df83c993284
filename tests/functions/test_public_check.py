"""What a public check says is what guests are answered: both are asked, over real tables on moto."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pytest

from functions.api.main import make_handler
from functions.api.wiring import api_services
from local_stack.seed import document, mqtt
from ops.admin import first_admin
from tests.functions.test_api import PASSWORD, Api, person
from tests.functions.test_gateway import gateway_over
from tests.servers.management import ManagementServer


class Board:
    """A dashboard with datasources of every fate. What keeps guests out is done to it after it was saved."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = env
        first_admin(env, "admin@x.example", PASSWORD)
        self.admin = Api(make_handler(api_services(env)), env).login("admin@x.example")
        self.owner, self.helper = person(self.admin, "editor"), person(self.admin, "viewer")
        open_, gone = self._broker("open", public=True), self._broker("gone", public=True)
        closed, narrow = self._broker("closed", public=False), self._broker("narrow", public=True)
        moved = self._credential("moved", public=True)
        datasources = [
            mqtt("fine", open_, "demo/x"),
            mqtt("members", closed, "demo/x"),
            mqtt("unfed", open_, "elsewhere/x"),
            mqtt("narrowed", narrow, "demo/x"),
            mqtt("deleted", gone, "demo/x"),
            mqtt("off", closed, "demo/x") | {"enabled": False},
            self._sse("plain", None),
            self._sse("secret", self._credential("closed", public=False)),
            self._sse("moved", moved),
            {"id": "inside", "type": "sse", "settings": {"url": "https://10.0.0.1/"}},
            {"id": "socket", "type": "websocket", "settings": {"url": "wss://api.example.com/"}},
            {"id": "clock", "type": "clock", "settings": {}},
        ]
        made = self.owner.ok("POST", "/api/dashboards", document("T", datasources))
        self.id, self.path = made["id"], f"/api/dashboards/{made['id']}"
        self.owner.ok("PUT", f"{self.path}/acl", {"email": "viewer@x.example", "level": "editor"})
        self.admin.ok("DELETE", f"/api/broker-profiles/{gone}")
        narrowed = {"name": "narrow", "transport": "iot-core", "allowPublicUse": True, "topicAllowlist": ["demo/y"]}
        self.admin.ok("PUT", f"/api/broker-profiles/{narrow}", narrowed, if_match='"1"')
        elsewhere = {"name": "moved", "type": "bearer", "destinations": ["https://other.example"]}
        path = f"/api/credential-profiles/{moved}"
        self.admin.ok("PUT", path, elsewhere | {"allowPublicUse": True}, if_match='"1"')

    def _broker(self, name: str, *, public: bool) -> str:
        body = {"name": name, "transport": "iot-core", "allowPublicUse": public}
        return str(self.admin.ok("POST", "/api/broker-profiles", body)["id"])

    def _credential(self, name: str, *, public: bool) -> str:
        body = {
            "name": name,
            "type": "bearer",
            "secret": {"token": "t"},
            "destinations": ["https://api.example.com"],
            "allowPublicUse": public,
        }
        return str(self.admin.ok("POST", "/api/credential-profiles", body)["id"])

    def _sse(self, datasource_id: str, credential: str | None) -> dict[str, Any]:
        settings = {"url": "https://api.example.com/"} | ({"credentialProfileId": credential} if credential else {})
        return {"id": datasource_id, "title": f"T {datasource_id}", "type": "sse", "settings": settings}

    def blockers(self, env: Mapping[str, str]) -> dict[str, dict[str, str]]:
        owner = Api(make_handler(api_services(env)), env, self.owner.token)
        found = owner.ok("POST", f"{self.path}/public-check")["blockers"]
        return {each["datasourceId"]: each for each in found}

    def refused_guests(self, env: Mapping[str, str], management: ManagementServer) -> set[str]:
        """The datasources that a guest is refused who subscribes to all that stream."""
        session = Api(make_handler(api_services(env)), env).ok("POST", f"{self.path}/session", {})
        gateway = gateway_over(env, management)
        connection = f"c{time.monotonic_ns()}="
        assert gateway.open(connection) == 200
        asked = {"type": "subscribe", "requestId": "r", "dashboardId": self.id, "sessionToken": session["token"]}
        ids = ["fine", "members", "unfed", "narrowed", "deleted", "plain", "secret", "moved", "inside", "socket"]
        gateway.say(connection, asked | {"datasourceIds": ids})
        frames = [frame for frame in gateway.frames(connection) if frame["type"] in ("ack", "error")]
        assert {frame["datasourceId"] for frame in frames} == set(ids)
        return {frame["datasourceId"] for frame in frames if "errorCode" in frame}


@pytest.fixture
def board(deployed: Mapping[str, str]) -> Board:
    return Board(deployed)


@pytest.mark.parametrize("switches", [{}, {"REALTIME_WS_ENABLED": "false"}, {"REALTIME_MQTT_ENABLED": "false"}])
def test_it_names_what_guests_are_refused(
    board: Board, management: ManagementServer, switches: Mapping[str, str]
) -> None:
    env = {**board.env, **switches}
    before = board.blockers(env)
    board.owner.ok("PUT", f"{board.path}/visibility", {"visibility": "public"})
    after = board.blockers(env)
    assert after == before, "a private dashboard is looked at as if it were public"
    assert set(after) == board.refused_guests(env, management)
    expected = {"members", "unfed", "narrowed", "deleted", "secret", "moved", "inside"}
    if "REALTIME_WS_ENABLED" in switches:
        expected |= {"socket"}
    if "REALTIME_MQTT_ENABLED" in switches:
        expected |= {"fine"}
    assert set(after) == expected


def test_each_blocker_says_why(board: Board) -> None:
    found = board.blockers(board.env)
    assert {name: each["code"] for name, each in found.items()} == {
        "members": "public_use_denied",
        "unfed": "policy_blocked",
        "narrowed": "policy_blocked",
        "deleted": "datasource_unresolved",
        "secret": "public_use_denied",
        "moved": "datasource_unresolved",
        "inside": "policy_blocked",
    }
    assert list(found) == ["members", "unfed", "narrowed", "deleted", "secret", "moved", "inside"], "as in the document"
    assert "allow public use" in found["members"]["message"]
    assert "Rules bring in demo/#" in found["unfed"]["message"]
    assert "It allows demo/y" in found["narrowed"]["message"]
    assert found["secret"]["title"] == "T secret"
    assert "https://other.example:443" in found["moved"]["message"]


def test_with_realtime_off_all_are_blocked(board: Board) -> None:
    found = board.blockers({**board.env, "REALTIME_ENABLED": "false"})
    assert {each["code"] for each in found.values()} == {"disabled"}
    assert "fine" in found and "off" not in found and "clock" not in found


def test_an_inactive_owner_shows_nothing(board: Board) -> None:
    users = board.admin.ok("GET", "/api/users")["users"]
    owner = next(user["id"] for user in users if user["email"] == "editor@x.example")
    board.admin.ok("PATCH", f"/api/users/{owner}", {"active": False})
    board.owner = board.admin
    for visibility in ("private", "public"):
        board.admin.ok("PUT", f"{board.path}/visibility", {"visibility": visibility})
        assert board.blockers(board.env)["fine"]["message"] == "Dashboard is not externally visible"


def test_viewers_are_counted_and_not_named(board: Board, management: ManagementServer) -> None:
    board.owner.ok("PUT", f"{board.path}/visibility", {"visibility": "public"})
    gateway = gateway_over(board.env, management)
    guest = Api(board.admin.handler, board.env)
    for number, (by, datasources) in enumerate(
        [(board.owner, ["fine"]), (guest, ["fine"]), (guest, ["fine", "plain"])]
    ):
        token = by.ok("POST", f"{board.path}/session", {})["token"]
        assert gateway.open(f"v{number}=") == 200
        asked = {"type": "subscribe", "requestId": "r", "dashboardId": board.id, "sessionToken": token}
        gateway.say(f"v{number}=", asked | {"datasourceIds": datasources})
    expected = {
        "connections": 3,
        "subscriptions": 4,
        "kinds": {"member": 1, "link": 0, "public": 2},
        "datasources": [
            {"datasourceId": "fine", "subscriptions": 3},
            {"datasourceId": "plain", "subscriptions": 1},
        ],
        "more": False,
    }
    assert board.helper.ok("GET", f"{board.path}/viewers") == expected
