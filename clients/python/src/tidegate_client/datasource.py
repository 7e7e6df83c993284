"""One datasource of a dashboard: its state, its values, and who waits for them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from tidegate_client.errors import Ended
from tidegate_client.series import Sample, Series

#: Topics of a wildcard that are kept. The server sends the newest 200 at subscribe.
_MOST_TOPICS = 500


class DatasourceState(StrEnum):
    """What may be expected of a datasource now."""

    #: No value may be expected yet.
    CONNECTING = "connecting"
    #: The stream stands. What is shown is what the source said last.
    LIVE = "live"
    #: No value for `stale_after`. What is shown may be old.
    STALE = "stale"
    #: The source or the subscription is in trouble, and it is tried again.
    ERROR = "error"
    #: Over for good. `reason` and `message` say why.
    ENDED = "ended"


class Datasource:
    """Values as they come: `async for sample in datasource`.

    Every loop over it gets each value that comes from then on, and first the newest one, if there is any. The loop ends
    with the dashboard, and raises `Ended` when the datasource is over for good. A loop that is slower than the values
    loses the oldest, and the next one has `gap`.

    Attributes:
        stale_after: seconds after which the newest value is stale; None: never.
        reason: why it ended, or is in error: a code of the protocol, or the reason of what ended it.
        message: the same, for people.
        series: the values of each topic. A datasource without a wildcard has one series, under the empty string.
    """

    def __init__(
        self, datasource_id: str, stale_after: float | None, capacity: int, clock: Callable[[], tuple[datetime, bool]]
    ) -> None:
        """`clock` returns the server's time, and whether the dashboard is connected."""
        self.id = datasource_id
        self.stale_after = stale_after
        self.reason: str | None = None
        self.message: str | None = None
        self.series: dict[str, Series] = {}
        self._capacity = capacity
        self._clock = clock
        self._loops: set[_Loop] = set()
        # What the dashboard keeps of the subscription.
        self.ended = False
        self.status: str | None = None
        #: When to subscribe again, by the monotonic clock. None: nothing is to be done. 0: at once.
        self.retry_at: float | None = 0.0
        #: Subscribes that failed in a row.
        self.failures = 0
        #: The last subscribe was refused, or the subscription has ended. It is tried again.
        self.failed = False
        #: Whether what it was refused with was asked about already.
        self.asked = False
        #: The `requestId` of the subscribe that has no ack yet.
        self.pending: str | None = None
        #: The session token of the last subscribe. None when the subscription ended and none was begun.
        self.token: str | None = None

    @property
    def state(self) -> DatasourceState:
        """See `DatasourceState`."""
        if self.ended:
            return DatasourceState.ENDED
        now, connected = self._clock()
        if connected and (self.failed or self.status == "error"):
            return DatasourceState.ERROR
        latest = self.latest
        if self.stale_after is not None and latest and (now - latest.at).total_seconds() > self.stale_after:
            return DatasourceState.STALE
        return DatasourceState.LIVE if connected and self.status == "connected" else DatasourceState.CONNECTING

    @property
    def latest(self) -> Sample | None:
        """The newest value of all topics."""
        shown = [series.latest for series in self.series.values() if series.latest]
        return max(shown, key=lambda sample: sample.at, default=None)

    @property
    def samples(self) -> list[Sample]:
        """The values of a datasource without a wildcard, by time, the oldest first."""
        return self.of(None).samples

    @property
    def seq(self) -> str:
        """The `seq` to recover from: the newest of all topics. Empty without any."""
        return max((series.seq or "" for series in self.series.values()), default="")

    def of(self, topic: str | None) -> Series:
        """The series of a topic."""
        key = topic or ""
        if key not in self.series:
            self.series[key] = Series(topic, self._capacity)
            if len(self.series) > _MOST_TOPICS:
                del self.series[next(iter(self.series))]
        return self.series[key]

    def take(self, frame: Mapping[str, Any], now: datetime) -> None:
        """Takes a `data` frame, and hands it to all who wait."""
        sample = self.of(frame.get("topic")).take(frame, now)
        if sample is not None:
            for loop in self._loops:
                loop.put(sample)

    def renew(self) -> None:
        """A new subscription begins."""
        for series in self.series.values():
            series.renew()

    def drop(self) -> None:
        """The connection is over. What waits for its time waits on; what waits for an ack gets none."""
        if self.pending is not None or self.retry_at is None:
            self.retry_at = 0.0
        self.status = self.pending = self.token = None

    def end(self, reason: str, message: str) -> None:
        """It is over for good."""
        self.ended, self.reason, self.message = True, reason, message
        self.status = self.pending = self.token = None
        for loop in self._loops:
            loop.end(Ended(reason, message))

    def revive(self) -> None:
        """It is not over after all."""
        self.ended, self.reason, self.message, self.failed = False, None, None, False
        self.failures, self.retry_at = 0, 0.0

    def close(self, error: BaseException | None = None) -> None:
        """Ends all loops, with an error if there is one."""
        for loop in self._loops:
            loop.end(error)

    async def __aiter__(self) -> AsyncIterator[Sample]:
        loop = _Loop(self._capacity)
        if self.ended:
            raise Ended(self.reason or "ended", self.message or "")
        if self.latest is not None:
            loop.put(self.latest)
        self._loops.add(loop)
        try:
            while (sample := await loop.get()) is not None:
                yield sample
        finally:
            self._loops.discard(loop)


class _Loop:
    """What one loop has not seen yet."""

    def __init__(self, capacity: int) -> None:
        self._waiting: deque[Sample] = deque()
        self._capacity = capacity
        self._over = False
        self._error: BaseException | None = None
        self._came = asyncio.Event()

    def put(self, sample: Sample) -> None:
        self._waiting.append(sample)
        if len(self._waiting) > self._capacity:
            self._waiting.popleft()
            self._waiting[0] = replace(self._waiting[0], gap=True)
        self._came.set()

    def end(self, error: BaseException | None) -> None:
        self._over, self._error = True, error
        self._came.set()

    async def get(self) -> Sample | None:
        """The next value; None at the end. Raises what it was ended with, after the last value."""
        while not self._waiting and not self._over:
            self._came.clear()
            await self._came.wait()
        if self._waiting:
            return self._waiting.popleft()
        if self._error is not None:
            raise self._error
        return None
