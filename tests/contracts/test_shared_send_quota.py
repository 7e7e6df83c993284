"""The send quota on a real table API: what all senders together are granted."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic

import pytest

from tidegate import tables
from tidegate.adapters.dynamodb.send_quota import DynamoSendQuota
from tidegate.domain.send_quota import WHOLE, WINDOW_MS, SendQuota
from tidegate.errors import Unavailable
from tidegate.providers.control_plane import ControlPlaneProviders

NOW = 1_800_000_000_000


class Askers:
    """Some senders, each with a memory of its own."""

    def __init__(self, env: Mapping[str, str], quota: SendQuota, count: int) -> None:
        providers = ControlPlaneProviders(env)
        self.db, self.table = providers.db, providers.table(tables.LIMITERS)
        self.stores = [DynamoSendQuota(self.db, self.table, quota) for _ in range(count)]

    def take(self, which: int, wanted: int, now_ms: int = NOW) -> int:
        return self.stores[which].take(0, wanted, now_ms, monotonic() + 5)

    def share(self) -> int:
        item = self.db.get(self.table, {"key": "sends#0"})
        assert item is not None
        return int(item["share"])


def test_together_they_are_granted_what_a_window_has(deployed: Mapping[str, str]) -> None:
    askers = Askers(deployed, SendQuota(2_000), 3)
    taken = [askers.take(number % 3, 70) for number in range(6)]
    assert taken == [70, 70, 40, 0, 0, 0], "a tenth is kept for small asks"
    assert [askers.take(number % 3, 8) for number in range(4)] == [8, 8, 4, 0]
    assert askers.take(0, 70, NOW + WINDOW_MS) == 70, "the next window"


def test_two_that_open_a_window_at_once_share_it(deployed: Mapping[str, str]) -> None:
    askers = Askers(deployed, SendQuota(1_000), 2)
    assert askers.take(0, 1) == 1 and askers.take(1, 1) == 1  # both have seen this window
    later = NOW + WINDOW_MS
    assert askers.take(0, 90, later) == 90 and askers.take(1, 90, later) == 0
    assert askers.take(1, 10, later) == 10 and askers.take(0, 1, later) == 0


def test_a_clock_that_is_behind_opens_nothing_again(deployed: Mapping[str, str]) -> None:
    askers = Askers(deployed, SendQuota(1_000), 2)
    assert askers.take(0, 90, NOW + WINDOW_MS) == 90
    assert askers.take(1, 90) == 0, "it is granted from the window that is there"


def test_throttling_lowers_the_share_once_for_all(deployed: Mapping[str, str]) -> None:
    askers = Askers(deployed, SendQuota(1_000), 2)
    for which in (0, 1):
        askers.take(which, 1)
    for which in (0, 1, 0):
        askers.stores[which].throttled(0, monotonic() + 5)
    assert askers.share() == 700
    assert [askers.take(0, 90, NOW + WINDOW_MS), askers.share()] == [61, 710], "and it comes back by and by"
    assert askers.take(1, 90, NOW + 60 * WINDOW_MS) == 90 and askers.share() == WHOLE


def test_whoever_throttles_and_has_seen_nothing_changes_nothing(deployed: Mapping[str, str]) -> None:
    askers = Askers(deployed, SendQuota(1_000), 2)
    assert askers.take(0, 1) == 1
    askers.stores[1].throttled(0, monotonic() + 5)
    assert askers.share() == WHOLE


def test_a_store_that_does_not_answer_in_time_grants_nothing(deployed: Mapping[str, str]) -> None:
    askers = Askers(deployed, SendQuota(1_000), 1)
    with pytest.raises(Unavailable):
        askers.stores[0].take(0, 1, NOW, monotonic() - 1)
