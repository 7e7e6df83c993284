"""Access items that are too old when they arrive: nothing is sent by them, whoever asks, however often."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests.containers.gateway import GatewayContainer
from tests.doubles.platform import ManualClock
from tests.doubles.stores import MemoryAccess
from tidegate.domain.access import FRESH_S
from tidegate.errors import Unavailable
from tidegate.ports.gateway import AccessSnapshot
from tidegate.usecases.delivery.fresh_access import FreshAccess


class SlowAccess(MemoryAccess):
    """Every read takes this long, seconds."""

    def __init__(self, like: MemoryAccess, clock: ManualClock, takes_s: float) -> None:
        super().__init__()
        self.dashboards, self.users = like.dashboards, like.users
        self._clock = clock
        self._takes_s = takes_s

    def read(self, dashboard_ids: Iterable[str], user_ids: Iterable[str]) -> AccessSnapshot:
        snapshot = super().read(dashboard_ids, user_ids)
        self._clock.advance(self._takes_s)
        return snapshot


@pytest.mark.parametrize(("takes_s", "sent"), [(FRESH_S / 2, [1]), (FRESH_S, []), (2 * FRESH_S, [])])
def test_an_answer_that_is_too_old_when_it_is_here_sends_nothing(takes_s: float, sent: list[int]) -> None:
    container = GatewayContainer()
    container.subscribed()
    access = container.access
    container.access.read = SlowAccess(access, container.clock, takes_s).read  # type: ignore[method-assign]
    container.publish(b"1")
    assert container.sender.data("c") == sent


def test_it_is_no_refusal() -> None:
    container = GatewayContainer()
    container.subscribed()
    (row,) = container.subscriptions.rows.values()
    slow = FreshAccess(SlowAccess(container.access, container.clock, FRESH_S), container.audiences, container.clock)
    with pytest.raises(Unavailable):
        slow.allows(row)
    quick = FreshAccess(
        SlowAccess(container.access, container.clock, FRESH_S / 2), container.audiences, container.clock
    )
    assert quick.allows(row)
