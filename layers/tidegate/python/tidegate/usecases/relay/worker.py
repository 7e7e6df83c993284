"""A relay worker: holds the upstreams of one partition for as long as somebody listens.

    claim the partition -> hold its upstreams, renew the lease -> nobody listens: release
                                                               -> its time ends: hand over to a connected successor
                                                               -> a worker of another version comes: hand over as well
    the holder died -> connect meanwhile, claim when its lease has ended

Whether the worker may send is decided in `keep_lease`. Here it is decided when it connects, when it releases upstreams,
and when it makes room for its successor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from tidegate.domain.partitions import partition_of
from tidegate.domain.relay import LEASE_S, Kind, is_of, wants_successor, worker_id
from tidegate.domain.subscriptions import Stream
from tidegate.errors import Unavailable
from tidegate.ports.gateway import SourceStreams, StreamStore
from tidegate.ports.relay import RelayLeases
from tidegate.ports.relay_workers import RelayWorkers
from tidegate.ports.runtime import Clock, Ids, Observer
from tidegate.usecases.relay.check_credentials import CHECK_S, Note
from tidegate.usecases.relay.keep_lease import KeepLease
from tidegate.usecases.relay.upstream import Upstream

#: How often the partition's streams are looked up, seconds. A new stream waits at most this long.
REFRESH_S = 1.0
#: A stream that nobody is subscribed to is kept for so long after it was last requested, seconds: indexes lag, and
#: viewers reload their page.
GRACE_S = 15.0
#: How long a worker without upstreams stays, seconds.
EXIT_S = 20.0
#: How long before its time ends a worker asks for its successor, seconds.
HANDOVER_S = 45.0
#: How long a successor connects before it offers itself, and how long it then waits for the partition, seconds.
CONNECT_S, WAIT_S = 10.0, 60.0
_TICK_S = 0.1
#: Streams whose audiences are checked at the same time.
_AUDIENCE_CHECKS = 8

T = TypeVar("T")


@dataclass(slots=True)
class ActiveUpstream:
    """An upstream that runs.

    Attributes:
        empty_since: when its audience was first seen empty, monotonic seconds; None while it has one.
        checked_at: when its audience was last checked, monotonic seconds.
    """

    stream: Stream
    upstream: Upstream
    task: asyncio.Task[None]
    empty_since: float | None = None
    checked_at: float = 0.0


class FrameSender(Protocol):
    """What a worker needs of `BackgroundSender`."""

    healthy: bool

    def flush(self) -> bool: ...


class RelayWorker:
    """One worker of one partition. `run` may be called once."""

    def __init__(
        self,
        *,
        leases: RelayLeases,
        streams: StreamStore,
        relay_workers: RelayWorkers,
        version: str,
        enabled: frozenset[str],
        notify_disabled: Callable[[Stream], Awaitable[object]],
        make_upstream: Callable[[Stream], Upstream],
        has_audience: Callable[[Stream], bool],
        check_credentials: Callable[[Iterable[tuple[Stream, Note]]], Awaitable[None]],
        sender: FrameSender,
        handover_s: float = HANDOVER_S,
        clock: Clock,
        ids: Ids,
        observer: Observer,
    ) -> None:
        """
        Args:
            version: this worker's `worker_version`. It makes room for a worker of a newer one. One of a service stays
                when nobody listens, and asks for its successor by its lease.
            enabled: protocols that are switched on.
            notify_disabled: notifies the viewers of a stream that its protocol is switched off.
            make_upstream: makes the upstream of a stream.
            has_audience: whether anybody is subscribed to a stream.
            check_credentials: notices secrets that were changed, as `CheckCredentials` does.
            sender: what the upstreams send by.
            handover_s: how long before `stop_at` the worker asks for its successor, seconds.
        """
        self._leases = leases
        self._streams = streams
        self._relay_workers = relay_workers
        self._version = version
        self._enabled = enabled
        self._notify_disabled = notify_disabled
        self._make_upstream = make_upstream
        self._has_audience = has_audience
        self._check_credentials = check_credentials
        self._sender = sender
        self._handover_s = handover_s
        self._clock = clock
        self._owner = worker_id(version, ids.new_id())
        self._observer = observer
        self._active: dict[str, ActiveUpstream] = {}
        self._released: dict[str, int] = {}  # stream key -> its `last_requested_at` when nobody listened
        self._listed: SourceStreams | None = None
        self._listed_at = 0.0
        self._keep: KeepLease | None = None
        self._lease_call = asyncio.Lock()
        self._asked_successor = asyncio.Event()
        self._stays = is_of(version, Kind.SERVICE)
        self._stop_at = float("inf")
        self._stopping = False
        self._refreshed = False
        self._busy_at = float("-inf")  # so a worker that finds no stream at first ends at once
        self._audience_checks = asyncio.Semaphore(_AUDIENCE_CHECKS)

    def may_send(self) -> bool:
        """Whether this worker's lease holds now."""
        return self._keep is not None and self._keep.may_send()

    def stop(self, within_s: float) -> None:
        """End soon: hand over to a successor, if one comes within so many seconds, or else release the partition."""
        self._stopping = True
        self._stop_at = min(self._stop_at, self._clock.monotonic() + within_s)

    async def run(self, partition: int, stop_at: float, *, successor: bool = False, newest: bool = False) -> str:
        """Work until nobody listens, another worker holds the partition, or the time is over. Returns why it ended.

        Args:
            partition: whose upstreams this worker holds.
            stop_at: when it must have ended, monotonic seconds.
            successor: whether the partition's holder asked for this worker.
            newest: whether this worker has the newest code and settings. Then it succeeds a holder that has others.

        Raises:
            Unavailable: the table of leases did not answer.
        """
        self._stop_at = min(self._stop_at, stop_at)
        keep = self._keep = KeepLease(leases=self._leases, partition=partition, owner=self._owner, clock=self._clock)
        checking = asyncio.create_task(self._keep_checking(), name="check credentials")  # as a standby as well
        try:
            active = not successor and await asyncio.to_thread(keep.claim)
            if successor or (not active and await asyncio.to_thread(self._needs_successor, partition, newest)):
                active = await self._await_handover(keep, partition)
            if not active or keep.lease is None:
                return "not needed"
            fence = keep.lease.fence
            self._observer.info("relay began", partition=partition, fence=fence, upstreams=len(self._active))
            ended = await self._hold(keep, partition)
            self._observer.info("relay ended", partition=partition, fence=fence, reason=ended)
            return ended
        finally:
            checking.cancel()
            await self._stop(list(self._active))
            if keep.lease is not None:  # cancelled or broken: the next worker need not wait until the lease ends
                with suppress(Unavailable):
                    await self._ask_lease(keep.release)

    # --- becoming the holder --------------------------------------------------------------------------------

    def _needs_successor(self, partition: int, newest: bool) -> bool:
        """Whether the holder is to be replaced, and no successor waits already."""
        return wants_successor(self._leases.current(partition), self._version, self._clock.now(), newest=newest)

    async def _await_handover(self, keep: KeepLease, partition: int) -> bool:
        """Connect as a standby, offer this worker, and wait for the partition. True when it was given to this worker.

        A holder that dies meanwhile is replaced.
        """
        await self._refresh(partition, standby=True)
        waiting = [active.upstream.connected.wait() for active in self._active.values()]
        with suppress(TimeoutError):
            async with asyncio.timeout(CONNECT_S):
                await asyncio.gather(*waiting)
        if self._stopping:  # later it is noted as the successor, and may be handed the partition at any moment
            return False
        await asyncio.to_thread(keep.offer)
        give_up = self._clock.monotonic() + WAIT_S
        while self._clock.monotonic() < give_up:
            if await asyncio.to_thread(keep.taken_over):
                if not keep.handed:
                    await self._note_gaps()
                await asyncio.gather(*(active.upstream.take_over() for active in self._active.values()))
                return True
            if keep.passed_over:
                return False
            await asyncio.sleep(_TICK_S)
        return False

    async def _note_gaps(self) -> None:
        """Note of streams with a history that they were not connected: what the holder that died had gathered is lost.

        They are told to be connected anew, at once. Who comes back then knows that something may be missing.
        """
        for active in self._active.values():
            if active.stream.history is not None:
                with suppress(Unavailable):
                    await asyncio.to_thread(self._streams.note_status, active.stream, False)

    # --- holding --------------------------------------------------------------------------------------------

    async def _hold(self, keep: KeepLease, partition: int) -> str:
        """Hold the partition until it is to be left. Returns why.

        A task of its own renews the lease, so neither slow stores nor many streams can cost it.
        """
        renewing = asyncio.create_task(self._renew(keep), name="renew")
        refreshing = asyncio.create_task(self._keep_refreshing(partition), name="refresh")
        try:
            ended = await self._until_it_ends(keep, partition, renewing, refreshing)
            refreshing.cancel()
            await asyncio.wait([refreshing])
            return await self._leave(keep, partition, ended)
        finally:
            for task in (renewing, refreshing):
                task.cancel()
            await asyncio.gather(renewing, refreshing, return_exceptions=True)

    async def _until_it_ends(
        self,
        keep: KeepLease,
        partition: int,
        renewing: asyncio.Task[None],
        refreshing: asyncio.Task[None],
    ) -> str:
        """Wait until the partition is to be left. Returns why."""
        while True:
            now = self._clock.monotonic()
            for task in (renewing, refreshing):
                if task.done():
                    task.result()  # raises what broke it
                    return "overtaken"
            not_needed = self._not_needed(keep, now)
            if not_needed:
                return not_needed
            if not self._asked_successor.is_set() and now >= self._stop_at - self._handover_s and self._active:
                await self._ask_successor(keep, partition)
            if not self._sender.healthy:
                return "broken"
            if now >= self._stop_at or (self._stopping and not self._active):
                return "out of time"
            await asyncio.sleep(_TICK_S)

    def _not_needed(self, keep: KeepLease, now: float) -> str:
        """Why this worker is not needed any more; empty while it is."""
        lease = keep.lease  # read once: it is renewed by another thread
        if lease is not None and lease.successor:
            return "handed over"
        if self._active:
            self._busy_at = now
        elif self._refreshed and not self._stays and now - self._busy_at >= EXIT_S:
            return "nobody listens"
        return ""

    async def _leave(self, keep: KeepLease, partition: int, why: str) -> str:
        """Stop sending, then hand over or release the lease. Returns why the worker ended."""
        if why == "overtaken":
            return why
        # If there is a successor, it also reads what is read from here on.
        await self._fall_silent()
        if why == "handed over":
            return why if await self._ask_lease(keep.hand_over) else "overtaken"
        await self._ask_lease(keep.release)
        if why == "nobody listens":
            # Somebody may have subscribed between the last refresh and the release. Asking for a worker had no effect
            # then, because this one was still there.
            await self._refresh(partition, standby=True)
            if self._active:
                await asyncio.to_thread(self._relay_workers.start, partition)
        return why

    async def _renew(self, keep: KeepLease) -> None:
        """Renew the lease until another worker has it."""
        while True:
            if self._asked_successor.is_set():  # renewing shows whether a successor offers itself
                await asyncio.sleep(_TICK_S)
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LEASE_S / 3):
                        await self._asked_successor.wait()
            if not await self._ask_lease(keep.renew):
                return

    async def _ask_lease(self, call: Callable[[], T]) -> T:
        """Make one call about the lease at a time. Each runs to its end, even if this task is cancelled.

        Otherwise a renewal that is answered after the release would seem to hold the partition again.
        """
        async with self._lease_call:
            answer = asyncio.ensure_future(asyncio.to_thread(call))
            try:
                return await asyncio.shield(answer)
            except asyncio.CancelledError:
                await asyncio.wait([answer])
                raise

    async def _fall_silent(self) -> None:
        """Deliver nothing more. Waits for what is on its way, while the lease still holds."""
        await asyncio.gather(*(active.upstream.pause() for active in self._active.values()))
        await asyncio.to_thread(self._sender.flush)

    async def _ask_successor(self, keep: KeepLease, partition: int) -> None:
        self._asked_successor.set()
        try:
            if self._stays:
                await self._ask_lease(keep.ask_successor)
            else:
                await asyncio.to_thread(lambda: self._relay_workers.start(partition, successor=True))
        except Unavailable as error:
            self._observer.fault("no successor", error, partition=partition)
            if self._stays:
                self._asked_successor.clear()  # the lease is written again in a moment

    # --- streams --------------------------------------------------------------------------------------------

    async def _keep_refreshing(self, partition: int) -> None:
        while True:
            await self._refresh(partition, standby=False)
            await asyncio.sleep(REFRESH_S)

    async def _keep_checking(self) -> None:
        while True:
            await asyncio.sleep(CHECK_S)
            await self._check_credentials(
                [(active.stream, active.upstream.note_secret) for active in self._active.values()]
            )

    async def _refresh(self, partition: int, *, standby: bool) -> None:
        """Begin the upstreams that are needed, and release those that nobody listens to.

        When a store does not answer, nothing is ended for that, and the next refresh does the rest.
        """
        try:
            streams = await asyncio.to_thread(self._relayed)
            of_partition = [stream for stream in streams if partition_of(stream) == partition]
            mine = {stream.stream_key: stream for stream in of_partition if stream.protocol in self._enabled}
            await self._stop([key for key in self._active if key not in mine])
            checks = [self._check_stream(stream, standby) for stream in mine.values()]
            results = await asyncio.gather(*checks, return_exceptions=True)
            failures = [result for result in results if result is not None]
            if failures:
                raise failures[0]
            if not standby:
                await self._end_disabled([stream for stream in of_partition if stream.protocol not in self._enabled])
            self._refreshed = not standby
        except Unavailable:
            self._observer.count("relay_refreshes_failed")

    def _relayed(self) -> Sequence[Stream]:
        """All streams of the relay. Read again when their version has changed, and every `GRACE_S` in any case."""
        now = self._clock.monotonic()
        listed = self._listed
        if listed is None or now - self._listed_at >= GRACE_S or self._streams.version_of(None) != listed.version:
            listed = self._listed = self._streams.of_source(None)
            self._listed_at = now
        return listed.streams

    async def _end_disabled(self, streams: list[Stream]) -> None:
        """Notify, once, the viewers of streams that were connected when their protocol was switched off."""
        for stream in streams:
            if stream.connected:
                await self._notify_disabled(stream)
                await asyncio.to_thread(self._streams.note_status, stream, False)
                self._listed = None

    async def _check_stream(self, stream: Stream, standby: bool) -> None:
        """Begin, keep or release one stream. Only a few at a time, because their audiences are read from a table."""
        async with self._audience_checks:
            if stream.stream_key in self._active:
                await self._check_active(stream)
            elif await self._is_needed(stream):
                if (stream.connected or stream.fault) and not standby:  # left by a worker that died, and not true now
                    await asyncio.to_thread(self._streams.note_status, stream, False)
                self._begin(stream, standby)
            elif stream.connected and not standby:
                await self._release_stream(stream)

    async def _is_needed(self, stream: Stream) -> bool:
        if self._released.get(stream.stream_key) == stream.last_requested_at:
            return False
        if self._clock.now() - stream.last_requested_at < GRACE_S or await asyncio.to_thread(
            self._has_audience, stream
        ):
            return True
        self._released[stream.stream_key] = stream.last_requested_at
        return False

    async def _check_active(self, stream: Stream) -> None:
        active, now = self._active[stream.stream_key], self._clock.monotonic()
        if stream.history != active.stream.history:
            active.upstream.note_history(stream.history)
            active.stream = replace(active.stream, history=stream.history)
        if stream.last_requested_at != active.stream.last_requested_at:
            active.stream, active.empty_since = stream, None
            active.upstream.requested(stream.last_requested_at)
        interval_s = GRACE_S if active.empty_since is None else GRACE_S / 3
        if now - active.checked_at < interval_s or self._clock.now() - stream.last_requested_at < GRACE_S:
            return
        active.checked_at = now
        if await asyncio.to_thread(self._has_audience, stream):
            active.empty_since = None
        elif active.empty_since is None:
            active.empty_since = now
        elif now - active.empty_since >= GRACE_S:
            await self._release_stream(stream)

    async def _release_stream(self, stream: Stream) -> None:
        """End an upstream that nobody listens to, unless its stream was requested again.

        The store refuses if the stream was requested since it was read. A request after the release changes the
        version, because the stream is not connected then, and so the stream is checked again. No request is missed.
        """
        if await asyncio.to_thread(self._streams.release_if_idle, stream):
            self._released[stream.stream_key] = stream.last_requested_at
            await self._stop([stream.stream_key])
        self._listed = None

    def _begin(self, stream: Stream, standby: bool) -> None:
        upstream = self._make_upstream(stream)
        task = asyncio.create_task(upstream.run(standby=standby), name=stream.stream_key)
        task.add_done_callback(lambda done: self._broke(stream.stream_key, done))
        self._active[stream.stream_key] = ActiveUpstream(stream, upstream, task)
        self._busy_at = self._clock.monotonic()
        self._observer.count("upstreams_begun", protocol=stream.protocol)

    def _broke(self, key: str, task: asyncio.Task[None]) -> None:
        """An upstream only ends by itself through a fault of ours. The next refresh begins it again."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._observer.fault("upstream broke", error, stream=key)
            self._active.pop(key, None)

    async def _stop(self, keys: list[str]) -> None:
        tasks = [self._active.pop(key).task for key in keys if key in self._active]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)
            self._observer.count("upstreams_ended", len(tasks))
