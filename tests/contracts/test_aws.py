from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier, Event
from time import monotonic
from typing import Any
from urllib.parse import quote

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.deployment import PATIENCE_S, as_patient_as_the_product
from tests.doubles.platform import ManualClock
from tests.servers.management import ManagementServer
from tidegate import tables
from tidegate.adapters.aws import json_client
from tidegate.adapters.aws.catch_up_queue import read_catch_up, written_catch_up
from tidegate.adapters.aws.credential_cipher import KmsCredentialCipher
from tidegate.adapters.aws.http import Answer, HttpClient, NotAnswered, endpoint_url
from tidegate.adapters.aws.json_client import AwsError, JsonClient
from tidegate.adapters.aws.secrets_manager import REFRESH_S, TTL_S, Secret, WeakSecret
from tidegate.adapters.aws.sigv4 import Credentials, PostSigner, Signer, credentials_from
from tidegate.adapters.dynamodb import client as dynamodb_client
from tidegate.adapters.dynamodb.client import DynamoDb, decode, encode
from tidegate.adapters.password_argon2 import Argon2Passwords
from tidegate.adapters.tokens_jwt import JwtSessionTokens, JwtUserTokens
from tidegate.domain.access import Role
from tidegate.domain.secret_names import LABELS
from tidegate.domain.subscriptions import CatchUpRequest, SubscriptionKey
from tidegate.domain.tokens import SessionClaims, UserClaims
from tidegate.errors import KeyNotYetKnown, SecretUnreadable, Unauthenticated, Unavailable
from tidegate.providers.control_plane import ControlPlaneProviders
from tidegate.providers.delivery import DeliveryProviders, management_endpoint

CREDENTIALS = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "session/token==")


@pytest.mark.parametrize(
    ("path", "body"),
    [("/", b"{}"), ("/live/@connections/L0SM9cOFvHcCIhw%3D", b"x" * 100), ("/a~b/c%2Fd", b"")],
)
def test_signatures_are_those_of_botocore(path: str, body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    headers = Signer(CREDENTIALS, "eu-west-1", "dynamodb").headers(
        "POST", "example.com:8000", path, body, 1_795_507_200.0, {"x-amz-target": "T.Op"}
    )
    theirs = botocore.awsrequest.AWSRequest(
        "POST", f"http://example.com:8000{path}", {"x-amz-target": "T.Op", "host": "example.com:8000"}, body
    )
    keys = botocore.credentials.Credentials(CREDENTIALS.access_key, CREDENTIALS.secret_key, CREDENTIALS.token)
    auth = botocore.auth.SigV4Auth(keys, "dynamodb", "eu-west-1")
    theirs.context["timestamp"] = headers["x-amz-date"]
    theirs.headers["X-Amz-Date"] = headers["x-amz-date"]
    theirs.headers["X-Amz-Security-Token"] = str(CREDENTIALS.token)
    canonical = auth.canonical_request(theirs)
    signature = auth.signature(auth.string_to_sign(theirs, canonical), theirs)
    assert headers["authorization"].endswith(f"Signature={signature}")


@given(
    st.lists(st.tuples(st.text(min_size=1, max_size=20), st.sampled_from([b"", b"a", b"b" * 300])), max_size=6),
    st.floats(1_790_000_000, 1_800_000_000),
    st.booleans(),
)
def test_posts_are_signed_as_any_request(posts: list[tuple[str, bytes]], now: float, token: bool) -> None:
    keys = CREDENTIALS if token else replace(CREDENTIALS, token=None)
    signer = Signer(keys, "eu-west-1", "execute-api")
    made = PostSigner(signer, "example.com:8000", "/live/@connections/")
    for number, (connection, body) in enumerate(posts):
        last = quote(connection, safe="")
        path = f"/live/@connections/{last}"
        at = now + number * 0.4
        head, _, sent = made.request(last, body, at).partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        assert (first, sent) == (f"POST {path} HTTP/1.1", body)
        assert headers.pop("content-length") == str(len(body))
        assert headers == signer.headers("POST", "example.com:8000", path, body, int(at))


def test_secrets_do_not_show() -> None:
    assert "wJalr" not in repr(CREDENTIALS) and "session/token" not in repr(CREDENTIALS)
    with pytest.raises(RuntimeError, match="AWS_SECRET_ACCESS_KEY"):
        credentials_from({"AWS_ACCESS_KEY_ID": "a"})


def test_endpoints() -> None:
    assert endpoint_url("dynamodb", "eu-west-1", {}) == "https://dynamodb.eu-west-1.amazonaws.com"
    assert endpoint_url("sqs", "cn-north-1", {}) == "https://sqs.cn-north-1.amazonaws.com.cn"
    env = {"AWS_ENDPOINT_URL": "http://all/", "AWS_ENDPOINT_URL_DYNAMODB": "http://127.0.0.1:9"}
    assert endpoint_url("dynamodb", "r", env) == "http://127.0.0.1:9" and endpoint_url("kms", "r", env) == "http://all"
    callback = "https://abc.execute-api.eu-west-1.amazonaws.com/live"
    assert management_endpoint(callback, {}) == callback
    assert management_endpoint(callback, env) == "http://all/_aws/execute-api/abc/live"


@pytest.mark.parametrize(
    "value", ["ü", 7, -1.5, True, None, {"a": {"b": []}}, ["x", 1], frozenset({"a", "b"}), {}, 10**15]
)
def test_values_survive(value: Any) -> None:
    assert decode(encode(value)) == value


def test_a_store_that_does_not_answer_is_not_a_no() -> None:
    client = JsonClient(
        "dynamodb", "DynamoDB_20120810", region="r", credentials=CREDENTIALS, base_url="http://127.0.0.1:9"
    )
    with pytest.raises(Unavailable):
        DynamoDb(client).get("t", {"k": "v"}, deadline=monotonic() + 0.3)


def test_lost_answers_and_5xx_are_retried_within_the_deadline(management: ManagementServer) -> None:
    client = JsonClient("x", "T", region="r", credentials=CREDENTIALS, base_url=management.url)
    management.answer = lambda method, path, nth: (500, None, 200)[min(nth, 3) - 1]
    assert client.call("Op", {}) == {}
    assert len(management.requests) == 3
    management.answer = lambda method, path, nth: 500
    with pytest.raises(AwsError) as failed:
        client.call("Op", {}, deadline=monotonic() + 0.2)
    assert failed.value.temporary
    management.answer = lambda method, path, nth: 400
    with pytest.raises(AwsError) as refused:
        client.call("Refused", {})
    # Told apart by their operation: one of the calls above, given up at its deadline, may come in only now.
    tries = [headers for headers in list(management.headers) if headers["x-amz-target"] == "T.Refused"]
    assert not refused.value.temporary and len(tries) == 1


def test_a_connection_the_server_closed_is_opened_again(management: ManagementServer) -> None:
    http = HttpClient(management.url)
    management.answer = lambda method, path, nth: None if nth == 2 else 200
    assert http.request("POST", "/live/x", {}, b"", monotonic() + 5).status == 200
    assert http.request("POST", "/live/x", {}, b"", monotonic() + 5).status == 200
    with pytest.raises(NotAnswered):
        http.request("POST", "/live/x", {}, b"", monotonic() - 1)
    with pytest.raises(ValueError, match="not an http"):
        HttpClient("ftp://x")


def test_moto_is_given_so_long_that_no_call_to_it_is_repeated(
    deployed: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine a write was asked again while moto still worked on it, and met itself: a 409."""
    given_s: list[float] = []

    def answered(_: HttpClient, *request: Any, **_options: object) -> Answer:
        given_s.append(request[4])
        return Answer(200, b"{}")

    monkeypatch.setattr(HttpClient, "request", answered)
    for module in (json_client, dynamodb_client):
        monkeypatch.setattr(module, "monotonic", lambda: 0.0)
    db = ControlPlaneProviders(deployed).db
    db.transact([])
    assert given_s == [PATIENCE_S / 2], "the first of several attempts has half of the time"
    with as_patient_as_the_product():
        db.transact([])
    assert given_s[1:] == [2.5]


@pytest.mark.parametrize("stalled", [1, 3])
def test_stalled_kept_alive_sockets_cost_a_second_and_a_fresh_one_is_tried(
    management: ManagementServer, stalled: int
) -> None:
    client = JsonClient("x", "T", region="r", credentials=CREDENTIALS, base_url=management.url)
    together, over = Barrier(stalled), Event()

    def first(_method: str, _path: str, _nth: int) -> int:
        together.wait(5)  # so that each call has a connection of its own
        return 200

    management.answer = first
    with ThreadPoolExecutor(stalled) as pool:
        list(pool.map(lambda _: client.call("Op", {}), range(stalled)))
    assert management.connections == stalled
    management.answer = lambda method, path, nth: 200 if management.connections > stalled else (over.wait(20), None)[1]
    began = monotonic()
    try:
        assert client.call("Op", {}) == {}
    finally:
        over.set()
    assert 0.9 < monotonic() - began < 2 and management.connections == stalled + 1


def test_a_fresh_connection_that_stalls_leaves_time_for_another(management: ManagementServer) -> None:
    client = JsonClient("x", "T", region="r", credentials=CREDENTIALS, base_url=management.url)
    over = Event()
    management.answer = lambda method, path, nth: 200 if nth > 1 else (over.wait(20), None)[1]
    try:
        assert client.call("Op", {}, deadline=monotonic() + 1) == {}
    finally:
        over.set()
    assert management.connections == 2


# --- secrets and tokens ------------------------------------------------------------------------------------


class FakeSecrets:
    def __init__(self) -> None:
        self.stages: dict[str, str] = {"AWSCURRENT": "one-secret-value-0123456789-abcdefg"}
        self.calls = 0
        self.down = False

    def call(self, operation: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        self.calls += 1
        if self.down:
            raise AwsError("secretsmanager", operation, "NotAnswered", "", True, {})
        if payload["VersionStage"] not in self.stages:
            raise AwsError("secretsmanager", operation, "ResourceNotFoundException", "", False, {})
        return {"SecretString": self.stages[payload["VersionStage"]]}


def secret() -> tuple[Secret, FakeSecrets, ManualClock]:
    fake, clock = FakeSecrets(), ManualClock()
    return Secret(lambda: fake, "arn", clock), fake, clock  # type: ignore[arg-type, return-value]


def test_secrets_are_kept_for_minutes_and_survive_an_outage() -> None:
    one, fake, clock = secret()
    assert one.current() == one.current() and fake.calls == len(LABELS)
    clock.advance(TTL_S)
    fake.down = True
    assert one.current() == fake.stages["AWSCURRENT"]
    fake.down = False
    fake.stages = {"AWSCURRENT": "new", "AWSPREVIOUS": "old"}
    clock.advance(REFRESH_S)
    assert one.values() == ("new", "old") and one.accepts("old") and not one.accepts("older")
    empty, broken, _ = secret()
    broken.down = True
    with pytest.raises(Unavailable):
        empty.current()


def test_weak_secrets_stop_production() -> None:
    _, fake, clock = secret()
    fake.stages["AWSCURRENT"] = "changeme"
    with pytest.raises(WeakSecret) as weak:
        Secret(lambda: fake, "arn", clock, must_be_strong=True).current()  # type: ignore[arg-type, return-value]
    assert "arn" in str(weak.value) and "changeme" not in str(weak.value)


def test_tokens_verify_during_a_rotation_and_after_it() -> None:
    one, fake, clock = secret()
    tokens = JwtSessionTokens(one, "iss", "aud")
    now = int(clock.now())
    claims = SessionClaims("u", "d", "s", "datasource:stream", now, now + 300, "j", "h", None, 1)
    token = tokens.sign(claims)
    assert tokens.verify(token, now) == claims
    rotated_key = "two-secret-value-0123456789-abcdefg"
    other, other_fake, _ = secret()
    other_fake.stages["AWSCURRENT"] = rotated_key
    fresh = JwtSessionTokens(other, "iss", "aud").sign(claims)
    with pytest.raises(KeyNotYetKnown):
        tokens.verify(fresh, now)
    fake.stages = {"AWSCURRENT": rotated_key, "AWSPREVIOUS": fake.stages["AWSCURRENT"]}
    clock.advance(REFRESH_S)
    assert tokens.verify(fresh, now) == claims, "a failed verification looks for a rotation"
    assert tokens.verify(token, now) == claims, "the previous version still verifies"


def test_tokens_of_others_are_refused() -> None:
    one, _, clock = secret()
    now = int(clock.now())
    claims = SessionClaims("u", "d", "s", "datasource:stream", now, now + 300)
    tokens = JwtSessionTokens(one, "iss", "aud")
    users = JwtUserTokens(one, "iss")
    login = users.sign(UserClaims("u", "e@x.example", Role.ADMIN, 1, now, now + 300, "login", now))
    none_header = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0"
    signed = tokens.sign(claims)
    unsigned = f"{none_header}.{signed.split('.')[1]}."
    for bad in ("", "x", "a.b.c", unsigned, login, "x" * 9000, JwtSessionTokens(one, "other", "aud").sign(claims)):
        with pytest.raises(Unauthenticated):
            tokens.verify(bad, now)
    with pytest.raises(Unauthenticated):
        users.verify(signed, now)
    with pytest.raises(Unauthenticated) as expired:
        tokens.verify(signed, now + 300)
    assert expired.value.code == "token_expired"


# --- on moto -----------------------------------------------------------------------------------------------


def test_credentials_open_only_for_their_profile(deployed: Mapping[str, str]) -> None:
    control_plane = ControlPlaneProviders(deployed)
    cipher = KmsCredentialCipher(control_plane.aws("kms", "TrentService", "1.1"), deployed["CREDENTIAL_KEY_ID"])
    sealed = cipher.encrypt("p1", {"token": "very secret"})
    assert "very secret" not in sealed and cipher.decrypt("p1", sealed) == {"token": "very secret"}
    with pytest.raises(SecretUnreadable):
        cipher.decrypt("p2", sealed)
    parts = json.loads(sealed)
    parts["sealed"] = parts["sealed"][:-8] + "AAAAAAA="
    with pytest.raises(SecretUnreadable):
        cipher.decrypt("p1", json.dumps(parts))


def test_catch_ups_are_queued_in_batches(deployed: Mapping[str, str]) -> None:
    import boto3

    sqs = boto3.client("sqs", endpoint_url=deployed["AWS_ENDPOINT_URL"])
    url = sqs.create_queue(QueueName="catch-ups-in-batches")["QueueUrl"]
    queue = DeliveryProviders({**deployed, "CATCH_UP_QUEUE_URL": url}).catch_ups
    asked = [
        CatchUpRequest(SubscriptionKey("d", f"c{number}", "s"), "g", "stream", {"": (number, "é")})
        for number in range(25)
    ]
    assert queue.queue_many(asked, monotonic() + 20) == []
    counted = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessagesDelayed"])
    assert counted["Attributes"] == {"ApproximateNumberOfMessagesDelayed": "25"}
    assert [read_catch_up(written_catch_up(request)) for request in asked] == asked
    gone = DeliveryProviders({**deployed, "CATCH_UP_QUEUE_URL": url, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"})
    assert gone.catch_ups.queue_many(asked, monotonic() + 0.3) == asked


def test_passwords() -> None:
    passwords = Argon2Passwords()
    hashed = passwords.hash("Long-enough-1")
    assert hashed.startswith("$argon2id$") and passwords.verify(hashed, "Long-enough-1")
    assert not passwords.verify(hashed, "other") and not passwords.verify("nonsense", "x")


def test_a_password_costs_what_owasp_asks_for() -> None:
    """Of the module as it is imported by a function: other tests of this process lower the cost."""
    spec = importlib.util.find_spec(Argon2Passwords.__module__)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, spec.name, module)  # where dataclasses look their module up
        spec.loader.exec_module(module)
    assert "$m=19456,t=2,p=1$" in module.Argon2Passwords().hash("Long-enough-1")


def test_limiter_keys_hide_and_differ(deployed: Mapping[str, str]) -> None:
    keys = ControlPlaneProviders(deployed).keys
    assert keys.key("a", "B") == keys.key("a", "b") != keys.key("ab")
    assert len(keys.key("1.2.3.4")) == 32


def test_missing_variables_are_named() -> None:
    with pytest.raises(RuntimeError, match="TIDEGATE_TABLE_ACCESS"):
        ControlPlaneProviders({}).table(tables.ACCESS)


@pytest.mark.parametrize("alias", ["", "live"])
def test_a_relay_worker_is_started_by_its_alias(management: ManagementServer, alias: str) -> None:
    """By whoever is told its name, and by the relay itself, which knows its own."""
    management.answer = lambda _method, _target, _nth: 202
    env = {
        "AWS_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_ENDPOINT_URL_LAMBDA": management.url.removesuffix("/live"),
    }
    name = f"relay:{alias}" if alias else "relay"
    told = DeliveryProviders({**env, "RELAY_FUNCTION": name})
    itself = DeliveryProviders({**env, "AWS_LAMBDA_FUNCTION_NAME": "relay", "RELAY_ALIAS": alias})
    for providers in (told, itself):
        providers.relay_workers.start(1)
    # The colon is encoded, as botocore does it, so that the signature fits.
    path = f"/2015-03-31/functions/{quote(name, safe='')}/invocations"
    assert management.paths == [path, path] and set(management.requests) == {("POST", "invocations")}
