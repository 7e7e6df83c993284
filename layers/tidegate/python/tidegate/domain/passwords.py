"""What a password must look like."""

from __future__ import annotations

from tidegate.errors import InvalidInput

#: Argon2 hashes texts of any length. The bound keeps one request from costing too much.
MAX_LENGTH = 256


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
