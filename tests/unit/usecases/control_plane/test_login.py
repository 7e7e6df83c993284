"""Nobody learns from a login which accounts there are."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, cast

import pytest

from tests.doubles.platform import CountingIds, ManualClock, MemoryObserver, PlainKeys
from tidegate.adapters.memory_rates import MemoryRates
from tidegate.domain.access import Role
from tidegate.domain.audit import AuditEvent
from tidegate.domain.limits import FailureMode
from tidegate.domain.tokens import UserClaims
from tidegate.domain.users import User
from tidegate.errors import LimiterUnavailable, LimitReached, Unauthenticated, Unavailable
from tidegate.ports.control_plane import AuditLog, UserStore, UserTokens
from tidegate.ports.limits import RateStore
from tidegate.usecases.control_plane.login import Login, LoginPolicy
from tidegate.usecases.limits.rate_limits import RateLimits

ATTEMPTS = 3


class Users:
    """An account that is active, and one that is not."""

    def by_email(self, email: str) -> User | None:
        users = {"active@x.example": True, "gone@x.example": False}
        return User("u", email, Role.VIEWER, users[email], 1, "right") if email in users else None


class Passwords:
    """Hashes are the passwords themselves; how often one was verified is what the time depends on."""

    def __init__(self) -> None:
        self.verified = 0

    def hash(self, password: str) -> str:
        return password

    def verify(self, password_hash: str, password: str) -> bool:
        self.verified += 1
        return password_hash == password


class Tokens:
    def sign(self, claims: UserClaims) -> str:
        return claims.user_id


class Audit:
    def record(self, event: AuditEvent) -> None:
        return


@pytest.fixture
def passwords() -> Passwords:
    return Passwords()


@pytest.fixture
def login(passwords: Passwords) -> Login:
    return a_login(passwords, MemoryRates(), FailureMode.CLOSED, MemoryObserver())


def a_login(
    passwords: Passwords,
    store: RateStore,
    mode: FailureMode,
    observer: MemoryObserver,
    clock: ManualClock | None = None,
    audit: AuditLog | None = None,
) -> Login:
    clock, ids = clock or ManualClock(), CountingIds()
    rates = RateLimits(
        store=store,
        keys=PlainKeys(),
        namespace="t",
        failure_mode=mode,
        timeout_ms=3000,
        clock=clock,
        ids=ids,
        observer=observer,
    )
    return Login(
        policy=LoginPolicy(ATTEMPTS, 300, 300, 3600),
        users=cast(UserStore, Users()),
        passwords=passwords,
        tokens=cast(UserTokens, Tokens()),
        rates=rates,
        store=store,
        audit=audit or cast(AuditLog, Audit()),
        clock=clock,
        ids=ids,
    )


@pytest.mark.parametrize(
    ("email", "password"),
    [("nobody@x.example", "right"), ("active@x.example", "wrong"), ("gone@x.example", "right")],
    ids=["unknown", "wrong password", "deactivated"],
)
def test_whatever_is_wrong_costs_the_same_and_counts_the_same(
    login: Login, passwords: Passwords, email: str, password: str
) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        with pytest.raises(Unauthenticated, match="Invalid credentials") as refused:
            login(email, password, "ip")
        assert refused.value.code == "invalid_credentials" and passwords.verified == attempt
    with pytest.raises(LimitReached):
        login(email, password, "ip")
    assert passwords.verified == ATTEMPTS, "a lock is looked at before the password"


def test_a_right_login_forgets_failures(login: Login) -> None:
    for _ in range(2):
        for _ in range(ATTEMPTS - 1):
            with pytest.raises(Unauthenticated):
                login("active@x.example", "wrong", "ip")
        assert login("active@x.example", "right", "ip").token == "u"


class Failing(MemoryRates):
    """Rates of which one operation fails."""

    def __init__(self, operation: str) -> None:
        super().__init__()
        setattr(self, operation, self._fail)

    def _fail(self, *_args: object) -> None:
        raise Unavailable("down", code="store_denied")


@pytest.mark.parametrize("operation", ["locked_until_ms", "count", "lock"])
@pytest.mark.parametrize("mode", list(FailureMode))
def test_a_lock_that_cannot_be_kept_is_for_the_failure_mode_and_counted(
    passwords: Passwords, operation: str, mode: FailureMode
) -> None:
    observer = MemoryObserver()
    login = a_login(passwords, Failing(operation), mode, observer)
    tries = ATTEMPTS if operation == "lock" else 1
    if operation == "count":  # the limit of the address counts as well, and is asked first
        refusals = ("login-ip", "login") if mode is FailureMode.OPEN else ("login-ip",)
    else:
        refusals = ("login",)
    for attempt in range(1, tries + 1):
        expected = LimiterUnavailable if mode is FailureMode.CLOSED and attempt == tries else Unauthenticated
        with pytest.raises(expected, match="temporarily unavailable" if expected is LimiterUnavailable else "Invalid"):
            login("active@x.example", "wrong", "ip")
    outcome = "fail_open" if mode is FailureMode.OPEN else "fail_closed"
    for scope in refusals:
        assert observer.counts[("limiter", "store_denied", "backend_error", scope)] == 1
        assert observer.counts[("limiter", outcome, scope)] == 1


def test_failures_that_are_not_forgotten_do_not_stop_a_right_login(passwords: Passwords) -> None:
    observer = MemoryObserver()
    login = a_login(passwords, Failing("clear"), FailureMode.CLOSED, observer)
    assert login("active@x.example", "right", "ip").token == "u"
    assert observer.counts[("limiter", "store_denied", "backend_error", "login")] == 1
    assert ("limiter", "fail_closed", "login") not in observer.counts


class Timed(MemoryRates):
    """Rates whose calls take a tenth of a second, and that note how much time each was given."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self.given: list[tuple[str, float]] = []
        for name in ("count", "clear", "lock", "locked_until_ms"):
            setattr(self, name, self._timed(name, clock))

    def _timed(self, name: str, clock: ManualClock) -> Callable[..., Any]:
        call = getattr(super(), name)

        def timed(*arguments: Any) -> Any:
            self.given.append((name, round(arguments[-1] - clock.monotonic(), 3)))
            clock.advance(0.1)
            return call(*arguments)

        return timed


@pytest.mark.parametrize("password", ["right", "wrong"])
def test_a_login_has_one_deadline_for_all_its_limits(passwords: Passwords, password: str) -> None:
    clock = ManualClock()
    store = Timed(clock)
    login = a_login(passwords, store, FailureMode.CLOSED, MemoryObserver(), clock)
    verify = passwords.verify

    def slow(password_hash: str, given: str) -> bool:
        clock.advance(60)  # the time of a password is not the limiter's
        return verify(password_hash, given)

    passwords.verify = slow  # type: ignore[method-assign, assignment]
    for _ in range(ATTEMPTS):
        store.given.clear()
        with nullcontext() if password == "right" else pytest.raises(Unauthenticated):
            login("active@x.example", password, "ip")
    last = [("clear", 2.8)] if password == "right" else [("count", 2.8), ("lock", 2.7)]
    assert store.given == [("count", 3.0), ("locked_until_ms", 2.9), *last]
