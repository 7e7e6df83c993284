"""Parsers that make a value of the text of an environment variable.

Each raises a `ValueError` whose text says what is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_address
from urllib.parse import urlsplit

from tidegate.domain.limits import FailureMode
from tidegate.errors import InvalidInput
from tidegate.protocol.topics import MQTT, check_filter


def printable(text: str) -> str:
    """The text itself, when it has neither control characters nor lone surrogates. No process can be given these."""
    if not text.isprintable():
        raise ValueError("allowed: characters that can be printed")
    return text


def as_text(value: object) -> str:
    """A value as people write it: the text that it is parsed from, and `empty` for none."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "empty"
    return str(value) or "empty"


def boolean(text: str) -> bool:
    lowered = text.strip().lower()
    if lowered in ("1", "true", "yes", "on"):
        return True
    if lowered in ("0", "false", "no", "off"):
        return False
    raise ValueError("allowed: true, false (also 1, yes, on, 0, no, off)")


def integer(low: int, high: int, why: str = "") -> Callable[[str], int]:
    """`why` is added to the refusal, for a bound that does not explain itself."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,18}", text.strip()) or not low <= int(text) <= high:
            raise ValueError(f"allowed: a whole number from {low} to {high}" + (f", {why}" if why else ""))
        return int(text)

    return parse


def csv(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def names(*allowed: str) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        given = csv(text)
        if set(given) - set(allowed):
            raise ValueError(f"allowed: names separated by commas, of {', '.join(allowed)}")
        return given

    return parse


def topics(text: str) -> tuple[str, ...]:
    try:
        return tuple(check_filter(entry, MQTT) for entry in csv(text))
    except InvalidInput as error:
        raise ValueError(f"allowed: MQTT topic filters separated by commas; {error.message}") from error


def origins(text: str) -> tuple[str, ...]:
    given = csv(text.lower())
    for origin in given:
        if not re.fullmatch(r"https?://[a-z0-9.\-\[\]:]+", origin):
            raise ValueError("allowed: origins like https://dash.example.com, separated by commas, without a path")
        if re.fullmatch(r"https://.*:443|http://.*:80", origin):
            raise ValueError("allowed: origins as browsers send them, without the port that the scheme stands for")
    return given


def frame_origins(text: str) -> tuple[str, ...]:
    given = csv(text.lower())
    for origin in given:
        if not re.fullmatch(r"https?://(\*\.)?[a-z0-9][a-z0-9.\-]*(:[0-9]{1,5})?", origin):
            raise ValueError("allowed: origins like https://intranet.example.com or https://*.example.com, with commas")
    return given


def hosts(text: str) -> tuple[str, ...]:
    given = csv(text.lower())
    for host in given:
        if not re.fullmatch(r"\*|(\*\.)?[a-z0-9]([a-z0-9.\-]*[a-z0-9])?|\[?[0-9a-f:]+\]?", host):
            raise ValueError("allowed: host names, *.suffix or *, separated by commas")
    return given


def ports(text: str) -> tuple[int, ...]:
    parse = integer(1, 65535)
    try:
        return tuple(parse(part) for part in csv(text))
    except ValueError as error:
        raise ValueError("allowed: ports from 1 to 65535, separated by commas") from error


def choice(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.strip().lower() not in allowed:
            raise ValueError(f"allowed: {', '.join(allowed)}")
        return text.strip().lower()

    return parse


def failure_mode(text: str) -> FailureMode:
    return FailureMode(choice(*(mode.value for mode in FailureMode))(text))


def matching(pattern: str, allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if not re.fullmatch(pattern, text.strip()):
            raise ValueError(f"allowed: {allowed}")
        return text.strip()

    return parse


def base_url(text: str) -> str:
    allowed = "allowed: an http:// or https:// URL with a host, without user, query or fragment"
    if not re.fullmatch(r"https?://[^\s?#@]+", text.strip()):
        raise ValueError(allowed)
    try:
        parts = urlsplit(text.strip())
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        raise ValueError(allowed) from error
    if not usable:
        raise ValueError(allowed)
    return text.strip().rstrip("/")


def keeps_secrets(url: str) -> bool:
    """Whether nobody else can read what is sent to the URL: it goes over TLS, or stays within this host."""
    parts = urlsplit(url)
    if parts.scheme == "https" or parts.hostname == "localhost":
        return True
    try:
        return ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False
