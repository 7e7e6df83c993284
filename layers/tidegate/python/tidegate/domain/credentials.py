"""Puts a credential where an upstream expects it: into a header, or into a query parameter.

Invariant of this file: `Placement.sent` puts a secret into no request to a URL that its destinations do not cover.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, unquote_plus

from tidegate.domain.destinations import covers
from tidegate.domain.headers import check_basic_user
from tidegate.domain.profiles import CredentialProfile, CredentialType
from tidegate.errors import PolicyBlocked


@dataclass(frozen=True, slots=True)
class Placement:
    """A credential that is ready to be sent. Never logged, never stored.

    Attributes:
        destinations: where it may be sent, in canonical form.
        header: name and value; None when it goes into the query.
        parameter: name and value; None when it goes into a header.
        secrets: the texts that would give it away.
    """

    destinations: tuple[str, ...]
    header: tuple[str, str] | None = field(default=None, repr=False)
    parameter: tuple[str, str] | None = field(default=None, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def onto(self, url: str, headers: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        """The URL and headers with the secret in them, wherever they lead to.

        A header or a parameter of the same name is replaced. The URL loses its fragment when a parameter is added.
        """
        if self.header is not None:
            name, value = self.header
            return url, {other: text for other, text in headers.items() if other.lower() != name.lower()} | {
                name: value
            }
        if self.parameter is None:
            return url, dict(headers)
        name, value = self.parameter
        address, _, _ = url.partition("#")  # a fragment is sent to nobody, and would take the secret with it
        address = _without(address, name)
        separator = "" if address.endswith(("?", "&")) else "&" if "?" in address else "?"
        return f"{address}{separator}{quote(name, safe='')}={quote(value, safe='')}", dict(headers)

    def sent(self, url: str, headers: Mapping[str, str], protocol: str) -> tuple[str, dict[str, str]]:
        """The URL and headers to send: with the secret where a destination covers the URL, otherwise without.

        A source may have put the secret into the URL that it redirects to. Elsewhere the parameter is dropped.

        Args:
            protocol: `sse` or `websocket`.

        Raises:
            PolicyBlocked: the URL contains the secret in another way, and no destination covers it.
        """
        if covers(self.destinations, url, protocol):
            return self.onto(url, headers)
        if self.parameter is not None:
            address, _, _ = url.partition("#")
            url = _without(address, self.parameter[0])
        readings = (url, unquote(url), unquote_plus(url))
        if any(secret and secret in reading for secret in self.secrets for reading in readings):
            raise PolicyBlocked("The source redirects a credential to where its profile does not allow it")
        return url, dict(headers)


def placement_of(
    credential: CredentialProfile, secret: Mapping[str, str], placement: str, parameter: object
) -> Placement | None:
    """How a credential is sent over HTTP; None when there is nothing to send.

    Args:
        secret: the parts of the secret, as the credential's type names them.
        placement: `header`, or `query`, where `parameter` is the parameter's name. A basic credential always goes into
            a header.

    Raises:
        InvalidInput: a basic user name has a colon.
    """
    to = credential.destinations
    if credential.type is CredentialType.NONE:
        return None
    if credential.type is CredentialType.BASIC:
        username, password = check_basic_user(secret["username"]), secret["password"]
        pair = base64.b64encode(f"{username}:{password}".encode()).decode()
        return Placement(to, header=("Authorization", f"Basic {pair}"), secrets=(password, pair))
    value = secret["token"] if credential.type is CredentialType.BEARER else secret["headerValue"]
    if placement == "query":
        return Placement(to, parameter=(str(parameter), value), secrets=(value,))
    if credential.type is CredentialType.BEARER:
        return Placement(to, header=("Authorization", f"Bearer {value}"), secrets=(value,))
    return Placement(to, header=(str(credential.header_name), value), secrets=(value,))


def _without(address: str, name: str) -> str:
    """The URL without the query parameters of that name. The rest stays as it was written."""
    path, mark, query = address.partition("?")
    parts = query.split("&")
    kept = [part for part in parts if not part or unquote_plus(part.partition("=")[0]) != name]
    return address if len(kept) == len(parts) else path + (mark if kept else "") + "&".join(kept)
