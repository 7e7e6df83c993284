"""Changing rights is safe against mistakes: an admin stays, whatever admins do to each other at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Lock
from typing import Any

import pytest

from functions.api.main import make_handler
from functions.api.wiring import api_services
from ops.admin import first_admin
from tests.functions.test_api import PASSWORD, Api, code
from tidegate.adapters.dynamodb.users import DynamoUsers
from tidegate.domain.access import Role
from tidegate.ports.control_plane import UserWrite


@pytest.fixture
def admin(deployed: Mapping[str, str]) -> Api:
    first_admin(deployed, "admin@x.example", PASSWORD)
    return Api(make_handler(api_services(deployed)), deployed).login("admin@x.example")


def another(admin: Api, name: str) -> tuple[Api, str]:
    """An admin, logged in, and the id."""
    body = {"email": f"{name}@x.example", "role": "admin", "password": PASSWORD}
    made = admin.ok("POST", "/api/users", body)["user"]
    return Api(admin.handler, admin.env).login(f"{name}@x.example"), made["id"]


def my_id(api: Api) -> str:
    return str(api.ok("GET", "/api/users/me")["id"])


def meet_before_writing(monkeypatch: pytest.MonkeyPatch, parties: int) -> None:
    """Every request has read before the first of them writes. Writes are one after another: moto is not atomic."""
    together, one_by_one, write = Barrier(parties), Lock(), DynamoUsers.write

    def meet(self: DynamoUsers, change: UserWrite, now_ms: int) -> int | None:
        together.wait(30)
        with one_by_one:
            return write(self, change, now_ms)

    monkeypatch.setattr(DynamoUsers, "write", meet)


def at_once(requests: list[tuple[Api, str, Mapping[str, object]]]) -> list[tuple[int, Any]]:
    with ThreadPoolExecutor(len(requests), initializer=_with_a_loop) as pool:
        return list(pool.map(lambda request: request[0]("PATCH", f"/api/users/{request[1]}", request[2]), requests))


def _with_a_loop() -> None:
    """The handler runs on the event loop of its thread, as on Lambda."""
    asyncio.set_event_loop(asyncio.new_event_loop())


def active_admins(env: Mapping[str, str]) -> list[str]:
    users = api_services(env).users._users.all(200, None).items
    return [user.email for user in users if user.active and user.role.value == "admin"]


@pytest.mark.parametrize("change", [{"active": False}, {"role": "viewer"}], ids=["deactivate", "demote"])
def test_two_admins_cannot_remove_each_other_at_once(
    admin: Api, change: Mapping[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    other, other_id = another(admin, "other")
    meet_before_writing(monkeypatch, 2)
    answers = at_once([(admin, other_id, change), (other, my_id(admin), change)])
    assert sorted(status for status, _ in answers) == [200, 409], answers
    assert code(max(answers, key=lambda answer: answer[0])) == (409, "no_admin_any_more")
    assert len(active_admins(admin.env)) == 1


def test_nor_with_a_third_admin_there(admin: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    (other, other_id), _ = another(admin, "other"), another(admin, "third")
    meet_before_writing(monkeypatch, 2)
    answers = at_once([(admin, other_id, {"active": False}), (other, my_id(admin), {"role": "editor"})])
    assert sorted(status for status, _ in answers) == [200, 409], answers
    assert len(active_admins(admin.env)) == 2


def test_a_circle_of_admins_leaves_one(admin: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    circle = [(admin, my_id(admin)), *(another(admin, f"a{number}") for number in range(3))]
    meet_before_writing(monkeypatch, len(circle))
    at_once([(api, circle[place - 1][1], {"active": False}) for place, (api, _) in enumerate(circle)])
    assert 1 <= len(active_admins(admin.env)) < len(circle)


def test_who_loses_the_rights_meanwhile_makes_nobody_an_admin(admin: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    other, other_id = another(admin, "other")
    friend = admin.ok("POST", "/api/users", {"email": "friend@x.example", "role": "viewer"})["user"]["id"]
    write = DynamoUsers.write
    demoted: list[bool] = []

    def first_demoted(self: DynamoUsers, change: UserWrite, now_ms: int) -> int | None:
        if not demoted:
            demoted.append(True)
            manage = api_services(admin.env).users
            first, _ = sorted(manage._users.all(2, None).items, key=lambda user: user.email)
            manage.change(first, other_id, role=Role.VIEWER)
        return write(self, change, now_ms)

    monkeypatch.setattr(DynamoUsers, "write", first_demoted)
    assert code(other("PATCH", f"/api/users/{friend}", {"role": "admin"})) == (409, "no_admin_any_more")
    assert active_admins(admin.env) == ["admin@x.example"]


def test_the_list_of_admins_follows_every_change(admin: Api) -> None:
    other, other_id = another(admin, "other")
    for change in ({"role": "viewer"}, {"role": "admin"}, {"active": False}, {"active": True}, {"role": "editor"}):
        admin.ok("PATCH", f"/api/users/{other_id}", change)
    admin.ok("PATCH", f"/api/users/{other_id}", {"role": "admin"})
    other = Api(admin.handler, admin.env).login("other@x.example")
    other.ok("PATCH", f"/api/users/{my_id(admin)}", {"active": False})
    me = my_id(other)
    assert other("PATCH", f"/api/users/{me}", {"active": False})[0] == 400
    assert active_admins(admin.env) == ["other@x.example"]


def test_a_lost_list_of_admins_removes_nobody_and_comes_back(admin: Api) -> None:
    other, other_id = another(admin, "other")
    users = api_services(admin.env).users._users
    assert isinstance(users, DynamoUsers)
    users._db.delete(users._table, {"key": "admins"})
    assert code(admin("PATCH", f"/api/users/{other_id}", {"active": False})) == (409, "no_admin_any_more")
    # Whatever is written of an active admin puts the admin on the list again.
    for api in (admin, other):
        body = {"currentPassword": PASSWORD, "newPassword": "Even-longer-2"}
        api.ok("POST", "/api/users/me/password", body)
    again = Api(admin.handler, admin.env).login("admin@x.example", "Even-longer-2")
    assert again("PATCH", f"/api/users/{other_id}", {"active": False})[0] == 200


@pytest.mark.parametrize("change", [{"role": "viewer"}, {"role": "editor"}])
def test_who_is_no_admin_any_more_loses_what_was_given_to_the_admin(admin: Api, change: Mapping[str, object]) -> None:
    other, other_id = another(admin, "other")
    admin.ok("PATCH", f"/api/users/{other_id}", change)
    assert other("GET", "/api/users/me")[0] == 401, "the admin's login"
    page = api_services(admin.env).users._users._revocations.read(0, 10, 0)  # type: ignore[attr-defined]
    assert [(event.revocation.reason.value, event.revocation.user_id) for event in page.events] == [
        ("role_lowered", other_id)
    ]


def test_nobody_resets_their_own_password(admin: Api) -> None:
    status, answer = admin("POST", f"/api/users/{my_id(admin)}/password:reset")
    assert (status, answer["error"]["code"]) == (400, "own_password")
    assert "/api/users/me/password" in answer["error"]["message"]
    assert Api(admin.handler, admin.env).login("admin@x.example").token
