"""The history table: points of streams.

The bridge has an item for each bucket, because its calls know nothing of each other. The relay is the only one that
writes its series, and writes the buckets of some seconds as one item.

Invariant of this file: whatever is written twice, late, or in another order, the points that are read are the same.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterator, Sequence

from tidegate.adapters.dynamodb.client import ConditionFailed, DynamoDb, Item
from tidegate.domain.history import Point, merged
from tidegate.errors import Unavailable
from tidegate.ports.history import Group, HistoryStore, Series

#: How often a write is tried that others may be ahead of.
_ROUNDS = 4
#: Series of which a process remembers the numbers of the bucket it wrote last.
_REMEMBERED = 1000
#: A last value that is too large to be kept. No JSON text is empty.
_TOO_LARGE = ""


class DynamoHistory(HistoryStore):
    """Points of series.

    The partition is a hash of the stream's key and the topic. The sort key is a time, 15 digits of milliseconds.
    """

    def __init__(self, db: DynamoDb, table: str) -> None:
        self._db = db
        self._table = table
        #: series -> the point of its bucket, as this process saw it last
        self._seen: OrderedDict[str, Point] = OrderedDict()

    def add(self, series: Series, point: Point, expires_at: int) -> None:
        """One write as a rule: the guess is that nobody else has written since this process did."""
        key = {"series": _series(series), "start": _start(point.start_ms)}
        seen = self._seen.get(key["series"])
        if seen is not None and seen.start_ms != point.start_ms:
            seen = None
        update, condition, values = _guess(point, seen)
        values |= {"last": _last(point), "seq": point.seq, "ttl": expires_at}
        try:
            self._db.update(self._table, key, f"SET #last = :last, #seq = :seq, #ttl = :ttl{update}", condition, values)
            self._remember(key["series"], point if seen is None else merged(seen, point))
            return
        except ConditionFailed as failed:
            there = failed.item
        for _ in range(_ROUNDS):
            if there is None:  # it has expired meanwhile: so has the value
                return
            stored = _stored(there)
            wanted = merged(stored, point)
            self._remember(key["series"], wanted)
            if wanted == stored:
                return
            try:
                self._replace(key, stored, wanted, expires_at)
                return
            except ConditionFailed as failed:
                there = failed.item
        raise Unavailable("A bucket is being written by too many", code="store_busy")

    def _replace(self, key: Item, stored: Point, wanted: Point, expires_at: int) -> None:
        """Write a point in the place of the one that was read. Raises `ConditionFailed` when it has changed."""
        update = "SET #last = :last, #seq = :seq, #ttl = :ttl"
        values: Item = {"last": _last(wanted), "seq": wanted.seq, "ttl": expires_at, "was": stored.seq}
        unchanged = "#seq = :was"
        if wanted.least is not None:
            update += ", #least = :least, #most = :most"
            values |= {"least": wanted.least, "most": wanted.most}
        if stored.least is None:
            unchanged += " AND attribute_not_exists(#least)"
        else:
            unchanged += " AND #least = :was_least AND #most = :was_most"
            values |= {"was_least": stored.least, "was_most": stored.most}
        self._db.update(self._table, key, update, unchanged, values)

    def _remember(self, series: str, point: Point) -> None:
        self._seen[series] = point
        self._seen.move_to_end(series)
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)

    def write(self, groups: Sequence[Group]) -> None:
        self._db.put_many(self._table, [_item(group) for group in groups])

    def read(self, series: Series, from_ms: int, to_ms: int, *, consistent: bool = False) -> Iterator[Point]:
        items = self._db.query(
            self._table,
            "#series = :series AND #start BETWEEN :from AND :to",
            {"series": _series(series), "from": _start(from_ms), "to": _start(to_ms)},
            descending=True,
            consistent=consistent,
        )
        for item in items:
            if "points" in item:
                yield from (Point(*each) for each in reversed(json.loads(item["points"])))
            else:
                yield _stored(item)


def _guess(point: Point, seen: Point | None) -> tuple[str, str, Item]:
    """What to write besides the last value, if nobody else has written since `seen`, and the condition for that.

    The condition is exact: where it holds, the outcome is right, whatever was seen.
    """
    number = point.least
    if number is None:
        return "", "attribute_not_exists(#seq) OR #seq < :seq", {}
    values: Item = {"number": number}
    if seen is not None and seen.most is not None and number > seen.most:
        return ", #most = :number", "#seq < :seq AND #most <= :number", values
    if seen is not None and seen.least is not None and number < seen.least:
        return ", #least = :number", "#seq < :seq AND #least >= :number", values
    within = "attribute_not_exists(#least) OR (#least <= :number AND #most >= :number)"
    update = ", #least = if_not_exists(#least, :number), #most = if_not_exists(#most, :number)"
    return update, f"attribute_not_exists(#seq) OR (#seq < :seq AND ({within}))", values


def _series(series: Series) -> str:
    """The partition of a series: a hash, because a topic may be long, and every item has it."""
    topic = "#" if series.topic is None else series.topic  # no topic has this name, because it is a wildcard
    digest = hashlib.sha256(f"{series.stream_key}\0{topic}".encode("utf-8", "surrogatepass")).digest()
    return base64.urlsafe_b64encode(digest[:18]).decode()


def _start(at_ms: int) -> str:
    return f"{max(0, at_ms):015d}"


def _last(point: Point) -> str:
    return _TOO_LARGE if point.last is None else point.last


def _item(group: Group) -> Item:
    points = [[each.start_ms, each.seq, each.last, each.least, each.most] for each in group.points]
    return {
        "series": _series(group.series),
        "start": _start(group.first_ms),
        "points": json.dumps(points, separators=(",", ":"), ensure_ascii=False),
        "ttl": group.expires_at,
    }


def _stored(item: Item) -> Point:
    last = item["last"]
    return Point(
        start_ms=int(item["start"]),
        seq=item["seq"],
        last=None if last == _TOO_LARGE else last,
        least=item.get("least"),
        most=item.get("most"),
    )
