"""The streams and last-values tables. Invariants of this file: `wanted_at` only moves forward, an existing shard
count is never changed by a subscriber, and a last value is only ever replaced by a newer one."""

from __future__ import annotations

from collections.abc import Sequence

from tidegate.adapters.dynamodb.client import ConditionFailed, DynamoDb, Item
from tidegate.domain.subscriptions import LastValue, Stream

#: Subscriptions end within two hours; a day later nobody can be on a stream that nobody subscribed to since.
STREAM_LIFE_S = 86_400
#: A value a week old is no longer news to whoever subscribes.
VALUE_LIFE_S = 7 * 86_400


class DynamoStreams:
    """`ports.StreamStore`."""

    def __init__(self, db: DynamoDb, table: str) -> None:
        self._db = db
        self._table = table

    def want(self, stream: Stream) -> Stream:
        values: Item = {
            "wanted": stream.wanted_at,
            "ttl": stream.wanted_at + STREAM_LIFE_S,
            "protocol": stream.protocol,
            "parser": stream.parser,
            "shards": stream.shards,
        }
        update = (
            "SET #wanted_at = :wanted, #ttl = :ttl, #protocol = :protocol, #parser = :parser, "
            "#shards = if_not_exists(#shards, :shards)"
        )
        if stream.entry is not None:
            values |= {"entry": stream.entry, "topic_filter": stream.topic_filter}
            update += ", #entry = :entry, #topic_filter = :topic_filter"
        try:
            item = self._db.update(
                self._table,
                {"stream_key": stream.stream_key},
                update,
                "attribute_not_exists(#wanted_at) OR #wanted_at <= :wanted",
                values,
                returning=True,
            )
        except ConditionFailed:
            item = self._db.get(self._table, {"stream_key": stream.stream_key}) or {}
        return _stream(item) if item else stream

    def of_entry(self, entry: str) -> Sequence[Stream]:
        return [
            _stream(item) for item in self._db.query(self._table, "#entry = :entry", {"entry": entry}, index="by_entry")
        ]


class DynamoLastValues:
    """`ports.LastValueStore`."""

    def __init__(self, db: DynamoDb, table: str) -> None:
        self._db = db
        self._table = table

    def get(self, stream_key: str) -> LastValue | None:
        item = self._db.get(self._table, {"stream_key": stream_key})
        return LastValue(item["payload"], item["timestamp_ms"], item["message_id"]) if item else None

    def put_if_newer(self, stream_key: str, value: LastValue) -> bool:
        try:
            self._db.put(
                self._table,
                {
                    "stream_key": stream_key,
                    "payload": value.payload,
                    "timestamp_ms": value.timestamp_ms,
                    "message_id": value.message_id,
                    "ttl": value.timestamp_ms // 1000 + VALUE_LIFE_S,
                },
                "attribute_not_exists(#stream_key) OR #timestamp_ms < :at "
                "OR (#timestamp_ms = :at AND #message_id <= :id)",
                {"at": value.timestamp_ms, "id": value.message_id},
            )
        except ConditionFailed:
            return False
        return True


def _stream(item: Item) -> Stream:
    return Stream(
        stream_key=item["stream_key"],
        protocol=item["protocol"],
        parser=item["parser"],
        entry=item.get("entry"),
        topic_filter=item.get("topic_filter"),
        shards=item["shards"],
        wanted_at=item["wanted_at"],
    )
