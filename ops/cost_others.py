"""The same load by others: AWS AppSync Events, IoT Core with browsers as its clients, and Ably.

They are not the same product. Each has its assumptions in words, and they are in favour of the other where there is a
choice: what has to be built beside it is named and not priced.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from ops.cost_load import DEVICE, Load
from ops.cost_model import FRAME_BYTES
from ops.prices import Prices

_KB, _GB = 1024, 1024**3
#: AppSync Events and IoT Core count messages in pieces of 5 KB.
_PIECE = 5 * _KB


class Other(NamedTuple):
    """Another way to carry the load. `lines`: price, quantity, what it is."""

    name: str
    lines: tuple[tuple[str, float, str], ...]
    assumptions: tuple[str, ...]

    def total(self, prices: Prices) -> float:
        """Dollars a month. Raises `KeyError` for a price that is not there."""
        quantities: dict[str, float] = {}
        for price, quantity, _ in self.lines:
            quantities[price] = quantities.get(price, 0.0) + quantity
        return sum(prices[price].of(quantity) for price, quantity in quantities.items())


def others(load: Load) -> tuple[Other, ...]:
    """All that are compared."""
    return _appsync(load), _iot(load), _ably(load)


def _pieces(load: Load) -> int:
    return max(1, math.ceil((load.value_bytes + FRAME_BYTES) / _PIECE))


def _minutes(load: Load) -> float:
    return load.viewers * load.watched_s / 60


def _ingest(load: Load) -> tuple[tuple[str, float, str], ...]:
    """Devices' values come by IoT Core in any case."""
    if load.protocol != DEVICE:
        return ()
    values = load.sources * load.updates * load.published_s
    return (
        ("iot_message", values * max(1, math.ceil(load.value_bytes / _PIECE)), "values of devices"),
        ("iot_minute", (load.devices or load.dashboards) * load.published_s / 60, "connected devices"),
    )


def _appsync(load: Load) -> Other:
    shown = min(load.updates, load.per_second) if load.per_second else load.updates
    values = load.sources * shown * load.watched_s
    delivered = load.viewers * load.datasources * shown * load.watched_s
    rules = (
        (("iot_rule", values, "values of devices"), ("iot_action", values, "values of devices"))
        if load.protocol == DEVICE
        else ()
    )
    return Other(
        "AWS AppSync Events",
        (
            *_ingest(load),
            *rules,
            ("appsync_operation", values * _pieces(load), "published"),
            ("appsync_operation", delivered * _pieces(load), "delivered"),
            ("appsync_operation", load.connections * (1 + load.datasources), "connects and subscribes"),
            ("appsync_minute", _minutes(load), "open connections"),
            ("transfer_gb", delivered * (load.value_bytes + FRAME_BYTES) / _GB, "values to viewers"),
        ),
        (
            "A channel for each datasource; one operation for each value in, and one for each viewer it goes to.",
            (
                "Whoever publishes conflates as this load does and publishes only what somebody watches. That "
                "program, and the one that holds upstreams, are yours to build and to pay."
            ),
            (
                "No authorizer function, no last value, no history, no end of a subscription whose right is "
                "withdrawn: a connection stays until it is closed."
            ),
            "The price of an operation is for Ireland; us-east-1 is taken to have the same.",
        ),
    )


def _iot(load: Load) -> Other:
    delivered = load.viewers * load.datasources * load.updates * load.watched_s
    values = load.sources * load.updates * load.watched_s
    published = () if load.protocol == DEVICE else (("iot_message", values * _pieces(load), "published"),)
    return Other(
        "AWS IoT Core over WSS",
        (
            *_ingest(load),
            *published,
            ("iot_message", delivered * _pieces(load), "delivered"),
            ("iot_message", load.connections * (1 + load.datasources), "connects and subscribes"),
            ("iot_minute", _minutes(load), "open connections"),
            ("transfer_gb", delivered * (load.value_bytes + FRAME_BYTES) / _GB, "values to viewers"),
        ),
        (
            (
                "Browsers are MQTT clients of IoT Core and subscribe to topics themselves. Nothing conflates: "
                "every value goes to every viewer."
            ),
            "Rights are IoT policies. Who loses one keeps receiving until the connection is closed by your program.",
            (
                "No custom authorizer, no last value but by retained messages, no history; upstreams are not "
                "held. For upstreams, a program of yours publishes their values."
            ),
        ),
    )


def _ably(load: Load) -> Other:
    shown = min(load.updates, load.per_second) if load.per_second else load.updates
    values = load.sources * shown * load.watched_s
    delivered = load.viewers * load.datasources * shown * load.watched_s
    return Other(
        "Ably, Standard package",
        (
            *_ingest(load),
            ("ably_package", 1, "the package"),
            ("ably_message", values + delivered, "published and delivered"),
            ("ably_connection_minute", _minutes(load), "open connections"),
            ("ably_channel_minute", load.sources * load.watched_s / 60, "channels"),
        ),
        (
            (
                "Priced by consumption. Accounts that are opened now are priced by monthly active users, of "
                "whom each needs an id; what one costs is on their page and not here."
            ),
            (
                "A channel for each datasource; a message for each value in, and one for each viewer it goes "
                "to. Whoever publishes conflates as this load does. That program is yours."
            ),
            (
                "Discounts for volume, down to a fifth of the first price, are not modelled, so a large load "
                "costs less than is shown. Limits of the package, 2,500 messages a second and 10,000 "
                "connections, are not looked at."
            ),
            "Viewers' data is in the price. What leaves AWS on its way to Ably is not priced.",
        ),
    )
