"""`GET /api/realtime`: what it says of a connect and a subscribe is what the gateway does, over real tables on moto."""

from __future__ import annotations

import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import jwt
import pytest

import tidegate
from functions.api import routes
from functions.api.main import make_handler as api_handler
from functions.api.wiring import api_services
from local_stack.seed import document, mqtt
from tests.deployment import SECRETS
from tests.functions.test_api import Api, code
from tests.functions.test_dashboard_session import Board, board
from tests.functions.test_gateway import gateway_over
from tests.servers.management import ManagementServer
from tidegate import tables
from tidegate.adapters.aws.json_client import AwsError, JsonClient
from tidegate.adapters.dynamodb import limits
from tidegate.domain.limits import window_of

__all__ = ["board"]

#: The address from which the recorded handshake came, as one proxy saw it.
ADDRESS = "130.176.1.1"
HOPS = {"API_TRUST_PROXY_HOPS": "1", "REALTIME_TRUST_PROXY_HOPS": "1"}
ALLOWED = {"state": "allowed", "errorCode": None, "message": None, "retryable": None, "retryAfterMs": None}
_NUMBERS = count(1)


@pytest.fixture(autouse=True)
def one_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test ends in another minute than it began in."""
    window = window_of(int(time.time() * 1000))
    monkeypatch.setattr(limits, "window_of", lambda *_: window)


class Scene:
    """The gateway and the API of one deployment, and a browser that uses both."""

    def __init__(self, board: Board, management: ManagementServer, **settings: str) -> None:
        self.env = {**board.api.env, **HOPS, **settings}
        self.board, self.gateway = board, gateway_over(self.env, management)
        self.api = Api(api_handler(api_services(self.env)), self.env, headers={"x-forwarded-for": ADDRESS})

    def connect(self) -> tuple[str, int]:
        """A new connection, and the status of its handshake."""
        connection_id = f"c{next(_NUMBERS)}="
        return connection_id, self.gateway.open(connection_id)

    def subscribe(self, token: str, datasource: str = "t0", dashboard_id: str | None = None) -> dict[str, Any]:
        """The ack of a subscribe on a new connection."""
        connection_id, status = self.connect()
        assert status == 200
        asked = self.board.subscribe(token, datasourceId=datasource, dashboardId=dashboard_id or self.board.id)
        del asked["datasourceIds"]
        self.gateway.say(connection_id, asked)
        return next(frame for frame in self.gateway.frames(connection_id) if frame["type"] == "ack")

    def asked(self, token: str | None = None, **query: str | None) -> dict[str, Any]:
        """The answer to `GET /api/realtime`."""
        with_dashboard = {"dashboardId": self.board.id} if token else {}
        asked = {name: value for name, value in {**with_dashboard, **query}.items() if value is not None}
        path = "/api/realtime" + "?" * bool(asked) + "&".join(f"{name}={value}" for name, value in asked.items())
        answer: dict[str, Any] = Api(self.api.handler, self.env, token, self.api.headers).ok("GET", path)
        return answer


@pytest.fixture
def scene(board: Board, management: ManagementServer) -> Scene:
    return Scene(board, management)


def without_time(text: str | None) -> str:
    """A refusal without its seconds, which go on."""
    return str(text).partition(". Try again")[0]


def same(verdict: Mapping[str, Any], ack: Mapping[str, Any]) -> None:
    """The verdict says of a subscribe what its ack said."""
    if ack["ok"]:
        assert verdict == ALLOWED
        return
    assert verdict["state"] == "refused"
    assert (verdict["errorCode"], verdict["retryable"]) == (ack["errorCode"], ack["retryable"])
    assert without_time(verdict["message"]) == without_time(ack["message"])
    assert (verdict["retryAfterMs"] is None) == ("retryAfterMs" not in ack)


# --- what everybody is told ---------------------------------------------------------------------------------


def test_what_a_client_must_know(scene: Scene) -> None:
    answer = scene.asked()
    assert (answer["enabled"], answer["protocols"]) == (True, ["sse", "websocket", "mqtt"])
    assert answer["limits"] == {
        "connectionsPerAddress": 25,
        "connectsPerAddressPerMinute": 60,
        "connectionsPerDashboard": 1250,
        "subscriptionsPerConnection": 50,
        "newSubscriptionsPerConnectionPerMinute": 200,
        "messagesPerConnectionPerMinute": 600,
        "messageBytes": 131_072,
        "unauthenticatedTimeoutMs": 60_000,
        "updatesPerSecond": 10,
        "sessionTtlSeconds": 300,
    }
    assert answer["serverTime"].endswith("Z") and answer["subscribe"] is None
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert answer["version"] == tidegate.VERSION == project["version"]
    assert answer["connect"] == ALLOWED


def test_what_is_switched_off(board: Board, management: ManagementServer) -> None:
    off = Scene(board, management, REALTIME_ENABLED="false", REALTIME_SSE_ENABLED="false")
    token = board.session()["token"]
    answer = off.asked(token)
    assert (answer["enabled"], answer["protocols"]) == (False, ["websocket", "mqtt"])
    for verdict in (answer["connect"], answer["subscribe"]):
        assert (verdict["state"], verdict["errorCode"]) == ("refused", "STREAM_POLICY_BLOCKED")
        assert verdict["retryable"] is False and verdict["retryAfterMs"] is None
    assert off.connect()[1] == 404


def test_where_a_remote_api_decides_nothing_is_said(board: Board, management: ManagementServer) -> None:
    env = {**board.api.env, "GATEWAY_API_BASE_URL": "http://127.0.0.1:9"}
    answer = Api(api_handler(api_services(env)), env, "token").ok("GET", "/api/realtime?dashboardId=d")
    assert answer["connect"] is answer["subscribe"] is None and answer["enabled"] is True


# --- a connect ----------------------------------------------------------------------------------------------


def test_a_rate_that_is_spent(board: Board, management: ManagementServer) -> None:
    scene = Scene(board, management, REALTIME_CONNECT_RATE_LIMIT_IP_PER_MIN="2")
    for _ in range(2):
        assert scene.asked()["connect"] == ALLOWED
        assert scene.connect()[1] == 200
    assert scene.connect()[1] == 429
    verdict = scene.asked()["connect"]
    assert (verdict["state"], verdict["errorCode"], verdict["retryable"]) == ("refused", "STREAM_RATE_LIMITED", True)
    assert without_time(verdict["message"]) == "Too many handshakes from this address: at most 2 in a minute"
    assert 0 < verdict["retryAfterMs"] <= 60_000
    elsewhere = Api(scene.api.handler, scene.env, headers={"x-forwarded-for": "203.0.113.200"})
    assert elsewhere.ok("GET", "/api/realtime")["connect"] == ALLOWED


def test_a_quota_that_is_full_and_has_room_again(board: Board, management: ManagementServer) -> None:
    scene = Scene(board, management, REALTIME_MAX_CLIENT_CONNECTIONS_PER_IP="2")
    first, _ = scene.connect()
    assert scene.asked()["connect"] == ALLOWED
    scene.connect()
    assert scene.connect()[1] == 429
    verdict = scene.asked()["connect"]
    assert (verdict["state"], verdict["retryAfterMs"]) == ("refused", 60_000)
    assert without_time(verdict["message"]) == "Too many open connections from this address: at most 2"
    scene.gateway.disconnect({"requestContext": {"eventType": "DISCONNECT", "connectionId": first}}, None)
    assert scene.asked()["connect"] == ALLOWED


def test_an_origin_counts_when_it_is_sent(board: Board, management: ManagementServer) -> None:
    scene = Scene(board, management, API_ALLOWED_ORIGINS="https://dash.example.com")
    for origin, state in (("https://dash.example.com", "allowed"), ("https://evil.example", "refused")):
        scene.api.headers["origin"] = origin
        assert scene.asked()["connect"]["state"] == state
    assert scene.asked()["connect"]["message"] == "Origin is not allowed"
    del scene.api.headers["origin"]
    assert scene.asked()["connect"] == ALLOWED, "a page of the same origin sends none"


# --- a subscribe says the same as its ack -------------------------------------------------------------------


def forged(**claims: Any) -> str:
    """A token as the API would sign it, with other claims."""
    now = int(time.time())
    payload = {
        "iss": "tidegate-api",
        "aud": "tidegate-gateway",
        "sub": "public",
        "scope": "datasource:stream",
        "datasourceId": "t0",
        "dashboardId": "none",
        "shareTokenVersion": 0,
        "iat": now,
        "exp": now + 300,
    }
    return jwt.encode(payload | claims, SECRETS["JWT_GATEWAY_SECRET_ARN"], algorithm="HS256")


def private(scene: Scene) -> str:
    token = str(scene.board.session()["token"])
    scene.board.api.ok("PUT", f"/api/dashboards/{scene.board.id}/visibility", {"visibility": "private"})
    return token


def rotated(scene: Scene) -> str:
    token = str(scene.board.session()["token"])
    scene.board.api.ok("POST", f"/api/dashboards/{scene.board.id}/share-token:rotate")
    return token


def deleted(scene: Scene) -> str:
    token = str(scene.board.session(scene.board.api)["token"])
    scene.board.api.ok("DELETE", f"/api/dashboards/{scene.board.id}")
    return token


def changed(scene: Scene) -> str:
    body = {"dashboardId": scene.board.id, "datasourceId": "t0"}
    token = str(scene.board.guest.ok("POST", "/api/datasource-sessions", body)["token"])
    moved = [mqtt("t0", scene.board.profiles["open"], "demo/moved"), *scene.board.sources[1:]]
    path = f"/api/dashboards/{scene.board.id}"
    scene.board.api.ok("PUT", path, document("T", moved), if_match=scene.board.revision)
    return token


#: With which token which datasource is asked about. The last ones change the dashboard, each after the one before.
CASES: Mapping[str, tuple[Callable[[Scene], str | None], str]] = {
    "a guest's": (lambda scene: scene.board.session()["token"], "t0"),
    "a member's": (lambda scene: scene.board.session(scene.board.api)["token"], "closed"),
    "for members only": (lambda scene: scene.board.session()["token"], "closed"),
    "no such datasource": (lambda scene: scene.board.session()["token"], "none"),
    "forged": (lambda _: "forged", "t0"),
    "a login": (lambda scene: scene.board.api.token, "t0"),
    "expired": (lambda scene: forged(dashboardId=scene.board.id, exp=int(time.time()) - 1), "t0"),
    "for another audience": (lambda scene: forged(dashboardId=scene.board.id, aud="others"), "t0"),
    "of another scope": (lambda scene: forged(dashboardId=scene.board.id, scope="other"), "t0"),
    "of another dashboard": (lambda _: forged(), "t0"),
    "of another datasource": (lambda scene: forged(dashboardId=scene.board.id), "t1"),
    "changed": (changed, "t0"),
    "rotated": (rotated, "t0"),
    "private": (private, "t0"),
    "deleted": (deleted, "t0"),
}
ADMITTED = {"a guest's", "a member's"}


def test_rights_are_answered_as_the_ack_answers(scene: Scene) -> None:
    admitted = set()
    for name, (made, datasource) in CASES.items():
        token = made(scene)
        assert token is not None
        verdict, ack = scene.asked(token, datasourceId=datasource)["subscribe"], scene.subscribe(token, datasource)
        same(verdict, ack)
        admitted |= {name} if ack["ok"] else set()
    assert admitted == ADMITTED


@pytest.mark.parametrize(
    "settings",
    [
        {"REALTIME_MAX_CONNECTIONS_PER_DASHBOARD": "2"},
        {"REALTIME_PUBLIC_SUBSCRIBE_RATE_LIMIT_IP_PER_MIN": "2"},
        {"REALTIME_PUBLIC_SUBSCRIBE_RATE_LIMIT_SHARE_TOKEN_PER_MIN": "40"},
        {"REALTIME_MQTT_ENABLED": "false"},
    ],
    ids=["dashboard", "address", "share version", "protocol"],
)
def test_limits_are_answered_as_the_ack_answers(
    board: Board, management: ManagementServer, settings: Mapping[str, str]
) -> None:
    scene = Scene(board, management, **settings)
    version = jwt.decode(board.session()["token"], options={"verify_signature": False})["shareTokenVersion"]
    token = forged(dashboardId=board.id, shareTokenVersion=version)  # it names no viewer
    for _ in range(4):
        verdict, ack = scene.asked(token)["subscribe"], scene.subscribe(token)
        same(verdict, ack)
    assert not ack["ok"], "the limit was reached"


def test_upstreams_of_an_owner_are_answered_as_the_ack_answers(board: Board, management: ManagementServer) -> None:
    scene = Scene(board, management, REALTIME_MAX_UPSTREAMS_PER_OWNER="1")
    sources = [{"id": name, "type": "sse", "settings": {"url": f"https://up.example/{name}"}} for name in ("a", "b")]
    board.id = board.api.ok("POST", "/api/dashboards", document("U", sources))["id"]
    token = board.session(board.api)["token"]
    for name in ("a", "b"):
        same(scene.asked(token, datasourceId=name)["subscribe"], scene.subscribe(token, name))
    verdict = scene.asked(token, datasourceId="b")["subscribe"]
    assert verdict["message"].startswith("Too many upstreams for the dashboards of this owner: at most 1")
    assert scene.asked(token, datasourceId="a")["subscribe"] == ALLOWED, "it is held already"


def test_a_whole_dashboard_is_refused_for_what_refuses_all(scene: Scene) -> None:
    token = scene.board.session()["token"]
    assert scene.asked(token)["subscribe"] == ALLOWED, "though one is for members only"
    other = scene.board.api.ok("POST", "/api/dashboards", document("U", scene.board.sources[:1]))["id"]
    assert scene.asked(token, dashboardId=other)["subscribe"]["errorCode"] == "STREAM_AUTH_FAILED"
    rotated(scene)
    assert scene.asked(token)["subscribe"]["message"] == "Share token is stale"
    fresh = scene.board.session()["token"]
    assert scene.asked(fresh)["subscribe"] == ALLOWED
    private(scene)
    assert scene.asked(fresh)["subscribe"]["message"] == "Dashboard is not externally visible"
    member = scene.board.session(scene.board.api)["token"]
    assert scene.asked(member)["subscribe"] == ALLOWED
    scene.board.api.ok("POST", "/api/auth/logout-everywhere")
    assert scene.asked(member)["subscribe"]["message"] == "Dashboard access denied"


# --- how it is asked ----------------------------------------------------------------------------------------


def test_the_token_is_in_the_header_and_belongs_to_a_dashboard(scene: Scene) -> None:
    assert code(scene.api("GET", "/api/realtime?dashboardId=d")) == (401, "unauthenticated")
    assert code(scene.api("GET", "/api/realtime?datasourceId=d")) == (400, "invalid_input")
    login = Api(scene.api.handler, scene.env, scene.board.api.token, scene.api.headers)
    assert login.ok("GET", "/api/realtime")["subscribe"] is None, "a login is no question"


def test_it_spends_nothing_of_what_it_asks_about(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    token, writes, call = scene.board.session()["token"], Counter[str](), JsonClient.call

    def noted(client: JsonClient, operation: str, payload: Mapping[str, Any], **options: Any) -> dict[str, Any]:
        if operation not in ("GetItem", "BatchGetItem", "GetSecretValue"):
            writes[f"{operation} {payload['TableName']} {payload['Key']['key']['S'].split('#')[2]}"] += 1
        return call(client, operation, payload, **options)

    monkeypatch.setattr(JsonClient, "call", noted)
    for datasource in (None, "t0", "closed"):
        scene.asked(token, datasourceId=datasource)
    assert writes == {f"UpdateItem {scene.env[tables.LIMITERS.variable]} realtime-asked-ip": 3}


def test_it_is_limited_by_address(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "ASKS_PER_ADDRESS", 3)
    for _ in range(3):
        scene.asked()
    status, answer = scene.api("GET", "/api/realtime")
    assert status == 429 and answer["error"]["retryAfterMs"] > 0
    elsewhere = Api(scene.api.handler, scene.env, headers={"x-forwarded-for": "203.0.113.201"})
    assert elsewhere("GET", "/api/realtime")[0] == 200
    assert scene.connect()[1] == 200, "who asks too often may still connect"


# --- could not be checked -----------------------------------------------------------------------------------


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """Tables, by their deployed name, that do not answer."""
    call, found = JsonClient.call, set[str]()

    def failing(client: JsonClient, operation: str, payload: Mapping[str, Any], **options: Any) -> dict[str, Any]:
        if {payload.get("TableName"), *payload.get("RequestItems", ())} & found:
            raise AwsError("dynamodb", operation, "InternalServerError", "down", True, {}, status=500)
        return call(client, operation, payload, **options)

    monkeypatch.setattr(JsonClient, "call", failing)
    yield found


def test_a_limiter_that_is_down_is_no_refusal(board: Board, management: ManagementServer, broken: set[str]) -> None:
    token = board.session()["token"]
    closed = Scene(board, management)
    opened = Scene(board, management, SECURITY_LIMITER_FAILURE_MODE="fail-open")
    broken.add(closed.env[tables.LIMITERS.variable])
    assert code(closed.api("GET", "/api/realtime")) == (503, "limiter_unavailable")
    answer = opened.asked(token)
    for verdict in (answer["connect"], answer["subscribe"]):
        assert (verdict["state"], verdict["errorCode"]) == ("unavailable", "STREAM_RATE_LIMITED")
        assert verdict["message"] == "Security limiter is temporarily unavailable"
        assert (verdict["retryable"], verdict["retryAfterMs"]) == (True, 2000)
    broken.clear()
    assert opened.asked(token)["subscribe"] == closed.asked(token)["subscribe"] == ALLOWED


def test_rights_that_cannot_be_read_are_no_refusal(scene: Scene, broken: set[str]) -> None:
    token = scene.board.session()["token"]
    broken.add(scene.env[tables.ACCESS.variable])
    answer = scene.asked(token)
    assert answer["connect"] == ALLOWED
    verdict = answer["subscribe"]
    assert (verdict["state"], verdict["errorCode"]) == ("unavailable", "STREAM_CONNECT_FAILED")
    assert (verdict["message"], verdict["retryAfterMs"]) == ("It could not be checked", 2000)
