"""Whether a shared secret is strong enough for production."""

from __future__ import annotations

import math
from collections import Counter

_WORDS = ("changeme", "default", "secret", "password", "tidegate")
_TEMPLATES = ("replace-with", "example", "local-only")
_MIN_LENGTH, _MIN_DIFFERENT, _MIN_BITS = 32, 6, 72


def weakness(secret: str) -> str | None:
    """Why the secret is weak; None when it is strong. The text holds nothing of the secret."""
    text = secret.strip()
    lowered = text.lower()
    if lowered in _WORDS:
        return "it is a well-known word"
    if len(text) < _MIN_LENGTH:
        return f"it is shorter than {_MIN_LENGTH} characters"
    if any(template in lowered for template in _TEMPLATES):
        return "it looks like a template"
    if len(set(text)) < _MIN_DIFFERENT:
        return f"it has fewer than {_MIN_DIFFERENT} different characters"
    if _bits(text) < _MIN_BITS:
        return f"its entropy is estimated below {_MIN_BITS} bits"
    return None


def _bits(text: str) -> float:
    """Shannon's entropy estimate: bits per character times length."""
    counts = Counter(text).values()
    return -sum(count * math.log2(count / len(text)) for count in counts)
