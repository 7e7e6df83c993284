"""A login that is in use: find its user, renew it, end it.

Invariant of this file: a login that was ended, or whose user was deactivated, never comes back. A renewal keeps the
login's id and the time it began, so it ends with the login.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tidegate.domain.audit import AuditEvent
from tidegate.domain.logins import MOST_ENDED_LOGINS, LoginLife, end_note, forgettable, holds
from tidegate.domain.revocations import Revocation, RevocationReason
from tidegate.domain.tokens import UserClaims
from tidegate.domain.users import User
from tidegate.errors import Unauthenticated
from tidegate.ports.control_plane import AuditLog, UserStore, UserWrite
from tidegate.ports.runtime import Clock
from tidegate.ports.tokens import UserTokens
from tidegate.usecases.control_plane.from_what_stands import from_what_stands
from tidegate.usecases.control_plane.login import LoggedIn


@dataclass(frozen=True, slots=True)
class UsedLogin:
    """A login that was shown to be good: its user, and what its token says."""

    user: User
    claims: UserClaims


class Logins:
    """Logins that are in use. The user is read every time, so whatever ends a login does so at once."""

    def __init__(self, *, users: UserStore, tokens: UserTokens, life: LoginLife, audit: AuditLog, clock: Clock) -> None:
        self._users = users
        self._tokens = tokens
        self._life = life
        self._audit = audit
        self._clock = clock

    def use(self, token: str) -> UsedLogin:
        """The login of a token. Raises `Unauthenticated`."""
        now = self._clock.now()
        claims = self._tokens.verify(token, now)
        user = self._users.get(claims.user_id)
        if user is None or not holds(claims, user, self._life, now):
            raise Unauthenticated("Invalid or expired login")
        return UsedLogin(user, claims)

    def renew(self, login: UsedLogin) -> LoggedIn:
        """A token that lasts longer, for the same login."""
        now = int(self._clock.now())
        user = login.user
        claims = replace(
            login.claims,
            email=user.email,
            role=user.role,
            issued_at=now,
            expires_at=self._life.expires_at(now, login.claims.logged_in_at),
        )
        return LoggedIn(self._tokens.sign(claims), claims.expires_at, user)

    def end(self, login: UsedLogin) -> None:
        """End this login, and no other.

        A user with `MOST_ENDED_LOGINS` notes loses all logins instead.
        """
        user = login.user
        old = forgettable(user.ended_logins, self._clock.now())
        if len(user.ended_logins - old) >= MOST_ENDED_LOGINS:
            self.end_all(user)
            return
        self._users.end_login(user.user_id, end_note(login.claims, self._life), old)
        self._record("auth.logout", user)

    def end_all(self, user: User) -> None:
        """End every login of the user, every session token minted with one, and every stream. Raises `Unavailable` when
        the user is written again and again meanwhile."""
        self._raise_version(user.user_id)
        self._record("auth.logout_everywhere", user)

    @from_what_stands
    def _raise_version(self, user_id: str) -> None:
        user = self._users.get(user_id)
        if user is None:
            raise Unauthenticated("User not found")
        now_ms = int(self._clock.now() * 1000)
        after = replace(
            user,
            session_version=user.session_version + 1,
            ended_logins=frozenset(),
            row_version=user.row_version + 1,
            updated_at_ms=now_ms,
        )
        revocation = Revocation(RevocationReason.SIGNED_OUT, user_id=user.user_id)
        self._users.write(UserWrite(user, after, revocation), now_ms)

    def _record(self, action: str, user: User) -> None:
        now_ms = int(self._clock.now() * 1000)
        self._audit.record(AuditEvent(action, user.user_id, "user", user.user_id, now_ms))
