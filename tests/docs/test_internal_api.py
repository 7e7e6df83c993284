"""The page of the internal API has the routes, fields, refusals and limits of the code, and no other."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from pydantic import BaseModel

from functions.api import internal
from scripts.http_api_doc import description
from tests.docs.pages import PACKAGE, REFERENCE, ROOT, code_words, rows, section
from tidegate.adapters.remote_api import client
from tidegate.domain import limits, remote_api
from tidegate.domain.intents import IDLE_TIMEOUT_MS, KEEPALIVE_S, build_intent
from tidegate.domain.profiles import BrokerProfile, CredentialProfile, CredentialType, Transport
from tidegate.domain.tokens import SessionClaims, session_payload

PAGE = (REFERENCE / "internal-api.md").read_text()
#: Where the texts of refusals are written down.
SOURCES = [
    ROOT / "functions/api/internal.py",
    *(PACKAGE / name for name in ("usecases/control_plane/internal_api.py", "usecases/gateway/authorizer.py")),
    *(PACKAGE / name for name in ("domain/stream_policy.py", "usecases/limits/rate_limits.py")),
    ROOT / "functions/api/deps.py",
]
MODELS: list[tuple[str, str, type[BaseModel]]] = [
    ("datasource-introspect", "request field", internal.IntrospectRequest),
    ("datasource-introspect", "answer field", internal.IntrospectAnswer),
    ("revoked-tokens", "request field", internal.RevokedTokensRequest),
    ("revoked-tokens", "answer field", internal.RevokedTokensAnswer),
    ("revoked-tokens", "event field", internal.RevokedToken),
    ("rate-limit/consume", "request field", internal.ConsumeRequest),
    ("rate-limit/consume", "answer field", internal.ConsumeAnswer),
]


def listed(heading: str, head: str) -> dict[str, list[str]]:
    """The rows of the table with this first head, by what their first cell names."""
    for table in re.findall(r"(?:^\|.*\|\n?)+", section(PAGE, heading), re.M):
        if table.startswith(f"| {head} |"):
            return {code_words(row[0])[0]: row for row in rows(table)}
    raise AssertionError(f"no table of {head} under {heading}")


def texts(files: list[Path]) -> set[str]:
    """All strings that are written down in these files."""
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text()))]
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def test_every_route_has_a_section() -> None:
    routes = [route.path for route in internal.router.routes if isinstance(route, APIRoute)]
    assert [path.removeprefix("/internal/gateway/") for path in routes] == [
        "datasource-introspect",
        "revoked-tokens",
        "rate-limit/consume",
    ]
    assert {f"POST {path}" for path in routes} <= set(code_words(PAGE))
    assert {client.INTROSPECT, client.REVOKED_TOKENS, client.CONSUME} == set(routes)


@pytest.mark.parametrize(("heading", "head", "model"), MODELS, ids=lambda value: getattr(value, "__name__", value))
def test_fields_are_those_of_the_models(heading: str, head: str, model: type[BaseModel]) -> None:
    described = listed(heading, head)
    assert described.keys() == model.model_fields.keys()
    if head == "request field":
        required = {name for name, row in described.items() if "required" in row[1]}
        assert required | {"limitPerMinute"} == {
            name for name, field in model.model_fields.items() if field.is_required()
        } | {"limitPerMinute"}


def refusals() -> list[tuple[str, str]]:
    """(status, text) of each refusal on the page."""
    found = []
    for row in rows(PAGE):
        if re.fullmatch(r"[45]\d\d", row[0]):
            found += [(row[0], text) for text in code_words(row[1]) if " " in text or text[0].isupper()]
    return found


@pytest.mark.parametrize(("status", "text"), refusals())
def test_the_texts_of_refusals_are_in_the_code(status: str, text: str) -> None:
    assert text in texts(SOURCES)


def test_the_texts_of_the_code_are_on_the_page() -> None:
    raised = {
        node.args[0].value
        for file in SOURCES[:3]
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", "") in ("InvalidInput", "Denied", "NotFound")
        and isinstance(node.args[0], ast.Constant)
    }
    assert len(raised) > 10 and raised <= {text for _, text in refusals()}


def test_statuses_are_those_of_the_description() -> None:
    operations = [path["post"] for name, path in description()["paths"].items() if name.startswith("/internal/")]
    described = set().union(*(operation["responses"] for operation in operations)) - {"200"}
    assert {status for status, _ in refusals()} == described


def intent(kind: str) -> dict[str, Any]:
    if kind == "mqtt":
        broker = BrokerProfile("b", "b", Transport.EXTERNAL, "mqtt://x", credential_profile_id="c")
        credential = CredentialProfile("c", "c", CredentialType.BASIC)
        settings = {"brokerProfileId": "b", "topic": "a/b"}
        return build_intent("d", {"id": "s", "type": kind, "settings": settings}, broker=broker, credential=credential)
    return build_intent("d", {"id": "s", "type": kind, "settings": {"url": "https://example.com"}})


@pytest.mark.parametrize(
    ("heading", "kind", "added"),
    [
        ("The intent of SSE and WebSocket", "sse", set()),
        ("The intent of SSE and WebSocket", "websocket", set()),
        ("The intent of MQTT", "mqtt", {"tls", "topicAllowlist", "username", "password"}),
    ],
)
def test_intents_have_the_fields_that_are_built(heading: str, kind: str, added: set[str]) -> None:
    kept = intent(kind).keys() - {"dashboardId", "datasourceId", "brokerRevision", "credentialRevision"}
    assert listed(heading, "field").keys() == kept | added


def test_what_a_gateway_reads_is_marked() -> None:
    code = (PACKAGE / "domain/remote_api.py").read_text()
    for heading in ("The intent of SSE and WebSocket", "The intent of MQTT"):
        for name, row in listed(heading, "field").items():
            assert (f'"{name}"' in code) is not row[2].startswith("not read"), name


def test_claims_are_those_of_a_token() -> None:
    claims = SessionClaims("u", "d", "s", "datasource:stream", 1, 2, session_version=1, viewer_id="v")
    assert listed("Session tokens", "claim").keys() == session_payload(claims).keys() | {"iss", "aud"}


def test_numbers_are_those_of_the_code() -> None:
    numbers = {
        f"{internal.MAX_BODY // 1024} KB",
        f"{client.MAX_BODY // 1024**2} MB",
        f"{limits.MAX_GATEWAY_LIMIT:,}",
        f"{remote_api._MAX_CURSOR:,} characters",
        f"{IDLE_TIMEOUT_MS[0]} to {IDLE_TIMEOUT_MS[1]:,}",
        f"{KEEPALIVE_S[0]} to {KEEPALIVE_S[1]:,}",
    }
    flowing = re.sub(r"\s+", " ", PAGE)
    assert not [number for number in numbers if number not in flowing]
    assert set(limits.GATEWAY_SCOPES) <= set(code_words(listed("rate-limit/consume", "request field")["scope"][2]))
