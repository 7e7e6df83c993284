"""MQTT topics and topic filters: what is well formed, what matches, and which filter covers which.

The rules are those of MQTT 3.1.1, section 4.7. Levels are separated by `/`. `+` stands for one level. `#` stands for
all further levels, also none, and comes last. Both stand alone in their level. A wildcard in the first level does not
match a topic that starts with `$`. Matching is case-sensitive.

Invariant of this file: if `covers(pattern, requested)` is true, `pattern` matches every topic that `requested` matches.
Allowlists are decided with it, so it may be too strict but never too generous.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from tidegate.errors import InvalidInput


class TopicLimits(NamedTuple):
    """How long a topic or filter may be: bytes of UTF-8, and slashes; None is any number."""

    max_bytes: int
    max_slashes: int | None = None


#: Of AWS IoT Core, and of MQTT itself, which brokers of one's own have.
IOT_CORE, MQTT = TopicLimits(256, 7), TopicLimits(65_535)
#: First levels that make a filter a shared subscription. `$queue` is an older spelling of some brokers.
_SHARED = ("$share", "$queue")


def check_filter(text: str, limits: TopicLimits) -> str:
    """Return the filter unchanged when it is well formed and within the limits.

    A shared subscription is refused. Its broker gives each message to one of many clients, and during a hand-over two
    workers are connected: what the one that does not deliver is given would be lost.

    Raises:
        InvalidInput: it is not; the message says why.
    """
    if not text:
        raise InvalidInput("A topic filter must not be empty")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise InvalidInput("A topic filter must be Unicode text without lone surrogates") from None
    if size > limits.max_bytes:
        raise InvalidInput(f"Topic filter is longer than {limits.max_bytes} bytes")
    if limits.max_slashes is not None and text.count("/") > limits.max_slashes:
        raise InvalidInput(f"Topic filter '{text}' has more than {limits.max_slashes} slashes")
    if any(ord(character) < 32 or character == "\x7f" for character in text):
        raise InvalidInput("A topic filter must not contain control characters")
    levels = text.split("/")
    if levels[0] in _SHARED:
        raise InvalidInput(f"Topic filter '{text}': shared subscriptions ({levels[0]}) are not supported")
    _check_wildcards(text, levels)
    return text


def _check_wildcards(text: str, levels: list[str]) -> None:
    for index, level in enumerate(levels):
        if "#" in level and (level != "#" or index != len(levels) - 1):
            raise InvalidInput(f"Topic filter '{text}': '#' must stand alone in the last level")
        if "+" in level and level != "+":
            raise InvalidInput(f"Topic filter '{text}': '+' must stand alone in its level")


def has_wildcard(topic_filter: str) -> bool:
    """Whether a well-formed filter may match several topics."""
    return topic_filter.endswith("#") or "+" in topic_filter.split("/")


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a published topic (no wildcards) is matched by a well-formed filter."""
    return covers(topic_filter, topic)  # a topic is a filter that matches only itself


def covers(pattern: str, requested: str) -> bool:
    """Whether `pattern` matches every topic that the well-formed filter `requested` matches."""
    allowed, levels = pattern.split("/"), requested.split("/")
    if requested.startswith("$") and allowed[0] in ("+", "#"):
        return False
    for index, level in enumerate(allowed):
        if level == "#":
            return True
        if index >= len(levels) or levels[index] == "#":
            return False
        if level not in ("+", levels[index]):
            return False
    return len(allowed) == len(levels)


def first_covering(patterns: Iterable[str], requested: str) -> str | None:
    """The first pattern that covers the requested filter; None when none does.

    A filter in use belongs to the first allowed topic that covers it. So allowed topics that overlap never deliver a
    message twice.
    """
    return next((pattern for pattern in patterns if covers(pattern, requested)), None)
