"""What introspection really answers has the fields of the internal-API page, with a credential in place and without."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.docs.test_internal_api import listed
from tidegate.domain.access import Claim, Principal
from tidegate.domain.intents import build_intent
from tidegate.domain.profiles import BrokerProfile, CredentialProfile, CredentialType, Transport
from tidegate.usecases.control_plane.internal_api import Introspect
from tidegate.usecases.gateway.authorizer import Admitted

SECRET = {"username": "u", "password": "p", "token": "t"}


def answered(
    datasource: dict[str, object], broker: BrokerProfile | None, credential: CredentialProfile | None
) -> dict[str, Any]:
    """The intent that introspection answers with for a datasource."""
    intent = build_intent("d", datasource, broker=broker, credential=credential)
    claim = Claim("d", "s", Principal("u", None, 1), "h", 1)
    claims = SimpleNamespace(dashboard_id="d", datasource_id="s", scope="datasource:stream", for_dashboard=False)
    stubs: dict[str, Any] = {
        "tokens": SimpleNamespace(verify=lambda *_: claims),
        "authorizer": SimpleNamespace(
            check=lambda *_: Admitted(claim, member=True, owner_id="owner"),
            intent=lambda _: intent,
            profiles_of=lambda _, member: (broker, credential),
        ),
        "profiles": SimpleNamespace(sealed_secret=lambda _: "sealed"),
        "cipher": SimpleNamespace(decrypt=lambda *_: SECRET),
        "clock": SimpleNamespace(now=lambda: 0.0),
    }
    found: dict[str, Any] = Introspect(**stubs)("token", None, None)["intent"]
    return found


@pytest.mark.parametrize("kind", ["sse", "websocket"])
def test_an_http_intent(kind: str) -> None:
    fields = listed("The intent of SSE and WebSocket", "field")
    settings: dict[str, object] = {"url": f"{'https' if kind == 'sse' else 'wss'}://up.example/s"}
    assert answered({"id": "s", "type": kind, "settings": settings}, None, None).keys() == fields.keys()
    credential = CredentialProfile(
        "c", "c", CredentialType.BEARER, ("https://up.example:443", "wss://up.example:443"), secret_keys=("token",)
    )
    settings |= {"credentialProfileId": "c"}
    placed = answered({"id": "s", "type": kind, "settings": settings}, None, credential)
    assert placed["headers"] == {"Authorization": "Bearer t"}
    absent = {name for name, row in fields.items() if "absent when a credential was placed" in row[2]}
    assert placed.keys() == fields.keys() - absent and absent


def test_an_mqtt_intent() -> None:
    broker = BrokerProfile("b", "b", Transport.EXTERNAL, "mqtts://broker.example", "c")
    credential = CredentialProfile("c", "c", CredentialType.BASIC, secret_keys=("username", "password"))
    datasource: dict[str, object] = {"id": "s", "type": "mqtt", "settings": {"brokerProfileId": "b", "topic": "a"}}
    assert answered(datasource, broker, credential).keys() == listed("The intent of MQTT", "field").keys()
