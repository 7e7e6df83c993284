"""Where limits are counted. Conventions: see `ports.runtime`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tidegate.domain.attempts import AttemptDecision, AttemptPolicy
    from tidegate.domain.limits import RateDecision
    from tidegate.domain.subscriptions import Connection
    from tidegate.ports.runtime import ScanPage


class RateCounter(Protocol):
    def count(
        self, key: str, limit: int, now_ms: int, window_ms: int, request_id: str, deadline: float
    ) -> RateDecision:
        """Count one call against `limit` in the fixed window of `now_ms`, in one conditional write.

        Args:
            key: what is limited; already an HMAC.
            request_id: id of this call. A retry carries the same id and is not counted twice.
            deadline: monotonic seconds after which `Unavailable` is raised.

        A key that the store throttles because that very key is flooded is refused. Throttling for any other reason
        raises `Unavailable`, like every other failure.
        """


class RateReader(Protocol):
    def spent(self, key: str, now_ms: int, window_ms: int, deadline: float) -> int:
        """How many calls `RateCounter` has counted in the window of `now_ms`. Nothing is counted.

        Args:
            key, window_ms: as for `RateCounter.count`.
            deadline: monotonic seconds after which `Unavailable` is raised.
        """


class AttemptStore(Protocol):
    """Attempts that are counted before they are judged. Repeating any of the calls changes nothing."""

    def begin(self, key: str, attempt_id: str, policy: AttemptPolicy, now_ms: int, deadline: float) -> AttemptDecision:
        """Count an attempt if the window has room.

        Args:
            key: whose attempts are counted; already an HMAC.
            attempt_id: id of this attempt.
            deadline: monotonic seconds after which `Unavailable` is raised.

        A key that the store throttles because that very key is flooded is refused for a second, and nothing is stored.
        """

    def wrong(self, key: str, attempt_id: str, policy: AttemptPolicy, now_ms: int, deadline: float) -> bool:
        """The attempt was wrong. If the window is used up, it lasts `lock_s` from now at least. Returns whether so."""

    def right(self, key: str, attempt_id: str, deadline: float, *, known_until_ms: int = 0) -> None:
        """Give the attempt back. With `known_until_ms` (epoch milliseconds) later attempts are `known` until then."""


class CapStore(Protocol):
    def take(self, cap: str, shard: int, limit: int, holder: str, deadline: float | None = None) -> bool:
        """Add the holder to the set of one counter shard, if the set is smaller than `limit`.

        `shard` is its index. True when the holder is in the set, also from before.
        """

    def scan(self, segment: int, segments: int, after: str | None = None) -> Iterator[ScanPage[tuple[str, int, str]]]:
        """(cap, counter shard, holder) of one part of the table, as in `ConnectionStore.scan`."""

    def release(self, cap: str, shard: int, holder: str, deadline: float | None = None) -> None:
        """Remove the holder from the set of one counter shard. Repeating changes nothing."""

    def give_back(self, seen: Connection, slots: Collection[tuple[str, int]]) -> bool:
        """Remove a connection from the sets of these (cap, counter shard), and the slots from its row.

        It is one transaction.

        The condition: the connection is there and has the very keys that were seen. So a subscribe that has reserved a
        key meanwhile keeps its slot. False when it does not hold. Repeating is harmless.
        """


class CapReader(Protocol):
    def held(self, cap: str, shard: int, deadline: float) -> int:
        """How many holders a counter shard has. Nothing is taken.

        Args:
            shard: its index.
            deadline: monotonic seconds after which `Unavailable` is raised.
        """


class UpstreamHolds(Protocol):
    def hold(self, owner: str, name: str, until: int, now: int, limit: int | None, deadline: float) -> int | None:
        """Hold a stream for an owner until `until` or longer, in one conditional write. Repeating changes nothing.

        Args:
            owner: already an HMAC.
            name: of the stream.
            until, now: epoch seconds.
            limit: most holds of the owner; None when this one is not to be refused. A stream that is held already is
                not refused either.
            deadline: monotonic seconds after which `Unavailable` is raised.

        Returns:
            None when the stream is held. Otherwise when there is room, if nobody holds for longer: epoch seconds.

        A key that the store throttles because that very key is flooded is refused for a second.
        """


class HoldReader(Protocol):
    def refused(self, owner: str, name: str, now: int, limit: int, deadline: float) -> int | None:
        """What `UpstreamHolds.hold` would answer now. Nothing is held."""


class KeyHasher(Protocol):
    def key(self, *parts: str) -> str:
        """First 32 hex characters of HMAC-SHA256 over the lower-cased parts. For limiter keys and stored addresses."""

    def known(self) -> Sequence[Callable[..., str]]:
        """`key` under every value of the salt that is in use; more than one while the salt is rotated."""
