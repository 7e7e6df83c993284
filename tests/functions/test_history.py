"""The history of a datasource: kept by the bridge, read through the API, over real tables on moto."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from functions.api.main import make_handler as api_handler
from functions.api.wiring import api_services
from local_stack.seed import document, mqtt
from ops.admin import first_admin
from tests.deployment import aws
from tests.functions.events import event, request
from tests.functions.test_api import PASSWORD, Api, person
from tests.functions.test_gateway import Gateway, gateway_over
from tests.servers.management import ManagementServer
from tests.settling import settle
from tidegate.domain.history import Point
from tidegate.ports.history import Group, Series
from tidegate.providers.control_plane import ControlPlaneProviders
from tidegate.usecases.gateway import recover

HISTORY = {"seconds": 600, "everyMs": 1000}


class Board:
    """A public dashboard: a datasource with a history, one with topics, and one without."""

    def __init__(self, env: Mapping[str, str]) -> None:
        first_admin(env, "admin@x.example", PASSWORD)
        self.env = env
        self.api = Api(api_handler(api_services(env)), env).login("admin@x.example")
        self.guest = Api(self.api.handler, env)
        body = {"name": "open", "transport": "iot-core", "allowPublicUse": True}
        self.broker = self.api.ok("POST", "/api/broker-profiles", body)["id"]
        made = self.api.ok("POST", "/api/dashboards", self.document())
        self.id, self.revision = made["id"], str(made["revision"])
        self.path = f"/api/dashboards/{self.id}"
        self.api.ok("PUT", f"{self.path}/visibility", {"visibility": "public"})

    def document(self, history: Mapping[str, int] = HISTORY) -> dict[str, Any]:
        sources = [
            mqtt("t", self.broker, "demo/x"),
            mqtt("many", self.broker, "demo/+/y"),
            mqtt("none", self.broker, "demo/x"),
        ]
        for source in sources[:2]:
            source["settings"]["history"] = dict(history)
        return document("T", sources)

    def session(self, by: Api | None = None, **body: str) -> str:
        return str((by or self.guest).ok("POST", f"{self.path}/session", body)["token"])

    def read(self, token: str, datasource: str = "t", **query: str) -> tuple[int, Any]:
        asked = urlencode({"datasourceId": datasource, **query}, quote_via=quote)
        return Api(self.api.handler, self.env, token)("GET", f"{self.path}/history?{asked}")

    def points(self, token: str, datasource: str = "t", **query: str) -> list[dict[str, Any]]:
        status, answer = self.read(token, datasource, **query)
        assert status == 200, answer
        return list(answer["points"])


@pytest.fixture
def board(deployed: Mapping[str, str]) -> Board:
    return Board(deployed)


@pytest.fixture
def gateway(deployed: Mapping[str, str], management: ManagementServer, board: Board) -> Iterator[Gateway]:
    """With a viewer of all datasources, whose stream is kept from now on."""
    made = gateway_over(deployed, management)
    made.open("c1=")
    asked = {"type": "subscribe", "requestId": "r", "dashboardId": board.id, "sessionToken": board.session()}
    made.say("c1=", asked | {"datasourceIds": ["t", "many", "none"]})
    yield made


def test_a_late_viewer_reads_what_was(gateway: Gateway, board: Board) -> None:
    for payload in (b"1", b"3", b"2.50"):
        gateway.publish(payload)
    token = board.session()
    points = board.points(token)
    assert [point["seq"] for point in points] == sorted((point["seq"] for point in points), reverse=True)
    assert (min(point["least"] for point in points), max(point["most"] for point in points)) == (1, 3)
    newest = [frame for frame in gateway.frames("c1=") if frame["type"] == "data" and frame["datasourceId"] == "t"][-1]
    assert (points[0]["last"], points[0]["seq"]) == (newest["payload"], newest["seq"])
    assert board.points(token, since=newest["seq"]) == []
    assert board.points(token, since=points[-1]["seq"]) == points[:-1]
    single = {"dashboardId": board.id, "datasourceId": "t"}
    assert board.points(board.guest.ok("POST", "/api/datasource-sessions", single)["token"]) == points


def test_the_answer_has_the_digits_of_the_source(gateway: Gateway, board: Board) -> None:
    gateway.publish(b"2.50")
    asked = request("GET", f"{board.path}/history?datasourceId=t", authorization=f"Bearer {board.session()}")
    answer = board.api.handler(asked, None)
    assert '"last":2.50,' in answer["body"] and answer["headers"]["content-type"] == "application/json"
    assert answer["headers"]["cache-control"] == "no-store"
    assert {name: json.loads(answer["body"])[name] for name in ("everyMs", "seconds", "next")} == {
        **HISTORY,
        "next": None,
    }


def test_topics_are_read_one_by_one(gateway: Gateway, board: Board) -> None:
    gateway.publish(b"1", "demo/a/y")
    gateway.publish(b"2", "demo/b/y")
    token = board.session()
    assert [point["last"] for point in board.points(token, "many", topic="demo/b/y")] == [2]
    assert board.points(token, "many", topic="demo/other/y") == []
    assert board.read(token, "many")[0] == 400
    assert board.read(token, "t", topic="demo/x")[0] == 400


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ({"datasource": "none"}, 404, "no_history"),
        ({"datasource": "other"}, 404, "not_found"),
        ({"since": "yesterday"}, 400, "invalid_input"),
        ({"until": "yesterday"}, 400, "invalid_input"),
    ],
)
def test_what_is_refused(board: Board, query: dict[str, str], status: int, code: str) -> None:
    answered, answer = board.read(board.session(), **query)
    assert (answered, answer["error"]["code"]) == (status, code)


def test_a_session_token_is_needed_and_no_login_does(board: Board) -> None:
    asked = f"{board.path}/history?datasourceId=t"
    assert board.guest("GET", asked)[0] == 401 and board.api("GET", asked)[0] == 401
    other = board.api.ok("POST", "/api/dashboards", document("U", []))["id"]
    token = board.api.ok("POST", f"/api/dashboards/{other}/session", {})["token"]
    assert board.read(token)[0] == 403


def _rotate(board: Board) -> None:
    board.api.ok("POST", f"{board.path}/share-token:rotate")


def _hide(board: Board) -> None:
    board.api.ok("PUT", f"{board.path}/visibility", {"visibility": "private"})


def _withdraw(board: Board) -> None:
    body = {"name": "open", "transport": "iot-core", "allowPublicUse": False, "topicAllowlist": []}
    board.api.ok("PUT", f"/api/broker-profiles/{board.broker}", body, if_match='"1"')


def _delete(board: Board) -> None:
    board.api.ok("DELETE", board.path)


@pytest.mark.parametrize("end", [_rotate, _hide, _withdraw, _delete])
def test_who_may_not_subscribe_any_longer_may_not_read(board: Board, end: Callable[[Board], None]) -> None:
    token = board.session()
    assert board.points(token) == []
    end(board)
    assert board.read(token)[0] in (403, 404)


def test_a_removed_member_may_not_read(board: Board) -> None:
    member = person(board.api, "viewer")
    board.api.ok("PUT", f"{board.path}/visibility", {"visibility": "private"})
    board.api.ok("PUT", f"{board.path}/acl", {"email": "viewer@x.example", "level": "viewer"})
    token = board.session(member)
    assert board.points(token) == []
    board.api.ok("DELETE", f"{board.path}/acl/{member.ok('GET', '/api/users/me')['id']}")
    assert board.read(token)[0] == 403


def test_reads_are_limited_by_viewer(deployed: Mapping[str, str]) -> None:
    board = Board({**deployed, "REALTIME_MAX_SUBSCRIPTIONS_PER_CONNECTION": "1"})
    token = board.session()
    # A minute may begin in between.
    answers = [board.read(token)[0] for _ in range(2 * 4 + 1)]
    assert 429 in answers and answers[:4] == [200] * 4
    assert board.read(board.session())[0] == 200, "another viewer"


def test_a_long_history_is_read_page_by_page(board: Board, gateway: Gateway) -> None:
    """550 points of 500 bytes are more than one answer takes."""
    store = ControlPlaneProviders(gateway.env).history
    now_ms = int(time.time()) * 1000
    (stream_key,) = {
        row.stream_key
        for row in ControlPlaneProviders(gateway.env).streams.of_source("demo/#").streams
        if row.topic_filter == "demo/x"
    }
    moments = range(now_ms - 550_000, now_ms, 1000)
    points = [Point(at_ms, f"{at_ms:015d}", f'"{"x" * 500}"') for at_ms in moments]
    series = Series(stream_key)
    store.write([Group(series, each.start_ms, [each], now_ms // 1000 + 600) for each in points])
    token, found, query = board.session(), [], dict[str, str]()
    while True:
        status, answer = board.read(token, **query)
        assert status == 200 and len(json.dumps(answer)) < 300_000
        found += answer["points"]
        if answer["next"] is None:
            break
        query = {"until": answer["next"]}
    assert [point["seq"] for point in found] == [point.seq for point in reversed(points)] and query


def test_a_viewer_reads_what_their_own_datasource_asks_for(board: Board, gateway: Gateway) -> None:
    """Another dashboard has the same stream, and asks for less of it."""
    store = ControlPlaneProviders(gateway.env).history
    now_ms = int(time.time()) * 1000
    gateway.publish(b"1")
    (stream,) = [
        row
        for row in ControlPlaneProviders(gateway.env).streams.of_source("demo/#").streams
        if row.topic_filter == "demo/x"
    ]
    assert stream.history is not None and (stream.history.seconds, stream.history.every_ms) == (600, 1000)
    old = Point(now_ms - 100_000, f"{now_ms - 100_000:015d}", "7", 7, 7)
    store.write([Group(Series(stream.stream_key), old.start_ms, [old], now_ms // 1000 + 600)])
    other = replace(board.api, token=board.api.token)
    made = other.ok("POST", "/api/dashboards", board.document({"seconds": 30, "everyMs": 30_000}))
    token = other.ok("POST", f"/api/dashboards/{made['id']}/session", {})["token"]
    status, answer = Api(board.api.handler, board.env, token)(
        "GET", f"/api/dashboards/{made['id']}/history?datasourceId=t"
    )
    assert status == 200 and [point["last"] for point in answer["points"]] == [1]
    assert (answer["everyMs"], answer["seconds"]) == (30_000, 30)
    assert [point["last"] for point in board.points(board.session())] == [1, 7]


def test_a_viewer_who_was_away_is_sent_what_came(
    gateway: Gateway, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recover, "_KNOWN_S", 0)
    # A second later, because a history is known to be whole from a whole second on.
    began = int(time.time())
    settle(lambda: time.time() >= began + 1, 2)
    gateway.publish(b"1")
    since = [frame for frame in gateway.frames("c1=") if frame["type"] == "data"][-1]["seq"]
    gateway.publish(b"5")
    gateway.publish(b"3")
    gateway.open("c2=")
    asked = {"type": "subscribe", "requestId": "r", "dashboardId": board.id, "sessionToken": board.session()}
    gateway.say("c2=", asked | {"datasourceIds": ["t", "none"], "since": {"t": since, "none": since}})
    acks = {frame["datasourceId"]: frame["recovered"] for frame in gateway.frames("c2=") if frame["type"] == "ack"}
    assert acks == {"t": True, "none": False}
    (sent,) = [frame for frame in gateway.frames("c2=") if frame["type"] == "history"]
    assert (sent["points"][-1]["most"], sent["points"][-1]["last"]) == (5, 3)
    gateway.publish(b"4")
    queue, url = aws(gateway.env["AWS_ENDPOINT_URL"], "sqs"), gateway.env["CATCH_UP_QUEUE_URL"]
    bodies: list[str] = []

    def received() -> bool:
        found = queue.receive_message(QueueUrl=url, WaitTimeSeconds=1, MaxNumberOfMessages=10).get("Messages", [])
        bodies.extend(message["Body"] for message in found)
        return any("recovering" in body for body in bodies)

    settle(received, 20)
    records = event("sqs_catch_up")
    records["Records"] = [{**records["Records"][0], "body": body} for body in bodies if "recovering" in body]
    assert gateway.catch_up(records, None) == {"batchItemFailures": []}
    *_, points, end = [frame for frame in gateway.frames("c2=") if frame["type"] == "history"]
    assert (points["points"][-1]["last"], end["end"], end["recovered"]) == (4, True, True)
