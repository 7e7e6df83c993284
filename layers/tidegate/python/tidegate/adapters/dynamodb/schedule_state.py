"""The state of the schedule, in the streams table: its partition `schedule` has one item.

Invariant of this file: a write is conditional on all that was read. So of several runs at the same time, one queues the
tasks of a moment.
"""

from __future__ import annotations

from tidegate.adapters.dynamodb.client import ConditionFailed, DynamoDb, Item
from tidegate.domain.activity import ScheduleState
from tidegate.ports.schedule import ScheduleStates

_KEY = {"source": "schedule", "stream_key": "!state"}
_SET = "SET #active_until = :active_until, #queued_until = :queued_until, #zero = :zero"
_AS_SEEN = "#active_until = :seen_active_until AND #queued_until = :seen_queued_until AND #zero = :seen_zero"


class DynamoScheduleState(ScheduleStates):
    """One item. Its attributes are those of `ScheduleState`."""

    def __init__(self, db: DynamoDb, table: str) -> None:
        self._db = db
        self._table = table

    def read(self) -> ScheduleState:
        item = self._db.get(self._table, _KEY)
        if item is None:
            return ScheduleState()
        return ScheduleState(item["active_until"], item["queued_until"], item["zero"])

    def move(self, seen: ScheduleState, to: ScheduleState) -> bool:
        values: Item = {**to._asdict()}
        condition = "attribute_not_exists(#zero)"
        if seen != ScheduleState():
            condition = _AS_SEEN
            values |= {f"seen_{name}": was for name, was in seen._asdict().items()}
        try:
            self._db.update(self._table, _KEY, _SET, condition, values)
        except ConditionFailed:
            return False
        return True
