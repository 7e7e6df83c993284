"""The store of the limits gives no usable answer: nobody new is admitted, and nobody is ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import websockets

from local_stack.checks import CheckFailed, expect
from local_stack.drills.drill import Drill, Running
from local_stack.drills.looks import VALUE_S, counted, now_ms, receive, undisturbed, watched
from local_stack.relay_workers import API, BRIDGE
from local_stack.seed import Api
from local_stack.smoke.client import Smoke
from local_stack.smoke.scene import Scene
from local_stack.viewer import Viewer

_UNAVAILABLE = "503 limiter_unavailable"
#: How long it is watched that no value comes, seconds. A call of the bridge waits 15 for the quota.
_NONE_S = 3.0


async def drill(running: Running) -> None:
    smoke, seen = running.smoke, await watched(running)
    scene, guests, waiting = seen.scene, smoke.anonymous(), await smoke.viewer()
    token, since_ms = smoke.mint(guests, scene.demo), now_ms()
    running.damage.refuse_limiters()

    async def expects_doors(what: str, login: str, mint: str) -> None:
        await running.expects(f"a login is {what}", _answers(lambda: _login(smoke), login))
        await running.expects(f"a new session token is {what}", _answers(lambda: _mint(guests, scene), mint))

    await expects_doors("refused with 503", _UNAVAILABLE, _UNAVAILABLE)
    await running.expects("a subscribe is refused, and may come again", _subscribe_refused(waiting, scene, token))
    await running.expects("a handshake is refused", _handshake_refused(smoke))
    await running.expects("who watches may refresh the token", _subscribed(seen.guest, scene, token))
    # The quota of sends is in the same table, and fails closed.
    meanwhile = smoke.payload()
    await smoke.publish(scene.topic, meanwhile)
    await running.expects("a value waits, for the send quota", _none(seen.owner, meanwhile))
    await running.expects("who watches is not ended", undisturbed(seen.owner))
    await running.expects("the API counts why", counted(running, API, since_ms, "limiter", outcome="backend_error"))
    await running.expects(
        "the API counts what it made of it", counted(running, API, since_ms, "limiter", outcome="fail_closed")
    )
    await running.put_right()
    await running.expects("the value that waited comes", _comes(seen.owner, meanwhile))
    await expects_doors("admitted again", "200", "201")
    await running.expects("the connection that was refused subscribes", _subscribed(waiting, scene, token))
    await running.expects("a handshake is admitted again", _handshake(smoke))
    await running.expects("everybody is sent values", receive(smoke, scene, seen.guest, seen.owner, waiting))
    await running.expects(
        "the bridge counted why it waited", counted(running, BRIDGE, since_ms, "send_quota_unavailable")
    )


async def _answers(ask: Callable[[], str], wanted: str) -> str:
    answer = await asyncio.to_thread(ask)
    expect(answer == wanted, answer)
    return answer


def _login(smoke: Smoke) -> str:
    who = smoke.stack["users"]["viewer"]
    return _post(smoke.anonymous(), "/api/auth/login", {"email": who["email"], "password": who["password"]})


def _mint(api: Api, scene: Scene) -> str:
    demo = scene.demo
    body = {"dashboardId": demo["dashboardId"], "datasourceId": "telemetry", "shareToken": demo["shareToken"]}
    return _post(api, "/api/datasource-sessions", body)


def _post(api: Api, path: str, body: dict[str, str]) -> str:
    answer = api.request("POST", path, body)
    return f"{answer.status_code} {answer.json()['error']['code']}" if answer.is_error else str(answer.status_code)


async def _subscribed(viewer: Viewer, scene: Scene, token: str) -> str:
    ack = await viewer.subscribe(scene.demo["dashboardId"], "telemetry", token)
    expect(ack["ok"], f"{ack}")
    return "ack"


async def _subscribe_refused(viewer: Viewer, scene: Scene, token: str) -> str:
    ack = await viewer.subscribe(scene.demo["dashboardId"], "telemetry", token)
    expect(not ack["ok"] and ack["errorCode"] == "STREAM_RATE_LIMITED" and ack["retryable"], f"{ack}")
    return f"{ack['errorCode']}: {ack['message']}"


async def _handshake(smoke: Smoke) -> str:
    await (await smoke.viewer()).open_still()
    return "101"


async def _handshake_refused(smoke: Smoke) -> str:
    try:
        await smoke.viewer()
    except websockets.InvalidStatus as refused:
        return f"{refused.response.status_code}, which the emulator makes of every refusal"
    raise CheckFailed("101")


async def _none(viewer: Viewer, payload: object) -> str:
    try:
        await viewer.data(payload, _NONE_S)
    except TimeoutError:
        return f"none in {_NONE_S:.0f} s"
    raise CheckFailed("it came")


async def _comes(viewer: Viewer, payload: object) -> str:
    await viewer.data(payload, VALUE_S)
    return "it came"


DRILL = Drill("limiter-outage", "every function is refused the limits' table, as if it did not answer", 10, drill)
