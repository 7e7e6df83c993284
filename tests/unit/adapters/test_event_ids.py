"""Each function's log lines have the ids by which an event is found elsewhere."""

from __future__ import annotations

import ast
import json
from typing import Any, NamedTuple

from tests.docs.pages import ROOT
from tidegate.adapters.json_observer import JsonObserver
from tidegate.domain.time_limits import FUNCTION_S
from tidegate.providers.process import Handler, event_ids, with_ids


class Services(NamedTuple):
    observer: JsonObserver


class Context:
    aws_request_id = "invocation-1"


def make_handler(services: Services) -> Handler:
    def handle(event: dict[str, Any], _context: Any) -> None:
        services.observer.info("handled", of=event.get("of"))

    return handle


def test_the_lines_of_an_event_have_its_ids_and_no_former_ones() -> None:
    lines: list[str] = []
    handler = with_ids(make_handler, Services(JsonObserver("s", "qa", write=lines.append)))
    handler({"requestContext": {"requestId": "request-1", "connectionId": "connection-1"}}, Context())
    handler({"Records": [], "of": "a queue"}, Context())
    first, second = (json.loads(line) for line in lines)
    assert (first["request_id"], first["api_request_id"], first["connection_id"]) == (
        "invocation-1",
        "request-1",
        "connection-1",
    )
    assert second["request_id"] == "invocation-1" and not {"api_request_id", "connection_id"} & second.keys()


def test_an_event_without_ids_has_none() -> None:
    assert event_ids({"requestContext": None}, None) == {}


def test_every_function_has_them() -> None:
    """By `lambda_handler`, which makes each handler there is."""
    made = {}
    for name in FUNCTION_S:
        tree = ast.parse((ROOT / f"functions/{name.replace('.', '/')}.py").read_text())
        made[name] = [
            ast.unparse(node.value.func)
            for node in tree.body
            if isinstance(node, ast.Assign)
            and ast.unparse(node.targets[0]) == "handler"
            and hasattr(node.value, "func")
        ]
    assert made == {name: ["lambda_handler"] for name in FUNCTION_S}
