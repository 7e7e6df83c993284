"""Credentials of a container over HTTP: where they are asked for, when again, and what happens when nobody answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.doubles.platform import MemoryObserver
from tests.servers.management import ManagementServer
from tidegate.adapters.aws import container_credentials
from tidegate.adapters.aws.container_credentials import EARLY_S, LAST_S, ContainerCredentials
from tidegate.adapters.aws.http import NotAnswered
from tidegate.adapters.aws.json_client import AwsError, JsonClient
from tidegate.adapters.aws.management_api import ManagementApi
from tidegate.adapters.aws.sigv4 import FULL_URI, RELATIVE_URI, Credentials, PostSigner, Signer, credentials_from
from tidegate.ports.delivery import Delivery

SECRET = "container-secret-3Kx"
TOKEN = "container-token-8Wq"
NOW = 1_795_507_200.0


class Agent:
    """Answers as ECS does: the nth question gets the nth key, which ends after `lives_s`."""

    def __init__(self) -> None:
        self.lives_s = 3600.0
        self.now = NOW
        self.asked: list[tuple[str, str]] = []
        self.broken: tuple[int, bytes] | None = None
        self.may_answer = threading.Event()
        self.may_answer.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.asked.append((self.path, self.headers.get("authorization", "")))
                assert outer.may_answer.wait(10)
                status, body = outer.broken or (200, outer.made(len(outer.asked)))
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_args: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.uri = f"http://127.0.0.1:{self._server.server_port}/v2/credentials/one?more=1"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def made(self, number: int) -> bytes:
        ends = datetime.fromtimestamp(self.now + self.lives_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return json.dumps(
            {"AccessKeyId": f"A{number}", "SecretAccessKey": SECRET, "Token": f"T{number}", "Expiration": ends}
        ).encode()

    def source(self, **env: str) -> ContainerCredentials:
        return ContainerCredentials({FULL_URI: self.uri, **env}, now=lambda: self.now)

    def close(self) -> None:
        self.may_answer.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Agent]:
    monkeypatch.setattr(container_credentials, "_AGAIN_S", 0.0)
    agent = Agent()
    yield agent
    agent.close()


def test_they_are_asked_for_once_and_again_before_they_end(agent: Agent) -> None:
    source = agent.source()
    assert source.current() == Credentials("A1", SECRET, "T1")
    agent.now += agent.lives_s - EARLY_S - 1
    assert source.current().access_key == "A1" and len(agent.asked) == 1
    agent.now += 2
    assert source.current() == Credentials("A2", SECRET, "T2")
    assert agent.asked == [("/v2/credentials/one?more=1", "")] * 2


def test_old_ones_are_used_while_nobody_answers_and_no_longer_than_they_are_valid(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = agent.source()
    ends = agent.now + agent.lives_s
    source.current()
    agent.broken = (500, b"")
    agent.now = ends - LAST_S - 1
    assert source.current().access_key == "A1"
    agent.now = ends - LAST_S
    with pytest.raises(NotAnswered) as none:
        source.current()
    assert not none.value.sent and SECRET not in str(none.value)
    agent.broken = None
    assert source.current().access_key == f"A{len(agent.asked)}"
    monkeypatch.setattr(container_credentials, "_AGAIN_S", 1000.0)
    agent.broken, agent.now = (500, b""), agent.now + agent.lives_s - LAST_S - 1
    source.current()
    asked = len(agent.asked)
    source.current()
    assert len(agent.asked) == asked, "a question that failed is not repeated at once"


def test_others_go_on_while_one_asks(agent: Agent) -> None:
    source = agent.source()
    source.current()
    agent.now += agent.lives_s - EARLY_S
    agent.may_answer.clear()
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(source.current)
        while len(agent.asked) < 2:
            assert not asking.done()
        assert source.current().access_key == "A1"
        agent.may_answer.set()
        assert asking.result(10).access_key == "A2"
    assert len(agent.asked) == 2


@pytest.mark.parametrize(
    "broken",
    [
        (404, b"{}"),
        (200, b"no JSON"),
        (200, b"[]"),
        (200, b"{}"),
        (200, b'{"AccessKeyId":"A","SecretAccessKey":"s","Token":"t","Expiration":"soon"}'),
        (200, b'{"AccessKeyId":"A","SecretAccessKey":"s","Token":"t","Expiration":"2026-11-24T12:00:00"}'),
        (200, b'{"AccessKeyId":"","SecretAccessKey":"s","Token":"t","Expiration":"2099-01-01T00:00:00Z"}'),
        (200, b"{" + b" " * 70_000 + b"}"),
    ],
)
def test_what_is_no_credential_is_none(agent: Agent, broken: tuple[int, bytes]) -> None:
    agent.broken = broken
    with pytest.raises(NotAnswered):
        agent.source().current()


def test_a_token_opens_the_address_and_is_read_anew(agent: Agent, tmp_path: Path) -> None:
    agent.lives_s = 60.0
    source = agent.source(AWS_CONTAINER_AUTHORIZATION_TOKEN=TOKEN)
    source.current()
    assert agent.asked[-1][1] == TOKEN
    file = tmp_path / "token"
    file.write_text("first\n")
    source = agent.source(AWS_CONTAINER_AUTHORIZATION_TOKEN=TOKEN, AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=str(file))
    source.current()
    file.write_text("second")
    source.current()
    assert [token for _, token in agent.asked[-2:]] == ["first", "second"]
    file.write_text("two\r\nlines: x")
    agent.now += 60
    with pytest.raises(NotAnswered) as none:
        source.current()
    assert "lines" not in str(none.value) and TOKEN not in repr(source)


@pytest.mark.parametrize(
    ("env", "allowed"),
    [
        ({RELATIVE_URI: "/v2/credentials/x"}, True),
        ({RELATIVE_URI: "@elsewhere.example/x"}, False),
        ({FULL_URI: "http://169.254.170.23/v1/credentials"}, True),
        ({FULL_URI: "http://[fd00:ec2::23]/v1/credentials"}, True),
        ({FULL_URI: "https://agent.example/x"}, True),
        ({FULL_URI: "http://agent.example/x"}, False),
        ({FULL_URI: "http://169.254.169.254/latest"}, False),
        ({FULL_URI: "http://localhost.example/x"}, False),
        ({FULL_URI: "http://127.0.0.1@agent.example/x"}, False),
        ({FULL_URI: "ftp://127.0.0.1/x"}, False),
    ],
)
def test_secrets_are_asked_of_near_addresses_only(env: Mapping[str, str], allowed: bool) -> None:
    if allowed:
        assert isinstance(credentials_from(env), ContainerCredentials)
        return
    with pytest.raises(RuntimeError, match="allowed: "):
        credentials_from(env)


def test_keys_in_the_environment_come_first() -> None:
    env = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", RELATIVE_URI: "/x"}
    assert credentials_from(env) == Credentials("a", "b")


def test_both_signers_go_over_to_new_credentials_on_the_same_day() -> None:
    """The derived key is of a day, and a secret may change within it."""

    class Turns:
        now = Credentials("A1", "s1", "T1")

        def current(self) -> Credentials:
            return self.now

    turns = Turns()
    signer = Signer(turns, "eu-west-1", "execute-api")
    post = PostSigner(signer, "example.com", "/live/@connections/")

    def signed(by: Signer, number: int) -> str:
        return by.headers("POST", "example.com", "/live/@connections/c", b"x", NOW + number)["authorization"]

    before = signed(signer, 0)
    assert before.encode() in post.request("c", b"x", NOW)
    turns.now = Credentials("A2", "s2", "T2")
    after = signed(signer, 1)
    assert after == signed(Signer(turns.now, "eu-west-1", "execute-api"), 1) and "A2/" in after
    made = post.request("c", b"x", NOW + 1)
    assert after.encode() in made and b"x-amz-security-token: T2" in made


def test_without_credentials_a_service_has_not_answered(agent: Agent) -> None:
    """So a store is not available, rather than that a call fails by a fault of ours."""
    agent.broken = (500, b"")
    called: Callable[..., Any] = JsonClient(
        "dynamodb", "T", region="r", credentials=agent.source(), base_url="http://127.0.0.1:9"
    ).call
    with pytest.raises(AwsError) as failed:
        called("GetItem", {})
    assert failed.value.code == "NotAnswered" and failed.value.temporary


def test_without_credentials_a_message_has_failed_and_the_next_goes_out(management: ManagementServer) -> None:
    """The sender is the one of all viewers: it must not end because it cannot sign for a moment."""

    class Absent:
        gone = True

        def current(self) -> Credentials:
            if self.gone:
                raise NotAnswered("no valid credentials of the container", sent=False)
            return Credentials("a", "b")

    source = Absent()
    api = ManagementApi(management.url, region="eu-west-1", credentials=source, observer=MemoryObserver())
    assert api.post("c1=", b"{}") is Delivery.FAILED
    source.gone = False
    assert api.post("c1=", b"{}") is Delivery.DELIVERED
