"""`make restore` on moto's tables, with a table that DynamoDB restored beside the stage's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from ops import restore as command
from ops.deploy_errors import DeployError
from ops.restore import Line, Restore, main
from tests.deployment import aws
from tests.doubles.platform import CountingIds
from tidegate import tables
from tidegate.adapters.dynamodb.audit import DynamoAudit
from tidegate.adapters.dynamodb.users import DynamoUsers
from tidegate.domain.access import PUBLIC_SUBJECT, AclLevel, Claim, Principal, Refusal, Role, Visibility, allowed
from tidegate.domain.audit import AuditQuery
from tidegate.domain.dashboards import Dashboard
from tidegate.domain.documents import check_document
from tidegate.domain.users import User
from tidegate.ports.control_plane import UserWrite
from tidegate.providers.control_plane import ControlPlaneProviders
from tidegate.usecases.control_plane.manage_dashboards import ManageDashboards

_NUMBERS = count(1)
OWNER = User("owner", "owner@x.example", Role.EDITOR, True, 1, "")
MEMBER = User("member", "member@x.example", Role.VIEWER, True, 1, "")
ADMIN = User("admin", "admin@x.example", Role.ADMIN, True, 1, "")


class Stage:
    """A stage with three users, and what they do with dashboards."""

    def __init__(self, env: Mapping[str, str], dynamodb: Any) -> None:
        self.env, self._dynamodb = env, dynamodb
        self.tables = ControlPlaneProviders(env)
        ids = CountingIds()
        self.users = DynamoUsers(
            self.tables.db,
            self.tables.revocations,
            table=self.tables.table(tables.USERS),
            access_table=self.tables.table(tables.ACCESS),
        )
        for user in (OWNER, MEMBER, ADMIN):
            self.users.write(UserWrite(None, user), 0)
        self.audit = DynamoAudit(self.tables.db, self.tables.table(tables.AUDIT), ids, self.tables.observer)
        self.manage = ManageDashboards(
            dashboards=self.tables.dashboards,
            users=self.users,
            profiles=self.tables.profiles,
            resolve=self.tables.resolve,
            audit=self.audit,
            clock=self.tables.clock,
            ids=ids,
        )

    def shared(self, title: str = "before") -> Dashboard:
        """A dashboard with a member that everybody with the link sees."""
        made = self.manage.create(OWNER, document(title))
        self.manage.grant(OWNER, made.dashboard_id, MEMBER.email, AclLevel.EDITOR)
        return self.manage.set_visibility(OWNER, made.dashboard_id, Visibility.LINK)

    def backup(self) -> str:
        """The name of a restored table that has what the stage's has now."""
        name = f"restored-{next(_NUMBERS)}"
        self._dynamodb.restore_table_to_point_in_time(
            SourceTableName=self.tables.table(tables.DASHBOARDS), TargetTableName=name, UseLatestRestorableTime=True
        )
        return name

    def now(self, dashboard_id: str) -> Dashboard:
        found = self.tables.dashboards.get(dashboard_id)
        assert found is not None
        return found

    def refusal(self, dashboard_id: str, principal: Principal) -> Refusal | None:
        """Whether a subscription that was admitted before the backup would be sent data."""
        seen = self.tables.access.read([dashboard_id], [principal.subject, OWNER.user_id])
        access = seen.dashboards.get(dashboard_id)
        hashes = {} if access is None else access.intents
        claim = Claim(dashboard_id, "counter", principal, hashes.get("counter", ""), expires_at=10**10)
        return allowed(claim, access, seen.users.get(principal.subject), seen.users.get(OWNER.user_id), now=0)


def document(title: str) -> dict[str, Any]:
    settings = {"url": "https://up.example/events"}
    return {
        "schemaVersion": 1,
        "title": title,
        "datasources": [{"id": "counter", "title": "c", "type": "sse", "settings": settings}],
    }


@pytest.fixture
def stage(deployed: Mapping[str, str], moto_url: str) -> Stage:
    return Stage({**deployed, "EGRESS_ALLOWED_HOSTS": "up.example"}, aws(moto_url, "dynamodb"))


def run(stage: Stage, source: str, *ids: str, write: bool = True, owner: str = "") -> list[Line]:
    restore = Restore(stage.env, source, owner)
    return list(restore.run(ids or restore.ids(), named=bool(ids), write=write))


def guest(dashboard: Dashboard) -> Principal:
    return Principal(PUBLIC_SUBJECT, share_version=dashboard.share_version)


def test_a_deleted_dashboard_comes_back_without_the_rights_of_then(stage: Stage) -> None:
    shared = stage.shared()
    member = Principal(MEMBER.user_id, session_version=1)
    assert stage.refusal(shared.dashboard_id, guest(shared)) is None is stage.refusal(shared.dashboard_id, member)
    source = stage.backup()
    stage.manage.delete(OWNER, shared.dashboard_id)

    assert [line.state for line in run(stage, source, write=False)] == ["would come back"]
    assert stage.tables.dashboards.get(shared.dashboard_id) is None
    assert [line.state for line in run(stage, source)] == ["back"]

    back = stage.now(shared.dashboard_id)
    assert back.document == check_document(document("before"))
    assert (back.visibility, back.acl, back.owner_id) == (Visibility.PRIVATE, {}, OWNER.user_id)
    assert back.share_token != shared.share_token and back.revision > shared.revision
    assert stage.refusal(back.dashboard_id, Principal(OWNER.user_id, session_version=1)) is None
    assert stage.refusal(back.dashboard_id, member) is Refusal.REVOKED
    shown = stage.manage.set_visibility(OWNER, back.dashboard_id, Visibility.LINK)
    for version in range(shown.share_version):
        assert stage.refusal(back.dashboard_id, Principal(PUBLIC_SUBJECT, share_version=version)) is Refusal.REVOKED
    assert stage.refusal(back.dashboard_id, guest(shown)) is None
    assert [line.state for line in run(stage, source)] == ["there"], "a repetition changes nothing"
    assert stage.now(back.dashboard_id) == shown
    at_ms = back.updated_at_ms
    found = stage.audit.page(AuditQuery(9, at_ms, at_ms + 1, action="dashboard.restored")).items
    assert [(row.event.target_id, row.event.actor_id) for row in found] == [(back.dashboard_id, None)]


def test_one_that_is_there_keeps_the_rights_of_now(stage: Stage) -> None:
    shared = stage.shared()
    source = stage.backup()
    stage.manage.revoke(OWNER, shared.dashboard_id, MEMBER.user_id)
    stage.manage.rotate_share_token(OWNER, shared.dashboard_id)
    spoilt = stage.manage.update(OWNER, shared.dashboard_id, {**document("spoilt"), "datasources": []}, 1)

    assert [(line.state, line.text[:20]) for line in run(stage, source)] == [("there", "has another document")]
    assert stage.now(shared.dashboard_id) == spoilt
    assert [line.state for line in run(stage, source, shared.dashboard_id)] == ["back"]

    back = stage.now(shared.dashboard_id)
    same = replace(back, document=spoilt.document, revision=2, row_version=spoilt.row_version, updated_at_ms=0)
    assert same == replace(spoilt, updated_at_ms=0) and back.document == check_document(document("before"))
    assert stage.refusal(back.dashboard_id, guest(shared)) is Refusal.REVOKED
    assert stage.refusal(back.dashboard_id, Principal(MEMBER.user_id, session_version=1)) is Refusal.REVOKED
    assert stage.refusal(back.dashboard_id, guest(back)) is None


def test_an_owner_who_left_owns_nothing_again(stage: Stage) -> None:
    shared = stage.shared()
    source = stage.backup()
    stage.manage.delete(OWNER, shared.dashboard_id)
    stage.users.write(UserWrite(OWNER, replace(OWNER, active=False, row_version=2, session_version=2)), 0)

    (line,) = run(stage, source)
    assert (line.state, line.text) == ("refused", "its owner is no active user any more; give OWNER=<e-mail>")
    with pytest.raises(DeployError, match="is no active editor or administrator"):
        Restore(stage.env, source, MEMBER.email)
    assert [line.state for line in run(stage, source, owner=ADMIN.email)] == ["back"]
    assert stage.now(shared.dashboard_id).owner_id == ADMIN.user_id


def test_the_command_prints_a_line_for_each(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "stage_environment", lambda name: stage.env)
    shared = stage.shared()
    source = stage.backup()
    assert main(["--stage", "local"]) == 1 and "FROM is missing" in capsys.readouterr().err
    assert main(["--stage", "local", "--from", source, "--json"]) == 0
    (line,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert line == {
        "dashboard": shared.dashboard_id,
        "title": "before",
        "state": "there",
        "text": "as in the backup",
    }
    assert main(["--stage", "local", "--from", source, "--dashboard", "nobodys"]) == 1
    assert "refused          " in capsys.readouterr().out
    assert main(["--stage", "local", "--from", "no-such-table"]) == 1
    assert "run the command again" in capsys.readouterr().err
