"""The WebSocket upstream, read with an independent client."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import websockets
from websockets.typing import Subprotocol

from tests.fake_upstreams.tools import CREDENTIALS, RunningUpstreams, run

QUERY = "?rate=200"


def test_the_same_sequence_as_text_messages(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with websockets.connect(f"{running.at.websocket_url}{QUERY}&after=0&count=3") as socket:
            messages = [message async for message in socket]
        assert messages == [
            '{"n":1,"upstream":"websocket","value":24.9}',
            '{"n":2,"upstream":"websocket","value":24.8}',
            '{"n":3,"upstream":"websocket","value":24.7}',
        ]
        assert socket.close_code == 1000
        report = await running.until("websocket", lambda report: report["now"] == 0)
        assert (report["ever"], report["messages"]) == (1, 3)
        assert (await running.report("sse"))["ever"] == 0

    run(tmp_path, test)


def test_the_subprotocol_is_echoed(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        offered = [Subprotocol("telemetry.v2"), Subprotocol("telemetry.v1")]
        async with websockets.connect(running.at.websocket_url, subprotocols=offered) as socket:
            assert socket.subprotocol == "telemetry.v2"
        async with websockets.connect(running.at.websocket_url) as socket:
            assert socket.subprotocol is None

    run(tmp_path, test)


def test_the_protected_path_asks_for_the_secret(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        url = f"{running.at.websocket_protected_url}{QUERY}"
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            with pytest.raises(websockets.InvalidStatus) as refused:
                await websockets.connect(url, additional_headers=headers)
            assert refused.value.response.status_code == 401
        right = {"Authorization": f"Bearer {CREDENTIALS.secret}"}
        async with websockets.connect(url, additional_headers=right) as socket:
            await socket.recv()
            report = await running.report("websocket")
            assert report["open"][0]["authorization"] is True
            assert report["places"]["/protected"]["refused"] == 2
            assert CREDENTIALS.secret not in json.dumps(report)

    run(tmp_path, test)


@pytest.mark.parametrize(("abrupt", "code"), [(False, 1001), (True, 1006)])
def test_drop_closes_in_order_or_abruptly(tmp_path: Path, abrupt: bool, code: int) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with websockets.connect(f"{running.at.websocket_url}{QUERY}") as socket:
            await socket.recv()
            assert (await running.fault("websocket", "drop", abrupt=abrupt))["closed"] == 1
            with pytest.raises(websockets.ConnectionClosed):
                while True:
                    await socket.recv()
            assert socket.close_code == code
        await running.until("websocket", lambda report: report["now"] == 0)

    run(tmp_path, test)


def test_stall_answers_no_ping_and_then_loses_nothing(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with websockets.connect(f"{running.at.websocket_url}{QUERY}", ping_interval=None) as socket:
            first = json.loads(await socket.recv())["n"]
            await running.fault("websocket", "stall")
            pong = await socket.ping()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await asyncio.shield(pong)
            await running.fault("websocket", "none")
            async with asyncio.timeout(5):
                await pong
            numbers = [json.loads(await socket.recv())["n"] for _ in range(60)]
            assert numbers == list(range(first + 1, first + 61))

    run(tmp_path, test)


def test_damaged_and_slow_messages(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        url = f"{running.at.websocket_url}{QUERY}&count=1"
        await running.fault("websocket", "garbage", **{"for": 1})
        async with websockets.connect(url) as socket:
            with pytest.raises(ValueError):
                json.loads(await socket.recv())
        await running.fault("websocket", "oversize", **{"for": 1})
        async with websockets.connect(url) as socket:
            assert len(await socket.recv()) > 131_072
        await running.fault("websocket", "slow", **{"for": 1})
        started = asyncio.get_running_loop().time()
        async with websockets.connect(url) as socket:
            pong = await socket.ping()  # its answer must not fall among the bytes of the message
            assert json.loads(await socket.recv())["upstream"] == "websocket"
            async with asyncio.timeout(5):
                await pong
        assert asyncio.get_running_loop().time() - started > 0.15

    run(tmp_path, test)


def test_drop_amid_a_slow_message_is_abrupt(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        await running.fault("websocket", "slow")
        async with websockets.connect(f"{running.at.websocket_url}{QUERY}") as socket:
            await socket.recv()
            await running.fault("websocket", "drop")
            with pytest.raises(websockets.ConnectionClosed):
                while True:
                    await socket.recv()
            assert socket.close_code in (1001, 1006)  # between two messages, or in one

    run(tmp_path, test)


def test_refuse_answers_its_status(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        await running.fault("websocket", "refuse", status=503)
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(running.at.websocket_url)
        assert refused.value.response.status_code == 503
        assert (await running.report("websocket"))["refused"] == 1

    run(tmp_path, test)


def test_connections_are_counted_while_they_last(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        sockets = [await websockets.connect(running.at.websocket_url) for _ in range(3)]
        report = await running.until("websocket", lambda report: report["now"] == 3)
        assert len({client["id"] for client in report["open"]}) == 3
        await asyncio.gather(*(socket.close() for socket in sockets))
        report = await running.until("websocket", lambda report: report["now"] == 0)
        assert report["places"]["/stream"]["ever"] == 3

    run(tmp_path, test)
