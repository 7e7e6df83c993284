"""DynamoDB as the table modules need it: they give and get plain Python values, and errors are translated once, here.

Expressions name attributes as `#name`, and values as `:name`. The names are collected from the expressions, so
DynamoDB's reserved words do not matter. `names` says what an alias stands for where that differs, for map keys that
are data.

Invariant of this file: a condition that does not hold raises `ConditionFailed`. Every other failure of the store raises
`Unavailable`, whose code is the cause: it hangs, cannot be reached, fails, throttles, denies, has no such table, or
answers in another form. Only a wrong request is a bug and is not hidden: its `AwsError` passes.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from time import monotonic, sleep
from typing import Any, TypeVar

from tidegate.adapters.aws.json_client import DEFAULT_TIMEOUT_S, AwsError, JsonClient
from tidegate.errors import Unavailable

Item = dict[str, Any]
T = TypeVar("T")

_ALIAS = re.compile(r"#([A-Za-z_]\w*)")
_BATCH_GET, _BATCH_WRITE = 100, 25
_CONFLICT_ATTEMPTS = 8


class ConditionFailed(Exception):
    """A write's condition did not hold. `item` is the stored item, where the call returns it and there is one."""

    def __init__(self, item: Item | None = None) -> None:
        super().__init__("condition failed")
        self.item = item


class TransactionFailed(Exception):
    """Conditions of a transaction did not hold. `failed` are the positions of the actions whose conditions failed."""

    def __init__(self, failed: frozenset[int]) -> None:
        super().__init__(f"transaction failed at {sorted(failed)}")
        self.failed = failed


class KeyFlooded(Unavailable):
    """DynamoDB throttled the very key that the request names, and nothing else: that key is written too often."""


#: Errors that say that the request itself is wrong.
_BUGS = frozenset(
    {
        "ValidationException",
        "SerializationException",
        "IdempotentParameterMismatchException",
        "ItemCollectionSizeLimitExceededException",
    }
)
_DENIED = frozenset(
    {
        "AccessDeniedException",
        "ExpiredTokenException",
        "IncompleteSignatureException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationTokenException",
        "NotAuthorized",
        "OptInRequired",
        "UnrecognizedClientException",
    }
)
_MISSING = frozenset({"ResourceNotFoundException", "TableNotFoundException"})
_MALFORMED = "The store's answer cannot be read"
_KEY_FLOODED = "KeyRangeThroughputExceeded"


def encode(value: Any) -> dict[str, Any]:
    """A Python value as DynamoDB's typed JSON. Sets are sets of strings. Raises `TypeError` for other types."""
    match value:
        case bool():
            return {"BOOL": value}
        case str():
            return {"S": value}
        case int() | float():
            return {"N": repr(value) if isinstance(value, float) else str(int(value))}
        case None:
            return {"NULL": True}
        case bytes():
            raise TypeError("binary attributes are not used")
        case Mapping():
            return {"M": {str(key): encode(item) for key, item in value.items()}}
        case set() | frozenset():
            return {"SS": sorted(value)}
        case list() | tuple():
            return {"L": [encode(item) for item in value]}
    raise TypeError(f"cannot be stored: {type(value).__name__}")


def decode(typed: Mapping[str, Any]) -> Any:
    """The inverse of `encode`. Numbers without a fraction become `int`."""
    ((kind, value),) = typed.items()
    match kind:
        case "S" | "BOOL":
            return value
        case "N":
            return int(value) if re.fullmatch(r"-?\d+", value) else float(value)
        case "M":
            return {key: decode(item) for key, item in value.items()}
        case "L":
            return [decode(item) for item in value]
        case "SS":
            return frozenset(value)
        case "NULL":
            return None
    raise TypeError(f"unknown attribute type {kind}")


def encode_item(item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: encode(value) for name, value in item.items()}


def decode_item(item: Mapping[str, Any]) -> Item:
    return {name: decode(value) for name, value in item.items()}


def expressions(
    values: Mapping[str, Any] | None, names: Mapping[str, str] | None, **parts: str | None
) -> dict[str, Any]:
    """The members of a request that hold expressions: each given part, and the names and values that they use."""
    request: dict[str, Any] = {part: text for part, text in parts.items() if text}
    aliases = {alias for text in request.values() for alias in _ALIAS.findall(text)}
    if aliases:
        request["ExpressionAttributeNames"] = {f"#{alias}": (names or {}).get(alias, alias) for alias in aliases}
    if values:
        request["ExpressionAttributeValues"] = {f":{name}": encode(value) for name, value in values.items()}
    return request


def put_action(
    table: str, item: Mapping[str, Any], condition: str | None = None, values: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A Put of a transaction."""
    parts = expressions(values, None, ConditionExpression=condition)
    return {"Put": {"TableName": table, "Item": encode_item(item), **parts}}


def update_action(
    table: str,
    key: Mapping[str, Any],
    update: str,
    condition: str | None = None,
    values: Mapping[str, Any] | None = None,
    names: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """An Update of a transaction."""
    parts = expressions(values, names, UpdateExpression=update, ConditionExpression=condition)
    return {"Update": {"TableName": table, "Key": encode_item(key), **parts}}


def delete_action(
    table: str, key: Mapping[str, Any], condition: str | None = None, values: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A Delete of a transaction."""
    parts = expressions(values, None, ConditionExpression=condition)
    return {"Delete": {"TableName": table, "Key": encode_item(key), **parts}}


def check_action(
    table: str, key: Mapping[str, Any], condition: str, values: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A ConditionCheck of a transaction."""
    parts = expressions(values, None, ConditionExpression=condition)
    return {"ConditionCheck": {"TableName": table, "Key": encode_item(key), **parts}}


class DynamoDb:
    """The operations that the table modules use. Every one of them may raise `Unavailable`."""

    def __init__(self, client: JsonClient) -> None:
        self._client = client

    def get(self, table: str, key: Mapping[str, Any], deadline: float | None = None) -> Item | None:
        """Read one item, strongly consistent."""
        answer = self._call(
            "GetItem", {"TableName": table, "Key": encode_item(key), "ConsistentRead": True}, deadline=deadline
        )
        item = _read(answer.get("Item", {}))
        return _asked_for(item, [key]) if item else None

    def get_many(self, table: str, keys: Iterable[Mapping[str, Any]]) -> list[Item]:
        """Read the items that exist, strongly consistent, in any order. The keys must all differ."""
        asked = list(keys)
        pending = [encode_item(key) for key in asked]
        found: list[Item] = []
        patience = _Patience()
        while pending:
            batch, pending = pending[:_BATCH_GET], pending[_BATCH_GET:]
            answer = self._call("BatchGetItem", {"RequestItems": {table: {"Keys": batch, "ConsistentRead": True}}})
            left = _member(_member(_member(answer, "UnprocessedKeys", dict), table, dict), "Keys", list)
            if len(left) < len(batch):
                read = _required(_required(answer, "Responses", dict), table, list)
                found += [_asked_for(_read(item), asked) for item in read]
            patience.after(processed=len(left) < len(batch))
            pending += left
        return found

    def put(
        self,
        table: str,
        item: Mapping[str, Any],
        condition: str | None = None,
        values: Mapping[str, Any] | None = None,
        *,
        deadline: float | None = None,
    ) -> None:
        """Write one item whole. Raises `ConditionFailed`, without the item."""
        parts = expressions(values, None, ConditionExpression=condition)
        self._call("PutItem", {"TableName": table, "Item": encode_item(item), **parts}, deadline=deadline)

    def update(
        self,
        table: str,
        key: Mapping[str, Any],
        update: str,
        condition: str | None = None,
        values: Mapping[str, Any] | None = None,
        names: Mapping[str, str] | None = None,
        *,
        returning: bool = False,
        deadline: float | None = None,
    ) -> Item:
        """Update one item. Returns its new attributes when `returning`, else nothing.

        Raises:
            ConditionFailed: with the stored item, when there is one.
        """
        request = {
            "TableName": table,
            "Key": encode_item(key),
            **expressions(values, names, UpdateExpression=update, ConditionExpression=condition),
        }
        if returning:
            request["ReturnValues"] = "ALL_NEW"
        if condition:
            request["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
        attributes = _read(self._call("UpdateItem", request, deadline=deadline).get("Attributes", {}))
        return _asked_for(attributes, [key]) if returning else attributes

    def delete(
        self,
        table: str,
        key: Mapping[str, Any],
        condition: str | None = None,
        values: Mapping[str, Any] | None = None,
        *,
        deadline: float | None = None,
    ) -> Item | None:
        """Delete one item and return it; None when there was none. Raises `ConditionFailed`, without the item."""
        request = {
            "TableName": table,
            "Key": encode_item(key),
            "ReturnValues": "ALL_OLD",
            **expressions(values, None, ConditionExpression=condition),
        }
        item = _read(self._call("DeleteItem", request, deadline=deadline).get("Attributes", {}))
        return _asked_for(item, [key]) if item else None

    def delete_many(self, table: str, keys: Sequence[Mapping[str, Any]]) -> None:
        """Delete items without a condition."""
        self._write_many(table, [{"DeleteRequest": {"Key": encode_item(key)}} for key in keys])

    def put_many(self, table: str, items: Sequence[Mapping[str, Any]]) -> None:
        """Write items whole, without a condition. Their keys all differ. When it fails, some may be written."""
        self._write_many(table, [{"PutRequest": {"Item": encode_item(item)}} for item in items])

    def _write_many(self, table: str, requests: Sequence[Mapping[str, Any]]) -> None:
        pending = list(requests)
        patience = _Patience()
        while pending:
            batch, pending = pending[:_BATCH_WRITE], pending[_BATCH_WRITE:]
            answer = self._call("BatchWriteItem", {"RequestItems": {table: batch}})
            left = _member(_member(answer, "UnprocessedItems", dict), table, list)
            patience.after(processed=len(left) < len(batch))
            pending += left

    def query(
        self,
        table: str,
        condition: str,
        values: Mapping[str, Any],
        *,
        index: str | None = None,
        limit: int | None = None,
        start: Mapping[str, Any] | None = None,
        descending: bool = False,
        consistent: bool = True,
        deadline: float | None = None,
    ) -> Iterator[Item]:
        """Items of a partition in the order of their keys. An index may lag, and so may a read for half the price.

        `deadline`: monotonic seconds, for all pages together. None gives each page the time of one call.
        """
        request: dict[str, Any] = {
            "TableName": table,
            "ConsistentRead": consistent and index is None,
            "ScanIndexForward": not descending,
            **expressions(values, None, KeyConditionExpression=condition),
        }
        if index:
            request["IndexName"] = index
        if start:
            request["ExclusiveStartKey"] = encode_item(start)
        remaining = limit
        while remaining is None or remaining > 0:
            if remaining is not None:
                request["Limit"] = remaining
            answer = self._call("Query", request, deadline=deadline)
            items = [_read(item) for item in _required(answer, "Items", list)]
            yield from items
            if remaining is not None:
                remaining -= len(items)
            if "LastEvaluatedKey" not in answer:
                return
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def count(
        self, table: str, condition: str, values: Mapping[str, Any], *, index: str, pages: int, deadline: float
    ) -> tuple[int, bool]:
        """How many items a partition of an index has, and whether there are more: at most so many pages of a megabyte
        are read. `deadline` is in monotonic seconds."""
        request: dict[str, Any] = {"TableName": table, "IndexName": index, "Select": "COUNT"}
        request |= expressions(values, None, KeyConditionExpression=condition)
        found = 0
        for _ in range(pages):
            answer = self._call("Query", request, deadline=deadline)
            found += _required(answer, "Count", int)
            if "LastEvaluatedKey" not in answer:
                return found, False
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]
        return found, True

    def scan(
        self, table: str, segment: int, segments: int, after: str | None = None, *, limit: int | None = None
    ) -> Iterator[tuple[list[Item], str | None]]:
        """One segment of a parallel scan, page by page, strongly consistent. Never used to answer a request.

        Yields (items, position). A position can be given as `after`, to go on behind that page. It is None at the end
        of the segment. `limit`: most items of a page.
        """
        request: dict[str, Any] = {"TableName": table, "ConsistentRead": True}
        if limit is not None:
            request["Limit"] = limit
        request |= {"Segment": segment, "TotalSegments": segments}
        if after is not None:
            request["ExclusiveStartKey"] = json.loads(after)
        while True:
            answer = self._call("Scan", request)
            last = answer.get("LastEvaluatedKey")
            position = json.dumps(last, sort_keys=True) if last else None
            yield [_read(item) for item in _required(answer, "Items", list)], position
            if last is None:
                return
            request["ExclusiveStartKey"] = last

    def transact(self, actions: Sequence[Mapping[str, Any]], token: str | None = None) -> None:
        """Write all or nothing.

        With a `token`, a repetition within ten minutes does nothing.

        Raises:
            TransactionFailed: a condition did not hold.
            Unavailable: conflicts or throttling went on, or the store did not answer.
        """
        request: dict[str, Any] = {"TransactItems": list(actions)}
        if token:
            request["ClientRequestToken"] = token
        self._call("TransactWriteItems", request)

    def _call(self, operation: str, request: Mapping[str, Any], *, deadline: float | None = None) -> dict[str, Any]:
        """Call an operation, again while another write is working on the same item: that says nothing about any
        condition, and nothing was written."""
        until = monotonic() + DEFAULT_TIMEOUT_S if deadline is None else deadline
        for attempt in range(1, _CONFLICT_ATTEMPTS + 1):
            try:
                return self._client.call(operation, request, deadline=until)
            except AwsError as error:
                meaning = _meaning(error)
                delay = random.uniform(0, min(0.5, 0.02 * 2**attempt))
                if not isinstance(meaning, _Conflict) or attempt == _CONFLICT_ATTEMPTS or monotonic() + delay >= until:
                    raise meaning from error
                sleep(delay)
        raise AssertionError("unreachable")


class _Conflict(Unavailable):
    """Another transaction or write was working on the same item at the same moment, or a transaction was throttled."""


def _meaning(error: AwsError) -> Exception:
    """What a failed call means to the caller. The error itself when the request was wrong."""
    match error.code:
        case "ConditionalCheckFailedException":
            item = error.body.get("Item")
            return ConditionFailed(_read(item) if item else None)
        case "TransactionCanceledException":
            return _cancelled(error)
        case "TransactionConflictException":
            return _Conflict("The store is busy", code="store_busy")
        case code if code in _BUGS:
            return error
    if error.throttled and _flooded(error):
        return KeyFlooded("The store is throttling", code="store_throttled")
    text, code = _cause(error)
    return Unavailable(text, code=code)


def _cause(error: AwsError) -> tuple[str, str]:
    """Why the store gave no usable answer: in words, and as the code that is counted."""
    causes = (
        (error.late, "The store did not answer in time", "store_timeout"),
        (error.code == "NotAnswered", "The store cannot be reached", "store_unreachable"),
        (error.throttled or error.status == 429, "The store is throttling", "store_throttled"),
        (error.code in _MISSING, "The store has no such table", "store_missing"),
        (error.code in _DENIED or error.status in (401, 403), "The store denied the call", "store_denied"),
        (error.temporary or error.status >= 500, "The store failed", "store_failed"),
    )
    return next(((text, code) for holds, text, code in causes if holds), (_MALFORMED, "store_malformed"))


def _malformed() -> Unavailable:
    return Unavailable(_MALFORMED, code="store_malformed")


def _flooded(error: AwsError) -> bool:
    """Whether every reason for the throttling is the key of the request. Without a reason, nobody knows."""
    named = error.body.get("ThrottlingReasons") or error.body.get("throttlingReasons")
    reasons = named if isinstance(named, list) else []
    return bool(reasons) and all(
        isinstance(each, dict) and str(each.get("reason", each.get("Reason"))).endswith(_KEY_FLOODED)
        for each in reasons
    )


def _cancelled(error: AwsError) -> Exception:
    listed = error.body.get("CancellationReasons")
    if not isinstance(listed, list) or not listed or not all(isinstance(reason, dict) for reason in listed):
        return _malformed()
    reasons = [str(reason.get("Code", "None")) for reason in listed]
    failed = frozenset(index for index, code in enumerate(reasons) if code == "ConditionalCheckFailed")
    if failed:
        return TransactionFailed(failed)
    if any(code in ("ThrottlingError", "ProvisionedThroughputExceeded") for code in reasons):
        return _Conflict("The store is throttling", code="store_throttled")
    if "TransactionConflict" in reasons:
        return _Conflict("The store is busy", code="store_busy")
    if any(code in ("ValidationError", "ItemCollectionSizeLimitExceeded") for code in reasons):
        return error
    return _malformed()


def _read(item: Any) -> Item:
    """An item of an answer. Raises `Unavailable` when it has another form."""
    try:
        return decode_item(item)
    except (AttributeError, TypeError, ValueError) as error:
        raise _malformed() from error


def _member(answer: Mapping[str, Any], name: str, kind: type[T]) -> T:
    """A member of an answer, empty when it is absent. Raises `Unavailable` when it is something else."""
    value = answer.get(name, kind())
    if not isinstance(value, kind):
        raise _malformed()
    return value


def _required(answer: Mapping[str, Any], name: str, kind: type[T]) -> T:
    """A member that every answer has. Raises `Unavailable` without it: nothing was said, so nothing is known."""
    if name not in answer:
        raise _malformed()
    return _member(answer, name, kind)


def _asked_for(item: Item, keys: Iterable[Mapping[str, Any]]) -> Item:
    """The item, if it is that of one of the keys. Raises `Unavailable` when it is another."""
    if not any(all(item.get(name) == value for name, value in key.items()) for key in keys):
        raise _malformed()
    return item


class _Patience:
    """How long a batch may go without progress. DynamoDB hands back unprocessed what it throttles."""

    def __init__(self) -> None:
        self._vain = 0
        self._until = 0.0

    def after(self, *, processed: bool) -> None:
        """Wait a little after a call that processed nothing. Raises `Unavailable` when that has gone on too long."""
        if processed:
            self._vain = 0
            return
        now = monotonic()
        if self._vain == 0:
            self._until = now + DEFAULT_TIMEOUT_S
        self._vain += 1
        delay = random.uniform(0, min(0.5, 0.02 * 2 ** min(self._vain, 8)))
        if now + delay >= self._until:
            raise Unavailable("The store is throttling", code="store_throttled")
        sleep(delay)
