"""Fresh tables on the emulator, what is written into them, and what a revalidation worker over them costs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import boto3

from benchmarks.progress import for_all
from fixtures.tables import create_table
from functions.revalidate.wiring import RevalidateServices, revalidate_services
from local_stack import emulator
from local_stack.config import Config
from local_stack.deployment import client
from local_stack.processes import Processes
from tidegate.adapters.dynamodb.access import put_user
from tidegate.domain.access import PUBLIC_SUBJECT, Claim, Principal, Role, UserAccess
from tidegate.domain.budgets import ConnectionRoom
from tidegate.domain.revocations import Task
from tidegate.domain.subscriptions import Connection, Subscription, SubscriptionKey
from tidegate.providers.control_plane import ControlPlaneProviders
from tidegate.tables import ACCESS, ALL_TABLES, CONNECTIONS, SUBSCRIPTIONS

#: Subscriptions of one connection among those that a revocation does not concern.
_A_CONNECTION = 100
#: Hash of an intent. Hashes and ids of rows are as long as real ones, because units depend on it.
_HASH = "hash".ljust(64, "-")
#: Most items of one `BatchWriteItem`.
_BATCH = 25


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run of the worker took.

    Attributes:
        terminated: subscriptions.
        calls: DynamoDB operation -> how often it was called.
        cpu_s: CPU seconds of this process.
        wall_s: seconds from start to end.
    """

    terminated: int
    calls: Counter[str]
    cpu_s: float
    wall_s: float

    @property
    def table_calls(self) -> int:
        return sum(self.calls.values())


class Tables:
    """Fresh tables on a running emulator. `container` builds what a function over them uses."""

    def __init__(self, config: Config, platform_url: str, name: str, settings: Mapping[str, str] | None = None) -> None:
        """
        Args:
            platform_url: of the stand-in for the platform.
            name: of the tables and queues; another one for each.
            settings: variables that are not as usual.
        """
        self.name = name
        self._audiences: list[str] = []
        self._dynamodb, sqs = client(config, "dynamodb"), client(config, "sqs")
        revalidation, catch_up, crowd = (
            sqs.create_queue(QueueName=f"{name}-{queue}")["QueueUrl"] for queue in ("revalidation", "catch-up", "crowd")
        )
        self.env = {
            **config.aws_environment(),
            **{table.variable: f"{name}-{table.name}" for table in ALL_TABLES},
            "AWS_ENDPOINT_URL_EXECUTE_API": platform_url,
            "WEBSOCKET_API_ENDPOINT": "https://api.execute-api.us-east-1.amazonaws.com/live",
            "REVALIDATION_QUEUE_URL": revalidation,
            "REVALIDATION_DEAD_QUEUE_URL": "none",  # no task fails here
            "CATCH_UP_QUEUE_URL": catch_up,
            "CROWD_QUEUE_URL": crowd,
            "CREDENTIAL_KEY_ID": "none",  # no upstream here asks for a credential
            "RELAY_FUNCTION": "none",  # no relay worker is started here as a function
            "SCHEDULE_FUNCTION": "none",
            "TIDEGATE_ENV": "test",
            **(settings or {}),
        }
        for table in ALL_TABLES:
            create_table(self._dynamodb, table, self.env[table.variable])
        self.container = ControlPlaneProviders(self.env)
        # What a dashboard shows to guests ends with its owner, so there is one.
        owner = UserAccess("owner", Role.EDITOR, True, 0)
        self.container.db.transact([put_user(self.env[ACCESS.variable], owner)])

    # --- what is in them ----------------------------------------------------------------------------------------

    def viewers(self, dashboard_id: str, count: int) -> None:
        """Live subscriptions of one dashboard, each on a connection of its own."""
        keys = (SubscriptionKey(dashboard_id, f"{dashboard_id}-{number}", "s") for number in range(count))
        put = partial(self.viewer, intent_hash=_HASH, stream_key="stream")
        for_all(f"{self.name}: viewers of dashboard {dashboard_id}", put, keys, count)

    def viewer(self, key: SubscriptionKey, intent_hash: str, stream_key: str) -> None:
        """A live subscription on a new connection."""
        connection = Connection(key.connection_id, "ip", int(time.time()))
        self.container.connections.open(connection)
        self.container.connections.reserve(key, connection, ConnectionRoom(1, 0, 1), f"{key.dashboard_id}#0")
        row = _row(key, intent_hash, stream_key)
        self.container.subscriptions.put_hidden(row)
        self.container.subscriptions.make_visible(row)

    def others(self, count: int, dashboards: int) -> None:
        """Subscriptions of so many other dashboards, a hundred on a connection, copied from one that is real."""
        self.viewers("pattern", 1)
        row, connection = (
            self._dynamodb.scan(TableName=self.env[table.variable], Limit=1)["Items"][0]
            for table in (SUBSCRIPTIONS, CONNECTIONS)
        )
        self._dynamodb.delete_item(
            TableName=self.env[SUBSCRIPTIONS.variable], Key={key: row[key] for key in ("dashboard_shard", "row")}
        )
        rows = [
            row
            | {
                "dashboard_shard": {"S": f"d{number % dashboards}#{number % 8}"},
                "row": {"S": f"o{number // _A_CONNECTION}#s"},
            }
            for number in range(count)
        ]
        self._write(SUBSCRIPTIONS.variable, "subscriptions of others", rows)
        connections = [connection | {"connection_id": {"S": f"o{n}"}} for n in range(1 + count // _A_CONNECTION)]
        self._write(CONNECTIONS.variable, "connections of others", connections)
        self.shown([f"d{number}" for number in range(dashboards)])

    def shown(self, dashboard_ids: Sequence[str]) -> None:
        """Access items of dashboards that guests see, whose datasource `s` has the intent of the rows here."""
        access: dict[str, Any] = {"share_version": {"N": "0"}, "visibility": {"S": "link"}, "owner_id": {"S": "owner"}}
        access |= {
            "acl": {"M": {}},
            "intents": {"M": {"s": {"S": _HASH}}},
            "deleted": {"BOOL": False},
            "revision": {"N": "1"},
            "withdrawal": {"NULL": True},
        }
        items = [access | {"key": {"S": f"dash#{dashboard_id}"}} for dashboard_id in dashboard_ids]
        self._write(ACCESS.variable, f"access items of {self.name}", items)

    def audience(self, dashboard_id: str, stream_key: str, shards: Sequence[int]) -> None:
        """Live subscriptions of one stream, each on a connection of its own; `shards` has the shard of each of them.

        Copied from one of each shard that is real. Their connections are not there: nothing asks for them while they
        can be sent to.
        """
        patterns = {shard: self._pattern(dashboard_id, stream_key, shard) for shard in set(shards)}
        rows = [
            patterns[shard]
            | {
                "dashboard_shard": {"S": f"{dashboard_id}#{number % 8}"},
                "row": {"S": f"{connection_of(dashboard_id, number)}#s"},
            }
            for number, shard in enumerate(shards)
        ]
        self._write(SUBSCRIPTIONS.variable, f"viewers of dashboard {dashboard_id.rstrip('-')}", rows)

    def remember(self, index_url: str) -> None:
        """Have functions over `env` read from `benchmarks.index`, and have that read every audience once."""
        self.env["AWS_ENDPOINT_URL_DYNAMODB"] = index_url
        dynamodb = boto3.client(
            "dynamodb",
            endpoint_url=index_url,
            region_name=self.env["AWS_REGION"],
            aws_access_key_id=self.env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.env["AWS_SECRET_ACCESS_KEY"],
        )
        for audience in self._audiences:
            pages = dynamodb.get_paginator("query").paginate(
                TableName=self.env[SUBSCRIPTIONS.variable],
                IndexName="by_stream",
                KeyConditionExpression="audience = :stream",
                ExpressionAttributeValues={":stream": {"S": audience}},
            )
            for _ in pages:
                pass

    def _pattern(self, dashboard_id: str, stream_key: str, shard: int) -> dict[str, Any]:
        """A live row of a shard, as it is stored. It is not in the table any longer."""
        row = _row(SubscriptionKey(dashboard_id, "pattern", "s"), _HASH, stream_key)
        self.container.subscriptions.put_hidden(row)
        self.container.subscriptions.make_visible(row, shard)
        table = self.env[SUBSCRIPTIONS.variable]
        pages = self._dynamodb.get_paginator("scan").paginate(
            TableName=table,
            FilterExpression="begins_with(#row, :row)",
            ExpressionAttributeNames={"#row": "row"},
            ExpressionAttributeValues={":row": {"S": "pattern#"}},
        )
        (item,) = (item for page in pages for item in page["Items"])
        self._dynamodb.delete_item(TableName=table, Key={key: item[key] for key in ("dashboard_shard", "row")})
        self._audiences.append(item["audience"]["S"])
        return dict(item)

    def _write(self, variable: str, what: str, items: Sequence[Mapping[str, Any]]) -> None:
        batches = [items[start : start + _BATCH] for start in range(0, len(items), _BATCH)]

        def write(batch: Sequence[Mapping[str, Any]]) -> None:
            requests = [{"PutRequest": {"Item": item}} for item in batch]
            answer = self._dynamodb.batch_write_item(RequestItems={self.env[variable]: requests})
            assert not answer["UnprocessedItems"]

        for_all(f"{self.name}: batches of {what}", write, batches, len(batches))

    # --- what a worker over them costs --------------------------------------------------------------------------

    def run(self, task: Task, seconds: float = 300) -> Cost:
        """The worker's task, in this process, with so many seconds to its deadline."""
        services, calls = self._counted()
        cpu, wall = time.process_time(), time.perf_counter()
        terminated = services.revalidate(task, time.monotonic() + seconds)
        return Cost(terminated, calls, time.process_time() - cpu, time.perf_counter() - wall)

    def _counted(self) -> tuple[RevalidateServices, Counter[str]]:
        services, calls = revalidate_services(self.env), Counter[str]()
        database = services.container.db._client
        real = database.call

        def call(operation: str, payload: Mapping[str, Any], **options: Any) -> dict[str, Any]:
            calls[operation] += 1
            return real(operation, payload, **options)

        database.call = call  # type: ignore[method-assign] # nothing but counted
        return services, calls


def connection_of(dashboard_id: str, number: int) -> str:
    """Id of the connection of a viewer of `Tables.audience`, who are numbered from 0 on."""
    return f"{dashboard_id[:6]}-{number:08}="


def _row(key: SubscriptionKey, intent_hash: str, stream_key: str) -> Subscription:
    principal, expires_at = Principal(PUBLIC_SUBJECT, 0), int(time.time()) + 3000
    claim = Claim(key.dashboard_id, key.datasource_id, principal, intent_hash, expires_at)
    return Subscription(key, "generation".ljust(36, "-"), claim, stream_key)


@contextmanager
def running_emulator(config: Config) -> Iterator[None]:
    """The emulator alone, stopped at the end with everything else that was started for this configuration."""
    config.state.mkdir(parents=True, exist_ok=True)
    processes = Processes(config)
    try:
        emulator.start(config, processes)
        yield
    finally:
        processes.stop_all()
