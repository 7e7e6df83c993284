"""A subscribe of several datasources: each has an outcome of its own, whatever fails half-way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.containers.gateway import DASHBOARD, GatewayContainer
from tidegate.domain.subscriptions import SubscriptionKey, TerminationClaim
from tidegate.domain.tokens import DASHBOARD_SCOPE
from tidegate.errors import LimitReached, TidegateError, Unavailable
from tidegate.usecases.gateway.subscribe import Subscribed

NAMES = tuple(f"t{number}" for number in range(5))


class Died(BaseException):
    """The process ends here."""


def board(count: int = 5) -> GatewayContainer:
    container = GatewayContainer()
    for number in range(count):
        container.add_datasource(f"t{number}", f"a/{number}")
    container.open()
    return container


def token(container: GatewayContainer, **changes: Any) -> str:
    return container.token("", scope=DASHBOARD_SCOPE, intent_hash=None, **changes)


def several(container: GatewayContainer, names: tuple[str, ...] = NAMES) -> dict[str, Subscribed | Exception]:
    return dict(container.subscribe.several("c", DASHBOARD, names, token(container)))


def live(container: GatewayContainer) -> set[str]:
    return {row.key.datasource_id for row in container.subscriptions.rows.values() if row.live}


def failing(container: GatewayContainer, store: str, step: str, call: int, error: BaseException) -> Callable[[], None]:
    """The call with this number of a step fails, before it is done. Returns what mends it."""
    owner = getattr(container, store)
    real, made = getattr(owner, step), [0]

    def once(*args: Any, **options: Any) -> Any:
        made[0] += 1
        if made[0] == call:
            raise error
        return real(*args, **options)

    setattr(owner, step, once)
    return lambda: setattr(owner, step, real)


def test_all_begin_and_all_are_refreshed() -> None:
    container = board()
    container.access.reads = 0
    first = several(container)
    assert all(isinstance(done, Subscribed) and not done.refreshed for done in first.values())
    assert container.access.reads == 2, "one to admit, and one when all rows are put"
    container.clock.advance(100)
    again = several(container)
    assert all(isinstance(done, Subscribed) and done.refreshed for done in again.values())
    assert {row.claim.expires_at for row in container.subscriptions.rows.values()} == {int(container.clock.now()) + 300}
    assert live(container) == set(NAMES) and len(container.connections.rows["c"].slots) == 1


@pytest.mark.parametrize("step", ["put_hidden", "make_visible"])
@pytest.mark.parametrize("call", [1, 3, 5])
def test_one_that_cannot_be_written_refuses_no_other(step: str, call: int) -> None:
    container = board()
    mend = failing(container, "subscriptions", step, call, Unavailable("down"))
    outcomes = several(container)
    failed = NAMES[call - 1]
    assert isinstance(outcomes[failed], Unavailable)
    assert live(container) == set(NAMES) - {failed}
    mend()
    assert all(isinstance(done, Subscribed) for done in several(container).values())
    assert live(container) == set(NAMES)


@pytest.mark.parametrize(
    ("store", "step", "call"),
    [
        ("connections", "reserve_all", 1),
        ("caps", "take", 1),
        ("subscriptions", "get_all", 1),
        ("subscriptions", "put_hidden", 3),
        ("subscriptions", "make_visible", 3),
        ("access", "read", 2),
    ],
)
def test_a_process_that_dies_leaves_what_a_repetition_mends(store: str, step: str, call: int) -> None:
    container = board()
    mend = failing(container, store, step, call, Died())
    with pytest.raises(Died):
        several(container)
    assert len(live(container)) == (2 if step == "make_visible" else 0)
    mend()
    assert all(isinstance(done, Subscribed) for done in several(container).values())
    assert live(container) == set(NAMES) == set(container.connections.rows["c"].subscriptions)


@pytest.mark.parametrize("call", [1, 2])
def test_what_cannot_be_verified_is_taken_back(call: int) -> None:
    container = board()
    mend = failing(container, "access", "read", call, Unavailable("down"))
    try:
        outcomes = several(container)
    except Unavailable:
        outcomes = {}
    assert all(isinstance(outcome, Unavailable) for outcome in outcomes.values())
    assert not container.subscriptions.rows and not container.connections.rows["c"].subscriptions
    mend()
    assert all(isinstance(done, Subscribed) for done in several(container).values())


def test_those_that_fit_begin_and_the_others_hear_why() -> None:
    container = board(55)
    assert set(several(container, tuple(f"t{number}" for number in range(48)))) == live(container)
    outcomes = several(container, ("t50", "t51", "t52", "t53"))
    assert isinstance(outcomes["t50"], Subscribed) and isinstance(outcomes["t51"], Subscribed)
    for name in ("t52", "t53"):
        refusal = outcomes[name]
        assert isinstance(refusal, LimitReached) and refusal.code == "cap_reached"
    assert container.connections.rows["c"].subscriptions.keys() == live(container)


def test_one_that_is_being_terminated_waits_alone() -> None:
    container = board()
    several(container)
    row = container.subscriptions.rows[SubscriptionKey(DASHBOARD, "c", "t2")]
    container.subscriptions.claim_termination(row, TerminationClaim("run", int(container.clock.now())))
    outcomes = several(container)
    refusal = outcomes["t2"]
    assert isinstance(refusal, TidegateError) and refusal.code == "subscription_busy"
    assert live(container) == set(NAMES) - {"t2"}


@pytest.mark.parametrize("step", ["reserve_all", "put_hidden", "make_visible"])
def test_a_revocation_between_steps_leaves_nothing_that_lives(step: str) -> None:
    container = board()
    store: Any = container.connections if step == "reserve_all" else container.subscriptions
    real = getattr(store, step)

    def revoked_first(*args: Any) -> Any:
        setattr(store, step, real)
        container.revoke()
        return real(*args)

    setattr(store, step, revoked_first)
    outcomes = several(container)
    if step == "make_visible":  # it is late: revalidation finds the rows
        assert live(container) == set(NAMES)
    else:
        assert not container.subscriptions.rows and all(isinstance(each, TidegateError) for each in outcomes.values())


def test_one_changed_intent_between_the_reads_refuses_one() -> None:
    container = board()
    real = container.subscriptions.put_hidden

    def changed(row: Any) -> bool:
        dashboard = container.access.dashboards[DASHBOARD]
        container.change(intents={**dashboard.intents, "t1": "other"})
        return real(row)

    container.subscriptions.put_hidden = changed  # type: ignore[method-assign]
    outcomes = several(container)
    refusal = outcomes["t1"]
    assert isinstance(refusal, TidegateError) and refusal.code == "token_intent_changed"
    assert live(container) == set(NAMES) - {"t1"}
