"""The audit log: what is counted instead of kept one by one, how large an event may be, and places in the log.

Invariant of this file: how many rows there are, and how large they are, is never for a client to choose who has no
rights. Such a client can only cause events whose action is one of `REPEATABLE`. They become one row for each window and
each value of action, actor, target and metadata, and all of these are verified, or chosen by us.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from tidegate.domain.identifiers import MAX_IDENTIFIER
from tidegate.errors import InvalidInput

#: Beginnings of actions that somebody without rights can repeat at will, or that change nothing.
REPEATABLE = ("auth.", "datasource.session_token.", "datasource.previewed")
#: How long such events are counted in one row, milliseconds. A window begins at a multiple of it since the epoch.
WINDOW_MS = 300_000
#: How long events are kept, seconds: 400 days.
LIFE_S = 400 * 86_400
#: The target of an event whose target nobody verified.
UNKNOWN = "unknown"

#: Most characters of an action, of a key of metadata, and of a text in metadata.
MAX_ACTION, MAX_KEY, MAX_TEXT = 64, 64, 300
#: Most bytes of metadata as JSON. That of a counted event is small, so that its row stays below 1 KiB.
MAX_METADATA, MAX_COUNTED_METADATA = 4096, 256
#: Stands in metadata of which something was left out.
CUT = "cut"

#: How far the clocks of two machines may differ, milliseconds.
_SKEW_MS = 60_000
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,3})?Z")
_CURSOR = re.compile(r"[0-9]{13}\.[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """Who did what, to what, and when.

    Attributes:
        action: such as `dashboard.created`.
        actor_id: user id of who did it; None for who is not signed in.
        target_type, target_id: what it was done to. The id is None when the caller only said it, and nobody looked
            whether there is such a thing.
        at_ms: epoch milliseconds.
        metadata: never a secret. Of an event that is counted, every value is verified or chosen by us.
    """

    action: str
    actor_id: str | None
    target_type: str
    target_id: str | None
    at_ms: int
    metadata: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AuditRow:
    """A row of the log: an event, or how often the same was counted in one window.

    `event.at_ms` is where the row stands in the log: of counted events the begin of their window. `first_ms` and
    `last_ms` are when the first and the last one was, epoch milliseconds.
    """

    event: AuditEvent
    count: int
    first_ms: int
    last_ms: int


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """Which rows are asked for.

    Attributes:
        limit: most rows that are read for a page.
        from_ms, to_ms: from this moment on, and before that one, epoch milliseconds.
        before: the place that the last page ended at; only older rows are wanted. None for the first page.
        action, actor_id, target_id: rows with just this value; None for any.
    """

    limit: int
    from_ms: int
    to_ms: int
    before: str | None = None
    action: str | None = None
    actor_id: str | None = None
    target_id: str | None = None

    @property
    def key(self) -> tuple[str, str] | None:
        """Name and value of the filter that rows are found by. A target has the fewest rows, an action the most."""
        named = (("target_id", self.target_id), ("actor_id", self.actor_id), ("action", self.action))
        return next(((name, value) for name, value in named if value is not None), None)

    @property
    def bounds(self) -> tuple[str, str]:
        """The lowest and the highest place. The highest is `before` itself, or such that no row has it."""
        low, high = f"{self.from_ms:013d}", f"{self.to_ms:013d}"
        return low, high if self.before is None else min(high, self.before)

    def wants(self, event: AuditEvent) -> bool:
        """Whether the event passes all filters but those of time."""
        return (
            self.action in (None, event.action)
            and self.actor_id in (None, event.actor_id)
            and self.target_id in (None, event.target_id)
        )


def is_counted(event: AuditEvent) -> bool:
    """Whether the event is counted, and has no row of its own."""
    return event.action.startswith(REPEATABLE)


def window_begin(at_ms: int) -> int:
    """The begin of the window, epoch milliseconds. A window never reaches into another month."""
    return at_ms - at_ms % WINDOW_MS


def identity(event: AuditEvent) -> str:
    """What events of one row have in common, as a text of 32 characters."""
    parts = [event.action, event.actor_id, event.target_type, event.target_id, event.metadata]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def bounded(event: AuditEvent) -> AuditEvent:
    """The event, as much of it as may be stored. Where metadata lacks something, it says so under `CUT`."""
    most = MAX_COUNTED_METADATA if is_counted(event) else MAX_METADATA
    return replace(
        event,
        action=_cut(event.action, MAX_ACTION),
        actor_id=_cut(event.actor_id, MAX_IDENTIFIER) if event.actor_id else None,
        target_type=_cut(event.target_type, MAX_KEY),
        target_id=_cut(event.target_id, MAX_IDENTIFIER) if event.target_id else UNKNOWN,
        metadata=_bounded_metadata(event.metadata, most),
    )


def place(at_ms: int, row_id: str) -> str:
    """Where a row stands in the log. Places are in the order of time, and no two rows have the same."""
    return f"{at_ms:013d}#{row_id}"


def place_ms(place_or_bound: str) -> int:
    """The moment of a place, epoch milliseconds."""
    return int(place_or_bound[:13])


def cursor_of(row_place: str) -> str:
    """A place as clients get it. It needs no escape in a URL."""
    return row_place.replace("#", ".")


def place_of(cursor: str) -> str:
    """The place of a cursor. Raises `InvalidInput` for what is no cursor."""
    if not _CURSOR.fullmatch(cursor):
        raise InvalidInput("cursor: take it from the last answer as it is")
    return cursor.replace(".", "#")


def moment_ms(text: str, name: str) -> int:
    """A moment in epoch milliseconds, from the form that answers have. Raises `InvalidInput` that names `name`."""
    try:
        if _MOMENT.fullmatch(text):
            return int(datetime.fromisoformat(text).timestamp() * 1000)
    except ValueError:
        pass  # a day that no calendar has
    raise InvalidInput(f"{name} must be a moment such as 2026-01-02T03:04:05.678Z")


def span(from_ms: int | None, to_ms: int | None, now_ms: int) -> tuple[int, int]:
    """The part of the wanted time that events are kept of. Raises `InvalidInput` when nothing is between the two."""
    if from_ms is not None and to_ms is not None and from_ms >= to_ms:
        raise InvalidInput("from must be before to")
    oldest, newest = now_ms - LIFE_S * 1000, now_ms + _SKEW_MS
    return max(from_ms or oldest, oldest), newest if to_ms is None else min(to_ms, newest)


def month_of(at_ms: int) -> str:
    """The month, such as `2026-01`, UTC."""
    return datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y-%m")


def months(from_ms: int, to_ms: int) -> Iterator[str]:
    """Every month from one moment to the other, the newest first."""
    first, last = (datetime.fromtimestamp(at_ms // 1000, UTC) for at_ms in (from_ms, to_ms))
    for number in range(last.year * 12 + last.month - 1, first.year * 12 + first.month - 2, -1):
        yield f"{number // 12:04d}-{number % 12 + 1:02d}"


def _cut(text: str, most: int) -> str:
    """At most so many characters. What cannot be sent, such as a lone surrogate, becomes a question mark."""
    clean = text.encode("utf-8", "replace").decode()
    return clean if len(clean) <= most else clean[: most - 1] + "…"


def _bounded_metadata(metadata: Mapping[str, object], most: int) -> Mapping[str, object]:
    kept: dict[str, object] = {}
    whole = True

    def fits(key: str, value: object) -> bool:
        return _size(kept | {key: value, CUT: True}) <= most

    for name, value in metadata.items():
        key = _cut(name, MAX_KEY)
        if isinstance(value, list | tuple):
            items: list[object] = []
            for item in value:
                short = _short(item)
                if not fits(key, [*items, short]):
                    break
                items.append(short)
                whole = whole and short == item
            whole = whole and len(items) == len(value)
            kept |= {key: items} if fits(key, items) else {}
        elif fits(key, short := _short(value)):
            whole = whole and short == value and key == name
            kept[key] = short
        else:
            whole = False
    return kept if whole else kept | {CUT: True}


def _short(value: object) -> object:
    """A value of metadata. What is neither a text nor a number becomes its JSON text."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and abs(value) < 2**63:
        return value
    return _cut(value if isinstance(value, str) else json.dumps(value, default=str), MAX_TEXT)


def _size(metadata: Mapping[str, object]) -> int:
    return len(as_text(metadata))


def as_text(metadata: Mapping[str, object]) -> str:
    """Metadata as it is stored: ASCII."""
    return json.dumps(metadata, separators=(",", ":"))
