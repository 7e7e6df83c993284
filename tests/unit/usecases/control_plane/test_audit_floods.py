"""Whoever has no rights cannot fill the audit log, whatever they send and however often."""

from __future__ import annotations

from contextlib import suppress
from typing import cast

from tests.containers.public_viewers import PublicViewers
from tests.doubles.audit_table import MemoryTable
from tests.doubles.platform import CountingIds, ManualClock, MemoryObserver
from tests.unit.usecases.control_plane.test_login import Passwords, a_login
from tidegate.adapters.dynamodb.audit import DynamoAudit
from tidegate.adapters.dynamodb.client import DynamoDb
from tidegate.domain.access import Role
from tidegate.domain.limits import FailureMode
from tidegate.domain.users import User
from tidegate.errors import LimitReached, TidegateError
from tidegate.usecases.control_plane.mint import MintRequest

TIMES = 1000


def audit_of(table: MemoryTable) -> DynamoAudit:
    return DynamoAudit(cast(DynamoDb, table), "audit", CountingIds(), MemoryObserver())


def test_a_thousand_refused_mints_are_a_row_for_each_budget_with_their_count() -> None:
    table = MemoryTable()
    viewers = PublicViewers(1, audit=audit_of(table))
    refused = 0
    for number in range(TIMES):
        try:
            viewers.mint(MintRequest(None, "one-address", f"made-up-{number}", "d", f"guess-{number}"))
        except LimitReached:
            refused += 1
        except TidegateError:
            pass
    assert refused > TIMES / 2
    assert [(item["target_id"], item["count"]) for item in table.items.values()] == [("unknown", refused)]


def test_of_a_signed_in_user_too() -> None:
    table = MemoryTable()
    viewers = PublicViewers(1, audit=audit_of(table))
    user = User("u", "u@x.example", Role.VIEWER, True, 1, "")
    for number in range(TIMES):
        with suppress(TidegateError):
            viewers.mint(MintRequest(user, "one-address", f"made-up-{number}", "d"))
    (item,) = table.items.values()
    assert (item["actor_id"], item["target_id"]) == ("u", "unknown") and item["count"] > TIMES / 2


def test_a_thousand_refused_logins_are_three_rows() -> None:
    """From as many addresses, with as many e-mails, each locked and tried once more."""
    table, clock = MemoryTable(), ManualClock()
    login = a_login(Passwords(), FailureMode.CLOSED, MemoryObserver(), clock, audit=audit_of(table))
    for number in range(TIMES):
        email = "active@x.example" if number % 10 == 0 else f"nobody-{number}@x.example"
        for _ in range(4):
            with suppress(TidegateError):
                login(email, "wrong", f"address-{number}")
    found = {(item["action"], item["target_id"]): item["count"] for item in table.items.values()}
    # The account's own limit refuses some of the attempts on it before they can lock an address.
    assert set(found) == {
        ("auth.login.locked", "u"),
        ("auth.login.locked", "unknown"),
        ("auth.login.blocked", "unknown"),
    }
    assert found["auth.login.locked", "unknown"] == TIMES - TIMES // 10
    assert found["auth.login.blocked", "unknown"] >= TIMES
