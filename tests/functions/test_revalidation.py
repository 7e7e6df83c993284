"""Revalidation as Lambda runs it: a recorded stream record, a real queue and real tables on moto."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import pytest

from functions.revalidate import wiring as revalidate_wiring
from functions.revalidate.dispatch import make_handler as make_stream_handler
from functions.revalidate.profiles import make_handler as make_profiles_handler
from functions.revalidate.schedule import make_handler as make_schedule_handler
from functions.revalidate.worker import make_handler
from local_stack.seed import document, mqtt
from tests.deployment import aws
from tests.functions.events import event
from tests.functions.test_api import Api
from tests.functions.test_gateway import Demo, demo, gateway_over
from tests.servers.management import ManagementServer
from tidegate.adapters.system import SystemClock
from tidegate.domain.activity import AHEAD_S, SCHEDULE_S
from tidegate.domain.minutes import PROFILES_AT_S, STARTED_AT_ONCE
from tidegate.domain.profile_changes import ProfileChange
from tidegate.domain.profiles import BROKER
from tidegate.domain.relay import LEASE_S
from tidegate.domain.revocations import AGAIN_AFTER_S, Task, TaskKind
from tidegate.domain.subscriptions import Connection
from tidegate.errors import Unavailable
from tidegate.providers.control_plane import ControlPlaneProviders

__all__ = ["demo"]


class Context:
    """The part of Lambda's context the worker reads."""

    def __init__(self, seconds: float = 60) -> None:
        self._milliseconds = int(seconds * 1000)

    def get_remaining_time_in_millis(self) -> int:
        return self._milliseconds


def queued(env: Mapping[str, str]) -> list[dict[str, Any]]:
    """Every task in the queue that is not delayed, taken out."""
    client, found = aws(env["AWS_ENDPOINT_URL"], "sqs"), []
    while messages := client.receive_message(QueueUrl=env["REVALIDATION_QUEUE_URL"], MaxNumberOfMessages=10).get(
        "Messages"
    ):
        for message in messages:
            body = json.loads(message["Body"])
            found.append({"kind": body["kind"], "target": body["target"]})
            client.delete_message(QueueUrl=env["REVALIDATION_QUEUE_URL"], ReceiptHandle=message["ReceiptHandle"])
    return found


def dead_letters(env: Mapping[str, str]) -> list[dict[str, Any]]:
    """What lies in the dead-letter queue, each with a note of where it goes back to."""
    client = aws(env["AWS_ENDPOINT_URL"], "sqs")
    found = client.receive_message(
        QueueUrl=env["REVALIDATION_DEAD_QUEUE_URL"], MaxNumberOfMessages=10, MessageAttributeNames=["home"]
    ).get("Messages", [])
    homes = {message["MessageAttributes"]["home"]["StringValue"] for message in found}
    assert homes <= {env["REVALIDATION_QUEUE_URL"].rpartition("/")[2]}
    return [json.loads(message["Body"]) for message in found]


def delayed(env: Mapping[str, str]) -> int:
    attributes = aws(env["AWS_ENDPOINT_URL"], "sqs").get_queue_attributes(
        QueueUrl=env["REVALIDATION_QUEUE_URL"], AttributeNames=["ApproximateNumberOfMessagesDelayed"]
    )
    return int(attributes["Attributes"]["ApproximateNumberOfMessagesDelayed"])


def test_the_stream_hands_each_event_on(deployed: Mapping[str, str]) -> None:
    handle = make_stream_handler(revalidate_wiring.dispatch_services(deployed))
    record = event("dynamodb_stream")["Records"][0]
    about_user = copy.deepcopy(record)
    image = about_user["dynamodb"]["NewImage"]
    del image["dashboard_id"], image["share_version"]
    image |= {"reason": {"S": "password_reset"}, "user_id": {"S": "user-1"}}
    poisoned = copy.deepcopy(record)
    poisoned["dynamodb"] |= {"NewImage": {}, "SequenceNumber": "poisoned"}
    of_the_future = copy.deepcopy(record)
    of_the_future["dynamodb"]["NewImage"] |= {"reason": {"S": "moon_phase"}, "dashboard_id": {"S": "dash-2"}}
    assert handle({"Records": [record, poisoned, about_user, of_the_future]}, None) == {"batchItemFailures": []}
    assert queued(deployed) == [
        {"kind": "dashboard", "target": "dash-1"},
        {"kind": "user", "target": "user-1"},
        {"kind": "dashboard", "target": "dash-2"},
    ]
    assert delayed(deployed) == 2, "a user is looked for again, when the index has caught up, and the cursor moves"


def test_the_schedule_polls_several_times_a_minute(deployed: Mapping[str, str]) -> None:
    env = {**deployed, "REALTIME_PUBLIC_REVALIDATE_INTERVAL_MS": "20000"}
    connected(deployed)
    schedule = make_schedule_handler(revalidate_wiring.schedule_services(env))
    expected = 4 + 7 + 5 + 2
    assert schedule({}, None) == {"active": True, "tasks": expected}
    assert {task["kind"] for task in queued(deployed)} == {"poll"}
    assert delayed(deployed) == expected - 1, "polls, looks for what has expired and for dead workers, and full runs"
    assert schedule({}, None)["tasks"] <= 1, "they are queued; as many seconds more are as have passed"


def connected(env: Mapping[str, str]) -> None:
    """Somebody is."""
    now = SystemClock().now()
    ControlPlaneProviders(env).connections.open(Connection("somebody=", "ip", int(now)))


def test_while_nobody_is_connected_the_schedule_asks_for_profiles_alone(
    deployed: Mapping[str, str], management: ManagementServer
) -> None:
    management.answer = lambda _method, target, _nth: 202 if target == "invocations" else 500
    env = {**deployed, "AWS_ENDPOINT_URL_LAMBDA": management.url.removesuffix("/live")}
    services = revalidate_wiring.schedule_services(env)
    schedule = make_schedule_handler(services)
    assert schedule({}, None) == {"active": False, "tasks": 2}, "twice a day: a poll, and a full revalidation"
    assert queued(deployed) == [{"kind": "poll", "target": ""}] and delayed(deployed) == 1
    asked: list[int] = []
    schedule = make_schedule_handler(services._replace(follow_requests=cast(Any, _Asked(asked))))
    assert schedule({}, None) == {"active": False, "tasks": 0}
    assert (asked, management.requests) == ([PROFILES_AT_S], [])
    assert queued(deployed) == [] and delayed(deployed) == 1


class _Asked:
    def __init__(self, asked: list[int]) -> None:
        self._asked = asked

    def ask(self, delay_s: int = 0) -> None:
        self._asked.append(delay_s)


def test_the_first_viewer_starts_the_schedule_and_the_next_ones_do_not(
    deployed: Mapping[str, str], management: ManagementServer, demo: Demo
) -> None:
    """Before the subscription is there, whatever process handles it; and from then on everybody knows."""
    management.answer = lambda _method, target, _nth: 202 if target == "invocations" else 200
    env = {**deployed, "AWS_ENDPOINT_URL_LAMBDA": management.url.removesuffix("/live")}
    gateways = [gateway_over(env, management) for _ in range(2)]
    for number, gateway in enumerate(gateways):
        gateway.open(f"c{number}=")
        gateway.say(f"c{number}=", demo.subscribe())
    assert management.starts("schedule") == 2, "nothing says yet that it was started"
    schedule = make_schedule_handler(revalidate_wiring.schedule_services(env))
    answers = [schedule({"started": True}, None) for _ in range(2)]
    assert [answer["active"] for answer in answers] == [True, True] and answers[0]["tasks"] > 14 >= answers[1]["tasks"]
    for number, gateway in enumerate([*gateways, gateway_over(env, management)]):
        gateway.open(f"d{number}=")
        gateway.say(f"d{number}=", demo.subscribe())
    assert management.starts("schedule") == 2


def test_a_schedule_that_does_not_start_refuses_nobody(
    deployed: Mapping[str, str], management: ManagementServer, demo: Demo, capfd: pytest.CaptureFixture[str]
) -> None:
    """It finds the connection within a minute."""
    env = {**deployed, "AWS_ENDPOINT_URL_LAMBDA": "http://127.0.0.1:9"}
    gateway = gateway_over(env, management)
    gateway.open("c=")
    gateway.say("c=", demo.subscribe())
    assert [frame["type"] for frame in gateway.frames("c=")] == ["ack", "status"]
    assert "schedule not started" in capfd.readouterr().out
    assert make_schedule_handler(revalidate_wiring.schedule_services(env))({}, None)["active"]


@pytest.mark.parametrize("interval_ms", ["1000", "5000", "30000", "60000"])
def test_a_minute_starts_less_than_half_of_what_a_new_account_runs(
    deployed: Mapping[str, str], management: ManagementServer, monkeypatch: pytest.MonkeyPatch, interval_ms: str
) -> None:
    """Whatever the schedule starts, by the second at which it starts."""
    management.answer = lambda _method, target, _nth: 202 if target == "invocations" else 500
    settings = {"REALTIME_PUBLIC_REVALIDATE_INTERVAL_MS": interval_ms}
    env = {**deployed, **settings, "AWS_ENDPOINT_URL_LAMBDA": management.url.removesuffix("/live")}
    services = revalidate_wiring.schedule_services(env)
    started = Counter({0: 1})
    connected(deployed)
    queue = services.queue_tasks._tasks
    monkeypatch.setattr(queue, "queue", lambda _task, delay_s=0: started.update([delay_s]))
    monkeypatch.setattr(services.follow_requests, "ask", lambda delay_s=0: started.update([delay_s]))
    make_schedule_handler(services)({}, None)
    started[0] += len(management.requests)
    assert len(management.requests) == 2 and max(started.values()) == STARTED_AT_ONCE < 10 / 2
    assert max(started) < SCHEDULE_S + AHEAD_S


def test_a_task_that_fails_is_tried_again_later_and_is_dead_after_five_tries(
    deployed: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A receive counts nothing: an invocation that was throttled is no try."""
    services = revalidate_wiring.revalidate_services(deployed)
    queued_again: list[tuple[int, Task]] = []
    broken = services._replace(revalidate=cast(Any, _Failing()))
    monkeypatch.setattr(
        services.container.revalidations, "queue", lambda task, delay_s=0: queued_again.append((delay_s, task))
    )
    work, task = make_handler(broken), {"kind": "dashboard", "target": "d", "sinceMs": 7}
    for receives in range(1, 6):
        record = {"messageId": "m1", "body": json.dumps(task), "attributes": {"ApproximateReceiveCount": "19"}}
        assert work({"Records": [record]}, Context()) == {"batchItemFailures": []}
        task |= {"tries": receives}
    assert [delay_s for delay_s, _ in queued_again] == [*AGAIN_AFTER_S] and len(AGAIN_AFTER_S) == 4
    assert queued_again[-1][1] == Task(TaskKind.DASHBOARD, "d", 7, tries=4)
    assert dead_letters(deployed) == [{"kind": "dashboard", "target": "d", "sinceMs": 7}]


def test_what_the_schedule_asks_for_again_is_not_tried_again(deployed: Mapping[str, str]) -> None:
    services = revalidate_wiring.revalidate_services(deployed)
    work = make_handler(services._replace(revalidate=cast(Any, _Failing())))
    for kind in ("poll", "expired", "relays", "full"):
        record = {"messageId": "m1", "body": json.dumps({"kind": kind, "target": ""})}
        assert work({"Records": [record]}, Context()) == {"batchItemFailures": []}
    assert queued(deployed) == dead_letters(deployed) == [] and delayed(deployed) == 0


def test_a_task_that_cannot_be_queued_again_stays_in_its_queue(deployed: Mapping[str, str]) -> None:
    away = {
        **deployed,
        "REVALIDATION_QUEUE_URL": "http://127.0.0.1:9/queue",
        "AWS_ENDPOINT_URL_SQS": "http://127.0.0.1:9",
    }
    services = revalidate_wiring.revalidate_services(away)
    work = make_handler(services._replace(revalidate=cast(Any, _Failing())))
    record = {"messageId": "m1", "body": json.dumps({"kind": "dashboard", "target": "d"})}
    assert work({"Records": [record]}, Context()) == {"batchItemFailures": [{"itemIdentifier": "m1"}]}


class _Failing:
    def __call__(self, _task: Task, _deadline: float) -> int:
        raise Unavailable("no answer", code="store_unavailable")


def test_a_cut_by_poll_and_worker(deployed: Mapping[str, str], management: ManagementServer, demo: Demo) -> None:
    gateway = gateway_over(deployed, management)
    work = make_handler(revalidate_wiring.revalidate_services(gateway.env))
    gateway.open("c1=")
    gateway.say("c1=", demo.subscribe())
    demo.api.ok("POST", f"/api/dashboards/{demo.dashboard_id}/share-token:rotate")

    def run(task: object) -> Any:
        record = {"messageId": "m1", "body": json.dumps(task)}
        return work({"Records": [record]}, Context())

    assert run({"kind": "poll", "target": ""}) == {"batchItemFailures": []}
    tasks = queued(deployed)
    assert tasks == [{"kind": "dashboard", "target": demo.dashboard_id}]
    assert run(tasks[0]) == {"batchItemFailures": []}
    told = [frame["type"] for frame in gateway.frames("c1=")]
    assert told == ["ack", "status", "error", "status"] and ("DELETE", "c1=") not in management.requests
    control_plane = ControlPlaneProviders(deployed)
    connection = control_plane.connections.get("c1=")
    assert connection is not None and not connection.subscriptions, "it stays open"
    assert [slot.partition("#")[0] for slot in connection.slots] == ["ip"]
    holders = [cap for page in control_plane.caps.scan(0, 1) for cap, _, _ in page.items]
    assert [cap.partition("#")[0] for cap in holders] == ["ip"], "the place of the dashboard is free"
    gateway.say("c1=", demo.subscribe())
    assert [frame["type"] for frame in gateway.frames("c1=")[4:]] == ["ack", "status"], "on the same connection"
    run({"kind": "poll", "target": ""})
    assert queued(deployed) == [], "the cursor has moved"
    assert run({"kind": "nonsense"}) == {"batchItemFailures": []}
    assert dead_letters(deployed) == [{"kind": "nonsense"}], "reading it again would not make it readable"


def test_the_full_revalidation_by_worker(deployed: Mapping[str, str], management: ManagementServer, demo: Demo) -> None:
    gateway = gateway_over(deployed, management)
    work = make_handler(revalidate_wiring.revalidate_services(gateway.env))
    gateway.open("c1=")
    gateway.say("c1=", demo.subscribe())
    demo.api.ok("DELETE", f"/api/dashboards/{demo.dashboard_id}")
    record = {"messageId": "m1", "body": json.dumps({"kind": "full", "target": ""})}
    assert work({"Records": [record]}, Context()) == {"batchItemFailures": []}
    assert [frame["type"] for frame in gateway.frames("c1=")][-2:] == ["error", "status"]
    assert gateway.publish(b"1") == 0


@pytest.mark.parametrize(
    ("switch", "text"),
    [("REALTIME_MQTT_ENABLED", "MQTT protocol is disabled"), ("REALTIME_ENABLED", "Realtime is disabled")],
)
def test_a_switch_ends_who_is_there_and_refuses_who_comes(
    deployed: Mapping[str, str], management: ManagementServer, demo: Demo, switch: str, text: str
) -> None:
    """IoT Core's viewers: nobody but the full revalidation could tell them, because the bridge only idles."""
    full = {"Records": [{"messageId": "m1", "body": json.dumps({"kind": "full", "target": ""})}]}
    gateway = gateway_over(deployed, management)
    gateway.open("c1=")
    gateway.say("c1=", demo.subscribe())
    work = make_handler(revalidate_wiring.revalidate_services(gateway.env))
    assert work(full, Context()) == {"batchItemFailures": []} and gateway.frames("c1=")[-1]["type"] == "status"
    off = {**deployed, switch: "false"}
    late = gateway_over(off, management)
    gateway.open("c2=")  # before its handshakes were refused
    late.say("c2=", demo.subscribe())
    (ack,) = [frame for frame in late.frames("c2=") if frame["type"] == "ack"]
    assert (ack["ok"], ack["errorCode"], ack["message"]) == (False, "STREAM_POLICY_BLOCKED", text)
    work = make_handler(revalidate_wiring.revalidate_services(late.env))
    assert work(full, Context()) == {"batchItemFailures": []}, "at once, although the interval is not over"
    error, status = gateway.frames("c1=")[-2:]
    assert (error["type"], error["errorCode"], error["message"]) == ("error", "STREAM_POLICY_BLOCKED", text)
    assert error["retryable"] is False
    assert (status["type"], status["status"], status["errorCode"]) == ("status", "error", "STREAM_POLICY_BLOCKED")
    assert gateway.publish(b"1") == 0
    closed = switch == "REALTIME_ENABLED"
    assert (("DELETE", "c1=") in management.requests) is closed
    assert (ControlPlaneProviders(deployed).connections.get("c1=") is None) is closed


#: A viewer is told that the token has expired within this time, seconds: the schedule's interval is not all of it.
TOLD_WITHIN_S = 15


@pytest.mark.parametrize("ahead_s", [119, 115, 110])
def test_an_expired_token_is_told_within_fifteen_seconds(
    deployed: Mapping[str, str],
    management: ManagementServer,
    demo: Demo,
    monkeypatch: pytest.MonkeyPatch,
    ahead_s: int,
) -> None:
    """Minutes pass second by second, and the worker gets each task when its delay is over. `ahead_s`: how long before
    the expiry the schedule begins."""
    gateway = gateway_over(deployed, management)
    gateway.open("c1=")
    gateway.say("c1=", demo.subscribe())
    control = ControlPlaneProviders(deployed)
    (row,) = control.subscriptions.of_dashboard(demo.dashboard_id)
    now = float(row.claim.expires_at - ahead_s)
    monkeypatch.setattr(SystemClock, "now", lambda _clock: now)
    tasks: list[tuple[float, Task]] = []
    work = make_handler(revalidate_wiring.revalidate_services(gateway.env))
    services = revalidate_wiring.schedule_services(gateway.env)._replace(relay_partitions=0)
    queue = services.queue_tasks._tasks
    monkeypatch.setattr(queue, "queue", lambda task, delay_s=0: tasks.append((now + delay_s, task)))
    schedule = make_schedule_handler(services)
    began = now
    while len(gateway.frames("c1=")) == 2:
        if (now - began) % SCHEDULE_S == 0:
            schedule({}, None)
        due, tasks = [task for at, task in tasks if at <= now], [(at, task) for at, task in tasks if at > now]
        for task in due:
            record = {"messageId": "m1", "body": json.dumps({"kind": task.kind.value, "target": task.target})}
            assert work({"Records": [record]}, Context()) == {"batchItemFailures": []}
        now += 1
    told_after_s = now - 1 - row.claim.expires_at
    error, status = gateway.frames("c1=")[2:]
    assert (error["errorCode"], error["reason"], error["retryable"]) == ("STREAM_AUTH_FAILED", "expired", True)
    assert (status["status"], status["reason"]) == ("error", "expired")
    assert 0 <= told_after_s <= TOLD_WITHIN_S - 5, "the rest is for the queue and the run"


def test_a_dead_relay_is_found_by_worker(deployed: Mapping[str, str], management: ManagementServer) -> None:
    management.answer = lambda _method, target, _nth: 202 if target == "invocations" else 500
    env = {**deployed, "AWS_ENDPOINT_URL_LAMBDA": management.url.removesuffix("/live")}
    services = revalidate_wiring.revalidate_services(env)
    work, container = make_handler(services), services.container
    leases, now = container.relay_leases, container.clock.now()
    record = {"messageId": "m1", "body": json.dumps({"kind": "relays", "target": ""})}
    lease = leases.claim(0, "worker", now)
    assert work({"Records": [record]}, Context()) == {"batchItemFailures": []} and not management.requests
    assert lease is not None and leases.renew(lease, now - LEASE_S)
    assert work({"Records": [record]}, Context()) == {"batchItemFailures": []}
    assert management.requests == [("POST", "invocations")]


def test_withdrawn_public_use_ends_the_streams_of_the_profile_only(
    deployed: Mapping[str, str], demo: Demo, management: ManagementServer
) -> None:
    api, gateway = demo.api, gateway_over(deployed, management)
    kept = api.ok("POST", "/api/broker-profiles", {"name": "kept", "transport": "iot-core", "allowPublicUse": True})
    path = f"/api/dashboards/{demo.dashboard_id}"
    shown = api.ok("GET", path)
    datasources = [*shown["document"]["datasources"], mqtt("kept", kept["id"], "demo/+")]
    changed = document("T", datasources)
    api.ok("PUT", path, changed, if_match=str(shown["revision"]))
    guest = Api(api.handler, api.env)
    gateway.open("c1=")
    for source in ("t", "kept"):
        body = {"dashboardId": demo.dashboard_id, "datasourceId": source}
        token = guest.ok("POST", "/api/datasource-sessions", body)["token"]
        gateway.say("c1=", demo.subscribe() | {"datasourceId": source, "sessionToken": token})
    assert gateway.publish(b"1") == 2
    profile = next(each for each in api.ok("GET", "/api/broker-profiles") if each["name"] == "core")
    narrowed = {"name": "core", "transport": "iot-core", "allowPublicUse": False, "topicAllowlist": []}
    api.ok("PUT", f"/api/broker-profiles/{profile['id']}", narrowed, if_match=str(profile["revision"]))
    work = make_handler(revalidate_wiring.revalidate_services(gateway.env))
    record = {"messageId": "m1", "body": json.dumps({"kind": "dashboard", "target": demo.dashboard_id})}
    management.received.clear()
    assert work({"Records": [record]}, Context()) == {"batchItemFailures": []}
    ended = [(frame["type"], frame["datasourceId"]) for frame in gateway.frames("c1=")]
    assert ended == [("error", "t"), ("status", "t")]
    assert gateway.frames("c1=")[0]["retryable"] is False
    gateway_over(deployed, management).publish(b"2")
    assert [(f["type"], f["datasourceId"]) for f in gateway.frames("c1=")[2:]] == [("data", "kept")]


def test_changes_of_profiles_are_followed_by_queue(deployed: Mapping[str, str], demo: Demo) -> None:
    control_plane = ControlPlaneProviders(deployed)
    (profile,) = control_plane.profiles.brokers()
    after = replace(profile, allow_public_use=False, revision=profile.revision + 1)
    # As when the API died right after the write.
    control_plane.profiles.write_broker(profile, after, ProfileChange(BROKER, profile.profile_id, after.revision, True))
    follow = make_profiles_handler(revalidate_wiring.profile_services(deployed))
    request = {"Records": [{"messageId": "m1", "body": "{}"}]}
    before = control_plane.access.read([demo.dashboard_id], []).dashboards[demo.dashboard_id]
    assert follow(request, Context(5)) == {"batchItemFailures": [{"itemIdentifier": "m1"}]}, "there was no time"
    assert follow(request, Context()) == {"batchItemFailures": []}
    now = control_plane.access.read([demo.dashboard_id], []).dashboards[demo.dashboard_id]
    assert now.share_version == before.share_version + 1 and control_plane.profiles.open_changes() == []
