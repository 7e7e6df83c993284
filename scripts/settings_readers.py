"""Who reads each setting, found out by building what every function runs.

Each handler's services are built from its own wiring, with settings that note which of them are read. That is done for
a gateway with its own tables and for one with a remote API. What the API and the relay read later, while they run, is
found in their text, and so is what the CDK app reads. Every function checks all settings when it starts; this is about
what changes what it does.
"""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Callable, Mapping
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

from tidegate.domain.time_limits import FUNCTION_S
from tidegate.providers.process import ProcessProviders
from tidegate.settings import Settings, load
from tidegate.tables import ALL_TABLES

ROOT = Path(__file__).resolve().parent.parent
#: What the table calls the CDK app.
CDK_APP = "the CDK app"
_FIELDS = {item.name: item.metadata["setting"].variable for item in fields(Settings)}
#: Function -> what builds its services, in its wiring.
_BUILDERS = {
    "api.main": "api_services",
    "gateway_connect.connect": "connect_services",
    "gateway_connect.disconnect": "disconnect_services",
    "gateway_connect.messages": "message_services",
    "mqtt_bridge.bridge": "bridge_services",
    "mqtt_bridge.catch_up": "catch_up_services",
    "mqtt_bridge.crowd": "crowd_services",
    "relay.worker": "relay_services",
    "revalidate.dispatch": "dispatch_services",
    "revalidate.profiles": "profile_services",
    "revalidate.schedule": "schedule_services",
    "revalidate.worker": "revalidate_services",
}
#: Packages with one handler, whose text is read too: what is read there, that handler reads.
_READ_LATER = {"api": "api.main", "relay": "relay.worker"}
_ENV = {
    "TIDEGATE_ENV": "test",
    "AWS_REGION": "eu-west-1",
    "AWS_ACCESS_KEY_ID": "none",
    "AWS_SECRET_ACCESS_KEY": "none",
    "AWS_LAMBDA_FUNCTION_NAME": "none",
    "WEBSOCKET_API_ENDPOINT": "https://api.invalid/live",
    **dict.fromkeys(
        (
            "REVALIDATION_QUEUE_URL",
            "REVALIDATION_DEAD_QUEUE_URL",
            "PROFILES_QUEUE_URL",
            "CATCH_UP_QUEUE_URL",
            "CATCH_UP_DEAD_QUEUE_URL",
            "CROWD_QUEUE_URL",
            "CROWD_DEAD_QUEUE_URL",
        ),
        "https://queue.invalid/q",
    ),
    **dict.fromkeys(
        (
            "JWT_SECRET_ARN",
            "JWT_GATEWAY_SECRET_ARN",
            "GATEWAY_SERVICE_TOKEN_ARN",
            "LIMITER_HASH_SALT_ARN",
            "ORIGIN_SECRET_ARN",
            "CREDENTIAL_KEY_ID",
            "SCHEDULE_FUNCTION",
        ),
        "arn:none",
    ),
    **{table.variable: table.name for table in ALL_TABLES},
}


class _Noting(Settings):
    """Settings that note which of them are read."""

    def __getattribute__(self, name: str) -> Any:
        if name in _FIELDS:
            object.__getattribute__(self, "read_by_now").add(_FIELDS[name])
        if name == "digest":
            return ""  # it is of all settings, and changes with any of them
        return super().__getattribute__(name)


def readers() -> dict[str, list[str]]:
    """Variable -> who reads it, in the order of the functions' names, the CDK app last."""
    found: dict[str, list[str]] = {variable: [] for variable in _FIELDS.values()}
    for function in FUNCTION_S:
        read = _built(function, {}) | _built(function, {"GATEWAY_API_BASE_URL": "https://api.invalid"})
        for package, handler in _READ_LATER.items():
            if handler == function:
                read |= _in_text(ROOT / "functions" / package)
        for variable in read:
            found[variable].append(function)
    for variable in _in_text(ROOT / "infra"):
        found[variable].append(CDK_APP)
    return found


def _built(function: str, more: Mapping[str, str]) -> set[str]:
    """What is read while the services of a function are built."""
    package = function.split(".")[0]
    wiring = import_module(f"functions.{package}.wiring")
    read: set[str] = set()
    kept = ProcessProviders.settings

    def noting(container: ProcessProviders) -> Settings:
        values = {item.name: getattr(load(container.env), item.name) for item in fields(Settings)}
        settings = object.__new__(_Noting)
        object.__setattr__(settings, "read_by_now", read)
        for name, value in values.items():
            object.__setattr__(settings, name, value)
        return settings

    ProcessProviders.settings = property(noting)  # type: ignore[assignment,method-assign]
    try:
        services = getattr(wiring, _BUILDERS[function])({**_ENV, **more})
        if function == "relay.worker":
            asyncio.run(_relay_run(wiring.RelayRun, services.container))
        if function == "api.main":
            asyncio.run(_closed(services.console.new_upstreams))
    finally:
        ProcessProviders.settings = kept  # type: ignore[method-assign]
    return read


async def _relay_run(make: Callable[[Any], Any], container: Any) -> None:
    """A worker is made within the event loop that runs it."""
    await make(container).close()


async def _closed(make: Callable[[], Any]) -> None:
    """What previews connect with is made within an event loop too."""
    await make().close()


def _in_text(folder: Path) -> set[str]:
    """The settings that the modules of a folder name, as in `settings.ws_enabled`."""
    found = set()
    for path in sorted(folder.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value).split(".")[-1] == "settings":
                found |= {_FIELDS[node.attr]} if node.attr in _FIELDS else set()
    return found
