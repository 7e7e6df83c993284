"""A load as somebody describes it, and what follows from it: rates, seconds, numbers of messages. No prices."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from ops import units

#: Who brings values: devices by IoT Core, or upstreams of the relay.
DEVICE, SSE, WEBSOCKET, BROKER = "mqtt-device", "sse", "websocket", "mqtt-broker"
PROTOCOLS = (DEVICE, SSE, WEBSOCKET, BROKER)
#: How the relay runs.
FUNCTION, SERVICE = "function", "service"
RELAYS = (FUNCTION, SERVICE)
#: A connection lives two hours at most (API Gateway).
_CONNECTION_H = 2.0
#: When a page asks for a new session token, as a part of the token's life: between a half and three quarters.
_REFRESH_AT = 0.625
#: A sender of the relay sends to a connection with batch frames once in a window at most, so often a second.
_WINDOWS = 10.0


class LoadError(ValueError):
    """The load is not one: which of its values is wrong, and what is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a month of 30 days is like. All viewers come at the same hours.

    Attributes:
        viewers: who watch at the same time.
        hours: a day, in which they watch.
        visits: how often each of them opens a dashboard in a day.
        dashboards: that are watched at the same time; the viewers are spread evenly over them.
        datasources: of each dashboard, each with a source of its own.
        updates: values of a datasource in a second.
        value_bytes: of a value, as JSON.
        protocol: who brings the values.
        source_hours: hours a day in which devices publish, watched or not.
        devices: that are connected to IoT Core; 0 for one for each dashboard.
        per_second: `REALTIME_MAX_UPDATES_PER_SECOND`; 0 sends all.
        batches: whether the topics are in `REALTIME_MQTT_BATCHED_TOPICS` and pages ask for batch frames.
        history: whether the datasources have a history.
        session_s: `DATASOURCE_SESSION_TTL_SECONDS`.
        together: whether pages open a dashboard with one token, or each datasource with its own.
        relay: whether the relay is a function or a service.
        service_cpu: CPU units of the service's task, 1,024 for a core; 0 for the least that carries the load.
        log_days: how long logs are kept.
        metrics: metrics of our own that are written in the hours in which somebody watches.
    """

    viewers: float = 100
    hours: float = 8
    visits: float = 2
    dashboards: float = 10
    datasources: float = 10
    updates: float = 1
    value_bytes: float = 200
    protocol: str = DEVICE
    source_hours: float = 24
    devices: float = 0
    per_second: float = 10
    batches: bool = False
    history: bool = False
    session_s: float = 300
    together: bool = True
    relay: str = FUNCTION
    service_cpu: float = 0
    log_days: float = 30
    metrics: float = 40

    def __post_init__(self) -> None:
        """Raises `LoadError`."""
        _within("hours", self.hours, 0, 24)
        _within("source_hours", self.source_hours, 0, 24)
        _within("session_s", self.session_s, 60, 3600)
        for name in ("viewers", "updates", "value_bytes", "per_second", "visits", "devices", "metrics", "log_days"):
            _within(name, getattr(self, name), 0, 1e9)
        for name in ("dashboards", "datasources"):
            _within(name, getattr(self, name), 1, 1e6)
        for name, allowed in (("protocol", PROTOCOLS), ("relay", RELAYS), ("service_cpu", (0, *SERVICE_SIZES))):
            if getattr(self, name) not in allowed:
                raise LoadError(f"{name}={getattr(self, name)!r}; allowed: {', '.join(map(str, allowed))}")

    # --- time -------------------------------------------------------------------------------------------------

    @property
    def watched_s(self) -> float:
        """Seconds of the month in which somebody watches."""
        return self.hours * 3600 * DAYS if self.viewers else 0.0

    @property
    def published_s(self) -> float:
        """Seconds of the month in which the sources' values reach us: devices' always, others' while one watches."""
        return self.source_hours * 3600 * DAYS if self.protocol == DEVICE else self.watched_s

    # --- viewers ----------------------------------------------------------------------------------------------

    @property
    def connections(self) -> float:
        """Opened in the month."""
        if not self.visits:
            return 0.0
        return self.viewers * self.visits * DAYS * math.ceil(self.hours / self.visits / _CONNECTION_H)

    @property
    def refreshes(self) -> float:
        """Times that a page takes a new session token while it is open."""
        return self.viewers * self.watched_s / (self.session_s * _REFRESH_AT)

    @property
    def viewers_of_each(self) -> float:
        """Viewers of one datasource."""
        return self.viewers / self.dashboards

    # --- values -----------------------------------------------------------------------------------------------

    @property
    def sources(self) -> float:
        """Datasources of all dashboards; each is a stream."""
        return self.dashboards * self.datasources

    @property
    def batched(self) -> bool:
        """Whether values come to the bridge in batches."""
        return self.batches and self.protocol == DEVICE

    @property
    def batch(self) -> tuple[float, float, float]:
        """Of batches to the bridge: how many a second, messages of one, and different topics among them."""
        a_second = self.sources * self.updates
        messages = min(units.MESSAGES_A_BATCH, max(1.0, a_second * units.BATCH_S))
        return a_second / messages, messages, _different(self.sources, messages)

    @property
    def shown(self) -> float:
        """Values of a datasource that a viewer is sent in a second."""
        arrive = self.updates
        if self.batched and self.updates:
            batches, _, topics = self.batch
            arrive = batches * topics / self.sources
        return min(arrive, self.per_second) if self.per_second else arrive

    @property
    def deliveries(self) -> float:
        """Frames with values to viewers in the month."""
        return self.viewers * self.datasources * self.shown * self.watched_s

    @property
    def messages(self) -> float:
        """Messages that carry those frames: fewer where one carries several."""
        if not self.batches or not self.shown:
            return self.deliveries
        if self.batched:
            batches, _, topics = self.batch
            of_one = batches * _share(self.sources, self.datasources, topics)
            return self.viewers * min(of_one, self.datasources * self.shown) * self.watched_s
        frames = self.datasources * self.shown / _WINDOWS  # in a window, on average
        return self.viewers * _WINDOWS * (1 - math.exp(-frames)) * self.watched_s

    # --- the relay --------------------------------------------------------------------------------------------

    @property
    def cores(self) -> float:
        """Cores that the relay needs while it is watched, as measured on the machine of the page on performance."""
        if self.protocol == DEVICE:
            return 0.0
        values = self.sources * self.shown
        return values * units.RELAY_CPU_VALUE_S + values * self.viewers_of_each * units.RELAY_CPU_DELIVERY_S

    @property
    def task(self) -> tuple[float, float]:
        """CPU units and MB of the service's task: the least that is busy for no more than 60 %."""
        cpu = self.service_cpu or next((size for size in SERVICE_SIZES if self.cores <= BUSY * size / 1024), 1024)
        return cpu, SERVICE_SIZES[int(cpu)]


DAYS = 30
#: CPU units of a task on Fargate -> the least memory that goes with it, MB. A worker is one Python process, which uses
#: one core at most, so larger ones do not help.
SERVICE_SIZES = {256: 512, 512: 1024, 1024: 2048}
#: The part of its CPU that a task should use at most.
BUSY = 0.6


def load_of(given: dict[str, Any]) -> Load:
    """A load of what was given by name. Raises `LoadError`."""
    known = {each.name for each in fields(Load)}
    if unknown := given.keys() - known:
        raise LoadError(f"unknown: {', '.join(sorted(unknown))}; allowed: {', '.join(sorted(known))}")
    return Load(**given)


def _within(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:  # also when it is no number
        raise LoadError(f"{name}={value:g}; allowed: {least:g} to {most:g}")


def _different(kinds: float, drawn: float) -> float:
    """How many different ones are among so many that are drawn of so many kinds, on average."""
    return kinds * (1 - math.pow(1 - 1 / kinds, drawn)) if kinds > 1 else 1.0


def _share(kinds: float, mine: float, drawn: float) -> float:
    """How likely one of mine is among the different ones that are drawn."""
    return 1 - math.pow(1 - min(1.0, mine / kinds), drawn)
