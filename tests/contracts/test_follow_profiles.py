"""Changes of profiles on real tables: whatever dies, every dashboard follows once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from tests.deployment import aws
from tests.doubles.platform import CountingIds, Died, ManualClock, MemoryObserver
from tidegate import tables
from tidegate.domain.access import Role, Visibility
from tidegate.domain.dashboards import Dashboard, access_of
from tidegate.domain.profiles import BROKER, BrokerProfile, Transport
from tidegate.domain.users import User
from tidegate.errors import Unavailable
from tidegate.ports.control_plane import DashboardWrite, Page
from tidegate.providers.control_plane import ControlPlaneProviders
from tidegate.usecases.control_plane.follow_profiles import FollowProfiles
from tidegate.usecases.control_plane.manage_profiles import ManageProfiles

ADMIN = User("admin", "a@x.example", Role.ADMIN, True, 0, "")
DASHBOARDS = ("d1", "d2", "d3")
WRITES = ("transact", "put", "update", "delete", "delete_many")


class Requests:
    def __init__(self) -> None:
        self.asked = 0

    def ask(self, delay_s: int = 0) -> None:
        self.asked += 1


class Audit:
    def record(self, event: object) -> None: ...

    def page(self, query: object) -> Page[Any]:
        return Page([], None)


class ProfilesContainer:
    """Dashboards that use one broker profile; `dies_at` counts the writes to the store."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.control_plane = ControlPlaneProviders(env)
        self.clock, self.observer, self.requests = ManualClock(), MemoryObserver(), Requests()
        self.writes = 0
        self.dies_at, self.answer_lost = 0, False
        for method in WRITES:
            self._watch(method)
        self.follow = FollowProfiles(
            profiles=self.control_plane.profiles,
            dashboards=self.control_plane.dashboards,
            resolve=self.control_plane.resolve,
            clock=self.clock,
            observer=self.observer,
        )
        self.manage = ManageProfiles(
            profiles=self.control_plane.profiles,
            follow=self.follow,
            requests=self.requests,
            cipher=None,  # type: ignore[arg-type] # brokers have no secret
            egress=self.control_plane.egress_policy,
            audit=Audit(),
            clock=self.clock,
            ids=CountingIds(),
        )

    def _watch(self, method: str) -> None:
        db = self.control_plane.db
        real: Callable[..., Any] = getattr(db, method)

        def write(*args: Any, **options: Any) -> Any:
            self.writes += 1
            answer = real(*args, **options)
            if self.writes == self.dies_at:
                raise Unavailable("the answer was lost") if self.answer_lost else Died
            return answer

        setattr(db, method, write)

    def build(self) -> BrokerProfile:
        wanted = BrokerProfile("", "core", Transport.IOT_CORE, allow_public_use=True)
        profile = self.manage.create_broker(ADMIN, wanted)
        for dashboard_id in DASHBOARDS:
            datasource = {"id": "t", "type": "mqtt", "settings": {"brokerProfileId": profile.profile_id, "topic": "a"}}
            dashboard = Dashboard(
                dashboard_id, "owner", Visibility.LINK, f"share-{dashboard_id}", 0, {"datasources": [datasource]}
            )
            resolved = self.control_plane.resolve(dashboard_id, dashboard.document)
            assert not resolved.problems
            self.control_plane.dashboards.write(
                DashboardWrite(None, dashboard, access_of(dashboard, resolved.hashes), resolved.intents), 0
            )
        self.writes = 0
        return profile

    def withdraw(self, profile: BrokerProfile) -> None:
        stored = self.control_plane.profiles.broker(profile.profile_id)
        revision = stored.revision if stored else 0
        self.manage.update_broker(ADMIN, profile.profile_id, replace(profile, allow_public_use=False), revision)

    def delete(self, profile: BrokerProfile) -> None:
        self.manage.delete(ADMIN, BROKER, profile.profile_id)

    def versions(self) -> list[int]:
        found = self.control_plane.access.read(DASHBOARDS, [])
        return [found.dashboards[dashboard_id].share_version for dashboard_id in DASHBOARDS]

    def assert_followed_once(self, env: Mapping[str, str]) -> None:
        assert self.versions() == [1, 1, 1]
        told = [event.revocation.dashboard_id for event in self.control_plane.revocations.read(0, 100, 0).events]
        assert sorted(map(str, told)) == list(DASHBOARDS)
        items = aws(env["AWS_ENDPOINT_URL"], "dynamodb").scan(TableName=env[tables.PROFILES.variable])["Items"]
        assert not [item for item in items if item["kind"]["S"].startswith("change")], "no trace is left"


def test_every_dashboard_follows_within_the_request(deployed: Mapping[str, str]) -> None:
    container = ProfilesContainer(deployed)
    profile = container.build()
    container.withdraw(profile)
    container.assert_followed_once(deployed)
    assert container.requests.asked == 0
    container.withdraw(profile)  # nothing changes any more
    assert container.versions() == [1, 1, 1]
    container.delete(profile)
    assert container.versions() == [2, 2, 2]


@pytest.mark.parametrize("operation", [ProfilesContainer.withdraw, ProfilesContainer.delete])
@pytest.mark.parametrize("answer_lost", [False, True], ids=["died", "answer lost"])
def test_whatever_dies_every_dashboard_follows_once(
    deployed: Mapping[str, str], operation: Callable[[ProfilesContainer, BrokerProfile], None], answer_lost: bool
) -> None:
    at = 0
    while True:
        at += 1
        for table in (tables.PROFILES, tables.DASHBOARDS, tables.ACCESS, tables.REVOCATIONS):
            _empty(deployed, deployed[table.variable])
        container = ProfilesContainer(deployed)
        profile = container.build()
        container.dies_at, container.answer_lost = at, answer_lost
        with suppress(Died, Unavailable):
            operation(container, profile)
        if container.writes < at:
            break
        # Another process, some time later; a third finds nothing to do.
        assert ProfilesContainer(deployed).follow(1e9)
        assert ProfilesContainer(deployed).follow(1e9)
        container.assert_followed_once(deployed)
    assert at > 1 + len(DASHBOARDS) + 3, "the profile, each dashboard, and the end of the change were all interrupted"


def test_time_that_runs_out_goes_on_later(deployed: Mapping[str, str]) -> None:
    container = ProfilesContainer(deployed)
    profile = container.build()
    started = container.clock.monotonic()
    real = container.control_plane.dashboards.write

    def slow(*args: Any) -> Any:
        container.clock.advance(10)
        return real(*args)

    container.control_plane.dashboards.write = slow  # type: ignore[method-assign,assignment]
    container.withdraw(profile)
    assert container.versions() == [1, 1, 0] and container.requests.asked == 1
    assert not container.follow(started)
    assert container.follow(container.clock.monotonic() + 100)
    container.assert_followed_once(deployed)


def test_a_dashboard_that_keeps_changing_does_not_hold_up_the_others(deployed: Mapping[str, str]) -> None:
    container = ProfilesContainer(deployed)
    profile = container.build()
    dashboards = container.control_plane.dashboards
    real = dashboards.write

    def busy(write: DashboardWrite, now_ms: int) -> Any:
        if write.access.dashboard_id == "d2" and write.before is not None:
            write = replace(write, before=replace(write.before, row_version=99))
        return real(write, now_ms)

    dashboards.write = busy  # type: ignore[method-assign]
    container.withdraw(profile)
    assert container.versions() == [1, 0, 1] and container.requests.asked == 1
    dashboards.write = real  # type: ignore[method-assign]
    assert container.follow(1e9)
    container.assert_followed_once(deployed)


def _empty(env: Mapping[str, str], table: str) -> None:
    client = aws(env["AWS_ENDPOINT_URL"], "dynamodb")
    keys = [key["AttributeName"] for key in client.describe_table(TableName=table)["Table"]["KeySchema"]]
    for item in client.scan(TableName=table)["Items"]:
        client.delete_item(TableName=table, Key={key: item[key] for key in keys})
