"""The browser protocol's messages: reads those that clients send, and makes those they are sent. No I/O.

Invariant of this file: for any text, `parse` returns a message or raises `BadMessage` with the frame that answers it.
Optional keys of outgoing messages are absent, never null.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from tidegate.errors import LimiterUnavailable, LimitReached, TidegateError, Unavailable

#: What a `seq` is: 15 digits of milliseconds, and often a message id.
_IS_SEQ = re.compile(r"[0-9]{15}(-[A-Za-z0-9_-]{1,40})?")


class ErrorCode(StrEnum):
    """Every error code the protocol knows."""

    CONNECT_TIMEOUT = "STREAM_CONNECT_TIMEOUT"
    CONNECT_REFUSED = "STREAM_CONNECT_REFUSED"
    CONNECT_FAILED = "STREAM_CONNECT_FAILED"
    AUTH_FAILED = "STREAM_AUTH_FAILED"
    IDLE_TIMEOUT = "STREAM_IDLE_TIMEOUT"
    MESSAGE_TOO_LARGE = "STREAM_MESSAGE_TOO_LARGE"
    PROTOCOL_ERROR = "STREAM_PROTOCOL_ERROR"
    POLICY_BLOCKED = "STREAM_POLICY_BLOCKED"
    RATE_LIMITED = "STREAM_RATE_LIMITED"


class EndReason(StrEnum):
    """Why a subscription or a connection ended, beside the code."""

    REVOKED = "revoked"
    CHANGED = "changed"
    EXPIRED = "expired"
    DISABLED = "disabled"
    LIMIT = "limit"


class Status(StrEnum):
    """States of a subscription's stream, as a client sees them."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class SubscribeMessage:
    """`subscribe` with `datasourceId`. `since`: the `seq` of the newest value that the client has."""

    request_id: str
    dashboard_id: str
    datasource_id: str
    session_token: str
    since: str | None = None


@dataclass(frozen=True, slots=True)
class SubscribeSeveralMessage:
    """`subscribe` with `datasourceIds`: different ids, in the order in which they came first, at least one.

    `since`: datasource id -> the `seq` of the newest value that the client has.
    """

    request_id: str
    dashboard_id: str
    datasource_ids: tuple[str, ...]
    session_token: str
    since: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UnsubscribeMessage:
    """`unsubscribe`."""

    request_id: str
    datasource_id: str


@dataclass(frozen=True, slots=True)
class PingMessage:
    """`ping`."""

    request_id: str | None


ClientMessage = SubscribeMessage | SubscribeSeveralMessage | UnsubscribeMessage | PingMessage


class BadMessage(Exception):
    """A message that cannot be understood. `answer` is the frame its sender gets."""

    def __init__(self, answer: Mapping[str, object]) -> None:
        super().__init__(str(answer.get("message", "")))
        self.answer = answer


def parse(text: str, max_bytes: int, now: float) -> ClientMessage:
    """Read one client message.

    Args:
        text: as received.
        max_bytes: largest accepted size in UTF-8 bytes.
        now: epoch seconds, for the answer's timestamp.

    Raises:
        BadMessage: too large, not JSON, of an unknown type, or with a field missing, blank or not a string.
            Only `requestId` may be a number.
    """
    if len(text) > max_bytes or len(text.encode("utf-8", "surrogatepass")) > max_bytes:
        raise BadMessage(error(None, ErrorCode.MESSAGE_TOO_LARGE, "Realtime message exceeded size limit", now))
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise BadMessage(error(None, ErrorCode.PROTOCOL_ERROR, "Malformed realtime message", now)) from None
    fields: dict[str, object] = message if isinstance(message, dict) else {}
    kind = (_field(fields, "type") or "").lower()
    request_id, datasource_id = _request_id(fields.get("requestId")), _field(fields, "datasourceId")
    if kind == "subscribe":
        return _subscribe(fields, request_id, datasource_id, now)
    if kind == "unsubscribe":
        if request_id and datasource_id:
            return UnsubscribeMessage(request_id, datasource_id)
        needed = "unsubscribe requires requestId and datasourceId"
        raise BadMessage(refused(request_id, datasource_id, ErrorCode.PROTOCOL_ERROR, needed, now))
    if kind == "ping":
        return PingMessage(request_id)
    raise BadMessage(error(datasource_id, ErrorCode.PROTOCOL_ERROR, "Unsupported realtime message type", now))


def _subscribe(
    fields: Mapping[str, object], request_id: str | None, datasource_id: str | None, now: float
) -> SubscribeMessage | SubscribeSeveralMessage:
    dashboard_id, token = _field(fields, "dashboardId"), _field(fields, "sessionToken")
    if "datasourceIds" in fields:
        several, since = _several(fields), _since_each(fields.get("since"))
        if request_id and dashboard_id and several and token and since is None:
            raise BadMessage(refused(request_id, None, ErrorCode.PROTOCOL_ERROR, _EACH_SINCE, now))
        if request_id and dashboard_id and several and token and since is not None and "datasourceId" not in fields:
            return SubscribeSeveralMessage(request_id, dashboard_id, several, token, since)
        needed = (
            "subscribe with datasourceIds requires requestId, dashboardId, sessionToken, a list of at least one id, "
        )
        needed += "and no datasourceId"
        raise BadMessage(refused(request_id, None, ErrorCode.PROTOCOL_ERROR, needed, now))
    if request_id and dashboard_id and datasource_id and token:
        given = fields.get("since")
        if given is not None and _seq(given) is None:
            raise BadMessage(refused(request_id, datasource_id, ErrorCode.PROTOCOL_ERROR, _SINCE, now))
        return SubscribeMessage(request_id, dashboard_id, datasource_id, token, _seq(given))
    needed = "subscribe requires requestId, dashboardId, datasourceId, and sessionToken"
    raise BadMessage(refused(request_id, datasource_id, ErrorCode.PROTOCOL_ERROR, needed, now))


def _field(fields: Mapping[str, object], name: str) -> str | None:
    value = fields.get(name)
    return value.strip() or None if isinstance(value, str) else None


def _several(fields: Mapping[str, object]) -> tuple[str, ...] | None:
    """The ids in `datasourceIds`, each once. None when it is no list, or holds something else."""
    listed = fields["datasourceIds"]
    ids = [_field({"id": each}, "id") for each in listed] if isinstance(listed, list) else []
    return tuple(dict.fromkeys(each for each in ids if each)) if all(ids) else None


_SINCE = "since must be the seq of a value"
_EACH_SINCE = "since must have the seq of a value for each datasource that it names"


def _seq(value: object) -> str | None:
    """A `seq` as the server made it: see `domain.subscriptions.LastValue.seq`. None when it is none."""
    return value if isinstance(value, str) and _IS_SEQ.fullmatch(value) else None


def _since_each(value: object) -> dict[str, str] | None:
    """Datasource id -> `seq`. None when it is something else."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        return None
    found = {name.strip(): seq for name, each in value.items() if (seq := _seq(each)) is not None}
    return found if len(found) == len(value) else None


def _request_id(value: object) -> str | None:
    """A number is taken as its text: some clients count their requests."""
    match value:
        case bool():
            return None
        case int():
            return str(value)
        case float() if math.isfinite(value):
            return str(int(value)) if value.is_integer() else repr(value)
        case str():
            return value.strip() or None
        case _:
            return None


# --- what a client is sent --------------------------------------------------------------------------------


def ack(
    request_id: str | None, datasource_id: str | None, now: float, recovered: bool | None = None
) -> dict[str, object]:
    """`recovered`: the answer to `since`, see the protocol; None where nothing was asked."""
    frame: dict[str, object] = {
        "type": "ack",
        "requestId": request_id,
        "datasourceId": datasource_id,
        "ok": True,
        "timestamp": timestamp(now),
    }
    return frame if recovered is None else frame | {"recovered": recovered}


def refused(
    request_id: str | None,
    datasource_id: str | None,
    code: ErrorCode,
    message: str,
    now: float,
    retryable: bool | None = None,
    retry_after_ms: int | None = None,
) -> dict[str, object]:
    """A negative ack."""
    frame = ack(request_id, datasource_id, now) | {"ok": False, "errorCode": code.value, "message": message}
    return frame | _again(retryable, retry_after_ms)


def _again(retryable: bool | None, retry_after_ms: int | None, reason: EndReason | None = None) -> dict[str, object]:
    """Why it ended, whether it makes sense to try again, and after how many milliseconds."""
    why = None if reason is None else reason.value
    said = {"reason": why, "retryable": retryable, "retryAfterMs": retry_after_ms}
    return {name: value for name, value in said.items() if value is not None}


def error(
    datasource_id: str | None,
    code: ErrorCode,
    message: str,
    now: float,
    retryable: bool | None = None,
    retry_after_ms: int | None = None,
    reason: EndReason | None = None,
) -> dict[str, object]:
    """`reason`: when something ended with it, and not only went wrong."""
    frame: dict[str, object] = {
        "type": "error",
        "datasourceId": datasource_id,
        "errorCode": code.value,
        "message": message,
        "timestamp": timestamp(now),
    }
    return frame | _again(retryable, retry_after_ms, reason)


#: The message to viewers in place of a frame or payload that is too large.
TOO_LARGE = "Realtime payload exceeded message limit"


def too_large(datasource_id: str | None, now: float) -> bytes:
    """The frame that is sent in place of one that is too large."""
    return encode(error(datasource_id, ErrorCode.MESSAGE_TOO_LARGE, TOO_LARGE, now))


def status(
    datasource_id: str,
    state: Status,
    now: float,
    code: ErrorCode | None = None,
    message: str | None = None,
    reason: EndReason | None = None,
) -> dict[str, object]:
    frame: dict[str, object] = {"type": "status", "datasourceId": datasource_id, "status": state.value}
    if code is not None:
        frame["errorCode"] = code.value
    if message is not None:
        frame["message"] = message
    if reason is not None:
        frame["reason"] = reason.value
    frame["timestamp"] = timestamp(now)
    return frame


def document(dashboard_id: str, revision: int, now: float) -> dict[str, object]:
    """The document of a dashboard was saved. `revision`: the one that it has now."""
    return {"type": "document", "dashboardId": dashboard_id, "revision": revision, "timestamp": timestamp(now)}


def pong(request_id: str | None, now: float) -> dict[str, object]:
    return {"type": "pong", "requestId": request_id, "timestamp": timestamp(now)}


def data(
    datasource_id: str,
    payload: str,
    at: float,
    seq: str,
    *,
    topic: str | None = None,
    deleted: bool = False,
    retained: bool = False,
) -> bytes:
    """A `data` frame, ready to send. `payload` is JSON text. It is spliced in as it is, never decoded and re-encoded.

    Args:
        at: epoch seconds, for the frame's timestamp.
        seq: orders the values of the datasource and topic, compared as text; see `domain.subscriptions.LastValue.seq`.
        topic: where the value was published, of a datasource whose topic filter has a wildcard.
        deleted: the source took the value back. The payload is `null` then.
        retained: the payload is the last value, not a new one.
    """
    told: dict[str, object] = {"type": "data", "datasourceId": datasource_id}
    if topic is not None:
        told["topic"] = topic
    head = json.dumps(told, separators=(",", ":"), ensure_ascii=False)
    marks = (',"deleted":true' if deleted else "") + (',"retained":true' if retained else "")
    tail = f'"timestamp":"{timestamp(at)}","seq":{json.dumps(seq)}{marks}}}'
    return f'{head[:-1]},"payload":{payload},{tail}'.encode("utf-8", "surrogatepass")


def history(
    datasource_id: str,
    points: Sequence[str],
    now: float,
    *,
    topic: str | None = None,
    recovered: bool | None = None,
) -> bytes:
    """A `history` frame, ready to send.

    Args:
        points: each as JSON text, the oldest first. They are spliced in as they are.
        recovered: of the last one: whether nothing is known to be missing. None when another may follow.
    """
    told: dict[str, object] = {"type": "history", "datasourceId": datasource_id}
    if topic is not None:
        told["topic"] = topic
    head = json.dumps(told, separators=(",", ":"), ensure_ascii=False)
    end = "" if recovered is None else f',"end":true,"recovered":{json.dumps(recovered)}'
    text = f'{head[:-1]},"points":[{",".join(points)}],"timestamp":"{timestamp(now)}"{end}}}'
    return text.encode("utf-8", "surrogatepass")


def encode(frame: Mapping[str, object]) -> bytes:
    """Compact UTF-8 JSON."""
    return json.dumps(frame, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


def timestamp(at: float) -> str:
    """ISO 8601, UTC, milliseconds, for example `2026-01-02T03:04:05.678Z`."""
    moment = datetime.fromtimestamp(int(at * 1000) / 1000, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def code_for(failure: TidegateError) -> ErrorCode:
    """The error code of a refused subscribe. It follows from the HTTP status that the error stands for."""
    if isinstance(failure, LimiterUnavailable):
        return ErrorCode.RATE_LIMITED
    match failure.status:
        case 401 | 403:
            return ErrorCode.AUTH_FAILED
        case 429:
            return ErrorCode.RATE_LIMITED
        case 504:
            return ErrorCode.CONNECT_TIMEOUT
        case status if 400 <= status < 500:
            return ErrorCode.POLICY_BLOCKED
        case _:
            return ErrorCode.CONNECT_FAILED


#: Codes of refusals where a new session token may help.
_FRESH_TOKEN_HELPS = frozenset({"token_expired", "token_intent_changed", "intent_changed", "connection_closed"})


def retryable(failure: TidegateError) -> bool:
    """Whether it makes sense to try again: later, or with a new session token."""
    return failure.temporary or failure.code in _FRESH_TOKEN_HELPS


#: Nobody knows when a store answers again. Who could not be admitted for that is told to ask again after this.
UNAVAILABLE_RETRY_MS = 2000


def retry_after_ms(failure: Exception) -> int | None:
    """After how many milliseconds it makes sense to try again. None when waiting is not what helps."""
    if isinstance(failure, LimitReached):
        return failure.retry_after_ms
    refused = isinstance(failure, TidegateError) and not isinstance(failure, Unavailable)
    return None if refused else UNAVAILABLE_RETRY_MS


def text_for(failure: TidegateError) -> str:
    """The text for the client. It names a limiter that is down; other internal faults are not described."""
    if isinstance(failure, Unavailable) and not isinstance(failure, LimiterUnavailable):
        return "Subscription failed"
    return failure.message if failure.status < 500 or isinstance(failure, LimiterUnavailable) else "Subscription failed"
