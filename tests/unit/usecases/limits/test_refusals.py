"""A refusal says which limit it was, and when it makes sense to come back."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.containers.gateway import DASHBOARD, DATASOURCE, GatewayContainer
from tests.containers.public_viewers import default_settings
from tidegate.domain.budgets import CHANGES, new_subscriptions
from tidegate.errors import LimitReached
from tidegate.usecases.limits.message_budget import CHUNK


def says(container: GatewayContainer, kind: str, datasource: str, connection: str = "c") -> dict[str, object]:
    """The ack of a message about a datasource."""
    message = {"type": kind, "requestId": "r", "dashboardId": DASHBOARD, "datasourceId": datasource}
    token = container.token(datasource, viewer_id=None)
    container.handle(connection, json.dumps(message | {"sessionToken": token}))
    return next(frame for frame in reversed(container.sender.sent[connection]) if frame["type"] == "ack")


def left_s(container: GatewayContainer) -> int:
    """Seconds until the minute is over."""
    return 60 - int(container.clock.now()) % 60


# --- subscriptions that begin and end ---------------------------------------------------------------------------


def churned(connection_cap: int) -> GatewayContainer:
    """A connection that has begun as many subscriptions in this minute as it may. It has one of them."""
    container = GatewayContainer(per_connection=connection_cap)
    container.add_datasource("other", "a/c")
    container.open()
    for number in range(CHANGES * connection_cap):
        if number:
            says(container, "unsubscribe", DATASOURCE)
        assert says(container, "subscribe", DATASOURCE)["ok"], number
    return container


def test_a_connection_begins_so_many_subscriptions_in_a_minute() -> None:
    container = churned(3)
    refused = says(container, "subscribe", "other")
    text = "Too many new subscriptions on this connection: at most 12 in a minute"
    assert refused | {"timestamp": ""} == {
        "type": "ack",
        "requestId": "r",
        "datasourceId": "other",
        "ok": False,
        "errorCode": "STREAM_RATE_LIMITED",
        "message": f"{text}. Try again in {left_s(container)} seconds.",
        "retryable": True,
        "retryAfterMs": left_s(container) * 1000,
        "timestamp": "",
    }
    assert not container.sender.closed, "the connection stays, and so does what it watches"
    assert says(container, "subscribe", DATASOURCE)["ok"], "a refresh is not counted"
    assert says(container, "unsubscribe", DATASOURCE)["ok"]
    assert not says(container, "subscribe", DATASOURCE)["ok"], "ending one gives nothing back"
    assert container.observer.counts[("refusals", "new_subscriptions")] == 2
    container.clock.advance(left_s(container))
    assert says(container, "subscribe", "other")["ok"]


def test_a_new_connection_begins_anew() -> None:
    container = churned(3)
    container.open("again")
    assert says(container, "subscribe", "other", "again")["ok"]


def test_the_size_fits_the_other_defaults() -> None:
    """A page may show all that it may have, exchange it, and send each message twice, as clients do."""
    settings = default_settings()
    at_once = settings.max_subscriptions_per_connection
    assert new_subscriptions(at_once) >= 2 * at_once
    assert new_subscriptions(at_once) + CHUNK < settings.message_rate_limit_connection_per_min, "the first to refuse"


# --- what each limit says ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Refused:
    """A limit that is reached: by which settings, what happens before, and what the next subscribe is told.

    `wait_s`: seconds that are told as well; None when no waiting helps, 0 for the rest of the minute.
    """

    container: Callable[[], GatewayContainer]
    text: str
    wait_s: int | None


def full_connection() -> GatewayContainer:
    container = GatewayContainer(per_connection=1)
    container.add_datasource("other", "a/c")
    container.subscribed("late", "other")
    return container


def full_dashboard() -> GatewayContainer:
    container = GatewayContainer(per_dashboard=1)
    container.subscribed("first")
    container.open("late")
    return container


def busy_address() -> GatewayContainer:
    container = GatewayContainer(rate=1)
    for name in ("first", "late"):
        container.open(name)
    container.subscribe("first", DASHBOARD, DATASOURCE, container.token())
    return container


def busy_dashboard() -> GatewayContainer:
    container = GatewayContainer(rate=2)
    for number in range(2):
        container.open(f"c{number}", f"ip{number}")
        container.subscribe(f"c{number}", DASHBOARD, DATASOURCE, container.token(viewer_id=None))
    container.open("late", "ip3")
    return container


@pytest.mark.parametrize(
    "refused",
    [
        Refused(
            full_connection,
            "Realtime subscription limit reached for this connection: at most 1, so unsubscribe from another "
            "datasource first",
            None,
        ),
        Refused(full_dashboard, "Realtime dashboard connection limit reached: at most 1 connections", 60),
        Refused(
            busy_address, "Too many public realtime subscribe requests from this address: at most 1 in a minute", 0
        ),
        Refused(
            busy_dashboard, "Too many public realtime subscribe requests for this dashboard: at most 2 in a minute", 0
        ),
    ],
    ids=lambda refused: refused.container.__name__,
)
def test_a_subscribe_is_told_which_limit_and_when_to_come_back(refused: Refused) -> None:
    container = refused.container()
    told = says(container, "subscribe", DATASOURCE, "late")
    assert (told["ok"], told["errorCode"], told["retryable"]) == (
        False,
        "STREAM_RATE_LIMITED",
        refused.wait_s is not None,
    )
    if refused.wait_s is None:
        assert told["message"] == refused.text and "retryAfterMs" not in told
        return
    seconds = refused.wait_s or left_s(container)
    assert told["message"] == f"{refused.text}. Try again in {seconds} seconds."
    assert told["retryAfterMs"] == seconds * 1000


def test_too_many_messages_say_when_to_come_back() -> None:
    container = GatewayContainer()
    container.open()
    for _ in range(600 + CHUNK):
        container.handle("c", "garbage")
    told = container.sender.sent["c"][-1]
    assert told["retryAfterMs"] == left_s(container) * 1000


@pytest.mark.parametrize(
    ("wait_ms", "text"),
    [(None, "Full"), (1, "Full. Try again in 1 second."), (1001, "Full. Try again in 2 seconds.")],
)
def test_the_text_has_the_seconds(wait_ms: int | None, text: str) -> None:
    refused = LimitReached("Full", retry_after_ms=wait_ms)
    assert (refused.message, refused.refusal) == (text, "Full")
