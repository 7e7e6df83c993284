"""The streams and last-values tables.

Invariants of this file: `last_requested_at` only moves forward. A last value is only replaced by a newer one.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from tidegate.adapters.dynamodb.client import ConditionFailed, DynamoDb, Item
from tidegate.domain.crowds import COUNTED_S
from tidegate.domain.subscriptions import MOST_TOPICS, Fault, LastValue, Stream
from tidegate.errors import Unavailable
from tidegate.ports.gateway import (
    CARRIES_MS,
    SETTLE_S,
    WAITS_MS,
    Admission,
    LastValueStore,
    SourceStreams,
    StreamStore,
    Verdict,
)
from tidegate.tables import RELAY_STREAMS

if TYPE_CHECKING:
    from tidegate.domain.history import History

#: How long a stream is kept after its last subscribe, seconds. Subscriptions end within two hours, so after a day it
#: has none.
STREAM_LIFE_S = 86_400
#: How long a last value is kept, seconds: a week. An older value is of no interest to a new subscriber.
VALUE_LIFE_S = 7 * 86_400


#: Sort key of a source's version.
_VERSION = "!version"
_TOUCH = "SET #last_requested_at = :requested, #ttl = :ttl"
_TOUCHED = "attribute_exists(#registered) AND #last_requested_at <= :requested"
#: Copies of an allowed topic's version. It is read, strongly consistent, for every device message, and DynamoDB serves
#: 3,000 such reads a second of a partition. Four are more than the 10,000 messages a second that API Gateway sends.
VERSION_COPIES = 4


class DynamoStreams(StreamStore):
    """Streams by source.

    The table's partition `rule#<allowed topic>` has the streams that an IoT rule feeds, and the first copy of their
    version. Partitions `copy<number>#rule#<allowed topic>` have the other copies. Partition `relay` has the streams of
    the relay and their version. Partition `lease` belongs to `relay_leases` alone.
    """

    def __init__(self, db: DynamoDb, table: str, copy: int | None = None) -> None:
        """`copy`: which copy of a version this process reads. None takes one at random."""
        self._db = db
        self._table = table
        self.copy = random.randrange(VERSION_COPIES) if copy is None else copy

    def touch(self, stream: Stream) -> Stream:
        key = {"source": _source(stream.allowed_topic), "stream_key": stream.stream_key}
        touched = {"requested": stream.last_requested_at, "ttl": stream.last_requested_at + STREAM_LIFE_S}
        update, condition = _TOUCH, f"{_TOUCHED} AND #counted_from > :began"
        values: Item = {**touched, "one": 1, "began": stream.last_requested_at - COUNTED_S}
        if stream.history is not None:  # in the same write, unless more is asked for than before
            update += ", #history_until = :until"
            condition += " AND #history_until > :requested"
            condition += " AND #history_seconds >= :seconds AND #history_every_ms <= :every"
            values |= _asked(stream.history)
        try:
            update += " ADD #subscribes :one"
            item = self._db.update(self._table, key, update, condition, values, returning=True)
        except ConditionFailed as failed:
            known = failed.item or {}
            if "registered" not in known:
                return _stream(self._with_history(key, stream, self._register(key, stream, touched)))
            item = self._with_history(key, stream, self._touched(key, touched, known))
        if stream.allowed_topic is None and not item.get("connected"):
            self._move(key["source"])
        return _stream(item)

    def _touched(self, key: Item, touched: Item, known: Item) -> Item:
        """Touch a stream whose history is looked at later, and begin another count of subscribes where one is over."""
        anew = known.get("counted_from", 0) <= touched["requested"] - COUNTED_S
        counts = ", #counted_from = :requested, #subscribes = :one" if anew else " ADD #subscribes :one"
        values = {**touched, "one": 1}
        try:
            return self._db.update(self._table, key, f"{_TOUCH}{counts}", _TOUCHED, values, returning=True)
        except ConditionFailed as failed:
            return failed.item or known  # it was requested later

    def _with_history(self, key: Item, stream: Stream, item: Item) -> Item:
        return item if stream.history is None else self._keep(key, stream, stream.history, item)

    def _register(self, key: Item, stream: Stream, touched: Item) -> Item:
        """Write the stream, then move every copy of the version, then note that all is done. If this process dies in
        between, the note is missing, and the next subscriber does all of it again."""
        fields: Item = {"protocol": stream.protocol, "parser": stream.parser}
        update = "SET #last_requested_at = :requested, #ttl = :ttl, #protocol = :protocol, #parser = :parser"
        update += ", #counted_from = :requested, #subscribes = :one"
        fields["one"] = 1
        if stream.allowed_topic is not None:
            fields |= {"allowed_topic": stream.allowed_topic, "topic_filter": stream.topic_filter}
            update += ", #allowed_topic = :allowed_topic, #topic_filter = :topic_filter"
        if stream.intent is not None:
            fields |= {"intent": json.dumps(dict(stream.intent))}
            update += ", #intent = :intent"
        self._db.update(self._table, key, update, values=touched | fields)
        self._move(key["source"])
        return self._db.update(self._table, key, "SET #registered = :yes", values={"yes": True}, returning=True)

    def _keep(self, key: Item, stream: Stream, asked: History, known: Item) -> Item:
        """Note the history that is asked for, together with what others have asked for, and move the version.

        A process that dies in between leaves a version that has not moved. Then the bridge and the relay see the note
        within a minute, when they read the streams anyway.
        """
        for _ in range(_ROUNDS):
            there = _history(known)
            lasts = there is not None and there.until > stream.last_requested_at
            if there is not None and lasts and there.covers(asked) and there.until >= asked.until:
                return known
            wanted = there.along_with(asked) if there is not None and lasts else asked
            values: Item = {**_asked(wanted), "since": wanted.since}
            unchanged = "attribute_not_exists(#history_until)"
            if there is not None:
                values |= {"was_until": there.until, "was_seconds": there.seconds, "was_every": there.every_ms}
                unchanged = "#history_until = :was_until AND #history_seconds = :was_seconds"
                unchanged += " AND #history_every_ms = :was_every"
            update = "SET #history_until = :until, #history_seconds = :seconds, #history_every_ms = :every"
            update += ", #history_since = :since"
            condition = f"attribute_exists(#registered) AND {unchanged}"
            try:
                item = self._db.update(self._table, key, update, condition, values, returning=True)
            except ConditionFailed as failed:
                known = failed.item or {}
                continue
            self._move(key["source"])
            return item
        raise Unavailable("The history of a stream could not be noted", code="store_busy")

    def _move(self, source: str) -> None:
        for copy in range(_copies(source)):
            self._db.update(self._table, _version_key(source, copy), "ADD #version :one", values={"one": 1})

    def note_crowd(self, stream: Stream, until: int) -> None:
        key = {"source": _source(stream.allowed_topic), "stream_key": stream.stream_key}
        with suppress(ConditionFailed):
            self._db.update(
                self._table, key, "SET #crowd_until = :until", "attribute_exists(#stream_key)", {"until": until}
            )

    def relayed(self, stream_key: str) -> Stream | None:
        item = self._db.get(self._table, {"source": _source(None), "stream_key": stream_key})
        return _stream(item) if item and "registered" in item else None

    def all_relayed(self, most: int, deadline: float) -> Sequence[Stream]:
        """The relay's streams, at most so many. `deadline` is in monotonic seconds."""
        found = self._db.query(
            self._table,
            "#source = :source",
            {"source": RELAY_STREAMS},
            limit=most + 1,
            consistent=False,
            deadline=deadline,
        )
        return [_stream(item) for item in found if item["stream_key"] != _VERSION][:most]

    def note_status(
        self, stream: Stream, connected: bool, fault: Fault | None = None, *, at: int | None = None
    ) -> bool:
        key = {"source": _source(None), "stream_key": stream.stream_key}
        values: Item = {"connected": connected, "one": 1}
        update, differs = "SET #connected = :connected", "attribute_not_exists(#connected) OR #connected <> :connected"
        if connected and at is not None:
            values |= {"at": at}
            update += ", #connected_at = :at"
        if fault is None:
            update += " REMOVE #fault_code, #fault_text"
            differs += " OR attribute_exists(#fault_code)"
        else:
            values |= {"code": fault.code, "text": fault.text}
            update += ", #fault_code = :code, #fault_text = :text"
            differs += " OR attribute_not_exists(#fault_code) OR #fault_code <> :code OR #fault_text <> :text"
        try:
            self._db.update(
                self._table,
                key,
                f"{update} ADD #status_number :one",
                f"attribute_exists(#stream_key) AND ({differs})",
                values,
            )
        except ConditionFailed:
            return False
        return True

    def release_if_idle(self, stream: Stream) -> bool:
        key = {"source": _source(None), "stream_key": stream.stream_key}
        values = {"no": False, "requested": stream.last_requested_at, "one": 1}
        update = "SET #connected = :no REMOVE #fault_code, #fault_text ADD #status_number :one"
        try:
            self._db.update(self._table, key, update, "#last_requested_at = :requested", values)
        except ConditionFailed:
            return False
        return True

    def version_of(self, allowed_topic: str | None) -> int:
        source = _source(allowed_topic)
        item = self._db.get(self._table, _version_key(source, self.copy % _copies(source)))
        return int(item["version"]) if item else 0

    def of_source(self, allowed_topic: str | None) -> SourceStreams:
        version = self.version_of(allowed_topic)  # first: then the streams are at least as new
        items = self._db.query(self._table, "#source = :source", {"source": _source(allowed_topic)})
        return SourceStreams(version, [_stream(item) for item in items if item["stream_key"] != _VERSION])


def _asked(history: History) -> Item:
    return {"until": history.until, "seconds": history.seconds, "every": history.every_ms}


def _history(item: Item) -> History | None:
    """What is kept of a stream; None when nobody has asked for any."""
    if "history_until" not in item:
        return None
    from tidegate.domain.history import History  # here, because few streams have one and it slows cold starts

    return History(item["history_seconds"], item["history_every_ms"], item["history_until"], item["history_since"])


def _source(allowed_topic: str | None) -> str:
    return RELAY_STREAMS if allowed_topic is None else f"rule#{allowed_topic}"


def _copies(source: str) -> int:
    """How many copies the version of a source has. A worker of the relay reads its version once a second."""
    return 1 if source == RELAY_STREAMS else VERSION_COPIES


def _version_key(source: str, copy: int) -> Item:
    return {"source": f"copy{copy}#{source}" if copy else source, "stream_key": _VERSION}


class DynamoLastValues(LastValueStore):
    """The newest value of each stream, or of each topic of a stream that has many."""

    def __init__(self, db: DynamoDb, table: str) -> None:
        self._db = db
        self._table = table

    def get(self, stream_key: str, topic: str | None = None, shard: int | None = None) -> LastValue | None:
        item = self._db.get(self._table, _value_key(stream_key, topic))
        return _value(item, shard) if item else None

    def newest(self, stream_key: str) -> Sequence[LastValue]:
        return self._of(stream_key)[:MOST_TOPICS]

    def put_if_newer(self, stream_key: str, value: LastValue) -> bool:
        """An update, because a put would forget what was noted."""
        key, update, values = self._written(stream_key, value)
        return self._did(key, update, _NEWER, **values)

    def _written(self, stream_key: str, value: LastValue) -> tuple[Item, str, Item]:
        """The key, and what an update sets."""
        key = _value_key(stream_key, value.topic)
        update = "SET #payload = :payload, #timestamp_ms = :at, #message_id = :id, #deleted = :deleted, #ttl = :ttl"
        ttl = value.timestamp_ms // 1000 + VALUE_LIFE_S
        values = {"payload": value.payload, **_order(value), "deleted": value.deleted, "ttl": ttl}
        if value.topic in (None, key["topic"]):
            return key, update, values
        return key, f"{update}, #name = :name", values | {"name": value.topic}

    def admit(self, stream_key: str, value: LastValue, now_ms: int, interval_ms: int) -> Admission:
        """One write as a rule. Two when it has to wait, or to be left to somebody who waits."""
        key, update, values = self._written(stream_key, value)
        send = (
            f"{update}, #next_ms = :next REMOVE #waits_until_ms",  # nobody needs to wait: this one is newer
            f"({_NEWER}) AND (attribute_not_exists(#next_ms) OR #next_ms <= :now)",
            values | {"now": now_ms, "next": now_ms + interval_ms},
        )
        try:
            self._db.update(self._table, key, *send)
            return Admission(Verdict.SEND)
        except ConditionFailed as failed:
            there = failed.item
        for _ in range(_ROUNDS):
            if there is None:  # it has gone meanwhile
                break
            if _order(_value(there)) == _order(value) and there["payload"] == value.payload:
                return Admission(Verdict.SEND)  # the answer was lost, or it is a repetition
            if (there["timestamp_ms"], there["message_id"]) > value.order:
                return Admission(Verdict.OUTDATED)
            try:
                return self._later(key, update, values, there, now_ms)
            except ConditionFailed as failed:
                there = failed.item
        # Others were always first. A value too many is no harm.
        return Admission(Verdict.SEND if self.put_if_newer(stream_key, value) else Verdict.OUTDATED)

    def _later(self, key: Item, update: str, values: Item, there: Item, now_ms: int) -> Admission:
        """Store a value that may not be sent yet. Raises `ConditionFailed` when that has changed meanwhile."""
        next_ms = there.get("next_ms", now_ms)
        if there.get("waits_until_ms", 0) > now_ms:
            condition = f"({_NEWER}) AND #waits_until_ms > :now"
            self._db.update(self._table, key, update, condition, values | {"now": now_ms})
            return Admission(Verdict.LEAVE)
        waits = next_ms + WAITS_MS
        self._db.update(
            self._table,
            key,
            f"{update}, #waits_until_ms = :waits",
            f"({_NEWER}) AND #next_ms = :next AND (attribute_not_exists(#waits_until_ms) OR #waits_until_ms <= :now)",
            values | {"waits": waits, "next": next_ms, "now": now_ms},
        )
        return Admission(Verdict.WAIT, next_ms)

    def claim(
        self, stream_key: str, topic: str | None, waiting: Admission, now_ms: int, interval_ms: int
    ) -> LastValue | None:
        key = _value_key(stream_key, topic)
        for _ in range(_ROUNDS):
            newest = self.get(stream_key, topic)
            if newest is None:
                return None
            try:
                self._db.update(
                    self._table,
                    key,
                    "SET #next_ms = :next REMOVE #waits_until_ms",
                    f"{_UNCHANGED} AND #waits_until_ms = :waits",
                    {**_order(newest), "next": now_ms + interval_ms, "waits": waiting.until_ms + WAITS_MS},
                )
            except ConditionFailed as failed:
                if failed.item is None or failed.item.get("waits_until_ms") != waiting.until_ms + WAITS_MS:
                    return None
            else:
                return newest
        return self.get(stream_key, topic)

    def carry(self, stream_key: str, topic: str | None, carrier: str, now_ms: int) -> LastValue | None:
        """Whoever waits loses its place by this: its value is read here."""
        until = now_ms + CARRIES_MS
        return self._kept(
            _value_key(stream_key, topic),
            "SET #carrier = :me, #carried_until_ms = :until, #next_ms = :until, #waits_until_ms = :until, "
            "#settling_until = :settling",
            "attribute_exists(#stream_key) AND "
            "(attribute_not_exists(#carrier) OR #carrier = :me OR #carried_until_ms <= :now)",
            {"me": carrier, "until": until, "now": now_ms, "settling": until // 1000 + 1},
        )

    def end_carrying(
        self, stream_key: str, topic: str | None, carrier: str, sent: LastValue, now_ms: int, interval_ms: int
    ) -> bool:
        condition, values = _unchanged(sent)
        return self._did(
            _value_key(stream_key, topic),
            f"SET #next_ms = :next REMOVE #overtaken, {_CARRIED}",
            f"{condition} AND #carrier = :me",
            **values | {"me": carrier, "next": now_ms + interval_ms},
        )

    def hand_over(self, stream_key: str, topic: str | None, carrier: str, now_ms: int) -> LastValue | None:
        """What was noted stays: whoever carries next sees to it."""
        update, values = f"SET #next_ms = :now REMOVE {_CARRIED}", {"me": carrier, "now": now_ms}
        return self._kept(_value_key(stream_key, topic), update, "#carrier = :me", values)

    def _kept(self, key: Item, update: str, condition: str, values: Item) -> LastValue | None:
        """Update the item, and return its value. None when the condition does not hold."""
        try:
            return _value(self._db.update(self._table, key, update, condition, values, returning=True))
        except ConditionFailed:
            return None

    def trim(self, stream_key: str) -> int:
        stalest = self._of(stream_key)[MOST_TOPICS:]
        return sum(self._drop(stream_key, value) for value in stalest)

    def note_overtaken(self, stream_key: str, now: float, topic: str | None = None, shard: int | None = None) -> bool:
        key, second = _value_key(stream_key, topic), int(now)
        overtaken, until = _noted(shard)
        begins = f"attribute_exists(#stream_key) AND (attribute_not_exists(#{until}) OR #{until} <= :now)"
        update = f"SET #{until} = :until ADD #{overtaken} :one"
        if self._did(key, update, begins, until=second + SETTLE_S, one=1, now=second):
            return True
        # When it has settled in between, this caller settles. Two who settle at the same time are one too many.
        return not self._did(key, f"ADD #{overtaken} :one", f"#{until} > :now", one=1, now=second)

    def go_on(self, stream_key: str, now: float, topic: str | None, shard: int) -> LastValue | None:
        update, values = f"SET #{_noted(shard)[1]} = :until", {"until": int(now) + SETTLE_S}
        try:
            item = self._db.update(
                self._table,
                _value_key(stream_key, topic),
                update,
                "attribute_exists(#stream_key)",
                values,
                returning=True,
            )
        except ConditionFailed:
            return None
        return _value(item, shard)

    def note_settled(
        self, stream_key: str, sent: LastValue | None, topic: str | None = None, shard: int | None = None
    ) -> bool:
        overtaken, until = _noted(shard)
        key, update = _value_key(stream_key, topic), f"REMOVE #{overtaken}, #{until}"
        if sent is None:
            return self._did(key, update, "attribute_exists(#stream_key)")
        condition, values = _unchanged(sent, overtaken, or_settled=shard is not None)
        return self._did(key, update, condition, **values)

    def _of(self, stream_key: str) -> Sequence[LastValue]:
        """All values of a stream, the newest first."""
        items = self._db.query(self._table, "#stream_key = :key", {"key": stream_key})
        return sorted(map(_value, items), key=lambda value: value.order, reverse=True)

    def _drop(self, stream_key: str, value: LastValue) -> bool:
        """Delete a value. False when another one is stored by now."""
        try:
            self._db.delete(self._table, _value_key(stream_key, value.topic), _UNCHANGED, _order(value))
        except ConditionFailed:
            return False
        return True

    def _did(self, key: Item, update: str, condition: str, **values: object) -> bool:
        """Update the item. False when the condition does not hold."""
        try:
            self._db.update(self._table, key, update, condition, values)
        except ConditionFailed:
            return False
        return True


#: Sort key of the value of a stream without topics. No topic has this name, because it is a wildcard.
_NO_TOPIC = "#"
#: Longest sort key, bytes (DynamoDB's quotas). A topic of an external broker may be longer: then its hash is the key.
_LONGEST_KEY = 1024
#: How often a write is tried that others may be ahead of.
_ROUNDS = 4
_NEWER = "attribute_not_exists(#stream_key) OR #timestamp_ms < :at OR (#timestamp_ms = :at AND #message_id <= :id)"
_UNCHANGED = "#timestamp_ms = :at AND #message_id = :id"


#: What a call that carries a topic leaves when it ends.
_CARRIED = "#carrier, #carried_until_ms, #waits_until_ms, #settling_until"


def _unchanged(sent: LastValue, overtaken: str = "overtaken", *, or_settled: bool = False) -> tuple[str, Item]:
    """The condition, and its values, that a value is still the newest, and that nothing was noted since it was read.

    `overtaken`: the attribute of the notes. `or_settled`: that there is no note any more is as good.
    """
    if sent.overtaken:
        as_read = f"#{overtaken} = :noted"
        if or_settled:
            as_read = f"({as_read} OR attribute_not_exists(#{overtaken}))"
        return f"{_UNCHANGED} AND {as_read}", _order(sent) | {"noted": sent.overtaken}
    return f"{_UNCHANGED} AND attribute_not_exists(#{overtaken})", _order(sent)


def _value_key(stream_key: str, topic: str | None) -> Item:
    if topic is None:
        return {"stream_key": stream_key, "topic": _NO_TOPIC}
    raw = topic.encode("utf-8", "surrogatepass")
    short = len(raw) <= _LONGEST_KEY
    return {"stream_key": stream_key, "topic": topic if short else f"#{hashlib.sha256(raw).hexdigest()}"}


def _order(value: LastValue) -> Item:
    return {"at": value.timestamp_ms, "id": value.message_id}


def _noted(shard: int | None) -> tuple[str, str]:
    """Names of the attributes: what was noted, and until when the sender that settles is relied upon."""
    return ("overtaken", "settling_until") if shard is None else (f"overtaken_{shard}", f"settling_until_{shard}")


def _value(item: Item, shard: int | None = None) -> LastValue:
    topic = item.get("name", item["topic"])
    overtaken = item.get("overtaken", 0) if shard is None else item.get(f"overtaken_{shard}", 0)
    return LastValue(
        payload=item["payload"],
        timestamp_ms=item["timestamp_ms"],
        message_id=item["message_id"],
        topic=None if topic == _NO_TOPIC else topic,
        deleted=item["deleted"],
        overtaken=overtaken,
    )


def _stream(item: Item) -> Stream:
    return Stream(
        stream_key=item["stream_key"],
        protocol=item["protocol"],
        parser=item["parser"],
        allowed_topic=item.get("allowed_topic"),
        topic_filter=item.get("topic_filter"),
        last_requested_at=item["last_requested_at"],
        intent=json.loads(item["intent"]) if "intent" in item else None,
        connected=item.get("connected", False),
        fault=Fault(item["fault_code"], item["fault_text"]) if "fault_code" in item else None,
        status_number=item.get("status_number", 0),
        subscribes=item.get("subscribes", 0),
        crowd_until=item.get("crowd_until", 0),
        history=_history(item),
        connected_at=item.get("connected_at"),
    )
