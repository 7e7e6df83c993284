"""The internal-API page has every route, field, text and number of the code, and no other."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel

from functions.api import internal
from tidegate.adapters.remote_api import client
from tidegate.domain.access import Claim, Principal
from tidegate.domain.intents import build_intent
from tidegate.domain.limits import GATEWAY_SCOPES, MAX_GATEWAY_LIMIT
from tidegate.domain.profiles import BrokerProfile, CredentialProfile, CredentialType, Transport
from tidegate.usecases.control_plane.internal_api import Introspect

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "layers/tidegate/python/tidegate"
PAGE = (ROOT / "docs/reference/internal-api.md").read_text()
#: Where the texts of errors are.
SOURCES = [
    ROOT / "functions/api/internal.py",
    PACKAGE / "usecases/control_plane/internal_api.py",
    PACKAGE / "usecases/gateway/authorizer.py",
    PACKAGE / "domain/stream_policy.py",
]


def tables(text: str, first_column: str) -> list[dict[str, str]]:
    """The tables of a text whose first column has this title, each as first cell -> rest of the row."""
    found: list[dict[str, str]] = []
    inside = False
    for line in text.splitlines():
        if line.startswith(f"| {first_column} |"):
            inside = True
            found.append({})
        elif not line.startswith("|"):
            inside = False
        elif inside and not line.startswith("|---"):
            first, _, rest = line.strip("| ").partition(" | ")
            found[-1][first.strip("`")] = rest
    return found


def section(route: str) -> str:
    found = re.search(rf"^## POST {re.escape(route)}\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
    assert found, route
    return found.group(1)


BASE = "/internal/gateway/"


@pytest.mark.parametrize(
    ("path", "request_model", "answer_model"),
    [
        ("datasource-introspect", internal.IntrospectRequest, internal.IntrospectAnswer),
        ("revoked-tokens", internal.RevokedTokensRequest, internal.RevokedTokensAnswer),
        ("rate-limit/consume", internal.ConsumeRequest, internal.ConsumeAnswer),
    ],
)
def test_the_fields_of_a_route_are_there(
    path: str, request_model: type[BaseModel], answer_model: type[BaseModel]
) -> None:
    text = section(BASE + path)
    (asked,), (answered,) = tables(text, "request"), tables(text, "answer")
    assert set(asked) == set(request_model.model_fields)
    assert set(answered) == set(answer_model.model_fields)


def test_the_page_has_the_routes_there_are_on_both_sides() -> None:
    served = {route.path for route in internal.router.routes if hasattr(route, "path")}
    assert served == set(re.findall(r"^## POST (\S+)$", PAGE, re.M))
    assert served == {client.INTROSPECT, client.REVOKED_TOKENS, client.CONSUME}
    (listed,) = tables(PAGE, "route")
    assert len(listed) == len(served)


def test_the_fields_of_an_event_are_there() -> None:
    (event,) = tables(section(client.REVOKED_TOKENS), "event")
    assert set(event) == set(internal.RevokedToken.model_fields)


def answered(
    datasource: dict[str, object], broker: BrokerProfile | None, credential: CredentialProfile | None
) -> dict[str, Any]:
    """The intent introspection answers with for a datasource."""
    intent = build_intent("d", datasource, broker=broker, credential=credential)
    claim = Claim("d", "s", Principal("u", None, 1), "h", 1)
    authorizer = SimpleNamespace(
        check=lambda *_: claim, intent=lambda _: intent, profiles_of=lambda _, public: (broker, credential)
    )
    claims = SimpleNamespace(dashboard_id="d", datasource_id="s", scope="datasource:stream")
    stubs: dict[str, Any] = {
        "tokens": SimpleNamespace(verify=lambda *_: claims),
        "authorizer": authorizer,
        "profiles": SimpleNamespace(sealed_secret=lambda _: "sealed"),
        "cipher": SimpleNamespace(decrypt=lambda *_: {"username": "u", "password": "p", "token": "t"}),
        "clock": SimpleNamespace(now=lambda: 0.0),
    }
    found: dict[str, Any] = Introspect(**stubs)("token", None, None)["intent"]
    return found


@pytest.mark.parametrize("kind", ["sse", "websocket"])
def test_the_fields_of_an_http_intent_are_there(kind: str) -> None:
    (fields,) = tables(section(client.INTROSPECT), "`sse` and `websocket`")
    settings: dict[str, object] = {"url": "https://up.example/s"}
    plain = answered({"id": "s", "type": kind, "settings": settings}, None, None)
    assert set(fields) == set(plain)
    credential = CredentialProfile("c", "c", CredentialType.BEARER, secret_keys=("token",))
    settings = settings | {"credentialProfileId": "c"}
    placed = answered({"id": "s", "type": kind, "settings": settings}, None, credential)
    assert set(fields) - {"queryParamName"} == set(placed)
    assert "only if the datasource uses no credential" in fields["queryParamName"]


def test_the_fields_of_an_mqtt_intent_are_there() -> None:
    (fields,) = tables(section(client.INTROSPECT), "`mqtt`")
    broker = BrokerProfile("b", "b", Transport.EXTERNAL, "mqtts://broker.example", "c")
    credential = CredentialProfile("c", "c", CredentialType.BASIC, secret_keys=("username", "password"))
    datasource: dict[str, object] = {"id": "s", "type": "mqtt", "settings": {"brokerProfileId": "b", "topic": "a"}}
    assert set(fields) == set(answered(datasource, broker, credential))


def test_every_text_of_an_error_is_the_codes() -> None:
    code = "\n".join(path.read_text() for path in SOURCES)
    on_the_page = set(re.findall(r"^\| [\d, ]+ \| `([^`]+)` \|", PAGE, re.M))
    assert len(on_the_page) > 20
    assert {text for text in on_the_page if f'"{text}"' not in code} == set()
    raised = set(
        re.findall(
            r'(?:Denied|NotFound|InvalidInput)\(\s*"([^"]+)"', "\n".join(path.read_text() for path in SOURCES[:3])
        )
    )
    assert raised - on_the_page == set()


def test_the_numbers_are_the_codes() -> None:
    assert f"at most {internal.MAX_BODY // 1024} KiB" in PAGE
    assert f"more than {client.MAX_BODY // 1024 // 1024} MiB" in PAGE
    assert f"at most {MAX_GATEWAY_LIMIT:,}" in PAGE
    (scopes,) = tables(PAGE, "scope")
    assert set(scopes) == set(GATEWAY_SCOPES)
    (reasons,) = tables(PAGE, "reason")
    code = "\n".join(path.read_text() for path in SOURCES[:2])
    assert all(f'"{reason}"' in code for reason in reasons) and len(reasons) == 4
