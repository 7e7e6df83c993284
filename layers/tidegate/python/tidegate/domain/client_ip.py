"""Which address a request came from, by counting trusted proxies from the right of `X-Forwarded-For`.

Every trusted proxy appends the address it saw. With N trusted proxies, the N-th entry from the right is the client as
the outermost of them saw it. What a client writes into the header itself ends up further left and is never read.
So a proxy that appends is as safe as one that overwrites the header.

Invariant of this file: nothing is guessed. If one of the N entries is not an address, the chain is not what the setting
says. Then the platform's own `sourceIp` is used, and a warning is returned.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

#: The header that the edge adds to prove that a request came through it. Its value is a secret.
ORIGIN_HEADER = "x-tidegate-origin"
#: Stands for an address that could not be found out. All such clients share one limit.
UNKNOWN = "unknown-ip"

_WITH_PORT = re.compile(r"^(\d{1,3}(?:\.\d{1,3}){3}):\d+$")


@dataclass(frozen=True, slots=True)
class ClientIp:
    """An address and, when the header could not be used, why."""

    address: str
    warning: str | None = None


def normalise(text: str) -> str | None:
    """The canonical form of an address as proxies write it: with quotes, brackets, port, zone, or as mapped IPv4.

    None when the text is no address.
    """
    address = text.strip().strip('"')
    if address.startswith("[") and "]" in address:
        address = address[1 : address.index("]")]
    if match := _WITH_PORT.match(address):
        address = match.group(1)
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return str(parsed)


def client_ip(source_ip: str | None, forwarded: Sequence[str], hops: int) -> ClientIp:
    """Derive the client's address.

    Args:
        source_ip: the address the platform saw; None when it does not say.
        forwarded: all values of `X-Forwarded-For`, in order; each may hold several entries.
        hops: how many proxies in front of us are trusted to append to the header; 0 ignores the header.
    """
    fallback = (normalise(source_ip) if source_ip else None) or UNKNOWN
    if hops <= 0:
        return ClientIp(fallback)
    entries = ",".join(forwarded).split(",") if forwarded else []
    if not "".join(entries).strip():
        return ClientIp(fallback, "X-Forwarded-For is missing/invalid")
    if len(entries) < hops:
        return ClientIp(fallback, "X-Forwarded-For has fewer entries than configured trust proxy hops")
    trusted = [normalise(entry) for entry in entries[-hops:]]
    if None in trusted[1:]:
        return ClientIp(fallback, "X-Forwarded-For contains invalid X-Forwarded-For entries")
    if trusted[0] is None:
        return ClientIp(fallback, "Unable to derive trusted client IP")
    return ClientIp(trusted[0])


def ip_key(address: str) -> str:
    """The unit that every limit counts: an IPv4 address, or the /64 network of an IPv6 address.

    One IPv6 customer usually has a whole /64 (RFC 6177), so counting single addresses would limit nobody. The address
    may have any form that `normalise` knows. A text that is no address stays as it is.
    """
    found = normalise(address)
    if found is None:
        return address
    if ":" not in found:
        return found
    return str(ipaddress.ip_network(f"{found}/64", strict=False))
