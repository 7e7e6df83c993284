"""Revocation: each operation terminates the running guest's subscription by push, and never the valid one beside it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jwt
import pytest

from local_stack import schedule
from local_stack.checks import expect
from local_stack.deployment import client
from local_stack.feed import delete_event, newest_event
from local_stack.relay_workers import MESSAGES, LocalRelayWorkers
from local_stack.seed import LIVELY, Api, origin, stream
from local_stack.smoke.client import Note, Smoke
from local_stack.smoke.rows import row
from local_stack.smoke.scene import Scene
from local_stack.viewer import Frame, Viewer
from ops.full_revalidation import demand_full_revalidation
from tidegate.domain.revocations import Task, TaskKind
from tidegate.providers.control_plane import ControlPlaneProviders
from tidegate.tables import REVOCATIONS

#: How long a termination may take on the local stack, seconds.
WITHIN_S = 2.0
#: The same by poll: the schedule fires each minute and polls every five seconds within it, plus the termination itself.
POLL_WITHIN_S = 70.0
#: The same by a full revalidation that begins by itself, and by one that is asked for, seconds.
EXPIRED_WITHIN_S, ASKED_WITHIN_S = 10.0, 30.0
#: How long a short token lives, and how long after its expiry the viewer is told at the latest, seconds.
SHORT_LIFE_S, TOLD_WITHIN_S = 6, 15.0
#: How much longer is waited, seconds, to tell a late termination from none.
_LATE_S = 5.0


# --- by push -----------------------------------------------------------------------------------------------


def rotation(scene: Scene) -> None:
    scene.change("POST", "share-token:rotate")


def to_private(scene: Scene) -> None:
    scene.change("PUT", "visibility", {"visibility": "private"})


def deletion(scene: Scene) -> None:
    scene.change("DELETE", "")


def acl_removal(scene: Scene) -> None:
    scene.change("DELETE", f"acl/{scene.demo['memberId']}")


def signed_out_everywhere(scene: Scene) -> None:
    scene.smoke.sign_out_everywhere("viewer")


def broker_withdrawn(scene: Scene) -> None:
    body = scene.broker_body | {"allowPublicUse": False}
    scene.admin.call("PUT", f"/api/broker-profiles/{scene.broker_id}", body, {"If-Match": "1"})


@pytest.mark.parametrize(
    ("visibility", "operation"),
    [
        pytest.param("link", rotation, marks=row("terminated: share token rotated")),
        pytest.param("public", to_private, marks=row("terminated: visibility changed to private")),
        pytest.param("public", broker_withdrawn, marks=row("terminated: broker profile withdrawn from public use")),
        pytest.param("private", acl_removal, marks=row("terminated: ACL entry removed")),
        pytest.param("private", signed_out_everywhere, marks=row("terminated: signed out everywhere")),
        pytest.param("public", deletion, marks=row("terminated: dashboard deleted")),
    ],
)
async def test_terminated(smoke: Smoke, note: Note, visibility: str, operation: Callable[[Scene], object]) -> None:
    note(await terminated(smoke, visibility, operation, spared=operation is not deletion))


async def terminated(
    smoke: Smoke,
    visibility: str,
    operation: Callable[[Scene], object],
    *,
    within_s: float = WITHIN_S,
    spared: bool = True,
) -> str:
    """Run the operation; the guest must hear of it in time and keep its connection, and the owner must not.

    Returns how long it took, in words.
    """
    scene = Scene(smoke, visibility)
    api: Api = smoke.anonymous()
    if visibility == "private":
        api = smoke.user("viewer")
        scene.demo["memberId"] = scene.share_with_viewer()
    guest = await smoke.subscribed(smoke.mint(api, scene.demo), scene.demo)
    owner = await smoke.subscribed(smoke.mint(scene.owner, {"dashboardId": scene.demo["dashboardId"]}), scene.demo)
    first = smoke.payload()
    await smoke.publish(scene.topic, first)
    await asyncio.gather(guest.data(first), owner.data(first))
    started = time.monotonic()
    await asyncio.to_thread(operation, scene)
    error = await guest.until(lambda frame: frame["type"] == "error", within_s + _LATE_S)
    took = error["at"] - started
    expect(error["errorCode"] == "STREAM_AUTH_FAILED" and error["retryable"] is False, f"{error}")
    expect(took <= within_s, f"it took {took:.2f} s")
    await guest.until(lambda frame: frame["type"] == "status" and frame["status"] == "error")
    await guest.open_still()
    if spared:
        await asyncio.sleep(max(0.0, error["at"] + 1 - time.monotonic()))  # the very second the product promises
        second = smoke.payload()
        await smoke.publish(scene.topic, second)
        await owner.data(second)
        expect(not _errors(owner.frames), "the valid viewer was interrupted")
        expect(not _with_payload(guest.frames, second), "the guest received data")
    await guest.close()
    await owner.close()
    return f"after {took * 1000:.0f} ms"


async def _ended_times(viewer: Viewer, times: int) -> None:
    """Await that the viewer's subscription was ended so often."""

    def ended(_frame: Frame) -> bool:
        states = [frame for frame in viewer.frames if frame["type"] == "status" and frame["status"] == "error"]
        return len(states) >= times

    await viewer.until(ended, WITHIN_S + _LATE_S)


@row("terminated: the last subscription, and the connection stays")
async def test_the_connection_stays(smoke: Smoke, note: Note) -> None:
    """A page that lost everything gets it back without another handshake."""
    scene = Scene(smoke, "public")
    guest = await smoke.subscribed(smoke.mint(smoke.anonymous(), scene.demo), scene.demo)
    turns = 3
    for turn in range(1, turns + 1):
        await asyncio.to_thread(rotation, scene)
        await _ended_times(guest, turn)
        await guest.open_still()
        token = smoke.mint(smoke.anonymous(), scene.demo)
        ack = await guest.subscribe(scene.demo["dashboardId"], "telemetry", token)
        expect(ack["ok"], f"subscribe refused: {ack}")
        again = smoke.payload()
        await smoke.publish(scene.topic, again)
        await guest.data(again)
    await guest.close()
    note(f"{turns} times, one handshake")


@row("terminated: credential profile withdrawn from public use")
async def test_credential_withdrawn(smoke: Smoke, note: Note) -> None:
    """A datasource of the relay: the guest is terminated with the profile's public use, the owner goes on."""
    admin, owner = smoke.user("admin"), smoke.user("editor")
    secret = {"name": f"scene {time.time_ns()}", "type": "bearer", "allowPublicUse": True}
    secret |= {"secret": {"token": smoke.upstreams["secret"]}}
    secret |= {"destinations": [origin(smoke.upstreams["sse_protected_url"])]}
    profile = admin.call("POST", "/api/credential-profiles", secret)["id"]
    url = smoke.upstreams["sse_protected_url"] + LIVELY
    demo = smoke.dashboard(stream("sse", url, profile, "telemetry"), "public")
    guest, member = await smoke.viewer(), await smoke.viewer()
    for viewer, api in ((guest, smoke.anonymous()), (member, owner)):
        ack = await viewer.subscribe(demo["dashboardId"], "telemetry", smoke.mint(api, demo))
        expect(ack["ok"], f"subscribe refused: {ack}")
    await asyncio.gather(*(viewer.until(lambda frame: frame["type"] == "data") for viewer in (guest, member)))
    started = time.monotonic()
    withdrawn = {key: value for key, value in secret.items() if key != "secret"} | {"allowPublicUse": False}
    path = f"/api/credential-profiles/{profile}"
    await asyncio.to_thread(admin.call, "PUT", path, withdrawn, {"If-Match": "1"})
    error = await guest.until(lambda frame: frame["type"] == "error", WITHIN_S + _LATE_S)
    took = error["at"] - started
    expect(error["errorCode"] == "STREAM_AUTH_FAILED" and error["retryable"] is False, f"{error}")
    expect(took <= WITHIN_S, f"it took {took:.2f} s")
    await guest.open_still()
    await guest.close()
    seen = time.monotonic()
    await member.until(lambda frame: frame["type"] == "data" and frame["at"] > seen)
    expect(not _errors(member.frames), "the valid viewer was interrupted")
    await member.close()
    note(f"after {took * 1000:.0f} ms")


@row("terminated: a credential's destination taken away")
async def test_destination_taken_away(smoke: Smoke, note: Note) -> None:
    """Nobody keeps a stream whose credential may not go to its URL any longer, and no new one begins."""
    admin, owner = smoke.user("admin"), smoke.user("editor")
    url = smoke.upstreams["sse_protected_url"]
    profile = {"name": f"scene {time.time_ns()}", "type": "bearer", "destinations": [origin(url)]}
    made = admin.call("POST", "/api/credential-profiles", profile | {"secret": {"token": smoke.upstreams["secret"]}})
    demo = smoke.dashboard(stream("sse", url + LIVELY, made["id"], "telemetry"))
    viewer = await smoke.viewer()
    ack = await viewer.subscribe(demo["dashboardId"], "telemetry", smoke.mint(owner, demo))
    expect(ack["ok"], f"subscribe refused: {ack}")
    await viewer.until(lambda frame: frame["type"] == "data")
    started = time.monotonic()
    path, elsewhere = f"/api/credential-profiles/{made['id']}", profile | {"destinations": ["https://example.com"]}
    await asyncio.to_thread(admin.call, "PUT", path, elsewhere, {"If-Match": str(made["revision"])})
    error = await viewer.until(lambda frame: frame["type"] == "error", WITHIN_S + _LATE_S)
    took = error["at"] - started
    expect(took <= WITHIN_S, f"it took {took:.2f} s")
    expect(smoke.mint_status(owner, demo) == 404, "a token was minted")
    await viewer.close()
    note(f"after {took * 1000:.0f} ms")


# --- when the push is off ----------------------------------------------------------------------------------


@contextmanager
def push_off(smoke: Smoke) -> Iterator[None]:
    """No table's stream leads anywhere."""
    functions = client(smoke.config(), "lambda")
    mappings = [
        mapping["UUID"]
        for mapping in functions.list_event_source_mappings()["EventSourceMappings"]
        if ":dynamodb:" in mapping["EventSourceArn"]
    ]
    for mapping in mappings:
        functions.update_event_source_mapping(UUID=mapping, Enabled=False)
    try:
        yield
    finally:
        for mapping in mappings:
            functions.update_event_source_mapping(UUID=mapping, Enabled=True)


@row("terminated: by poll, with the stream switched off")
async def test_by_poll(smoke: Smoke, note: Note) -> None:
    """With the push switched off, the schedule's poll finds the event."""
    with push_off(smoke):
        note(await terminated(smoke, "link", rotation, within_s=POLL_WITHIN_S))


@row("terminated: when the token expires, within 15 s")
async def test_expired(smoke: Smoke, note: Note) -> None:
    """The viewer does nothing: the schedule's next look at what has expired ends the subscription."""
    # The stack's own schedule may have begun less than a minute ago, or have been paused by the row before.
    await asyncio.to_thread(LocalRelayWorkers(smoke.stack).schedule)
    note(f"{await told_of_expiry(smoke):.1f} s after the expiry")


@row("terminated: when the first viewer's token expires, within 15 s")
async def test_expired_at_rest(smoke: Smoke, note: Note) -> None:
    """The schedule rests and does not come. The viewer starts it, whose process knows nothing of it."""
    workers = LocalRelayWorkers(smoke.stack)
    with schedule.paused(smoke.stack), workers.settings({}, MESSAGES):  # with new processes
        schedule.nothing_queued(smoke.config(), smoke.stack, active_s=0)
        took = await told_of_expiry(smoke)
    note(f"{took:.1f} s after the expiry")


async def told_of_expiry(smoke: Smoke) -> float:
    """Subscribe with a token that expires soon, beside one that does not.

    Returns how long after the expiry the viewer was told, seconds.
    """
    demo = smoke.stack["demo"]["public"]
    minted = smoke.mint(smoke.anonymous(), demo)
    claims = jwt.decode(minted, options={"verify_signature": False})
    expires_at = int(time.time()) + SHORT_LIFE_S
    short = await smoke.subscribed(smoke.forge(**claims | {"exp": expires_at}), demo)
    usual = await smoke.subscribed(minted, demo)
    error = await short.until(lambda frame: frame["type"] == "error", SHORT_LIFE_S + TOLD_WITHIN_S + _LATE_S)
    took = error["at"] - time.monotonic() + time.time() - expires_at
    await short.until(lambda frame: frame["type"] == "status" and frame["status"] == "error")
    await short.open_still()
    await short.close()
    expect(error["reason"] == "expired" and error["retryable"] is True, f"{error}")
    expect(0 <= took <= TOLD_WITHIN_S, f"told {took:.2f} s after the expiry")
    expect(not _errors(usual.frames), "the valid viewer was interrupted")
    await usual.close()
    return float(took)


@row("terminated: by full revalidation, with stream and poll off")
async def test_by_full_revalidation(smoke: Smoke, note: Note) -> None:
    """With push and poll off, fan-out withholds within a second; a full revalidation then ends the subscription."""
    scene = Scene(smoke, "link")
    guest = await smoke.subscribed(smoke.mint(smoke.anonymous(), scene.demo), scene.demo)
    owner = await smoke.subscribed(smoke.mint(scene.owner, {"dashboardId": scene.demo["dashboardId"]}), scene.demo)
    first, second = smoke.payload(), smoke.payload()
    await smoke.publish(scene.topic, first)
    await asyncio.gather(guest.data(first), owner.data(first))
    with push_off(smoke), schedule.paused(smoke.stack):
        await asyncio.to_thread(rotation, scene)
        await asyncio.sleep(1)  # the very second the product promises
        await smoke.publish(scene.topic, second)
        await owner.data(second)
        expect(not _with_payload(guest.frames, second), "the guest received data")
        expect(not _errors(guest.frames), "something revalidated after all")
        started = time.monotonic()
        demand_full_revalidation(smoke.environment())
        error = await guest.until(lambda frame: frame["type"] == "error", ASKED_WITHIN_S)
        await guest.open_still()
    await guest.close()
    expect(error["retryable"] is False, f"{error}")
    expect(not _errors(owner.frames), "the valid viewer was interrupted")
    await owner.close()
    note(f"after {(error['at'] - started) * 1000:.0f} ms")


@row("terminated: by full revalidation at once when the cursor expired")
async def test_by_expired_cursor(smoke: Smoke, note: Note) -> None:
    """The event is gone before it was polled, as past its retention: a full revalidation comes at once."""
    with push_off(smoke), schedule.paused(smoke.stack):
        tables = client(smoke.config(), "dynamodb")
        name = smoke.stack["tables"][REVOCATIONS.variable]
        control = ControlPlaneProviders(smoke.environment())

        def rotate_and_forget(scene: Scene) -> None:
            rotation(scene)
            delete_event(tables, name, newest_event(tables, name))
            control.revalidations.queue(Task(TaskKind.POLL))

        note(await terminated(smoke, "link", rotate_and_forget, within_s=EXPIRED_WITHIN_S))


def _errors(frames: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [frame for frame in frames if frame["type"] == "error"]


def _with_payload(frames: list[dict[str, Any]], payload: object) -> list[dict[str, Any]]:
    return [frame for frame in frames if frame.get("payload") == payload]
