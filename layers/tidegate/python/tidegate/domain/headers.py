"""Header names and values, as RFC 9110 allows them.

A name that is no token, such as `Host: a`, would put a second header line on the wire. So would a line break
in a value.

Invariant of this file: a checked name and a checked value make exactly one header line.
"""

from __future__ import annotations

import re

from tidegate.errors import InvalidInput

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: Everything but control characters, a tab excepted, and lone surrogates, which have no bytes.
_NO_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def is_token(text: str) -> bool:
    """Whether the text is a token: letters, digits and ``!#$%&'*+-.^_`|~``, at least one (RFC 9110, 5.6.2)."""
    return _TOKEN.fullmatch(text) is not None


def check_name(name: str, what: str) -> str:
    """Return the name of a header unchanged.

    Args:
        what: what the caller calls it, for the message.

    Raises:
        InvalidInput: it is no token.
    """
    if not is_token(name):
        raise InvalidInput(f"{what} {name!a} is not a header name; allowed: letters, digits and !#$%&'*+-.^_`|~")
    return name


def check_value(value: str, what: str) -> str:
    """Return the value of a header unchanged. The message never shows it, because it may be a secret.

    Args:
        what: what the caller calls it, for the message.

    Raises:
        InvalidInput: it has a control character, or begins or ends with a space or a tab (RFC 9110, 5.5).
    """
    if _NO_VALUE.search(value):
        raise InvalidInput(f"{what} must not contain line breaks or other control characters")
    if value != value.strip(" \t"):
        raise InvalidInput(f"{what} must not begin or end with a space or a tab")
    return value


def check_pair(name: str, value: str) -> tuple[str, str]:
    """Return a header's name and value unchanged. The message shows neither.

    Raises:
        InvalidInput: one of them cannot be sent.
    """
    if not is_token(name):
        raise InvalidInput("a header has a name that is not a token")
    return name, check_value(value, "the value of a header")


def check_basic_user(username: str) -> str:
    """Return a user name for HTTP's basic authentication unchanged.

    MQTT sends user name and password apart, so a user name for brokers may have a colon.

    Raises:
        InvalidInput: it has a colon, where a server would cut it (RFC 7617, 2).
    """
    if ":" in username:
        raise InvalidInput("secret.username must not contain a colon, because HTTP would end it there")
    return username


def check_basic(username: str, password: str) -> None:
    """Check a user name and a password, for HTTP or for a broker.

    Raises:
        InvalidInput: either one has a control character.
    """
    for name, text in (("username", username), ("password", password)):
        if _CONTROL.search(text):
            raise InvalidInput(f"secret.{name} must not contain line breaks or other control characters")
