from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.domain.access import (
    MAX_WITHDRAWN,
    PUBLIC_SUBJECT,
    AclLevel,
    Claim,
    DashboardAccess,
    Principal,
    Refusal,
    Role,
    UserAccess,
    Visibility,
    Withdrawal,
    allowed,
    guest_floor,
    is_member,
    may_see,
    open_to_guests,
    owner_that_counts,
    remote_access_item,
    withdraw,
)

DASHBOARD = DashboardAccess("d", 3, Visibility.LINK, "owner", {"member": AclLevel.VIEWER}, {"s": "hash"})
PUBLIC = Principal(PUBLIC_SUBJECT, 3)


def user(user_id: str, role: Role = Role.VIEWER, *, active: bool = True, session_version: int = 1) -> UserAccess:
    return UserAccess(user_id, role, active, session_version)


OWNER = user("owner", Role.EDITOR)


def claim(principal: Principal, **changes: object) -> Claim:
    return replace(Claim("d", "s", principal, "hash", 100), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("visibility", "principal", "who", "expected"),
    [
        (Visibility.PRIVATE, PUBLIC, None, False),
        (Visibility.LINK, PUBLIC, None, True),
        (Visibility.PUBLIC, PUBLIC, None, True),
        (Visibility.LINK, Principal(PUBLIC_SUBJECT, 2), None, False),
        (Visibility.LINK, Principal(PUBLIC_SUBJECT, 4), None, False),
        (Visibility.LINK, Principal(PUBLIC_SUBJECT, None), None, False),
        (Visibility.PRIVATE, Principal("owner"), user("owner"), True),
        (Visibility.PRIVATE, Principal("member"), user("member"), True),
        (Visibility.PRIVATE, Principal("boss"), user("boss", Role.ADMIN), True),
        (Visibility.PRIVATE, Principal("stranger"), user("stranger"), False),
        (Visibility.PUBLIC, Principal("stranger"), user("stranger"), False),
        (Visibility.PUBLIC, Principal("stranger", 2), user("stranger"), False),
        (Visibility.PUBLIC, Principal("stranger", 3), user("stranger"), True),
        (Visibility.PUBLIC, Principal("boss"), user("boss", Role.EDITOR), False),
        (Visibility.LINK, Principal("stranger"), user("stranger"), False),
        (Visibility.LINK, Principal("stranger", 3), user("stranger"), True),
        (Visibility.LINK, Principal("stranger", 2), user("stranger"), False),
        (Visibility.PRIVATE, Principal("stranger", 3), user("stranger"), False),
        (Visibility.PRIVATE, Principal("owner"), user("owner", active=False), False),
        (Visibility.PRIVATE, Principal("owner", None, 1), user("owner", session_version=2), False),
        (Visibility.PRIVATE, Principal("owner"), user("member"), False),
        (Visibility.PRIVATE, Principal("owner"), None, False),
    ],
)
def test_who_may_see(visibility: Visibility, principal: Principal, who: UserAccess | None, expected: bool) -> None:
    assert may_see(replace(DASHBOARD, visibility=visibility), who, OWNER, principal) is expected


GUESTS = [(PUBLIC, None), (Principal("stranger", 3), user("stranger"))]
MEMBERS = [(Principal("member"), user("member")), (Principal("boss"), user("boss", Role.ADMIN))]


@pytest.mark.parametrize("visibility", [Visibility.LINK, Visibility.PUBLIC])
@pytest.mark.parametrize("owner", [None, user("owner", active=False), user("stranger")], ids=["none", "gone", "other"])
def test_guests_see_what_an_active_owner_shows(visibility: Visibility, owner: UserAccess | None) -> None:
    dashboard = replace(DASHBOARD, visibility=visibility)
    for principal, who in GUESTS:
        assert may_see(dashboard, who, OWNER, principal) and not may_see(dashboard, who, owner, principal)
        assert allowed(claim(principal), dashboard, who, owner, 0) is Refusal.REVOKED
    for principal, who in MEMBERS:
        assert may_see(dashboard, who, owner, principal), "a member needs no owner"


def test_whose_owner_counts() -> None:
    assert owner_that_counts(DASHBOARD) == "owner"
    closed = [replace(DASHBOARD, visibility=Visibility.PRIVATE), replace(DASHBOARD, deleted=True)]
    for dashboard in [*closed, remote_access_item("d", 3)]:
        assert owner_that_counts(dashboard) is None and not open_to_guests(dashboard, OWNER)


def test_missing_and_deleted_are_denied() -> None:
    assert not may_see(None, user("boss", Role.ADMIN), OWNER, Principal("boss"))
    assert not may_see(replace(DASHBOARD, deleted=True), user("owner"), OWNER, Principal("owner"))


def test_why_not() -> None:
    assert allowed(claim(PUBLIC), DASHBOARD, None, OWNER, 99.9) is None
    assert allowed(claim(PUBLIC), DASHBOARD, None, OWNER, 100) is Refusal.EXPIRED
    assert allowed(claim(PUBLIC, intent_hash="old"), DASHBOARD, None, OWNER, 0) is Refusal.INTENT_CHANGED
    assert allowed(claim(PUBLIC, datasource_id="x"), DASHBOARD, None, OWNER, 0) is Refusal.REMOVED
    assert allowed(claim(PUBLIC), replace(DASHBOARD, share_version=4), None, OWNER, 1000) is Refusal.REVOKED
    assert not Refusal.REVOKED.retryable and not Refusal.REMOVED.retryable
    assert Refusal.EXPIRED.retryable and Refusal.INTENT_CHANGED.retryable


@given(
    st.sampled_from(Visibility),
    st.one_of(st.none(), st.integers(0, 5)),
    st.integers(0, 5),
    st.integers(1, 5),
)
def test_no_version_survives_its_revocation(
    visibility: Visibility, held: int | None, version: int, revocations: int
) -> None:
    """Whoever is a guest and allowed now is not after any number of revocations that keep visibility as it is."""
    before = replace(DASHBOARD, visibility=visibility, share_version=version)
    after = replace(before, share_version=version + revocations)
    for principal, who in ((Principal(PUBLIC_SUBJECT, held), None), (Principal("stranger", held), user("stranger"))):
        if may_see(before, who, OWNER, principal):
            assert not may_see(after, who, OWNER, principal)


@pytest.mark.parametrize(
    ("who", "expected"),
    [
        (user("boss", Role.ADMIN), True),
        (user("owner"), True),
        (user("member"), True),
        (user("member", active=False), False),
        (user("stranger", Role.EDITOR), False),
        (user("stranger"), False),
        (None, False),
    ],
)
def test_who_is_a_member_whatever_the_visibility(who: UserAccess | None, expected: bool) -> None:
    for visibility in Visibility:
        assert is_member(replace(DASHBOARD, visibility=visibility), who) is expected


@pytest.mark.parametrize(
    ("principal", "expected"),
    [
        (Principal(PUBLIC_SUBJECT, 2), False),
        (Principal(PUBLIC_SUBJECT, 3), True),
        (Principal(PUBLIC_SUBJECT, 4), True),
        (Principal(PUBLIC_SUBJECT, None), False),
        (Principal("member"), True),
        (Principal("guest", 2), False),
        (Principal("guest", 3), True),
    ],
)
def test_of_a_remote_apis_dashboard_only_what_it_revoked_is_known(principal: Principal, expected: bool) -> None:
    assert may_see(remote_access_item("d", 3), None, None, principal) is expected
    assert not may_see(replace(remote_access_item("d", 3), deleted=True), None, None, principal)
    refusal = allowed(claim(principal, intent_hash="the API compares it"), remote_access_item("d", 3), None, None, 99)
    assert refusal is (None if expected else Refusal.REVOKED)
    if expected:
        assert allowed(claim(principal), remote_access_item("d", 3), None, None, 100) is Refusal.EXPIRED


@given(st.one_of(st.none(), st.integers(0, 5)), st.integers(0, 5), st.integers(0, 5))
def test_an_attested_item_only_ever_loses_viewers(held: int | None, version: int, more: int) -> None:
    for subject in (PUBLIC_SUBJECT, "user"):
        principal = Principal(subject, held)
        if may_see(remote_access_item("d", version + more), None, None, principal):
            assert may_see(remote_access_item("d", version), None, None, principal)


def withdrawn(dashboard: DashboardAccess, *datasource_ids: str) -> DashboardAccess:
    """As `follow_profiles` writes it."""
    version = dashboard.share_version + 1
    return replace(dashboard, share_version=version, withdrawal=withdraw(dashboard, datasource_ids))


def may_guest(dashboard: DashboardAccess, datasource_id: str, version: int, who: UserAccess | None = None) -> bool:
    principal = Principal(PUBLIC_SUBJECT if who is None else who.user_id, version)
    shown = replace(dashboard, intents={datasource_id: "hash"})
    return allowed(claim(principal, datasource_id=datasource_id), shown, who, OWNER, 0) is None


def test_a_withdrawal_ends_the_guests_of_its_datasources_only() -> None:
    after = withdrawn(DASHBOARD, "s")
    for who in (None, user("stranger")):
        assert not may_guest(after, "s", 3, who) and may_guest(after, "s", 4, who)
        assert may_guest(after, "other", 3, who) and may_guest(after, "other", 4, who)
        assert not may_guest(after, "other", 2, who) and not may_guest(after, "other", 5, who)
    member = claim(Principal("member"))
    assert allowed(member, after, user("member"), OWNER, 0) is None
    twice = withdrawn(after, "other")
    assert [may_guest(twice, "s", version) for version in (3, 4, 5)] == [False, True, True]
    assert [may_guest(twice, "other", version) for version in (3, 4, 5)] == [False, False, True]
    assert may_guest(twice, "third", 3)


def test_any_other_revocation_ends_every_guest() -> None:
    """Also by code that knows nothing of withdrawals: it raises the share version, and what was left means nothing."""
    rotated = replace(withdrawn(DASHBOARD, "s"), share_version=5)
    assert [may_guest(rotated, "other", version) for version in (3, 4, 5)] == [False, False, True]
    assert [may_guest(withdrawn(rotated, "s"), "other", version) for version in (4, 5, 6)] == [False, True, True]


def test_a_withdrawal_that_would_name_too_many_ends_every_guest() -> None:
    many = [str(number) for number in range(MAX_WITHDRAWN)]
    assert withdraw(DASHBOARD, many) is not None
    after = withdrawn(withdrawn(DASHBOARD, *many), "s")
    assert after.withdrawal is None
    assert not may_guest(after, "other", 4) and may_guest(after, "other", 5)


@given(st.lists(st.one_of(st.none(), st.frozensets(st.sampled_from("abc"))), max_size=8), st.sampled_from("abc"))
def test_a_guests_right_ends_with_the_first_revocation_that_concerns_it(
    steps: list[frozenset[str] | None], datasource_id: str
) -> None:
    """None: a rotation. Otherwise a withdrawal of these datasources."""
    dashboard, held = DASHBOARD, {3}
    for step in steps:
        dashboard = (
            replace(dashboard, share_version=dashboard.share_version + 1)
            if step is None
            else withdrawn(dashboard, *sorted(step))
        )
        held = set() if step is None or datasource_id in step else held
        held |= {dashboard.share_version}
        assert {version for version in range(3, 20) if may_guest(dashboard, datasource_id, version)} == held
    assert guest_floor(replace(dashboard, withdrawal=Withdrawal(0, 0, {}))) == dashboard.share_version
