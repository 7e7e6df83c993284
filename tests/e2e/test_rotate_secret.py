"""`make rotate-secret` and `make secrets` on the running stack, while a viewer comes again and again."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import jwt
import pytest

from local_stack.config import ROOT, Config
from local_stack.deployment import STACK, client
from local_stack.smoke.client import Smoke
from local_stack.viewer import Frame, Viewer
from ops.rotate_secret import described

pytestmark = pytest.mark.full
#: What is watched -> how many values it sends in a second. They are the pace: a user's session tokens are limited.
RATES = {"external": 1, "protected": 5}
#: Each how many rounds the upstream drops its connections, where that is wanted.
DROP_EACH = 10
#: How often a viewer is told "could not check, come again" before that counts as a refusal.
TRIES = 10


def make(config: Config, target: str, *arguments: str) -> list[str]:
    return ["make", "--no-print-directory", target, "STAGE=local", f"PYTHON={_python()}", *arguments]


def _python() -> str:
    return os.environ.get("PYTHON", "python3")


def environment(config: Config) -> dict[str, str]:
    return {**os.environ, "TIDEGATE_ENDPOINT": config.emulator_url, "TIDEGATE_STATE": str(config.state)}


def run(config: Config, target: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        make(config, target, *arguments), cwd=ROOT, env=environment(config), capture_output=True, text=True
    )


@dataclass
class Watched:
    """What a viewer met. `keys`: key ids of the tokens, in the order in which they were first seen."""

    met: Counter[str] = field(default_factory=Counter)
    refused: list[object] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    old_after_new: int = 0
    errors: set[str] = field(default_factory=set)


class Watcher:
    """Mints and subscribes again and again: on a new connection, with the token minted before on that one, and to
    refresh what one connection has watched since the beginning. With `drop`, the upstream is opened anew meanwhile."""

    def __init__(self, smoke: Smoke, datasource: str, *, drop: bool) -> None:
        self._smoke = smoke
        self._datasource = datasource
        self._drop = drop
        self._demo = smoke.stack["demo"]["private"]
        self._api = smoke.user("viewer")
        self.seen = Watched()

    async def until(self, ended: asyncio.Task[tuple[bytes, bytes]]) -> None:
        kept = await self._smoke.viewer()
        before = await self._mint()
        for number in count(1):
            if ended.done():
                break
            if self._drop and number % DROP_EACH == 0:
                self._smoke.control({"upstream": "sse", "fault": "drop"})
                self.seen.met["dropped"] += 1
            token = await self._mint()
            viewer = await self._smoke.viewer()
            await self._subscribe(viewer, token, "subscribed")
            await self._subscribe(viewer, before, "subscribed with the token before")
            await self._subscribe(kept, token, "refreshed")
            await viewer.close()
            before = token
            await kept.received(self._datasource, len(kept.payloads(self._datasource)) + RATES[self._datasource])
        self.seen.errors = {str(frame["errorCode"]) for frame in kept.frames if frame["type"] == "error"}

    async def _mint(self) -> str:
        body = {"dashboardId": self._demo["dashboardId"], "datasourceId": self._datasource}
        for _ in range(TRIES):
            answer = await asyncio.to_thread(self._api.request, "POST", "/api/datasource-sessions", body)
            if answer.status_code != 503:
                break
            self.seen.met["mint: come again"] += 1
        if answer.status_code != 201:
            self.seen.refused.append((answer.status_code, answer.text))
            raise AssertionError(self.seen)
        self.seen.met["minted"] += 1
        token = str(answer.json()["token"])
        key = str(jwt.get_unverified_header(token)["kid"])
        if key not in self.seen.keys:
            self.seen.keys.append(key)
        return token

    async def _subscribe(self, viewer: Viewer, token: str, what: str) -> None:
        ack: Frame = {}
        for _ in range(TRIES):
            ack = await viewer.subscribe(self._demo["dashboardId"], self._datasource, token)
            if ack["ok"] or not ack.get("retryable"):
                break
            self.seen.met[f"{what}: come again"] += 1
        if ack["ok"]:
            self.seen.met[what] += 1
            self.seen.old_after_new += jwt.get_unverified_header(token)["kid"] != self.seen.keys[-1]
        else:
            self.seen.refused.append(ack)


async def watched(
    smoke: Smoke, config: Config, name: str, datasource: str, *, drop: bool = False
) -> tuple[Watched, int, list[dict[str, Any]]]:
    """What a viewer met during a rotation; the command's exit code and events."""
    command = await asyncio.create_subprocess_exec(
        *make(config, "rotate-secret", f"NAME={name}", "OPTIONS=--json"),
        cwd=ROOT,
        env=environment(config),
        stdout=asyncio.subprocess.PIPE,
    )
    watcher = Watcher(smoke, datasource, drop=drop)
    try:
        rotation = asyncio.create_task(command.communicate())
        await watcher.until(rotation)
        out, _ = await rotation
    finally:
        if command.returncode is None:
            command.terminate()
            await command.wait()
        await smoke.close_viewers()
    assert command.returncode is not None
    return watcher.seen, command.returncode, [json.loads(line) for line in out.splitlines()]


def test_a_rotation_refuses_no_viewer(
    stack: Mapping[str, Any], config: Config, record_property: Callable[[str, object], None]
) -> None:
    before = run(config, "secrets")
    assert before.returncode == 0, before.stderr
    lines = before.stdout.splitlines()
    shown = ["secret", "jwt", "jwt-gateway", "service-token", "limiter-salt", "credential-key", "key", "key", "next:"]
    assert [line.split()[0] for line in lines if line] == shown
    assert before.stdout.count("nothing is under way") == 4

    smoke = Smoke(stack)
    seen, code, events = asyncio.run(watched(smoke, config, "jwt-gateway", "external"))
    smoke.close()
    assert code == 0 and [event["step"] for event in events if event["step"] != "wait"] == [
        "add",
        "switch",
        "drop",
        "drop",
        "done",
    ]
    assert not seen.refused, (seen.met, seen.refused[:3])
    # The viewer came in every stage: with tokens of both keys, and with one of the old key after the switch.
    assert len(seen.keys) == 2 and seen.old_after_new, seen
    for kind in ("minted", "subscribed", "subscribed with the token before", "refreshed"):
        assert seen.met[kind] > 10, seen.met
    record_property("what a viewer met", dict(seen.met))

    again = run(config, "rotate-secret", "NAME=jwt-gateway")
    assert again.returncode != 0 and "refused: the current value is" in again.stderr, again


def under_the_first_key(config: Config) -> None:
    """Bring all credentials under key 1, as if the stage had just been deployed with key 2."""
    local = {**config.aws_environment(), "TIDEGATE_ENV": "development"}
    stage = replace(described(lambda service: client(config, service), STACK), environment=lambda: local)
    keys = json.loads(stage.outputs["CredentialKeys"])
    assert list(keys) == ["1", "2"]
    turned = {**stage.outputs, "CredentialKeys": json.dumps({"2": keys["2"], "1": keys["1"]})}
    key = replace(stage, outputs=turned).credential_key()
    assert key is not None and key.run(lambda event: None, lambda seconds: None)


def credentials(config: Config) -> dict[str, int]:
    """How many credentials are under each key, as `make secrets` shows it."""
    shown = run(config, "secrets", "OPTIONS=--json")
    rows = [json.loads(line) for line in shown.stdout.splitlines()]
    return {row["secret"]: row for row in rows}["credential-key"]["credentials"]  # type: ignore[no-any-return]


def test_a_new_credential_key_ends_no_stream(
    stack: Mapping[str, Any], config: Config, record_property: Callable[[str, object], None]
) -> None:
    """Credentials are re-encrypted while a source that needs one is watched, opened again, and opened anew."""
    under_the_first_key(config)
    total = credentials(config)["1"]
    assert total >= 2 and credentials(config) == {"1": total, "2": 0}
    smoke = Smoke(stack)
    refused = smoke.control()["sse"]["refused"]
    seen, code, events = asyncio.run(watched(smoke, config, "credential-key", "protected", drop=True))
    assert code == 0 and [event["step"] for event in events if event["step"] != "wait"] == [
        "begin",
        "reencrypt",
        "done",
    ]
    assert events[-1]["text"].endswith("key 1 may be dropped from `credential_keys` in infra/stages/local.json")
    assert credentials(config) == {"1": 0, "2": total}
    assert not seen.refused and seen.errors <= {"STREAM_CONNECT_FAILED"}, (seen.met, seen.refused[:3], seen.errors)
    assert seen.met["dropped"] > 1 and seen.met["refreshed"] > 10, seen.met
    assert smoke.control()["sse"]["refused"] == refused, "an upstream met a credential that was none"
    smoke.clean_up()
    smoke.close()
    record_property("what a viewer met", dict(seen.met))
