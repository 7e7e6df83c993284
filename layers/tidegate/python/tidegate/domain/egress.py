"""Where upstreams may be: schemes, ports, hosts, and every address a host resolves to.

Invariant of this file: connections go only to URLs that were parsed here, and only to addresses that were checked here.

`ipaddress` parses strictly. Resolvers and browsers also accept octal and hexadecimal addresses, single numbers and
missing parts. Such texts are refused here, so no two programs can disagree about the address they mean.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import urlsplit

from tidegate.errors import PolicyBlocked

#: Schemes by protocol, each with its default port.
SCHEMES = {
    "sse": {"http": 80, "https": 443},
    "websocket": {"ws": 80, "wss": 443},
    "mqtt": {"mqtt": 1883, "mqtts": 8883},
}
SECURE = frozenset({"https", "wss", "mqtts"})

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_INTERNAL_SUFFIXES = (".localhost", ".local", ".internal", ".localdomain", ".home.arpa")

#: Special-purpose networks (IANA registries for IPv4 and IPv6, RFC 6890 and its successors) and multicast.
_BLOCKED = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/96",  # unspecified, loopback, and IPv4-compatible
        "100::/64",
        "2001::/23",
        "2001:db8::/32",
        "3fff::/20",
        "5f00::/16",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    )
)
#: Never admitted, even where private destinations are. They are not private networks. Some are the machine's own link,
#: where cloud metadata and a task's credentials are; the others are addresses that no single host has.
_NEVER = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",  # reaches loopback
        "169.254.0.0/16",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/128",  # reaches loopback
        "fd00:ec2::/32",  # metadata, credentials and DNS of EC2
        "fe80::/10",
        "ff00::/8",
    )
)
#: IPv6 networks whose addresses carry an IPv4 address, and the bit (of 128) at which it starts. The carried address is
#: what is checked. NAT64's local prefix does not define where the carried address is, so it is refused whole.
_CARRYING = (
    (ipaddress.IPv6Network("::ffff:0:0/96"), 96),
    (ipaddress.IPv6Network("::ffff:0:0:0/96"), 96),
    (ipaddress.IPv6Network("64:ff9b::/96"), 96),
    (ipaddress.IPv6Network("2002::/16"), 16),
)
_NAT64_LOCAL = ipaddress.IPv6Network("64:ff9b:1::/48")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class EgressPolicy(NamedTuple):
    """The operator's settings.

    Attributes:
        allowed_hosts: each is a name, an address, `*` or `*.suffix`. `*.suffix` matches the bare suffix too, and never
            an address. An empty list admits every host outside production.
        allowed_ports: port numbers.
        allow_private: admits internal names and private addresses, but never link-local addresses, where
            credentials are.
        production: `*` matches nothing, and an empty list of hosts admits nothing.
    """

    allowed_hosts: tuple[str, ...]
    allowed_ports: tuple[int, ...]
    allow_private: bool = False
    production: bool = True

    @property
    def admits_clear_secrets(self) -> bool:
        """Whether a credential may be sent without TLS: outside production, and where upstreams may be private."""
        return self.allow_private or not self.production


class Destination(NamedTuple):
    """A checked URL: where to connect to. `host` is a lower-case ASCII name or an address without brackets."""

    scheme: str
    host: str
    port: int

    @property
    def secure(self) -> bool:
        return self.scheme in SECURE


def check_url(url: str, protocol: str, policy: EgressPolicy) -> Destination:
    """Check everything about a URL that needs no resolver.

    Args:
        protocol: `sse`, `websocket` or `mqtt`.

    Raises:
        PolicyBlocked: a rule refuses it; the message says which.
    """
    destination = parse_url(url, protocol)
    if destination.port not in policy.allowed_ports:
        raise PolicyBlocked("Egress port is not allowed")
    _check_host(destination.host, policy)
    return destination


def parse_url(url: str, protocol: str) -> Destination:
    """Read where a URL leads to. Whether one may connect there is not asked.

    Args:
        protocol: `sse`, `websocket` or `mqtt`.

    Raises:
        PolicyBlocked: it cannot be read, or has another scheme, or holds credentials. The message never shows it.
    """
    if any(ord(char) <= 0x20 or ord(char) == 0x7F for char in url) or "\\" in url:
        raise PolicyBlocked("Egress URL holds spaces, control characters or backslashes")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise PolicyBlocked("Egress URL is invalid") from error
    schemes = SCHEMES[protocol]
    scheme = parts.scheme.lower()
    if scheme not in schemes:
        raise PolicyBlocked(f"Egress URL scheme is not allowed; allowed: {', '.join(schemes)}")
    if "@" in parts.netloc:
        raise PolicyBlocked("Egress URL must not hold credentials; use a credential profile")
    return Destination(scheme, _host(host, parts.netloc), schemes[scheme] if port is None else port)


def check_addresses(addresses: Iterable[str], policy: EgressPolicy) -> list[str]:
    """All addresses a host resolved to, if every one of them may be connected to.

    Raises:
        PolicyBlocked: there is none, or one of them may not be connected to, or is no address.
    """
    checked = []
    for text in addresses:
        address = parse_address(text)
        if address is None or not _admitted(address, policy):
            raise PolicyBlocked("Egress destination is not allowed")
        checked.append(str(address))
    if not checked:
        raise PolicyBlocked("Egress destination has no address")
    return checked


def parse_address(text: str) -> Address | None:
    """A literal address, parsed strictly; None when the text is not one.

    An address with a zone counts as none: a zone names a link of this machine.
    """
    try:
        return ipaddress.ip_address(text) if "%" not in text else None
    except ValueError:
        return None


def is_blocked(address: Address) -> bool:
    """Whether an address is private, link-local or reserved, or an IPv6 address that carries such an IPv4 address."""
    meant = _meant(address)
    return meant in _NAT64_LOCAL or any(meant in network for network in _BLOCKED)


def _admitted(address: Address, policy: EgressPolicy) -> bool:
    if not policy.allow_private:
        return not is_blocked(address)
    meant = _meant(address)
    return meant not in _NAT64_LOCAL and not any(meant in network for network in _NEVER)


def _meant(address: Address) -> Address:
    """The IPv4 address that an IPv6 address carries; any other address unchanged."""
    for network, at in _CARRYING:
        if address in network:
            return ipaddress.IPv4Address(int(address) >> (96 - at) & 0xFFFFFFFF)
    return address


def _host(host: str, netloc: str) -> str:
    """The host as a lower-case ASCII name or a literal address. Raises `PolicyBlocked`."""
    if "[" in netloc or "]" in netloc:
        address = parse_address(host)
        # After the brackets there may only be a port. Some versions of urlsplit silently drop anything else.
        if not isinstance(address, ipaddress.IPv6Address) or not re.fullmatch(r"\[[^\]]+\](:[0-9]*)?", netloc):
            raise PolicyBlocked("Egress host is not a valid address")
        return str(address)
    if parse_address(host) is not None:
        return host
    name = host.removesuffix(".").lower()
    labels = name.split(".")
    if not name.isascii() or len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise PolicyBlocked("Egress host is not a valid name; write international names in their ASCII form")
    if re.fullmatch(r"[0-9]+|0x[0-9a-f]*", labels[-1]):
        # No top-level domain is a number, so this is an address in a form that programs read differently.
        raise PolicyBlocked("Egress host is not a valid address")
    return name


def _check_host(host: str, policy: EgressPolicy) -> None:
    address = parse_address(host)
    if address is not None and not _admitted(address, policy):
        raise PolicyBlocked("Egress destination is not allowed")
    internal = "." not in host or host.endswith(_INTERNAL_SUFFIXES)
    if address is None and internal and not policy.allow_private:
        raise PolicyBlocked("Egress destination is not allowed")
    if not policy.allowed_hosts and not policy.production:
        return
    if not any(_matches(pattern, host, policy.production) for pattern in policy.allowed_hosts):
        raise PolicyBlocked("Egress host is not on the allowlist")


def _matches(pattern: str, host: str, production: bool) -> bool:
    pattern = pattern.lower()
    if pattern == "*":
        return not production
    address = parse_address(host)
    if address is not None:
        # An address has no suffix to match. IPv6 addresses have several spellings, with and without brackets.
        return address == parse_address(pattern.removeprefix("[").removesuffix("]"))
    if pattern.startswith("*."):
        return host == pattern[2:] or host.endswith(pattern[1:])
    return host == pattern
