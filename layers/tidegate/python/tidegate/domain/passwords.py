"""What a password and an e-mail address must look like."""

from __future__ import annotations

import re

from tidegate.errors import InvalidInput

#: Argon2 hashes any length; a bound keeps a request from costing more than it should.
MAX_LENGTH = 256
_EMAIL = re.compile(r"^[^@\s]{1,64}@[^@\s.]+(\.[^@\s.]+)+$")


def check_password(password: str) -> str:
    """Return it, or raise `InvalidInput`: 12 characters or more, upper, lower, digit and symbol."""
    classes = (str.isupper, str.islower, str.isdigit, lambda one: not one.isalnum())
    if not 12 <= len(password) <= MAX_LENGTH or not all(any(map(is_one, password)) for is_one in classes):
        raise InvalidInput(
            "Password must be 12 to 256 characters and include uppercase, lowercase, number, and symbol",
            code="weak_password",
        )
    return password


def normalise_email(email: str) -> str:
    """Trimmed, lower case. Raises `InvalidInput`."""
    normal = email.strip().lower()
    if len(normal) > 254 or not _EMAIL.match(normal):
        raise InvalidInput("E-mail must look like name@example.com", code="invalid_email")
    return normal
