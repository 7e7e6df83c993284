"""The schedule's state on a real table API, and whether somebody is connected."""

from __future__ import annotations

from collections.abc import Mapping

from tidegate.domain.activity import ScheduleState
from tidegate.domain.subscriptions import Connection
from tidegate.providers.control_plane import ControlPlaneProviders


def test_of_two_runs_that_read_the_same_one_moves_the_state(deployed: Mapping[str, str]) -> None:
    one, other = (ControlPlaneProviders(deployed).schedule_state for _ in range(2))
    nothing, first, second = ScheduleState(), ScheduleState(600, 70, 0), ScheduleState(660, 130, 0)
    assert one.read() == other.read() == nothing
    assert one.move(nothing, first) and not other.move(nothing, second)
    assert other.read() == first and other.move(first, second)
    assert not one.move(first, second._replace(zero=1)) and one.read() == second
    for changed in (second._replace(active_until=1), second._replace(queued_until=1), second._replace(zero=1)):
        assert not one.move(changed, first), "all that was read counts"


def test_whether_somebody_is_connected(deployed: Mapping[str, str]) -> None:
    connections = ControlPlaneProviders(deployed).connections
    assert not connections.has_any()
    for number in range(3):
        connections.open(Connection(f"c{number}", "ip", 1))
    assert connections.has_any()
    for number in range(3):
        connections.remove(f"c{number}")
    assert not connections.has_any()
