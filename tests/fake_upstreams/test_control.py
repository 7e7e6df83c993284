"""The control endpoint."""

from __future__ import annotations

from pathlib import Path

from tests.fake_upstreams.tools import FAST, RunningUpstreams, one_event, run


def test_wrong_orders_are_refused_and_change_nothing(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        for body, words in (
            ({"upstream": "carrier pigeon", "fault": "drop"}, "sse, websocket, mqtt"),
            ({"upstream": "sse", "fault": "explode"}, "none, drop"),
            ([], "JSON object"),
        ):
            async with running.http.post(running.at.control_url, json=body) as answer:
                assert answer.status == 400 and words in (await answer.json())["error"]
        async with running.http.post(
            running.at.control_url, data=b"{", headers={"Content-Type": "application/json"}
        ) as bad:
            assert bad.status == 400
        async with running.http.post(running.at.control_url, data={"upstream": "sse", "fault": "stall"}) as form:
            assert form.status == 415
        assert (await running.report("sse"))["fault"] == {"fault": "none", "left": None}

    run(tmp_path, test)


def test_a_fault_is_of_one_source_only_and_reported(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        await running.fault("websocket", "stall")
        async with running.sse() as stream:
            await one_event(stream)
        assert (await running.report("websocket"))["fault"] == {"fault": "stall", "left": None}
        assert (await running.report("sse"))["fault"] == {"fault": "none", "left": None}

    run(tmp_path, test)


def test_delete_forgets_faults_and_counters_but_not_who_is_connected(tmp_path: Path) -> None:
    async def test(running: RunningUpstreams) -> None:
        await running.sse_numbers({**FAST, "count": "2"}, last=1)
        async with running.sse() as stream:
            await one_event(stream)
            await running.fault("sse", "refuse")
            async with running.http.delete(running.at.control_url) as answer:
                assert answer.status == 204
            report = await running.report("sse")
            assert (report["now"], report["ever"], report["last_event_id"]) == (1, 1, None)
            assert report["places"]["/stream"]["now"] == 1
            assert report["fault"]["fault"] == "none"
        report = await running.until("sse", lambda report: report["now"] == 0)
        assert report["places"]["/stream"]["now"] == 0

    run(tmp_path, test)
