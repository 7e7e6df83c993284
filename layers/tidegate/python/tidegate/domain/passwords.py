"""What a password must look like."""

from __future__ import annotations

import re

from tidegate.domain.known_passwords import KNOWN_PASSWORDS
from tidegate.domain.users import User
from tidegate.errors import InvalidInput

#: Argon2 hashes texts of any length. The bound keeps one request from costing too much.
MAX_LENGTH = 256
MIN_LENGTH = 12
#: How long a one-time password works, seconds from its issue.
ONE_TIME_PASSWORD_S = 86_400
_EMAIL = re.compile(r"^[^@\s]{1,64}@[^@\s.]+(\.[^@\s.]+)+$")


def check_password(password: str, email: str) -> str:
    """Return the password.

    There is no rule about kinds of characters: such rules make passwords that are hard to remember and easy to guess.

    Args:
        email: normalised, of the user whose password it shall be.

    Raises:
        InvalidInput: it has fewer than 12 or more than 256 characters, repeats a short part of itself, is one that is
            used often, or is the e-mail address or its first part.
    """
    folded = password.casefold()
    if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
        problem = f"Password must have {MIN_LENGTH} to {MAX_LENGTH} characters"
    elif folded in KNOWN_PASSWORDS or _repeats(folded):
        problem = "This password is one of the first that are guessed. Choose another"
    elif folded in (email, email.partition("@")[0]):
        problem = "Password must not be the e-mail address"
    else:
        return password
    raise InvalidInput(problem, code="weak_password")


def one_time_password_ended(user: User, now_ms: int) -> bool:
    """Whether the user's password is a one-time password that is too old to be used. `now_ms`: epoch milliseconds."""
    return user.must_change_password and now_ms >= user.password_set_at_ms + ONE_TIME_PASSWORD_S * 1000


def _repeats(text: str) -> bool:
    """Whether the text is one part again and again. A text is found inside its double only then."""
    return text in (text + text)[1:-1]


def normalise_email(email: str) -> str:
    """The address trimmed and in lower case. Raises `InvalidInput`."""
    normal = email.strip().lower()
    if len(normal) > 254 or not _EMAIL.match(normal):
        raise InvalidInput("E-mail must look like name@example.com", code="invalid_email")
    return normal
