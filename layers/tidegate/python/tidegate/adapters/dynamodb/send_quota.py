"""The send quota in the limiters table: one item for each part of the quota.

Invariant of this file: a grant is one conditional write. It holds for the very window that was read, or nothing is
granted. So all senders together are never granted more than a window has.
"""

from __future__ import annotations

from tidegate.adapters.dynamodb.client import ConditionFailed, DynamoDb, Item, KeyFlooded
from tidegate.domain.send_quota import SendQuota, SendWindow, window_at
from tidegate.ports.delivery import SendQuotaStore

#: How often one ask is tried. Another sender may be first each time, and then the window is likely to be used up.
_TRIES = 3
#: How long an item is kept that nobody asks, seconds. Its share is the whole again long before.
_LIFE_S = 3_600


class DynamoSendQuota(SendQuotaStore):
    """Remembers what it saw last of each item, so that an ask is one write as a rule."""

    def __init__(self, db: DynamoDb, table: str, quota: SendQuota) -> None:
        self._db = db
        self._table = table
        self._quota = quota
        self._seen: dict[int, SendWindow] = {}

    def take(self, item: int, wanted: int, now_ms: int, deadline: float) -> int:
        for _ in range(_TRIES):
            seen, number = self._seen.get(item), window_at(now_ms)
            new = seen is None or seen.number < number
            window = self._quota.opened(seen, number) if seen is None or new else seen
            granted = self._quota.granted(window, wanted)
            if not granted:
                return 0
            try:
                if new:
                    self._open(item, seen, window, granted, deadline)
                else:
                    self._take(item, window, granted, self._quota.kept_back(wanted), deadline)
            except ConditionFailed as failed:
                self._remember(item, failed.item)
            except KeyFlooded:
                return 0
            else:
                return granted
        return 0

    def throttled(self, item: int, deadline: float) -> None:
        for _ in range(_TRIES):
            seen = self._seen.get(item)
            fallen = None if seen is None else self._quota.fallen(seen)
            if seen is None or fallen is None:
                return
            try:
                self._db.update(
                    self._table,
                    _key(item),
                    "SET #share = :share, #fell_at = :fell_at",
                    "#window = :window AND #fell_at = :before",
                    {
                        "share": fallen.share,
                        "fell_at": fallen.fell_at,
                        "window": seen.number,
                        "before": seen.fell_at,
                    },
                    deadline=deadline,
                )
            except ConditionFailed as failed:
                self._remember(item, failed.item)
            except KeyFlooded:
                return
            else:
                self._seen[item] = fallen
                return

    def _open(self, item: int, seen: SendWindow | None, window: SendWindow, granted: int, deadline: float) -> None:
        values: Item = {
            "window": window.number,
            "left": window.left - granted,
            "share": window.share,
            "fell_at": window.fell_at,
            "ttl": window.number // 10 + _LIFE_S,
        }
        condition = "attribute_not_exists(#window)"
        if seen is not None:
            condition = f"{condition} OR (#window = :before AND #fell_at = :fell_at)"
            values["before"] = seen.number
        names = ("window", "left", "share", "fell_at", "ttl")
        self._db.update(
            self._table,
            _key(item),
            "SET " + ", ".join(f"#{name} = :{name}" for name in names),
            condition,
            values,
            deadline=deadline,
        )
        self._seen[item] = SendWindow(window.number, window.left - granted, window.share, window.fell_at)

    def _take(self, item: int, window: SendWindow, granted: int, kept_back: int, deadline: float) -> None:
        self._db.update(
            self._table,
            _key(item),
            "ADD #left :taken",
            "#window = :window AND #left >= :least",
            {"taken": -granted, "window": window.number, "least": granted + kept_back},
            deadline=deadline,
        )
        self._seen[item] = SendWindow(window.number, window.left - granted, window.share, window.fell_at)

    def _remember(self, item: int, stored: Item | None) -> None:
        if stored is None or "window" not in stored:
            self._seen.pop(item, None)
        else:
            self._seen[item] = SendWindow(stored["window"], stored["left"], stored["share"], stored["fell_at"])


def _key(item: int) -> Item:
    return {"key": f"sends#{item}"}
