"""How long a login lasts, and which logins were ended.

A *login* is what one sign-in began. It has an id, and every token that renews it carries that id. So ending a login
ends all of its tokens.

A user's item notes the logins that were ended, each until it would have ended anyway. The item is read at every call,
so this costs no read.
"""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.domain.tokens import UserClaims
from tidegate.domain.users import User
from tidegate.errors import Denied

#: Ended logins that are noted with a user at the same time. One more sign-out ends all logins of the user instead, so
#: that the item stays small.
MOST_ENDED_LOGINS = 100


@dataclass(frozen=True, slots=True)
class LoginLife:
    """How long a login lasts.

    Attributes:
        token_s: life of a login token, seconds.
        most_s: from signing in to the end of the last token that renews it, seconds.
    """

    token_s: int
    most_s: int

    def expires_at(self, now: int, logged_in_at: int) -> int:
        """Expiry of a token that is signed now, epoch seconds."""
        return min(now + self.token_s, logged_in_at + self.most_s)


def holds(claims: UserClaims, user: User | None, life: LoginLife, now: float) -> bool:
    """Whether the login that a verified token belongs to is still good."""
    return (
        user is not None
        and user.active
        and user.session_version == claims.session_version
        and now < claims.logged_in_at + life.most_s
        and claims.login_id not in {_login_id(note) for note in user.ended_logins}
    )


def end_note(claims: UserClaims, life: LoginLife) -> str:
    """What a user's item notes of an ended login: when it can be forgotten, and its id."""
    until = max(claims.expires_at, claims.logged_in_at + life.most_s)
    return f"{until}.{claims.login_id}"


def forgettable(notes: frozenset[str], now: float) -> frozenset[str]:
    """The notes of logins that would have ended by now."""
    return frozenset(note for note in notes if int(note.partition(".")[0]) <= now)


def check_password_is_own(user: User) -> None:
    """Raises `Denied` while the user has a one-time password: it is there to be changed, and for nothing else."""
    if user.must_change_password:
        raise Denied("Change your one-time password first", code="password_change_required")


def _login_id(note: str) -> str:
    return note.partition(".")[2]
