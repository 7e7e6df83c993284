"""A login that was ended never comes back."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest

from tests.doubles.platform import CountingIds, ManualClock, MemoryObserver, PlainKeys
from tidegate.adapters.memory_attempts import MemoryAttempts
from tidegate.adapters.memory_rates import MemoryRates
from tidegate.domain.access import Role
from tidegate.domain.attempts import AttemptPolicy
from tidegate.domain.audit import AuditEvent
from tidegate.domain.limits import FailureMode
from tidegate.domain.logins import MOST_ENDED_LOGINS, LoginLife
from tidegate.domain.revocations import RevocationReason
from tidegate.domain.tokens import UserClaims
from tidegate.domain.users import User
from tidegate.errors import ChangedMeanwhile, Denied, LimitReached, Unauthenticated, Unavailable
from tidegate.ports.control_plane import AuditLog, PasswordHasher, UserStore, UserWrite
from tidegate.ports.tokens import UserTokens
from tidegate.usecases.control_plane import from_what_stands
from tidegate.usecases.control_plane.logins import Logins, UsedLogin
from tidegate.usecases.control_plane.own_password import ChangeOwnPassword
from tidegate.usecases.limits.attempts import Attempts
from tidegate.usecases.limits.rate_limits import RateLimits

NOW = 1_800_000_000
LIFE = LoginLife(token_s=7200, most_s=43_200)


class Users:
    """One user. `before_write` is called before each write, as another process that was first."""

    def __init__(self) -> None:
        self.user = User("u", "u@x.example", Role.VIEWER, True, 1, "old")
        self.writes: list[UserWrite] = []
        self.others = 0

    def get(self, user_id: str) -> User:
        return self.user

    def write(self, write: UserWrite, now_ms: int) -> None:
        if self.others:
            self.others -= 1
            self.user = replace(self.user, row_version=self.user.row_version + 1)
        assert write.before is not None
        if write.before.row_version != self.user.row_version:
            raise ChangedMeanwhile("changed")
        self.user = write.after
        self.writes.append(write)

    def end_login(self, user_id: str, note: str, forget: frozenset[str]) -> None:
        notes = (self.user.ended_logins | {note}) - forget
        self.user = replace(self.user, ended_logins=notes, row_version=self.user.row_version + 1)


class Tokens:
    """Tokens are kept with what they say."""

    def __init__(self) -> None:
        self.signed: dict[str, UserClaims] = {}

    def sign(self, claims: UserClaims) -> str:
        token = f"token {len(self.signed)}"
        self.signed[token] = claims
        return token

    def verify(self, token: str, now: float) -> UserClaims:
        return self.signed[token]


class Passwords:
    def hash(self, password: str) -> str:
        return f"hash of {password}"

    def verify(self, password_hash: str, password: str) -> bool:
        return password_hash == password


class Audit:
    def record(self, event: AuditEvent) -> None:
        return


class Scene:
    def __init__(self) -> None:
        self.users, self.tokens, self.clock = Users(), Tokens(), ManualClock(NOW)
        self.logins = Logins(
            users=cast(UserStore, self.users),
            tokens=cast(UserTokens, self.tokens),
            life=LIFE,
            audit=cast(AuditLog, Audit()),
            clock=self.clock,
        )
        rates = RateLimits(
            store=MemoryRates(),
            keys=PlainKeys(),
            namespace="t",
            failure_mode=FailureMode.CLOSED,
            timeout_ms=3000,
            clock=self.clock,
            ids=CountingIds(),
            observer=MemoryObserver(),
        )
        self.change_password = ChangeOwnPassword(
            policy=AttemptPolicy(2, 300, 300),
            life=LIFE,
            users=cast(UserStore, self.users),
            passwords=cast(PasswordHasher, Passwords()),
            attempts=Attempts(store=MemoryAttempts(), rates=rates, clock=self.clock, ids=CountingIds()),
            audit=cast(AuditLog, Audit()),
            clock=self.clock,
        )

    def log_in(self, login_id: str = "a") -> UsedLogin:
        now = int(self.clock.now())
        user = self.users.user
        claims = UserClaims("u", user.email, user.role, user.session_version, now, now + 7200, login_id, now)
        return self.logins.use(self.tokens.sign(claims))

    def holds(self, login: UsedLogin) -> bool:
        try:
            self.logins.use(self.tokens.sign(login.claims))
        except Unauthenticated:
            return False
        return True


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_renewal_keeps_the_login_and_ends_with_it(scene: Scene) -> None:
    login, other = scene.log_in("a"), scene.log_in("b")
    scene.clock.advance(3600)
    renewed = scene.tokens.verify(scene.logins.renew(login).token, 0)
    assert (renewed.login_id, renewed.logged_in_at, renewed.expires_at) == ("a", NOW, NOW + 3600 + 7200)
    scene.logins.end(login)
    assert not scene.holds(UsedLogin(login.user, renewed)) and not scene.holds(login) and scene.holds(other)


def test_a_renewal_has_an_end(scene: Scene) -> None:
    login = scene.log_in()
    scene.clock.advance(LIFE.most_s - 10)
    last = scene.logins.renew(login)
    assert last.expires_at == NOW + LIFE.most_s
    scene.clock.advance(10)
    assert not scene.holds(login)


def test_a_renewed_token_says_what_the_user_is_now(scene: Scene) -> None:
    login = scene.log_in()
    scene.users.user = replace(scene.users.user, role=Role.EDITOR)
    used = scene.logins.use(scene.tokens.sign(login.claims))
    assert scene.tokens.verify(scene.logins.renew(used).token, 0).role is Role.EDITOR


def test_a_renewal_that_a_sign_out_overtakes_is_ended_too(scene: Scene) -> None:
    login = scene.log_in()
    scene.logins.end(login)
    late = scene.tokens.verify(scene.logins.renew(login).token, 0)  # it was checked before
    assert not scene.holds(UsedLogin(login.user, late))


def test_notes_of_ended_logins_are_forgotten_in_time(scene: Scene) -> None:
    scene.logins.end(scene.log_in("a"))
    scene.clock.advance(LIFE.most_s - 1)
    scene.logins.end(scene.log_in("b"))
    assert {note.partition(".")[2] for note in scene.users.user.ended_logins} == {"a", "b"}
    scene.clock.advance(1)
    scene.logins.end(scene.log_in("c"))
    assert {note.partition(".")[2] for note in scene.users.user.ended_logins} == {"b", "c"}


def test_more_notes_than_fit_end_every_login(scene: Scene) -> None:
    stays = scene.log_in("stays")
    for number in range(MOST_ENDED_LOGINS):
        scene.logins.end(scene.log_in(f"l{number}"))
    assert scene.holds(stays) and not scene.users.writes
    last = scene.log_in("last")
    scene.logins.end(last)
    assert not scene.holds(stays) and not scene.holds(last) and not scene.users.user.ended_logins


def test_a_sign_out_everywhere_is_one_write_with_its_event(scene: Scene) -> None:
    login, other = scene.log_in("a"), scene.log_in("b")
    scene.users.others = 4  # somebody else writes the user first, four times
    scene.logins.end_all(login.user)
    (write,) = scene.users.writes
    assert write.revocation is not None
    assert (write.revocation.reason, write.revocation.user_id) == (RevocationReason.SIGNED_OUT, "u")
    assert write.after.session_version == 2 and not scene.holds(login) and not scene.holds(other)


def test_a_sign_out_everywhere_that_never_gets_through_says_so(scene: Scene) -> None:
    login = scene.log_in()
    scene.users.others = from_what_stands.ATTEMPTS
    with pytest.raises(Unavailable):
        scene.logins.end_all(login.user)
    assert scene.holds(login)


def test_a_new_password_is_one_write_with_its_event(scene: Scene) -> None:
    scene.users.user = replace(scene.users.user, must_change_password=True, password_set_at_ms=NOW * 1000)
    login = scene.log_in()
    scene.clock.advance(60)
    scene.change_password(login, "old", "correct horse battery")
    (write,) = scene.users.writes
    assert write.revocation is not None
    assert (write.revocation.reason, write.revocation.user_id) == (RevocationReason.PASSWORD_RESET, "u")
    assert (write.after.session_version, write.after.must_change_password) == (2, False)
    assert write.after.password_set_at_ms == (NOW + 60) * 1000 and not scene.holds(login)


def test_wrong_current_passwords_count(scene: Scene) -> None:
    login = scene.log_in()
    for _ in range(2):
        with pytest.raises(Denied, match="wrong"):
            scene.change_password(login, "guess", "correct horse battery")
    with pytest.raises(LimitReached):
        scene.change_password(login, "old", "correct horse battery")
    scene.clock.advance(300)
    scene.change_password(login, "old", "correct horse battery")
