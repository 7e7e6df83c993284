"""What limits are counted in, as Protocols; conventions as in `ports.runtime`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tidegate.domain.limits import RateDecision
    from tidegate.ports.runtime import ScanPage


class RateCounter(Protocol):
    def count(
        self, key: str, limit: int, now_ms: int, window_ms: int, request_id: str, deadline: float
    ) -> RateDecision:
        """Count one call against `limit` in the fixed window of `now_ms`, in one conditional write.

        Args:
            key: what is limited, already an HMAC.
            request_id: of this call; a retry carries the same one and is not counted twice.
            deadline: monotonic seconds after which `Unavailable` is raised.
        A store that throttles this key answers like a refusal.
        """


class RateStore(RateCounter, Protocol):
    def clear(self, key: str, now_ms: int, window_ms: int) -> None:
        """Forget the key's current window (a successful login clears its failures)."""

    def lock(self, key: str, until_ms: int, deadline: float) -> None:
        """Lock the key until then, epoch milliseconds; a later lock stands."""

    def locked_until_ms(self, key: str, deadline: float) -> int:
        """Epoch milliseconds until which the key is locked; 0 when it never was."""


class CapStore(Protocol):
    def take(self, cap: str, partition: int, limit: int, holder: str, deadline: float | None = None) -> bool:
        """Add the holder to one shard's set while the set is below `limit`. True when it is in the set."""

    def scan(self, segment: int, segments: int, after: str | None = None) -> Iterator[ScanPage[tuple[str, int, str]]]:
        """(cap, shard, holder) of one part of the table, as `ConnectionStore.scan`."""

    def release(self, cap: str, partition: int, holder: str) -> None:
        """Remove the holder from one shard's set. Repeating changes nothing."""


class KeyHasher(Protocol):
    def key(self, *parts: str) -> str:
        """First 32 hex characters of HMAC-SHA256 over the lower-cased parts: limiter keys and stored addresses."""
