"""Drive the running stack through its edge only, one row per check."""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TextIO

import jwt
import websockets

from local_stack import show, smoke_relay, smoke_relay_life, smoke_revocation
from local_stack.checks import expect
from local_stack.config import Config, StackError
from local_stack.publisher import Publisher
from local_stack.seed import Api, document, mqtt
from local_stack.viewer import Viewer
from tidegate.domain.access import FRESH_S

#: Messages of the latency figure.
SAMPLES = 60


def read_stack(config: Config) -> dict[str, Any]:
    """The running stack's description. Raises `StackError` when there is none."""
    if not config.stack_file.exists():
        raise StackError("No stack is running: run `make up` first.")
    stack: dict[str, Any] = json.loads(config.stack_file.read_text())
    return stack


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    passed: bool
    seconds: float
    detail: str = ""


class Smoke:
    """The checks, over one stack and one device."""

    def __init__(self, stack: Mapping[str, Any], device: Publisher, *, out: TextIO) -> None:
        self.stack = stack
        self.device = device
        self.rows: list[Row] = []
        self._out = out
        self.latencies_ms: list[float] = []
        # Every client of its own address, so that the limits of one check do not meet another's.
        self._next_host = 1 + int(time.time()) % 200
        self._next_number = 0
        self._signed_in: dict[str, Api] = {}

    # --- tools --------------------------------------------------------------------------------------------

    def source(self) -> str:
        """A loopback address nobody here used before."""
        self._next_host += 1
        return f"127.{10 + self._next_host // 250}.{int(time.time() / 60) % 250}.{1 + self._next_host % 250}"

    def payload(self) -> dict[str, Any]:
        self._next_number += 1
        return {"n": self._next_number, "at": time.time_ns(), "text": "grüße"}

    def user(self, role: str) -> Api:
        """The role's user, signed in once: sign-ins are limited, and these are no attack."""
        if role not in self._signed_in:
            who = self.stack["users"][role]
            self._signed_in[role] = Api.login(self.stack["edge_url"], who["email"], who["password"])
        return self._signed_in[role]

    def read_share_token(self) -> None:
        """The link as it is now: an earlier run rotated it."""
        demo = self.stack["demo"]["link"]
        demo["shareToken"] = self.user("editor").call("GET", f"/api/dashboards/{demo['dashboardId']}")["shareToken"]

    def anonymous(self) -> Api:
        return Api(self.stack["edge_url"], address=self.source())

    async def viewer(self, *, batch: bool = False) -> Viewer:
        return await Viewer.open(self.stack["websocket_url"], address=self.source(), batch=batch)

    def mint(self, api: Api, demo: Mapping[str, Any], datasource: str = "telemetry", *, link: bool = True) -> str:
        body = {"dashboardId": demo["dashboardId"], "datasourceId": datasource}
        if link and "shareToken" in demo:
            body["shareToken"] = demo["shareToken"]
        return str(api.call("POST", "/api/datasource-sessions", body)["token"])

    async def publish(self, topic: str, payload: object) -> None:
        raw = payload if isinstance(payload, bytes | str) else json.dumps(payload)
        await asyncio.to_thread(self.device.publish, topic, raw)

    async def subscribed(self, token: str, demo: Mapping[str, Any], datasource: str = "telemetry") -> Viewer:
        viewer = await self.viewer()
        ack = await viewer.subscribe(demo["dashboardId"], datasource, token)
        expect(ack["ok"], f"subscribe refused: {ack}")
        await viewer.until(lambda frame: frame["type"] == "status" and frame["status"] == "connected")
        return viewer

    async def check(self, name: str, run: Callable[[], Awaitable[str | None]]) -> None:
        started = time.monotonic()
        try:
            detail, passed = await run() or "", True
        except Exception as error:  # the row says what it was
            detail, passed = f"{type(error).__name__}: {error}"[:300], False
        row = Row(name, passed, time.monotonic() - started, detail)
        self.rows.append(row)
        mark = show.green("  ok") if passed else show.red("fail")
        print(
            f"  {mark} {row.seconds:6.2f} s  {name}" + (f"  ({detail})" if detail else ""), file=self._out, flush=True
        )

    # --- the main path ------------------------------------------------------------------------------------

    async def receives(self, visibility: str) -> str | None:
        demo = self.stack["demo"][visibility]
        api = self.user("viewer") if visibility == "private" else self.anonymous()
        viewer = await self.subscribed(self.mint(api, demo), demo)
        wanted = self.payload()
        await self.publish(demo["topic"], wanted)
        await viewer.data(wanted)
        await viewer.close()
        return None

    async def text(self) -> str | None:
        demo = self.stack["demo"]["public"]
        viewer = await self.subscribed(self.mint(self.anonymous(), demo, "text"), demo, "text")
        await self.publish(f"{demo['topic']}/text", "21.5 °C, not JSON {")
        await viewer.data("21.5 °C, not JSON {")
        await self.publish(f"{demo['topic']}/text", b"\xff\x00raw")
        await viewer.data("\ufffd\x00raw")
        await viewer.close()
        return None

    async def wildcard(self) -> str | None:
        demo = self.stack["demo"]["public"]
        viewer = await self.subscribed(self.mint(self.anonymous(), demo, "fleet"), demo, "fleet")
        for device in ("a", "b"):
            wanted = self.payload() | {"device": device}
            await self.publish(f"{demo['topic']}/fleet/{device}/state", wanted)
            await viewer.data(wanted)
        other = self.payload()
        await self.publish(f"{demo['topic']}/fleet/a/b/state", other)
        last = self.payload()
        await self.publish(f"{demo['topic']}/fleet/c/state", last)
        await viewer.data(last)
        expect(all(frame.get("payload") != other for frame in viewer.frames), "a topic outside the filter came")
        await viewer.close()
        return None

    async def not_json(self) -> str | None:
        demo = self.stack["demo"]["public"]
        viewer = await self.subscribed(self.mint(self.anonymous(), demo), demo)
        await asyncio.sleep(FRESH_S)  # whoever comes within it may miss what is told of one message: no value is lost
        await self.publish(demo["topic"], "{broken")
        frame = await viewer.until(lambda one: one["type"] == "error")
        expect(frame["errorCode"] == "STREAM_PROTOCOL_ERROR", f"{frame}")
        wanted = self.payload()
        await self.publish(demo["topic"], wanted)
        await viewer.data(wanted)
        await viewer.close()
        return str(frame["errorCode"])

    async def last_value(self) -> str | None:
        demo = self.stack["demo"]["link"]
        first = await self.subscribed(self.mint(self.anonymous(), demo), demo)
        wanted = self.payload()
        await self.publish(demo["topic"], wanted)
        await first.data(wanted)
        late = await self.subscribed(self.mint(self.anonymous(), demo), demo)
        frame = await late.data(wanted)
        expect(frame.get("retained") is True, f"not retained: {frame}")
        await first.close()
        await late.close()
        return None

    async def refresh(self) -> str | None:
        demo = self.stack["demo"]["link"]
        api = self.anonymous()
        token = self.mint(api, demo)
        viewer = await self.viewer()
        acks = await asyncio.gather(*(viewer.subscribe(demo["dashboardId"], "telemetry", token) for _ in range(2)))
        expect(all(ack["ok"] for ack in acks), f"both of a double subscribe must be acked: {acks}")
        ack = await viewer.subscribe(demo["dashboardId"], "telemetry", self.mint(api, demo))
        expect(ack["ok"], f"{ack}")
        ack = await viewer.ask({"type": "unsubscribe", "datasourceId": "telemetry"})
        expect(ack["ok"], f"{ack}")
        await viewer.until(lambda frame: frame["type"] == "status" and frame["status"] == "disconnected")
        await viewer.close()
        return None

    # --- refusals -----------------------------------------------------------------------------------------

    async def no_rights(self) -> str | None:
        editor = self.user("editor")
        broker = self.stack["demo"]["brokers"]["members"]
        source = mqtt("telemetry", broker, "demo/secret")
        made = editor.call("POST", "/api/dashboards", document("Not shared", [source]))
        body = {"dashboardId": made["id"], "datasourceId": "telemetry"}
        answer = self.user("viewer").request("POST", "/api/datasource-sessions", body)
        expect(answer.status_code == 403, f"mint answered {answer.status_code}")
        forged = self._forge(sub="somebody", dashboardId=made["id"])
        refused = await self._refused(forged, made["id"])
        expect(refused["errorCode"] == "STREAM_AUTH_FAILED", f"{refused}")
        expect(refused["retryable"] is False, f"{refused}")
        return f"mint 403, {refused['errorCode']}"

    async def members_broker(self) -> str | None:
        demo = self.stack["demo"]["public"]
        body = {"dashboardId": demo["dashboardId"], "datasourceId": "members"}
        answer = self.anonymous().request("POST", "/api/datasource-sessions", body)
        expect(answer.status_code == 403, f"mint answered {answer.status_code}: {answer.text}")
        stale = self.mint(self.anonymous(), demo)
        version = jwt.decode(stale, options={"verify_signature": False})["shareTokenVersion"]
        forged = self._forge(
            sub="public", dashboardId=demo["dashboardId"], datasourceId="members", shareTokenVersion=version
        )
        refused = await self._refused(forged, demo["dashboardId"], "members")
        expect(refused["errorCode"] == "STREAM_AUTH_FAILED", f"{refused}")
        return f"mint 403, {refused['errorCode']}"

    async def expired(self) -> str | None:
        demo = self.stack["demo"]["public"]
        now = int(time.time())
        forged = self._forge(sub="public", dashboardId=demo["dashboardId"], iat=now - 100, exp=now - 1)
        refused = await self._refused(forged, demo["dashboardId"])
        expect(refused["errorCode"] == "STREAM_AUTH_FAILED" and refused["retryable"] is True, f"{refused}")
        return str(refused["errorCode"])

    async def before_rotation(self) -> str | None:
        demo = dict(self.stack["demo"]["link"])
        token = self.mint(self.anonymous(), demo)
        rotated = self.user("editor").call("POST", f"/api/dashboards/{demo['dashboardId']}/share-token:rotate")
        old = self.anonymous().request(
            "POST",
            "/api/datasource-sessions",
            {"dashboardId": demo["dashboardId"], "datasourceId": "telemetry", "shareToken": demo["shareToken"]},
        )
        self.stack["demo"]["link"]["shareToken"] = rotated["shareToken"]
        expect(old.status_code == 403, f"mint with the old link answered {old.status_code}")
        refused = await self._refused(token, demo["dashboardId"])
        expect(refused["errorCode"] == "STREAM_AUTH_FAILED" and refused["retryable"] is False, f"{refused}")
        return f"{refused['errorCode']}, {refused['message']}"

    async def after_rotation(self) -> str | None:
        """Fan-out asks the access item, so a running viewer gets nothing a second after the change."""
        demo = self.stack["demo"]["link"]
        viewer = await self.subscribed(self.mint(self.anonymous(), demo), demo)
        first = self.payload()
        await self.publish(demo["topic"], first)
        await viewer.data(first)
        rotated = self.user("editor").call("POST", f"/api/dashboards/{demo['dashboardId']}/share-token:rotate")
        self.stack["demo"]["link"]["shareToken"] = rotated["shareToken"]
        await asyncio.sleep(1.0)  # the bound itself is what is checked
        second = self.payload()
        fresh = await self.subscribed(self.mint(self.anonymous(), demo), demo)
        await self.publish(demo["topic"], second)
        await fresh.data(second)
        expect(all(one.get("payload") != second for one in viewer.frames), "a revoked viewer received data")
        await viewer.close()
        await fresh.close()
        return None

    async def cap(self) -> str | None:
        """The connection's own cap: 50 subscriptions; the next is refused, a refresh is not."""
        editor, broker = self.user("editor"), self.stack["demo"]["brokers"]["public"]
        sources = [mqtt(f"d{number}", broker, f"demo/cap/{number}") for number in range(51)]
        made = editor.call("POST", "/api/dashboards", document("Cap", sources))
        version = made["shareTokenVersion"]
        user_id = editor.call("GET", "/api/users/me")["id"]
        viewer = await self.viewer()

        async def subscribe(number: int) -> dict[str, Any]:
            token = self._forge(sub=user_id, dashboardId=made["id"], datasourceId=f"d{number}", shareTokenVersion=None)
            return await viewer.subscribe(made["id"], f"d{number}", token)

        acks = await asyncio.gather(*(subscribe(number) for number in range(51)))
        refused = [ack for ack in acks if not ack["ok"]]
        expect(len(refused) == 1, f"{len(refused)} of 51 refused, cap 50 (version {version}): {refused[:2]}")
        expect(refused[0]["errorCode"] == "STREAM_RATE_LIMITED", f"{refused[0]}")
        await viewer.close()
        return str(refused[0]["errorCode"])

    async def ip_cap(self) -> str | None:
        """Connections beyond the cap of one address are refused at the handshake."""
        source, opened, status = self.source(), [], 0
        try:
            for _ in range(26):
                opened.append(await Viewer.open(self.stack["websocket_url"], address=source))
        except websockets.InvalidStatus as error:
            status = error.response.status_code
        finally:
            for viewer in opened:
                await viewer.close()
        expect(len(opened) == 25 and status in (403, 429), f"{len(opened)} opened, then {status}")
        again = await self._eventually_open(source)
        await again.close()
        return f"25 open, then {status}"

    async def _eventually_open(self, source: str) -> Viewer:
        """A slot is free again once `$disconnect` has run."""
        until = time.monotonic() + 10
        while True:
            try:
                return await Viewer.open(self.stack["websocket_url"], address=source)
            except websockets.InvalidStatus:
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(0.1)

    async def bad_messages(self) -> str | None:
        viewer = await self.viewer()
        cases: list[tuple[str, Callable[[dict[str, Any]], bool]]] = [
            ("not json", lambda one: one.get("message") == "Malformed realtime message"),
            ('{"type":"dance"}', lambda one: one.get("message") == "Unsupported realtime message type"),
            ('{"type":"subscribe","requestId":"x1","dashboardId":" "}', lambda one: one.get("requestId") == "x1"),
            ('{"type":"unsubscribe","requestId":"x2","datasourceId":7}', lambda one: one.get("requestId") == "x2"),
            ('{"type":" Ping ","requestId":"x3"}', lambda one: one["type"] == "pong"),
        ]
        for text, wanted in cases:
            await viewer.send(text)
            await viewer.until(wanted)
        await viewer.close()
        return f"{len(cases)} answered"

    async def other_dashboard(self) -> str | None:
        public, link = self.stack["demo"]["public"], self.stack["demo"]["link"]
        refused = await self._refused(self.mint(self.anonymous(), public), link["dashboardId"])
        expect(refused["errorCode"] == "STREAM_AUTH_FAILED", f"{refused}")
        return str(refused["errorCode"])

    async def internal_hidden(self) -> str | None:
        token = self.stack["secrets"]["GATEWAY_SERVICE_TOKEN"]
        headers = {"Authorization": f"Bearer {token}"}
        answer = self.anonymous().request("POST", "/internal/gateway/revoked-tokens", {}, headers)
        expect(answer.status_code == 404, f"the edge answered {answer.status_code}")
        return "404 at the edge"

    async def latency(self) -> str | None:
        demo = self.stack["demo"]["public"]
        viewer = await self.subscribed(self.mint(self.anonymous(), demo), demo)
        for _ in range(SAMPLES):
            wanted, started = self.payload(), time.monotonic()
            publishing = asyncio.create_task(self.publish(demo["topic"], wanted))
            frame = await viewer.data(wanted)
            await publishing
            self.latencies_ms.append((frame["at"] - started) * 1000)
        await viewer.close()
        ordered = sorted(self.latencies_ms)
        p95 = ordered[int(len(ordered) * 0.95) - 1]
        return f"median {statistics.median(ordered):.0f} ms, p95 {p95:.0f} ms, {SAMPLES} messages"

    def _forge(self, **claims: Any) -> str:
        """A token as the API would sign it, with claims of the check's choosing."""
        now = int(time.time())
        payload = {
            "iss": "tidegate-api",
            "aud": "tidegate-gateway",
            "datasourceId": "telemetry",
            "scope": "datasource:stream",
            "iat": now,
            "exp": now + 300,
            "jti": f"smoke-{now}",
            **claims,
        }
        return jwt.encode(payload, self.stack["secrets"]["JWT_GATEWAY_SECRET"], algorithm="HS256")

    async def _refused(self, token: str, dashboard_id: str, datasource: str = "telemetry") -> dict[str, Any]:
        viewer = await self.viewer()
        ack = await viewer.subscribe(dashboard_id, datasource, token)
        await viewer.close()
        expect(not ack["ok"], f"was accepted: {ack}")
        return ack


async def run_checks(
    stack: Mapping[str, Any], device: Publisher, out: TextIO = sys.stdout, *, lives: bool = False
) -> Smoke:
    """All checks, each shown as it ends. `lives` adds those of the relay's workers, which take two minutes."""
    smoke = Smoke(stack, device, out=out)
    smoke.read_share_token()
    for visibility, who in (("private", "signed-in viewer"), ("link", "share token"), ("public", "anybody")):
        await smoke.check(f"device to {visibility} dashboard ({who})", lambda one=visibility: smoke.receives(one))  # type: ignore[misc]
    checks: list[tuple[str, Callable[[], Awaitable[str | None]]]] = [
        ("text and binary payloads", smoke.text),
        ("wildcard topic", smoke.wildcard),
        ("payload that is not JSON", smoke.not_json),
        ("last value on subscribe", smoke.last_value),
        ("double subscribe, refresh, unsubscribe", smoke.refresh),
        ("refused: viewer without rights", smoke.no_rights),
        ("refused: broker profile without public use", smoke.members_broker),
        ("refused: expired token", smoke.expired),
        ("refused: token of before a rotation", smoke.before_rotation),
        ("refused: token of another dashboard", smoke.other_dashboard),
        ("no data one second after a rotation", smoke.after_rotation),
        ("refused: 51st subscription of a connection", smoke.cap),
        ("refused: 26th connection of an address", smoke.ip_cap),
        ("malformed messages answered", smoke.bad_messages),
        ("internal contract hidden", smoke.internal_hidden),
        ("publish to receive", smoke.latency),
    ]
    for name, run in checks:
        await smoke.check(name, run)
    await smoke_relay.run(smoke)
    await smoke_revocation.run(smoke)
    if lives:
        await smoke_relay_life.run(smoke)
    return smoke


def run_smoke(stack: Mapping[str, Any], *, as_json: bool = False) -> int:
    """Run all checks; 0 when all passed."""
    with Publisher(stack["mqtt"]) as device:
        smoke = asyncio.run(run_checks(stack, device, sys.stderr if as_json else sys.stdout, lives=True))
    failed = [row for row in smoke.rows if not row.passed]
    if as_json:
        rows = [
            {"name": one.name, "ok": one.passed, "seconds": one.seconds, "detail": one.detail} for one in smoke.rows
        ]
        print(json.dumps({"ok": not failed, "rows": rows, "latencies_ms": smoke.latencies_ms}))
    else:
        print(f"  {len(smoke.rows) - len(failed)} of {len(smoke.rows)} checks passed")
    return 1 if failed else 0
