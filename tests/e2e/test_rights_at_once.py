"""Changes of rights at the same time, on a real table API: of two that exclude each other, one is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from threading import Barrier, local
from typing import Any

import pytest

from local_stack.config import Config
from local_stack.seed import Api, document
from tests.doubles.platform import MemoryObserver
from tidegate import tables
from tidegate.adapters.dynamodb.audit import DynamoAudit
from tidegate.adapters.dynamodb.dashboards import DynamoDashboards
from tidegate.adapters.dynamodb.users import DynamoUsers
from tidegate.adapters.password_argon2 import Argon2Passwords
from tidegate.domain.access import Role
from tidegate.domain.revocations import RevocationReason
from tidegate.domain.users import User, is_active_admin
from tidegate.errors import Conflict, NotFound, TidegateError
from tidegate.ports.control_plane import UserWrite
from tidegate.providers.control_plane import ControlPlaneProviders
from tidegate.usecases.control_plane.manage_dashboards import ManageDashboards
from tidegate.usecases.control_plane.manage_users import ManageUsers

ROUNDS = 10


@dataclass
class People:
    """What admins do, over the tables of the stack."""

    control_plane: ControlPlaneProviders
    store: DynamoUsers
    users: ManageUsers
    dashboards: ManageDashboards

    def somebody(self, name: str, role: Role) -> User:
        user = User(self.control_plane.ids.new_id(), f"{name}@e2e.example", role, True, 1, "hash")
        self.store.write(UserWrite(None, user), 0)
        return user


@pytest.fixture
def people(stack: Mapping[str, Any], config: Config) -> People:
    environment = {**config.aws_environment(), **stack["tables"], "TIDEGATE_ENV": "development"}
    control_plane = ControlPlaneProviders(environment)
    clock, ids = control_plane.clock, control_plane.ids
    store = DynamoUsers(
        control_plane.db,
        control_plane.revocations,
        table=control_plane.table(tables.USERS),
        access_table=control_plane.table(tables.ACCESS),
    )
    audit = DynamoAudit(control_plane.db, control_plane.table(tables.AUDIT), ids, MemoryObserver())
    dashboards = ManageDashboards(
        dashboards=control_plane.dashboards,
        users=store,
        profiles=control_plane.profiles,
        resolve=control_plane.resolve,
        audit=audit,
        clock=clock,
        ids=ids,
    )
    users = ManageUsers(users=store, passwords=Argon2Passwords(), audit=audit, clock=clock, ids=ids)
    return People(control_plane, store, users, dashboards)


def at_once(monkeypatch: pytest.MonkeyPatch, *changes: Callable[[], object]) -> list[str | None]:
    """Make the changes, each of which has read before any of them writes. Returns each one's error code, or None."""
    together = Barrier(len(changes))

    def outcome(change: Callable[[], object]) -> str | None:
        try:
            change()
        except TidegateError as error:
            assert isinstance(error, Conflict | NotFound), error
            return error.code
        return None

    with monkeypatch.context() as patched:
        patched.setattr(DynamoUsers, "write", _meeting(DynamoUsers.write, together))
        patched.setattr(DynamoDashboards, "write", _meeting(DynamoDashboards.write, together))
        with ThreadPoolExecutor(len(changes)) as threads:
            return list(threads.map(outcome, changes))


def _meeting(write: Callable[..., int | None], together: Barrier) -> Callable[..., int | None]:
    mine = local()

    def meet(*args: object) -> int | None:
        if not hasattr(mine, "met"):  # a change that is made again has read again
            mine.met = True
            together.wait(30)
        return write(*args)

    return meet


@pytest.mark.parametrize("how", ["demoted", "deactivated"])
def test_of_two_admins_who_remove_each_other_at_once_one_stays(
    people: People, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    change: dict[str, Any] = {"role": Role.VIEWER} if how == "demoted" else {"active": False}
    for number in range(ROUNDS):
        one, two = (people.somebody(f"{how}-{number}-{each}", Role.ADMIN) for each in ("one", "two"))
        outcomes = at_once(
            monkeypatch,
            partial(people.users.change, one, two.user_id, **change),
            partial(people.users.change, two, one.user_id, **change),
        )
        assert sorted(code or "done" for code in outcomes) == ["done", "no_admin_any_more"], (number, outcomes)
        left = [people.store.get(user.user_id) for user in (two, one)]
        assert [user is not None and is_active_admin(user) for user in left] == [code is not None for code in outcomes]


def test_no_dashboard_goes_to_somebody_who_is_deactivated_at_once(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is deactivated after becoming the owner is found by the deactivation's task; before it, nobody is."""
    admin, owner = people.somebody("naming", Role.ADMIN), people.somebody("owner", Role.EDITOR)
    for number in range(ROUNDS):
        new = people.somebody(f"new-{number}", Role.EDITOR)
        made = people.dashboards.create(owner, document("T", [])["document"])
        named, deactivated = at_once(
            monkeypatch,
            partial(people.dashboards.set_owner, admin, made.dashboard_id, new.email),
            partial(people.users.change, admin, new.user_id, active=False),
        )
        assert deactivated is None and named in (None, "user_not_found"), (number, named, deactivated)
        stored = people.control_plane.dashboards.get(made.dashboard_id)
        assert stored is not None and stored.owner_id == (owner if named else new).user_id
        events = people.control_plane.revocations.read(0, 1000, people.control_plane.clock.now()).events
        about = [
            event.revocation.reason
            for event in events
            if event.revocation.dashboard_id == made.dashboard_id or event.revocation.user_id == new.user_id
        ]
        expected = [RevocationReason.OWNER_CHANGED] * (named is None) + [RevocationReason.USER_DEACTIVATED]
        assert about == expected, "naming came first, or was refused"


def test_an_admin_names_a_new_owner_by_the_deployed_api(stack: Mapping[str, Any]) -> None:
    """The function's grants suffice for the transaction, whether or not the new owner was in the ACL."""
    admin, editor = (
        Api.login(stack["edge_url"], stack["users"][role]["email"], stack["users"][role]["password"])
        for role in ("admin", "editor")
    )
    made = editor.call("POST", "/api/dashboards", document("E2E", []))
    path = f"/api/dashboards/{made['id']}"
    try:
        for role in ("admin", "editor", "admin"):
            changed = admin.call("PUT", f"{path}/owner", {"email": stack["users"][role]["email"]})
            assert changed["ownerId"] == admin.call("GET", path)["ownerId"] and changed["acl"] == []
            if role == "admin":
                assert editor.request("GET", path).status_code == 404
                admin.call("PUT", f"{path}/acl", {"email": stack["users"]["editor"]["email"], "level": "viewer"})
    finally:
        admin.call("DELETE", path)
