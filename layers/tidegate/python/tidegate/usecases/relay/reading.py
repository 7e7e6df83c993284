"""Reads an upstream's connection, and replaces it by one with another secret while viewers go on.

    the secret changed -> a second connection is opened with the new one; the first is read meanwhile
                       -> the second is open: the first ends, and the second is read from where the first was
                       -> the second is refused: the first ends, and the fault is told
                       -> neither within `REPLACE_S`: the first ends, and the second is waited for alone

Invariant of this file: a connection whose secret is known to have changed ends within `REPLACE_S`, whatever happens to
the one that replaces it. At any moment one connection at most brings values.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

from tidegate.errors import Unavailable
from tidegate.ports.relay import MqttRequest, UpstreamEvent, UpstreamFault, UpstreamRequest

#: How long a connection may live beside the one that replaces it, seconds. Most sources answer within one.
REPLACE_S = 10.0
#: Pause before a request is prepared once more, when a store or the key's service did not answer, seconds.
_AGAIN_S = 1.0
#: The revision of a secret whose profile was deleted: no connection is as new.
GONE = float("inf")


class _Reading:
    """One connection.

    Attributes:
        secret_revision: of the secret it is made with; None until its request is prepared.
        opened: set when the first event has come.
        may_bring: set when it may hand its events on.
    """

    def __init__(self) -> None:
        self.secret_revision: int | None = None
        self.opened = asyncio.Event()
        self.may_bring = asyncio.Event()
        self.task: asyncio.Task[None]


class Readings:
    """The connections of one upstream: one after the other, and two at the same time while one replaces the other.

    Attributes:
        replacing: whether there are two now.
    """

    def __init__(
        self,
        *,
        request: Callable[[], Awaitable[UpstreamRequest | MqttRequest]],
        connect: Callable[[UpstreamRequest | MqttRequest], AsyncIterator[UpstreamEvent]],
        take: Callable[[UpstreamEvent], Awaitable[None]],
        replaced: Callable[[], Awaitable[None]],
    ) -> None:
        """
        Args:
            request: says what to connect to; see `ports.relay.UpstreamRequests`.
            connect: opens a connection.
            take: takes what a connection brings.
            replaced: called when a connection has ended for another, before the other brings anything.
        """
        self._request = request
        self._connect = connect
        self._take = take
        self._replaced = replaced
        self._stored = 0.0  # revision of the secret as it is stored, as far as is known
        self._tried_at = 0.0  # what it was when the last connect began
        self._noted = asyncio.Event()
        self._live: set[_Reading] = set()
        self.replacing = False

    def note_secret(self, revision: int | None) -> None:
        """Note the revision of the stored secret; None: its profile is gone.

        A connection that was made with an older one is replaced, or its connect begins again.
        """
        self._stored = GONE if revision is None else max(self._stored, revision)
        self._noted.set()

    async def read(self) -> None:
        """Connect, and read until the connection ends, or the one that replaced it.

        Raises:
            UpstreamFault: why it ended or could not be made.
            NobodyListens, Unavailable: its request could not be prepared.
        """
        try:
            current = self._begin()
            current.may_bring.set()
            while not current.task.done():
                self._noted.clear()
                if self._outdated(current):
                    current = await self._replace(current)
                else:
                    await _first(current.task, self._noted.wait())
            current.task.result()
        finally:
            self.replacing = False
            await asyncio.gather(*(self._end(reading) for reading in list(self._live)))

    async def pause(self, seconds: float, *, refused: bool) -> None:
        """Wait before the next connect. After a refusal the wait ends when the secret has changed since."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    self._noted.clear()
                    if refused and self._stored > self._tried_at:
                        return
                    await self._noted.wait()

    async def _replace(self, old: _Reading) -> _Reading:
        """The reading that takes the place of `old`, which has ended then."""
        self.replacing = True
        new = self._begin()
        over = asyncio.create_task(asyncio.sleep(REPLACE_S))
        try:
            while not (over.done() or old.task.done() or new.opened.is_set()):
                self._noted.clear()
                if self._outdated(new):  # changed once more
                    await self._end(new)
                    new = self._begin()
                elif new.task.done():
                    if not isinstance(_error(new), Unavailable):
                        break
                    await self._end(new)
                    await _first(old.task, over, asyncio.sleep(_AGAIN_S))
                    new = self._begin()
                await _first(old.task, over, new.task, new.opened.wait(), self._noted.wait())
        finally:
            over.cancel()
        self.replacing = False
        await self._end(old)
        await self._replaced()
        if new.task.done() and not _refused(new):
            # Some sources admit only one connection. So it is tried once more alone, before viewers hear of it.
            await self._end(new)
            new = self._begin()
        new.may_bring.set()
        return new

    def _outdated(self, reading: _Reading) -> bool:
        return reading.secret_revision is not None and reading.secret_revision < self._stored

    def _begin(self) -> _Reading:
        reading = _Reading()
        reading.task = asyncio.create_task(self._run(reading))
        self._live.add(reading)
        return reading

    async def _end(self, reading: _Reading) -> None:
        """End a connection, and wait until it has. Raises only what is a fault of ours."""
        if not reading.task.cancelling():  # a second time would interrupt its closing
            reading.task.cancel()
        await asyncio.wait([reading.task])
        self._live.discard(reading)
        error = _error(reading)
        if error is not None and not isinstance(error, UpstreamFault | Unavailable):
            raise error

    async def _run(self, reading: _Reading) -> None:
        self._tried_at = self._stored
        request = await self._request()
        if request.secret_revision and request.secret_revision < self._stored:
            request = await self._request()  # it changed while the request was prepared
        reading.secret_revision = request.secret_revision or None
        if reading.secret_revision is not None:
            self._tried_at = max(self._tried_at, reading.secret_revision)
        events = self._connect(request)
        try:
            async for event in events:
                reading.opened.set()
                await reading.may_bring.wait()
                await self._take(event)
        finally:
            if isinstance(events, AsyncGenerator):
                await events.aclose()


def _error(reading: _Reading) -> BaseException | None:
    if not reading.task.done() or reading.task.cancelled():
        return None
    return reading.task.exception()


def _refused(reading: _Reading) -> bool:
    error = _error(reading)
    return isinstance(error, UpstreamFault) and error.refused


async def _first(*awaited: asyncio.Task[None] | Coroutine[Any, Any, object]) -> None:
    """Wait until one of them is done. Tasks that are not done go on; the others are cancelled."""
    tasks = [one for one in awaited if isinstance(one, asyncio.Task)]
    mine = [asyncio.create_task(one) for one in awaited if not isinstance(one, asyncio.Task)]
    try:
        await asyncio.wait([*tasks, *mine], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in mine:
            each.cancel()
