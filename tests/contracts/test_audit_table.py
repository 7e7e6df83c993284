"""The audit log on a table: what is counted is counted right, and every filter has its index.

`tests/e2e/test_concurrency.py` counts in parallel, on the emulator, which is atomic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from tests.doubles.platform import MemoryObserver
from tidegate import tables
from tidegate.adapters.dynamodb.audit import DynamoAudit
from tidegate.adapters.system import SystemIds
from tidegate.domain.audit import AuditEvent, AuditQuery, AuditRow, place_of
from tidegate.providers.control_plane import ControlPlaneProviders

NOW = 1_700_000_000_000
DAY_MS = 86_400_000
REFUSAL = AuditEvent("datasource.session_token.rate_limited", None, "dashboard", None, NOW, {"scope": "public-ip"})


@pytest.fixture
def observer() -> MemoryObserver:
    return MemoryObserver()


@pytest.fixture
def audit(deployed: Mapping[str, str], observer: MemoryObserver) -> DynamoAudit:
    container = ControlPlaneProviders(deployed)
    return DynamoAudit(container.db, container.table(tables.AUDIT), SystemIds(), observer)


def paged(audit: DynamoAudit, query: AuditQuery) -> list[AuditRow]:
    rows: list[AuditRow] = []
    while True:
        page = audit.page(query)
        rows += page.items
        if page.cursor is None:
            return rows
        query = replace(query, before=place_of(page.cursor))


def test_refusals_are_one_row_with_their_number(audit: DynamoAudit, observer: MemoryObserver) -> None:
    for number in range(40):
        audit.record(replace(REFUSAL, at_ms=NOW + number))
    assert not observer.counts
    (row,) = audit.page(AuditQuery(10, 0, 2 * NOW, action=REFUSAL.action)).items
    assert (row.count, row.first_ms, row.last_ms) == (40, NOW, NOW + 39)
    assert row.event.metadata == {"scope": "public-ip"} and row.event.actor_id is None


def test_every_filter_pages_through_months(audit: DynamoAudit) -> None:
    for number in range(24):
        audit.record(
            AuditEvent(
                "dashboard.created" if number % 2 else "dashboard.deleted",
                f"u{number % 3}",
                "dashboard",
                f"d{number % 4}",
                NOW + number // 4 * 20 * DAY_MS,  # four in the same millisecond
            )
        )
    query = AuditQuery(5, NOW, NOW + 200 * DAY_MS)
    everything = [row.event for row in paged(audit, query)]
    assert len(everything) == 24 and len({(event.at_ms, event.actor_id, event.target_id) for event in everything}) == 24
    assert [event.at_ms for event in everything] == sorted((event.at_ms for event in everything), reverse=True)
    for filters in (
        {"action": "dashboard.created"},
        {"actor_id": "u1"},
        {"target_id": "d2"},
        {"target_id": "d2", "actor_id": "u0"},
        {"action": "dashboard.deleted", "from_ms": NOW + 20 * DAY_MS, "to_ms": NOW + 60 * DAY_MS},
    ):
        wanted = replace(query, limit=3, **filters)
        expected = [each for each in everything if wanted.wants(each) and wanted.from_ms <= each.at_ms < wanted.to_ms]
        assert expected and [row.event for row in paged(audit, wanted)] == expected, filters
