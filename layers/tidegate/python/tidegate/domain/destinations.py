"""Where a credential may be sent: the destinations of its profile.

A destination is a scheme, a host or `*.suffix`, and a port. `*.suffix` covers the bare suffix too, as it does in the
egress policy. The canonical form states the port: `https://api.example.com:443`, `wss://*.example.com:443`.

Invariant of this file: a URL is read by the parser that reads it before a connect. So what is compared with the
destinations is what would be connected to.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from tidegate.domain.egress import SECURE, Destination, EgressPolicy, check_url, parse_address, parse_url
from tidegate.domain.profiles import CredentialProfile, CredentialType
from tidegate.errors import InvalidInput, PolicyBlocked

#: Most destinations of a profile, and most characters of one.
MAX_DESTINATIONS, MAX_LENGTH = 50, 300
#: How many destinations a message names.
_SHOWN = 5

_PROTOCOLS = {"https": "sse", "http": "sse", "wss": "websocket", "ws": "websocket"}
_FORM = re.compile(r"(?P<scheme>[A-Za-z]+)://(?P<wild>\*\.)?(?P<place>[^/?#\\*]+)")


def check_destinations(texts: Sequence[str], policy: EgressPolicy) -> tuple[str, ...]:
    """Return the destinations in their canonical form, each once, in the order given.

    Raises:
        InvalidInput: one is not a destination, or sends a secret in clear where the policy does not admit that. The
            message names its position and what is allowed. It never repeats the text, which may hold a password.
    """
    if len(texts) > MAX_DESTINATIONS:
        raise InvalidInput(f"destinations: at most {MAX_DESTINATIONS}")
    return tuple(dict.fromkeys(_checked(text, f"destinations[{at}]", policy) for at, text in enumerate(texts)))


def check_broker_url(url: str, policy: EgressPolicy) -> str:
    """Return the URL of a broker unchanged, if the relay may connect to it.

    What its name resolves to is asked at every connect, not here.

    Raises:
        InvalidInput: the egress policy refuses it. The message names the rule, and the setting that has it.
    """
    try:
        port = parse_url(url, "mqtt").port
        if port not in policy.allowed_ports:
            allowed = ", ".join(map(str, policy.allowed_ports))
            raise InvalidInput(f"brokerUrl: port {port} is not allowed; EGRESS_ALLOWED_PORTS has {allowed}")
        check_url(url, "mqtt", policy)
    except PolicyBlocked as error:
        settings = "EGRESS_ALLOWED_HOSTS and EGRESS_ALLOW_PRIVATE_DESTINATIONS"
        raise InvalidInput(f"brokerUrl: {error.message}; {settings} say what is") from error
    return url


def covers(destinations: Iterable[str], url: str, protocol: str) -> bool:
    """Whether one of the destinations, in canonical form, covers the URL. False for a URL that cannot be read.

    Args:
        protocol: `sse` or `websocket`.
    """
    try:
        asked = parse_url(url, protocol)
    except PolicyBlocked:
        return False
    return not _coverings(asked).isdisjoint(destinations)


def serves(credential: CredentialProfile, url: str, protocol: str) -> bool:
    """Whether the profile allows its credential to go to the URL. One that sends nothing serves every URL."""
    return credential.type is CredentialType.NONE or covers(credential.destinations, url, protocol)


def refusal(credential: CredentialProfile, url: str, protocol: str) -> str:
    """Why the profile does not serve the URL, for who writes the datasource. It shows no more of the URL than where it
    leads to.

    Raises:
        PolicyBlocked: the URL cannot be read.
    """
    name, to = f"Credential profile '{credential.name}'", _canonical(parse_url(url, protocol))
    if not credential.destinations:
        return f"{name} has no destinations, so it serves no URL; an admin may add {to}"
    further = len(credential.destinations) - _SHOWN
    shown = ", ".join(credential.destinations[:_SHOWN]) + (f" and {further} more" if further > 0 else "")
    return f"{name} is not for {to}; allowed: {shown}"


def _checked(text: str, where: str, policy: EgressPolicy) -> str:
    schemes = [scheme for scheme in _PROTOCOLS if scheme in SECURE or policy.admits_clear_secrets]
    allowed = (
        f"a scheme ({', '.join(schemes)}), a host or *.suffix, and a port if it is not the scheme's own, "
        "such as https://api.example.com or wss://*.example.com:8443; no path, no user"
    )
    found = _FORM.fullmatch(text.strip().removesuffix("/")) if len(text) <= MAX_LENGTH else None
    if found is None or found["scheme"].lower() not in schemes:
        raise InvalidInput(f"{where}: allowed: {allowed}")
    scheme = found["scheme"].lower()
    try:
        destination = parse_url(f"{scheme}://{found['place']}", _PROTOCOLS[scheme])
    except PolicyBlocked as error:
        raise InvalidInput(f"{where}: {error.message}; allowed: {allowed}") from error
    if not 1 <= destination.port <= 65535:
        raise InvalidInput(f"{where}: ports are from 1 to 65535")
    if not found["wild"]:
        return _canonical(destination)
    if parse_address(destination.host) is not None or "." not in destination.host:
        raise InvalidInput(f"{where}: after *. comes a name of two labels or more, such as *.example.com")
    return _canonical(destination, "*.")


def _coverings(asked: Destination) -> set[str]:
    """Every destination that would cover this one, in canonical form."""
    found = {_canonical(asked)}
    if parse_address(asked.host) is None:
        labels = asked.host.split(".")
        for at in range(len(labels)):
            suffix = Destination(asked.scheme, ".".join(labels[at:]), asked.port)
            found.add(_canonical(suffix, "*."))
    return found


def _canonical(destination: Destination, wild: str = "") -> str:
    host = f"[{destination.host}]" if ":" in destination.host else destination.host
    return f"{destination.scheme}://{wild}{host}:{destination.port}"
