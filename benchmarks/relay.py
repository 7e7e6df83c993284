"""What the relay carries: one upstream to many viewers, how few upstreams there are, conflation, and what a quiet
upstream keeps in memory.

The relay is its own process (`python -m functions.relay`), the tables are the emulator's, the sources those of
`fixtures/sources`, the platform a stand-in that answers at once; all on loopback.

Units and where they are read: deliveries are `data` frames counted at the stand-in, a second of wall time; CPU is the
relay process's own user and system time (`/proc/<pid>/stat`, else `ps`), microseconds for each delivery; shares are CPU
of a process in percent of one core; memory is its resident set (`ps`), KiB, which is without the kernel's socket
buffers; upstreams are counted at the source (`GET /control`). Nothing here is a figure of AWS.
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
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.platform import Counters, counters, platform
from benchmarks.revocation import Tables, running_emulator
from fixtures.local_stack import show, sources
from fixtures.local_stack.config import ROOT, Config, StackError
from fixtures.local_stack.deployment import client
from fixtures.local_stack.processes import GRACE_S, Processes, wait_until
from tidegate.adapters.dynamodb.access import put_dashboard
from tidegate.domain.access import DashboardAccess, Visibility
from tidegate.domain.intents import Intent, build_intent, intent_hash
from tidegate.domain.profiles import BrokerProfile, Transport
from tidegate.domain.stream_policy import stream_for
from tidegate.domain.subscriptions import SubscriptionKey
from tidegate.tables import ACCESS

#: Viewers of one upstream, and messages a second its source offers: far above what the relay can pass on to so many.
THROUGH = {1: 1_000, 100: 500, 1_000: 100}
#: Conflation: streams, viewers of each, updates a second of each source, and what the relay may pass on.
STREAMS, VIEWERS_EACH = 10, 20
UPDATES, CAP = 100, 5
#: Updates after which a source ends.
FINITE = 1_000
#: Quiet upstreams held at the same time. The first ones pay for what is made once.
FEW, SOME, MANY = 10, 200, 1_000
#: Datasources of a dashboard that has many.
_OF_A_DASHBOARD = 20
#: How long something is measured, and how long it runs before, seconds.
_WINDOW_S, _SETTLE_S = 5.0, 2.0
#: How long upstreams and viewers may take to be served, seconds.
_PATIENCE_S = 60.0
#: Milliseconds for which a source says nothing: beyond every measurement here.
_QUIET_MS = 60_000
#: After so long the relay asks whether a stream that somebody wanted still has viewers (`usecases/relay`), seconds.
_GRACE_S = 15.0
#: What a run through one upstream measures, and of which processes it reads the CPU.
_FIGURES = ("messages/s", "deliveries/s", "CPU us a delivery")
_PROCESSES = ("relay", "emulator", "stand-in", "sources")
#: Id of the broker profile.
_BROKER = "broker"
#: Event numbers no source of this run comes to by itself: a reader that is behind one of these gets the next at once.
_FAR = 1_000_000


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
    """What stands around the relay: the emulator's tables and the sources."""

    def __init__(self, config: Config) -> None:
        """The emulator runs already; the sources are started, and stopped with it. Raises `StackError`."""
        self.config = config
        self.addresses = sources.start(config, Processes(config))

    def control(self, method: str = "GET") -> dict[str, Any]:
        """What the sources counted by name, or with `DELETE`: counted from now on."""
        request = urllib.request.Request(self.addresses["control_url"], method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            counted: dict[str, Any] = json.loads(answer.read() or b"{}")
        return counted

    def url(self, protocol: str, query: str) -> str:
        return f"{self.addresses[f'{protocol}_url']}?{query}"

    @property
    def ports(self) -> str:
        """Those the relay is allowed to connect to."""
        return ",".join(str(urlsplit(self.addresses[one]).port) for one in ("sse_url", "mqtt_url"))


class Relayed:
    """Fresh tables with streams and their viewers, and a relay over them."""

    def __init__(self, fixtures: Fixtures, platform_url: str, name: str, settings: Mapping[str, str]) -> None:
        self._fixtures = fixtures
        self._name = name
        self._platform_url = platform_url
        self._tables = Tables(fixtures.config, platform_url, name)
        queue = client(fixtures.config, "sqs").create_queue(QueueName=f"{name}-looks")["QueueUrl"]
        self._tables.env.update(
            {
                "CATCH_UP_QUEUE_URL": queue,
                "CREDENTIAL_KEY_ID": "none",  # no source here asks for a credential
                "RELAY_FUNCTION": "none",  # a plain process has no successor
                "EGRESS_ALLOWED_PORTS": fixtures.ports,
                "EGRESS_ALLOW_PRIVATE_DESTINATIONS": "true",
                **settings,
            }
        )
        self._streams = 0
        self._pid = 0

    # --- streams and viewers ----------------------------------------------------------------------------------

    def watch(self, datasources: Sequence[Mapping[str, object]], viewers_each: int = 1) -> None:
        """Announce streams, one for each datasource (`type` and `settings`), and put their viewers."""
        world, broker = self._tables.world, self._tables.world.profiles.broker(_BROKER)
        rows: list[tuple[SubscriptionKey, str, str]] = []
        wanted: list[Callable[[], object]] = []
        for start in range(0, len(datasources), _OF_A_DASHBOARD):
            dashboard = f"{self._name}-{self._streams}"
            intents: dict[str, Intent] = {}
            for one in datasources[start : start + _OF_A_DASHBOARD]:
                datasource = f"s{self._streams}"
                self._streams += 1
                intent = build_intent(dashboard, {**one, "id": datasource}, broker=broker)
                intents[datasource] = intent
                stream = stream_for(intent, broker, world.stream_policy, int(time.time()))
                wanted.append(partial(world.streams.touch, stream))
                for number in range(viewers_each):
                    key = SubscriptionKey(dashboard, f"{datasource}-{number}", datasource)
                    rows.append((key, intent_hash(intent), stream.stream_key))
            hashes = {datasource: intent_hash(intent) for datasource, intent in intents.items()}
            access = DashboardAccess(dashboard, 0, Visibility.LINK, "owner", intents=hashes)
            world.db.transact(put_dashboard(self._tables.env[ACCESS.variable], access, intents))
        with ThreadPoolExecutor(8) as pool:
            # Viewers first: a relay that runs already would else tell nobody that it is connected.
            list(pool.map(lambda row: self._tables.viewer(*row), rows))
            list(pool.map(lambda want: want(), wanted))

    def add_broker(self) -> None:
        """Write the profile of the sources' MQTT broker."""
        url = self._fixtures.addresses["mqtt_url"]
        profile = BrokerProfile(_BROKER, "bench", Transport.EXTERNAL, broker_url=url, allow_public_use=True)
        self._tables.world.profiles.write_broker(None, profile)

    # --- the relay --------------------------------------------------------------------------------------------

    @contextmanager
    def relay(self) -> Iterator[None]:
        """Run it. Raises `StackError` when its log has a fault."""
        processes = Processes(self._fixtures.config)
        name = f"relay-{self._name}"
        process = processes.start(name, [sys.executable, "-m", "functions.relay"], self._tables.env, ROOT)
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
        started = {one.name: one.pid for one in Processes(self._fixtures.config).alive()}
        counted = counters(self._platform_url)
        cpu = {"relay": cpu_s(self._pid), "stand-in": counted.cpu_s}
        cpu |= {name: cpu_s(started[name]) for name in ("emulator", "sources")}
        return Reading(time.monotonic(), counted, cpu)

    def rss_kib(self) -> int:
        return rss_kib(self._pid)


def _await(what: str, ready: Callable[[], bool]) -> None:
    """Raises `StackError` when it does not come to that."""
    if not wait_until(ready, _PATIENCE_S):
        raise StackError(f"It did not come to this within {_PATIENCE_S:.0f} s: {what}.")


# --- one upstream, many viewers -----------------------------------------------------------------------------------


def through_one(fixtures: Fixtures) -> list[str]:
    """Messages of one upstream to 1, 100 and 1,000 viewers, as fast as they go; and how many upstreams those share."""
    rows: list[tuple[str, ...]] = [
        ("one upstream, no conflation", "viewers", "offered/s", *_FIGURES, *(f"{one} %" for one in _PROCESSES))
    ]
    shared: dict[str, Any] = {}
    for protocol in ("sse", "mqtt"):
        for viewers, offered in THROUGH.items():
            with show.step(f"one {protocol} upstream, viewers: {viewers:,}"):
                row, counted = _through(fixtures, protocol, viewers, offered)
            rows.append((protocol, f"{viewers:,}", f"{offered:,}", *row))
            if counted["ever"] != 1:
                raise StackError(f"{viewers} viewers of one {protocol} datasource made {counted['ever']} upstreams.")
            shared[protocol] = counted
    sharing: list[tuple[str, ...]] = [(f"{max(THROUGH):,} viewers of one datasource, at the source", "open", "ever")]
    sharing += [(protocol, str(one["now"]), str(one["ever"])) for protocol, one in shared.items()]
    return [show.table(rows), "", show.table(sharing)]


def _through(fixtures: Fixtures, protocol: str, viewers: int, offered: int) -> tuple[list[str], dict[str, Any]]:
    """The figures of one run, and the source's counters at its end."""
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
        with where.relay():
            _await("every viewer has a message", lambda: len(counters(url).data) == viewers)
            time.sleep(_SETTLE_S)
            before = where.read()
            time.sleep(_WINDOW_S)
            after = where.read()
            counted = fixtures.control()[protocol]
        _await("the source's reader has gone", lambda: fixtures.control()[protocol]["now"] == 0)
    seconds = after.at - before.at
    deliveries = after.counters.deliveries - before.counters.deliveries
    cpu_us = (after.cpu_s["relay"] - before.cpu_s["relay"]) / deliveries * 1e6
    figures = [f"{deliveries / viewers / seconds:,.1f}", f"{deliveries / seconds:,.0f}", f"{cpu_us:,.0f}"]
    return figures + _shares(before, after), counted


def _shares(before: Reading, after: Reading) -> list[str]:
    """Percent of one core that each process took."""
    seconds = after.at - before.at
    return [f"{(after.cpu_s[one] - before.cpu_s[one]) / seconds * 100:.0f}" for one in _PROCESSES]


# --- conflation -----------------------------------------------------------------------------------------------------


def conflation(fixtures: Fixtures) -> list[str]:
    """A source that is faster than the cap: what a viewer gets in a second, and that it gets the last value."""
    # A source that has ended is not connected to again while it is looked at what came last.
    pause = str(_QUIET_MS)
    settings = {"REALTIME_MAX_UPDATES_PER_SECOND": str(CAP), "REALTIME_RECONNECT_MIN_MS": pause}
    settings |= {"REALTIME_RECONNECT_MAX_MS": pause}
    last = {number: _FAR * (number + 1) + FINITE for number in range(STREAMS)}
    viewers = STREAMS * VIEWERS_EACH
    with platform() as url:
        where = Relayed(fixtures, url, "conflated", settings)
        query = f"rate={UPDATES}&count={FINITE}&after="
        datasources = [
            {"type": "sse", "settings": {"url": fixtures.url("sse", f"{query}{one - FINITE}")}} for one in last.values()
        ]
        where.watch(datasources, VIEWERS_EACH)
        fixtures.control("DELETE")
        with where.relay():
            with show.step(f"{STREAMS} streams of {UPDATES} updates/s, {VIEWERS_EACH} viewers each, cap {CAP}/s"):
                _await("every viewer has a message", lambda: len(counters(url).data) == viewers)
                time.sleep(_SETTLE_S)
                before = where.read()
                time.sleep(_WINDOW_S)
                after = where.read()
            with show.step("until the sources ended, and a second more"):
                _await("the sources have ended", lambda: fixtures.control()["sse"]["now"] == 0)
                time.sleep(1)
                final = counters(url)
    got = {one: json.loads(body)["payload"]["n"] for one, body in final.last.items()}
    wrong = {one: n for one, n in got.items() if n != last[int(one[1:].partition("-")[0])]}
    if wrong or len(got) != viewers:
        raise StackError(f"{len(wrong)} of {len(got)} viewers did not get the last value, for example {wrong}.")
    seconds = after.at - before.at
    rates = [(number - before.counters.data[one]) / seconds for one, number in after.counters.data.items()]
    rows: list[tuple[str, ...]] = [
        (f"{UPDATES} updates/s, cap {CAP}/s", "least", "median", "most"),
        (
            f"deliveries/s of a viewer, {viewers} viewers",
            *(f"{one(rates):.2f}" for one in (min, statistics.median, max)),
        ),
    ]
    return [show.table(rows), f"  all {viewers} viewers of {STREAMS} sources that ended have the last value"]


# --- memory ---------------------------------------------------------------------------------------------------------


def memory(fixtures: Fixtures) -> list[str]:
    """What quiet upstreams, a viewer each, keep in memory; and what holding the most of them costs."""
    rows: list[tuple[str, ...]] = [("quiet upstreams", "MiB", "KiB each", "connects", "relay %", "emulator %")]
    for protocol in ("sse", "websocket"):
        rows += _memory(fixtures, protocol)
    return [show.table(rows)]


def _memory(fixtures: Fixtures, protocol: str) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    with platform() as url:
        where = Relayed(fixtures, url, f"quiet-{protocol}", {})
        fixtures.control("DELETE")
        datasources = [
            # Behind an event of its own, each has a URL of its own, and its next event is a whole interval away.
            {
                "type": protocol,
                "settings": {"url": fixtures.url(protocol, f"interval_ms={_QUIET_MS}&after={_FAR + number}")},
            }
            for number in range(MANY)
        ]
        where.watch(datasources[:FEW])
        with where.relay():
            few_kib = held = 0
            for count in (FEW, SOME, MANY):
                with show.step(f"{protocol}, {count:,} quiet upstreams"):
                    if count > FEW:
                        where.watch(datasources[held:count])
                    held, last_requested_at = count, time.monotonic()
                    _await_held(fixtures, url, protocol, count)
                    shares = _cost_of_holding(where, last_requested_at) if count == MANY else ["", ""]
                counted, kib = fixtures.control()[protocol], where.rss_kib()
                if counted["now"] != count:
                    raise StackError(f"Of {count} {protocol} upstreams {counted['now']} are left.")
                each = f"{(kib - few_kib) / (count - FEW):,.1f}" if count > FEW else ""
                few_kib = few_kib or kib
                rows.append((f"{protocol}, {count:,}", f"{kib / 1024:,.1f}", each, f"{counted['ever']:,}", *shares))
    return rows


def _await_held(fixtures: Fixtures, url: str, protocol: str, count: int) -> None:
    _await(f"{count} upstreams are connected", lambda: fixtures.control()[protocol]["now"] == count)
    _await("their viewers were told", lambda: counters(url).others >= count)
    time.sleep(_SETTLE_S)


def _cost_of_holding(where: Relayed, last_requested_at: float) -> list[str]:
    """CPU shares of relay and emulator once the relay asks for every stream whether anybody is there yet: some time
    after the last was wanted (monotonic seconds)."""
    time.sleep(max(0.0, last_requested_at + _GRACE_S + _SETTLE_S - time.monotonic()))
    before = where.read()
    time.sleep(2 * _WINDOW_S)
    return _shares(before, where.read())[:2]


def run(config: Config) -> list[str]:
    """The relay's figures; returns the lines of the result."""
    with running_emulator(config):
        with show.step("sources"):
            fixtures = Fixtures(config)
        return [*through_one(fixtures), "", *conflation(fixtures), "", *memory(fixtures)]
