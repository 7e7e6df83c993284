"""Smoke checks of revocation: each operation cuts the running viewer by push, and never the valid one beside it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from local_stack.checks import expect
from local_stack.config import Config
from local_stack.deployment import client
from local_stack.seed import LIVELY, Api, document, mqtt, stream
from ops.full_revalidation import demand_full_revalidation
from tidegate.domain.revocations import Task, TaskKind
from tidegate.providers.control_plane import ControlPlane
from tidegate.tables import REVOCATIONS

if TYPE_CHECKING:
    from local_stack.smoke import Smoke

#: How long a cut may take on the local stack, seconds.
WITHIN_S = 2.0
#: The same by poll: the schedule fires each minute and polls every five seconds within it, plus the cut itself.
POLL_WITHIN_S = 70.0


class Scene:
    """A dashboard of its own with a broker profile of its own, watched by a guest and by its owner."""

    def __init__(self, smoke: Smoke, visibility: str) -> None:
        self.smoke = smoke
        self.admin, self.owner = smoke.user("admin"), smoke.user("editor")
        self.broker_body = {"name": f"scene {time.time_ns()}", "transport": "iot-core", "allowPublicUse": True}
        self.broker_id = self.admin.call("POST", "/api/broker-profiles", self.broker_body)["id"]
        self.topic = f"demo/scene/{time.time_ns()}"
        made = self.owner.call(
            "POST", "/api/dashboards", document("Scene", [mqtt("telemetry", self.broker_id, self.topic)])
        )
        if visibility != "private":
            made = self.change("PUT", "visibility", {"visibility": visibility}, made["id"])
        self.demo: dict[str, Any] = {"dashboardId": made["id"]}
        if visibility == "link":
            self.demo["shareToken"] = made["shareToken"]

    def change(self, method: str, what: str, body: dict[str, Any] | None = None, one: str | None = None) -> Any:
        path = f"/api/dashboards/{one or self.demo['dashboardId']}"
        return self.owner.call(method, f"{path}/{what}" if what else path, body)

    def share_with_viewer(self) -> str:
        email = self.smoke.stack["users"]["viewer"]["email"]
        self.change("PUT", "acl", {"email": email, "level": "viewer"})
        return str(self.smoke.user("viewer").call("GET", "/api/users/me")["id"])


async def credential_withdrawn(smoke: Smoke) -> str:
    """A datasource of the relay: the guest is terminated with the profile's public use, the owner goes on."""
    admin, owner = smoke.user("admin"), smoke.user("editor")
    secret = {"name": f"scene {time.time_ns()}", "type": "bearer", "allowPublicUse": True}
    secret |= {"secret": {"token": smoke.stack["fake_upstreams"]["secret"]}}
    profile = admin.call("POST", "/api/credential-profiles", secret)["id"]
    url = smoke.stack["fake_upstreams"]["sse_protected_url"] + LIVELY
    source = stream("sse", url, profile, "telemetry")
    made = owner.call("POST", "/api/dashboards", document("Scene", [source]))
    owner.call("PUT", f"/api/dashboards/{made['id']}/visibility", {"visibility": "public"})
    demo = {"dashboardId": made["id"]}
    guest, member = await smoke.viewer(), await smoke.viewer()
    for viewer, api in ((guest, smoke.anonymous()), (member, owner)):
        ack = await viewer.subscribe(made["id"], "telemetry", smoke.mint(api, demo))
        expect(ack["ok"], f"subscribe refused: {ack}")
    await asyncio.gather(*(viewer.until(lambda frame: frame["type"] == "data") for viewer in (guest, member)))
    started = time.monotonic()
    withdrawn = {key: value for key, value in secret.items() if key != "secret"} | {"allowPublicUse": False}
    await asyncio.to_thread(admin.call, "PUT", f"/api/credential-profiles/{profile}", withdrawn)
    error = await guest.until(lambda frame: frame["type"] == "error", WITHIN_S + 5)
    took = error["at"] - started
    expect(error["errorCode"] == "STREAM_AUTH_FAILED" and error["retryable"] is False, f"{error}")
    expect(took <= WITHIN_S, f"it took {took:.2f} s")
    await guest.closed()
    seen = time.monotonic()
    await member.until(lambda frame: frame["type"] == "data" and frame["at"] > seen)
    expect(not [one for one in member.frames if one["type"] == "error"], "the valid viewer was interrupted")
    await member.close()
    return f"cut after {took * 1000:.0f} ms"


async def cut(
    smoke: Smoke,
    visibility: str,
    operation: Callable[[Scene], object],
    *,
    within_s: float = WITHIN_S,
    spared: bool = True,
) -> str:
    """Run the operation; the guest must hear of it in time and lose its connection, the owner must not."""
    scene = Scene(smoke, visibility)
    api: Api = smoke.anonymous()
    member = scene.share_with_viewer() if visibility == "private" else ""
    if member:
        api = smoke.user("viewer")
        scene.demo["memberId"] = member
    guest = await smoke.subscribed(smoke.mint(api, scene.demo), scene.demo)
    owner = await smoke.subscribed(smoke.mint(scene.owner, scene.demo, link=False), scene.demo)
    first = smoke.payload()
    await smoke.publish(scene.topic, first)
    await asyncio.gather(guest.data(first), owner.data(first))
    started = time.monotonic()
    await asyncio.to_thread(operation, scene)
    error = await guest.until(lambda frame: frame["type"] == "error", within_s + 5)
    took = error["at"] - started
    expect(error["errorCode"] == "STREAM_AUTH_FAILED" and error["retryable"] is False, f"{error}")
    expect(took <= within_s, f"it took {took:.2f} s")
    await guest.until(lambda frame: frame["type"] == "status" and frame["status"] == "error")
    await guest.closed()
    if spared:
        second = smoke.payload()
        await smoke.publish(scene.topic, second)
        await owner.data(second)
        expect(not [one for one in owner.frames if one["type"] == "error"], "the valid viewer was interrupted")
        expect(not [one for one in guest.frames if one.get("payload") == second], "the guest received data")
    await owner.close()
    return f"cut after {took * 1000:.0f} ms"


def rotation(scene: Scene) -> None:
    scene.change("POST", "share-token:rotate")


def to_private(scene: Scene) -> None:
    scene.change("PUT", "visibility", {"visibility": "private"})


def deletion(scene: Scene) -> None:
    scene.change("DELETE", "")


def acl_removal(scene: Scene) -> None:
    scene.change("DELETE", f"acl/{scene.demo['memberId']}")


def broker_withdrawn(scene: Scene) -> None:
    body = scene.broker_body | {"allowPublicUse": False}
    scene.admin.call("PUT", f"/api/broker-profiles/{scene.broker_id}", body)


@contextmanager
def switched_off(smoke: Smoke, *, poll: bool) -> Iterator[None]:
    """The push off, and with `poll` the schedule too, polls on their way included."""
    config = Config(endpoint=smoke.stack["emulator_url"])
    functions, schedules = client(config, "lambda"), client(config, "scheduler")
    (mapping,) = [
        one["UUID"]
        for one in functions.list_event_source_mappings()["EventSourceMappings"]
        if ":dynamodb:" in one["EventSourceArn"]
    ]
    (name,) = [one["Name"] for one in schedules.list_schedules()["Schedules"]]
    schedule = schedules.get_schedule(Name=name)
    kept = {key: schedule[key] for key in ("Name", "ScheduleExpression", "FlexibleTimeWindow", "Target")}
    functions.update_event_source_mapping(UUID=mapping, Enabled=False)
    try:
        if poll:
            schedules.update_schedule(**kept, State="DISABLED")
            client(config, "sqs").purge_queue(QueueUrl=smoke.stack["queues"]["REVALIDATION_QUEUE_URL"])
        yield
    finally:
        schedules.update_schedule(**kept, State="ENABLED")
        functions.update_event_source_mapping(UUID=mapping, Enabled=True)


async def by_poll(smoke: Smoke) -> str:
    """With the push switched off, the schedule's poll finds the event."""
    with switched_off(smoke, poll=False):
        return await cut(smoke, "link", rotation, within_s=POLL_WITHIN_S)


async def by_full_pass(smoke: Smoke) -> str:
    """With push and poll off, fan-out withholds within a second; the full revalidation then ends the subscription."""
    scene = Scene(smoke, "link")
    guest = await smoke.subscribed(smoke.mint(smoke.anonymous(), scene.demo), scene.demo)
    owner = await smoke.subscribed(smoke.mint(scene.owner, scene.demo, link=False), scene.demo)
    first, second = smoke.payload(), smoke.payload()
    await smoke.publish(scene.topic, first)
    await asyncio.gather(guest.data(first), owner.data(first))
    with switched_off(smoke, poll=True):
        await asyncio.to_thread(rotation, scene)
        await asyncio.sleep(1)  # the very second the product promises
        await smoke.publish(scene.topic, second)
        await owner.data(second)
        expect(not [one for one in guest.frames if one.get("payload") == second], "the guest received data")
        expect(not [one for one in guest.frames if one["type"] == "error"], "something revalidated after all")
        started = time.monotonic()
        demand_full_revalidation(environment(smoke))
        error = await guest.until(lambda frame: frame["type"] == "error", 30)
        await guest.closed()
    expect(error["retryable"] is False, f"{error}")
    expect(not [one for one in owner.frames if one["type"] == "error"], "the valid viewer was interrupted")
    await owner.close()
    return f"the pass cut after {(error['at'] - started) * 1000:.0f} ms"


async def by_expired_cursor(smoke: Smoke) -> str:
    """The event is gone before it was polled, as past its retention: a full revalidation comes at once."""
    with switched_off(smoke, poll=True):
        tables = client(Config(endpoint=smoke.stack["emulator_url"]), "dynamodb")
        name = smoke.stack["tables"][REVOCATIONS.variable]
        world = ControlPlane(environment(smoke))

        def rotate_and_forget(scene: Scene) -> None:
            rotation(scene)
            (newest,) = tables.query(
                TableName=name,
                KeyConditionExpression="feed = :feed",
                ExpressionAttributeValues={":feed": {"S": "feed"}},
                ScanIndexForward=False,
                Limit=1,
            )["Items"]
            tables.delete_item(TableName=name, Key={"feed": newest["feed"], "event_id": newest["event_id"]})
            world.revalidations.queue(Task(TaskKind.POLL))

        return await cut(smoke, "link", rotate_and_forget, within_s=10)


def environment(smoke: Smoke) -> dict[str, str]:
    """What a function of the stack would see of tables and queue."""
    config = Config(endpoint=smoke.stack["emulator_url"])
    return {**config.aws_environment(), **smoke.stack["tables"], **smoke.stack["queues"], "TIDEGATE_ENV": "development"}


async def run(smoke: Smoke) -> None:
    """All rows."""
    for name, visibility, operation, spared in (
        ("share token rotated", "link", rotation, True),
        ("visibility changed to private", "public", to_private, True),
        ("broker profile withdrawn from public use", "public", broker_withdrawn, True),
        ("ACL entry removed", "private", acl_removal, True),
        ("dashboard deleted", "public", deletion, False),
    ):

        async def check(one: str = visibility, act: Callable[[Scene], object] = operation, keep: bool = spared) -> str:
            return await cut(smoke, one, act, spared=keep)

        await smoke.check(f"cut: {name}", check)
    await smoke.check("cut: credential profile withdrawn from public use", lambda: credential_withdrawn(smoke))
    await smoke.check("cut: by poll, with the stream switched off", lambda: by_poll(smoke))
    await smoke.check("cut: by the full pass, with stream and poll off", lambda: by_full_pass(smoke))
    await smoke.check("cut: by a full pass at once when the cursor expired", lambda: by_expired_cursor(smoke))
