"""MQTT topics and topic filters: what is well formed, what matches, and which filter covers which.

The rules are those of MQTT 3.1.1, section 4.7. Levels are separated by `/`. `+` stands for one level. `#` stands for
all further levels, also none, and comes last. Both stand alone in their level. A wildcard in the first level does not
match a topic that starts with `$`. Matching is case-sensitive.

Invariant of this file: if `covers(pattern, requested)` is true, `pattern` matches every topic that `requested` matches.
Allowlists are decided with it, so it may be too strict but never too generous.
"""

from __future__ import annotations

from collections.abc import Iterable

from tidegate.errors import InvalidInput

#: AWS IoT Core: at most 256 bytes of UTF-8 and 7 slashes in a topic or filter.
MAX_BYTES = 256
MAX_SLASHES = 7


def check_filter(text: str) -> str:
    """Return the filter unchanged when it is well formed and within AWS IoT Core's limits.

    Raises:
        InvalidInput: it is not; the message says why.
    """
    if not text:
        raise InvalidInput("A topic filter must not be empty")
    if len(text.encode()) > MAX_BYTES:
        raise InvalidInput(f"Topic filter is longer than {MAX_BYTES} bytes")
    if text.count("/") > MAX_SLASHES:
        raise InvalidInput(f"Topic filter '{text}' has more than {MAX_SLASHES} slashes")
    if any(ord(character) < 32 or character == "\x7f" for character in text):
        raise InvalidInput("A topic filter must not contain control characters")
    levels = text.split("/")
    for index, level in enumerate(levels):
        if "#" in level and (level != "#" or index != len(levels) - 1):
            raise InvalidInput(f"Topic filter '{text}': '#' must stand alone in the last level")
        if "+" in level and level != "+":
            raise InvalidInput(f"Topic filter '{text}': '+' must stand alone in its level")
    return text


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
