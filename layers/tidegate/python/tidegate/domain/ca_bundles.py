"""Certificates of further authorities, as a broker profile has them: PEM text with one certificate or more.

Invariant of this file: what `check_ca` accepts, a TLS context loads whole.
"""

from __future__ import annotations

import re
import ssl

from tidegate.errors import InvalidInput

_BEGIN = re.compile(r"-----BEGIN ([^-\n]*)-----")
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----")


def check_ca(text: str) -> str:
    """Return the bundle unchanged. Text between certificates is allowed, as bundles have comments there.

    Raises:
        InvalidInput: it has no certificate, one that cannot be read, something else in PEM, such as a private key, or
            characters outside ASCII. The message says which, and never shows the text.
    """
    if not text.isascii():
        raise InvalidInput("tls.ca must be ASCII text; allowed: certificates as PEM")
    kinds = _BEGIN.findall(text)
    if not kinds:
        raise InvalidInput("tls.ca contains no certificate; allowed: certificates as PEM")
    if other := set(kinds) - {"CERTIFICATE"}:
        raise InvalidInput(f"tls.ca contains {min(other)}; allowed: certificates as PEM")
    certificates = _CERTIFICATE.findall(text)
    if len(certificates) != len(kinds):
        raise InvalidInput("tls.ca contains a certificate without its end")
    for number, certificate in enumerate(certificates, 1):
        try:
            _context().load_verify_locations(cadata=certificate)
        except (ssl.SSLError, ValueError) as error:
            raise InvalidInput(f"Certificate {number} in tls.ca cannot be read") from error
    try:
        _context().load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError) as error:
        raise InvalidInput("tls.ca cannot be read; allowed: certificates as PEM") from error
    return text


def _context() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
