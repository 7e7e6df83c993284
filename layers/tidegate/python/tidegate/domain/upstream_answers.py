"""What a server declares in the headers of its answer, and what of an earlier one may be sent back to it.

Invariant of this file: whatever a source sends, the next request can be made.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from tidegate.domain.headers import check_value
from tidegate.errors import InvalidInput

#: Most bytes of an event id that is sent back. Hardly any server takes a longer header.
MOST_ID_BYTES = 16_384
#: A longer pause than this is taken as this: one day, in milliseconds.
MOST_PAUSE_MS = 86_400_000
_MOST_DIGITS = 6


def sendable_id(event_id: str) -> str:
    """The event id, if it can be the value of a header; otherwise an empty text, which stands for none."""
    try:
        check_value(event_id, "id")
    except InvalidInput:
        return ""
    return event_id if len(event_id.encode()) <= MOST_ID_BYTES else ""


def is_event_stream(content_type: str) -> bool:
    """Whether a `Content-Type` is `text/event-stream`, in any case and with any parameters."""
    return content_type.partition(";")[0].strip().lower() == "text/event-stream"


def switches_to_websocket(connection: Iterable[str]) -> bool:
    """Whether one of the `Connection` headers names the upgrade, be it alone or among others (RFC 6455, 4.1)."""
    return any(option.strip().lower() == "upgrade" for value in connection for option in value.split(","))


def asked_pause_ms(retry_after: str, date: str) -> int:
    """The pause that `Retry-After` asks for, milliseconds; 0 when it is absent or cannot be read (RFC 9110, 10.2.3).

    Args:
        retry_after: seconds, or a date.
        date: the answer's `Date`. A date is read against it, because the clock of the source may be wrong.
    """
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        # Decided by length first, because `int` refuses thousands of digits.
        seconds = text.lstrip("0") or "0"
        return MOST_PAUSE_MS if len(seconds) > _MOST_DIGITS else min(int(seconds) * 1000, MOST_PAUSE_MS)
    until, now = _date(text), _date(date)
    if until is None or now is None:
        return 0
    return min(max(0, int((until - now).total_seconds() * 1000)), MOST_PAUSE_MS)


def _date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
