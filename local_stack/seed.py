"""Demo data, made through the API as people would; only the first admin is written from outside."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from local_stack import boards
from local_stack.config import Config, StackError
from local_stack.deployment import Deployed
from local_stack.device import THING
from ops.admin import first_admin

EMAILS = {"admin": "admin@example.com", "editor": "editor@example.com", "viewer": "viewer@example.com"}
#: Topics below this are the demo device's own.
OWN = f"demo/{THING}"
TOPICS = {"private": f"{OWN}/private", "link": f"{OWN}/link", "public": f"{OWN}/public"}

#: Five messages a second, where the fake upstreams say one by themselves.
LIVELY = "?rate=5"


class Api:
    """The API as a signed-in user sees it."""

    def __init__(self, base_url: str, token: str | None = None, address: str = "127.0.0.1") -> None:
        """`address` is the loopback address to come from: each is another client to the limits."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        transport = httpx.HTTPTransport(local_address=address)
        self._http = httpx.Client(base_url=base_url, headers=headers, timeout=30, transport=transport)

    @staticmethod
    def login(base_url: str, email: str, password: str) -> Api:
        token = Api(base_url).call("POST", "/api/auth/login", {"email": email, "password": password})["token"]
        return Api(base_url, token)

    def request(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        return self._http.request(method, path, json=body, headers=headers)

    def call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> Any:
        """The answer's JSON. Raises `StackError` when the API refuses."""
        answer = self.request(method, path, body, headers)
        if answer.is_error:
            raise StackError(f"{method} {path} answered {answer.status_code}: {answer.text[:500]}")
        return answer.json() if answer.content else None


def document(title: str, datasources: list[dict[str, Any]]) -> dict[str, Any]:
    """A dashboard's document."""
    return {"document": {"schemaVersion": 1, "title": title, "datasources": datasources}}


def mqtt(datasource_id: str, broker_id: str, topic: str, parser: str = "json") -> dict[str, Any]:
    """An MQTT datasource."""
    settings = {"brokerProfileId": broker_id, "topic": topic, "parser": parser}
    return {"id": datasource_id, "type": "mqtt", "title": datasource_id, "settings": settings}


def stream(kind: str, url: str, credential_id: str | None = None, datasource_id: str | None = None) -> dict[str, Any]:
    """An SSE or WebSocket datasource."""
    settings = {"url": url} | ({"credentialProfileId": credential_id} if credential_id else {})
    name = datasource_id or kind
    return {"id": name, "type": kind, "title": name, "settings": settings}


def origin(url: str) -> str:
    """The destination that a credential profile needs for this URL: its scheme, host and port."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def seed(config: Config, deployed: Deployed, upstreams: Mapping[str, str]) -> dict[str, Any]:
    """Make the demo data; returns the `users` and `demo` parts of `stack.json`.

    `upstreams` is the `fake_upstreams` part of `stack.json`.
    """
    passwords = {role: f"{secrets.token_urlsafe(12)}-aZ7" for role in EMAILS}
    env = {**config.aws_environment(), **deployed.tables(), "TIDEGATE_ENV": "development"}
    first_admin(env, EMAILS["admin"], passwords["admin"])
    admin = Api.login(config.edge_url, EMAILS["admin"], passwords["admin"])
    people = {}
    for role in ("editor", "viewer"):
        body = {"email": EMAILS[role], "role": role, "password": passwords[role]}
        people[role] = admin.call("POST", "/api/users", body)["user"]["id"]
    public_broker = _broker(admin, "IoT Core (public use)", public=True)
    members_broker = _broker(admin, "IoT Core (members only)", public=False)
    bearer = {
        "name": "Fake upstreams (bearer)",
        "type": "bearer",
        "allowPublicUse": True,
        "destinations": [origin(upstreams["sse_protected_url"]), origin(upstreams["websocket_protected_url"])],
        "secret": {"token": upstreams["secret"]},
    }
    credential = admin.call("POST", "/api/credential-profiles", bearer)["id"]
    plain_broker = external_broker(admin, "Fake upstreams (MQTT)", upstreams["mqtt_url"])
    basic = basic_credential(admin, "Fake upstreams (basic)", upstreams["username"], upstreams["secret"])
    authority = Path(upstreams["ca"]).read_text(encoding="ascii")
    tls_broker = external_broker(admin, "Fake upstreams (MQTT over TLS)", upstreams["mqtts_url"], basic, authority)
    editor = Api.login(config.edge_url, EMAILS["editor"], passwords["editor"])
    demo: dict[str, Any] = {"brokers": {"public": public_broker, "members": members_broker}}
    for visibility, topic in TOPICS.items():
        datasources = [
            mqtt("telemetry", members_broker if visibility == "private" else public_broker, topic),
            mqtt("text", public_broker, f"{topic}/text", "text"),
            mqtt("fleet", public_broker, f"{topic}/fleet/+/state"),
            mqtt("members", members_broker, f"{topic}/members"),
            stream("sse", upstreams["sse_url"] + LIVELY),
            stream("websocket", upstreams["websocket_url"] + LIVELY),
            stream("sse", upstreams["sse_protected_url"] + LIVELY, credential, "protected"),
            mqtt("external", plain_broker, "site/north/temperature"),
            mqtt("external-protected", tls_broker, "protected/temperature"),
        ]
        made = _shown_to(editor, visibility, document(f"Demo, {visibility}", datasources))
        demo[visibility] = {"dashboardId": made["id"], "datasourceId": "telemetry", "topic": topic}
        if visibility == "link":
            demo[visibility]["shareToken"] = made["shareToken"]
    for visibility, drawn in boards.documents(public_broker, upstreams).items():
        made = _shown_to(editor, visibility, {"document": drawn})
        demo[visibility]["board"] = {"dashboardId": made["id"], "shareToken": made["shareToken"]}
    users = {role: {"email": EMAILS[role], "password": passwords[role]} for role in EMAILS}
    return {"users": users, "demo": demo}


def _shown_to(editor: Api, visibility: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Make a dashboard of this visibility. A private one has the viewer among its members."""
    made: dict[str, Any] = editor.call("POST", "/api/dashboards", body)
    if visibility == "private":
        editor.call("PUT", f"/api/dashboards/{made['id']}/acl", {"email": EMAILS["viewer"], "level": "viewer"})
    else:
        made = editor.call("PUT", f"/api/dashboards/{made['id']}/visibility", {"visibility": visibility})
    return made


def _broker(admin: Api, name: str, *, public: bool) -> str:
    body = {"name": name, "transport": "iot-core", "allowPublicUse": public, "topicAllowlist": ["demo/#"]}
    return str(admin.call("POST", "/api/broker-profiles", body)["id"])


def external_broker(
    admin: Api, name: str, url: str, credential_id: str | None = None, authority: str | None = None
) -> str:
    """A broker of the outside, for public use; `authority`: a certificate that is trusted besides, PEM."""
    body: dict[str, Any] = {"name": name, "transport": "external", "brokerUrl": url, "allowPublicUse": True}
    body |= {"topicAllowlist": ["site/#", "protected/#"]}
    if credential_id is not None:
        body["credentialProfileId"] = credential_id
    if authority is not None:
        body["tls"] = {"ca": authority}
    return str(admin.call("POST", "/api/broker-profiles", body)["id"])


def basic_credential(admin: Api, name: str, username: str, password: str) -> str:
    """A user name and password for brokers, for public use. Without destinations they go to no URL."""
    secret = {"username": username, "password": password}
    body = {"name": name, "type": "basic", "allowPublicUse": True, "secret": secret}
    return str(admin.call("POST", "/api/credential-profiles", body)["id"])
