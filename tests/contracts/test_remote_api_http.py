"""The internal API against a server that is slow, drips, hangs up, lies and rotates its token."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from time import monotonic

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.servers.remote_api import Answer, RemoteApiServer, Request
from tidegate.adapters.aws import http
from tidegate.adapters.aws.http import HttpClient, NotAnswered
from tidegate.adapters.aws.secrets_manager import Secret
from tidegate.adapters.remote_api.adapters import HttpIntrospections, HttpRates, HttpRemoteFeed, RemoteApiKeys
from tidegate.adapters.remote_api.client import INTROSPECT, MAX_BODY, RemoteApiClient
from tidegate.domain.remote_api import ShareRevoked
from tidegate.errors import (
    ApiBusy,
    ApiTimeout,
    Denied,
    InvalidInput,
    NotFound,
    TidegateError,
    Unauthenticated,
    Unavailable,
)

INTENT = {"protocol": "mqtt", "topic": "a/b", "brokerProfileId": "b", "transport": "iot-core", "password": "pw-7"}
YES = {"dashboardId": "d", "datasourceId": "s", "scope": "datasource:stream", "intent": INTENT}
#: Kept short for the tests; the settings' least is 500.
TIMEOUT_MS = 300


class Token(Secret):
    """A secret that needs no Secrets Manager; `next` is what a refresh finds."""

    def __init__(self, *values: str) -> None:
        self.given = values
        self.next: tuple[str, ...] | None = None

    def values(self) -> tuple[str, ...]:
        return self.given

    def refresh(self) -> bool:
        if self.next is None:
            return False
        self.given, self.next = self.next, None
        return True


def client(server: RemoteApiServer, *tokens: str) -> RemoteApiClient:
    return RemoteApiClient(server.url, Token(*(tokens or ("service",))))


def introspect(server: RemoteApiServer, answer: Answer | Callable[[Request], Answer]) -> object:
    server.answer = answer if callable(answer) else lambda request: answer
    return HttpIntrospections(client(server), TIMEOUT_MS).introspect("session", "d", "s")


def test_a_question_and_its_answer(remote_api: RemoteApiServer) -> None:
    answered = introspect(remote_api, Answer(200, YES))
    assert "pw-7" not in repr(answered), "intents hold secrets"
    (request,) = remote_api.requests
    assert request.path == "/base" + INTROSPECT and request.headers["authorization"] == "Bearer service"
    assert request.json == {"sessionToken": "session", "dashboardId": "d", "datasourceId": "s"}


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, InvalidInput), (403, Denied), (404, NotFound), (429, ApiBusy), (500, Unavailable), (503, Unavailable)],
)
def test_the_status_decides_and_the_text_goes_nowhere(
    remote_api: RemoteApiServer, status: int, kind: type[TidegateError]
) -> None:
    with pytest.raises(kind) as caught:
        introspect(remote_api, Answer(status, {"error": "internal-detail"}))
    assert "internal-detail" not in f"{caught.value} {caught.value.__cause__}"


@pytest.mark.parametrize(
    "answer",
    [
        Answer(403, {"message": "Forbidden"}),
        Answer(403, b"<html>firewall</html>"),
        Answer(404, {"error": {"code": "not_found", "message": "no such route"}}),
        Answer(400, b""),
        Answer(401, b"proxy login"),
        Answer(302, {"error": "elsewhere"}),
        Answer(405, {"error": "Method not allowed"}),
        Answer(200, b"[]"),
        Answer(200, b"{"),
        Answer(200, b"[" * 100_000),
        Answer(200, {"scope": "datasource:stream"}),
        Answer(200, {"scope": "datasource:stream", "intent": []}),
        Answer(200, {"intent": INTENT}),
        Answer(200, b" " * (MAX_BODY + 1)),
        Answer(200, YES, how="cut_off"),
        Answer(how="hang_up"),
    ],
    ids=lambda answer: f"{answer.status}-{answer.how}-{str(answer.body)[:20]}",
)
def test_what_is_not_the_contracts_is_no_answer(remote_api: RemoteApiServer, answer: Answer) -> None:
    with pytest.raises(Unavailable):
        introspect(remote_api, answer)


def test_a_token_for_another_scope_is_denied(remote_api: RemoteApiServer) -> None:
    with pytest.raises(Denied):
        introspect(remote_api, Answer(200, YES | {"scope": "datasource:fetch"}))


@pytest.mark.parametrize("how", ["late", "drip", "drip_head"])
def test_the_deadline_is_the_whole_calls(remote_api: RemoteApiServer, how: str) -> None:
    began = monotonic()
    with pytest.raises(ApiTimeout):
        introspect(remote_api, Answer(200, b" " * 1000, how=how))
    assert TIMEOUT_MS / 1000 <= monotonic() - began < 2 * TIMEOUT_MS / 1000 + 0.5


def test_nobody_listens() -> None:
    server = RemoteApiServer()
    server.close()
    with pytest.raises(Unavailable):
        HttpIntrospections(client(server), TIMEOUT_MS).introspect("session", "d", "s")


def test_connections_are_kept_unless_the_server_ends_them(remote_api: RemoteApiServer) -> None:
    asking = HttpIntrospections(client(remote_api), TIMEOUT_MS)
    remote_api.answer = lambda request: Answer(200, YES)
    for _ in range(5):
        asking.introspect("session", "d", "s")
    assert remote_api.connections == 1
    remote_api.answer = lambda request: Answer(200, YES, how="close")
    for _ in range(3):
        asking.introspect("session", "d", "s")
    assert remote_api.connections == 3


def certificate(folder: Path) -> Path:
    """A certificate for 127.0.0.1 that nobody trusts, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    path = folder / "server.pem"
    path.write_bytes(
        key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain) + made.public_bytes(encoding)
    )
    return path


def test_over_tls_the_server_has_to_be_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pem = certificate(tmp_path)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(pem)
    server = RemoteApiServer(serving)
    try:
        with pytest.raises(Unavailable):
            introspect(server, Answer(200, YES))
        assert not server.requests, "the service token was not sent"
        trusting = ssl.create_default_context(cafile=str(pem))
        monkeypatch.setattr(http, "tls_context", lambda: trusting)
        for answer in (Answer(200, YES), Answer(200, YES, how="close")):
            introspect(server, answer)
        with pytest.raises(ApiTimeout):
            introspect(server, Answer(200, b" " * 1000, how="drip"))
    finally:
        server.close()


def test_an_answer_may_be_as_large_as_allowed(remote_api: RemoteApiServer) -> None:
    remote_api.answer = lambda request: Answer(200, b"x" * 1000)
    path, deadline = "/base", monotonic() + 5
    assert len(HttpClient(remote_api.url, max_body=1000).request("POST", path, {}, b"", deadline).body) == 1000
    with pytest.raises(NotAnswered):
        HttpClient(remote_api.url, max_body=999).request("POST", path, {}, b"", deadline)
    remote_api.answer = lambda request: Answer(200, b"x" * 1000, how="cut_off")
    for limit in (None, 1000):
        with pytest.raises(NotAnswered):
            HttpClient(remote_api.url, max_body=limit).request("POST", path, {}, b"", deadline)


# --- the service token -------------------------------------------------------------------------------------


def accepting(*tokens: str) -> Callable[[Request], Answer]:
    """An API that knows these service tokens, and no session token but `session`."""

    def answer(request: Request) -> Answer:
        if request.headers["authorization"].removeprefix("Bearer ") not in tokens:
            return Answer(401, {"error": "Unauthorized"})
        token = request.json.get("sessionToken")
        if token is None:
            return Answer(400, {"error": "sessionToken is required"})
        return Answer(200, YES) if token == "session" else Answer(401, {"error": "Unauthorized"})

    return answer


def test_a_401_about_the_session_is_told_from_one_about_us(remote_api: RemoteApiServer) -> None:
    remote_api.answer = accepting("service")
    with pytest.raises(Unauthenticated):
        HttpIntrospections(client(remote_api), TIMEOUT_MS).introspect("another", "d", "s")
    with pytest.raises(Unavailable) as caught:
        HttpIntrospections(client(remote_api, "unknown"), TIMEOUT_MS).introspect("session", "d", "s")
    assert caught.value.code == "api_unauthorized"


def test_a_rotation_of_the_service_token_is_survived(remote_api: RemoteApiServer) -> None:
    token = Token("new", "old")
    asking = HttpIntrospections(RemoteApiClient(remote_api.url, token), TIMEOUT_MS)
    remote_api.answer = accepting("old")  # the API does not know the new one yet
    asking.introspect("session", "d", "s")
    remote_api.requests.clear()
    asking.introspect("session", "d", "s")
    assert [request.headers["authorization"] for request in remote_api.requests] == ["Bearer old"], "remembered"
    remote_api.answer = accepting("newest")  # or knows one that we have not read yet
    token.next = ("newest", "new")
    asking.introspect("session", "d", "s")
    assert remote_api.requests[-1].headers["authorization"] == "Bearer newest"


def test_a_service_token_unfit_for_a_header_is_not_quoted(remote_api: RemoteApiServer) -> None:
    with pytest.raises(Unavailable) as caught:
        client(remote_api, "top-secret\r\nx: y").post(INTROSPECT, {}, 1)
    assert "top-secret" not in repr(caught.value) and not remote_api.requests


# --- the feed ----------------------------------------------------------------------------------------------


def page(**changes: object) -> Answer:
    event = {"eventId": "17", "dashboardId": "d", "shareTokenVersion": 3, "revokedAt": "2026-01-01T00:00:00.000Z"}
    return Answer(200, {"events": [event], "nextCursor": "next", "cursorExpired": False} | changes)


def test_the_feed(remote_api: RemoteApiServer) -> None:
    remote_api.answer = lambda request: page()
    feed = HttpRemoteFeed(client(remote_api), TIMEOUT_MS)
    read = feed.read(None, 7)
    assert (read.events, read.next_cursor, read.expired) == ((ShareRevoked("d", 3, 1_767_225_600_000),), "next", False)
    assert remote_api.requests[0].json == {"sinceCursor": None, "limit": 7}
    for when in ("yesterday", None, "2026-01-01T00:00:00"):
        event = {"dashboardId": "d", "shareTokenVersion": 3, "revokedAt": when}
        remote_api.answer = lambda request, event=event: page(events=[event])  # type: ignore[misc]
        assert feed.read(None, 7).events == (ShareRevoked("d", 3),), "the moment is for metrics only"
    remote_api.requests[1:] = []
    remote_api.answer = lambda request: page(cursorExpired=True, events=[])
    assert feed.read("c", 7).expired and remote_api.requests[1].json["sinceCursor"] == "c"


@pytest.mark.parametrize(
    "answer",
    [
        page(events=None),
        page(events=["x"]),
        page(events=[{"dashboardId": "d"}]),
        page(events=[{"dashboardId": "", "shareTokenVersion": 1}]),
        page(events=[{"dashboardId": "d", "shareTokenVersion": "1"}]),
        page(events=[{"dashboardId": "d", "shareTokenVersion": True}]),
        page(nextCursor=""),
        page(nextCursor=None),
        page(nextCursor="x" * 3000),
        page(cursorExpired="no"),
        Answer(400, {"error": "x"}),
        Answer(403, {"error": "x"}),
        Answer(404, {"error": "x"}),
        Answer(401, {"error": "x"}),
        Answer(500, {"error": "x"}),
    ],
    ids=lambda answer: f"{answer.status}-{str(answer.body)[11:60]}",
)
def test_an_event_that_cannot_be_read_is_never_passed_over(remote_api: RemoteApiServer, answer: Answer) -> None:
    remote_api.answer = lambda request: answer
    with pytest.raises(Unavailable):
        HttpRemoteFeed(client(remote_api), TIMEOUT_MS).read(None, 7)


# --- the limiter -------------------------------------------------------------------------------------------


def count(server: RemoteApiServer, body: object, status: int = 200, raw_key: str = " Raw-Key ") -> tuple[object, ...]:
    server.answer = lambda request: Answer(status, body)
    key = "namespace#realtime-connect-ip#" + RemoteApiKeys().key("realtime-connect-ip", raw_key)
    decision = HttpRates(client(server)).count(key, 60, 0, 60_000, "r", monotonic() + 1)
    return decision.allowed, decision.remaining, decision.retry_after_ms, decision.counted


def rate(allowed: bool, reason: str, retry: int = 0, remaining: int = 5) -> dict[str, object]:
    return {"allowed": allowed, "retryAfterMs": retry, "remaining": remaining, "reason": reason}


def test_counting(remote_api: RemoteApiServer) -> None:
    assert count(remote_api, rate(True, "allowed")) == (True, 5, 0, True)
    hashed = hashlib.sha256(b"raw-key").hexdigest()[:32]
    assert remote_api.requests[0].json == {"scope": "realtime-connect-ip", "key": hashed, "limitPerMinute": 60}
    assert count(remote_api, rate(True, "backend_fail_open")) == (True, 5, 0, False)
    assert count(remote_api, rate(False, "limited", 4000)) == (False, 0, 4000, True)
    assert count(remote_api, rate(False, "limited")) == (False, 0, 1, True)
    assert count(remote_api, rate(False, "limited", 10**9)) == (False, 0, 60_000, True), "not beyond a window"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, rate(False, "backend_fail_closed", 1000)),
        (503, {"error": "x", "reason": "backend_fail_closed"}),
        (400, {"error": "scope is not supported"}),
        (429, {"error": "x"}),
        (200, {"allowed": "yes"}),
        (200, {}),
    ],
)
def test_who_cannot_count_leaves_the_decision_to_the_gateway(
    remote_api: RemoteApiServer, status: int, body: object
) -> None:
    with pytest.raises(Unavailable):
        count(remote_api, body, status)


def test_no_call_after_the_deadline_of_the_decision(remote_api: RemoteApiServer) -> None:
    with pytest.raises(Unavailable):
        HttpRates(client(remote_api)).count("n#s#k", 1, 0, 60_000, "r", monotonic())
    assert not remote_api.requests
    with pytest.raises(ValueError, match="minute"):
        HttpRates(client(remote_api)).count("n#s#k", 1, 0, 30_000, "r", monotonic() + 1)
