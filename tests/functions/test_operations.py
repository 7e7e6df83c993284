"""What operators see and do through the API, over real tables and queues on moto."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from functions.api.main import make_handler
from functions.api.wiring import api_services
from functions.revalidate.wiring import revalidate_services
from local_stack.seed import document, mqtt
from ops.admin import first_admin
from tests.deployment import aws
from tests.functions.test_api import PASSWORD, Api, broker, code, dashboard, person
from tidegate import tables
from tidegate.adapters.aws.json_client import AwsError, JsonClient
from tidegate.adapters.aws.queue_watch import SqsDeadLetters
from tidegate.adapters.aws.revalidation_queue import read_task
from tidegate.domain.access import PUBLIC_SUBJECT, Claim, Principal
from tidegate.domain.revocations import Task, TaskKind
from tidegate.domain.subscriptions import Connection, Fault, Stream, Subscription, SubscriptionKey
from tidegate.providers.control_plane import ControlPlaneProviders
from tidegate.usecases.control_plane.profile_uses import MOST

SUMMARY = "/api/operations/summary"


@pytest.fixture
def admin(deployed: Mapping[str, str]) -> Api:
    first_admin(deployed, "admin@x.example", PASSWORD)
    return Api(make_handler(api_services(deployed)), deployed).login("admin@x.example")


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Makes every call fail whose payload has one of these texts in it."""
    call, parts = JsonClient.call, list[str]()

    def failing(client: JsonClient, operation: str, payload: Mapping[str, Any], **options: Any) -> dict[str, Any]:
        if any(part in str(payload) for part in parts):
            raise AwsError("any", operation, "AccessDeniedException", "no", False, {}, status=400)
        return call(client, operation, payload, **options)

    monkeypatch.setattr(JsonClient, "call", failing)
    return parts


def queue_of(api: Api) -> Any:
    return aws(api.env["AWS_ENDPOINT_URL"], "sqs")


def subscribed(container: ControlPlaneProviders, number: int, expires_at: int) -> None:
    key = SubscriptionKey("d", f"c{number}", "s")
    claim = Claim("d", "s", Principal(PUBLIC_SUBJECT, 1), "hash", expires_at)
    container.subscriptions.put_hidden(Subscription(key=key, generation="a", claim=claim, stream_key="stream"))


# --- the summary ------------------------------------------------------------------------------------------------


def test_the_summary_tells_what_is_there(admin: Api) -> None:
    container = ControlPlaneProviders(admin.env)
    now = int(container.clock.now())
    for number in range(5):
        subscribed(container, number, now + 600)
    subscribed(container, 5, now - 1)
    urls = {
        "up": "https://a.example/x?key=1",
        "down": "https://b.example:8443/y?key=1",
        "idle": "https://c.example/",
    }
    streams = {
        name: Stream(name, "sse", "json", None, None, last_requested_at=now, intent={"url": url})
        for name, url in urls.items()
    }
    for stream in streams.values():
        container.streams.touch(stream)
    container.streams.note_status(streams["up"], True)
    container.streams.note_status(streams["down"], False, Fault("STREAM_AUTH_FAILED", "Refused"))
    container.relay_leases.claim(1, "w", now)

    answer = admin.ok("GET", SUMMARY)
    assert answer["unchecked"] == []
    assert answer["subscriptions"] == {"count": 5, "more": False}, "those that have not expired"
    seen = answer["upstreams"]
    assert (seen["connected"], seen["failingCount"], seen["idle"], seen["more"]) == (1, 1, 1, False)
    (failing,) = seen["failing"]
    assert failing == {
        "protocol": "sse",
        "source": "https://b.example:8443/y",
        "code": "STREAM_AUTH_FAILED",
        "text": "Refused",
    }
    assert [each["state"] for each in answer["relay"]] == ["free", "held"]
    assert answer["revocations"] == {"newest": 0, "applied": 0, "waitingSince": None}
    assert answer["connections"] is None, "before the first full revalidation"
    assert [each["name"] for each in answer["queues"]] == ["catch-ups", "crowds", "revalidation", "profiles"]
    assert all(each["waiting"] == each["inFlight"] == each["delayed"] == 0 for each in answer["queues"])


def test_the_summary_has_every_setting_and_no_secret(admin: Api) -> None:
    answer = admin.ok("GET", SUMMARY)
    by_name = {each["variable"]: each for each in answer["settings"]}
    assert by_name["REALTIME_MQTT_ALLOWED_TOPICS"]["value"] == "demo/#"
    assert by_name["REALTIME_MQTT_ALLOWED_TOPICS"]["default"] == "empty"
    text = json.dumps(answer)
    for variable in ("JWT_SECRET_ARN", "GATEWAY_SERVICE_TOKEN_ARN", "AWS_SECRET_ACCESS_KEY"):
        assert admin.env[variable] not in text and variable not in by_name


def test_revocations_that_wait_are_told(admin: Api) -> None:
    person(admin, "viewer").ok("POST", "/api/auth/logout-everywhere")
    behind = admin.ok("GET", SUMMARY)["revocations"]
    assert (behind["newest"], behind["applied"]) == (1, 0) and behind["waitingSince"] is not None
    container = ControlPlaneProviders(admin.env)
    assert container.revocations.move_cursor(None, 1)
    assert admin.ok("GET", SUMMARY)["revocations"] == {"newest": 1, "applied": 1, "waitingSince": None}


PARTS = {
    "subscriptions": (tables.SUBSCRIPTIONS.variable, "subscriptions"),
    "upstreams": (tables.STREAMS.variable, "upstreams"),
    "revocations": (tables.REVOCATIONS.variable, "revocations"),
    "queue crowds": ("CROWD_QUEUE_URL", None),
    "dead letters crowds": ("CROWD_DEAD_QUEUE_URL", None),
}


@pytest.mark.parametrize("part", PARTS)
def test_what_does_not_answer_is_unknown_and_never_zero(admin: Api, broken: list[str], part: str) -> None:
    variable, member = PARTS[part]
    broken.append(f"'{admin.env[variable]}'")
    answer = admin.ok("GET", SUMMARY)
    also = {"relay"} if part == "upstreams" else set()
    assert set(answer["unchecked"]) == {part} | also
    if member:
        assert answer[member] is None
    if part == "revocations":
        assert answer["fullRevalidation"] is answer["connections"] is None
    if part == "queue crowds":
        crowds = next(each for each in answer["queues"] if each["name"] == "crowds")
        assert crowds == {"name": "crowds", "waiting": None, "inFlight": None, "delayed": None}
    if part == "dead letters crowds":
        crowds = next(each for each in answer["deadLetters"] if each["queue"] == "crowds")
        assert crowds["messages"] is crowds["oldestAt"] is None
    rest = [each["waiting"] for each in answer["queues"] if each["name"] != "crowds"]
    assert rest == [0, 0, 0], "the others are shown"


def test_a_limiter_that_does_not_answer_is_told(admin: Api, broken: list[str]) -> None:
    assert admin.ok("GET", SUMMARY)["limiter"]["answers"] is True
    broken.append(f"'{admin.env[tables.LIMITERS.variable]}'")
    answer = admin.ok("GET", SUMMARY)
    assert answer["limiter"]["answers"] is False and answer["unchecked"] == ["limiter"]


# --- full revalidation ------------------------------------------------------------------------------------------


def test_a_full_revalidation_is_asked_for_once_a_minute(admin: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    # Both calls are in one window of the limiter.
    monkeypatch.setattr("tidegate.adapters.system.SystemClock.now", lambda clock: 1_800_000_000.0)
    fresh = Api(make_handler(api_services(admin.env)), admin.env).login("admin@x.example")
    assert fresh("POST", "/api/operations/full-revalidation")[0] == 202
    assert fresh.ok("GET", SUMMARY)["fullRevalidation"]["demanded"] is True
    (message,) = queue_of(admin).receive_message(QueueUrl=admin.env["REVALIDATION_QUEUE_URL"])["Messages"]
    assert json.loads(message["Body"])["kind"] == TaskKind.FULL
    assert code(fresh("POST", "/api/operations/full-revalidation")) == (429, "limit_reached")
    (event,) = fresh.ok("GET", "/api/operations/audit?action=operations.full_revalidation")["events"]
    assert event["targetId"] == "full-revalidation"


def test_a_full_revalidation_counts_connections(admin: Api) -> None:
    services = revalidate_services(admin.env)
    now = int(services.container.clock.now())
    for number in range(3):
        services.container.connections.open(Connection(f"c{number}", "ip", now, slots=frozenset()))
    services.revalidate(Task(TaskKind.FULL), services.container.clock.monotonic() + 30)
    answer = admin.ok("GET", SUMMARY)
    assert answer["connections"]["count"] == 3 and answer["connections"]["at"] == answer["fullRevalidation"]["endedAt"]
    assert answer["fullRevalidation"]["running"] is False


# --- dead letters -----------------------------------------------------------------------------------------------


def test_dead_letters_are_counted_and_go_back(admin: Api) -> None:
    sqs, dead, home = queue_of(admin), admin.env["CATCH_UP_DEAD_QUEUE_URL"], admin.env["CATCH_UP_QUEUE_URL"]
    for number in range(12):
        sqs.send_message(QueueUrl=dead, MessageBody=f"m{number}")
    (found,) = [
        each for each in admin.ok("GET", "/api/operations/dead-letters")["queues"] if each["queue"] == "catch-ups"
    ]
    assert found["messages"] == 12 and found["oldestAt"] is not None
    assert admin.ok("GET", "/api/operations/dead-letters")["queues"][0]["messages"] == 12, "looking takes none"

    assert admin.ok("POST", "/api/operations/dead-letters/catch-ups:redrive") == {"moved": 12, "left": 0}
    bodies: set[str] = set()
    while messages := sqs.receive_message(QueueUrl=home, MaxNumberOfMessages=10).get("Messages"):
        bodies |= {message["Body"] for message in messages}
    assert bodies == {f"m{number}" for number in range(12)}
    (event,) = admin.ok("GET", "/api/operations/audit?action=operations.dead_letters_redriven")["events"]
    assert (event["targetId"], event["metadata"]) == ("catch-ups", {"moved": 12})


def test_no_other_queue_is_redriven(admin: Api) -> None:
    for name in ("none", "profiles", "revalidation:redrive"):
        assert code(admin("POST", f"/api/operations/dead-letters/{name}:redrive")) == (404, "not_found")


def test_a_queue_that_does_not_answer_is_no_empty_one(admin: Api, broken: list[str]) -> None:
    broken.append(f"'{admin.env['CATCH_UP_DEAD_QUEUE_URL']}'")
    assert code(admin("POST", "/api/operations/dead-letters/catch-ups:redrive")) == (503, "queue_unavailable")
    first = admin.ok("GET", "/api/operations/dead-letters")["queues"][0]
    assert first["messages"] is first["oldestAt"] is None


def test_device_messages_are_there_where_topics_are_batched(admin: Api) -> None:
    urls = {"DEVICE_MESSAGES_QUEUE_URL": "CATCH_UP_QUEUE_URL", "DEVICE_MESSAGES_DEAD_QUEUE_URL": "CROWD_QUEUE_URL"}
    env = {**admin.env, **{variable: admin.env[other] for variable, other in urls.items()}}
    answer = Api(make_handler(api_services(env)), env, admin.token).ok("GET", SUMMARY)
    assert "device-messages" in [each["name"] for each in answer["queues"]]
    assert "device-messages" in [each["queue"] for each in answer["deadLetters"]]


class Sqs:
    """Holds a dead-letter queue of messages as AWS gives them, and notes where they are sent."""

    def __init__(self, sources: list[str]) -> None:
        self.held = [
            {"Body": str(number), "ReceiptHandle": str(number), "Attributes": {"DeadLetterQueueSourceArn": source}}
            for number, source in enumerate(sources)
        ]
        self.log: list[tuple[str, str]] = []

    def call(self, operation: str, request: Mapping[str, Any], *, deadline: float) -> dict[str, Any]:
        if operation == "ReceiveMessage":
            taken, self.held = self.held, []
            return {"Messages": taken}
        self.log.append((operation, request["QueueUrl"] if operation == "SendMessage" else request["ReceiptHandle"]))
        return {}


def test_of_a_shared_queue_each_message_goes_where_it_came_from() -> None:
    arn = "arn:aws:sqs:eu-west-1:1:"
    sqs = Sqs([f"{arn}one", f"{arn}two", f"{arn}other", ""])
    dead: Any = SqsDeadLetters(sqs, "https://q/dead", ("https://q/one", "https://q/two"))  # type: ignore[arg-type]
    assert dead.move_back(10, float("inf")) == 2
    assert sqs.log == [
        ("SendMessage", "https://q/one"),
        ("DeleteMessage", "0"),
        ("SendMessage", "https://q/two"),
        ("DeleteMessage", "1"),
    ], "sent before it is deleted; whose home is not known stays"


def test_a_buried_task_goes_back_to_the_tasks(admin: Api) -> None:
    """SQS notes where a message came from only when it moved it itself."""
    buried = ControlPlaneProviders(admin.env).buried_tasks
    buried.bury(Task(TaskKind.DASHBOARD, "d", 7))
    assert admin.ok("POST", "/api/operations/dead-letters/revalidation:redrive") == {"moved": 1, "left": 0}
    (message,) = queue_of(admin).receive_message(QueueUrl=admin.env["REVALIDATION_QUEUE_URL"])["Messages"]
    assert read_task(message["Body"]) == Task(TaskKind.DASHBOARD, "d", 7)


# --- uses of profiles, and the search for people ----------------------------------------------------------------


def test_the_uses_of_a_profile(admin: Api) -> None:
    credential = {"name": "c", "type": "basic", "secret": {"username": "u", "password": "p"}}
    credential_id = admin.ok("POST", "/api/credential-profiles", credential)["id"]
    body = {"name": "e", "transport": "external", "brokerUrl": "mqtts://b.example", "allowPublicUse": True}
    broker_id = admin.ok("POST", "/api/broker-profiles", body | {"credentialProfileId": credential_id})["id"]
    other = broker(admin)
    paths = [f"/api/credential-profiles/{credential_id}/uses", f"/api/broker-profiles/{broker_id}/uses"]
    assert [admin.ok("GET", path) for path in paths] == [{"dashboards": [], "more": False}] * 2

    made = dashboard(admin, mqtt("t", broker_id, "demo/x"))
    admin.ok("PUT", f"/api/dashboards/{made['id']}/visibility", {"visibility": "public"})
    dashboard(admin, mqtt("t", other, "demo/x"))
    expected = {"dashboards": [{"id": made["id"], "title": made["title"], "visibility": "public"}], "more": False}
    assert [admin.ok("GET", path) for path in paths] == [expected] * 2, "of a credential, also through the broker"

    body = document("T2", [mqtt("t", other, "demo/x")])
    admin.ok("PUT", f"/api/dashboards/{made['id']}", body, if_match='"1"')
    assert [admin.ok("GET", path)["dashboards"] for path in paths] == [[], []]
    assert code(admin("GET", "/api/broker-profiles/none/uses")) == (404, "not_found")
    assert code(person(admin, "editor")("GET", paths[0])) == (403, "denied")


def test_uses_are_bounded(admin: Api) -> None:
    used = broker(admin)
    container = ControlPlaneProviders(admin.env)
    first = dashboard(admin, mqtt("t", used, "demo/x"))
    items = [{"kind": f"use#broker#{used}", "id": f"gone{number:03}"} for number in range(MOST)]
    container.db.put_many(container.table(tables.PROFILES), items)
    answer = admin.ok("GET", f"/api/broker-profiles/{used}/uses")
    assert answer["more"] is True and len(answer["dashboards"]) <= MOST
    assert first["id"] and len(container.profiles.used_by("broker", used)) == MOST + 1
    assert len(container.profiles.used_by("broker", used, 7)) == 7


def test_people_are_found_by_a_part_of_their_e_mail(admin: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ann", "anton", "bob", "joanna"):
        admin.ok("POST", "/api/users", {"email": f"{name}@y.example"})

    def found(query: str) -> tuple[list[str], str | None]:
        answer = admin.ok("GET", f"/api/users?{query}")
        return [user["email"].split("@")[0] for user in answer["users"]], answer["cursor"]

    assert found("query=AN") == (["ann", "anton", "joanna"], None), "in capitals or not, also in the middle"
    assert found("query=y.example&limit=2") == (["ann", "anton"], "anton@y.example")
    assert found("query=y.example&limit=2&cursor=anton@y.example") == (["bob", "joanna"], "joanna@y.example")
    assert found("query=nobody") == ([], None)
    assert found("query=%20") == found(""), "nothing to search for"
    monkeypatch.setattr("tidegate.adapters.dynamodb.users._SEARCHED", 2)
    assert found("query=bob") == ([], "ann@y.example"), "a page looks at so many, and tells where to go on"
    assert found("query=bob&cursor=ann@y.example") == (["bob"], "bob@y.example")
