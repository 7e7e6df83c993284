"""What rows must leave as they found it."""

from __future__ import annotations

from typing import Any

from local_stack.deployment import client
from local_stack.smoke.client import Smoke

#: Parts of a function's configuration that rows may change for a while.
_CONFIGURATION = ("Timeout", "Environment")


def read_demo_data(smoke: Smoke) -> dict[str, Any]:
    """People, profiles, dashboards with who may see them, faults, and how functions and schedule are set."""
    admin, editor, viewer = (smoke.user(role) for role in ("admin", "editor", "viewer"))
    found: dict[str, Any] = {
        path: admin.call("GET", path) for path in ("/api/users", "/api/broker-profiles", "/api/credential-profiles")
    }
    for role, api in (("editor", editor), ("viewer", viewer)):
        found[f"dashboards of the {role}"] = api.call("GET", "/api/dashboards")
    for visibility in ("private", "link", "public"):
        dashboard_id = smoke.stack["demo"][visibility]["dashboardId"]
        found[f"{visibility} dashboard"] = editor.call("GET", f"/api/dashboards/{dashboard_id}")
    found["faults"] = {name: upstream["fault"]["fault"] for name, upstream in smoke.control().items()}
    return found | _settings(smoke)


def _settings(smoke: Smoke) -> dict[str, Any]:
    functions, schedules = client(smoke.config(), "lambda"), client(smoke.config(), "scheduler")
    pages = functions.get_paginator("list_functions").paginate(FunctionVersion="ALL")
    configured = [function for page in pages for function in page["Functions"]]
    mappings = functions.list_event_source_mappings()["EventSourceMappings"]
    return {
        "functions": {
            f"{function['FunctionName']}:{function['Version']}": {key: function.get(key) for key in _CONFIGURATION}
            for function in configured
        },
        "streams and queues": {mapping["EventSourceArn"]: mapping["State"] for mapping in mappings},
        "schedules": {schedule["Name"]: schedule["State"] for schedule in schedules.list_schedules()["Schedules"]},
    }
