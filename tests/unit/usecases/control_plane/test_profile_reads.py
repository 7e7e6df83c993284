"""How often changes of a dashboard read profiles: never without a change of the document, else each profile once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from threading import Barrier
from typing import Any

import pytest

from tests.doubles.platform import CountingIds, ManualClock
from tidegate.domain.access import AclLevel, Role, Visibility
from tidegate.domain.audit import AuditEvent
from tidegate.domain.dashboards import Dashboard, DashboardSummary
from tidegate.domain.intents import Intent, IntentDefaults, profile_uses
from tidegate.domain.profiles import (
    BROKER,
    CREDENTIAL,
    BrokerProfile,
    CredentialProfile,
    CredentialType,
    ProfileUse,
    Transport,
)
from tidegate.domain.revocations import RevocationReason
from tidegate.domain.users import User
from tidegate.errors import Denied, InvalidInput
from tidegate.ports.control_plane import DashboardWrite, Page
from tidegate.usecases.control_plane.manage_dashboards import ManageDashboards
from tidegate.usecases.control_plane.resolve_intents import ResolveIntents

ADMIN = User("admin", "a@x.example", Role.ADMIN, True, 1, "")
VIEWER = User("viewer", "v@x.example", Role.VIEWER, True, 1, "")


class Dashboards:
    """One dashboard, its stored intents, and every write."""

    def __init__(self) -> None:
        self.stored: Dashboard | None = None
        self.kept: Mapping[str, Intent] = {}
        self.writes: list[DashboardWrite] = []

    def get(self, dashboard_id: str) -> Dashboard | None:
        return self.stored

    def intents(self, dashboard_id: str) -> Mapping[str, Intent]:
        return self.kept

    def write(self, write: DashboardWrite, now_ms: int) -> int | None:
        self.writes.append(write)
        self.stored = write.after
        if write.intents is not None:
            self.kept = write.intents
        return None

    def by_share_token(self, share_token: str) -> Dashboard | None:
        raise NotImplementedError

    def owned_by(self, owner_id: str, limit: int, cursor: str | None) -> Page[DashboardSummary]:
        raise NotImplementedError

    def all(self, limit: int, cursor: str | None) -> Page[DashboardSummary]:
        raise NotImplementedError

    def summaries(self, dashboard_ids: Iterable[str]) -> Sequence[DashboardSummary]:
        raise NotImplementedError


class Profiles:
    """Counts its reads. With a barrier, a read ends only when the others of its round have begun as well."""

    def __init__(self) -> None:
        self.brokers: dict[str, BrokerProfile] = {}
        self.credentials: dict[str, CredentialProfile] = {}
        self.reads: Counter[str] = Counter()
        self.rounds: dict[str, Barrier] = {}

    def broker(self, profile_id: str) -> BrokerProfile | None:
        self._count(profile_id)
        return self.brokers.get(profile_id)

    def credential(self, profile_id: str) -> CredentialProfile | None:
        self._count(profile_id)
        return self.credentials.get(profile_id)

    def _count(self, profile_id: str) -> None:
        self.reads[profile_id] += 1
        if (barrier := self.rounds.get(profile_id)) is not None:
            barrier.wait(10)


class Users:
    def by_email(self, email: str) -> User:
        return VIEWER


class Audit:
    def record(self, event: AuditEvent) -> None: ...


class Container:
    """Two brokers, one with a credential, and a credential that an SSE source names as well."""

    def __init__(self) -> None:
        self.dashboards, self.profiles = Dashboards(), Profiles()
        self.profiles.credentials["basic"] = CredentialProfile("basic", "basic", CredentialType.BASIC)
        self.profiles.credentials["bearer"] = CredentialProfile(
            "bearer", "bearer", CredentialType.BEARER, ("https://up.example:443",)
        )
        self.profiles.brokers["core"] = BrokerProfile("core", "core", Transport.IOT_CORE)
        self.profiles.brokers["far"] = BrokerProfile("far", "far", Transport.EXTERNAL, "mqtts://far", "basic")
        profiles: Any = self.profiles
        users: Any = Users()
        audit: Any = Audit()
        self.manage = ManageDashboards(
            dashboards=self.dashboards,
            users=users,
            profiles=profiles,
            resolve=ResolveIntents(profiles=profiles, defaults=IntentDefaults()),
            audit=audit,
            clock=ManualClock(),
            ids=CountingIds(),
        )
        self.made = self.manage.create(ADMIN, document("T", *SOURCES))
        self.profiles.reads.clear()

    @property
    def last(self) -> DashboardWrite:
        return self.dashboards.writes[-1]


def document(title: str, *sources: Mapping[str, Any]) -> dict[str, Any]:
    return {"schemaVersion": 1, "title": title, "datasources": list(sources)}


def mqtt(datasource_id: str, broker: str, topic: str = "a") -> dict[str, Any]:
    return {"id": datasource_id, "type": "mqtt", "settings": {"brokerProfileId": broker, "topic": topic}}


def sse(datasource_id: str, credential: str | None = None) -> dict[str, Any]:
    settings = {"url": "https://up.example/"} | ({"credentialProfileId": credential} if credential else {})
    return {"id": datasource_id, "type": "sse", "settings": settings}


SOURCES = (mqtt("m1", "core"), mqtt("m2", "core", "b"), mqtt("m3", "far"), sse("s1", "bearer"), sse("s2"))
ALL_ONCE = {"core": 1, "far": 1, "basic": 1, "bearer": 1}


@pytest.fixture
def container() -> Container:
    return Container()


def test_creating_reads_each_profile_once() -> None:
    container = Container()
    container.manage.create(ADMIN, document("T", *SOURCES))
    assert container.profiles.reads == ALL_ONCE


KEEPING: dict[str, Callable[[ManageDashboards, str], object]] = {
    "rotation": lambda manage, one: manage.rotate_share_token(ADMIN, one),
    "visibility": lambda manage, one: manage.set_visibility(ADMIN, one, Visibility.PUBLIC),
    "grant": lambda manage, one: manage.grant(ADMIN, one, "v@x.example", AclLevel.VIEWER),
    "the same document": lambda manage, one: manage.update(ADMIN, one, document("T", *SOURCES), 1),
}


@pytest.mark.parametrize("change", KEEPING)
def test_what_leaves_the_document_alone_reads_no_profile(container: Container, change: str) -> None:
    KEEPING[change](container.manage, container.made.dashboard_id)
    assert container.last.intents is None and container.last.before == container.made
    assert not container.profiles.reads


def test_revoking_reads_no_profile(container: Container) -> None:
    container.manage.grant(ADMIN, container.made.dashboard_id, "v@x.example", AclLevel.VIEWER)
    container.manage.revoke(ADMIN, container.made.dashboard_id, "viewer")
    assert container.last.intents is None and container.last.revocation is not None
    assert not container.profiles.reads


def test_deleting_reads_no_profile_and_knows_what_was_used(container: Container) -> None:
    kept = container.dashboards.kept
    container.manage.delete(ADMIN, container.made.dashboard_id)
    assert container.last.intents == {} and container.last.intents_before == kept and len(kept) == 5
    assert not container.profiles.reads


def test_a_changed_document_reads_each_profile_once(container: Container) -> None:
    container.manage.update(ADMIN, container.made.dashboard_id, document("T", *SOURCES[1:], sse("s3", "bearer")), 1)
    assert container.profiles.reads == ALL_ONCE
    assert container.last.intents is not None and set(container.last.intents) == {"m2", "m3", "s1", "s2", "s3"}
    assert container.last.revocation is not None
    assert container.last.revocation.reason is RevocationReason.DATASOURCES_CHANGED
    container.manage.update(ADMIN, container.made.dashboard_id, document("Other", *SOURCES[1:], sse("s3", "bearer")), 2)
    assert container.last.revocation is None, "nobody watches anything else"


def test_an_author_who_is_checked_costs_no_further_read(container: Container) -> None:
    container.manage.grant(ADMIN, container.made.dashboard_id, "v@x.example", AclLevel.EDITOR)

    def update(*sources: Mapping[str, Any]) -> None:
        container.manage.update(VIEWER, container.made.dashboard_id, document("T", *SOURCES, *sources), 1)

    with pytest.raises(Denied, match="index 5"):
        update(mqtt("m4", "far"))
    assert container.profiles.reads["far"] == 1
    with pytest.raises(Denied, match="index 6"):
        update(sse("s3"), sse("s4", "gone"))
    for kind in (container.profiles.brokers, container.profiles.credentials):
        for profile_id, profile in list(kind.items()):
            kind[profile_id] = replace(profile, allow_public_use=True)  # type: ignore[assignment, type-var]
    container.profiles.reads.clear()
    update(mqtt("m4", "far"), sse("s3", "bearer") | {"enabled": False})
    assert container.profiles.reads == ALL_ONCE


def test_profiles_are_read_at_the_same_time(container: Container) -> None:
    """Three are named by the document: none of their reads ends before all three have begun."""
    barrier = Barrier(3)
    container.profiles.rounds = dict.fromkeys(("core", "far", "bearer"), barrier)
    container.manage.update(ADMIN, container.made.dashboard_id, document("Other", *SOURCES), 1)
    assert container.profiles.reads == ALL_ONCE and not barrier.broken


def test_what_broke_underneath_stays_and_its_profiles_are_still_used(container: Container) -> None:
    del container.profiles.credentials["basic"]
    container.manage.update(ADMIN, container.made.dashboard_id, document("Other", *SOURCES), 1)
    write = container.last
    assert write.intents is not None and "m3" not in write.intents and write.after is not None
    uses = profile_uses(write.after.document, write.intents)
    assert uses == {ProfileUse(BROKER, "core", 1), ProfileUse(BROKER, "far"), ProfileUse(CREDENTIAL, "bearer", 1)}
    container.manage.rotate_share_token(ADMIN, container.made.dashboard_id)
    assert container.last.intents is None
    with pytest.raises(InvalidInput, match="m4"):
        container.manage.update(ADMIN, container.made.dashboard_id, document("T", *SOURCES, mqtt("m4", "far")), 2)


def test_uses_are_those_named_and_those_built_from(container: Container) -> None:
    switched_off = mqtt("m9", "off") | {"enabled": False}
    uses = profile_uses(document("T", *SOURCES, switched_off), container.dashboards.kept)
    assert uses == {
        ProfileUse(BROKER, "core", 1),
        ProfileUse(BROKER, "far", 1),
        ProfileUse(CREDENTIAL, "basic", 1),
        ProfileUse(CREDENTIAL, "bearer", 1),
    }
    assert profile_uses({}, {}) == frozenset()
