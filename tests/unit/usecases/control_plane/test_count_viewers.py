"""Who counts as watching, and as what."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tidegate.domain.access import Claim, Principal, Visibility
from tidegate.domain.subscriptions import Subscription, SubscriptionKey, TerminationClaim
from tidegate.usecases.control_plane.count_viewers import Watching, watching

NOW = 1000.0


def row(connection: str, datasource: str = "a", version: int | None = None, expires_at: int = 2000) -> Subscription:
    principal = Principal("public" if version is not None else "u", version)
    claim = Claim("d", datasource, principal, "hash", expires_at)
    return Subscription(SubscriptionKey("d", connection, datasource), "g", claim, "stream", visible=True)


def test_a_connection_counts_once() -> None:
    rows = [row("c1"), row("c1", "b"), row("c2", "b", version=3)]
    found = watching(rows, Visibility.LINK, more=False, now=NOW)
    assert found == Watching(1, 1, 0, {"b": 2, "a": 1}, False)
    assert (found.connections, found.subscriptions) == (2, 3) and list(found.datasources) == ["b", "a"]


@pytest.mark.parametrize(
    "gone",
    [
        replace(row("c1"), visible=False),
        replace(row("c1"), termination=TerminationClaim("run", 1)),
        row("c1", expires_at=1000),
    ],
)
def test_who_receives_nothing_does_not_count(gone: Subscription) -> None:
    assert watching([gone], Visibility.PUBLIC, more=True, now=NOW) == Watching(0, 0, 0, {}, True)


@pytest.mark.parametrize(("visibility", "link", "public"), [("private", 1, 0), ("link", 1, 0), ("public", 0, 1)])
def test_guests_count_as_what_the_dashboard_is_now(visibility: str, link: int, public: int) -> None:
    found = watching([row("c1", version=0)], Visibility(visibility), more=False, now=NOW)
    assert (found.members, found.by_link, found.public) == (0, link, public)
