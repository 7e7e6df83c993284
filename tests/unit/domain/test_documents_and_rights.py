from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.domain import rights
from tidegate.domain.access import AclLevel, Role, Visibility
from tidegate.domain.dashboards import AclEntry, Dashboard, access_of
from tidegate.domain.documents import InvalidDocument, check_document
from tidegate.domain.emails import normalise_email
from tidegate.domain.known_passwords import KNOWN_PASSWORDS
from tidegate.domain.passwords import MIN_LENGTH, check_password
from tidegate.domain.users import User
from tidegate.errors import InvalidInput

GOOD = {"schemaVersion": 1, "title": "T", "datasources": [{"id": "a", "type": "mqtt", "settings": {}}]}


def test_the_canonical_form_states_defaults() -> None:
    document = check_document(GOOD | {"title": " T "})
    assert (document["title"], document["columns"], document["panes"]) == ("T", 3, [])


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"schemaVersion": 2}, "schemaVersion"),
        ({"title": ""}, "title"),
        ({"columns": True}, "columns"),
        ({"width": "wide"}, "width"),
        ({"panes": {}}, "panes"),
        ({"extra": 1}, "$"),
        ({"datasources": [{"id": "a", "type": "x"}, {"id": "a", "type": "x"}]}, "datasources[1].id"),
        ({"datasources": [{"id": " a", "type": "x"}]}, "datasources[0].id"),
        ({"datasources": [{"id": "a"}]}, "datasources[0].type"),
        ({"datasources": [7]}, "datasources[0]"),
        ({"datasources": [{"id": "a", "type": "x", "settings": []}]}, "datasources[0].settings"),
        ({"datasources": [{"id": "a", "type": "x", "enabled": 1}]}, "datasources[0].enabled"),
        ({"datasources": [{"id": "a", "type": "x", "more": 1}]}, "datasources[0]"),
        ({"settings": {"big": "x" * 400_000}}, "$"),
        ({"schemaVersion": True}, "schemaVersion"),
        ({"title": "\ud800"}, "$"),
        ({"settings": {"\udfff": 1}}, "$"),
        ({"settings": {"a": float("nan")}}, "$"),
        ({"settings": {"a": [float("inf")]}}, "$"),
        (
            {"datasources": [{"id": "a", "type": "mqtt", "settings": {"brokerProfileId": "x" * 3000}}]},
            "datasources[0].settings.brokerProfileId",
        ),
        (
            {"datasources": [{"id": "a", "type": "sse", "settings": {"credentialProfileId": "x" * 3000}}]},
            "datasources[0].settings.credentialProfileId",
        ),
    ],
)
def test_problems_name_their_path(change: dict[str, object], path: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        check_document(GOOD | change)
    assert path in [where for where, _ in caught.value.problems]


def test_depth_is_bounded_without_recursion() -> None:
    deep: dict[str, object] = {}
    inner = deep
    for _ in range(5000):
        inner["x"] = inner = {}
    with pytest.raises(InvalidDocument):
        check_document(GOOD | {"settings": deep})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(["schemaVersion", "title", "datasources", "panes", "settings"]), json_values))
def test_any_json_is_accepted_or_refused(raw: dict[str, object]) -> None:
    try:
        check_document(raw)
    except InvalidDocument as refused:
        assert refused.problems


def dashboard(**acl: AclLevel) -> Dashboard:
    entries = {user_id: AclEntry(user_id, level, "owner", 0) for user_id, level in acl.items()}
    return Dashboard("d", "owner", Visibility.PRIVATE, "t", 0, check_document(GOOD), entries)


def user(user_id: str, role: Role = Role.VIEWER) -> User:
    return User(user_id, f"{user_id}@x.example", role, True, 1, "hash")


@pytest.mark.parametrize(
    ("who", "read", "edit", "share", "delete"),
    [
        (user("stranger", Role.EDITOR), False, False, False, False),
        (user("viewer"), True, False, False, False),
        (user("editor"), True, True, False, False),
        (user("manager"), True, True, True, False),
        (user("owner"), True, True, True, True),
        (user("boss", Role.ADMIN), True, True, True, True),
    ],
)
def test_the_role_table(who: User, read: bool, edit: bool, share: bool, delete: bool) -> None:
    one = dashboard(viewer=AclLevel.VIEWER, editor=AclLevel.EDITOR, manager=AclLevel.MANAGER)
    found = (
        rights.may_read(one, who),
        rights.may_edit(one, who),
        rights.may_share(one, who),
        rights.may_delete(one, who),
    )
    assert found == (read, edit, share, delete)


def test_a_tombstone_knows_nobody() -> None:
    gone = access_of(dashboard(viewer=AclLevel.VIEWER), {"a": "h"}, deleted=True)
    assert gone.deleted and not gone.acl and not gone.intents


@pytest.mark.parametrize(
    "weak",
    [
        "elevenchars",
        "x" * 257,
        "qwertyuiop123",
        "QwertyUiop123",
        "aaaaaaaaaaaa",
        "Tide-Tide-Tide-",
        "somebody@x.example",
        "SOMEBODY@x.example",
    ],
)
def test_weak_passwords(weak: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_password(weak, "somebody@x.example")
    assert refused.value.code == "weak_password"


@pytest.mark.parametrize("good", ["Long-enough-1", "correct horse battery", "nurkleinebuchstaben", "ж" * 11 + "у"])
def test_no_kind_of_character_is_asked_for(good: str) -> None:
    assert check_password(good, "somebody@x.example") == good


def test_known_passwords_are_ones_that_could_be_chosen() -> None:
    assert len(KNOWN_PASSWORDS) > 300
    assert all(len(known) >= MIN_LENGTH and known == known.casefold() for known in KNOWN_PASSWORDS)


def test_a_first_part_of_the_address_is_no_password() -> None:
    with pytest.raises(InvalidInput):
        check_password("Firstname.Lastname", "firstname.lastname@x.example")


def test_good_ones() -> None:
    assert normalise_email(" A@B.example ") == "a@b.example"
    for bad in ("", "a", "a@b", "a b@c.d", "@x.y"):
        with pytest.raises(InvalidInput):
            normalise_email(bad)
