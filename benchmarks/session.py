"""What the viewers of a board of ten datasources cost, with a token for each datasource and with one for the dashboard.

The API's and the gateway's handlers run in this process, over the emulator's tables. Each viewer gets tokens,
subscribes, and does both again, as a page does every few minutes. Calls are exact. Units are computed from requests and
answers, without what indexes add: see `benchmarks.meter`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.figures import Cell, Figure, Table
from benchmarks.meter import Asked, Meter, metered
from benchmarks.platform import platform
from benchmarks.progress import step
from benchmarks.tables import Tables, running_emulator
from functions.api.main import make_handler as api_handler
from functions.api.wiring import api_services
from functions.gateway_connect import connect, messages
from functions.gateway_connect.wiring import connect_services, message_services
from local_stack.config import ROOT, Config, StackError
from local_stack.deployment import client
from local_stack.seed import document, mqtt
from ops.admin import first_admin
from tidegate.domain.secret_names import SECRETS

#: Datasources of the board.
_SOURCES = tuple(f"t{number}" for number in range(10))
_EVENTS = ROOT / "fixtures/events"


@dataclass(frozen=True, slots=True)
class Size:
    """How many viewers come, one table for each number."""

    viewers: Sequence[int]


FULL = Size(viewers=(1, 100, 1_000))
SMALL = Size(viewers=(2,))


class _Handlers:
    """The functions of the API and of the gateway, over tables of their own."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._api = api_handler(api_services(env))
        self._connect = connect.make_handler(connect_services(env))
        self._message = messages.make_handler(message_services(env))

    def call(self, method: str, path: str, body: object = None, *, login: str = "", address: str = "192.0.2.1") -> Any:
        """The answer's JSON. Raises `StackError` when the API refuses."""
        event = _event("http_api") | {"rawPath": path, "body": json.dumps(body)}
        event["requestContext"]["http"] |= {"method": method, "path": path, "sourceIp": address}
        event["headers"] |= {"authorization": f"Bearer {login}"} if login else {}
        answer = self._api(event, None)
        if answer["statusCode"] >= 300:
            raise StackError(f"{method} {path} answered {answer['statusCode']}: {answer['body']}")
        return json.loads(answer["body"])

    def open(self, connection_id: str, address: str) -> None:
        event = _event("websocket_connect")
        event["requestContext"] |= {"connectionId": connection_id, "identity": {"sourceIp": address}}
        if self._connect(event, None) != {"statusCode": 200}:
            raise StackError(f"The handshake of {connection_id} was refused.")

    def say(self, connection_id: str, message: Mapping[str, object]) -> None:
        event = _event("websocket_message") | {"body": json.dumps({"requestId": "r", **message})}
        event["requestContext"] |= {"connectionId": connection_id}
        self._message(event, None)


def _event(name: str) -> dict[str, Any]:
    event: dict[str, Any] = json.loads((_EVENTS / f"{name}.json").read_text())
    return event


@dataclass(frozen=True, slots=True)
class _Board:
    """A public dashboard of ten datasources."""

    handlers: _Handlers
    id: str

    def tokens(self, address: str, before: Sequence[str]) -> Sequence[str]:
        """A token for each datasource, in their order. `before`: those that the viewer has."""
        found = list(before[:1])
        for source in _SOURCES:
            current = {"currentToken": found[-1]} if found else {}
            body = {"dashboardId": self.id, "datasourceId": source, **current}
            found.append(self.handlers.call("POST", "/api/datasource-sessions", body, address=address)["token"])
        return found[-len(_SOURCES) :]

    def token(self, address: str, before: Sequence[str]) -> Sequence[str]:
        """One token for all."""
        body = {"currentToken": before[0]} if before else {}
        path = f"/api/dashboards/{self.id}/session"
        return [self.handlers.call("POST", path, body, address=address)["token"]]

    def subscribe(self, connection_id: str, tokens: Sequence[str]) -> None:
        """With as many messages as there are tokens."""
        subscribe = {"type": "subscribe", "dashboardId": self.id}
        if len(tokens) == 1:
            self.handlers.say(connection_id, {**subscribe, "datasourceIds": _SOURCES, "sessionToken": tokens[0]})
            return
        for source, token in zip(_SOURCES, tokens, strict=True):
            self.handlers.say(connection_id, {**subscribe, "datasourceId": source, "sessionToken": token})


def run(config: Config, size: Size) -> list[Table]:
    """Viewers of a board of ten: a token and a subscribe for each datasource, and one for all."""
    with running_emulator(config), platform() as url:
        where = _deployed(config, url)
        handlers = _Handlers(where.env)
        body = {"email": "admin@example.com", "password": "a-Password-of-the-bench-1"}
        first_admin(where.env, **body)
        login = handlers.call("POST", "/api/auth/login", body)["token"]
        profile = {"name": "bench", "transport": "iot-core", "allowPublicUse": True}
        broker = handlers.call("POST", "/api/broker-profiles", profile, login=login)["id"]
        tables = []
        for viewers in size.viewers:
            # Boards of their own, so that no stream has had so many subscribes that it has a crowd.
            boards = {together: _board(handlers, login, broker, f"{viewers}-{together}") for together in (False, True)}
            costs = {together: _cost(board, viewers, together, where) for together, board in boards.items()}
            tables.append(_table(viewers, costs[False], costs[True]))
        return tables


def _deployed(config: Config, platform_url: str) -> Tables:
    secrets, sqs = client(config, "secretsmanager"), client(config, "sqs")
    settings = {
        variable: secrets.create_secret(Name=f"bench-{name}", SecretString=f"bench-{name}-".ljust(40, "x"))["ARN"]
        for variable, name in SECRETS.items()
        if name != "origin"  # nobody stands in front
    }
    settings["PROFILES_QUEUE_URL"] = sqs.create_queue(QueueName="bench-profiles")["QueueUrl"]
    settings |= {"REALTIME_MQTT_ALLOWED_TOPICS": "demo/#", "REALTIME_IOT_TOPIC_PREFIX": "demo"}
    return Tables(config, platform_url, "session", settings)


def _board(handlers: _Handlers, login: str, broker: str, name: str) -> _Board:
    sources = [mqtt(source, broker, f"demo/{name}/{source}") for source in _SOURCES]
    made = handlers.call("POST", "/api/dashboards", document(name, sources), login=login)
    path = f"/api/dashboards/{made['id']}/visibility"
    handlers.call("PUT", path, {"visibility": "public"}, login=login)
    return _Board(handlers, made["id"])


@dataclass(slots=True)
class _Phase:
    """One phase of all viewers. `done`: tokens that were minted, or messages that were sent."""

    done: int = 0
    asked: Asked = Asked()


_PHASES = ("first tokens", "first subscribes", "refresh: tokens", "refresh: subscribes")


def _cost(board: _Board, viewers: int, together: bool, where: Tables) -> Mapping[str, _Phase]:
    """The phases of so many viewers. One comes before them: what a process remembers is not what one more costs."""
    how, phases = "together" if together else "one by one", defaultdict[str, _Phase](_Phase)
    name = f"{viewers:,} viewers, {how}"
    with metered() as meter, step(name, viewers) as progress:
        for number in range(viewers + 1):
            if number == 1:
                phases.clear()
            _visit(board, f"{board.id}-{number}", f"10.0.{number // 250}.{number % 250}", together, meter, phases)
            progress.advance(min(number, 1))
    live = sum(1 for _ in where.container.subscriptions.of_dashboard(board.id))
    if live != (viewers + 1) * len(_SOURCES):
        raise StackError(f"{name}: {live} subscriptions are there.")
    return phases


def _visit(
    board: _Board, connection_id: str, address: str, together: bool, meter: Meter, phases: Mapping[str, _Phase]
) -> None:
    """One viewer, from the first token to a refresh of all."""
    get = board.token if together else board.tokens
    tokens: Sequence[str] = []
    board.handlers.open(connection_id, address)
    meter.taken()
    for visit in (_PHASES[:2], _PHASES[2:]):
        for name in visit:
            if name == visit[0]:
                tokens = get(address, tokens)
            else:
                board.subscribe(connection_id, tokens)
            phases[name].done += len(tokens)
            phases[name].asked += meter.taken()


def _table(viewers: int, before: Mapping[str, _Phase], after: Mapping[str, _Phase]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for name in _PHASES:
        one_by_one, together = before[name], after[name]
        for what, this, that in (
            (name, one_by_one.done, together.done),
            ("  calls of DynamoDB", one_by_one.asked.calls, together.asked.calls),
            ("  read units", one_by_one.asked.reads, together.asked.reads),
            ("  write units", one_by_one.asked.writes, together.asked.writes),
        ):
            rows.append((what, Figure(this, ",.0f"), Figure(that, ",.0f"), Figure(this / that, ".1f")))
    whole = f"{viewers:,} viewer{'s' if viewers > 1 else ''} of a board of {len(_SOURCES)}"
    return Table((whole, "one by one", "together", "ratio"), rows)
