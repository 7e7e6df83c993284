"""A sealed credential that cannot be opened, and a key service that does not answer: two things, told apart.

The cipher, the profiles and the use cases are the real ones, over moto's KMS and DynamoDB.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from functions.api.main import make_handler
from functions.api.wiring import api_services
from local_stack.seed import document
from ops.admin import first_admin
from tests.contracts.test_credential_key import Watched
from tests.deployment import REGION, SECRETS
from tests.functions.events import request
from tidegate.adapters.aws.credential_cipher import KmsCredentialCipher
from tidegate.adapters.aws.json_client import JsonClient
from tidegate.adapters.aws.sigv4 import Credentials
from tidegate.adapters.dynamodb.client import DynamoDb
from tidegate.adapters.dynamodb.profiles import DynamoProfiles
from tidegate.domain.profiles import CREDENTIAL, CredentialProfile, CredentialType
from tidegate.domain.subscriptions import Stream
from tidegate.errors import SecretUnreadable, TidegateError, Unavailable
from tidegate.ports.control_plane import CredentialCipher
from tidegate.ports.relay import UpstreamFault, UpstreamRequest
from tidegate.protocol.messages import ErrorCode
from tidegate.providers.control_plane import ControlPlaneProviders
from tidegate.tables import PROFILES
from tidegate.usecases.relay.check_credentials import CheckCredentials
from tidegate.usecases.relay.upstream_requests import StoredUpstreamRequests

INTENT = {
    "protocol": "sse",
    "url": "https://upstream.example/",
    "headers": {},
    "authPlacement": "header",
    "credentialProfileId": "p",
    "credentialRevision": 1,
}
STREAM = Stream("stream", "sse", "json", None, None, last_requested_at=0, intent=INTENT)


def cipher_of(env: Mapping[str, str]) -> KmsCredentialCipher:
    return KmsCredentialCipher(ControlPlaneProviders(env).aws("kms", "TrentService", "1.1"), env["CREDENTIAL_KEY_ID"])


def store(env: Mapping[str, str], sealed: str | None) -> None:
    profile = CredentialProfile(
        "p", "p", CredentialType.BEARER, ("https://upstream.example:443",), secret_keys=("token",)
    )
    ControlPlaneProviders(env).profiles.write_credential(None, profile, sealed)


def requests(env: Mapping[str, str], cipher: CredentialCipher | None = None) -> StoredUpstreamRequests:
    return StoredUpstreamRequests(profiles=ControlPlaneProviders(env).profiles, cipher=cipher or cipher_of(env))


def without(name: str) -> Callable[[dict[str, str]], None]:
    return lambda parts: parts.update({name: parts.pop(name) and "AAAA"})


def moved_bytes(name: str) -> Callable[[dict[str, str]], None]:
    def change(parts: dict[str, str]) -> None:
        data = bytearray(base64.b64decode(parts[name]))
        data[-1] ^= 1
        parts[name] = base64.b64encode(bytes(data)).decode()

    return change


DAMAGED: dict[str, Callable[[str], str]] = {
    "another tag": lambda sealed: changed(sealed, moved_bytes("sealed")),
    "another nonce": lambda sealed: changed(sealed, moved_bytes("nonce")),
    "a short nonce": lambda sealed: changed(sealed, without("nonce")),
    "another wrapped key": lambda sealed: changed(sealed, without("key")),
    "no Base64": lambda sealed: changed(sealed, lambda parts: parts.update(key="?")),
    "a part missing": lambda sealed: changed(sealed, lambda parts: parts.pop("nonce")),
    "no JSON": lambda sealed: sealed[:-1],
    "no object": lambda _sealed: "[]",
}


def changed(sealed: str, change: Callable[[dict[str, str]], object]) -> str:
    parts = json.loads(sealed)
    change(parts)
    return json.dumps(parts)


def refused(env: Mapping[str, str]) -> None:
    """What the relay makes of it: refused, so it asks again as seldom as it can."""
    with pytest.raises(UpstreamFault) as fault:
        requests(env)(STREAM)
    assert fault.value.refused and fault.value.code is ErrorCode.AUTH_FAILED
    assert fault.value.text == "The credential cannot be read"


def test_a_sound_secret_is_placed(deployed: Mapping[str, str]) -> None:
    store(deployed, cipher_of(deployed).encrypt("p", {"token": "t0ken"}))
    made = requests(deployed)(STREAM)
    assert isinstance(made, UpstreamRequest) and made.credential is not None
    assert made.credential.sent(made.url, {}, "sse") == (made.url, {"Authorization": "Bearer t0ken"})


def test_a_check_and_a_connect_are_one_read_each(deployed: Mapping[str, str]) -> None:
    """And the connect has the secret and what belongs to it from the same moment, because it is one item."""
    store(deployed, cipher_of(deployed).encrypt("p", {"token": "t0ken"}))
    providers, asked, noted = ControlPlaneProviders(deployed), list[str](), list[int | None]()
    db = Watched(providers.aws("dynamodb", "DynamoDB_20120810", "1.0"), asked.append)
    profiles = DynamoProfiles(DynamoDb(db), deployed[PROFILES.variable])  # type: ignore[arg-type]
    check = CheckCredentials(profiles=profiles, observer=providers.observer)
    asyncio.run(check([(STREAM, noted.append)] * 50))
    assert asked == ["GetItem", "GetItem done"] and noted == [1] * 50
    asked.clear()
    StoredUpstreamRequests(profiles=profiles, cipher=cipher_of(deployed))(STREAM)
    assert asked == ["GetItem", "GetItem done"]


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_secret_is_refused(deployed: Mapping[str, str], damage: str) -> None:
    sealed = DAMAGED[damage](cipher_of(deployed).encrypt("p", {"token": "t0ken"}))
    with pytest.raises(SecretUnreadable) as unreadable:
        cipher_of(deployed).decrypt("p", sealed)
    assert "t0ken" not in str(unreadable.value) and not unreadable.value.temporary
    store(deployed, sealed)
    refused(deployed)


def test_the_secret_of_another_profile_is_refused(deployed: Mapping[str, str]) -> None:
    store(deployed, cipher_of(deployed).encrypt("other", {"token": "t0ken"}))
    refused(deployed)


def test_a_profile_without_its_secret_is_refused(deployed: Mapping[str, str]) -> None:
    store(deployed, None)
    refused(deployed)


@contextmanager
def key_service(status: int, code: str) -> Iterator[KmsCredentialCipher]:
    """A key service that always answers with one error: moto does not throttle, and opens with disabled keys."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            body = json.dumps({"__type": code}).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield cipher_at(f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def cipher_at(url: str) -> KmsCredentialCipher:
    keys = Credentials("a", "b")
    client = JsonClient("kms", "TrentService", version="1.1", region=REGION, credentials=keys, base_url=url)
    return KmsCredentialCipher(client, "key")


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (400, "ThrottlingException", Unavailable),
        (500, "KMSInternalException", Unavailable),
        (503, "DependencyTimeoutException", Unavailable),
        (500, "KeyUnavailableException", Unavailable),
        (400, "ExpiredTokenException", Unavailable),
        (400, "InvalidCiphertextException", SecretUnreadable),
        (400, "DisabledException", SecretUnreadable),
        (400, "KMSInvalidStateException", SecretUnreadable),
        (400, "AccessDeniedException", SecretUnreadable),
    ],
)
def test_what_the_key_service_says(
    deployed: Mapping[str, str], status: int, code: str, expected: type[TidegateError]
) -> None:
    sealed = cipher_of(deployed).encrypt("p", {"token": "t0ken"})
    store(deployed, sealed)
    with key_service(status, code) as cipher:
        with pytest.raises(expected):
            cipher.decrypt("p", sealed)
        with pytest.raises(UpstreamFault if expected is SecretUnreadable else Unavailable):
            requests(deployed, cipher)(STREAM)
        with pytest.raises(Unavailable):
            cipher.encrypt("p", {"token": "t0ken"})


def test_a_key_service_that_is_not_there_is_no_refusal(deployed: Mapping[str, str]) -> None:
    store(deployed, cipher_of(deployed).encrypt("p", {"token": "t0ken"}))
    with pytest.raises(Unavailable):
        requests(deployed, cipher_at("http://127.0.0.1:9"))(STREAM)


# --- introspection ------------------------------------------------------------------------------------------


def test_introspection_of_an_unreadable_credential_refuses_nobody(deployed: Mapping[str, str]) -> None:
    """A 403 would have the asking gateway end its viewers; a 500 says that the fault is on this side."""
    handler = make_handler(api_services(deployed))
    first_admin(deployed, "admin@x.example", "Long-enough-1")

    def call(path: str, body: object, token: str) -> tuple[int, Any]:
        answer = handler(request("POST", path, body, authorization=f"Bearer {token}"), None)
        return answer["statusCode"], json.loads(answer["body"])

    login = call("/api/auth/login", {"email": "admin@x.example", "password": "Long-enough-1"}, "")[1]["token"]
    secret = {"name": "c", "type": "bearer", "destinations": ["https://up.example"], "secret": {"token": "t0ken"}}
    profile_id = call("/api/credential-profiles", secret, login)[1]["id"]
    source = {"id": "s", "type": "sse", "settings": {"url": "https://up.example/", "credentialProfileId": profile_id}}
    made = call("/api/dashboards", document("T", [source]), login)
    assert made[0] == 201, made
    session = {"dashboardId": made[1]["id"], "datasourceId": "s"}
    token = call("/api/datasource-sessions", session, login)[1]["token"]
    path, service = "/internal/gateway/datasource-introspect", SECRETS["GATEWAY_SERVICE_TOKEN_ARN"]
    assert call(path, {"sessionToken": token}, service)[0] == 200
    profiles = ControlPlaneProviders(deployed).profiles
    item = profiles._db.get(profiles._table, {"kind": CREDENTIAL, "id": profile_id})
    assert item is not None
    profiles._db.put(profiles._table, item | {"sealed": item["sealed"][:-1]})
    assert call(path, {"sessionToken": token}, service) == (500, {"error": "Datasource introspection failed"})


def test_a_profile_that_needs_no_secret_any_more_does_not_keep_one(deployed: Mapping[str, str]) -> None:
    """A change without a secret keeps the stored one; a change to `none` takes it away, so nobody places it again."""
    profiles = ControlPlaneProviders(deployed).profiles
    bearer = CredentialProfile("p", "p", CredentialType.BEARER, secret_keys=("token",))
    profiles.write_credential(None, bearer, "sealed")
    renamed = replace(bearer, name="renamed", revision=bearer.revision + 1)
    profiles.write_credential(bearer, renamed, None)
    assert profiles.sealed_secret("p") == "sealed"
    without_secret = replace(renamed, type=CredentialType.NONE, secret_keys=(), revision=renamed.revision + 1)
    profiles.write_credential(renamed, without_secret, None)
    assert profiles.sealed_secret("p") is None
