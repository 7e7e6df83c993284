"""What each call answers while a table fails: data for the drill, and for the page that states it.

How the store fails does not matter, with one exception: a flooded key. So an answer is given for each failure mode, and
for a flood.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fixtures.faulty_aws import Fault
from tidegate import tables

#: What a call answers when nothing fails.
NORMAL: Mapping[str, str] = {
    "login": "200",
    "mint, public": "201",
    "mint, user": "201",
    "mint, refresh": "201",
    "internal consume": "200 allowed",
    "handshake": "200",
    "subscribe, public": "ack",
    "subscribe, private": "ack",
    "subscribe, refresh": "ack",
}

_LIMITER = "503 limiter_unavailable"
_TOLD = "STREAM_RATE_LIMITED, retryable, temporarily unavailable"


@dataclass(frozen=True, slots=True)
class Limited:
    """A call while the limiters table fails.

    Attributes:
        closed: its answer with `fail-closed`.
        open: its answer with `fail-open`.
        flooded: its answer in both modes when its key is flooded.
        scopes: the limits that it asks of the table, as metrics name them.
    """

    closed: str
    open: str
    flooded: str
    scopes: tuple[str, ...]


LIMITER: Mapping[str, Limited] = {
    "login": Limited(_LIMITER, "200", "429 limit_reached", ("login-ip", "login", "login-account")),
    "mint, public": Limited(
        _LIMITER, "201", "429 limit_reached", ("datasource-mint-public-ip", "datasource-mint-public-share")
    ),
    "mint, user": Limited(_LIMITER, "201", "429 limit_reached", ("datasource-mint-user",)),
    "mint, refresh": Limited(
        _LIMITER, "201", "429 limit_reached", ("datasource-mint-public-viewer", "datasource-mint-public-following-ip")
    ),
    "internal consume": Limited(
        "503 backend_fail_closed",
        "200 backend_fail_open",
        "200 limited",
        ("gateway-realtime-public-subscribe-ip",),
    ),
    "handshake": Limited("503", "200", "429", ("realtime-connect-ip", "cap-ip")),
    "subscribe, public": Limited(
        _TOLD,
        "ack",
        "STREAM_RATE_LIMITED, retryable",
        ("realtime-public-subscribe-ip", "cap-dash"),
    ),
    "subscribe, private": Limited(_TOLD, "ack", "STREAM_RATE_LIMITED, retryable", ("cap-dash",)),
    "subscribe, refresh": Limited("ack", "ack", "ack", ()),
}

#: The cause that `backend_error` is counted with.
CAUSES: Mapping[Fault, str] = {
    Fault.HANG: "store_timeout",
    Fault.RESET: "store_unreachable",
    Fault.CUT_OFF: "store_unreachable",
    Fault.ERROR_500: "store_failed",
    Fault.ERROR_503: "store_failed",
    Fault.OUT_OF_CAPACITY: "store_throttled",
    Fault.THROTTLED: "store_throttled",
    Fault.REQUEST_LIMIT: "store_throttled",
    Fault.DENIED: "store_denied",
    Fault.NO_TABLE: "store_missing",
    Fault.CUT_JSON: "store_malformed",
    Fault.OTHER_CONTENT: "store_malformed",
    Fault.OTHER_ITEM: "store_malformed",
    Fault.EMPTY: "store_malformed",
    Fault.FLOODED: "store_throttled",
}

_SUBSCRIBES = ("subscribe, public", "subscribe, private", "subscribe, refresh")
MINTS = ("mint, public", "mint, user", "mint, refresh")

#: Calls that ask for a table, one of each way to it.
NEEDED_BY: Mapping[str, tuple[str, ...]] = {
    tables.USERS.name: ("login", "mint, user"),
    tables.ACCESS.name: ("mint, public", "mint, user", *_SUBSCRIBES),
    tables.DASHBOARDS.name: ("mint, public", "mint, refresh"),
    tables.PROFILES.name: ("mint, public", "subscribe, public"),
    tables.CONNECTIONS.name: ("handshake", "subscribe, public", "subscribe, refresh"),
    tables.SUBSCRIPTIONS.name: ("subscribe, private", "subscribe, refresh"),
    tables.STREAMS.name: ("subscribe, public",),
    tables.LAST_VALUES.name: ("subscribe, public",),
}
#: Tables that a call can do without: the next value comes by itself.
OPTIONAL = frozenset({tables.LAST_VALUES.name})


def limiter_answer(call: str, fault: Fault, mode: str) -> str:
    """What a call answers while the limiters table fails."""
    expected = LIMITER[call]
    if fault is Fault.FLOODED:
        return expected.flooded
    return expected.open if mode == "fail-open" else expected.closed


def store_answer(call: str, fault: Fault, table: str) -> str:
    """What a call answers while another table fails: in both modes the same, a flooded key included."""
    if table in OPTIONAL:
        return NORMAL[call]
    if call.startswith("subscribe"):
        return "STREAM_CONNECT_FAILED, retryable"
    return "503" if call == "handshake" else f"503 {CAUSES[fault]}"
