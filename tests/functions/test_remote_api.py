"""The gateway over HTTP against a remote API: our own API behind a socket, with tables the gateway cannot reach."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from functions.api.main import make_handler as api_handler
from functions.api.wiring import api_services
from functions.revalidate.wiring import revalidate_services
from functions.revalidate.worker import make_handler
from tests.deployment import aws, deployment
from tests.fake_upstreams.test_process import SECRET
from tests.fake_upstreams.test_process import process as sources
from tests.functions.events import request as http_request
from tests.functions.test_api import Api, person
from tests.functions.test_gateway import Demo, Gateway, demo, gateway_over
from tests.functions.test_relay import errors, numbers, relay_settings, relay_workers, watch
from tests.functions.test_revalidation import Context, queued
from tests.servers.management import ManagementServer
from tests.servers.remote_api import Answer, RemoteApiServer, Request
from tests.settling import settle
from tidegate.adapters.dynamodb.revocations import DynamoRemoteCursor
from tidegate.domain.remote_api import IntrospectionKey
from tidegate.domain.subscriptions import Subscription
from tidegate.providers.control_plane import ControlPlaneProviders
from tidegate.providers.process import Handler
from tidegate.tables import ACCESS, CONNECTIONS, LAST_VALUES, LIMITERS, REVOCATIONS, STREAMS, SUBSCRIPTIONS

__all__ = ["demo"]

INTROSPECT, FEED, CONSUME = "datasource-introspect", "revoked-tokens", "rate-limit/consume"
GATEWAY_TABLES = (ACCESS, CONNECTIONS, SUBSCRIPTIONS, STREAMS, LAST_VALUES, LIMITERS, REVOCATIONS)
POLL, FULL = {"kind": "poll", "target": ""}, {"kind": "full", "target": ""}


def over_http(env: Mapping[str, str]) -> Callable[[Request], Answer]:
    """The API's Lambda handler as a server's answer; only the internal API is served."""
    handle, lock = api_handler(api_services(env)), threading.Lock()

    def answer(request: Request) -> Answer:
        path = request.path.removeprefix("/base")
        assert path.startswith("/internal/gateway/")
        headers = {"authorization": request.headers["authorization"]}
        with lock:
            asyncio.set_event_loop(asyncio.new_event_loop())
            answered = handle(http_request("POST", path, request.body.decode(), **headers), None)
            asyncio.get_event_loop().close()
        return Answer(answered["statusCode"], answered["body"].encode())

    return answer


@dataclass
class RemoteDeployment:
    """A gateway, the API it asks, and what an operator may look at."""

    gateway: Gateway
    server: RemoteApiServer
    demo: Demo
    real: Callable[[Request], Answer]
    work: Handler
    capsys: pytest.CaptureFixture[str]

    def run(self, *tasks: object) -> None:
        """Let the worker do the tasks, and what they queue."""
        for task in tasks:
            record = {"messageId": "m1", "body": json.dumps(task)}
            assert self.work({"Records": [record]}, Context()) == {"batchItemFailures": []}
            self.run(*queued(self.gateway.env))

    def viewers(self, *connections: str, api: Api | None = None) -> None:
        """Open connections with a live subscription each, of a guest or of whom `api` is signed in as."""
        who = api or Api(self.demo.api.handler, self.demo.api.env)
        body = {"dashboardId": self.demo.dashboard_id, "datasourceId": "t"}
        for connection_id in connections:
            assert self.gateway.open(connection_id) == 200
            token = who.ok("POST", "/api/datasource-sessions", body)["token"]
            self.gateway.say(connection_id, {"type": "subscribe", "requestId": "r1", **body, "sessionToken": token})
            assert [frame["type"] for frame in self.gateway.frames(connection_id)][:2] == ["ack", "status"]

    def publish(self) -> int:
        """A device's message, by a process that has cached nothing yet."""
        return gateway_over(self.gateway.env, self.gateway.platform).publish(b"1")

    def asked(self, path: str) -> int:
        return len(self.server.asked(path))

    def counted(self, name: str) -> int:
        """What the metric came to since the last look."""
        lines = [json.loads(line) for line in self.capsys.readouterr().out.splitlines() if line.startswith("{")]
        return sum(line[name] for line in lines if name in line)

    def live(self) -> set[str]:
        return {row.key.connection_id for row in self.rows() if row.live}

    def rows(self) -> list[Subscription]:
        return list(ControlPlaneProviders(self.gateway.env).subscriptions.of_dashboard(self.demo.dashboard_id))


@pytest.fixture
def remote(
    deployed: Mapping[str, str],
    moto_url: str,
    management: ManagementServer,
    remote_api: RemoteApiServer,
    demo: Demo,
    capsys: pytest.CaptureFixture[str],
) -> RemoteDeployment:
    made = deployment(moto_url)
    known = {table.variable for table in GATEWAY_TABLES}
    env = {name: value for name, value in made.items() if not name.startswith("TIDEGATE_TABLE_") or name in known}
    env["GATEWAY_API_BASE_URL"] = remote_api.url
    remote_api.answer = real = over_http(deployed)
    gateway = gateway_over(env, management)
    work = make_handler(revalidate_services(gateway.env))
    return RemoteDeployment(gateway, remote_api, demo, real, work, capsys)


def test_a_viewer_subscribes_is_served_and_cut_after_a_rotation(remote: RemoteDeployment) -> None:
    remote.viewers("c1=")
    assert remote.publish() == 1
    remote.run(POLL)
    assert remote.live() == {"c1="}, "events of before the subscribe end nobody"
    remote.demo.api.ok("POST", f"/api/dashboards/{remote.demo.dashboard_id}/share-token:rotate")
    assert remote.publish() == 1, "until the feed was read, the gateway cannot know"
    control_plane = ControlPlaneProviders(remote.gateway.env)
    remote.run(POLL)
    assert (
        control_plane.remote_access.read([remote.demo.dashboard_id], [])
        .dashboards[remote.demo.dashboard_id]
        .share_version
    )
    error = remote.gateway.frames("c1=")[-2]
    assert (error["errorCode"], error["retryable"]) == ("STREAM_AUTH_FAILED", False) and "revoked" in error["message"]
    connection = control_plane.connections.get("c1=")
    assert remote.publish() == 0 and connection is not None and not connection.subscriptions
    remote.viewers("c2=")
    asked = remote.asked(FEED)
    remote.run(POLL)
    assert remote.live() == {"c2="} and remote.asked(FEED) == asked + 1, "nothing new: one question, nothing queued"


def test_data_is_withheld_as_soon_as_the_version_is_raised(remote: RemoteDeployment) -> None:
    remote.viewers("c1=")
    ControlPlaneProviders(remote.gateway.env).remote_access.raise_to(remote.demo.dashboard_id, 99)
    assert remote.publish() == 0 and remote.live() == {"c1="}, "before anybody was cut"


def test_a_stale_token_is_refused(remote: RemoteDeployment) -> None:
    stale = remote.demo.subscribe()
    remote.demo.api.ok("POST", f"/api/dashboards/{remote.demo.dashboard_id}/share-token:rotate")
    remote.gateway.open("c1=")
    remote.gateway.say("c1=", stale)
    (refused,) = remote.gateway.frames("c1=")
    assert (refused["ok"], refused["errorCode"], refused["message"]) == (
        False,
        "STREAM_AUTH_FAILED",
        "Dashboard access denied",
    )
    assert remote.live() == set()


def test_many_viewers_are_one_question(remote: RemoteDeployment) -> None:
    connections = [f"c{number}=" for number in range(5)]
    remote.viewers(*connections)
    assert remote.asked(INTROSPECT) == 5, "each subscribe asks"
    remote.run(FULL)
    assert remote.asked(INTROSPECT) == 6 and remote.live() == set(connections)
    rows = remote.rows()
    assert len({IntrospectionKey.of(row.claim) for row in rows}) == 1 and all(row.session_token for row in rows)
    assert not any(row.session_token and row.session_token in repr(row) for row in rows)


def test_an_expired_cursor_is_a_full_revalidation_at_once(remote: RemoteDeployment) -> None:
    member = person(remote.demo.api, "viewer")
    path = f"/api/dashboards/{remote.demo.dashboard_id}"
    remote.demo.api.ok("PUT", f"{path}/acl", {"email": "viewer@x.example", "level": "viewer"})
    remote.demo.api.ok("PUT", f"{path}/visibility", {"visibility": "private"})
    remote.viewers("member=", api=member)
    remote.run(POLL, FULL)
    cursors = DynamoRemoteCursor(
        ControlPlaneProviders(remote.gateway.env).db,
        remote.gateway.env[REVOCATIONS.variable],
        remote.server.url,
    )
    assert cursors.move_cursor(cursors.cursor(), "of-another-feed")
    remote.demo.api.ok("PATCH", f"/api/users/{member.ok('GET', '/api/users/me')['id']}", {"active": False})
    remote.run(FULL)
    assert remote.live() == {"member="}, "the pass is not due yet, and no event tells of a user"
    remote.capsys.readouterr()
    remote.run(POLL)
    assert remote.live() == set()
    assert remote.counted("cursor_expired") == 1
    assert cursors.cursor() != "of-another-feed"


def test_a_member_who_lost_the_right_is_found_by_the_dashboards_event(remote: RemoteDeployment) -> None:
    path = f"/api/dashboards/{remote.demo.dashboard_id}"
    member = person(remote.demo.api, "viewer")
    remote.demo.api.ok("PUT", f"{path}/acl", {"email": "viewer@x.example", "level": "viewer"})
    remote.demo.api.ok("PUT", f"{path}/visibility", {"visibility": "private"})
    remote.viewers("member=", api=member)
    remote.viewers("owner=", api=remote.demo.api)
    remote.run(POLL)
    user_id = member.ok("GET", "/api/users/me")["id"]
    remote.demo.api.ok("DELETE", f"{path}/acl/{user_id}")
    remote.run(POLL)
    assert remote.live() == {"owner="}


@pytest.mark.parametrize("how", ["500", "proxy-403", "proxy-404", "hang-up", "429", "not-json"])
def test_an_api_that_does_not_answer_cuts_nobody(remote: RemoteDeployment, how: str) -> None:
    remote.viewers("c1=", "c2=")
    remote.server.answer = lambda request: {
        "500": Answer(500, {"error": "x"}),
        "proxy-403": Answer(403, {"message": "Forbidden"}),
        "proxy-404": Answer(404, b"<html>not here</html>"),
        "hang-up": Answer(how="hang_up"),
        "429": Answer(429, {"error": "Too many introspection requests"}),
        "not-json": Answer(200, b"<html>"),
    }[how]
    remote.capsys.readouterr()
    remote.run(FULL)
    assert remote.live() == {"c1=", "c2="} and remote.counted("indeterminate") == 2
    assert remote.publish() == 2, "viewers whose token holds are served"
    record = {"messageId": "m1", "body": json.dumps(POLL)}
    assert remote.work({"Records": [record]}, Context()) == {"batchItemFailures": []}, "the next poll is seconds away"
    refresh = remote.demo.subscribe() | {"requestId": "again"}
    remote.server.answer = lambda request: remote.real(request) if request.path.endswith(CONSUME) else Answer(500)
    remote.gateway.say("c1=", refresh)
    refused = remote.gateway.frames("c1=")[-1]
    assert (refused["requestId"], refused["ok"], refused["retryable"]) == ("again", False, True)
    assert refused["message"] == "Subscription failed" and remote.live() == {"c1=", "c2="}
    remote.server.answer = remote.real
    remote.run(POLL)


def test_a_service_token_that_is_not_accepted_cuts_nobody(remote: RemoteDeployment) -> None:
    remote.viewers("c1=")
    remote.server.answer = lambda request: Answer(401, {"error": "Unauthorized"})
    remote.run(FULL)
    assert remote.live() == {"c1="}, "a 401 about us is not one about the viewer"


def test_a_session_token_that_is_not_accepted_ends_its_class(remote: RemoteDeployment) -> None:
    remote.viewers("c1=")

    def refuse_session_tokens(request: Request) -> Answer:
        known = "sessionToken" not in request.json
        return remote.real(request) if known else Answer(401, {"error": "whatever"})

    remote.server.answer = refuse_session_tokens
    remote.run(FULL)
    assert remote.live() == set()


@pytest.mark.parametrize(("mode", "status"), [("fail-closed", 503), ("fail-open", 200)])
def test_a_limiter_that_cannot_count_leaves_it_to_the_failure_mode(
    remote: RemoteDeployment, management: ManagementServer, mode: str, status: int
) -> None:
    remote.server.answer = lambda request: Answer(
        503, {"error": "Security limiter unavailable", "reason": "backend_fail_closed"}
    )
    env = {**remote.gateway.env, "REALTIME_LIMITER_FAILURE_MODE": mode}
    assert gateway_over(env, management).open("c1=") == status
    (asked,) = remote.server.asked(CONSUME)
    assert asked.json["scope"] == "realtime-connect-ip" and len(asked.json["key"]) == 32


def test_the_limit_is_the_apis(remote: RemoteDeployment, management: ManagementServer) -> None:
    env = {**remote.gateway.env, "REALTIME_CONNECT_RATE_LIMIT_IP_PER_MIN": "2"}
    # Two gateways, counted together.
    one, other = gateway_over(env, management), gateway_over(env, management)
    statuses = [(one, other)[number % 2].open(f"c{number}=") for number in range(6)]
    assert statuses[0] == 200
    assert statuses.count(429) >= 2, "counted together; a window may end in between, but only once"


def test_no_token_reaches_a_log_or_a_client(remote: RemoteDeployment) -> None:
    subscribe = remote.demo.subscribe()
    remote.gateway.open("c1=")
    remote.gateway.say("c1=", subscribe)
    remote.server.answer = lambda request: Answer(403, {"error": f"no {subscribe['sessionToken']}"})
    remote.gateway.say("c1=", subscribe)
    remote.run(FULL)
    written = "".join(remote.capsys.readouterr()) + json.dumps(remote.gateway.frames("c1="))
    assert subscribe["sessionToken"] not in written
    assert remote.server.requests[0].headers["authorization"].removeprefix("Bearer ") not in written


@pytest.mark.parametrize("kind", ["sse", "websocket", "mqtt"])
def test_a_source_of_the_relay_is_served_and_its_secret_is_stored_nowhere(
    remote: RemoteDeployment,
    management: ManagementServer,
    kind: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with sources(tmp_path, "--interval-ms", "20") as (_, addresses):
        _served_beside_another_api(remote, management, kind, addresses, caplog)


def _source(admin: Api, kind: str, addresses: Mapping[str, str]) -> tuple[dict[str, Any], str]:
    """A protected source's datasource, and its URL."""
    secret: dict[str, object] = {"type": "bearer", "secret": {"token": SECRET}}
    if kind == "mqtt":
        secret = {"type": "basic", "secret": {"username": "fixture", "password": SECRET}}
    else:
        secret["destinations"] = [addresses[f"{kind}_protected_url"].rpartition("/")[0]]
    credential = admin.ok("POST", "/api/credential-profiles", {"name": "source", **secret})["id"]
    if kind != "mqtt":
        url = addresses[f"{kind}_protected_url"]
        return {"id": "t", "type": kind, "settings": {"url": url, "credentialProfileId": credential}}, url
    url, ca = addresses["mqtts_url"], Path(addresses["ca"]).read_text()
    broker = {
        "name": "b",
        "transport": "external",
        "brokerUrl": url,
        "credentialProfileId": credential,
        "tls": {"ca": ca},
    }
    reachable = {"EGRESS_ALLOWED_PORTS": str(urlsplit(url).port), "EGRESS_ALLOW_PRIVATE_DESTINATIONS": "true"}
    saving = Api(api_handler(api_services({**admin.env, **reachable})), admin.env, admin.token)
    settings = {
        "brokerProfileId": saving.ok("POST", "/api/broker-profiles", broker)["id"],
        "topic": "protected/temperature",
    }
    return {"id": "t", "type": kind, "settings": settings}, url


def _served_beside_another_api(
    remote: RemoteDeployment,
    management: ManagementServer,
    kind: str,
    addresses: Mapping[str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    source, url = _source(remote.demo.api, kind, addresses)
    port = urlsplit(url).port or 0
    settings = relay_settings(management, port) | {"REALTIME_MQTT_ALLOWED_TOPICS": "protected/#"}
    gateway = gateway_over({**remote.gateway.env, **settings}, management)
    assert watch(gateway, remote.demo.api, source)["ok"]
    assert management.starts("relay") == 1, "a worker was asked for"
    asked = remote.asked(INTROSPECT)
    with relay_workers(gateway.env):
        settle(lambda: numbers(gateway))
    frames = gateway.frames("c1=")
    assert [frame["status"] for frame in frames if frame["type"] == "status"][:2] == ["connecting", "connected"]
    got = numbers(gateway)
    assert got and got == sorted(set(got)) and remote.asked(INTROSPECT) == asked + 1
    written = remote.capsys.readouterr()
    everything = [written.out, written.err, caplog.text, json.dumps(frames)]
    client = aws(remote.gateway.env["AWS_ENDPOINT_URL"], "dynamodb")
    everything += [str(client.scan(TableName=gateway.env[table.variable])["Items"]) for table in GATEWAY_TABLES]
    assert not [text for text in everything if SECRET in text or f":{port}" in text]

    def with_another_secret(request: Request) -> Answer:
        """As after a change no token tells of."""
        answer = remote.real(request)
        return Answer(answer.status, answer.encoded.replace(SECRET.encode(), b"another secret"))

    remote.server.answer = with_another_secret
    with relay_workers(gateway.env):
        settle(lambda: errors(gateway))
    assert len(numbers(gateway)) == len(got), "it does not become another stream"
    error = errors(gateway)[0]
    assert (error["errorCode"], error["message"]) == ("STREAM_POLICY_BLOCKED", "The datasource was changed")
    remote.run(FULL)
    assert gateway.frames("c1=")[-2]["retryable"] is True, "who comes back gets the new one"
