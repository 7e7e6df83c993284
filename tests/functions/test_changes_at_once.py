"""Changes without a revision succeed whoever saves meanwhile: rotating a link must not be asked for twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier, Lock, local
from typing import Any

import pytest

from functions.api.main import make_handler
from functions.api.wiring import api_services
from local_stack.seed import document, mqtt
from ops.admin import first_admin
from tests.functions.test_api import PASSWORD, Api, broker, code, dashboard, person
from tidegate.adapters.dynamodb.dashboards import DynamoDashboards
from tidegate.adapters.dynamodb.profiles import DynamoProfiles
from tidegate.adapters.dynamodb.users import DynamoUsers
from tidegate.adapters.password_argon2 import Argon2Passwords
from tidegate.domain.access import AclLevel
from tidegate.domain.profiles import CREDENTIAL
from tidegate.domain.users import User
from tidegate.ports.control_plane import DashboardWrite
from tidegate.usecases.control_plane import from_what_stands
from tidegate.usecases.control_plane.manage_dashboards import ManageDashboards

#: Method, path below the dashboard, body.
Change = tuple[str, str, dict[str, Any] | None]

ROTATE: Change = ("POST", "/share-token:rotate", None)
PUBLIC: Change = ("PUT", "/visibility", {"visibility": "public"})
GRANT: Change = ("PUT", "/acl", {"email": "one@x.example", "level": "viewer"})
GRANT_OTHER: Change = ("PUT", "/acl", {"email": "two@x.example", "level": "editor"})
OWNER: Change = ("PUT", "/owner", {"email": "one@x.example"})
OWNER_OTHER: Change = ("PUT", "/owner", {"email": "two@x.example"})
DELETE: Change = ("DELETE", "", None)


@pytest.fixture
def admin(deployed: Mapping[str, str]) -> Api:
    first_admin(deployed, "admin@x.example", PASSWORD)
    admin = Api(make_handler(api_services(deployed)), deployed).login("admin@x.example")
    for name in ("one", "two"):
        admin.ok("POST", "/api/users", {"email": f"{name}@x.example", "role": "editor", "password": PASSWORD})
    return admin


def change(api: Api, made: Mapping[str, Any], what: Change) -> tuple[int, Any]:
    method, path, body = what
    return api(method, f"/api/dashboards/{made['id']}{path}", body)


def ids(admin: Api) -> dict[str, str]:
    """E-mail -> id."""
    return {each["email"]: each["id"] for each in admin.ok("GET", "/api/users")["users"]}


def acting(admin: Api, email: str) -> tuple[ManageDashboards, User]:
    """To change a dashboard from within another request."""
    services = api_services(admin.env)
    (user,) = [user for user in services.dashboards._users.all(99, None).items if user.email == email]
    return services.dashboards, user


def meeting(monkeypatch: pytest.MonkeyPatch, store: type, number: int) -> None:
    """The first write of each thread waits until all have read. The store carries them out one after another."""
    together, one_by_one, mine, write = Barrier(number), Lock(), local(), store.write  # type: ignore[attr-defined]

    def meet(self: object, *args: object) -> object:
        if not hasattr(mine, "met"):
            mine.met = True
            together.wait(30)
        with one_by_one:
            return write(self, *args)

    monkeypatch.setattr(store, "write", meet)


def at_once(*calls: Callable[[], tuple[int, Any]]) -> list[tuple[int, Any]]:
    with ThreadPoolExecutor(
        len(calls), initializer=lambda: asyncio.set_event_loop(asyncio.new_event_loop())
    ) as threads:
        return [each.result() for each in [threads.submit(call) for call in calls]]


@pytest.mark.parametrize(
    "changes",
    [
        (ROTATE, GRANT),
        (ROTATE, ROTATE),
        (ROTATE, PUBLIC),
        (GRANT, GRANT_OTHER),
        (GRANT, GRANT),
        (PUBLIC, GRANT),
        (OWNER, GRANT_OTHER),
        (OWNER, OWNER_OTHER),
        (DELETE, ROTATE),
    ],
    ids=lambda pair: " and ".join(f"{method} {path or '/'}" for method, path, _ in pair),
)
def test_two_changes_at_once_are_both_made(
    admin: Api, monkeypatch: pytest.MonkeyPatch, changes: tuple[Change, Change]
) -> None:
    made = dashboard(person(admin, "editor"))
    meeting(monkeypatch, DynamoDashboards, 2)
    answers = at_once(*(lambda each=each: change(admin, made, each) for each in changes))
    if DELETE in changes:  # what comes after the deletion finds nothing
        assert [status for status, _ in answers] in ([204, 200], [204, 404]), answers
        return
    assert [status for status, _ in answers] == [200, 200], answers
    now = admin.ok("GET", f"/api/dashboards/{made['id']}")
    versions = changes.count(ROTATE) + changes.count(PUBLIC)
    assert now["shareTokenVersion"] == made["shareTokenVersion"] + versions
    assert (now["shareToken"] != made["shareToken"]) is bool(versions)
    granted = {each["userId"]: each["level"] for each in now["acl"]}
    wanted = [what[2] for what in changes if what[1] == "/acl" and what[2]]
    assert granted == {ids(admin)[each["email"]]: each["level"] for each in wanted}


def test_six_grants_at_once_are_all_made(admin: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["one", "two", "three", "four", "five", "six"]
    for name in names[2:]:
        admin.ok("POST", "/api/users", {"email": f"{name}@x.example", "role": "viewer", "password": PASSWORD})
    made = dashboard(person(admin, "editor"))
    meeting(monkeypatch, DynamoDashboards, len(names))
    grants: list[Change] = [("PUT", "/acl", {"email": f"{name}@x.example", "level": "viewer"}) for name in names]
    answers = at_once(*(lambda each=each: change(admin, made, each) for each in grants))
    assert [status for status, _ in answers] == [200] * len(names), answers
    acl = admin.ok("GET", f"/api/dashboards/{made['id']}")["acl"]
    assert {each["userId"] for each in acl} == {ids(admin)[f"{name}@x.example"] for name in names}


def test_a_document_is_saved_while_somebody_grants(admin: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The document that the author saw is still the one that stands."""
    made = dashboard(person(admin, "editor"))
    path, title = f"/api/dashboards/{made['id']}", {**document("Saved", [])}
    meeting(monkeypatch, DynamoDashboards, 2)
    revision = str(made["revision"])
    answers = at_once(lambda: admin("PUT", path, title, **{"if-match": revision}), lambda: change(admin, made, GRANT))
    assert [status for status, _ in answers] == [200, 200], answers
    now = admin.ok("GET", path)
    assert (now["document"]["title"], len(now["acl"])) == ("Saved", 1)


def test_of_two_documents_saved_at_once_one_is_refused(admin: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    made = dashboard(person(admin, "editor"))
    path = f"/api/dashboards/{made['id']}"
    meeting(monkeypatch, DynamoDashboards, 2)
    answers = at_once(
        *(
            lambda title=title: admin("PUT", path, document(title, []), **{"if-match": str(made["revision"])})
            for title in ("A", "B")
        )
    )
    assert sorted(status for status, _ in answers) == [200, 409], answers
    (refused,) = [answer for status, answer in answers if status == 409]
    assert refused["error"]["code"] == "conflict" and refused["error"]["currentRevision"] == made["revision"] + 1


def test_a_right_that_is_lost_meanwhile_is_looked_at_again(admin: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repetition asks once more whether the caller may: a manager who was removed rotates nothing."""
    owner = person(admin, "editor")
    made = dashboard(owner)
    manager = Api(admin.handler, admin.env).login("one@x.example")
    granted = owner.ok("PUT", f"/api/dashboards/{made['id']}/acl", {"email": "one@x.example", "level": "manager"})
    (entry,) = granted["acl"]
    dashboards, user = acting(admin, "editor@x.example")
    write, done = DynamoDashboards.write, list[bool]()

    def after_removal(self: DynamoDashboards, *args: Any) -> int | None:
        if not done:
            done.append(True)
            dashboards.revoke(user, made["id"], entry["userId"])
        return write(self, *args)

    monkeypatch.setattr(DynamoDashboards, "write", after_removal)
    assert code(change(manager, made, ROTATE)) == (404, "not_found")
    assert owner.ok("GET", f"/api/dashboards/{made['id']}")["shareToken"] == made["shareToken"]


def test_a_change_that_never_comes_first_could_not_be_made(admin: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is no refusal and no conflict: 503, after a bounded number of attempts."""
    made = dashboard(person(admin, "editor"))
    dashboards, user = acting(admin, "admin@x.example")
    write, tries = DynamoDashboards.write, list[DashboardWrite]()

    def second(self: DynamoDashboards, change: DashboardWrite, now_ms: int) -> int | None:
        if change.after and change.after.acl:
            tries.append(change)
            dashboards.rotate_share_token(user, made["id"])
        return write(self, change, now_ms)

    monkeypatch.setattr(DynamoDashboards, "write", second)
    monkeypatch.setattr(from_what_stands, "sleep", lambda seconds: None)
    assert code(change(admin, made, GRANT)) == (503, "store_busy")
    assert len(tries) == from_what_stands.ATTEMPTS


def test_a_user_is_changed_while_a_dashboard_is_shared_with_them(admin: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sharing writes the user's item as well."""
    made, shared, write = dashboard(person(admin, "editor")), list[bool](), DynamoUsers.write
    dashboards, user = acting(admin, "admin@x.example")
    one = Api(admin.handler, admin.env).login("one@x.example")
    one_id = ids(admin)["one@x.example"]

    def after_sharing(self: DynamoUsers, *args: Any) -> int | None:
        if not shared:
            shared.append(True)
            dashboards.grant(user, made["id"], "one@x.example", AclLevel.VIEWER)
        return write(self, *args)

    monkeypatch.setattr(DynamoUsers, "write", after_sharing)
    changed = admin.ok("PATCH", f"/api/users/{one_id}", {"role": "viewer"})
    assert (changed["role"], shared) == ("viewer", [True])
    dashboards.revoke(user, made["id"], one_id)
    shared.clear()
    body = {"currentPassword": PASSWORD, "newPassword": "Another-long-1"}
    assert one("POST", "/api/users/me/password", body)[0] == 204
    assert shared == [True]
    assert [each["id"] for each in one.login("one@x.example", "Another-long-1").ok("GET", "/api/dashboards")["shared"]]


@pytest.mark.parametrize("kind", ["credential", "broker"])
def test_a_profile_is_deleted_while_somebody_saves_it(admin: Api, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    body: dict[str, Any] = {"name": "p", "transport": "iot-core", "topicAllowlist": []}
    if kind == "credential":
        body = {"name": "p", "type": "bearer", "secret": {"token": "s" * 20}, "destinations": ["https://a.example"]}
    path = f"/api/{kind}-profiles/" + admin.ok("POST", f"/api/{kind}-profiles", body)["id"]
    delete, saved = DynamoProfiles.delete, list[bool]()

    def after_saving(self: DynamoProfiles, kind: str, profile_id: str, *args: Any) -> None:
        if not saved:
            saved.append(True)
            if kind == CREDENTIAL:
                seen = self.credential(profile_id)
                assert seen is not None
                self.write_credential(seen, replace(seen, revision=2), None)
            else:
                found = self.broker(profile_id)
                assert found is not None
                self.write_broker(found, replace(found, revision=2))
        delete(self, kind, profile_id, *args)

    monkeypatch.setattr(DynamoProfiles, "delete", after_saving)
    assert (admin("DELETE", path)[0], saved) == (204, [True])
    assert code(admin("DELETE", path)) == (404, "not_found")
    events = [event["action"] for event in admin.ok("GET", "/api/operations/audit")["events"]]
    assert events.count(f"{kind}_profile.deleted") == 1


@pytest.mark.parametrize("before", ["hash", "write"])
@pytest.mark.parametrize("how", ["signed out", "signed out everywhere", "deactivated"])
def test_a_login_that_ended_meanwhile_changes_no_password(
    admin: Api, monkeypatch: pytest.MonkeyPatch, how: str, before: str
) -> None:
    """Whoever ends a stolen login keeps its password from being changed with it."""
    one, one_id = Api(admin.handler, admin.env).login("one@x.example"), ids(admin)["one@x.example"]
    done = list[bool]()
    store, name = (Argon2Passwords, "hash") if before == "hash" else (DynamoUsers, "write")
    services = api_services(admin.env)
    login = services.logins.use(str(one.token))
    admin_user = services.logins.use(str(admin.token)).user
    first = getattr(store, name)

    def end() -> None:
        if how == "signed out":
            services.logins.end(login)
        elif how == "signed out everywhere":
            services.logins.end_all(login.user)
        else:
            services.users.change(admin_user, one_id, active=False)

    def after_the_end(self: object, *args: Any) -> Any:
        if not done:
            done.append(True)
            end()
        return first(self, *args)

    monkeypatch.setattr(store, name, after_the_end)
    answer = one("POST", "/api/users/me/password", {"currentPassword": PASSWORD, "newPassword": "Another-long-1"})
    assert (answer[0], done) == (401, [True])
    if how == "deactivated":
        admin.ok("PATCH", f"/api/users/{one_id}", {"active": True})
    assert code(admin("POST", "/api/auth/login", {"email": "one@x.example", "password": "Another-long-1"}))[0] == 401
    assert one.login("one@x.example")


def test_a_change_that_touches_too_much_says_so(admin: Api) -> None:
    """To repeat it does not help, so it is no conflict. In smaller steps it can be made."""
    brokers = [broker(admin, name=f"b{number}") for number in range(60)]
    made = dashboard(admin)
    path = f"/api/dashboards/{made['id']}"

    def save(number: int, revision: int) -> tuple[int, Any]:
        used = [mqtt(f"t{each}", brokers[each], "demo/x") for each in range(number)]
        return admin("PUT", path, document("T", used), **{"if-match": str(revision)})

    status, answer = save(60, 1)
    assert (status, answer["error"]["code"]) == (400, "too_many_at_once")
    assert answer["error"]["message"] == (
        "The change touches too many profiles and users at once: it needs 123 writes and checks, "
        "at most 98 are allowed. Make it in smaller steps."
    )
    assert [save(40, 1)[0], save(60, 2)[0]] == [200, 200]
