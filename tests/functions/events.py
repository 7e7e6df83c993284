"""AWS events as recorded in `fixtures/events`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

EVENTS = Path(__file__).resolve().parents[2] / "fixtures/events"


def event(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((EVENTS / f"{name}.json").read_text())
    return loaded


def message(connection_id: str, body: object, route: str = "$default") -> dict[str, Any]:
    """A WebSocket message; `body` is sent as JSON unless it is text."""
    made = event("websocket_message")
    made["requestContext"] |= {"connectionId": connection_id, "routeKey": route}
    made["body"] = body if isinstance(body, str) else json.dumps(body)
    return made


def request(method: str, path: str, body: object = None, **headers: str) -> dict[str, Any]:
    """An HTTP API request."""
    made = event("http_api")
    path, _, query = path.partition("?")
    made |= {"rawPath": path, "rawQueryString": query}
    made["requestContext"]["http"] |= {"method": method, "path": path}
    made["headers"] |= {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None:
        made["body"] = body if isinstance(body, str) else json.dumps(body)
    return made
