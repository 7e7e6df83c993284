from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.domain.upstream_answers import (
    MOST_ID_BYTES,
    MOST_PAUSE_MS,
    asked_pause_ms,
    is_event_stream,
    sendable_id,
    switches_to_websocket,
)

DATE = "Fri, 01 Jan 1999 00:00:00 GMT"


@given(st.text())
def test_an_id_is_sent_as_it_is_or_not_at_all(event_id: str) -> None:
    sent = sendable_id(event_id)
    assert sent in (event_id, "")
    assert not any((ord(char) < 0x20 and char != "\t") or ord(char) == 0x7F for char in sent)
    sent.encode()


@pytest.mark.parametrize(
    "event_id", ["a\x01b", "a\nb", "a\r", "\x7f", " a", "a\t", "\ud800", "x" * (MOST_ID_BYTES + 1)]
)
def test_what_no_header_can_hold_is_omitted(event_id: str) -> None:
    assert sendable_id(event_id) == ""


@pytest.mark.parametrize("event_id", ["7", "é/ü 5", "x" * MOST_ID_BYTES])
def test_what_a_header_can_hold_is_sent(event_id: str) -> None:
    assert sendable_id(event_id) == event_id


@pytest.mark.parametrize(
    ("content_type", "declared"),
    [
        ("text/event-stream", True),
        ("Text/Event-Stream;charset=utf-8", True),
        (" text/event-stream ; x=y", True),
        ("text/html", False),
        ("text/event-stream2", False),
        ("", False),
    ],
)
def test_the_content_type_in_any_case_and_with_parameters(content_type: str, declared: bool) -> None:
    assert is_event_stream(content_type) is declared


@pytest.mark.parametrize(
    ("connection", "switches"),
    [
        (["Upgrade"], True),
        (["keep-alive, Upgrade"], True),
        (["keep-alive", "upgrade"], True),
        (["keep-alive"], False),
        (["Upgraded"], False),
        ([], False),
    ],
)
def test_the_upgrade_may_stand_among_other_options(connection: list[str], switches: bool) -> None:
    assert switches_to_websocket(connection) is switches


@pytest.mark.parametrize(
    ("retry_after", "date", "pause_ms"),
    [
        ("20", "", 20_000),
        (" 0 ", "", 0),
        ("9" * 5000, "", MOST_PAUSE_MS),
        ("0" * 5000 + "7", "", 7_000),
        ("-1", "", 0),
        ("1.5", "", 0),
        ("٣", "", 0),
        ("", "", 0),
        ("Fri, 01 Jan 1999 00:00:20 GMT", DATE, 20_000),
        ("Fri, 01 Jan 1999 00:00:20 GMT", "", 0),
        ("Thu, 31 Dec 1998 00:00:00 GMT", DATE, 0),
        ("Fri, 01 Jan 2100 00:00:00 GMT", DATE, MOST_PAUSE_MS),
        ("Fri, 01 Jan 1999 00:00:20 -0000", DATE, 20_000),
        ("soon", DATE, 0),
    ],
)
def test_the_pause_that_is_asked_for(retry_after: str, date: str, pause_ms: int) -> None:
    assert asked_pause_ms(retry_after, date) == pause_ms


@given(st.text(), st.text())
def test_any_text_is_read_as_a_pause(retry_after: str, date: str) -> None:
    assert 0 <= asked_pause_ms(retry_after, date) <= MOST_PAUSE_MS
