"""Who takes a relay partition from whom."""

from __future__ import annotations

import pytest

from tidegate.domain.relay import (
    CLAIM_AFTER_S,
    ENDED_S,
    KILLED_S,
    LEASE_S,
    LEAVE_S,
    OVERDUE_S,
    Kind,
    Lease,
    may_claim,
    replaces,
    wants_successor,
    worker_id,
    worker_version,
)

FUNCTION, SERVICE, SPARE = (worker_version("settings", "code", kind) for kind in Kind)
NEXT_FUNCTION, NEXT_SERVICE = (worker_version("settings", "next", kind) for kind in (Kind.FUNCTION, Kind.SERVICE))


@pytest.mark.parametrize(
    ("version", "owner", "newest", "replaced"),
    [
        (FUNCTION, FUNCTION, True, False),
        (NEXT_FUNCTION, FUNCTION, True, True),
        (NEXT_FUNCTION, FUNCTION, False, False),
        # to the service
        (SERVICE, FUNCTION, True, True),
        (SERVICE, FUNCTION, False, False),
        (SPARE, FUNCTION, True, False),
        (SERVICE, SPARE, False, True),
        (SPARE, SERVICE, True, False),
        (SPARE, worker_version("settings", "old", Kind.SPARE), True, False),
        # and back
        (FUNCTION, SERVICE, True, True),
        (FUNCTION, SPARE, True, True),
        # a new release of the service
        (NEXT_SERVICE, SERVICE, True, True),
        (SERVICE, NEXT_SERVICE, False, False),
        (SERVICE, SERVICE, True, False),
    ],
)
def test_who_takes_the_place_of_a_holder_that_lives(version: str, owner: str, newest: bool, replaced: bool) -> None:
    assert replaces(version, worker_id(owner, "1"), newest) is replaced


def test_nobody_takes_back_what_another_took_from_it() -> None:
    """Otherwise a partition would go to and fro for as long as both run."""
    for mine in (FUNCTION, SERVICE, SPARE, NEXT_FUNCTION, NEXT_SERVICE):
        for other in (FUNCTION, SERVICE, SPARE, NEXT_FUNCTION, NEXT_SERVICE):
            taken = replaces(mine, worker_id(other, "1"), False)
            assert not (taken and replaces(other, worker_id(mine, "1"), False))


def test_a_holder_that_leaves_or_died_wants_a_successor_once() -> None:
    lives = Lease(0, worker_id(SERVICE, "1"), 1, until=1000 + LEASE_S)
    leaving = Lease(0, lives.owner, 1, lives.until, leaving=True)
    assert not wants_successor(None, SERVICE, 1000, newest=True) and may_claim(None, 1000)
    assert not wants_successor(lives, SERVICE, 1000, newest=True) and not may_claim(lives, 1000)
    assert wants_successor(leaving, SERVICE, 1000, newest=False)
    assert wants_successor(leaving, SPARE, 1000, newest=False)
    assert wants_successor(lives, SERVICE, 1000 + OVERDUE_S + 0.1, newest=False)
    waited_for = Lease(0, lives.owner, 1, lives.until, "another", leaving=True)
    assert not wants_successor(waited_for, SERVICE, 1000, newest=True)
    assert not may_claim(lives, lives.until + CLAIM_AFTER_S) and may_claim(lives, lives.until + CLAIM_AFTER_S + 0.1)


def test_a_process_has_ended_before_the_platform_kills_it() -> None:
    """It waits for a successor, sends what it has yet to send, and is cut short before the platform would do it."""
    assert LEAVE_S + 20 <= ENDED_S - 10 and ENDED_S < KILLED_S <= 120
