"""What a revocation costs: cutting the affected among few and among many, a large cut, a full revalidation, and the
whole push path with real viewers.

The tables are the emulator's, the platform a stand-in that answers at once: calls are exact, CPU is this process's own,
and seconds are this machine's. Nothing here is a figure of AWS.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.platform import platform
from fixtures.local_stack import emulator, show
from fixtures.local_stack.config import Config
from fixtures.local_stack.deployment import client
from fixtures.local_stack.processes import Processes
from fixtures.local_stack.seed import Api, document, mqtt
from fixtures.local_stack.up import down, up
from fixtures.local_stack.viewer import Viewer
from fixtures.tables import create_table
from functions.revalidate.wiring import RevalidateServices, revalidate_services
from tidegate.domain.access import PUBLIC_SUBJECT, Claim, Principal
from tidegate.domain.revocations import Task, TaskKind
from tidegate.domain.subscriptions import Connection, Subscription, SubscriptionKey
from tidegate.providers.control_plane import ControlPlane
from tidegate.tables import ACCESS, ALL_TABLES, CONNECTIONS, SUBSCRIPTIONS

AFFECTED, FEW, MANY = 1_000, 1_000, 100_000
LARGE = 10_000
DASHBOARDS = 1_000
ROUNDS = 3
VIEWERS = 1_000
#: Handshakes and subscribes under way at the same time.
_ARRIVING = 4


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run of the worker took."""

    cut: int
    calls: Counter[str]
    cpu_s: float
    wall_s: float

    @property
    def table_calls(self) -> int:
        return sum(self.calls.values())


class Tables:
    """Fresh tables on a running emulator, and what a worker over them costs."""

    def __init__(self, config: Config, platform_url: str, name: str) -> None:
        self._dynamodb = client(config, "dynamodb")
        queue = client(config, "sqs").create_queue(QueueName=name)["QueueUrl"]
        self.env = {
            **config.aws_environment(),
            **{table.variable: f"{name}-{table.name}" for table in ALL_TABLES},
            "AWS_ENDPOINT_URL_EXECUTE_API": platform_url,
            "WEBSOCKET_API_ENDPOINT": "https://api.execute-api.us-east-1.amazonaws.com/live",
            "REVALIDATION_QUEUE_URL": queue,
            "TIDEGATE_ENV": "test",
        }
        for table in ALL_TABLES:
            create_table(self._dynamodb, table, self.env[table.variable])
        self.world = ControlPlane(self.env)

    def viewers(self, dashboard_id: str, count: int) -> None:
        """Live subscriptions of one dashboard, each on a connection of its own."""
        keys = (SubscriptionKey(dashboard_id, f"{dashboard_id}-{number}", "s") for number in range(count))
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: self.viewer(key, "hash", "stream"), keys))

    def viewer(self, key: SubscriptionKey, intent_hash: str, stream: str) -> None:
        """A live subscription on a new connection. `stream` is `streamKey#shard`."""
        now = int(time.time())
        self.world.connections.open(Connection(key.connection_id, "ip", now))
        self.world.connections.reserve(key, 1, f"{key.dashboard_id}#0")
        claim = Claim(key.dashboard_id, key.datasource_id, Principal(PUBLIC_SUBJECT, 0), intent_hash, now + 3000)
        row = Subscription(key, "attempt", claim, stream)
        self.world.subscriptions.put_hidden(row)
        self.world.subscriptions.make_visible(row)

    def others(self, count: int) -> None:
        """Subscriptions of a thousand other dashboards, a hundred on a connection, copied from one that is real."""
        self.viewers("pattern", 1)
        row, connection = (
            self._dynamodb.scan(TableName=self.env[table.variable], Limit=1)["Items"][0]
            for table in (SUBSCRIPTIONS, CONNECTIONS)
        )
        self._dynamodb.delete_item(
            TableName=self.env[SUBSCRIPTIONS.variable], Key={key: row[key] for key in ("dashboard_shard", "row")}
        )
        rows = (
            row
            | {"dashboard_shard": {"S": f"d{number % DASHBOARDS}#{number % 8}"}, "row": {"S": f"o{number // 100}#s"}}
            for number in range(count)
        )
        self._write(SUBSCRIPTIONS.variable, list(rows))
        connections = (connection | {"connection_id": {"S": f"o{number}"}} for number in range(1 + count // 100))
        self._write(CONNECTIONS.variable, list(connections))
        access: dict[str, Any] = {"share_version": {"N": "0"}, "visibility": {"S": "link"}, "owner_id": {"S": "owner"}}
        access |= {"acl": {"M": {}}, "intents": {"M": {"s": {"S": "hash"}}}, "deleted": {"BOOL": False}}
        self._write(ACCESS.variable, [access | {"key": {"S": f"dash#d{one}"}} for one in range(DASHBOARDS)])

    def _write(self, variable: str, items: Sequence[Mapping[str, Any]]) -> None:
        table = self.env[variable]
        for start in range(0, len(items), 25):
            batch = [{"PutRequest": {"Item": item}} for item in items[start : start + 25]]
            assert not self._dynamodb.batch_write_item(RequestItems={table: batch})["UnprocessedItems"]

    def run(self, task: Task, seconds: float = 300) -> Cost:
        """The worker's task, in this process."""
        services, calls = self._counted()
        cpu, wall = time.process_time(), time.perf_counter()
        cut = services.revalidate(task, time.monotonic() + seconds)
        return Cost(cut, calls, time.process_time() - cpu, time.perf_counter() - wall)

    def _counted(self) -> tuple[RevalidateServices, Counter[str]]:
        services, calls = revalidate_services(self.env), Counter[str]()
        database = services.container.db._client
        real = database.call

        def call(operation: str, payload: Mapping[str, Any], **options: Any) -> dict[str, Any]:
            calls[operation] += 1
            return real(operation, payload, **options)

        database.call = call  # type: ignore[method-assign] # nothing but counted
        return services, calls


@contextmanager
def running_emulator(config: Config) -> Iterator[None]:
    config.state.mkdir(parents=True, exist_ok=True)
    processes = Processes(config)
    try:
        emulator.start(config, processes)
        yield
    finally:
        processes.stop_all()


def cut_among(config: Config) -> list[str]:
    """A thousand affected among a thousand and among a hundred thousand, in turns."""
    costs: dict[int, list[Cost]] = {FEW: [], MANY: []}
    with platform() as url:
        tables = {}
        for total in (FEW, MANY):
            with show.step(f"tables with {total:,} subscriptions"):
                tables[total] = Tables(config, url, f"among{total}")
                if total > AFFECTED:
                    tables[total].others(total - AFFECTED)
        for number in range(ROUNDS):
            for total, where in tables.items():
                with show.step(f"round {number + 1}: {AFFECTED:,} affected among {total:,}"):
                    where.viewers(f"affected{number}", AFFECTED)
                    # No access item: the dashboard is gone, and all of its viewers with it.
                    cost = where.run(Task(TaskKind.DASHBOARD, f"affected{number}"))
                assert cost.cut == AFFECTED, cost
                costs[total].append(cost)
        with show.step(f"full pass over {MANY - AFFECTED:,} subscriptions on {DASHBOARDS:,} dashboards"):
            whole = tables[MANY].run(Task(TaskKind.FULL))
        assert whole.cut == 0, whole
    rows: list[tuple[str, ...]] = [("", "table calls", "CPU s", "s")]
    few, many = (_median(costs[total]) for total in (FEW, MANY))
    rows += [_row(f"{AFFECTED:,} affected among {FEW:,}", few), _row(f"{AFFECTED:,} affected among {MANY:,}", many)]
    ratios = (many.table_calls / few.table_calls, many.cpu_s / few.cpu_s, many.wall_s / few.wall_s)
    rows.append(("ratio", *(f"{one:.2f}" for one in ratios)))
    rows.append(_row(f"full pass, {MANY - AFFECTED:,} subscriptions on {DASHBOARDS:,} dashboards", whole))
    reads = f"  of these {whole.calls['BatchGetItem']} reads of access items, at most 90 dashboards each; "
    return [show.table(rows), f"{reads}{whole.calls['Scan']} pages of tables"]


def large_cut(config: Config) -> list[str]:
    """Ten thousand viewers of one dashboard: at once, and by workers that have little time each."""
    rows: list[tuple[str, ...]] = [("", "table calls", "CPU s", "s")]
    with platform() as url:
        where = Tables(config, url, "large")
        with show.step(f"{LARGE:,} viewers of one dashboard"):
            where.viewers("large", LARGE)
        with show.step("cut, one worker"):
            cost = where.run(Task(TaskKind.DASHBOARD, "large"))
        assert cost.cut == LARGE, cost
        rows.append(_row(f"{LARGE:,} viewers, one worker", cost))
        with show.step(f"{LARGE:,} viewers of another"):
            where.viewers("slices", LARGE)
        runs: list[Cost] = []
        with show.step("cut, by workers with two seconds each"):
            while sum(one.cut for one in runs) < LARGE:
                runs.append(where.run(Task(TaskKind.DASHBOARD, "slices"), seconds=2))
        calls = sum((one.calls for one in runs), Counter[str]())
        together = Cost(LARGE, calls, sum(one.cpu_s for one in runs), sum(one.wall_s for one in runs))
        rows.append(_row(f"{LARGE:,} viewers, {len(runs)} workers of 2 s, one after another", together))
    return [show.table(rows)]


def push(config: Config) -> list[str]:
    """From the commit of a rotation to the last of a thousand real viewers being told, through the local stack."""
    unlimited = str(10**6)
    settings = {
        "REALTIME_PUBLIC_SUBSCRIBE_RATE_LIMIT_SHARE_TOKEN_PER_MIN": unlimited,
        "REALTIME_MAX_CONNECTIONS_PER_DASHBOARD": str(VIEWERS),
    }
    stack = up(config, settings)
    try:
        return [asyncio.run(_push(stack))]
    finally:
        down(config)


async def _push(stack: Mapping[str, Any]) -> str:
    admin, editor = (
        Api.login(stack["edge_url"], stack["users"][who]["email"], stack["users"][who]["password"])
        for who in ("admin", "editor")
    )
    profile = {"name": "bench", "transport": "iot-core", "allowPublicUse": True}
    broker = admin.call("POST", "/api/broker-profiles", profile)["id"]
    made = editor.call("POST", "/api/dashboards", document("Bench", [mqtt("telemetry", broker, "demo/bench")]))
    path = f"/api/dashboards/{made['id']}"
    made = editor.call("PUT", f"{path}/visibility", {"visibility": "link"})
    body = {"dashboardId": made["id"], "datasourceId": "telemetry", "shareToken": made["shareToken"]}
    token = Api(stack["edge_url"], source="127.9.0.1").call("POST", "/api/datasource-sessions", body)["token"]
    gate = asyncio.Semaphore(_ARRIVING)

    async def arrive(number: int) -> Viewer:
        async with gate:
            viewer = await Viewer.open(stack["websocket_url"], source=f"127.9.{1 + number // 250}.{1 + number % 250}")
            ack = await viewer.subscribe(made["id"], "telemetry", token)
            assert ack["ok"], ack
            return viewer

    with show.step(f"{VIEWERS:,} viewers arrive"):
        viewers = await asyncio.gather(*(arrive(number) for number in range(VIEWERS)))
    with show.step("share token rotated, until the last viewer was told"):
        await asyncio.to_thread(editor.call, "POST", f"{path}/share-token:rotate")
        committed = time.monotonic()  # the answer is here; the commit was some milliseconds before
        told = await asyncio.gather(*(viewer.until(lambda one: one["type"] == "error", 60) for viewer in viewers))
    after = sorted(max(0.0, one["at"] - committed) * 1000 for one in told)
    await asyncio.gather(*(viewer.closed(60) for viewer in viewers))
    figures = {"first": after[0], "median": statistics.median(after), "p95": after[int(len(after) * 0.95)]}
    figures["last"] = after[-1]
    return show.table(
        [
            ("rotation to told, ms", *figures),
            (f"{VIEWERS:,} viewers, push path", *(f"{one:.0f}" for one in figures.values())),
        ]
    )


def _median(costs: Sequence[Cost]) -> Cost:
    middle = sorted(costs, key=lambda one: one.wall_s)[len(costs) // 2]
    return replace(middle, cpu_s=statistics.median(one.cpu_s for one in costs))


def _row(name: str, cost: Cost) -> tuple[str, ...]:
    return (name, f"{cost.table_calls:,}", f"{cost.cpu_s:.2f}", f"{cost.wall_s:.2f}")


def run(config: Config) -> list[str]:
    """The worker's costs; returns the lines of the result."""
    with running_emulator(config):
        return [*cut_among(config), "", *large_cut(config)]
