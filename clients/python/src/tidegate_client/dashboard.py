"""A dashboard's datasources over one WebSocket. README.md has the table of states."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage
from websockets.typing import Origin

from tidegate_client.api import Session, Source, mint, read_history, would_refuse
from tidegate_client.backoff import pause
from tidegate_client.datasource import Datasource
from tidegate_client.errors import Ended, Refused
from tidegate_client.series import Sample, moment

#: Datasources of one `subscribe`: what a connection may have by default.
_CHUNK = 50
#: Above the largest message of the platform, 128 KiB.
_MOST_BYTES = 2**20

Frame = Mapping[str, Any]
Revision = int


class DashboardState(StrEnum):
    """Where the connection of a dashboard is."""

    #: It was not started, or was stopped.
    IDLE = "idle"
    #: A token, a connection or the first ack is awaited.
    CONNECTING = "connecting"
    #: The connection stands. Each datasource has its own state.
    LIVE = "live"
    #: The connection was lost, or was refused for now. `retry_in` says when the next try is due.
    WAITING = "waiting"
    #: Over for good. `reason` and `message` say why.
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Timing:
    """How long things may take, seconds. Tests shorten it.

    Attributes:
        tick: between two looks at what is due.
        ping_after: a connection that was silent for so long is asked whether it is alive. The platform ends it after
            ten minutes.
        pong: how long the answer to a ping may take.
        open: how long a handshake may take.
        ack: after so long without an ack a subscribe is sent again.
        stable: a connection on which something was watched for so long was a good one: its end counts as the first
            failure.
        slept: two ticks so far apart mean that the machine slept, and so does a monotonic clock that stood still for
            `stood`.
        soonest: half of the shortest life that a token may have. A clock that is wrong asks no more often.
    """

    tick: float = 0.5
    ping_after: float = 45.0
    pong: float = 5.0
    open: float = 15.0
    ack: float = 15.0
    stable: float = 10.0
    slept: float = 75.0
    stood: float = 5.0
    soonest: float = 30.0


class _Lost(Exception):
    """The connection is over, or is taken to be."""


class Dashboard:
    """Watches datasources of a dashboard, from `async with` to its end.

    Attributes:
        state: see `DashboardState`.
        reason: why it waits or has ended: a code of the API or the protocol.
        message: the same, for people.
        revision: the one that the document has now, as far as was told; None before.
        datasources: those that are watched, by id.
    """

    def __init__(
        self,
        url: str,
        dashboard_id: str,
        *,
        share_token: str | None = None,
        login: Callable[[], str] | None = None,
        session: Callable[[str | None], Awaitable[Session]] | None = None,
        on_document: Callable[[Revision], None] | None = None,
        capacity: int = 2_000,
        timing: Timing | None = None,
    ) -> None:
        """
        Args:
            url: the origin of the edge, such as `https://live.example.com`.
            share_token: of a viewer by link.
            login: returns the login token of a member.
            session: gets the session token in another way, given the one before. It raises `Refused`.
            on_document: called with the new revision when the document was saved.
            capacity: values that are kept of each datasource and topic.

        Raises:
            ValueError: `url` is none of http or https.
        """
        self._source = Source(url, dashboard_id, share_token, login)
        self._mint = session or (lambda current: mint(self._source, current))
        self._on_document = on_document
        self._capacity = capacity
        self._timing = timing or Timing()
        self.state = DashboardState.IDLE
        self.reason: str | None = None
        self.message: str | None = None
        self.revision: Revision | None = None
        self.datasources: dict[str, Datasource] = {}
        #: The server's clock, less the monotonic one, seconds.
        self._offset = time.time() - time.monotonic()
        self._main: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()
        self._beside: set[asyncio.Task[None]] = set()
        self._changes: set[asyncio.Event] = set()
        self._session: Session | None = None
        #: The server refused the token. It still says which viewer asks for the next one.
        self._useless = False
        self._minting: asyncio.Task[None] | None = None
        self._mint_after = 0.0
        self._mint_failures = 0
        self._requests = 0
        self._chunk = _CHUNK
        self._drawn = 0.0
        self._failures = 0
        self._retry_at = 0.0
        self._acked_at: float | None = None
        #: What ends the connection from beside the reader of its frames.
        self._verdict: Refused | None = None

    # --- what is watched ------------------------------------------------------------------------------------

    def datasource(self, datasource_id: str, *, stale_after: float | None = None) -> Datasource:
        """The datasource with this id, watched from now on. `stale_after`: seconds; of the first call for an id."""
        if datasource_id not in self.datasources:
            made = Datasource(datasource_id, stale_after, self._capacity, self._look)
            self.datasources[datasource_id] = made
            self._wanted.set()
            if self.state is DashboardState.ENDED:
                made.end(self.reason or "ended", self.message or "")
        return self.datasources[datasource_id]

    @property
    def server_time(self) -> datetime:
        """The server's time now. The age of a value is this, less its `at`."""
        return datetime.fromtimestamp(time.monotonic() + self._offset, UTC)

    @property
    def retry_in(self) -> float | None:
        """In how many seconds the next try is due. None when it is not waiting."""
        return max(0.0, self._retry_at - time.monotonic()) if self.state is DashboardState.WAITING else None

    async def changed(self) -> None:
        """Waits until the dashboard, a datasource of it or a value changes. Raises `Ended` when it is over for good."""
        if self.state is DashboardState.ENDED:
            raise Ended(self.reason or "ended", self.message or "")
        event = asyncio.Event()
        self._changes.add(event)
        try:
            await event.wait()
        finally:
            self._changes.discard(event)

    async def history(self, datasource_id: str, topic: str | None = None) -> list[Sample]:
        """The newest points of a datasource's history, merged with its values, the oldest first.

        Of one topic when its filter has a wildcard. Raises `Refused`: `no_history` when it keeps none.
        """
        datasource = self.datasource(datasource_id)
        if self._session is None:
            await self._refresh()
        if self._session is None:
            raise Refused(self.reason or "network", self.message or "There is no session", retryable=True)
        series = datasource.of(topic)
        points = await read_history(self._source, self._session.token, datasource_id, topic)
        series.merge(points)
        return list(series.samples)

    # --- beginning and end ----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._main = asyncio.create_task(self._run())
        self._main.add_done_callback(self._over)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        tasks = [task for task in (self._main, self._minting, *self._beside) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for datasource in self.datasources.values():
            datasource.drop()
            datasource.close()
        if self.state is not DashboardState.ENDED:
            self._enter(DashboardState.IDLE)

    def _over(self, task: asyncio.Task[None]) -> None:
        """Nobody waits for values of a task that has failed."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            for datasource in self.datasources.values():
                datasource.close(error)

    def _enter(self, state: DashboardState, reason: str | None = None, message: str | None = None) -> None:
        self.state, self.reason, self.message = state, reason, message
        self._tell()

    def _tell(self) -> None:
        for event in self._changes:
            event.set()

    def _look(self) -> tuple[datetime, bool]:
        return self.server_time, self.state is DashboardState.LIVE

    # --- the connection -------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            await self._wanted.wait()  # A connection that watches nothing would be closed by the server.
            try:
                await self._connect()
            except Refused as refused:
                if not refused.retryable:
                    self._end(refused.code, refused.message)
                    return
                self._wait(refused)
            except _Lost:
                self._wait(Refused("connection_lost", "The connection was lost", retryable=True))
            await asyncio.sleep(self.retry_in or 0.0)

    def _wait(self, refused: Refused) -> None:
        now = time.monotonic()
        if self._acked_at is not None and now - self._acked_at > self._timing.stable:
            self._failures = 0
        for datasource in self.datasources.values():
            datasource.drop()
        # When all of them have to wait, a connection would watch nothing.
        soonest = min((each.retry_at or 0.0 for each in self._active()), default=0.0)
        if soonest == float("inf"):
            soonest = 0.0  # What that is, is being asked.
        self._retry_at = max(soonest, now + pause(self._failures, refused.retry_after))
        self._failures += 1
        self._enter(DashboardState.WAITING, refused.code, refused.message)

    async def _connect(self) -> None:
        """One connection, from the handshake to its end. Raises `_Lost` and `Refused`."""
        if not self._active():
            last = list(self.datasources.values())[-1]
            raise Refused(last.reason or "ended", last.message or "", retryable=False)
        self._enter(DashboardState.CONNECTING)
        self._acked_at = self._verdict = None
        if self._minting is not None:
            await asyncio.wait({self._minting})
        # The token comes first: while its endpoint is down nobody should connect again and again.
        if self._session is None or self._due():
            await self._refresh(raising=True)
        address = "ws" + self._source.url.removeprefix("http").rstrip("/") + "/gateway/realtime?batch=1"
        try:
            # A stage that names its origins asks for one: that of the edge is in its list.
            origin = Origin(self._source.origin)
            async with connect(
                address, origin=origin, open_timeout=self._timing.open, ping_interval=None, max_size=_MOST_BYTES
            ) as socket:
                for datasource in self._active():
                    datasource.renew()
                await self._serve(socket)
        except InvalidMessage:
            raise _Lost from None
        except InvalidHandshake:
            raise await self._why() from None
        except (OSError, TimeoutError, EOFError, ConnectionClosed):
            raise _Lost from None

    async def _why(self) -> Exception:
        """Why a handshake was refused."""
        try:
            said = await would_refuse(self._source)
        except Refused:
            return _Lost()
        return _Lost() if said.allowed else _refusal(said.code, said.message, said.retryable, said.retry_after)

    async def _serve(self, socket: ClientConnection) -> None:
        timing = self._timing
        heard = ticked = time.monotonic()
        date, due = time.time(), float("inf")
        receiving = asyncio.ensure_future(socket.recv())
        try:
            while True:
                await asyncio.wait({receiving}, timeout=timing.tick)
                now, today = time.monotonic(), time.time()
                stood = (today - date) - (now - ticked)
                if today - date > timing.slept or stood > timing.stood:
                    self._slept(max(0.0, stood))
                    raise _Lost  # Nothing says whether it outlived that. Finding out takes longer than another one.
                date, ticked = today, now
                if receiving.done():
                    heard, due = now, float("inf")
                    for frame in _frames(receiving.result()):
                        self._frame(frame)
                    receiving = asyncio.ensure_future(socket.recv())
                if self._verdict is not None:
                    raise self._verdict
                if now > due:
                    raise _Lost
                if now - heard > timing.ping_after and due == float("inf"):
                    due = now + timing.pong
                    await socket.send('{"type":"ping"}')
                await self._work(socket, now)
        finally:
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)
            # A half-open connection would wait for an answer to its closing.
            socket.transport.abort()

    def _slept(self, stood: float) -> None:
        self._offset += stood
        self._forget()
        self._failures = 0

    async def _work(self, socket: ClientConnection, now: float) -> None:
        """What is due on a connection that stands."""
        if self._session is None or self._due():
            if self._minting is None and now >= self._mint_after:
                self._minting = self._begin(self._refresh())
            if self._session is None or self._useless:
                return
        wanted = [each for each in self._active() if each.retry_at is not None and now >= each.retry_at]
        if wanted:
            await self._subscribe(socket, wanted)

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)
        return task

    # --- tokens ---------------------------------------------------------------------------------------------

    def _due(self) -> bool:
        early = time.monotonic() < self._mint_after
        return self._useless or (
            not early and self._session is not None and self.server_time >= self._session.refresh_after
        )

    def _forget(self) -> None:
        """The token is of no use."""
        self._useless, self._mint_after = True, 0.0

    async def _refresh(self, *, raising: bool = False) -> None:
        """Gets a new token, for which all is subscribed to again. With `raising` it raises `Refused`."""
        held = self._session
        try:
            made = await self._mint(None if held is None else held.token)
        except Exception as error:
            refused = error if isinstance(error, Refused) else Refused("session_failed", str(error), retryable=True)
            self._mint_after = time.monotonic() + pause(self._mint_failures, refused.retry_after)
            self._mint_failures += 1
            if raising:
                raise refused from error
            self._not_minted(refused)
        else:
            self._session, self._useless, self._mint_failures = made, False, 0
            self._observe(made.server_time)
            self._mint_after = time.monotonic() + self._timing.soonest
            for datasource in self._active():
                # What waits for its time waits on.
                if datasource.retry_at is None or datasource.pending is not None:
                    datasource.retry_at = 0.0
        finally:
            self._minting = None

    def _not_minted(self, refused: Refused) -> None:
        if not refused.retryable:
            self._verdict = refused
        elif self._useless or self._session is None or self.server_time >= self._session.expires_at:
            # Else the old one is still good.
            self._useless = True
            for datasource in self._active():
                self._retry(datasource, 0.0, refused.code, refused.message)

    def _observe(self, server_time: datetime | None) -> None:
        if server_time is not None:
            self._offset = server_time.timestamp() - time.monotonic()

    # --- subscriptions --------------------------------------------------------------------------------------

    def _active(self) -> list[Datasource]:
        return [each for each in self.datasources.values() if not each.ended]

    async def _subscribe(self, socket: ClientConnection, wanted: Sequence[Datasource]) -> None:
        assert self._session is not None
        self._requests += 1
        # One draw for all, so that what was refused together comes back in one message.
        self._drawn = random.random()
        for begin in range(0, len(wanted), self._chunk):
            chunk = wanted[begin : begin + self._chunk]
            for datasource in chunk:
                datasource.pending, datasource.token = str(self._requests), self._session.token
                datasource.retry_at = time.monotonic() + self._timing.ack  # Without an ack it is sent again.
            message = {
                "type": "subscribe",
                "requestId": str(self._requests),
                "dashboardId": self._source.dashboard_id,
                "datasourceIds": [datasource.id for datasource in chunk],
                "sessionToken": self._session.token,
                # A refresh ignores it.
                "since": {datasource.id: datasource.seq for datasource in chunk if datasource.seq},
            }
            await socket.send(json.dumps(message))

    def _retry(self, datasource: Datasource, wait: float, reason: str, message: str) -> None:
        datasource.retry_at = time.monotonic() + wait
        datasource.pending, datasource.failed = None, True
        datasource.reason, datasource.message = reason, message
        self._tell()

    def _pause(self, datasource: Datasource, retry_after: float = 0.0) -> float:
        datasource.failures += 1
        return pause(datasource.failures - 1, retry_after, self._drawn)

    def _refused(self, datasource: Datasource, reason: str, message: str) -> None:
        """It was refused for good. Whether that is so is asked once, over HTTP; without that answer it is."""
        first = not datasource.asked and self._session is not None
        datasource.asked = True
        if not first:
            self._end_of(datasource, reason, message)
            return
        self._retry(datasource, float("inf"), reason, message)
        datasource.token = datasource.status = None
        if not any(task.get_name() == "check" for task in self._beside):
            self._begin(self._check()).set_name("check")

    async def _check(self) -> None:
        assert self._session is not None
        try:
            allowed = (await would_refuse(self._source, self._session.token)).allowed
        except Refused:
            allowed = False
        for datasource in [each for each in self._active() if each.retry_at == float("inf")]:
            if allowed:
                self._retry(datasource, pause(0), datasource.reason or "", datasource.message or "")
            else:
                self._end_of(datasource, datasource.reason or "refused", datasource.message or "")

    def _end_of(self, datasource: Datasource, reason: str, message: str) -> None:
        datasource.end(reason, message)
        self._tell()
        if not self._active():
            self._verdict = Refused(reason, message, retryable=False)

    def _end(self, reason: str, message: str) -> None:
        for datasource in self._active():
            datasource.end(reason, message)
        self._enter(DashboardState.ENDED, reason, message)

    # --- frames ---------------------------------------------------------------------------------------------

    def _frame(self, frame: Frame) -> None:
        kind, datasource_id = frame.get("type"), frame.get("datasourceId")
        if kind in ("pong", "ack"):
            self._observe(moment(frame.get("timestamp")))
        if kind == "document":
            return self._document(frame)
        if datasource_id is None:
            return self._whole(frame)
        datasource = self.datasources.get(str(datasource_id))
        # What was on its way when the subscription ended is not shown.
        if datasource is None or datasource.ended or datasource.token is None:
            return None
        handle = {
            "ack": self._ack,
            "data": self._data,
            "history": self._history,
            "status": self._status,
            "error": self._error,
        }.get(str(kind))
        if handle is not None:
            handle(datasource, frame)
            self._tell()
        return None

    def _document(self, frame: Frame) -> None:
        revision = int(frame.get("revision", 0))
        if self.revision is None or revision > self.revision:
            self.revision = revision
            if self._on_document is not None:
                self._on_document(revision)
            self._tell()

    def _whole(self, frame: Frame) -> None:
        """A frame that is about no datasource."""
        if frame.get("reason") == "limit":
            self._verdict = _refusal("limit", _text(frame), True, _after(frame))
        if frame.get("type") != "ack" or frame.get("ok"):
            return
        # A message was refused as a whole: one by one may do.
        alone, self._chunk = self._chunk == 1, 1
        for datasource in [each for each in self._active() if each.pending == frame.get("requestId")]:
            if alone:
                self._ack(datasource, frame)
            else:
                datasource.retry_at = 0.0

    def _ack(self, datasource: Datasource, frame: Frame) -> None:
        if frame.get("requestId") != datasource.pending:
            return
        datasource.pending = datasource.retry_at = None
        if self.state is DashboardState.CONNECTING:
            self._enter(DashboardState.LIVE)
        if frame.get("ok"):
            self._acked_at = self._acked_at or time.monotonic()
            if datasource.failed:
                datasource.reason = datasource.message = None
            datasource.failures, datasource.failed, datasource.asked = 0, False, False
        elif frame.get("retryable") is False:
            self._refused(datasource, str(frame.get("errorCode")), _text(frame))
        else:
            again = "retryAfterMs" not in frame
            if again and self._session is not None and datasource.token == self._session.token:
                self._forget()  # A new token is what helps.
            at_once = again and datasource.failures == 0
            wait = self._pause(datasource, _after(frame))
            self._retry(datasource, 0.0 if at_once else wait, str(frame.get("errorCode")), _text(frame))

    def _data(self, datasource: Datasource, frame: Frame) -> None:
        datasource.take(frame, self.server_time)

    def _history(self, datasource: Datasource, frame: Frame) -> None:
        datasource.of(frame.get("topic")).merge(frame.get("points", []))
        if frame.get("end") and frame.get("recovered"):
            for series in datasource.series.values():
                series.recovered()

    def _status(self, datasource: Datasource, frame: Frame) -> None:
        if "reason" not in frame:  # What ended is told by `error`.
            datasource.status = frame.get("status")
            datasource.reason, datasource.message = frame.get("errorCode"), frame.get("message")

    def _error(self, datasource: Datasource, frame: Frame) -> None:
        reason = frame.get("reason")
        if reason is None:
            return  # The subscription stays, and `status` follows.
        if not frame.get("retryable"):
            self._refused(datasource, reason, _text(frame))
            return
        datasource.renew()
        if reason == "changed":
            datasource.series.clear()
        # There may be a newer one already, or a subscribe with it is on its way.
        if datasource.pending is None and self._session is not None and datasource.token == self._session.token:
            self._forget()
        datasource.token = datasource.status = None
        wait = 0.0 if reason == "expired" else self._pause(datasource, _after(frame))
        self._retry(datasource, wait, reason, _text(frame))


def _frames(text: str | bytes) -> Iterator[Frame]:
    try:
        message = json.loads(text)
    except ValueError:
        return  # Nothing of ours. The next one may be.
    if isinstance(message, dict):
        yield from message["messages"] if message.get("type") == "batch" else [message]


def _text(frame: Frame) -> str:
    return str(frame.get("message", ""))


def _after(frame: Frame) -> float:
    """Seconds."""
    return float(timedelta(milliseconds=frame.get("retryAfterMs", 0)).total_seconds())


def _refusal(code: str, message: str, retryable: bool, retry_after: float) -> Refused:
    return Refused(code, message, retryable=retryable, retry_after=retry_after)
