"""Log in, and find the user of a login token.

Invariant of this file: an unknown e-mail, a wrong password and a deactivated account take the same time and count the
same towards the lock. So nobody learns which accounts exist.
"""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.domain.audit import AuditEvent
from tidegate.domain.emails import address_or_nobody
from tidegate.domain.tokens import UserClaims
from tidegate.domain.users import User
from tidegate.errors import LimitReached, Unauthenticated, Unavailable
from tidegate.ports.control_plane import AuditLog, PasswordHasher, UserStore, UserTokens
from tidegate.ports.limits import RateStore
from tidegate.ports.runtime import Clock, Ids
from tidegate.usecases.limits.deadline import LimiterDeadline
from tidegate.usecases.limits.rate_limits import RateLimits

#: Login attempts of one address that are allowed in a minute, over all e-mails.
ATTEMPTS_PER_IP = 30
_SCOPE = "login"
_UNAVAILABLE = "Login is temporarily unavailable. Try again shortly."


@dataclass(frozen=True, slots=True)
class LoginPolicy:
    """Settings of the login limits. Durations in seconds."""

    max_attempts: int
    window_s: int
    lock_s: int
    token_ttl_s: int


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
        store: RateStore,
        audit: AuditLog,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._policy = policy
        self._users = users
        self._passwords = passwords
        self._tokens = tokens
        self._rates = rates
        self._store = store
        self._audit = audit
        self._clock = clock
        self._ids = ids
        self._hash_of_nobody = passwords.hash(ids.new_id())

    def __call__(self, email: str, password: str, address: str) -> LoggedIn:
        """Log in.

        Raises:
            Unauthenticated: e-mail or password is wrong, or the account is deactivated.
            LimitReached: too many attempts.
            LimiterUnavailable: the limits could not be checked and the failure mode is fail-closed.
        """
        deadline = self._rates.deadline()
        refusal = "Too many login attempts"
        self._rates.consume("login-ip", address, ATTEMPTS_PER_IP, deadline=deadline, refusal=refusal)
        email = address_or_nobody(email)
        key = self._rates.key(_SCOPE, f"{email}|{address}")
        self._refuse_locked(key, deadline)
        user = self._users.by_email(email)
        right = self._passwords.verify(user.password_hash if user else self._hash_of_nobody, password)
        if user is None or not right or not user.active:
            self._count_failure(key, user, deadline)
            raise Unauthenticated("Invalid credentials", code="invalid_credentials")
        now = int(self._clock.now())
        self._forget_failures(key, deadline)
        expires_at = now + self._policy.token_ttl_s
        claims = UserClaims(user.user_id, user.email, user.role, user.session_version, now, expires_at)
        return LoggedIn(self._tokens.sign(claims), expires_at, user)

    def _refuse_locked(self, key: str, deadline: LimiterDeadline) -> None:
        try:
            with deadline.running() as until_s:
                until_ms = self._store.locked_until_ms(key, until_s)
        except Unavailable as error:
            self._rates.unanswered(_SCOPE, error, _UNAVAILABLE)
            return
        left_ms = until_ms - int(self._clock.now() * 1000)
        if left_ms > 0:
            self._record("auth.login.blocked", None)
            seconds = -(-left_ms // 1000)
            raise LimitReached(f"Too many login attempts. Try again in {seconds} seconds.", retry_after_ms=left_ms)

    def _count_failure(self, key: str, user: User | None, deadline: LimiterDeadline) -> None:
        policy, now_ms = self._policy, int(self._clock.now() * 1000)
        try:
            with deadline.running() as until_s:
                decision = self._store.count(
                    key, policy.max_attempts, now_ms, policy.window_s * 1000, self._ids.new_id(), until_s
                )
                if decision.remaining == 0:
                    self._store.lock(key, now_ms + policy.lock_s * 1000, until_s)
        except Unavailable as error:
            self._rates.unanswered(_SCOPE, error, _UNAVAILABLE)
            return
        if decision.remaining == 0:
            self._record("auth.login.locked", user)

    def _forget_failures(self, key: str, deadline: LimiterDeadline) -> None:
        try:
            with deadline.running() as until_s:
                self._store.clear(key, int(self._clock.now() * 1000), self._policy.window_s * 1000, until_s)
        except Unavailable as error:  # the failures end with their window
            self._rates.not_cleaned_up(_SCOPE, error)

    def _record(self, action: str, user: User | None) -> None:
        """Record what happened to an account. An e-mail that nobody has is none, so that nobody can fill the log."""
        target_id = user.user_id if user else None
        self._audit.record(AuditEvent(action, None, "user", target_id, int(self._clock.now() * 1000)))


class Authenticate:
    """Finds the user of a login token. The user is read every time, so a password reset or a deactivation takes effect
    at once."""

    def __init__(self, *, users: UserStore, tokens: UserTokens, clock: Clock) -> None:
        self._users = users
        self._tokens = tokens
        self._clock = clock

    def __call__(self, token: str) -> User:
        """Returns the user. Raises `Unauthenticated`."""
        claims = self._tokens.verify(token, self._clock.now())
        user = self._users.get(claims.user_id)
        if user is None or not user.active or user.session_version != claims.session_version:
            raise Unauthenticated("Invalid or expired login")
        return user
