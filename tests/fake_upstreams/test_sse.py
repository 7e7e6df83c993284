"""The SSE upstream over real HTTP."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path

import aiohttp
import pytest

from tests.fake_upstreams.tools import CREDENTIALS, FAST, RunningUpstreams, one_event, parse, run

BASIC = base64.b64encode(f"fixture:{CREDENTIALS.secret}".encode()).decode()
WRONG_BASIC = base64.b64encode(b"fixture:wrong").decode()


def test_events_are_numbered_and_known_beforehand(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with running.sse({**FAST, "count": "5"}, last=0) as stream:
            events = parse(await stream.read())
        assert events == [
            (1, b'{"n":1,"upstream":"sse","value":24.9}'),
            (2, b'{"n":2,"upstream":"sse","value":24.8}'),
            (3, b'{"n":3,"upstream":"sse","value":24.7}'),
            (4, b'{"n":4,"upstream":"sse","value":24.6}'),
            (5, b'{"n":5,"upstream":"sse","value":24.5}'),
        ]

    run(tmp_path, test)


def test_resuming_has_no_gap_and_no_repetition(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        seen: list[int] = []
        async with running.sse() as stream:
            while len(seen) < 10:
                seen.append((await one_event(stream))[0])
        async with running.sse() as other:  # the sequence goes on while the first is away
            while (await one_event(other))[0] < seen[-1] + 20:
                pass
        seen += await running.sse_numbers({**FAST, "count": "40"}, last=seen[-1])
        assert seen == list(range(seen[0], seen[0] + 50))
        assert (await running.report("sse"))["last_event_id"] == str(seen[9])

    run(tmp_path, test)


def test_a_reader_ahead_of_a_new_process_goes_on_where_it_was(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        assert await running.sse_numbers({**FAST, "count": "3"}, last=5_000) == [5_001, 5_002, 5_003]

    run(tmp_path, test)


def test_all_readers_see_one_sequence(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        streams = await asyncio.gather(*(running.sse_numbers({**FAST, "count": "20"}) for _ in range(5)))
        assert max(numbers[0] for numbers in streams) < min(numbers[-1] for numbers in streams)

    run(tmp_path, test)


def test_a_burst_comes_at_its_rate_whole_and_in_order(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        numbers = await running.sse_numbers({"rate": "500", "count": "500"})
        assert numbers == list(range(numbers[0], numbers[0] + 500))
        assert loop.time() - started > 0.9

    run(tmp_path, test)


def test_silence_is_filled_with_comments(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with running.sse({"interval_ms": "60000", "keep_alive_ms": "20"}) as stream:
            assert [await stream.readuntil(b"\n\n") for _ in range(3)] == [b": keep-alive\n\n"] * 3

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("headers", "query", "status"),
    [
        ({"Authorization": f"Bearer {CREDENTIALS.secret}"}, {}, 200),
        ({"Authorization": f"Basic {BASIC}"}, {}, 200),
        ({"X-Api-Key": CREDENTIALS.secret}, {}, 200),
        ({}, {"credential": CREDENTIALS.secret}, 200),
        ({}, {}, 401),
        ({"Authorization": "Bearer wrong"}, {}, 401),
        ({"Authorization": f"Basic {WRONG_BASIC}"}, {}, 401),
        ({"Authorization": "Basic no-base64"}, {}, 401),
        ({"Authorization": f"Digest {CREDENTIALS.secret}"}, {}, 401),
        ({"X-Api-Key": "é"}, {}, 401),
        ({}, {"credential": "wrong"}, 401),
        ({"Authorization": "Bearer wrong"}, {"credential": CREDENTIALS.secret}, 401),
    ],
)
def test_the_protected_path_asks_for_the_secret(
    tmp_path: Path, headers: dict[str, str], query: dict[str, str], status: int
) -> None:
    async def test(running: RunningUpstreams) -> None:
        query_all = {**FAST, "count": "1", **query}
        async with running.http.get(running.at.sse_protected_url, params=query_all, headers=headers) as answer:
            assert answer.status == status
        report = await running.report("sse")
        assert report["places"]["/protected"]["refused"] == (status == 401)
        assert CREDENTIALS.secret not in json.dumps(report)
        if status == 200:
            present = "Authorization" in headers
            assert report["authorization"] == {"with": int(present), "without": int(not present)}

    run(tmp_path, test)


def test_the_next_secret_is_admitted_beside_the_first_and_told_apart(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        url, shown = running.at.sse_protected_url, []
        for each in (CREDENTIALS, CREDENTIALS.next):
            async with running.http.get(url, headers={"Authorization": f"Bearer {each.secret}"}) as answer:
                assert answer.status == 200
                shown += [connection["next_secret"] for connection in (await running.report("sse"))["open"]]
            await running.until("sse", lambda report: not report["open"])
        assert shown == [False, True]

    run(tmp_path, test)


@pytest.mark.parametrize(
    "query", ["rate=0", "rate=1001", "rate=5&interval_ms=5", "count=x", "interval_ms=", "after=-1", "count=٣"]
)
def test_a_wrong_parameter_is_named(tmp_path: Path, query: str) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with running.http.get(f"{running.at.sse_url}?{query}") as answer:
            assert answer.status == 400
            assert query.partition("=")[0] in await answer.text()

    run(tmp_path, test)


def test_health_and_redirect(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with running.http.get(running.at.health_url) as answer:
            assert (answer.status, await answer.json()) == (200, {"status": "ok"})
        target = "http://169.254.169.254/latest"
        async with running.http.get(running.at.redirect_url, params={"to": target}, allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (302, target)
        async with running.http.get(running.at.redirect_url, params={"to": "a\r\nb"}, allow_redirects=False) as answer:
            assert answer.status == 400

    run(tmp_path, test)


def test_drop_ends_every_stream_in_order(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with running.sse() as first, running.sse() as second:
            await one_event(first)
            await one_event(second)
            assert (await running.fault("sse", "drop"))["closed"] == 2
            await asyncio.gather(first.read(), second.read())  # the end comes, and is no error
            report = await running.until("sse", lambda report: report["now"] == 0)
            assert report["fault"] == {"fault": "none", "left": None}
        assert len(await running.sse_numbers({**FAST, "count": "2"})) == 2

    run(tmp_path, test)


def test_an_abrupt_drop_breaks_the_stream(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with running.sse() as stream:
            await one_event(stream)
            await running.fault("sse", "drop", abrupt=True)
            with pytest.raises(aiohttp.ClientError):
                await stream.read()

    run(tmp_path, test)


def test_while_it_drops_whoever_comes_is_dropped(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        await running.fault("sse", "drop", **{"for": 30})
        async with running.sse() as stream:
            assert parse(await stream.read()) == []
        await running.fault("sse", "none")
        assert len(await running.sse_numbers({**FAST, "count": "2"})) == 2

    run(tmp_path, test)


def test_stall_keeps_open_sends_nothing_and_loses_nothing(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with running.sse({**FAST, "keep_alive_ms": "10"}) as stream:
            await running.fault("sse", "stall")
            before = (await running.report("sse"))["messages"]
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await asyncio.Event().wait()  # time in which 40 events fall due
            report = await running.report("sse")
            assert (report["now"], report["messages"]) == (1, before)
            await running.fault("sse", "none")
            numbers = [(await one_event(stream))[0] for _ in range(before + 45)]
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))

    run(tmp_path, test)


def test_garbage_is_not_json_and_counted(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        await running.fault("sse", "garbage", **{"for": 2})
        async with running.sse({**FAST, "count": "3"}) as stream:
            (_, first), (_, second), (number, third) = parse(await stream.read())
        for broken in (first, second):
            with pytest.raises(ValueError):
                json.loads(broken)
        assert json.loads(third)["n"] == number

    run(tmp_path, test)


def test_oversize_is_more_than_128_kib(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        await running.fault("sse", "oversize", **{"for": 1})
        async with running.sse({**FAST, "count": "2"}) as stream:
            (number, large), (_, small) = parse(await stream.read())
        assert len(large) > 131_072 and json.loads(large)["event"]["n"] == number
        assert len(small) < 100

    run(tmp_path, test)


def test_slow_is_a_byte_at_a_time(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        await running.fault("sse", "slow", **{"for": 1})
        pieces: list[bytes] = []
        async with running.sse({**FAST, "count": "1"}) as stream:
            async for piece in stream.iter_any():
                pieces.append(piece)
        assert len(pieces) > 20
        assert json.loads(parse(b"".join(pieces))[0][1])["upstream"] == "sse"

    run(tmp_path, test)


@pytest.mark.parametrize("status", [401, 503])
def test_refuse_answers_its_status_and_leaves_open_ones_alone(tmp_path: Path, status: int) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with running.sse() as stream:
            await running.fault("sse", "refuse", status=status)
            async with running.http.get(running.at.sse_url) as answer:
                assert answer.status == status
            for _ in range(5):
                await one_event(stream)
            report = await running.report("sse")
            assert (report["now"], report["ever"], report["refused"]) == (1, 1, 1)

    run(tmp_path, test)


def test_a_client_that_goes_is_noticed_at_once(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with running.sse({"interval_ms": "60000"}):
            report = await running.until("sse", lambda report: report["now"] == 1)
            assert report["open"][0]["places"] == ["/stream"]
        report = await running.until("sse", lambda report: report["now"] == 0)
        assert report["places"]["/stream"] == {"now": 0, "ever": 1, "refused": 0, "messages": 0}

    run(tmp_path, test)


def test_accept_close_answers_well_and_sends_nothing(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with running.sse() as stream:
            await running.fault("sse", "accept-close", **{"for": 30})
            await one_event(stream)  # who is connected stays so
            async with running.sse() as other:
                assert await other.read() == b""

    run(tmp_path, test)


def test_html_is_a_page_with_status_200(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        await running.fault("sse", "html")
        async with running.http.get(running.at.sse_url) as answer:
            assert (answer.status, answer.content_type) == (200, "text/html")

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("fault", "first_line"), [("poison-id", b"id: 1\x01"), ("long-id", b"id: " + b"1".zfill(9000))]
)
def test_ids_that_no_header_should_hold(tmp_path: Path, fault: str, first_line: bytes) -> None:
    async def test(running: RunningUpstreams) -> None:
        await running.fault("sse", fault, **{"for": 1})
        async with running.sse({**FAST, "count": "2"}, last=0) as stream:
            first, second = (await stream.read()).split(b"\n\n")[:2]
        assert first.split(b"\n")[0] == first_line and second.startswith(b"id: 2\n")

    run(tmp_path, test)


def test_a_refusal_says_when_to_come_back(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        await running.fault("sse", "refuse", status=503, retryAfter=20)
        async with running.http.get(running.at.sse_url) as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "20")
        await running.fault("sse", "refuse", status=204)
        async with running.http.get(running.at.sse_url) as answer:
            assert answer.status == 204 and "Retry-After" not in answer.headers
        order = {"upstream": "sse", "fault": "refuse", "retryAfter": -1}
        async with running.http.post(running.at.control_url, json=order) as answer:
            assert answer.status == 400 and "retryAfter" in await answer.text()

    run(tmp_path, test)


def test_empty_messages_have_an_id_and_no_content(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        await running.fault("sse", "empty", **{"for": 1})
        async with running.sse({**FAST, "count": "2"}, last=0) as stream:
            assert (await stream.read()).startswith(b"id: 1\ndata: \n\nid: 2\ndata: {")

    run(tmp_path, test)


def test_an_id_that_is_too_large_is_answered_with_431(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        async with running.http.get(running.at.sse_url, headers={"Last-Event-ID": "1".zfill(9_000)}) as answer:
            assert answer.status == 431
        assert (await running.report("sse"))["refused"] == 1

    run(tmp_path, test)
