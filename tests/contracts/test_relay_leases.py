"""The relay's leases on a real table API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tidegate.adapters.dynamodb.relay_leases import DynamoRelayLeases
from tidegate.domain.relay import CLAIM_AFTER_S, LEASE_S
from tidegate.providers.control_plane import ControlPlaneProviders


def leases(env: Mapping[str, str]) -> DynamoRelayLeases:
    return ControlPlaneProviders(env).relay_leases


def test_one_holder_until_some_time_after_the_lease_has_ended(deployed: Mapping[str, str]) -> None:
    store = leases(deployed)
    first = store.claim(0, "a", 1000.0)
    assert first is not None and (first.owner, first.fence, first.until) == ("a", 1, 1000 + LEASE_S)
    assert store.claim(0, "b", 1000 + LEASE_S + CLAIM_AFTER_S) is None, "clocks differ"
    assert store.claim(1, "b", 1000.0) is not None, "another shard"
    second = store.claim(0, "b", 1000 + LEASE_S + CLAIM_AFTER_S + 0.01)
    assert second is not None and second.fence == 2
    assert store.renew(first, 1020.0) is None and not store.hand_over(replace(first, successor="c"), 1020.0)
    store.release(first)
    assert store.current(0) == second


def test_renewed_released_and_claimed_again(deployed: Mapping[str, str]) -> None:
    store = leases(deployed)
    held = store.claim(0, "a", 1000.0)
    assert held is not None
    held = store.renew(held, 1010.0)
    assert held is not None and held.until == 1010 + LEASE_S and held.fence == 1
    again = store.claim(0, "a", 1011.0)
    assert again is not None and again.fence == 2, "its answer was lost, and it asks again"
    store.release(again)
    assert store.current(0) is None and store.claim(0, "b", 1011.0) is not None


def test_handing_over_is_one_write_to_whoever_waits(deployed: Mapping[str, str]) -> None:
    store = leases(deployed)
    assert store.offer(0, "b") is None, "there is nobody to take over from"
    held = store.claim(0, "a", 1000.0)
    assert held is not None and not store.hand_over(replace(held, successor="b"), 1000.0), "nobody waits"
    assert store.offer(0, "b") is not None
    assert store.offer(0, "c") is None, "the first who waits is the one"
    assert store.offer(0, "b") is not None, "its answer was lost, and it asks again"
    held = store.renew(held, 1001.0)
    assert held is not None and held.successor == "b"
    assert store.hand_over(held, 1002.0) and not store.hand_over(held, 1002.0)
    now = store.current(0)
    assert now is not None and (now.owner, now.fence, now.successor) == ("b", 2, "")
    assert store.renew(held, 1003.0) is None


def test_an_owner_that_is_about_to_end_says_so_and_nobody_after_it(deployed: Mapping[str, str]) -> None:
    store = leases(deployed)
    held = store.claim(0, "a", 1000.0)
    assert held is not None and not held.leaving
    leaving = store.ask_successor(held)
    assert leaving is not None and leaving.leaving and leaving.until == held.until
    renewed = store.renew(leaving, 1001.0)
    assert renewed is not None and renewed.leaving
    assert store.offer(0, "b") is not None
    assert store.hand_over(replace(renewed, successor="b"), 1002.0)
    after = store.current(0)
    assert after is not None and after.owner == "b" and not after.leaving
    assert store.ask_successor(held) is None, "another one has it"
    again = store.ask_successor(after)
    assert again is not None
    store.release(again)
    held = store.claim(0, "c", 1003.0)
    assert held is not None and not held.leaving
    again = store.ask_successor(held)
    assert again is not None
    # A worker of an older release takes the lease and leaves the note.
    store._db.update(store._table, {"source": "lease", "stream_key": "0"}, "SET #owner = :new", None, {"new": "d"})
    old = store.current(0)
    assert old is not None and old.owner == "d" and not old.leaving
