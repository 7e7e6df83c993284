"""Sizes, places and moments of the audit log."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.domain.audit import (
    CUT,
    LIFE_S,
    MAX_ACTION,
    MAX_COUNTED_METADATA,
    MAX_METADATA,
    MAX_TEXT,
    AuditEvent,
    AuditQuery,
    as_text,
    bounded,
    cursor_of,
    identity,
    is_counted,
    moment_ms,
    month_of,
    months,
    place,
    place_of,
    span,
    window_begin,
)
from tidegate.domain.identifiers import MAX_IDENTIFIER
from tidegate.errors import InvalidInput

NOW = 1_700_000_000_000
_TEXTS = st.text(st.characters(codec=None), max_size=2000)
_VALUES = st.one_of(st.none(), st.booleans(), st.integers(), _TEXTS, st.lists(_TEXTS, max_size=60))


def event(action: str = "dashboard.created", **metadata: object) -> AuditEvent:
    return AuditEvent(action, "u", "dashboard", "d", NOW, metadata)


@given(_TEXTS, _TEXTS, st.dictionaries(_TEXTS, _VALUES, max_size=30))
def test_no_event_is_larger_than_what_may_be_stored(action: str, text: str, metadata: dict[str, object]) -> None:
    kept = bounded(AuditEvent(action, text, text, text, NOW, metadata))
    assert len(kept.action) <= MAX_ACTION and len(kept.target_id or "") <= MAX_IDENTIFIER
    assert len(as_text(kept.metadata)) <= MAX_METADATA
    assert json.loads(as_text(kept.metadata)) == kept.metadata
    (kept.action + kept.target_type + (kept.target_id or "") + (kept.actor_id or "")).encode()
    assert kept.target_id
    assert bounded(kept) == kept or CUT in kept.metadata


def test_what_is_small_is_kept_as_it_is() -> None:
    small = event(
        level="viewer", allowPublicUse=False, destinationsAdded=["https://a.example:443"], number=3, none=None
    )
    assert bounded(small) == small


def test_what_was_cut_says_so() -> None:
    destinations = [f"https://{number}{'x' * 250}.example:443" for number in range(50)]
    kept = bounded(event(destinationsAdded=destinations, allowPublicUse=True)).metadata
    assert kept[CUT] is True and kept["allowPublicUse"] is True
    shown = kept["destinationsAdded"]
    assert isinstance(shown, list) and 10 < len(shown) < 50 and shown == destinations[: len(shown)]
    assert bounded(event(text="x" * 301)).metadata == {"text": "x" * (MAX_TEXT - 1) + "…", CUT: True}
    assert len(as_text(bounded(event("auth.x", text="x" * 200, more="x" * 200)).metadata)) <= MAX_COUNTED_METADATA


def test_an_event_without_a_verified_target_has_an_unknown_one() -> None:
    assert bounded(AuditEvent("auth.x", None, "user", None, NOW)).target_id == "unknown"


def test_what_a_stranger_can_repeat_is_counted() -> None:
    counted = {"auth.login.locked", "auth.login.blocked", "datasource.session_token.rate_limited"}
    assert {
        action for action in [*counted, "dashboard.created", "user.created"] if is_counted(event(action))
    } == counted


def test_rows_differ_by_who_what_and_why() -> None:
    events = [
        AuditEvent(action, actor, kind, target, NOW, metadata)
        for action in ("auth.x", "auth.y")
        for actor in (None, "u")
        for kind in ("user", "dashboard")
        for target in ("unknown", "d")
        for metadata in ({}, {"scope": "s"})
    ]
    assert len({identity(each) for each in events}) == len(events)
    assert identity(event(a=1, b=2)) == identity(event(b=2, a=1))


@given(st.integers(0, 4_000_000_000_000))
def test_a_window_lies_in_one_month_and_its_cursor_leads_back(at_ms: int) -> None:
    begin = window_begin(at_ms)
    assert begin <= at_ms < begin + 300_000 and month_of(begin) == month_of(at_ms)
    where = place(begin, "a-Z_9")
    assert place_of(cursor_of(where)) == where


@pytest.mark.parametrize(
    "cursor", ["", "x", "1700000000000", "1700000000000.", "1700000000000#a", "170000000000.a", "1700000000000.a\n"]
)
def test_what_is_no_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidInput, match="cursor"):
        place_of(cursor)


def test_moments_are_read_as_answers_write_them() -> None:
    assert moment_ms("1970-01-01T00:00:01.5Z", "from") == 1500
    assert moment_ms("2023-11-14T22:13:20.000Z", "from") == NOW
    for wrong in (
        "",
        "1",
        "2026-02-30T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "2026-01-01T00:00:00+01:00",
        "٢026-01-01T00:00:00Z",
    ):
        with pytest.raises(InvalidInput, match="from must be"):
            moment_ms(wrong, "from")


def test_the_span_is_within_what_is_kept() -> None:
    oldest = NOW - LIFE_S * 1000
    assert span(None, None, NOW) == span(-1, 10**15, NOW) == (oldest, NOW + 60_000)
    assert span(NOW - 5, NOW, NOW) == (NOW - 5, NOW)
    with pytest.raises(InvalidInput, match="before"):
        span(5, 5, NOW)


def test_months_go_back_over_a_new_year() -> None:
    assert list(months(moment_ms("2025-11-30T23:59:59Z", ""), moment_ms("2026-02-01T00:00:00Z", ""))) == [
        "2026-02",
        "2026-01",
        "2025-12",
        "2025-11",
    ]


def test_rows_are_found_by_the_filter_that_has_the_fewest() -> None:
    every = AuditQuery(1, 0, 1, action="a", actor_id="u", target_id="t")
    assert every.key == ("target_id", "t")
    assert AuditQuery(1, 0, 1, action="a", actor_id="u").key == ("actor_id", "u")
    assert AuditQuery(1, 0, 1).key is None
