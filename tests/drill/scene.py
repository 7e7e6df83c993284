"""A deployment behind a proxy that fails on demand, and the calls that the drill makes on its real handlers.

Each kind of subscribe has a connection of its own, and each handshake a new one.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import count
from time import monotonic
from typing import Any

from fixtures.faulty_aws import Fault, FaultyAws, tables_of
from functions.api.main import make_handler as api_handler
from functions.api.wiring import api_services
from functions.gateway_connect import connect, messages, wiring
from local_stack.seed import document, mqtt
from ops.admin import first_admin
from tests.deployment import SECRETS
from tests.functions.events import event, message, request
from tests.servers.management import ManagementServer
from tests.settling import settle
from tidegate import tables
from tidegate.adapters import json_observer
from tidegate.adapters.aws.json_client import KEPT_ALIVE_S, JsonClient
from tidegate.providers.process import Handler
from tidegate.providers.stores import StoreProviders
from tidegate.usecases.limits.message_budget import CHUNK

EMAIL, PASSWORD = "admin@x.example", "Long-enough-1"
_RATES = (
    "REALTIME_CONNECT_RATE_LIMIT_IP_PER_MIN",
    "REALTIME_MAX_CLIENT_CONNECTIONS_PER_IP",
    "REALTIME_PUBLIC_SUBSCRIBE_RATE_LIMIT_IP_PER_MIN",
    "REALTIME_PUBLIC_SUBSCRIBE_RATE_LIMIT_SHARE_TOKEN_PER_MIN",
    "DATASOURCE_TOKEN_MINT_RATE_LIMIT_USER_PER_MIN",
    "DATASOURCE_TOKEN_MINT_RATE_LIMIT_PUBLIC_IP_PER_MIN",
    "DATASOURCE_TOKEN_MINT_RATE_LIMIT_SHARE_TOKEN_PER_MIN",
)
#: The drill itself reaches no limit. The connections of a dashboard are counted by one item, because whether a key is
#: flooded can be said of one key only.
_LIMITS = {**dict.fromkeys(_RATES, "1000"), "REALTIME_MAX_CONNECTIONS_PER_DASHBOARD": "40"}
#: How long what a call needs is tried, seconds: the product's own patience may be too short for a machine that is busy.
PREPARED_S = 60.0
_NUMBERS = count(1)
#: The call that is being made, for whoever notes what it asks of the store. Threads of the call inherit it.
_CALL: ContextVar[str] = ContextVar("call", default="")


@dataclass(frozen=True, slots=True)
class Asked:
    """One operation that a call asked of the store. `given_s`: how long it might take; `took_s`: how long it took."""

    call: str
    tables: frozenset[str]
    given_s: float | None
    took_s: float

    @property
    def late(self) -> bool:
        """Whether it took longer than the product waits on a connection that was used before."""
        return self.took_s >= KEPT_ALIVE_S


@dataclass(frozen=True, slots=True)
class Decision:
    """A count of the metric `limiter`. `cause` is empty but for a failure of the store."""

    scope: str
    outcome: str
    cause: str


@dataclass
class Notes:
    """What the processes of scenes asked and counted, by the scene's name. It is the `service` of their metrics."""

    asked: dict[str, list[Asked]] = field(default_factory=lambda: defaultdict(list))
    lines: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))

    def write(self, line: str) -> None:
        read = json.loads(line)
        self.lines[read["service"]].append(read)

    def forget(self, scene: str) -> None:
        self.asked.pop(scene, None)
        self.lines.pop(scene, None)

    def limiter(self, scene: str) -> Iterator[Decision]:
        for line in self.lines[scene]:
            if "limiter" in line:
                yield Decision(line["scope"], line["outcome"], line.get("cause", ""))

    def faults(self, scene: str) -> list[str]:
        """The last line of each fault that was logged: what it was."""
        return [line["exception"].strip().splitlines()[-1] for line in self.lines[scene] if "exception" in line]

    def count(self, scene: str, metric: str) -> int:
        return sum(line.get(metric, 0) for line in self.lines[scene])


@contextmanager
def noting() -> Iterator[Notes]:
    """Note all that scenes ask and count meanwhile."""
    notes, call, write = Notes(), JsonClient.call, json_observer._to_standard_output

    def noted(self: JsonClient, operation: str, payload: Mapping[str, Any], *, deadline: float | None = None) -> Any:
        began = monotonic()
        try:
            return call(self, operation, payload, deadline=deadline)
        finally:
            scene, _, name = _CALL.get().partition("|")
            given_s = None if deadline is None else deadline - began
            asked = Asked(name, tables_of(payload), given_s, monotonic() - began)
            notes.asked[scene].append(asked)

    JsonClient.call = noted  # type: ignore[method-assign]
    json_observer._to_standard_output = notes.write
    try:
        yield notes
    finally:
        JsonClient.call = call  # type: ignore[method-assign]
        json_observer._to_standard_output = write


@dataclass(frozen=True)
class Made:
    """What all scenes share: a deployment with an admin, a dashboard shared by link, and its session tokens."""

    env: Mapping[str, str]
    dashboard_id: str
    share_token: str
    login: str
    public_token: str
    user_token: str


def make(env: Mapping[str, str]) -> Made:
    first_admin(env, EMAIL, PASSWORD)
    handler = api_handler(api_services(env))

    def ok(method: str, path: str, body: object, **headers: str) -> Any:
        answer = handler(request(method, path, body, **headers), None)
        assert answer["statusCode"] < 300, answer
        return json.loads(answer["body"])

    login = ok("POST", "/api/auth/login", {"email": EMAIL, "password": PASSWORD})["token"]
    signed_in = {"authorization": f"Bearer {login}"}
    broker = {"name": "core", "transport": "iot-core", "allowPublicUse": True}
    broker_id = ok("POST", "/api/broker-profiles", broker, **signed_in)["id"]
    made = ok("POST", "/api/dashboards", document("T", [mqtt("t", broker_id, "demo/+")]), **signed_in)
    path = f"/api/dashboards/{made['id']}/visibility"
    shared = ok("PUT", path, {"visibility": "link"}, **signed_in)
    asks = {"dashboardId": made["id"], "datasourceId": "t"}
    by_link = asks | {"shareToken": shared["shareToken"]}
    public = ok("POST", "/api/datasource-sessions", by_link)["token"]
    user = ok("POST", "/api/datasource-sessions", asks, **signed_in)["token"]
    return Made(env, made["id"], shared["shareToken"], login, public, user)


class Scene:
    """One set of processes behind a proxy of its own."""

    def __init__(self, made: Made, platform: ManagementServer, lock: threading.Lock, *, mode: str) -> None:
        self.name = f"scene-{next(_NUMBERS)}"
        self.proxy = FaultyAws(made.env["AWS_ENDPOINT_URL"], lock)
        self._made = made
        self._platform = platform
        self._opened: dict[str, str] = {}
        self._sent: dict[str, int] = defaultdict(int)
        env = {
            **made.env,
            **_LIMITS,
            "AWS_ENDPOINT_URL_DYNAMODB": self.proxy.url,
            "TIDEGATE_SERVICE": self.name,
            "SECURITY_LIMITER_NAMESPACE": self.name,
            "REALTIME_LIMITER_FAILURE_MODE": mode,
            "SECURITY_LIMITER_FAILURE_MODE": mode,
        }
        self._api = api_handler(api_services(env))
        # Where the emulator would serve the management API: below its own address.
        env["AWS_ENDPOINT_URL_EXECUTE_API"] = platform.url.removesuffix("/live")
        self._connect = connect.make_handler(wiring.connect_services(env))
        self._connections = StoreProviders(made.env).connections
        # A process of it handles one message at a time, and subscribes are to come at the same time.
        self._messages: dict[str, Handler] = defaultdict(lambda: messages.make_handler(wiring.message_services(env)))
        self.calls: Mapping[str, Callable[[], Callable[[], str]]] = {
            "login": self._login,
            "mint, public": lambda: self._mint(self._by_link()),
            "mint, user": lambda: self._mint(self._asks(), authorization=f"Bearer {made.login}"),
            "mint, refresh": lambda: self._mint(self._by_link() | {"currentToken": made.public_token}),
            "internal consume": self._consume,
            "handshake": self._handshake,
            "subscribe, public": lambda: self._subscribe("subscribe, public", made.public_token),
            "subscribe, private": lambda: self._subscribe("subscribe, private", made.user_token),
            "subscribe, refresh": self._refresh,
        }

    def break_down(self, fault: Fault, table: tables.Table) -> None:
        self.proxy.fail(fault, self._made.env[table.variable])

    def close(self) -> None:
        self.proxy.close()

    def prepared(self, names: Sequence[str]) -> Mapping[str, Callable[[], str]]:
        """These calls, ready to be made, and to be made again. What it needs to begin with is there."""
        return {name: self._as(name, self.calls[name]()) for name in names}

    def _as(self, name: str, call: Callable[[], str]) -> Callable[[], str]:
        def made() -> str:
            before = _CALL.set(f"{self.name}|{name}")
            try:
                return call()
            finally:
                _CALL.reset(before)

        return made

    # --- the HTTP API -------------------------------------------------------------------------------------

    def _asks(self) -> dict[str, str]:
        return {"dashboardId": self._made.dashboard_id, "datasourceId": "t"}

    def _by_link(self) -> dict[str, str]:
        return self._asks() | {"shareToken": self._made.share_token}

    def _call(self, path: str, body: object, **headers: str) -> tuple[int, Any]:
        asyncio.set_event_loop(asyncio.new_event_loop())  # the adapter of Lambda wants the thread to have one
        answer = self._api(request("POST", path, body, **headers), None)
        asyncio.get_event_loop().close()
        return answer["statusCode"], json.loads(answer["body"])

    def _post(self, path: str, body: object, **headers: str) -> Callable[[], str]:
        def call() -> str:
            status, answer = self._call(path, body, **headers)
            return str(status) if status < 300 else f"{status} {answer['error']['code']}"

        return call

    def _login(self) -> Callable[[], str]:
        return self._post("/api/auth/login", {"email": EMAIL, "password": PASSWORD})

    def _mint(self, body: object, **headers: str) -> Callable[[], str]:
        return self._post("/api/datasource-sessions", body, **headers)

    def _consume(self) -> Callable[[], str]:
        body = {"scope": "realtime-public-subscribe-ip", "key": "k", "limitPerMinute": 10_000}
        token = {"authorization": f"Bearer {SECRETS['GATEWAY_SERVICE_TOKEN_ARN']}"}

        def call() -> str:
            status, answer = self._call("/internal/gateway/rate-limit/consume", body, **token)
            return f"{status} {answer.get('reason', '')}".strip()

        return call

    # --- the gateway --------------------------------------------------------------------------------------

    def _connection(self) -> str:
        return f"c{next(_NUMBERS)}"

    def _handshake(self) -> Callable[[], str]:
        connection_id = self._connection()
        return lambda: self._shaken(connection_id)

    def _open(self, connection_id: str) -> int:
        made = event("websocket_connect")
        made["requestContext"] |= {"connectionId": connection_id}
        return int(self._connect(made, None)["statusCode"])

    def _shaken(self, connection_id: str) -> str:
        """The status. Who is admitted has to be stored, and nobody else."""
        status, stored = self._open(connection_id), self._connections.get(connection_id) is not None
        return str(status) if stored == (status == 200) else f"{status} {'' if stored else 'not '}stored"

    def _subscribe(self, name: str, token: str) -> Callable[[], str]:
        """A subscribe of a connection that is open and has no subscription."""
        connection_id = self._fresh(name)
        if connection_id is None:
            connection_id = opened = self._opened[name] = self._connection()
            settle(lambda: self._open(opened) == 200, PREPARED_S)
        else:
            self._send(connection_id, {"type": "unsubscribe", "requestId": "u", "datasourceId": "t"})
        return lambda: self._answer(connection_id, token)

    def _refresh(self) -> Callable[[], str]:
        name, token = "subscribe, refresh", self._made.public_token
        if self._fresh(name) is None:
            settle(lambda: self._subscribe(name, token)() == "ack", PREPARED_S)
        connection_id = self._opened[name]
        return lambda: self._answer(connection_id, token)

    def _fresh(self, name: str) -> str | None:
        """The call's connection, unless it has sent so much that its next messages are counted in the store."""
        connection_id = self._opened.get(name)
        return connection_id if self._sent[connection_id or ""] < CHUNK // 2 else None

    def _send(self, connection_id: str, asks: Mapping[str, object]) -> None:
        self._sent[connection_id] += 1
        self._messages[connection_id](message(connection_id, asks), None)

    def _answer(self, connection_id: str, token: str) -> str:
        """The answer to a subscribe: `ack`, or the code of the refusal, whether to come back, and what it says."""
        before = len(self._frames(connection_id))
        asks = {"type": "subscribe", "requestId": "r", **self._asks(), "sessionToken": token}
        self._send(connection_id, asks)
        frame = next(each for each in self._frames(connection_id)[before:] if each["type"] == "ack")
        if frame["ok"]:
            return "ack"
        parts: Sequence[str] = (
            frame["errorCode"],
            "retryable" if frame["retryable"] else "final",
            "temporarily unavailable" if "temporarily unavailable" in frame["message"] else "",
        )
        return ", ".join(part for part in parts if part)

    def _frames(self, connection_id: str) -> list[dict[str, Any]]:
        """What the viewer was sent; batches taken apart."""
        sent = [json.loads(body) for body in self._platform.received.get(connection_id, [])]
        return [frame for body in sent for frame in body.get("messages", [body])]
