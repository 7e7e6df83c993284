"""Log in.

Invariant of this file: an unknown e-mail, a wrong password, a one-time password that ended and a deactivated account
take the same time, count the same, and get the same answer. So nobody learns which accounts exist, or what was right.

Every attempt is counted before its password is verified. `domain.attempts` says how.
"""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.domain.attempts import AttemptPolicy
from tidegate.domain.audit import AuditEvent
from tidegate.domain.emails import address_or_nobody
from tidegate.domain.logins import LoginLife
from tidegate.domain.passwords import one_time_password_ended
from tidegate.domain.tokens import UserClaims
from tidegate.domain.users import User
from tidegate.errors import LimitReached, TidegateError, Unauthenticated
from tidegate.ports.control_plane import AuditLog, PasswordHasher, UserStore
from tidegate.ports.runtime import Clock, Ids
from tidegate.ports.tokens import UserTokens
from tidegate.usecases.limits.attempts import Attempt, Attempts
from tidegate.usecases.limits.deadline import LimiterDeadline
from tidegate.usecases.limits.rate_limits import RateLimits

#: Login attempts of one address that are allowed in a minute, over all e-mails.
ATTEMPTS_PER_IP = 30
_REFUSAL = "Too many login attempts"
_UNAVAILABLE = "Login is temporarily unavailable. Try again shortly."
#: The same for everybody, so it says nothing about the account that was tried.
_INVALID = "Invalid credentials. A one-time password works for one day. After that, ask an admin for a new one."


@dataclass(frozen=True, slots=True)
class LoginPolicy:
    """Settings of the login limits.

    Attributes:
        here: attempts with one e-mail from one address.
        account: attempts with one e-mail from all addresses where nobody logged in with it.
        known_s: how long an address is known after a login, seconds.
        life: how long a login lasts.
    """

    here: AttemptPolicy
    account: AttemptPolicy
    known_s: int
    life: LoginLife


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """A login token and its user. `expires_at`: epoch seconds."""

    token: str
    expires_at: int
    user: User


class Login:
    """Exchanges e-mail and password for a login token."""

    def __init__(
        self,
        *,
        policy: LoginPolicy,
        users: UserStore,
        passwords: PasswordHasher,
        tokens: UserTokens,
        rates: RateLimits,
        attempts: Attempts,
        audit: AuditLog,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._policy = policy
        self._users = users
        self._passwords = passwords
        self._tokens = tokens
        self._rates = rates
        self._attempts = attempts
        self._audit = audit
        self._clock = clock
        self._ids = ids
        self._hash_of_nobody = passwords.hash(ids.new_id())

    def __call__(self, email: str, password: str, address: str) -> LoggedIn:
        """Log in.

        Raises:
            Unauthenticated: e-mail or password is wrong, the one-time password ended, or the account is deactivated.
            LimitReached: too many attempts.
            LimiterUnavailable: the limits could not be checked and the failure mode is fail-closed.
        """
        deadline = self._rates.deadline()
        self._rates.consume("login-ip", address, ATTEMPTS_PER_IP, deadline=deadline, refusal=_REFUSAL)
        email = address_or_nobody(email)
        attempts = self._begin(email, address, deadline)
        try:
            user = self._users.by_email(email)
            right = self._right(user, password)
        except TidegateError:  # a store did not answer: nothing was judged
            self._give_back(attempts, deadline)
            raise
        if user is None or not right:
            if self._attempts.wrong(attempts[0], deadline):
                self._record("auth.login.locked", user)
            raise Unauthenticated(_INVALID, code="invalid_credentials")
        self._give_back(attempts, deadline, known_s=self._policy.known_s)
        now = int(self._clock.now())
        claims = UserClaims(
            user_id=user.user_id,
            email=user.email,
            role=user.role,
            session_version=user.session_version,
            issued_at=now,
            expires_at=self._policy.life.expires_at(now, now),
            login_id=self._ids.new_id(),
            logged_in_at=now,
        )
        return LoggedIn(self._tokens.sign(claims), claims.expires_at, user)

    def _right(self, user: User | None, password: str) -> bool:
        """Whether everything is right. For an e-mail that nobody has it takes as long."""
        right = self._passwords.verify(user.password_hash if user else self._hash_of_nobody, password)
        return user is not None and right and user.active and not one_time_password_ended(user, self._now_ms())

    def _begin(self, email: str, address: str, deadline: LimiterDeadline) -> list[Attempt]:
        """Count the attempt. The account's own limit is not asked where somebody logged in with it before."""
        policy = self._policy
        attempts: list[Attempt] = []
        try:
            for scope, key, limits in (
                ("login", f"{email}|{address}", policy.here),
                ("login-account", email, policy.account),
            ):
                attempts.append(
                    self._attempts.begin(
                        scope, key, limits, deadline=deadline, refusal=_REFUSAL, unavailable=_UNAVAILABLE
                    )
                )
                if attempts[0].known:
                    break
        except TidegateError as error:
            self._give_back(attempts, deadline)
            if isinstance(error, LimitReached):
                self._record("auth.login.blocked", None)
            raise
        return attempts

    def _give_back(self, attempts: list[Attempt], deadline: LimiterDeadline, known_s: int = 0) -> None:
        for attempt in attempts:
            self._attempts.give_back(attempt, deadline, known_s=known_s if attempt is attempts[0] else 0)

    def _record(self, action: str, user: User | None) -> None:
        """Record what happened to an account. An e-mail that nobody has is none, so that nobody can fill the log."""
        target_id = user.user_id if user else None
        self._audit.record(AuditEvent(action, None, "user", target_id, self._now_ms()))

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1000)
