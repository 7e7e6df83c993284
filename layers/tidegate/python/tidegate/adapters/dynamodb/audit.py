"""The audit table: a partition for each month, read from the newest event on.

Invariant of this file: recording raises no error of Tidegate's. An event that could not be written is counted and
logged.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime

from tidegate.adapters.dynamodb.client import DynamoDb, Item
from tidegate.ports.control_plane import AuditEvent, AuditLog
from tidegate.ports.runtime import Ids, Observer

#: How long audit events are kept, seconds: 400 days.
LIFE_S = 400 * 86_400
#: How many months a read goes back.
_MONTHS = 14


class DynamoAudit(AuditLog):
    """The audit log in DynamoDB."""

    def __init__(self, db: DynamoDb, table: str, ids: Ids, observer: Observer) -> None:
        self._db = db
        self._table = table
        self._ids = ids
        self._observer = observer

    def record(self, event: AuditEvent) -> None:
        item: Item = {
            "month": _month(event.at_ms),
            "at": f"{event.at_ms:013d}#{self._ids.new_id()}",
            "action": event.action,
            "actor_id": event.actor_id,
            "target_type": event.target_type,
            "target_id": event.target_id,
            "metadata": json.dumps(event.metadata, separators=(",", ":")),
            "ttl": event.at_ms // 1000 + LIFE_S,
        }
        try:
            self._db.put(self._table, item)
        except Exception as error:  # whatever it is, what is recorded has happened and must not fail for it
            self._observer.count("audit_not_written")
            self._observer.fault("audit event not written", error, action=event.action)

    def newest(self, limit: int, action_prefix: str = "") -> Sequence[AuditEvent]:
        now = datetime.now(UTC)
        found: list[AuditEvent] = []
        for back in range(_MONTHS):
            year, month = divmod(now.year * 12 + now.month - 1 - back, 12)
            items = self._db.query(
                self._table, "#month = :month", {"month": f"{year:04d}-{month + 1:02d}"}, descending=True
            )
            for item in items:
                if item["action"].startswith(action_prefix):
                    found.append(_event(item))
                if len(found) == limit:
                    return found
        return found


def _month(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m")


def _event(item: Item) -> AuditEvent:
    return AuditEvent(
        action=item["action"],
        actor_id=item["actor_id"],
        target_type=item["target_type"],
        target_id=item["target_id"],
        at_ms=int(item["at"].partition("#")[0]),
        metadata=json.loads(item["metadata"]),
    )
