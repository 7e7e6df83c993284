"""What a password and an e-mail address must look like."""

from __future__ import annotations

import re

from tidegate.errors import InvalidInput

#: Argon2 hashes texts of any length. The bound keeps one request from costing too much.
MAX_LENGTH = 256
_EMAIL = re.compile(r"^[^@\s]{1,64}@[^@\s.]+(\.[^@\s.]+)+$")


def check_password(password: str) -> str:
    """Return the password. Raises `InvalidInput` unless it has 12 to 256 characters with upper and lower case, a digit
    and a symbol."""
    classes = (str.isupper, str.islower, str.isdigit, lambda character: not character.isalnum())
    if not 12 <= len(password) <= MAX_LENGTH or not all(any(map(belongs, password)) for belongs in classes):
        raise InvalidInput(
            "Password must be 12 to 256 characters and include uppercase, lowercase, number, and symbol",
            code="weak_password",
        )
    return password


def normalise_email(email: str) -> str:
    """The address trimmed and in lower case. Raises `InvalidInput`."""
    normal = email.strip().lower()
    if len(normal) > 254 or not _EMAIL.match(normal):
        raise InvalidInput("E-mail must look like name@example.com", code="invalid_email")
    return normal
