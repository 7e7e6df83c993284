"""One session token for a dashboard: minted by the API, and used at the gateway, over real tables on moto."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import jwt
import pytest

from benchmarks.meter import Meter, metered
from functions.api.main import make_handler as api_handler
from functions.api.wiring import api_services
from functions.revalidate import wiring as revalidate_wiring
from local_stack.seed import document, mqtt
from ops import units
from ops.admin import first_admin
from tests.deployment import SECRETS
from tests.functions.test_api import PASSWORD, Api, person
from tests.functions.test_gateway import Gateway, gateway_over
from tests.servers.management import ManagementServer
from tidegate.usecases.limits.message_budget import MessageBudget

#: Datasources of the board. The last one uses a profile for members only.
OPEN = [f"t{number}" for number in range(10)]
CLOSED = "closed"


class Board:
    """A public dashboard of ten datasources that everybody may see, and one for members."""

    def __init__(self, env: Mapping[str, str]) -> None:
        first_admin(env, "admin@x.example", PASSWORD)
        self.api = Api(api_handler(api_services(env)), env).login("admin@x.example")
        self.guest = Api(self.api.handler, env)
        profiles = {"open": True, "closed": False}
        self.profiles = ids = {
            name: self.api.ok(
                "POST", "/api/broker-profiles", {"name": name, "transport": "iot-core", "allowPublicUse": public}
            )["id"]
            for name, public in profiles.items()
        }
        sources = [mqtt(name, ids["open"], f"demo/{name}") for name in OPEN] + [mqtt(CLOSED, ids["closed"], "demo/c")]
        made = self.api.ok("POST", "/api/dashboards", document("T", sources))
        self.id, self.sources, self.revision = made["id"], sources, str(made["revision"])
        self.api.ok("PUT", f"/api/dashboards/{self.id}/visibility", {"visibility": "public"})

    def session(self, by: Api | None = None, **body: str) -> dict[str, Any]:
        answer: dict[str, Any] = (by or self.guest).ok("POST", f"/api/dashboards/{self.id}/session", body)
        return answer

    def subscribe(self, token: str, ids: object = None, **changes: Any) -> dict[str, Any]:
        asked = {"type": "subscribe", "requestId": "r1", "dashboardId": self.id, "sessionToken": token}
        return asked | {"datasourceIds": [*OPEN] if ids is None else ids} | changes


@pytest.fixture
def board(deployed: Mapping[str, str]) -> Board:
    return Board(deployed)


@pytest.fixture
def gateway(deployed: Mapping[str, str], management: ManagementServer) -> Iterator[Gateway]:
    yield gateway_over(deployed, management)


def acks(gateway: Gateway, connection_id: str = "c1=") -> dict[str | None, tuple[bool, str | None]]:
    """Datasource -> whether it was done, and the message of the refusal, of the last ack of each."""
    found = [frame for frame in gateway.frames(connection_id) if frame["type"] == "ack"]
    return {frame["datasourceId"]: (frame["ok"], frame.get("message")) for frame in found}


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_one_token_opens_a_board_of_ten(gateway: Gateway, board: Board) -> None:
    session = board.session()
    gateway.open("c1=")
    gateway.say("c1=", board.subscribe(session["token"]))
    assert acks(gateway) == dict.fromkeys(OPEN, (True, None))
    kinds = Counter((frame["type"], frame["datasourceId"]) for frame in gateway.frames("c1="))
    assert kinds == dict.fromkeys([(kind, name) for kind in ("ack", "status") for name in OPEN], 1)
    assert {frame["requestId"] for frame in gateway.frames("c1=") if frame["type"] == "ack"} == {"r1"}
    for name in OPEN:
        assert gateway.publish(b"1", f"demo/{name}") == 1
    data = [frame["datasourceId"] for frame in gateway.frames("c1=") if frame["type"] == "data"]
    assert sorted(data) == sorted(OPEN)


def test_the_token_opens_one_datasource_too(gateway: Gateway, board: Board) -> None:
    asked = board.subscribe(board.session()["token"], datasourceId="t3")
    del asked["datasourceIds"]
    gateway.open("c1=")
    gateway.say("c1=", asked)
    assert acks(gateway) == {"t3": (True, None)}


def test_the_times_are_the_servers_and_spread(board: Board) -> None:
    sessions = [board.session() for _ in range(20)]
    parts = []
    for session in sessions:
        begun, ends = moment(session["serverTime"]), moment(session["expiresAt"])
        assert abs(begun - time.time()) < 60 and ends - begun == 300
        parts.append((moment(session["refreshAfter"]) - begun) / (ends - begun))
    assert all(0.5 <= part < 0.75 for part in parts) and len(set(parts)) == len(parts)
    payload = jwt.decode(sessions[0]["token"], options={"verify_signature": False})
    assert payload["scope"] == "dashboard:stream" and not {"datasourceId", "intentHash"} & payload.keys()


def test_a_guest_is_refused_what_a_guest_may_not_see_and_nothing_else(gateway: Gateway, board: Board) -> None:
    gateway.open("c1=")
    gateway.say("c1=", board.subscribe(board.session()["token"], [CLOSED, "t0", "none", "t1"]))
    answered = acks(gateway)
    assert list(answered) == [CLOSED, "t0", "none", "t1"]
    assert answered["t0"] == answered["t1"] == (True, None)
    assert answered["none"] == (False, "Datasource not found")
    assert answered[CLOSED][0] is False and "public" in str(answered[CLOSED][1])
    gateway.open("c2=")
    gateway.say("c2=", board.subscribe(board.session(board.api)["token"], [CLOSED, "t0"]))
    assert acks(gateway, "c2=") == {CLOSED: (True, None), "t0": (True, None)}


def test_the_token_is_for_its_dashboard_only(gateway: Gateway, board: Board) -> None:
    token = board.session()["token"]
    other = board.api.ok("POST", "/api/dashboards", document("U", board.sources[:1]))["id"]
    gateway.open("c1=")
    gateway.say("c1=", board.subscribe(token, ["t0"], dashboardId=other))
    assert acks(gateway)["t0"] == (False, "Datasource identifiers do not match token claims")


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ({}, None),
        ({"exp": 1}, "Invalid datasource session token"),
        ({"aud": "tidegate-user"}, "Invalid datasource session token"),
        ({"dashboardId": "other"}, "Datasource identifiers do not match token claims"),
    ],
    ids=["as minted", "expired", "another audience", "another dashboard"],
)
def test_a_token_is_checked_for_each_datasource(
    gateway: Gateway, board: Board, claims: Mapping[str, Any], message: str | None
) -> None:
    """Signed with our key, so only the claim can be what refuses it. Both forms of `subscribe` answer the same."""
    minted = jwt.decode(board.session()["token"], options={"verify_signature": False})
    token = jwt.encode({**minted, **claims}, SECRETS["JWT_GATEWAY_SECRET_ARN"], algorithm="HS256")
    gateway.open("c1=")
    gateway.say("c1=", board.subscribe(token, ["t0", "t1"]))
    single = board.subscribe(token, datasourceId="t2")
    del single["datasourceIds"]
    gateway.say("c1=", single)
    assert acks(gateway) == dict.fromkeys(["t0", "t1", "t2"], (message is None, message))


def test_a_token_of_one_datasource_opens_that_one_only(gateway: Gateway, board: Board) -> None:
    body = {"dashboardId": board.id, "datasourceId": "t0"}
    token = board.guest.ok("POST", "/api/datasource-sessions", body)["token"]
    gateway.open("c1=")
    gateway.say("c1=", board.subscribe(token, ["t0", "t1"]))
    refused = (False, "Datasource identifiers do not match token claims")
    assert acks(gateway) == {"t0": (True, None), "t1": refused}


@pytest.mark.parametrize(
    "ids", [[], "t0", ["t0", 1], ["t0", " "], None, {"t0": 1}], ids=["none", "text", "number", "blank", "null", "map"]
)
def test_a_list_that_is_none_is_refused_once(gateway: Gateway, board: Board, ids: object) -> None:
    gateway.open("c1=")
    gateway.say("c1=", board.subscribe("token") | {"datasourceIds": ids})
    (frame,) = gateway.frames("c1=")
    assert (frame["datasourceId"], frame["ok"], frame["errorCode"]) == (None, False, "STREAM_PROTOCOL_ERROR")


def test_so_many_at_once_as_a_connection_may_have(gateway: Gateway, board: Board) -> None:
    token = board.session()["token"]
    gateway.open("c1=")
    gateway.say("c1=", board.subscribe(token, [f"x{number}" for number in range(51)]))
    (frame,) = gateway.frames("c1=")
    assert (frame["datasourceId"], frame["retryable"]) == (None, False)
    assert frame["message"] == "subscribe names 51 datasources: at most 50 at once"
    gateway.say("c1=", board.subscribe(token, ["t0"] * 51))
    assert acks(gateway)["t0"] == (True, None), "the same one twice is one"


def test_a_rotated_link_ends_the_session(gateway: Gateway, board: Board) -> None:
    board.api.ok("PUT", f"/api/dashboards/{board.id}/visibility", {"visibility": "link"})
    link = board.api.ok("GET", f"/api/dashboards/{board.id}")["shareToken"]
    token = board.session(shareToken=link)["token"]
    gateway.open("c1=")
    gateway.say("c1=", board.subscribe(token, ["t0", "t1"]))
    board.api.ok("POST", f"/api/dashboards/{board.id}/share-token:rotate")
    gateway.say("c1=", board.subscribe(token, ["t0", "t1"]))
    assert acks(gateway) == dict.fromkeys(["t0", "t1"], (False, "Share token is stale"))
    status, _ = board.guest("POST", f"/api/dashboards/{board.id}/session", {"currentToken": token})
    assert status == 403, "a token alone is no right"


def test_a_changed_intent_ends_the_subscription_and_the_token_opens_the_new_one(gateway: Gateway, board: Board) -> None:
    token = board.session()["token"]
    gateway.open("c1=")
    gateway.say("c1=", board.subscribe(token, ["t0", "t1"]))
    moved = [mqtt("t0", board.sources[0]["settings"]["brokerProfileId"], "demo/moved"), *board.sources[1:]]
    board.api.ok("PUT", f"/api/dashboards/{board.id}", document("T", moved), if_match=board.revision)
    gateway.publish(b"1", "demo/t0")
    assert not [frame for frame in gateway.frames("c1=") if frame["type"] == "data"], "its row rests on the old intent"
    gateway.say("c1=", board.subscribe(token, ["t0", "t1"]))
    gateway.publish(b"2", "demo/moved")
    assert [frame["payload"] for frame in gateway.frames("c1=") if frame["type"] == "data"] == [2]


def refused_now(gateway: Gateway, board: Board, token: str, ids: list[str]) -> set[str]:
    """Those of the datasources that a new connection is refused with this token."""
    connection_id = f"new{len(gateway.platform.received)}="
    gateway.open(connection_id)
    gateway.say(connection_id, board.subscribe(token, ids))
    answered = acks(gateway, connection_id)
    assert list(answered) == ids
    return {str(name) for name, (done, _) in answered.items() if not done}


def test_a_withdrawn_profile_ends_the_datasources_that_use_it(gateway: Gateway, board: Board) -> None:
    """The closed profile is opened, and closed again. The token was minted in between."""
    path = f"/api/broker-profiles/{board.profiles['closed']}"
    profile = {"name": "closed", "transport": "iot-core", "topicAllowlist": []}
    board.api.ok("PUT", path, profile | {"allowPublicUse": True}, if_match="1")
    token = board.session()["token"]
    assert refused_now(gateway, board, token, ["t0", CLOSED]) == set()
    board.api.ok("PUT", path, profile | {"allowPublicUse": False}, if_match="2")
    assert refused_now(gateway, board, token, ["t0", CLOSED]) == {CLOSED}
    assert refused_now(gateway, board, board.session()["token"], ["t0", CLOSED]) == {CLOSED}


def test_a_member_who_is_removed_keeps_what_guests_see_by_a_new_token_only(gateway: Gateway, board: Board) -> None:
    viewer = person(board.api, "viewer")
    email = viewer.ok("GET", "/api/users/me")["email"]
    path = f"/api/dashboards/{board.id}/acl"
    board.api.ok("PUT", path, {"email": email, "level": "viewer"})
    token = board.session(viewer)["token"]
    assert refused_now(gateway, board, token, ["t0", CLOSED]) == set()
    board.api.ok("DELETE", f"{path}/{viewer.ok('GET', '/api/users/me')['id']}")
    assert refused_now(gateway, board, token, ["t0", CLOSED]) == {"t0", CLOSED}
    assert refused_now(gateway, board, board.session(viewer)["token"], ["t0", CLOSED]) == {CLOSED}


def test_a_signed_out_users_token_ends(gateway: Gateway, board: Board) -> None:
    viewer = person(board.api, "viewer")
    token = board.session(viewer)["token"]
    assert refused_now(gateway, board, token, ["t0"]) == set()
    viewer.ok("POST", "/api/auth/logout-everywhere")
    assert refused_now(gateway, board, token, ["t0", "t1"]) == {"t0", "t1"}


def test_a_deactivated_owner_shows_nothing(gateway: Gateway, board: Board) -> None:
    editor = person(board.api, "editor")
    email = editor.ok("GET", "/api/users/me")["email"]
    board.api.ok("PUT", f"/api/dashboards/{board.id}/owner", {"email": email})
    token = board.session()["token"]
    assert refused_now(gateway, board, token, ["t0", "t1"]) == set()
    board.api.ok("PATCH", f"/api/users/{editor.ok('GET', '/api/users/me')['id']}", {"active": False})
    assert refused_now(gateway, board, token, ["t0", "t1"]) == {"t0", "t1"}
    assert board.guest("POST", f"/api/dashboards/{board.id}/session", {})[0] == 403


def test_current_tokens_of_both_kinds_are_one_viewer(board: Board) -> None:
    first = board.session()["token"]
    again = board.session(currentToken=first)["token"]
    body = {"dashboardId": board.id, "datasourceId": "t0", "currentToken": again}
    single = board.guest.ok("POST", "/api/datasource-sessions", body)["token"]
    last = board.session(currentToken=single)["token"]
    viewers = {
        jwt.decode(token, options={"verify_signature": False})["viewerId"] for token in (first, again, single, last)
    }
    assert len(viewers) == 1
    assert jwt.decode(board.session()["token"], options={"verify_signature": False})["viewerId"] not in viewers


def test_a_private_dashboard_and_one_that_is_not_there(board: Board) -> None:
    board.api.ok("PUT", f"/api/dashboards/{board.id}/visibility", {"visibility": "private"})
    assert board.guest("POST", f"/api/dashboards/{board.id}/session", {})[0] == 403
    assert board.guest("POST", "/api/dashboards/none/session", {})[0] == 404


def test_other_gateways_introspect_it_for_each_datasource(board: Board) -> None:
    path, token = "datasource-introspect", board.session()["token"]
    asked = {"sessionToken": token, "dashboardId": board.id}
    status, answer = board.guest.internal(path, asked | {"datasourceId": "t0"})
    assert (status, answer["datasourceId"], answer["scope"]) == (200, "t0", "datasource:stream")
    assert board.guest.internal(path, asked | {"datasourceId": CLOSED})[0] == 403
    assert board.guest.internal(path, asked)[0] == 403
    assert board.guest.internal(path, asked | {"datasourceId": "t0", "dashboardId": "other"})[0] == 403


# --- what it costs ------------------------------------------------------------------------------------------


@pytest.fixture
def meter() -> Iterator[Meter]:
    """Counts what is asked of DynamoDB: calls and units, without indexes. moto does not say what a request costs."""
    with metered() as counting:
        yield counting


def test_what_a_board_of_ten_costs(
    gateway: Gateway, board: Board, meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table of performance.md: mints and subscribes of one viewer, one by one and together."""
    token = ""
    revalidate_wiring.schedule_services(gateway.env).queue_tasks(started=True)
    for warm in ("w1=", "w2="):  # what a process remembers is not what one more viewer costs
        gateway.open(warm)
        gateway.say(warm, board.subscribe(board.session()["token"]))
    monkeypatch.setattr(MessageBudget, "spend", lambda *_: None)  # one write for twenty messages
    meter.taken()
    tokens = []
    for name in OPEN:
        body = {"dashboardId": board.id, "datasourceId": name} | ({"currentToken": token} if token else {})
        token = board.guest.ok("POST", "/api/datasource-sessions", body)["token"]
        tokens.append(token)
    mints = meter.taken().of_dynamodb
    session = board.session()["token"]
    mint = meter.taken().of_dynamodb
    gateway.open("c1=")
    gateway.open("c2=")
    meter.taken()
    for name, single in zip(OPEN, tokens, strict=True):
        asked = board.subscribe(single, datasourceId=name)
        del asked["datasourceIds"]
        gateway.say("c1=", asked)
    subscribes = meter.taken().of_dynamodb
    gateway.say("c2=", board.subscribe(session))
    subscribe = meter.taken().of_dynamodb
    assert acks(gateway) == acks(gateway, "c2=") == dict.fromkeys(OPEN, (True, None))
    for name, single in zip(OPEN, tokens, strict=True):
        asked = board.subscribe(single, datasourceId=name)
        del asked["datasourceIds"]
        gateway.say("c1=", asked)
    refreshes = meter.taken().of_dynamodb
    gateway.say("c2=", board.subscribe(session))
    refresh = meter.taken().of_dynamodb
    assert (mints, mint, subscribes, subscribe, refreshes, refresh) == COSTS


def _asked(*found: units.Units) -> tuple[tuple[float, float, float], ...]:
    return tuple((each.calls, each.reads, each.writes) for each in found)


#: Calls, read units and write units. `make cost` reckons with the same.
COSTS = _asked(
    units.MINT_DATASOURCE.of(10).times(10),
    units.MINT_SESSION.of(10),
    units.SUBSCRIBE.of(1).times(10),
    units.SUBSCRIBE.of(10),
    units.REFRESH.of(1).times(10),
    units.REFRESH.of(10),
)
assert COSTS == ((60, 40, 20), (4, 2, 2), (160, 100, 60), (52, 28, 33), (70, 60, 10), (16, 15, 10)), "the page's table"
