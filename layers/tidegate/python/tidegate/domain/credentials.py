"""Puts a credential where an upstream expects it: into a header, or into a query parameter."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from urllib.parse import quote

from tidegate.domain.profiles import CredentialProfile, CredentialType


def placed(
    url: str,
    headers: Mapping[str, str],
    credential: CredentialProfile,
    secret: Mapping[str, str],
    placement: str,
    parameter: object,
) -> tuple[str, dict[str, str]]:
    """The URL and headers with the secret in them. Both have to be treated as secrets from here on.

    Args:
        secret: the parts of the secret, as the credential's type names them.
        placement: `header`, or `query`, where `parameter` is the parameter's name. A basic credential always goes
            into a header. The URL loses its fragment when a parameter is added.
    """
    if credential.type is CredentialType.NONE:
        return url, dict(headers)
    if credential.type is CredentialType.BASIC:
        pair = base64.b64encode(f"{secret['username']}:{secret['password']}".encode()).decode()
        return url, _with(headers, "Authorization", f"Basic {pair}")
    value = secret["token"] if credential.type is CredentialType.BEARER else secret["headerValue"]
    if placement == "query":
        address, _, _ = url.partition("#")  # a fragment is sent to nobody, and would take the secret with it
        separator = "" if address.endswith(("?", "&")) else "&" if "?" in address else "?"
        return f"{address}{separator}{quote(str(parameter), safe='')}={quote(value, safe='')}", dict(headers)
    if credential.type is CredentialType.BEARER:
        return url, _with(headers, "Authorization", f"Bearer {value}")
    return url, _with(headers, str(credential.header_name), value)


def _with(headers: Mapping[str, str], name: str, value: str) -> dict[str, str]:
    """The headers with this one added. It replaces any header of the same name in upper or lower case."""
    return {other: text for other, text in headers.items() if other.lower() != name.lower()} | {name: value}
