"""One spelling for each e-mail address, so that one address is one account.

Invariant of this file: what `normalise_email` returns is plain ASCII in lower case, and normalising it again gives the
same. So two addresses that look alike are either equal, or visibly different.
"""

from __future__ import annotations

import re
import unicodedata

from tidegate.errors import InvalidInput

#: RFC 5321: characters of an address, and of the part before the at sign.
MAX_EMAIL, _MAX_LOCAL = 254, 64
_LOCAL = re.compile(r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[a-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def normalise_email(email: str) -> str:
    """The address as accounts and limits know it.

    Compatibility forms are folded (NFKC), spaces around are dropped, and letters become small. The part before the at
    sign is ASCII. A domain in another script becomes its `xn--` form, so a letter that only looks Latin is seen.

    Raises:
        InvalidInput: it is not an address, or has an invisible or other letter where none may be.
    """
    text = unicodedata.normalize("NFKC", email[: 2 * MAX_EMAIL].strip())
    if len(email) > 2 * MAX_EMAIL or len(text) > MAX_EMAIL:
        raise _invalid("E-mail has at most 254 characters")
    if any(unicodedata.category(character)[0] in "CZ" for character in text):
        raise _invalid("E-mail has no spaces, and no control or invisible characters")
    local, at, domain = text.rpartition("@")
    if not local.isascii():
        raise _invalid("E-mail has letters a to z without accents, digits and signs before the @")
    local, domain = local.lower(), ".".join(_label(label) for label in domain.lower().split("."))
    if not at or len(local) > _MAX_LOCAL or not _LOCAL.fullmatch(local) or "." not in domain:
        raise _invalid("E-mail must look like name@example.com")
    normal = f"{local}@{domain}"
    if len(normal) > MAX_EMAIL:
        raise _invalid("E-mail has at most 254 characters")
    return normal


def address_or_nobody(email: str) -> str:
    """The address as `normalise_email` gives it; an empty text, which nobody has, when it is none. For logins, which
    tell nobody whether an address could be one. All that are none share a limit."""
    try:
        return normalise_email(email)
    except InvalidInput:
        return ""


def _label(label: str) -> str:
    """A label of a domain in ASCII. Raises `InvalidInput`, also when other text would give the same label."""
    try:
        plain = label.encode("idna").decode("ascii") if not label.isascii() else label
        shown = plain.encode("ascii").decode("idna")
        if not _LABEL.fullmatch(plain) or (not label.isascii() and shown != label):
            raise ValueError
        if plain.startswith("xn--") and shown.encode("idna").decode("ascii") != plain:
            raise ValueError
    except (UnicodeError, ValueError):
        raise _invalid("The domain of the e-mail must look like example.com, or have its xn-- form") from None
    return plain


def _invalid(message: str) -> InvalidInput:
    return InvalidInput(message, code="invalid_email")
