"""Stored intents and uses of profiles on real tables: what a change keeps, and that no change of a profile is lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from fixtures.fake_upstreams.certificate import make
from tests.deployment import aws
from tests.doubles.platform import CountingIds, MemoryObserver
from tidegate import tables
from tidegate.adapters.dynamodb.audit import DynamoAudit
from tidegate.adapters.dynamodb.users import DynamoUsers
from tidegate.domain.access import AclLevel, Role, Visibility
from tidegate.domain.dashboards import Dashboard
from tidegate.domain.profile_changes import ProfileChange
from tidegate.domain.profiles import BROKER, CREDENTIAL, BrokerProfile, CredentialProfile, CredentialType, Transport
from tidegate.domain.users import User
from tidegate.ports.control_plane import UserWrite
from tidegate.providers.control_plane import ControlPlaneProviders
from tidegate.usecases.control_plane.follow_profiles import FollowProfiles
from tidegate.usecases.control_plane.manage_dashboards import ManageDashboards
from tidegate.usecases.control_plane.manage_profiles import ManageProfiles

ADMIN = User("admin", "a@x.example", Role.ADMIN, True, 1, "")
MEMBER = User("member", "m@x.example", Role.VIEWER, True, 1, "")


def authority() -> str:
    with TemporaryDirectory() as folder:
        return make(Path(folder))[0].read_text()


class Container:
    """A dashboard with sources on an IoT broker, on a broker with a credential, and on an SSE source with one."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env, self.control_plane = env, ControlPlaneProviders(env)
        control_plane = self.control_plane
        self.read: list[tuple[str, str]] = []
        self._count_reads()
        self.users = DynamoUsers(
            control_plane.db,
            control_plane.revocations,
            table=control_plane.table(tables.USERS),
            access_table=control_plane.table(tables.ACCESS),
        )
        self.users.write(UserWrite(None, MEMBER), 0)
        self.ids = CountingIds()
        self.audit = DynamoAudit(control_plane.db, control_plane.table(tables.AUDIT), self.ids, MemoryObserver())
        self.manage = self.dashboards_of(self.ids)
        self.follow = FollowProfiles(
            profiles=control_plane.profiles,
            dashboards=control_plane.dashboards,
            resolve=control_plane.resolve,
            clock=control_plane.clock,
            observer=MemoryObserver(),
        )
        self.profiles = ManageProfiles(
            profiles=control_plane.profiles,
            follow=self.follow,
            requests=control_plane.follow_requests,
            cipher=None,  # type: ignore[arg-type] # secrets are written sealed, below
            egress=control_plane.egress_policy,
            audit=self.audit,
            clock=control_plane.clock,
            ids=self.ids,
        )
        for name, kind in (("basic", CredentialType.BASIC), ("bearer", CredentialType.BEARER)):
            control_plane.profiles.write_credential(
                None, CredentialProfile(name, name, kind, ("https://up.example:443",)), "sealed"
            )
        control_plane.profiles.write_broker(None, BrokerProfile("core", "core", Transport.IOT_CORE))
        far = BrokerProfile("far", "far", Transport.EXTERNAL, "mqtts://far.example", "basic")
        control_plane.profiles.write_broker(None, far)
        self.made = self.manage.create(ADMIN, document("T", *SOURCES))
        self.read.clear()

    def dashboards_of(self, ids: Any) -> ManageDashboards:
        control_plane = self.control_plane
        return ManageDashboards(
            dashboards=control_plane.dashboards,
            users=self.users,
            profiles=control_plane.profiles,
            resolve=control_plane.resolve,
            audit=self.audit,
            clock=control_plane.clock,
            ids=ids,
        )

    def _count_reads(self) -> None:
        db, profiles = self.control_plane.db, self.control_plane.table(tables.PROFILES)
        real = db.get

        def get(table: str, key: Mapping[str, Any], deadline: float | None = None) -> Any:
            if table == profiles:
                self.read.append((key["kind"], key["id"]))
            return real(table, key, deadline)

        db.get = get  # type: ignore[method-assign]

    @property
    def id(self) -> str:
        return self.made.dashboard_id

    def stored(self) -> Dashboard:
        dashboard = self.control_plane.dashboards.get(self.id)
        assert dashboard is not None
        return dashboard

    def hashes(self) -> dict[str, str]:
        return dict(self.control_plane.access.read([self.id], []).dashboards[self.id].intents)

    def use_rows(self) -> set[str]:
        items = aws(self.env["AWS_ENDPOINT_URL"], "dynamodb").scan(TableName=self.env[tables.PROFILES.variable])[
            "Items"
        ]
        rows = [item for item in items if item["kind"]["S"].startswith("use#") and item["id"]["S"] == self.id]
        return {item["kind"]["S"].removeprefix("use#") for item in rows}

    def reconnect(self, broker_id: str = "core", **changes: Any) -> None:
        """Change what intents of a broker are made of, through its use case: dashboards follow at once."""
        profile = self.control_plane.profiles.broker(broker_id)
        assert profile is not None
        wanted = replace(profile, **(changes or {"tls": {"ca": authority()}}))
        self.profiles.update_broker(ADMIN, broker_id, wanted, profile.revision)

    def assert_consistent(self) -> None:
        """Access item, intents and profiles say the same."""
        resolved = self.control_plane.resolve(self.id, self.stored().document)
        assert self.hashes() == resolved.hashes
        assert self.control_plane.dashboards.intents(self.id) == resolved.intents


def document(title: str, *sources: Mapping[str, Any]) -> dict[str, Any]:
    return {"schemaVersion": 1, "title": title, "datasources": list(sources)}


def mqtt(datasource_id: str, broker: str) -> dict[str, Any]:
    return {"id": datasource_id, "type": "mqtt", "settings": {"brokerProfileId": broker, "topic": "a"}}


def sse(datasource_id: str, credential: str) -> dict[str, Any]:
    settings = {"url": "https://up.example/", "credentialProfileId": credential}
    return {"id": datasource_id, "type": "sse", "settings": settings}


SOURCES = (mqtt("m1", "core"), mqtt("m2", "core"), mqtt("m3", "far"), sse("s1", "bearer"))
EACH_ONCE = [(BROKER, "core"), (BROKER, "far"), (CREDENTIAL, "basic"), (CREDENTIAL, "bearer")]
ALL_USED = {"broker#core", "broker#far", "credential#basic", "credential#bearer"}


@pytest.fixture
def container(deployed: Mapping[str, str]) -> Container:
    return Container(deployed)


def test_changes_that_keep_the_document_read_no_profile_and_keep_the_intents(container: Container) -> None:
    hashes, intents = container.hashes(), container.control_plane.dashboards.intents(container.id)
    manage = container.manage
    assert set(hashes) == set(intents) == {"m1", "m2", "m3", "s1"}
    manage.set_visibility(ADMIN, container.id, Visibility.LINK)
    manage.rotate_share_token(ADMIN, container.id)
    manage.grant(ADMIN, container.id, MEMBER.email, AclLevel.MANAGER)
    assert container.control_plane.access.read([container.id], []).dashboards[container.id].acl == {
        "member": AclLevel.MANAGER
    }
    manage.revoke(ADMIN, container.id, "member")
    manage.update(ADMIN, container.id, document("T", *SOURCES), 1)
    access = container.control_plane.access.read([container.id], []).dashboards[container.id]
    after = container.stored()
    assert (access.share_version, access.visibility, access.acl, access.deleted) == (2, Visibility.LINK, {}, False)
    assert (after.revision, after.row_version, after.share_version) == (2, 6, 2)
    assert container.read == []
    assert container.hashes() == hashes and container.control_plane.dashboards.intents(container.id) == intents
    assert container.use_rows() == ALL_USED
    manage.delete(ADMIN, container.id)
    assert container.read == [] and container.use_rows() == set()
    assert container.control_plane.dashboards.intents(container.id) == {}
    assert container.control_plane.access.read([container.id], []).dashboards[container.id].deleted


def test_a_changed_document_reads_each_profile_once(container: Container) -> None:
    container.manage.update(ADMIN, container.id, document("Other", *SOURCES), 1)
    assert sorted(container.read) == EACH_ONCE
    container.read.clear()
    container.manage.update(ADMIN, container.id, document("Other", *SOURCES[:2]), 2)
    assert container.read == [(BROKER, "core")]
    assert container.use_rows() == {"broker#core"}, "also the credential that was used through its broker"
    container.assert_consistent()


# --- a profile changes meanwhile ------------------------------------------------------------------------------


def later(change: ProfileChange, deadline: float) -> bool:
    """In the place of following: there was no time for it."""
    return False


class During(CountingIds):
    """Does something in the middle of a rotation, once: after the dashboard was read, before it is written."""

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__()
        self._work: Callable[[], object] | None = work

    def new_share_token(self) -> str:
        work, self._work = self._work, None
        if work:
            work()
        return super().new_share_token()


def test_a_rotation_during_which_a_profile_changes_starts_over(container: Container) -> None:
    before = container.hashes()
    rotated = container.dashboards_of(During(container.reconnect)).rotate_share_token(ADMIN, container.id)
    assert container.hashes()["m1"] != before["m1"], "the dashboard has followed"
    assert container.stored().share_token == rotated.share_token
    assert rotated.share_version == container.made.share_version + 1
    container.assert_consistent()


def test_a_follower_meanwhile_of_whom_somebody_rotates_starts_over(container: Container) -> None:
    before, real = container.hashes(), container.control_plane.dashboards.intents
    rotated: list[Dashboard] = []

    def intents(dashboard_id: str) -> Any:
        if not rotated:
            rotated.append(container.manage.rotate_share_token(ADMIN, dashboard_id))
        return real(dashboard_id)

    container.control_plane.dashboards.intents = intents  # type: ignore[method-assign]
    container.reconnect()
    after = container.stored()
    assert rotated and after.share_token == rotated[0].share_token
    assert container.hashes()["m1"] != before["m1"] and after.row_version == container.made.row_version + 2
    assert container.control_plane.profiles.open_changes() == []
    container.assert_consistent()


def test_a_change_that_nobody_followed_yet_is_followed_after_a_rotation(container: Container) -> None:
    """The API died right after it had written the profile; the owner rotates; then the change is taken up."""
    real = container.follow.one
    container.follow.one = later  # type: ignore[method-assign]
    before = container.hashes()
    container.reconnect()
    container.manage.rotate_share_token(ADMIN, container.id)
    assert container.hashes() == before
    container.follow.one = real  # type: ignore[method-assign]
    assert container.follow(1e12)
    assert container.hashes()["m1"] != before["m1"] and container.hashes()["s1"] == before["s1"]
    container.assert_consistent()


def test_a_document_written_with_a_profile_that_changed_is_resolved_again(container: Container) -> None:
    real = container.control_plane.dashboards.intents
    changed: list[bool] = []

    def intents(dashboard_id: str) -> Any:
        if not changed:
            changed.append(True)
            container.follow.one = later  # type: ignore[method-assign]
            container.reconnect()
        return real(dashboard_id)

    container.control_plane.dashboards.intents = intents  # type: ignore[method-assign]
    container.manage.update(ADMIN, container.id, document("Other", *SOURCES), 1)
    assert changed
    container.assert_consistent()


def test_what_does_not_resolve_comes_back_when_its_profile_does(container: Container) -> None:
    before = container.hashes()
    container.profiles.delete(ADMIN, CREDENTIAL, "basic")
    assert set(container.hashes()) == {"m1", "m2", "s1"} and "broker#far" in container.use_rows()
    container.manage.rotate_share_token(ADMIN, container.id)
    container.manage.update(ADMIN, container.id, document("Other", *SOURCES), 1)
    assert set(container.hashes()) == {"m1", "m2", "s1"} and "broker#far" in container.use_rows()
    container.reconnect("far", credential_profile_id=None)
    assert set(container.hashes()) == {"m1", "m2", "m3", "s1"} and container.hashes()["m1"] == before["m1"]
    container.assert_consistent()


def test_a_dashboard_that_moved_to_another_credential_leaves_the_old_one(container: Container) -> None:
    control_plane = container.control_plane
    control_plane.profiles.write_credential(None, CredentialProfile("next", "next", CredentialType.BASIC), "sealed")
    container.reconnect("far", credential_profile_id="next")
    assert container.use_rows() == ALL_USED - {"credential#basic"} | {"credential#next"}
    container.assert_consistent()
    container.manage.delete(ADMIN, container.id)
    assert container.use_rows() == set()
