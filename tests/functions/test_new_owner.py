"""An admin names a new owner: guests go on by the new one, the old one is out at once, and nobody slips in between."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any

import pytest

from functions.api.main import make_handler
from functions.api.wiring import api_services
from functions.revalidate import wiring as revalidate_wiring
from functions.revalidate.worker import make_handler as make_worker
from local_stack.seed import mqtt
from ops.admin import first_admin
from tests.functions.test_api import PASSWORD, Api, broker, code, dashboard, person
from tests.functions.test_gateway import gateway_over
from tests.functions.test_revalidation import Context, queued
from tests.servers.management import ManagementServer
from tidegate.adapters.dynamodb.dashboards import DynamoDashboards
from tidegate.ports.control_plane import DashboardWrite


@pytest.fixture
def admin(deployed: Mapping[str, str]) -> Api:
    first_admin(deployed, "admin@x.example", PASSWORD)
    return Api(make_handler(api_services(deployed)), deployed).login("admin@x.example")


def somebody(admin: Api, name: str, role: str = "editor") -> Api:
    admin.ok("POST", "/api/users", {"email": f"{name}@x.example", "role": role, "password": PASSWORD})
    return Api(admin.handler, admin.env).login(f"{name}@x.example")


def my_id(api: Api) -> str:
    return str(api.ok("GET", "/api/users/me")["id"])


def shared(admin: Api, owner: Api, visibility: str = "public") -> Any:
    made = dashboard(owner, mqtt("t", broker(admin, name=f"b {visibility}"), "demo/x"))
    return owner.ok("PUT", f"/api/dashboards/{made['id']}/visibility", {"visibility": visibility})


def name_owner(api: Api, made: Mapping[str, Any], name: str) -> tuple[int, Any]:
    return api("PUT", f"/api/dashboards/{made['id']}/owner", {"email": f"{name}@x.example"})


def lists(api: Api) -> tuple[list[str], list[str]]:
    """Ids of the dashboards that are the caller's own, and of those shared with the caller."""
    answer = api.ok("GET", "/api/dashboards")
    return [each["id"] for each in answer["dashboards"]], [each["id"] for each in answer["shared"]]


def test_what_a_deactivated_owner_showed_goes_on_by_a_new_one(admin: Api) -> None:
    anonymous = Api(admin.handler, admin.env)
    owner, new = person(admin, "editor"), somebody(admin, "new")
    owner_id, new_id = my_id(owner), my_id(new)
    made = shared(admin, owner)
    owner.ok("PUT", f"/api/dashboards/{made['id']}/acl", {"email": "new@x.example", "level": "viewer"})
    session = {"dashboardId": made["id"], "datasourceId": "t"}
    token = anonymous.ok("POST", "/api/datasource-sessions", session)["token"]
    admin.ok("PATCH", f"/api/users/{owner_id}", {"active": False})

    def guests() -> list[int]:
        asked = [
            anonymous("GET", f"/api/dashboards/{made['id']}"),
            anonymous("GET", f"/api/share/{made['shareToken']}"),
            anonymous("POST", "/api/datasource-sessions", session),
            anonymous.internal("datasource-introspect", {"sessionToken": token}),
        ]
        return [status for status, _ in asked]

    assert guests() == [404, 404, 403, 403]
    assert lists(new) == ([], [made["id"]])
    status, changed = name_owner(admin, made, "new")
    assert status == 200, changed
    assert (changed["ownerId"], changed["acl"], changed["revision"]) == (new_id, [], made["revision"])
    assert guests() == [200, 200, 201, 200], "links and session tokens as before"
    assert lists(new) == ([made["id"]], [])
    new.ok("PUT", f"/api/dashboards/{made['id']}/acl", {"email": "admin@x.example", "level": "viewer"})
    (event,) = admin.ok("GET", "/api/operations/audit?action=dashboard.owner.updated")["events"]
    assert (event["targetId"], event["metadata"]) == (made["id"], {"from": owner_id, "to": new_id})


def test_the_old_owner_is_a_member_no_longer(admin: Api) -> None:
    owner = person(admin, "editor")
    somebody(admin, "new")
    made = dashboard(owner)
    path = f"/api/dashboards/{made['id']}"
    assert name_owner(admin, made, "new")[0] == 200
    assert lists(owner) == ([], [])
    assert code(owner("GET", path)) == (404, "not_found")
    assert code(owner("DELETE", path)) == (404, "not_found")
    admin.ok("PUT", f"{path}/acl", {"email": "editor@x.example", "level": "manager"})
    assert lists(owner) == ([], [made["id"]]) and owner.ok("GET", path)["canShare"]
    assert code(name_owner(owner, made, "editor")) == (403, "denied"), "no way back for a manager"


def test_streams_of_the_old_owner_end_and_guests_go_on(admin: Api, management: ManagementServer) -> None:
    gateway = gateway_over(admin.env, management)
    work = make_worker(revalidate_wiring.revalidate_services(gateway.env))
    owner = person(admin, "editor")
    somebody(admin, "new")
    made = shared(admin, owner)
    session = {"dashboardId": made["id"], "datasourceId": "t"}
    for connection_id, viewer in (("owner=", owner), ("guest=", Api(admin.handler, admin.env))):
        token = viewer.ok("POST", "/api/datasource-sessions", session)["token"]
        gateway.open(connection_id)
        gateway.say(connection_id, {"type": "subscribe", "requestId": "r", "sessionToken": token, **session})

    def run(task: object) -> None:
        record = {"messageId": "m", "body": json.dumps(task)}
        assert work({"Records": [record]}, Context()) == {"batchItemFailures": []}

    run({"kind": "poll", "target": ""})
    queued(admin.env)
    assert name_owner(admin, made, "new")[0] == 200
    assert gateway.publish(b"1") == 1 and gateway.frames("guest=")[-1]["payload"] == 1, "data stops before the stream"
    run({"kind": "poll", "target": ""})
    (task,) = queued(admin.env)
    assert task == {"kind": "dashboard", "target": made["id"]}
    run(task)
    error, status = gateway.frames("owner=")[-2:]
    assert (error["type"], error["errorCode"], error["retryable"]) == ("error", "STREAM_AUTH_FAILED", False)
    assert status["status"] == "error" and error["reason"] == status["reason"] == "revoked"
    assert [frame["type"] for frame in gateway.frames("guest=")] == ["ack", "status", "data"]


def test_who_cannot_be_named(admin: Api) -> None:
    owner, viewer = person(admin, "editor"), person(admin, "viewer")
    gone = my_id(somebody(admin, "gone"))
    admin.ok("PATCH", f"/api/users/{gone}", {"active": False})
    made = dashboard(owner)
    assert code(name_owner(admin, made, "viewer")) == (400, "owner_not_editor")
    assert code(name_owner(admin, made, "gone")) == (404, "user_not_found")
    assert code(name_owner(admin, made, "nobody")) == (404, "user_not_found")
    assert code(name_owner(owner, made, "admin")) == (403, "denied"), "an owner gives nothing to whoever does not ask"
    assert code(name_owner(viewer, made, "viewer")) == (404, "not_found")
    assert code(name_owner(admin, {"id": "none"}, "admin")) == (404, "not_found")
    assert lists(owner) == ([made["id"]], [])


def test_asking_again_changes_nothing(admin: Api) -> None:
    owner = person(admin, "editor")
    somebody(admin, "new")
    made = dashboard(owner)
    first = name_owner(admin, made, "new")
    assert first[0] == 200 and name_owner(admin, made, "new") == first
    (event,) = admin.ok("GET", "/api/operations/audit?action=dashboard.owner.updated")["events"]
    assert event["count"] == 1


# --- at the same time --------------------------------------------------------------------------------------


def before_writing(monkeypatch: pytest.MonkeyPatch, then: Callable[[], object]) -> None:
    """Something happens between what the request reads and what it writes. Writes are one after another."""
    one_by_one, write = Lock(), DynamoDashboards.write

    def delayed(self: DynamoDashboards, change: DashboardWrite, now_ms: int) -> int | None:
        then()
        with one_by_one:
            return write(self, change, now_ms)

    monkeypatch.setattr(DynamoDashboards, "write", delayed)


def test_who_is_deactivated_meanwhile_is_not_made_the_owner(admin: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = person(admin, "editor")
    new_id = my_id(somebody(admin, "new"))
    made = dashboard(owner)
    # As an ACL entry, so that the user's own item is written by the same transaction.
    owner.ok("PUT", f"/api/dashboards/{made['id']}/acl", {"email": "new@x.example", "level": "viewer"})
    users = api_services(admin.env).users
    (acting,) = [user for user in users._users.all(9, None).items if user.email == "admin@x.example"]
    before_writing(monkeypatch, lambda: users.change(acting, new_id, active=False))
    assert code(name_owner(admin, made, "new")) == (404, "user_not_found"), "looked at again"
    assert lists(owner) == ([made["id"]], [])
    (entry,) = owner.ok("GET", f"/api/dashboards/{made['id']}")["acl"]
    assert entry["userId"] == new_id
