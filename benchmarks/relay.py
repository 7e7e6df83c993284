"""What the relay carries: one upstream to many viewers, how few upstreams there are, conflation, and what a quiet
upstream keeps in memory.

The relay is its own process (`python -m functions.relay`), the tables are the emulator's, the upstreams are fakes
(`fixtures/fake_upstreams`), the platform is a stand-in that answers at once; all on loopback.

Units and where they are read: deliveries are `data` frames counted at the stand-in, a second of wall time; CPU is the
relay process's own user and system time (`/proc/<pid>/stat`, else `ps`), microseconds for each delivery; shares are CPU
of a process in percent of one core; memory is its resident set (`ps`), KiB, which is without the kernel's socket
buffers; connections are counted at the fake upstreams (`GET /control`). Nothing here is a figure of AWS.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.figures import Cell, Figure, Table
from benchmarks.platform import Counters, counters, platform
from benchmarks.progress import for_all, step
from benchmarks.tables import Tables, running_emulator
from local_stack import fake_upstreams
from local_stack.config import ROOT, Config, StackError
from local_stack.processes import GRACE_S, Processes, wait_until
from tidegate.adapters.dynamodb.access import put_dashboard
from tidegate.domain.access import DashboardAccess, Visibility
from tidegate.domain.intents import Intent, build_intent, intent_hash
from tidegate.domain.profiles import BrokerProfile, Transport
from tidegate.domain.stream_policy import stream_for
from tidegate.domain.subscriptions import Stream, SubscriptionKey
from tidegate.tables import ACCESS

#: Datasources of a dashboard that has many.
_OF_A_DASHBOARD = 20
#: How long upstreams and viewers may take to be served, seconds.
_PATIENCE_S = 60.0
#: Milliseconds for which a quiet upstream says nothing: beyond every measurement here.
_QUIET_MS = 60_000
#: What a run through one upstream measures, and of which processes it reads the CPU.
_FIGURES = ("messages/s", "deliveries/s", "CPU us a delivery")
_PROCESSES = ("relay", "emulator", "stand-in", "fake_upstreams")
#: Id of the broker profile.
_BROKER = "broker"
#: Event numbers no upstream of this run comes to by itself: a reader that is behind one of these gets the next at once.
_FAR = 1_000_000


@dataclass(frozen=True, slots=True)
class Size:
    """How much is relayed.

    Attributes:
        through: viewers of one upstream -> messages a second it offers: far above what the relay passes on to so many.
        streams, viewers_each: of the run with conflation.
        updates, cap: a second, of each of its upstreams, and what the relay may pass on of them.
        finite: updates after which an upstream of that run ends.
        quiet: upstreams that are held at the same time, one number after another. The first pay for what is made once.
        window_s, settle_s: how long something is measured, and how long it runs before, seconds.
        grace_s: so long after a stream was last requested the relay asks whether it still has viewers, seconds
            (`usecases/relay`). What holding many upstreams costs is measured after that.
    """

    through: Mapping[int, int]
    streams: int
    viewers_each: int
    updates: int
    cap: int
    finite: int
    quiet: Sequence[int]
    window_s: float
    settle_s: float
    grace_s: float


FULL = Size(
    through={1: 1_000, 100: 500, 1_000: 100},
    streams=10,
    viewers_each=20,
    updates=100,
    cap=5,
    finite=1_000,
    quiet=(10, 200, 1_000),
    window_s=5.0,
    settle_s=2.0,
    grace_s=15.0,
)
SMALL = Size(
    through={2: 100},
    streams=2,
    viewers_each=2,
    updates=100,
    cap=5,
    finite=300,
    quiet=(2, 5),
    window_s=1.0,
    settle_s=0.2,
    grace_s=0.0,
)


# --- what is measured with --------------------------------------------------------------------------------------


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far, user and system."""
    stat = Path(f"/proc/{pid}/stat")
    if stat.exists():
        user, system = stat.read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    seconds = 0.0
    for part in _ps(pid, "time").split(":"):  # [hours:]minutes:seconds
        seconds = 60 * seconds + float(part)
    return seconds


def rss_kib(pid: int) -> int:
    """Resident set of a process, KiB."""
    return int(_ps(pid, "rss"))


def _ps(pid: int, column: str) -> str:
    return subprocess.run(["ps", "-o", f"{column}=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()


@dataclass(frozen=True, slots=True)
class Reading:
    """Counters and CPU seconds by process at one moment (monotonic seconds)."""

    at: float
    counters: Counters
    cpu_s: Mapping[str, float]


class Fixtures:
    """What stands around the relay: the emulator's tables and the fake upstreams."""

    def __init__(self, config: Config) -> None:
        """The emulator runs already; the upstreams are started, and stopped with it. Raises `StackError`."""
        self.config = config
        self.addresses = fake_upstreams.start(config, Processes(config))

    def control(self, method: str = "GET") -> dict[str, Any]:
        """What the upstreams counted by protocol. With `DELETE` they count from now on."""
        request = urllib.request.Request(self.addresses["control_url"], method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            counted: dict[str, Any] = json.loads(answer.read() or b"{}")
        return counted

    def url(self, protocol: str, query: str) -> str:
        return f"{self.addresses[f'{protocol}_url']}?{query}"

    @property
    def ports(self) -> str:
        """Those the relay is allowed to connect to."""
        return ",".join(str(urlsplit(self.addresses[name]).port) for name in ("sse_url", "mqtt_url"))


class Relayed:
    """Fresh tables with streams and their viewers, and a relay over them.

    Attributes:
        tables: those tables. The relay is started with their `env`.
    """

    def __init__(self, fixtures: Fixtures, platform_url: str, name: str, settings: Mapping[str, str]) -> None:
        self._fixtures = fixtures
        self._name = name
        self._platform_url = platform_url
        reachable = {"EGRESS_ALLOWED_PORTS": fixtures.ports, "EGRESS_ALLOW_PRIVATE_DESTINATIONS": "true"}
        self.tables = Tables(fixtures.config, platform_url, name, {**reachable, **settings})
        self._streams = 0
        self._pid = 0

    # --- streams and viewers ----------------------------------------------------------------------------------

    def watch(self, datasources: Sequence[Mapping[str, object]], viewers_each: int = 1) -> None:
        """Register streams, one for each datasource (`type` and `settings`), and put their viewers."""
        container = self.tables.container
        broker = container.profiles.broker(_BROKER)
        viewers: list[tuple[SubscriptionKey, str, str]] = []
        streams: list[Stream] = []
        for start in range(0, len(datasources), _OF_A_DASHBOARD):
            dashboard = f"{self._name}-{self._streams}"
            intents: dict[str, Intent] = {}
            for datasource in datasources[start : start + _OF_A_DASHBOARD]:
                datasource_id = f"s{self._streams}"
                self._streams += 1
                intent = build_intent(dashboard, {**datasource, "id": datasource_id}, broker=broker)
                intents[datasource_id] = intent
                stream = stream_for(intent, broker, container.stream_policy, int(time.time()))
                streams.append(stream)
                for number in range(viewers_each):
                    key = SubscriptionKey(dashboard, f"{datasource_id}-{number}", datasource_id)
                    viewers.append((key, intent_hash(intent), stream.stream_key))
            hashes = {datasource_id: intent_hash(intent) for datasource_id, intent in intents.items()}
            access = DashboardAccess(dashboard, 0, Visibility.LINK, "owner", intents=hashes)
            container.db.transact(put_dashboard(self.tables.env[ACCESS.variable], access, intents))
        # Viewers first: a relay that runs already would else notify nobody that it is connected.
        for_all(f"{self._name}: viewers", lambda row: self.tables.viewer(*row), viewers, len(viewers))
        for_all(f"{self._name}: streams registered", container.streams.touch, streams, len(streams))

    def add_broker(self) -> None:
        """Write the profile of the fake MQTT broker."""
        url = self._fixtures.addresses["mqtt_url"]
        profile = BrokerProfile(_BROKER, "bench", Transport.EXTERNAL, broker_url=url, allow_public_use=True)
        self.tables.container.profiles.write_broker(None, profile)

    # --- the relay --------------------------------------------------------------------------------------------

    @contextmanager
    def relay(self) -> Iterator[None]:
        """Run it. Raises `StackError` when its log has a fault."""
        processes = Processes(self._fixtures.config)
        name = f"relay-{self._name}"
        process = processes.start(name, [sys.executable, "-m", "functions.relay"], self.tables.env, ROOT)
        self._pid = process.pid
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        log = processes.log_of(name).read_text()
        if '"level":"ERROR"' in log or "Traceback" in log:
            raise StackError(f"The relay had a fault; the end of its log:\n{processes.tail(name)}")

    def read(self) -> Reading:
        """Everything that is counted, now."""
        started = {process.name: process.pid for process in Processes(self._fixtures.config).alive()}
        counted = counters(self._platform_url)
        cpu = {"relay": cpu_s(self._pid), "stand-in": counted.cpu_s}
        cpu |= {name: cpu_s(started[name]) for name in ("emulator", "fake_upstreams")}
        return Reading(time.monotonic(), counted, cpu)

    def rss_kib(self) -> int:
        return rss_kib(self._pid)


def _await(what: str, ready: Callable[[], bool]) -> None:
    """Raises `StackError` when it does not come to that."""
    if not wait_until(ready, _PATIENCE_S):
        raise StackError(f"It did not come to this within {_PATIENCE_S:.0f} s: {what}.")


# --- one upstream, many viewers -----------------------------------------------------------------------------------


def through_one(fixtures: Fixtures, size: Size) -> list[Table]:
    """Messages of one upstream to few and to many viewers, as fast as they go; and how many upstreams those share."""
    rows: list[tuple[Cell, ...]] = []
    shared: dict[str, Any] = {}
    for protocol in ("sse", "mqtt"):
        for viewers, offered in size.through.items():
            row, counted = _through(fixtures, protocol, viewers, offered, size)
            rows.append((protocol, Figure(viewers), Figure(offered), *row))
            if counted["ever"] != 1:
                raise StackError(f"{viewers} viewers of one {protocol} datasource made {counted['ever']} upstreams.")
            shared[protocol] = counted
    columns = ("one upstream, no conflation", "viewers", "offered/s", *_FIGURES, *(f"{name} %" for name in _PROCESSES))
    sharing = [(protocol, Figure(counted["now"]), Figure(counted["ever"])) for protocol, counted in shared.items()]
    most = f"{max(size.through):,} viewers of one datasource, connections at the upstream"
    return [Table(columns, rows), Table((most, "open", "ever"), sharing)]


def _through(
    fixtures: Fixtures, protocol: str, viewers: int, offered: int, size: Size
) -> tuple[list[Figure], dict[str, Any]]:
    """The figures of one run, and the upstream's counters at its end."""
    with platform() as url:
        settings = {"REALTIME_MAX_UPDATES_PER_SECOND": "0"}
        where = Relayed(fixtures, url, f"{protocol}{viewers}", settings)
        if protocol == "mqtt":
            where.add_broker()
            datasource = {"type": protocol, "settings": {"brokerProfileId": _BROKER, "topic": f"burst/{offered}"}}
        else:
            datasource = {"type": protocol, "settings": {"url": fixtures.url(protocol, f"rate={offered}")}}
        where.watch([datasource], viewers)
        fixtures.control("DELETE")
        with where.relay(), step(f"one {protocol} upstream, viewers: {viewers:,}"):
            _await("every viewer has a message", lambda: len(counters(url).data) == viewers)
            time.sleep(size.settle_s)
            before = where.read()
            time.sleep(size.window_s)
            after = where.read()
            counted = fixtures.control()[protocol]
        _await("the upstream's reader has gone", lambda: fixtures.control()[protocol]["now"] == 0)
    seconds = after.at - before.at
    deliveries = after.counters.deliveries - before.counters.deliveries
    cpu_us = (after.cpu_s["relay"] - before.cpu_s["relay"]) / deliveries * 1e6
    rates = [Figure(deliveries / viewers / seconds, ",.1f"), Figure(deliveries / seconds, ",.0f")]
    return [*rates, Figure(cpu_us, ",.0f"), *_shares(before, after)], counted


def _shares(before: Reading, after: Reading) -> list[Figure]:
    """Percent of one core that each process took."""
    seconds = after.at - before.at
    return [Figure((after.cpu_s[name] - before.cpu_s[name]) / seconds * 100, ".0f") for name in _PROCESSES]


# --- conflation -----------------------------------------------------------------------------------------------------


def conflation(fixtures: Fixtures, size: Size) -> Table:
    """Upstreams that are faster than the cap: what a viewer gets in a second, and that it gets the last value."""
    # An upstream that has ended is not connected to again while it is looked at what came last.
    pause = str(_QUIET_MS)
    settings = {"REALTIME_MAX_UPDATES_PER_SECOND": str(size.cap), "REALTIME_RECONNECT_MIN_MS": pause}
    settings |= {"REALTIME_RECONNECT_MAX_MS": pause}
    last = {number: _FAR * (number + 1) + size.finite for number in range(size.streams)}
    viewers = size.streams * size.viewers_each
    with platform() as url:
        where = Relayed(fixtures, url, "conflated", settings)
        query = f"rate={size.updates}&count={size.finite}&after="
        datasources = [
            {"type": "sse", "settings": {"url": fixtures.url("sse", f"{query}{final - size.finite}")}}
            for final in last.values()
        ]
        where.watch(datasources, size.viewers_each)
        fixtures.control("DELETE")
        with where.relay():
            name = f"{size.streams} upstreams of {size.updates} updates/s, {size.viewers_each} viewers each"
            with step(f"{name}, cap {size.cap}/s"):
                _await("every viewer has a message", lambda: len(counters(url).data) == viewers)
                time.sleep(size.settle_s)
                before = where.read()
                time.sleep(size.window_s)
                after = where.read()
            with step("until every viewer has the last value"):
                _await("the upstreams have ended", lambda: fixtures.control()["sse"]["now"] == 0)
                _await("every viewer has the last value", lambda: not _behind(counters(url), last))
    seconds = after.at - before.at
    rates = [(number - before.counters.data[viewer]) / seconds for viewer, number in after.counters.data.items()]
    row: tuple[Cell, ...] = (
        f"deliveries/s of a viewer, {viewers} viewers",
        *(Figure(pick(rates), ".2f") for pick in (min, statistics.median, max)),
    )
    note = f"all {viewers} viewers of {size.streams} upstreams that ended have the last value"
    return Table((f"{size.updates} updates/s, cap {size.cap}/s", "least", "median", "most"), [row], (note,))


def _behind(counted: Counters, last: Mapping[int, int]) -> list[str]:
    """Viewers whose newest message is not the last one of their stream. `last`: number of a stream -> its last value.

    A viewer's connection is named `s<number of its stream>-<number>`.
    """
    values = {viewer: json.loads(body)["payload"]["n"] for viewer, body in counted.last.items()}
    return [viewer for viewer, value in values.items() if value != last[int(viewer[1:].partition("-")[0])]]


# --- memory ---------------------------------------------------------------------------------------------------------


def memory(fixtures: Fixtures, size: Size) -> Table:
    """What quiet upstreams, a viewer each, keep in memory; and what holding the most of them costs."""
    rows: list[tuple[Cell, ...]] = []
    for protocol in ("sse", "websocket"):
        rows += _memory(fixtures, protocol, size)
    return Table(("quiet upstreams", "MiB", "KiB each", "connects", "relay %", "emulator %"), rows)


def _memory(fixtures: Fixtures, protocol: str, size: Size) -> list[tuple[Cell, ...]]:
    rows: list[tuple[Cell, ...]] = []
    with platform() as url:
        where = Relayed(fixtures, url, f"quiet-{protocol}", {})
        fixtures.control("DELETE")
        datasources = [
            # Behind an event of its own, each has a URL of its own, and its next event is a whole interval away.
            {
                "type": protocol,
                "settings": {"url": fixtures.url(protocol, f"interval_ms={_QUIET_MS}&after={_FAR + number}")},
            }
            for number in range(size.quiet[-1])
        ]
        few, most = size.quiet[0], size.quiet[-1]
        where.watch(datasources[:few])
        with where.relay():
            few_kib = held = 0
            for count in size.quiet:
                if count > few:
                    where.watch(datasources[held:count])
                held, last_requested_at = count, time.monotonic()
                with step(f"{protocol}, {count:,} quiet upstreams"):
                    _await_held(fixtures, url, protocol, count)
                    time.sleep(size.settle_s)
                    shares = _cost_of_holding(where, last_requested_at, size) if count == most else ["", ""]
                counted, kib = fixtures.control()[protocol], where.rss_kib()
                if counted["now"] != count:
                    raise StackError(f"Of {count} {protocol} upstreams {counted['now']} are left.")
                each = Figure((kib - few_kib) / (count - few), ",.1f") if count > few else ""
                few_kib = few_kib or kib
                name = f"{protocol}, {count:,}"
                rows.append((name, Figure(kib / 1024, ",.1f"), each, Figure(counted["ever"]), *shares))
    return rows


def _await_held(fixtures: Fixtures, url: str, protocol: str, count: int) -> None:
    _await(f"{count} upstreams are connected", lambda: fixtures.control()[protocol]["now"] == count)
    _await("their viewers were notified", lambda: counters(url).others >= count)


def _cost_of_holding(where: Relayed, last_requested_at: float, size: Size) -> list[Cell]:
    """CPU shares of relay and emulator once the relay asks for every stream whether anybody is there yet: some time
    after the last was requested (monotonic seconds)."""
    time.sleep(max(0.0, last_requested_at + size.grace_s + size.settle_s - time.monotonic()))
    before = where.read()
    time.sleep(2 * size.window_s)
    return list(_shares(before, where.read())[:2])


def run(config: Config, size: Size) -> list[Table]:
    """What the relay carries: one upstream to many viewers, conflation, and quiet upstreams."""
    with running_emulator(config):
        with step("fake upstreams"):
            fixtures = Fixtures(config)
        return [*through_one(fixtures, size), conflation(fixtures, size), memory(fixtures, size)]
