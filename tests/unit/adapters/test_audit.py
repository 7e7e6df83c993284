"""The audit log never stands in the way of what it records, cannot be flooded, and is read page by page."""

from __future__ import annotations

from dataclasses import replace
from time import monotonic
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.doubles.audit_table import MemoryTable
from tests.doubles.platform import CountingIds, MemoryObserver
from tidegate import tables
from tidegate.adapters.aws.json_client import AwsError
from tidegate.adapters.dynamodb.audit import WRITE_S, DynamoAudit
from tidegate.adapters.dynamodb.client import DynamoDb, encode_item
from tidegate.domain.audit import LIFE_S, WINDOW_MS, AuditEvent, AuditQuery, AuditRow, place_of
from tidegate.domain.identifiers import MAX_IDENTIFIER
from tidegate.domain.limits import MOST_LIMITER_MS
from tidegate.domain.time_limits import FUNCTION_S
from tidegate.errors import Unavailable

NOW = 1_700_000_000_000
CHANGE = AuditEvent("dashboard.created", "u", "dashboard", "d", NOW)
REFUSAL = AuditEvent("auth.login.blocked", None, "user", None, NOW)


def audit_of(table: MemoryTable, observer: MemoryObserver | None = None) -> DynamoAudit:
    return DynamoAudit(cast(DynamoDb, table), "audit", CountingIds(), observer or MemoryObserver())


@pytest.mark.parametrize("event", [CHANGE, REFUSAL], ids=["one by one", "counted"])
@pytest.mark.parametrize(
    "failure",
    [
        None,
        Unavailable("down"),
        AwsError("dynamodb", "PutItem", "AccessDeniedException", "not allowed", False, {}),
        AwsError("dynamodb", "PutItem", "ResourceNotFoundException", "no table", False, {}),
    ],
    ids=["none", "unavailable", "access denied", "table gone"],
)
def test_whatever_fails_is_counted_and_raises_nothing(failure: Exception | None, event: AuditEvent) -> None:
    table, observer = MemoryTable(failure), MemoryObserver()
    audit_of(table, observer).record(event)
    assert len(table.items) == (0 if failure else 1)
    assert observer.counts.get(("audit_not_written",), 0) == (1 if failure else 0)


@pytest.mark.parametrize("event", [CHANGE, REFUSAL], ids=["one by one", "counted"])
def test_recording_is_one_call_that_ends_before_the_request_does(event: AuditEvent) -> None:
    table = MemoryTable()
    audit_of(table).record(event)
    (deadline,) = table.deadlines
    assert deadline is not None and deadline <= monotonic() + WRITE_S
    assert FUNCTION_S["api.main"] > MOST_LIMITER_MS / 1000 + WRITE_S


# --- counting -----------------------------------------------------------------------------------------------


def test_what_can_be_repeated_is_one_row_for_each_window() -> None:
    table = MemoryTable()
    audit = audit_of(table)
    begin = NOW - NOW % WINDOW_MS
    for number in range(1000):
        audit.record(replace(REFUSAL, at_ms=begin + number))
    audit.record(replace(REFUSAL, at_ms=begin + WINDOW_MS))
    rows = audit.page(AuditQuery(10, 0, 2 * NOW)).items
    assert [(row.count, row.event.at_ms, row.first_ms, row.last_ms) for row in rows] == [
        (1, begin + WINDOW_MS, begin + WINDOW_MS, begin + WINDOW_MS),
        (1000, begin, begin, begin + 999),
    ]
    assert {row.event.target_id for row in rows} == {"unknown"}


def test_a_call_whose_answer_was_lost_counts_once() -> None:
    table = MemoryTable()

    class Lost(MemoryTable):
        """The client sends a call again when there was no answer."""

        def update(self, *args: object, **options: object) -> None:
            for _ in range(2):
                table.update(*args, **options)  # type: ignore[arg-type]

    observer = MemoryObserver()
    audit_of(Lost(), observer).record(REFUSAL)
    assert [item["count"] for item in table.items.values()] == [1] and not observer.counts


def test_what_a_repetition_writes_is_one_write_unit() -> None:
    """A unit is 1 KiB of the row. An index costs further units only when something in it changes.

    The first of a window costs one unit for the row and one for each index that has it; an event of its own costs the
    same, and a unit for each further KiB of metadata.
    """
    largest = AuditEvent(
        "datasource.session_token.limiter_unavailable",
        "u" * 21,
        "dashboard",
        "d" * 21,
        NOW,
        {"scope": "x" * 300},
    )
    table = MemoryTable()
    audit = audit_of(table)
    audit.record(largest)
    (before,) = [dict(item) for item in table.items.values()]
    audit.record(replace(largest, at_ms=NOW + 1))
    (after,) = table.items.values()
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"count", "last", "last_ms"}
    for index in tables.AUDIT.indexes:
        assert index.projection == "KEYS_ONLY" and not index.include
        assert index.sort is not None and not {index.partition.name, index.sort.name} & changed
    assert len(str(encode_item(after)).encode()) < 1024
    anonymous = MemoryTable()
    audit_of(anonymous).record(REFUSAL)
    (item,) = anonymous.items.values()
    assert "actor_id" not in item, "a key of an index is a text; who has none is not in it"


def test_a_row_of_the_largest_ids_stays_a_row_of_two_units() -> None:
    table = MemoryTable()
    audit_of(table).record(replace(REFUSAL, actor_id="ü" * 10_000, target_id="ü" * 10_000))
    (item,) = table.items.values()
    assert len(item["actor_id"]) == len(item["target_id"]) == MAX_IDENTIFIER
    assert len(str(item).encode()) < 2048


# --- reading ------------------------------------------------------------------------------------------------

DAY_MS = 86_400_000
EVENTS = st.builds(
    AuditEvent,
    action=st.sampled_from(["dashboard.created", "user.created", "auth.login.blocked"]),
    actor_id=st.sampled_from([None, "a", "b"]),
    target_type=st.just("dashboard"),
    target_id=st.sampled_from(["x", "y", None]),
    # Days of some five months, and few moments of each, so that many fall into the same millisecond.
    at_ms=st.builds(lambda day, ms: NOW + day * DAY_MS + ms, st.integers(0, 150), st.integers(0, 2)),
)
FILTERS = st.fixed_dictionaries(
    {},
    optional={
        "action": st.sampled_from(["dashboard.created", "auth.login.blocked"]),
        "actor_id": st.sampled_from(["a", "b"]),
        "target_id": st.sampled_from(["x", "unknown"]),
        "from_ms": st.integers(0, 75).map(lambda day: NOW + day * DAY_MS + 1),
        "to_ms": st.integers(75, 150).map(lambda day: NOW + day * DAY_MS + 1),
    },
)


def paged(audit: DynamoAudit, query: AuditQuery, audit_between: AuditEvent | None = None) -> list[AuditRow]:
    """All pages, one after the other, while something new is recorded between them."""
    rows: list[AuditRow] = []
    while True:
        page = audit.page(query)
        assert len(page.items) <= query.limit
        rows += page.items
        if page.cursor is None:
            return rows
        if audit_between is not None:
            audit.record(audit_between)
        query = replace(query, before=place_of(page.cursor))


@settings(max_examples=150, deadline=None)
@given(st.lists(EVENTS, max_size=40), st.integers(1, 7), FILTERS)
def test_pages_have_every_row_once_and_in_order(events: list[AuditEvent], limit: int, filters: dict[str, int]) -> None:
    table = MemoryTable()
    audit = audit_of(table)
    for event in events:
        audit.record(event)
    query = AuditQuery(limit, **{"from_ms": NOW, "to_ms": NOW + 151 * DAY_MS, **filters})  # type: ignore[arg-type]
    stored = sorted(table.items.values(), key=lambda item: str(item["at"]), reverse=True)
    wanted = [
        item
        for item in stored
        if query.from_ms <= int(item["at"][:13]) < query.to_ms
        and all(item.get(name) == value for name, value in filters.items() if not name.endswith("_ms"))
    ]
    newer = replace(CHANGE, at_ms=NOW + 150 * DAY_MS + 9, actor_id="a", target_id="x")
    rows = paged(audit, query, newer)
    assert [(row.event.action, row.event.actor_id, row.event.target_id, row.event.at_ms) for row in rows] == [
        (item["action"], item.get("actor_id"), item["target_id"], int(item["at"][:13])) for item in wanted
    ]
    counted = {item["at"]: item["count"] for item in wanted if "count" in item}
    assert sorted(row.count for row in rows if row.event.action.startswith("auth.")) == sorted(counted.values())


def test_a_page_reads_what_it_shows_and_no_month() -> None:
    table = MemoryTable()
    audit = audit_of(table)
    for number in range(500):
        audit.record(replace(CHANGE, at_ms=NOW + number, actor_id=f"u{number % 2}", target_id=f"d{number}"))
    query = AuditQuery(20, 0, NOW + 1000)
    for filters in ({}, {"action": CHANGE.action}, {"actor_id": "u1"}, {"target_id": "d7", "action": "none"}):
        table.read.clear()
        audit.page(replace(query, **filters))  # type: ignore[arg-type]
        assert sum(table.read) <= 21, filters


def test_no_more_months_are_looked_at_than_events_are_kept() -> None:
    table = MemoryTable()
    audit_of(table).page(AuditQuery(20, NOW - LIFE_S * 1000, NOW))
    assert len(table.read) <= 15, "400 days touch that many months at most"
