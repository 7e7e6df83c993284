"""What a device message to a crowd costs, by a sender for each shard of its audience, and by one sender for all.

Every invocation is a process of its own, as on Lambda: what it has imported and built before is not counted. They run
one after another, because this machine has not a core for each. Time, CPU and memory are medians of some values. Calls
and units are of a further value, because counting them takes time and memory. Only Linux tells the peak of memory.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.figures import Cell, Figure, Table
from benchmarks.index import remembered
from benchmarks.invocation import ALLOWED, Cost
from benchmarks.platform import counters, platform
from benchmarks.progress import step
from benchmarks.tables import Tables, connection_of, running_emulator
from local_stack.config import ROOT, Config, StackError
from local_stack.deployment import client
from tidegate.adapters.aws.crowd_queue import read_part
from tidegate.domain import crowds
from tidegate.domain.subscriptions import Stream


@dataclass(frozen=True, slots=True)
class Size:
    """How large the crowd is.

    Attributes:
        viewers: of the stream.
        crowd: subscribes from which a stream has a crowd; see `tidegate.domain.crowds`.
        rounds: values whose medians are shown.
    """

    viewers: int
    crowd: int
    rounds: int


FULL = Size(viewers=20_000, crowd=crowds.CROWD, rounds=3)
SMALL = Size(viewers=300, crowd=40, rounds=1)


def run(config: Config, size: Size) -> list[Table]:
    """A device message to a crowd: by a sender for each shard, and by one for all."""
    with running_emulator(config), platform() as url, remembered(config.emulator_url) as index_url:
        # No quota holds a sender up: what it would wait for is not what a message costs.
        settings = {"REALTIME_MQTT_ALLOWED_TOPICS": ALLOWED, "REALTIME_MAX_SENDS_PER_SECOND": "0"}
        where = Tables(config, url, "crowd", settings)
        where.shown([_dashboard("whole"), _dashboard("spread")])
        shards = _shards(size)
        where.audience(_dashboard("whole"), _stream("whole").stream_key, [0] * size.viewers)
        where.audience(_dashboard("spread"), _stream("spread").stream_key, shards)
        where.container.subscriptions.mark_crowd(_stream("spread").stream_key, int(time.time()) + crowds.MARK_S)
        for name in ("whole", "spread"):
            where.container.streams.touch(_stream(name))
        with step("every audience is read once"):
            where.remember(index_url)
        values = _Values(where, client(config, "sqs"), size)
        measured = [values.send(counted=False) for _ in range(size.rounds)]
        counted = values.send(counted=True)
        costs = {name: _medians([each[name] for each in measured], counted[name]) for name in counted}
        table = _table(size, shards, costs)
        return [replace(table, notes=(*table.notes, *_not_once(url, size, values.outcomes)))]


def _dashboard(name: str) -> str:
    """As long as a real id."""
    return name.ljust(36, "-")


def _stream(name: str) -> Stream:
    """Each has a topic of its own, so that a message is for one of them."""
    return Stream(f"stream-{name}".ljust(64, "-"), "mqtt", "json", ALLOWED, f"demo/{name}", int(time.time()))


def _shards(size: Size) -> Sequence[int]:
    """The shard of each viewer, who came one after another."""
    stream, kept = _stream("spread"), crowds.CROWD
    crowds.CROWD = size.crowd
    try:
        return [
            crowds.shard_of(replace(stream, subscribes=number + 1), connection_of(_dashboard("spread"), number))
            for number in range(size.viewers)
        ]
    finally:
        crowds.CROWD = kept


class _Values:
    """Sends device messages to both audiences."""

    def __init__(self, where: Tables, sqs: Any, size: Size) -> None:
        self._where = where
        self._sqs = sqs
        self._size = size
        self._sent = 0
        #: What became of frames: how many per outcome, as the senders counted them.
        self.outcomes: Counter[str] = Counter()

    def send(self, *, counted: bool) -> Mapping[str, Cost]:
        """One value for each audience. Returns what took what: `one`, `bridge`, and the numbers of shards."""
        self._sent += 1
        costs: dict[str, Cost] = defaultdict(Cost)
        with step(f"value {self._sent} to {self._size.viewers:,} viewers, twice"):
            costs["one"] += self._invoke({"topic": "demo/whole", "number": self._sent, "counted": counted})
            costs["bridge"] += self._invoke({"topic": "demo/spread", "number": self._sent, "counted": counted})
            while parts := self._asked():
                for body in parts:
                    costs[str(read_part(body).shard)] += self._invoke({"part": body, "counted": counted})
        return dict(costs)

    def _asked(self) -> Sequence[str]:
        """The parts that are in the queue, taken out of it."""
        url, bodies = self._where.env["CROWD_QUEUE_URL"], list[str]()
        while messages := self._sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []):
            bodies += [message["Body"] for message in messages]
            for message in messages:
                self._sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return bodies

    def _invoke(self, job: Mapping[str, object]) -> Cost:
        """In a process of its own. Raises `StackError` when it fails."""
        whole = {**job, "env": self._where.env, "crowd": self._size.crowd}
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.invocation"],
            input=json.dumps(whole),
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        if done.returncode:
            raise StackError(f"An invocation failed: {done.stderr[-2000:]}")
        *metrics, cost = map(json.loads, done.stdout.splitlines())
        for metric in metrics:
            if "deliveries" in metric:
                self.outcomes[metric["outcome"]] += metric["deliveries"]
        return Cost(**cost)


def _not_once(url: str, size: Size, outcomes: Mapping[str, int]) -> Sequence[str]:
    """How many viewers of both audiences did not get each value once, and what the senders counted. Who could not be
    sent one gets a catch-up, which nothing here sends; and a frame whose answer is lost is sent again.

    Raises `StackError` when they are more than one in a thousand.
    """
    got, values = counters(url).data, size.rounds + 1
    viewers = [
        connection_of(_dashboard(name), number) for name in ("whole", "spread") for number in range(size.viewers)
    ]
    fewer = sum(got.get(viewer, 0) < values for viewer in viewers)
    more = sum(got.get(viewer, 0) > values for viewer in viewers)
    told = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(outcomes.items()))
    notes = [f"viewers with fewer than {values} values: {fewer}, with more: {more}", f"frames, as counted: {told}"]
    if (fewer + more) * 1000 > len(viewers):
        raise StackError("; ".join(notes))
    return notes


def _medians(costs: Sequence[Cost], counted: Cost) -> Cost:
    """Time, CPU and memory of the values that were measured; calls and units of the one that was counted."""
    return replace(
        counted,
        wall_s=statistics.median(cost.wall_s for cost in costs),
        cpu_s=statistics.median(cost.cpu_s for cost in costs),
        kib=int(statistics.median(cost.kib for cost in costs)),
    )


def _table(size: Size, shards: Sequence[int], costs: Mapping[str, Cost]) -> Table:
    rows_of = {str(shard): shards.count(shard) for shard in range(crowds.AUDIENCE_SHARDS)}
    others = sorted((costs[shard] for shard in rows_of if shard != "0"), key=lambda cost: cost.wall_s)
    one, bridge, first, other = costs["one"], costs["bridge"], costs["0"], others[len(others) // 2]
    whole = sum((costs[shard] for shard in rows_of), bridge)
    last = bridge.wall_s + max(costs[shard].wall_s for shard in rows_of)
    middle = statistics.median(count for shard, count in rows_of.items() if shard != "0")
    rows = [
        _row("one sender for all", size.viewers, one, one.wall_s),
        _row("bridge, which asks for the parts", 0, bridge, bridge.wall_s),
        _row("part of shard 0", rows_of["0"], first, first.wall_s),
        _row("part of another shard, the median", int(middle), other, other.wall_s),
        _row("bridge and all parts", size.viewers, whole, last),
        _ratios("ratio of the part of shard 0 to one sender", first, one, first.wall_s),
        _ratios("ratio of bridge and all parts to one sender", whole, one, last),
    ]
    columns = ("a value", "viewers", "s", "CPU s", "MiB", "DynamoDB calls", "read units", "write units", "SQS calls")
    return Table(
        columns,
        rows,
        (
            "s of bridge and all parts: of the bridge and the slowest part, if each part has a core of its own",
            "MiB of bridge and all parts: of the largest of these processes",
        ),
    )


def _row(name: str, viewers: int, cost: Cost, wall_s: float) -> tuple[Cell, ...]:
    return (
        name,
        Figure(viewers),
        Figure(wall_s, ".2f"),
        Figure(cost.cpu_s, ".2f"),
        Figure(cost.kib / 1024, ".1f"),
        Figure(cost.calls),
        Figure(cost.reads, ",.1f"),
        Figure(cost.writes, ",.0f"),
        Figure(cost.queue),
    )


def _ratios(name: str, this: Cost, that: Cost, wall_s: float) -> tuple[Cell, ...]:
    pairs = (
        (wall_s, that.wall_s),
        (this.cpu_s, that.cpu_s),
        (this.kib, that.kib),
        (this.calls, that.calls),
        (this.reads, that.reads),
        (this.writes, that.writes),
    )
    return (name, "", *(Figure(a / b, ".2f") if b else "" for a, b in pairs), "")
