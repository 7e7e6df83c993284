"""The short history of a stream: what a datasource may ask for, and the points that are kept.

A *point* stands for the values of a *bucket*, a span of time: the least, the most and the last of them. Two points of
one bucket can be put together, in any order and as often as one likes, with the same outcome. So a repeated message, or
two writers, do no harm.

Invariant of this file: `merged` is commutative, associative and idempotent.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tidegate.protocol.messages import timestamp

#: The longest history, seconds, and the most points of a series.
MOST_SECONDS, MOST_POINTS = 7200, 2000
#: The shortest bucket, milliseconds. With it, a series has at most 7,200 stored points, whatever others ask for.
LEAST_EVERY_MS = 1000
#: A value is asked for so long after the last subscribe to a datasource with a history, seconds: as long as its stream
#: is kept.
ASKED_S = 86_400
#: The largest value that a point keeps, bytes of JSON. With it a stored point stays below 1 KB: one write unit.
MOST_VALUE_BYTES = 512
#: Numbers that DynamoDB can hold: from 1E-130 to 9.9E+125, and 0.
_LEAST_NUMBER, _MOST_NUMBER = 1e-130, 9.9e125


@dataclass(frozen=True, slots=True)
class History:
    """What is kept of a stream, or what a datasource asks for.

    Attributes:
        seconds: how long a point is kept.
        every_ms: length of a bucket, milliseconds.
        until: until when values are kept, epoch seconds.
        since: from when on all that is as old as `seconds` at most is there, epoch seconds.
    """

    seconds: int
    every_ms: int
    until: int = 0
    since: int = 0

    def covers(self, asked: History) -> bool:
        """Whether it keeps enough for what is asked."""
        return self.seconds >= asked.seconds and self.every_ms <= asked.every_ms

    def along_with(self, asked: History) -> History:
        """The longer and the finer of both. So the datasources of a stream share one history."""
        since = self.since
        if asked.seconds > self.seconds:  # what is older than before is gone already
            since = max(since, asked.since - self.seconds)
        return History(
            max(self.seconds, asked.seconds), min(self.every_ms, asked.every_ms), max(self.until, asked.until), since
        )


def problem(raw: Any) -> tuple[str, str] | None:
    """What is wrong with a datasource's `history`: (path within it, what is allowed). None when it is as it must be."""
    if not isinstance(raw, dict) or raw.keys() != {"seconds", "everyMs"}:
        return "", "an object with seconds and everyMs"
    seconds, every_ms = raw["seconds"], raw["everyMs"]
    if type(seconds) is not int or not 1 <= seconds <= MOST_SECONDS:
        return ".seconds", f"1 to {MOST_SECONDS}"
    if type(every_ms) is not int or not LEAST_EVERY_MS <= every_ms <= seconds * 1000:
        return ".everyMs", f"{LEAST_EVERY_MS} milliseconds, up to the seconds"
    if seconds * 1000 > MOST_POINTS * every_ms:
        return "", f"at most {MOST_POINTS} points: seconds * 1000 / everyMs"
    return None


@dataclass(frozen=True, slots=True)
class Point:
    """The values of a bucket, or of a part of it.

    Attributes:
        start_ms: when the bucket begins, epoch milliseconds.
        seq: of the last value: see `LastValue.seq`. It orders points, as text.
        last: the last value, JSON text; None when it is larger than `MOST_VALUE_BYTES`.
        least, most: of the values that are numbers; None when none is.
    """

    start_ms: int
    seq: str
    last: str | None
    least: float | None = None
    most: float | None = None

    @property
    def last_ms(self) -> int:
        """When the last value was, epoch milliseconds."""
        return ms_of(self.seq)

    def encode(self) -> str:
        """As JSON text, for clients. The last value has the digits that the source wrote."""
        told: dict[str, object] = {"at": timestamp(self.start_ms / 1000)}
        if self.least is not None:
            told |= {"least": self.least, "most": self.most}
        text = json.dumps(told, separators=(",", ":"))[:-1]
        last = "" if self.last is None else f',"last":{self.last}'
        return f'{text}{last},"seq":{json.dumps(self.seq)}}}'


@dataclass(frozen=True, slots=True)
class Recovering:
    """What a viewer who was away is still to be sent.

    Attributes:
        seconds, every_ms: what the datasource asks for.
        since: the `seq` of the newest value that the viewer had.
        sent: topic, or `""`, to the `seq` of the newest point that the viewer was sent.
        marks: topic, or `""`, to the `seq` of its newest value when the first catch-up looked. Until the history has
            them, another one looks. What is newer is sent live.
        recovered: whether nothing is known to be missing.
        looks: how often a catch-up has looked for the rest.
    """

    seconds: int
    every_ms: int
    since: str
    sent: Mapping[str, str] = field(default_factory=dict)
    marks: Mapping[str, str] = field(default_factory=dict)
    recovered: bool = True
    looks: int = 0


def ms_of(seq: str) -> int:
    """The milliseconds that a `seq` begins with. Raises `ValueError` when it is none."""
    head = seq.partition("-")[0]
    if len(head) != 15 or not head.isascii() or not head.isdecimal():
        raise ValueError("not a seq")
    return int(head)


def point_of(payload: str, at_ms: int, seq: str, every_ms: int) -> Point:
    """The point of one value. `at_ms`: epoch milliseconds. `every_ms`: length of the bucket."""
    number = _number(payload)
    fits = len(payload) <= MOST_VALUE_BYTES and len(payload.encode("utf-8", "surrogatepass")) <= MOST_VALUE_BYTES
    return Point(at_ms - at_ms % every_ms, seq, payload if fits else None, number, number)


def merged(one: Point, other: Point) -> Point:
    """Both as one. `start_ms` is that of the earlier."""
    # Of two values with one place in the order, which no source should have, the choice is the same for everybody.
    newest = max(one, other, key=lambda point: (point.seq, point.last is not None, point.last or ""))
    least = [point.least for point in (one, other) if point.least is not None]
    most = [point.most for point in (one, other) if point.most is not None]
    return replace(
        newest,
        start_ms=min(one.start_ms, other.start_ms),
        least=min(least, default=None),
        most=max(most, default=None),
    )


def newest_points(
    pieces: Iterable[Point], every_ms: int, *, before_ms: int | None = None, most_bytes: int | None = None
) -> tuple[list[Point], int | None]:
    """Put pieces together to points of buckets of `every_ms`.

    Args:
        pieces: of the same buckets or finer ones. Once a piece of an older bucket has come, no newer bucket has more.
        before_ms: only buckets that begin before this, epoch milliseconds; a multiple of `every_ms`.
        most_bytes: about how large the points may be as text, all together. One point may be larger.

    Returns:
        At most `MOST_POINTS`, the newest first; and the `before_ms` that brings those before, None when there are none.
    """
    found: dict[int, Point] = {}
    size = 0
    for piece in pieces:
        start_ms = piece.start_ms - piece.start_ms % every_ms
        if before_ms is not None and start_ms >= before_ms:
            continue
        there = found.get(start_ms)
        if there is None:
            size += 100 + len(piece.last or "")
            if len(found) == MOST_POINTS or (most_bytes is not None and found and size > most_bytes):
                break
        found[start_ms] = replace(merged(there or piece, piece), start_ms=start_ms)
    else:
        return [found[start_ms] for start_ms in sorted(found, reverse=True)], None
    return [found[start_ms] for start_ms in sorted(found, reverse=True)], min(found)


def of_intent(intent: Mapping[str, object]) -> History | None:
    """The history that an intent asks for; None when it asks for none."""
    seconds, every_ms = intent.get("historySeconds"), intent.get("historyEveryMs")
    return History(int(str(seconds)), int(str(every_ms))) if seconds is not None else None


def _number(payload: str) -> float | None:
    """The value as a number that is compared and stored; None when it is none."""
    text = payload.strip()
    if not text or text[0] not in "-0123456789":
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    if not math.isfinite(number) or (number != 0 and not _LEAST_NUMBER <= abs(number) <= _MOST_NUMBER):
        return None
    return int(number) if number.is_integer() and abs(number) < 2**53 else number
