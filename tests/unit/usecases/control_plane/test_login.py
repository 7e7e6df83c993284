"""Nobody learns from a login which accounts there are."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from threading import Barrier
from typing import Any, TypeVar, cast

import pytest

from tests.doubles.platform import CountingIds, Died, ManualClock, MemoryObserver, PlainKeys
from tidegate.adapters.memory_attempts import MemoryAttempts
from tidegate.adapters.memory_rates import MemoryRates
from tidegate.domain.access import Role
from tidegate.domain.attempts import AttemptPolicy
from tidegate.domain.audit import AuditEvent
from tidegate.domain.limits import FailureMode, RateDecision
from tidegate.domain.logins import LoginLife
from tidegate.domain.tokens import UserClaims
from tidegate.domain.users import User
from tidegate.errors import LimiterUnavailable, LimitReached, Unauthenticated, Unavailable
from tidegate.ports.control_plane import AuditLog, UserStore
from tidegate.ports.limits import AttemptStore, RateCounter
from tidegate.ports.tokens import UserTokens
from tidegate.usecases.control_plane.login import Login, LoginPolicy
from tidegate.usecases.limits.attempts import Attempts
from tidegate.usecases.limits.rate_limits import RateLimits

ATTEMPTS = 3
ACCOUNT = 10
S = TypeVar("S")


class Users:
    """An account that is active, and one that is not."""

    def __init__(self) -> None:
        self.down = False

    def by_email(self, email: str) -> User | None:
        if self.down:
            raise Unavailable("down")
        users = {"active@x.example": True, "gone@x.example": False, "late@x.example": True}
        late = email.startswith("late")  # with a one-time password of long ago
        return User("u", email, Role.VIEWER, users[email], 1, "right", late) if email in users else None


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
    return a_login(passwords, FailureMode.CLOSED, MemoryObserver())


def a_login(
    passwords: Passwords,
    mode: FailureMode,
    observer: MemoryObserver,
    clock: ManualClock | None = None,
    *,
    attempts: AttemptStore | None = None,
    rates: RateCounter | None = None,
    users: Users | None = None,
    audit: AuditLog | None = None,
) -> Login:
    clock, ids = clock or ManualClock(), CountingIds()
    limits = RateLimits(
        store=rates or MemoryRates(),
        keys=PlainKeys(),
        namespace="t",
        failure_mode=mode,
        timeout_ms=3000,
        clock=clock,
        ids=ids,
        observer=observer,
    )
    return Login(
        policy=LoginPolicy(
            AttemptPolicy(ATTEMPTS, 300, 300), AttemptPolicy(ACCOUNT, 3600), 86_400, LoginLife(3600, 7200)
        ),
        users=cast(UserStore, users or Users()),
        passwords=passwords,
        tokens=cast(UserTokens, Tokens()),
        rates=limits,
        attempts=Attempts(store=attempts or MemoryAttempts(), rates=limits, clock=clock, ids=ids),
        audit=audit or cast(AuditLog, Audit()),
        clock=clock,
        ids=ids,
    )


@pytest.mark.parametrize(
    ("email", "password"),
    [
        ("nobody@x.example", "right"),
        ("active@x.example", "wrong"),
        ("gone@x.example", "right"),
        ("late@x.example", "right"),
    ],
    ids=["unknown", "wrong password", "deactivated", "one-time password that ended"],
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


def test_a_right_login_gives_back_its_own_attempt(login: Login) -> None:
    for _ in range(2 * ATTEMPTS):
        assert login("active@x.example", "right", "ip").token == "u"
    for _ in range(ATTEMPTS):
        with pytest.raises(Unauthenticated):
            login("active@x.example", "wrong", "ip")
    with pytest.raises(LimitReached):
        login("active@x.example", "right", "ip")


def test_no_more_are_judged_at_once_than_are_free(login: Login, passwords: Passwords) -> None:
    ready = Barrier(14)

    def guess(_: int) -> type[Exception]:
        ready.wait()
        try:
            login("active@x.example", "wrong", "ip")
        except (Unauthenticated, LimitReached) as refused:
            return type(refused)
        raise AssertionError("a wrong password is no login")

    with ThreadPoolExecutor(14) as threads:
        refusals = list(threads.map(guess, range(14)))
    assert passwords.verified == refusals.count(Unauthenticated) == ATTEMPTS


def test_a_process_that_dies_leaves_one_too_many(login: Login, passwords: Passwords) -> None:
    verify = passwords.verify

    def dies(password_hash: str, password: str) -> bool:
        raise Died

    passwords.verify = dies  # type: ignore[method-assign]
    with pytest.raises(Died):
        login("active@x.example", "right", "ip")
    passwords.verify = verify  # type: ignore[method-assign]
    for _ in range(ATTEMPTS - 1):
        with pytest.raises(Unauthenticated):
            login("active@x.example", "wrong", "ip")
    with pytest.raises(LimitReached):
        login("active@x.example", "right", "ip")


def test_what_was_not_judged_is_given_back(passwords: Passwords) -> None:
    users = Users()
    login = a_login(passwords, FailureMode.CLOSED, MemoryObserver(), users=users)
    users.down = True
    for _ in range(2 * ATTEMPTS):
        with pytest.raises(Unavailable):
            login("active@x.example", "right", "ip")
    users.down = False
    assert login("active@x.example", "right", "ip").token == "u"


def test_an_account_has_a_limit_where_nobody_logged_in_before(passwords: Passwords) -> None:
    login = a_login(passwords, FailureMode.CLOSED, MemoryObserver())
    login("active@x.example", "right", "home")
    passwords.verified = 0
    for number in range(ACCOUNT):
        with pytest.raises(Unauthenticated):
            login("active@x.example", "wrong", f"stranger {number}")
    for password in ("wrong", "right"):
        with pytest.raises(LimitReached):
            login("active@x.example", password, "elsewhere")
    assert passwords.verified == ACCOUNT
    for _ in range(ATTEMPTS + 1):
        login("active@x.example", "right", "home")


class Failing(MemoryAttempts):
    """Attempts of which one operation fails."""

    def __init__(self, operation: str) -> None:
        super().__init__()
        setattr(self, operation, self._fail)

    def _fail(self, *_args: object, **_more: object) -> None:
        raise Unavailable("down", code="store_denied")


class NoRates(MemoryRates):
    """Rates that are down."""

    def count(self, *_args: object) -> RateDecision:
        raise Unavailable("down", code="store_denied")


@pytest.mark.parametrize("mode", list(FailureMode))
@pytest.mark.parametrize("password", ["right", "wrong"])
def test_attempts_that_cannot_be_counted_are_for_the_failure_mode_and_counted(
    passwords: Passwords, mode: FailureMode, password: str
) -> None:
    observer = MemoryObserver()
    login = a_login(passwords, mode, observer, attempts=Failing("begin"), rates=NoRates())
    if mode is FailureMode.CLOSED:
        with pytest.raises(LimiterUnavailable, match="temporarily unavailable"):
            login("active@x.example", password, "ip")
        scopes: tuple[str, ...] = ("login-ip",)
    else:
        with nullcontext() if password == "right" else pytest.raises(Unauthenticated):
            login("active@x.example", password, "ip")
        scopes = ("login-ip", "login", "login-account")
    outcome = "fail_open" if mode is FailureMode.OPEN else "fail_closed"
    assert observer.counts == {
        count: 1
        for scope in scopes
        for count in (("limiter", "store_denied", "backend_error", scope), ("limiter", outcome, scope))
    }


def test_an_attempt_that_is_not_given_back_does_not_stop_a_right_login(passwords: Passwords) -> None:
    observer = MemoryObserver()
    login = a_login(passwords, FailureMode.CLOSED, observer, attempts=Failing("right"))
    assert login("active@x.example", "right", "ip").token == "u"
    assert observer.counts[("limiter", "store_denied", "backend_error", "login")] == 1
    assert ("limiter", "fail_closed", "login") not in observer.counts


def test_a_lock_that_is_not_lengthened_does_not_free_an_attempt(passwords: Passwords) -> None:
    observer = MemoryObserver()
    login = a_login(passwords, FailureMode.CLOSED, observer, attempts=Failing("wrong"))
    for _ in range(ATTEMPTS):
        with pytest.raises(Unauthenticated):
            login("active@x.example", "wrong", "ip")
    with pytest.raises(LimitReached):
        login("active@x.example", "right", "ip")
    assert observer.counts[("limiter", "store_denied", "backend_error", "login")] == 1


class Timed:
    """Makes limiter calls take a tenth of a second, and notes how much time each was given."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.given: list[tuple[str, float]] = []

    def of(self, store: S, *names: str) -> S:
        for name in names:
            setattr(store, name, self._timed(name, getattr(store, name)))
        return store

    def _timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **more: Any) -> Any:
            self.given.append((name, round(arguments[-1] - self.clock.monotonic(), 3)))
            self.clock.advance(0.1)
            return call(*arguments, **more)

        return timed


@pytest.mark.parametrize("password", ["right", "wrong"])
def test_a_login_has_one_deadline_for_all_its_limits(passwords: Passwords, password: str) -> None:
    clock = ManualClock()
    timed = Timed(clock)
    login = a_login(
        passwords,
        FailureMode.CLOSED,
        MemoryObserver(),
        clock,
        attempts=timed.of(MemoryAttempts(), "begin", "wrong", "right"),
        rates=timed.of(MemoryRates(), "count"),
    )
    verify = passwords.verify

    def slow(password_hash: str, given: str) -> bool:
        clock.advance(60)  # the time of a password is not the limiter's
        return verify(password_hash, given)

    passwords.verify = slow  # type: ignore[method-assign, assignment]
    for _ in range(1 if password == "right" else ATTEMPTS):
        timed.given.clear()
        with nullcontext() if password == "right" else pytest.raises(Unauthenticated):
            login("active@x.example", password, "ip")
    last = [("right", 2.7), ("right", 2.6)] if password == "right" else [("wrong", 2.7)]
    assert timed.given == [("count", 3.0), ("begin", 2.9), ("begin", 2.8), *last]
