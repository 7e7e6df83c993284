"""Change one's own password.

Invariants of this file: the current password is verified only after the attempt was counted. The change and its event
are one write. Whoever's login was ended before that write changes nothing.
"""

from __future__ import annotations

from dataclasses import replace

from tidegate.domain.attempts import AttemptPolicy
from tidegate.domain.audit import AuditEvent
from tidegate.domain.logins import LoginLife, holds
from tidegate.domain.passwords import check_password, one_time_password_ended
from tidegate.domain.revocations import Revocation, RevocationReason
from tidegate.errors import Conflict, Denied, InvalidInput, Unauthenticated
from tidegate.ports.control_plane import AuditLog, PasswordHasher, UserStore, UserWrite
from tidegate.ports.runtime import Clock
from tidegate.usecases.control_plane.from_what_stands import from_what_stands
from tidegate.usecases.control_plane.logins import UsedLogin
from tidegate.usecases.limits.attempts import Attempts


class ChangeOwnPassword:
    """What users do with their own password. A stolen login is no help with guessing it."""

    def __init__(
        self,
        *,
        policy: AttemptPolicy,
        life: LoginLife,
        users: UserStore,
        passwords: PasswordHasher,
        attempts: Attempts,
        audit: AuditLog,
        clock: Clock,
    ) -> None:
        self._policy = policy
        self._life = life
        self._users = users
        self._passwords = passwords
        self._attempts = attempts
        self._audit = audit
        self._clock = clock

    def __call__(self, login: UsedLogin, current: str, new: str) -> None:
        """Change the password of the login's user. All logins of the user end.

        Raises:
            InvalidInput: the new password is not good enough, or is the current one.
            Denied: `current` is wrong, or is a one-time password that ended.
            LimitReached: too many wrong current passwords.
            LimiterUnavailable: that could not be checked and the failure mode is fail-closed.
            Conflict: the password was changed meanwhile.
            Unauthenticated: the login was ended meanwhile, or the user deactivated.
            Unavailable: the user was written by others again and again meanwhile.
        """
        user = login.user
        check_password(new, user.email)
        if new == current:
            raise InvalidInput("The new password must differ from the current one", code="password_unchanged")
        now_ms = int(self._clock.now() * 1000)
        if one_time_password_ended(user, now_ms):
            text = "The one-time password has expired. Ask an admin for a new one."
            raise Denied(text, code="one_time_password_expired")
        deadline = self._attempts.deadline()
        attempt = self._attempts.begin(
            "password-change", user.user_id, self._policy, deadline=deadline, refusal="Too many wrong passwords"
        )
        if not self._passwords.verify(user.password_hash, current):
            self._attempts.wrong(attempt, deadline)
            raise Denied("The current password is wrong", code="wrong_password")
        self._attempts.give_back(attempt, deadline)
        self._write(login, self._passwords.hash(new), now_ms)
        self._audit.record(AuditEvent("password_reset.completed", user.user_id, "user", user.user_id, now_ms))

    @from_what_stands
    def _write(self, login: UsedLogin, password_hash: str, now_ms: int) -> None:
        user = self._users.get(login.user.user_id)
        if user is not None and user.password_hash != login.user.password_hash:
            raise Conflict("The password was changed meanwhile. Log in again.", code="password_changed")
        # The write is conditional on the user's row version, so what is seen here still holds when it is done.
        if user is None or not holds(login.claims, user, self._life, self._clock.now()):
            raise Unauthenticated("Invalid or expired login")
        changed = replace(
            user,
            password_hash=password_hash,
            must_change_password=False,
            password_set_at_ms=now_ms,
            session_version=user.session_version + 1,
            ended_logins=frozenset(),
            row_version=user.row_version + 1,
            updated_at_ms=now_ms,
        )
        revocation = Revocation(RevocationReason.PASSWORD_RESET, user_id=user.user_id)
        self._users.write(UserWrite(user, changed, revocation), now_ms)
