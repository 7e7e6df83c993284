"""A relay worker: holds one shard's upstreams for as long as somebody listens.

    claim the shard -> hold its upstreams, renewing -> nobody listens: release
                                                    -> time runs out: hand over to a successor that is connected already
                                                    -> a worker with other settings comes: the same
    its holder died -> connect meanwhile, claim when its lease has ended

What lets it send is `keep_lease`'s; here is when it connects, lets go, and makes room for its successor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, TypeVar

from tidegate.domain.relay import LEASE_S, is_overdue, partition_of, runs_by, worker_id
from tidegate.domain.subscriptions import Stream
from tidegate.errors import Unavailable
from tidegate.ports.gateway import SourceStreams, StreamStore
from tidegate.ports.relay import RelayLeases, RelayWorkers
from tidegate.ports.runtime import Clock, Ids, Observer
from tidegate.usecases.relay.keep_lease import KeepLease
from tidegate.usecases.relay.upstream import Upstream

#: How often the shard's streams are looked up, seconds: a new one waits no longer to be connected.
REFRESH_S = 1.0
#: A stream nobody is subscribed to is kept for so long after it was last wanted, seconds: indexes lag, viewers reload.
GRACE_S = 15.0
#: A worker without upstreams stays for so long, seconds.
EXIT_S = 20.0
#: How long before its time ends a worker asks for its successor, seconds.
HANDOVER_S = 45.0
#: How long a successor connects before it offers itself, and waits to be handed the shard, seconds.
CONNECT_S, WAIT_S = 10.0, 60.0
_TICK_S = 0.1
#: Audiences asked for at the same time.
_AUDIENCE_CHECKS = 8

T = TypeVar("T")


@dataclass(slots=True)
class ActiveUpstream:
    """An upstream under way. `empty_since` is when its audience was first seen empty, monotonic seconds."""

    stream: Stream
    upstream: Upstream
    task: asyncio.Task[None]
    empty_since: float | None = None
    checked_at: float = 0.0


class FrameSender(Protocol):
    """What `BackgroundSender` is to a worker."""

    healthy: bool

    def flush(self) -> bool: ...


class RelayWorker:
    """One worker of one shard. `run` once."""

    def __init__(
        self,
        *,
        leases: RelayLeases,
        streams: StreamStore,
        relay_workers: RelayWorkers,
        settings: str,
        enabled: frozenset[str],
        notify_disabled: Callable[[Stream], Awaitable[object]],
        make_upstream: Callable[[Stream], Upstream],
        has_audience: Callable[[Stream], bool],
        sender: FrameSender,
        handover_s: float = HANDOVER_S,
        clock: Clock,
        ids: Ids,
        observer: Observer,
    ) -> None:
        """`settings`: their digest; a worker with others is made room for. `enabled`: protocols switched on.

        `notify_disabled` tells viewers of a stream that its protocol is off. `make_upstream` and `has_audience` are
        asked per stream. `frames` is where upstreams send.
        """
        self._leases = leases
        self._streams = streams
        self._relay_workers = relay_workers
        self._settings = settings
        self._enabled = enabled
        self._notify_disabled = notify_disabled
        self._make_upstream = make_upstream
        self._has_audience = has_audience
        self._sender = sender
        self._handover_s = handover_s
        self._clock = clock
        self._owner = worker_id(settings, ids.new_id())
        self._observer = observer
        self._active: dict[str, ActiveUpstream] = {}
        self._released: dict[str, int] = {}  # stream key -> `last_requested_at` when nobody listened
        self._listed: SourceStreams | None = None
        self._listed_at = 0.0
        self._keep: KeepLease | None = None
        self._asking = asyncio.Lock()
        self._asked_successor = asyncio.Event()
        self._refreshed = False
        self._busy_at = float("-inf")  # nothing wanted at the first look is reason enough to end
        self._audience_checks = asyncio.Semaphore(_AUDIENCE_CHECKS)

    def may_send(self) -> bool:
        """Whether this worker's lease holds now."""
        return self._keep is not None and self._keep.may_send()

    async def run(self, partition: int, stop_at: float, *, successor: bool = False, newest: bool = False) -> str:
        """Work until nobody listens, the shard is another's, or `stop_at` (monotonic seconds). Returns why it ended.

        Args:
            shard: which.
            stop_at: when to be gone.
            successor: the shard's holder asked for this worker.
            newest: there are no newer settings than this worker's, so it succeeds a holder that has others.

        Raises `Unavailable` when the lease could not be asked for.
        """
        keep = self._keep = KeepLease(leases=self._leases, partition=partition, owner=self._owner, clock=self._clock)
        try:
            active = not successor and await asyncio.to_thread(keep.claim)
            if successor or (not active and await asyncio.to_thread(self._needs_successor, partition, newest)):
                active = await self._await_handover(keep, partition)
            if not active or keep.lease is None:
                return "not needed"
            fence = keep.lease.fence
            self._observer.info("relay began", partition=partition, fence=fence, upstreams=len(self._active))
            ended = await self._hold(keep, partition, stop_at)
            self._observer.info("relay ended", partition=partition, fence=fence, reason=ended)
            return ended
        finally:
            await self._stop(list(self._active))
            if keep.lease is not None:  # cancelled, or broken: the next one need not wait for the lease's end
                with suppress(Unavailable):
                    await self._ask_lease(keep.release)

    # --- becoming the holder --------------------------------------------------------------------------------

    def _needs_successor(self, partition: int, newest: bool) -> bool:
        """Whether the holder is to be replaced, and nobody waits to do so: it has not renewed its lease in time, so it
        has most likely died; or it runs by other settings, for a running function keeps what it was started with, and
        what was switched off must not go on until its time ends."""
        lease = self._leases.current(partition)
        if lease is None or lease.successor:
            return False
        return is_overdue(lease, self._clock.now()) or (newest and not runs_by(lease.owner, self._settings))

    async def _await_handover(self, keep: KeepLease, partition: int) -> bool:
        """Connect as a standby, offer, and wait for the shard. A holder that died meanwhile is replaced."""
        await self._refresh(partition, standby=True)
        waiting = [active.upstream.connected.wait() for active in self._active.values()]
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*waiting), CONNECT_S)
        await asyncio.to_thread(keep.offer)
        give_up = self._clock.monotonic() + WAIT_S
        while self._clock.monotonic() < give_up:
            if await asyncio.to_thread(keep.taken_over):
                await asyncio.gather(*(active.upstream.take_over() for active in self._active.values()))
                return True
            if keep.passed_over:
                return False
            await asyncio.sleep(_TICK_S)
        return False

    # --- holding --------------------------------------------------------------------------------------------

    async def _hold(self, keep: KeepLease, partition: int, stop_at: float) -> str:
        """Renewing waits for nothing else: neither slow stores nor many streams may cost the lease."""
        renewing = asyncio.create_task(self._renew(keep), name="renew")
        refreshing = asyncio.create_task(self._keep_refreshing(partition), name="look")
        try:
            ended = await self._until_it_ends(keep, partition, stop_at, renewing, refreshing)
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
        stop_at: float,
        renewing: asyncio.Task[None],
        refreshing: asyncio.Task[None],
    ) -> str:
        """Returns why the shard is to be left."""
        while True:
            now = self._clock.monotonic()
            for task in (renewing, refreshing):
                if task.done():
                    task.result()  # raises what broke it
                    return "overtaken"
            not_needed = self._not_needed(keep, now)
            if not_needed:
                return not_needed
            if not self._asked_successor.is_set() and now >= stop_at - self._handover_s and self._active:
                self._asked_successor.set()
                await self._ask_successor(partition)
            if not self._sender.healthy:
                return "broken"
            if now >= stop_at:
                return "out of time"
            await asyncio.sleep(_TICK_S)

    def _not_needed(self, keep: KeepLease, now: float) -> str:
        """Why this worker is not needed any more; empty while it is."""
        lease = keep.lease  # read once: it is renewed by another thread
        if lease is not None and lease.successor:
            return "handed over"
        if self._active:
            self._busy_at = now
        elif self._refreshed and now - self._busy_at >= EXIT_S:
            return "nobody listens"
        return ""

    async def _leave(self, keep: KeepLease, partition: int, why: str) -> str:
        if why == "overtaken":
            return why
        # What is read from here on is in a successor's hands as well, where there is one.
        await self._fall_silent()
        if why == "handed over":
            return why if await self._ask_lease(keep.hand_over) else "overtaken"
        await self._ask_lease(keep.release)
        if why == "nobody listens":
            # Somebody may have come between the last look and the release, and been told that a worker is there.
            await self._refresh(partition, standby=True)
            if self._active:
                await asyncio.to_thread(self._relay_workers.start, partition)
        return why

    async def _renew(self, keep: KeepLease) -> None:
        """Renew the lease until it is another's."""
        while True:
            if self._asked_successor.is_set():  # who offers itself is seen by renewing
                await asyncio.sleep(_TICK_S)
            else:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._asked_successor.wait(), LEASE_S / 3)
            if not await self._ask_lease(keep.renew):
                return

    async def _ask_lease(self, call: Callable[[], T]) -> T:
        """One call at a time, each to its end though this task be cancelled: a renewal that is answered after the shard
        was let go would hold it again."""
        async with self._asking:
            asked = asyncio.ensure_future(asyncio.to_thread(call))
            try:
                return await asyncio.shield(asked)
            except asyncio.CancelledError:
                await asyncio.wait([asked])
                raise

    async def _fall_silent(self) -> None:
        """Deliver nothing more, once what is on its way has arrived, while the lease still holds."""
        await asyncio.gather(*(active.upstream.pause() for active in self._active.values()))
        await asyncio.to_thread(self._sender.flush)

    async def _ask_successor(self, partition: int) -> None:
        try:
            await asyncio.to_thread(lambda: self._relay_workers.start(partition, successor=True))
        except Unavailable as error:
            self._observer.fault("no successor", error, partition=partition)

    # --- streams --------------------------------------------------------------------------------------------

    async def _keep_refreshing(self, partition: int) -> None:
        while True:
            await self._refresh(partition, standby=False)
            await asyncio.sleep(REFRESH_S)

    async def _refresh(self, partition: int, *, standby: bool) -> None:
        """Begin what is wanted, let go what nobody listens to. A store that does not answer changes nothing."""
        try:
            streams = await asyncio.to_thread(self._relayed)
            of_partition = [one for one in streams if partition_of(one) == partition]
            mine = {one.stream_key: one for one in of_partition if one.protocol in self._enabled}
            await self._stop([key for key in self._active if key not in mine])
            checks = [self._check_stream(stream, standby) for stream in mine.values()]
            failed = [one for one in await asyncio.gather(*checks, return_exceptions=True) if one is not None]
            if failed:
                raise failed[0]
            if not standby:
                await self._end_disabled([one for one in of_partition if one.protocol not in self._enabled])
            self._refreshed = not standby
        except Unavailable:
            self._observer.count("relay_refreshes_failed")

    def _relayed(self) -> Sequence[Stream]:
        """All streams of the relay: read again when one was wanted that is not connected, and now and then."""
        now = self._clock.monotonic()
        listed = self._listed
        if listed is None or now - self._listed_at >= GRACE_S or self._streams.version_of(None) != listed.version:
            listed = self._listed = self._streams.of_source(None)
            self._listed_at = now
        return listed.streams

    async def _end_disabled(self, streams: list[Stream]) -> None:
        """Whoever watches what ran before its protocol was switched off is told, once."""
        for stream in streams:
            if stream.connected:
                await self._notify_disabled(stream)
                await asyncio.to_thread(self._streams.note_connected, stream, False)
                self._listed = None

    async def _check_stream(self, stream: Stream, standby: bool) -> None:
        """A few streams at a time: their audiences are asked of a table."""
        async with self._audience_checks:
            if stream.stream_key in self._active:
                await self._check_active(stream)
            elif await self._is_wanted(stream):
                if stream.connected and not standby:  # by a worker that died: whoever subscribes now is told otherwise
                    await asyncio.to_thread(self._streams.note_connected, stream, False)
                self._begin(stream, standby)
            elif stream.connected and not standby:
                await self._release_stream(stream)

    async def _is_wanted(self, stream: Stream) -> bool:
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
        if stream.last_requested_at != active.stream.last_requested_at:
            active.stream, active.empty_since = stream, None
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
        """Whoever wants it from then on moves the version, since it is not connected; who did before is heard."""
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
        """An upstream only ends by a fault of ours: the next look begins it again."""
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
