"""The handlers of the API and of the gateway in this process, over fresh tables, as viewers and editors call them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from benchmarks.tables import Tables
from functions.api.main import make_handler as api_handler
from functions.api.wiring import api_services
from functions.gateway_connect import connect, messages
from functions.gateway_connect.wiring import connect_services, message_services
from local_stack.config import ROOT, Config, StackError
from local_stack.deployment import client
from local_stack.seed import document
from ops.admin import first_admin
from tidegate.adapters.json_observer import JsonObserver
from tidegate.domain.secret_names import SECRETS

_EVENTS = ROOT / "fixtures/events"
_ADMIN = {"email": "admin@example.com", "password": "a-Password-of-the-bench-1"}


class Handlers:
    """The functions of the API and of the gateway, over tables that are deployed."""

    def __init__(self, env: Mapping[str, str]) -> None:
        api, connecting, message = api_services(env), connect_services(env), message_services(env)
        for services in (api, connecting, message):
            unheard(services.observer)
        self._api = api_handler(api)
        self._connect = connect.make_handler(connecting)
        self._message = messages.make_handler(message)
        self._env = env
        self._login = ""

    def broker(self) -> str:
        """Create and log in the admin who edits from now on. Returns the id of a broker profile. Once for tables."""
        first_admin(self._env, **_ADMIN)
        self._login = self.call("POST", "/api/auth/login", _ADMIN)["token"]
        profile = {"name": "bench", "transport": "iot-core", "allowPublicUse": True}
        return str(self.edit("POST", "/api/broker-profiles", profile)["id"])

    def edit(self, method: str, path: str, body: object) -> Any:
        """As `call`, by the admin."""
        return self.call(method, path, body, bearer=self._login)

    def call(self, method: str, path: str, body: object = None, *, bearer: str = "", address: str = "192.0.2.1") -> Any:
        """The answer's JSON. Raises `StackError` when the API refuses."""
        return json.loads(self.answer(method, path, body, bearer=bearer, address=address))

    def answer(self, method: str, path: str, body: object, *, bearer: str, address: str) -> str:
        """The answer's text. `path` may have a query. Raises `StackError` when the API refuses."""
        path, _, query = path.partition("?")
        event = _event("http_api") | {"rawPath": path, "rawQueryString": query, "body": json.dumps(body)}
        event["requestContext"]["http"] |= {"method": method, "path": path, "sourceIp": address}
        event["headers"] |= {"authorization": f"Bearer {bearer}"} if bearer else {}
        answer = self._api(event, None)
        if answer["statusCode"] >= 300:
            raise StackError(f"{method} {path} answered {answer['statusCode']}: {answer['body']}")
        return str(answer["body"])

    def open(self, connection_id: str, address: str) -> None:
        event = _event("websocket_connect")
        event["requestContext"] |= {"connectionId": connection_id, "identity": {"sourceIp": address}}
        if self._connect(event, None) != {"statusCode": 200}:
            raise StackError(f"The handshake of {connection_id} was refused.")

    def say(self, connection_id: str, message: Mapping[str, object]) -> None:
        event = _event("websocket_message") | {"body": json.dumps({"requestId": "r", **message})}
        event["requestContext"] |= {"connectionId": connection_id}
        self._message(event, None)

    def board(self, name: str, sources: list[dict[str, Any]]) -> str:
        """The id of a new public dashboard."""
        made = self.edit("POST", "/api/dashboards", document(name, sources))
        self.edit("PUT", f"/api/dashboards/{made['id']}/visibility", {"visibility": "public"})
        return str(made["id"])


def _event(name: str) -> dict[str, Any]:
    event: dict[str, Any] = json.loads((_EVENTS / f"{name}.json").read_text())
    return event


def unheard(observer: JsonObserver) -> None:
    """Have what a function logs made, and not shown between the steps."""
    observer._write = lambda _line: None


def deployed(config: Config, platform_url: str, name: str) -> Tables:
    """Tables, queues and secrets for `Handlers`."""
    secrets, sqs = client(config, "secretsmanager"), client(config, "sqs")
    settings = {
        variable: secrets.create_secret(Name=f"bench-{secret}", SecretString=f"bench-{secret}-".ljust(40, "x"))["ARN"]
        for variable, secret in SECRETS.items()
        if secret != "origin"  # nobody stands in front
    }
    settings["PROFILES_QUEUE_URL"] = sqs.create_queue(QueueName="bench-profiles")["QueueUrl"]
    # Nobody looks at what failed.
    settings |= dict.fromkeys((f"{name}_DEAD_QUEUE_URL" for name in ("CATCH_UP", "CROWD", "REVALIDATION")), "none")
    settings |= {"REALTIME_MQTT_ALLOWED_TOPICS": "demo/#", "REALTIME_IOT_TOPIC_PREFIX": "demo"}
    return Tables(config, platform_url, name, settings)
