"""The Python client against a server of the protocol: its states, its order, and what it asks when it is refused."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from tests.clients.server import ALLOWED, Frame, Server, accept, refused, serving
from tidegate_client import Dashboard, DashboardState, Datasource, DatasourceState, Ended, Refused
from tidegate_client.dashboard import Timing

pytestmark = pytest.mark.anyio

#: A second of the product is a hundredth of one here, as far as the client decides it.
QUICK = Timing(tick=0.01, ping_after=0.2, pong=0.1, open=1.0, ack=0.2, stable=0.1, soonest=0.05)
_WAIT_S = 10.0


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving(Server()) as made:
        yield made


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses without an order of the server are a hundredth."""
    monkeypatch.setattr("tidegate_client.backoff._FIRST_S", 0.01)
    monkeypatch.setattr("tidegate_client.backoff._MOST_S", 0.3)


def board(server: Server, **options: Any) -> Dashboard:
    settings: dict[str, Any] = {"share_token": "share", "timing": QUICK} | options
    return Dashboard(server.url, "dash", **settings)


async def until(condition: Callable[[], object]) -> None:
    """Await a condition. Raises `TimeoutError`."""
    async with asyncio.timeout(_WAIT_S):
        while not condition():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def live(server: Server, **options: Any) -> AsyncIterator[tuple[Dashboard, Datasource]]:
    async with board(server, **options) as dashboard:
        temp = dashboard.datasource("temp")
        await until(lambda: temp.state is DatasourceState.LIVE)
        yield dashboard, temp


async def test_values_come_in_the_order_in_which_they_were_sent(server: Server) -> None:
    async with live(server) as (_, temp):
        for payload in (1, 2, 3):
            await server.value(payload)
        got = []
        async with asyncio.timeout(_WAIT_S):
            async for sample in temp:
                got.append(sample.value)
                if len(got) == 1:
                    await server.value(4)
                if sample.value == 4:
                    break
        assert got[-1] == 4 and got == sorted(got)
        assert [sample.value for sample in temp.samples] == [1, 2, 3, 4]
    assert server.asked[0] == ("session", {"shareToken": "share"})


async def test_a_loop_ends_with_the_dashboard(server: Server) -> None:
    async with live(server) as (dashboard, temp):
        loop = asyncio.create_task(_all(temp))
        await server.value(1)
        await until(lambda: temp.samples)
    assert await loop == [1]
    assert dashboard.state is DashboardState.IDLE


async def _all(datasource: Datasource) -> list[Any]:
    return [sample.value async for sample in datasource]


async def test_nothing_is_opened_before_something_is_watched(server: Server) -> None:
    async with board(server) as dashboard:
        await asyncio.sleep(0)
        assert server.asked == []
        dashboard.datasource("temp")
        await until(lambda: dashboard.state is DashboardState.LIVE)
        other = dashboard.datasource("other")
        await until(lambda: other.state is DatasourceState.LIVE)
    assert [message["datasourceIds"] for message in server.subscribes] == [["temp"], ["other"]]
    assert server.count("handshake") == 1


async def test_older_values_and_equal_ones_are_dropped_and_what_was_taken_back_is_gone(server: Server) -> None:
    async with live(server) as (_, temp):
        loop = asyncio.create_task(_all(temp))
        await server.value(2, seq="2")
        await server.value(1, seq="1")
        await server.value(2, seq="2")
        await until(lambda: temp.latest)
        await server.value(None, seq="3", deleted=True)
        await until(lambda: temp.latest is None)
        await server.value(4, seq="4")
        await until(lambda: temp.latest)
    assert await loop == [2, None, 4]


async def test_each_topic_is_a_series_of_its_own(server: Server) -> None:
    async with live(server) as (_, temp):
        await server.value(1, topic="a", seq="5")
        await server.value(2, topic="b", seq="1")
        await until(lambda: len(temp.series) == 2)
        assert {topic: series.latest.value for topic, series in temp.series.items() if series.latest} == {
            "a": 1,
            "b": 2,
        }


async def test_dropped_it_asks_for_what_came_since_and_marks_the_gap_until_it_is_filled(server: Server) -> None:
    async with live(server) as (dashboard, temp):
        await server.value(1, seq="1")
        await until(lambda: temp.samples)
        await server.socket.close()
        await until(lambda: len(server.subscribes) == 2 and temp.state is DatasourceState.LIVE)
        assert server.subscribes[1]["since"] == {"temp": "1"}
        await server.value(2, seq="2")
        await until(lambda: len(temp.samples) == 2)
        assert [sample.gap for sample in temp.samples] == [False, True]
        await server.push({"type": "history", "datasourceId": "temp", "points": [], "end": True, "recovered": True})
        await until(lambda: not temp.samples[1].gap)
        assert dashboard.state is DashboardState.LIVE


async def test_a_history_is_merged_without_doubles(server: Server) -> None:
    async with live(server) as (dashboard, temp):
        await server.value(7, seq="7", timestamp="2027-01-15T08:00:07.500Z")
        await until(lambda: temp.samples)
        server.points = [
            {"at": "2027-01-15T08:00:07.000Z", "least": 6, "most": 7, "last": 7, "seq": "7"},
            {"at": "2027-01-15T08:00:06.000Z", "least": 5, "most": 5, "last": 5, "seq": "5"},
        ]
        samples = await dashboard.history("temp")
        assert [(sample.value, sample.bucket) for sample in samples] == [(5, True), (7, True)]
        assert temp.latest is not None and temp.latest.value == 7


async def test_a_slow_loop_loses_the_oldest_and_is_told(server: Server) -> None:
    async with live(server, capacity=3) as (_, temp):
        loop = aiter(temp)
        await server.value(0)
        first = await anext(loop)
        for payload in range(1, 10):
            await server.value(payload)
        await until(lambda: temp.latest and temp.latest.value == 9)
        assert first.value == 0
        assert [((got := await anext(loop)).value, got.gap) for _ in range(3)] == [(7, True), (8, False), (9, False)]
        assert not any(sample.gap for sample in temp.samples)


async def test_a_value_is_stale_after_a_while(server: Server) -> None:
    async with board(server) as dashboard:
        temp = dashboard.datasource("temp", stale_after=60)
        await until(lambda: temp.state is DatasourceState.LIVE)
        await server.value(1, timestamp=server.now(timedelta(seconds=-61)))
        await until(lambda: temp.samples)
        assert temp.state is DatasourceState.STALE


async def test_the_state_of_the_upstream_is_that_of_the_datasource(server: Server) -> None:
    async with live(server) as (_, temp):
        fault = {"errorCode": "STREAM_CONNECT_REFUSED", "message": "Upstream rejected connection"}
        await server.push({"type": "status", "datasourceId": "temp", "status": "error", **fault})
        await until(lambda: temp.state is DatasourceState.ERROR)
        assert (temp.reason, temp.message) == tuple(fault.values())
        await server.push({"type": "status", "datasourceId": "temp", "status": "connected"})
        await until(lambda: temp.state is DatasourceState.LIVE)
        assert temp.reason is None


async def test_a_saved_document_is_told_once_and_never_backwards(server: Server) -> None:
    told: list[int] = []
    async with live(server, on_document=told.append) as (dashboard, temp):
        for revision in (8, 8, 7, 9):
            await server.push({"type": "document", "dashboardId": "dash", "revision": revision})
        await server.value(1)
        await until(lambda: temp.samples)
        assert (told, dashboard.revision) == ([8, 9], 9)


async def test_a_silent_connection_is_asked_and_one_that_does_not_answer_is_replaced(server: Server) -> None:
    async with live(server) as (_, temp):
        await until(lambda: server.pings >= 2)
        assert server.count("handshake") == 1
        server.deaf = True
        await until(lambda: server.count("handshake") == 2)
        server.deaf = False
        await until(lambda: temp.state is DatasourceState.LIVE)


async def test_a_lost_ack_is_made_up_for(server: Server) -> None:
    server.on_subscribe = lambda *_: []
    async with board(server) as dashboard:
        temp = dashboard.datasource("temp")
        await until(lambda: server.subscribes)
        server.on_subscribe = accept
        await until(lambda: temp.state is DatasourceState.LIVE)
        assert server.count("handshake") == 1


async def test_a_token_is_refreshed_in_time_with_the_one_before(server: Server) -> None:
    server.life = timedelta(seconds=0.5)
    async with live(server):
        await until(lambda: len(server.subscribes) >= 3)
    assert server.asked[2] == ("session", {"shareToken": "share", "currentToken": "token-1"})
    assert [message["sessionToken"] for message in server.subscribes[:3]] == ["token-1", "token-2", "token-3"]
    assert server.count("handshake") == 1


@pytest.mark.parametrize("ahead", [timedelta(hours=1), timedelta(hours=-1)])
async def test_a_clock_that_is_wrong_by_an_hour_costs_nothing(server: Server, ahead: timedelta) -> None:
    server.ahead = ahead
    async with live(server) as (dashboard, temp):
        await server.value(1, timestamp=server.now())
        await until(lambda: temp.latest)
        assert temp.latest is not None
        assert abs((dashboard.server_time - temp.latest.at).total_seconds()) < 30
        await until(lambda: server.pings >= 2)
    assert server.count("session") == 1


async def test_a_sleep_is_noticed_by_the_clock_that_went_on(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async with live(server) as (dashboard, temp):
        before, real = dashboard.server_time, time.time
        server.deaf = True
        monkeypatch.setattr("tidegate_client.dashboard.time.time", lambda: real() + 90)
        await until(lambda: server.count("handshake") == 2)
        server.deaf = False
        await until(lambda: temp.state is DatasourceState.LIVE)
        assert server.count("session") == 2
        assert dashboard.server_time > before


async def test_while_tokens_cannot_be_got_it_waits_longer_and_longer_and_opens_nothing(server: Server) -> None:
    server.session = lambda: (503, {"error": {"code": "unavailable", "message": "Later"}})
    async with board(server) as dashboard:
        temp = dashboard.datasource("temp")
        await until(lambda: server.count("session") >= 4)
        assert dashboard.reason in ("unavailable", None)
        assert server.count("handshake") == 0
        server.session = None
        await until(lambda: temp.state is DatasourceState.LIVE)


async def test_429_is_waited_out(server: Server) -> None:
    error = {"code": "rate_limited", "message": "Too many", "retryAfterMs": 500}
    server.session = lambda: (429, {"error": error})
    async with board(server) as dashboard:
        dashboard.datasource("temp")
        await until(lambda: dashboard.state is DashboardState.WAITING)
        assert dashboard.reason == "rate_limited" and (dashboard.retry_in or 0) > 0.3
        server.session = None
        await until(lambda: dashboard.state is DashboardState.LIVE)
    assert server.count("session") == 2


async def test_a_denied_token_ends_it_with_a_typed_error(server: Server) -> None:
    server.session = lambda: (403, {"error": {"code": "denied", "message": "This link no longer works"}})
    async with board(server) as dashboard:
        with pytest.raises(Ended) as ended:
            await _all(dashboard.datasource("temp"))
        assert (ended.value.code, ended.value.message) == ("denied", "This link no longer works")
        assert dashboard.state is DashboardState.ENDED
        with pytest.raises(Ended):
            await dashboard.changed()
        with pytest.raises(Ended):
            await _all(dashboard.datasource("another"))
    assert server.asked == [("session", {"shareToken": "share"})]


async def test_a_page_of_a_proxy_denies_nothing(server: Server) -> None:
    server.session = lambda: (404, {})
    async with board(server) as dashboard:
        dashboard.datasource("temp")
        await until(lambda: dashboard.state is DashboardState.WAITING)
        assert (dashboard.reason, dashboard.message) == ("network", "The server answered 404")


async def test_a_refused_handshake_is_asked_about(server: Server) -> None:
    server.handshake = 429
    limit = refused("STREAM_RATE_LIMITED", "Too many connections", retryable=True, retry_after_ms=60_000)
    server.verdict = {"connect": limit, "subscribe": None}
    async with board(server) as dashboard:
        dashboard.datasource("temp")
        await until(lambda: dashboard.state is DashboardState.WAITING)
        assert dashboard.reason == "STREAM_RATE_LIMITED" and (dashboard.retry_in or 0) > 50
    assert (server.count("handshake"), server.count("realtime")) == (1, 1)


async def test_a_handshake_that_is_refused_for_good_ends_it_after_one_question(server: Server) -> None:
    server.handshake = 404
    server.verdict = {
        "connect": refused("STREAM_POLICY_BLOCKED", "Realtime is off", retryable=False),
        "subscribe": None,
    }
    async with board(server) as dashboard:
        with pytest.raises(Ended, match="Realtime is off"):
            await _all(dashboard.datasource("temp"))
    assert (server.count("handshake"), server.count("realtime")) == (1, 1)


REVOKED: Frame = {
    "type": "error",
    "datasourceId": "temp",
    "reason": "revoked",
    "retryable": False,
    "message": "Revoked",
}


async def test_revoked_it_ends_after_one_question(server: Server) -> None:
    async with live(server) as (dashboard, temp):
        denied = refused("STREAM_AUTH_FAILED", "No", retryable=False)
        server.verdict = {"connect": ALLOWED, "subscribe": denied}
        await server.push(REVOKED)
        with pytest.raises(Ended, match="Revoked"):
            await _all(temp)
        await until(lambda: dashboard.state is DashboardState.ENDED)
        assert dashboard.reason == "revoked"
    assert (server.count("session"), server.count("realtime"), server.count("handshake")) == (1, 1, 1)


async def test_what_is_allowed_after_all_is_tried_once_more(server: Server) -> None:
    async with live(server) as (_, temp):
        await server.push(REVOKED)
        await until(lambda: len(server.subscribes) == 2 and temp.state is DatasourceState.LIVE)
        assert server.count("realtime") == 1


async def test_a_refusal_for_good_of_one_datasource_ends_that_one(server: Server) -> None:
    no: Frame = {"type": "ack", "ok": False, "errorCode": "STREAM_POLICY_BLOCKED", "message": "No", "retryable": False}
    server.on_subscribe = lambda each, message: (
        [no | {"datasourceId": each}] if each == "gone" else accept(each, message)
    )
    async with live(server) as (dashboard, temp):
        with pytest.raises(Ended, match="No"):
            await _all(dashboard.datasource("gone"))
        assert (dashboard.state, temp.state) == (DashboardState.LIVE, DatasourceState.LIVE)
    assert server.count("realtime") == 1
    assert len(server.subscribes) == 3  # temp; gone; gone once more, because it was said to be allowed


async def test_an_expired_token_is_replaced_at_once(server: Server) -> None:
    async with live(server) as (_, temp):
        expired = {
            "type": "error",
            "datasourceId": "temp",
            "reason": "expired",
            "retryable": True,
            "message": "expired",
        }
        await server.push(expired)
        await until(lambda: len(server.subscribes) == 2 and temp.state is DatasourceState.LIVE)
        assert server.subscribes[1]["sessionToken"] == "token-2"
        assert server.count("session") == 2


async def test_a_changed_datasource_begins_anew(server: Server) -> None:
    async with live(server) as (_, temp):
        await server.value(1, seq="9")
        await until(lambda: temp.samples)
        changed = {
            "type": "error",
            "datasourceId": "temp",
            "reason": "changed",
            "retryable": True,
            "message": "changed",
        }
        await server.push(changed)
        await until(lambda: len(server.subscribes) == 2 and temp.state is DatasourceState.LIVE)
        assert server.subscribes[1]["since"] == {}
        await server.value(2, seq="1")
        await until(lambda: temp.samples)
        assert [sample.value for sample in temp.samples] == [2]


async def test_a_limit_is_waited_for_by_the_datasource_alone(server: Server) -> None:
    limit: Frame = {
        "type": "ack",
        "ok": False,
        "errorCode": "STREAM_RATE_LIMITED",
        "message": "Too many",
        "retryable": True,
    }
    server.on_subscribe = lambda each, message: (
        [limit | {"datasourceId": each, "retryAfterMs": 60_000}] if each == "busy" else accept(each, message)
    )
    async with live(server) as (dashboard, temp):
        busy = dashboard.datasource("busy")
        await until(lambda: busy.state is DatasourceState.ERROR)
        assert (busy.reason, temp.state) == ("STREAM_RATE_LIMITED", DatasourceState.LIVE)
        await until(lambda: server.pings >= 1)
    assert len(server.subscribes) == 2
    assert server.count("session") == 1


async def test_a_limit_of_messages_closes_the_connection_for_as_long_as_was_said(server: Server) -> None:
    async with live(server) as (dashboard, _):
        limit = {"type": "error", "datasourceId": None, "reason": "limit", "retryable": True, "retryAfterMs": 60_000}
        await server.push(limit)
        await until(lambda: dashboard.state is DashboardState.WAITING)
        assert dashboard.reason == "limit" and (dashboard.retry_in or 0) > 50


async def test_a_message_that_names_too_many_is_sent_in_smaller_ones(server: Server) -> None:
    def two_at_most(each: str, message: Frame) -> list[Frame]:
        ids = message["datasourceIds"]
        if len(ids) <= 2:
            return accept(each, message)
        return [{"type": "ack", "datasourceId": None, "ok": False, "retryable": False}] if each == ids[0] else []

    server.on_subscribe = two_at_most
    async with board(server) as dashboard:
        all_of_them = [dashboard.datasource(f"d{number}") for number in range(5)]
        await until(lambda: all(each.state is DatasourceState.LIVE for each in all_of_them))
    assert max(len(message["datasourceIds"]) for message in server.subscribes[1:]) == 1


async def test_a_token_of_ones_own_and_its_faults(server: Server) -> None:
    async def fails(_current: str | None) -> Any:
        raise RuntimeError("no such file")

    async with board(server, session=fails) as dashboard:
        dashboard.datasource("temp")
        await until(lambda: dashboard.state is DashboardState.WAITING)
        assert (dashboard.reason, dashboard.message) == ("session_failed", "no such file")


async def test_a_history_that_is_not_kept_is_refused(server: Server) -> None:
    async with live(server) as (dashboard, _):
        server.points = None
        with pytest.raises(Refused) as error:
            await dashboard.history("temp")
        assert (error.value.code, error.value.retryable) == ("no_history", False)


def test_an_address_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="http"):
        Dashboard("live.example.com", "dash")
