"""Identifiers, as callers send them.

Invariant of this file: what `is_identifier` accepts is short enough to be a key of every table, and may be put into
any answer.
"""

from __future__ import annotations

#: Most characters of an identifier. A sort key of DynamoDB has at most 1,024 bytes, and a character at most four.
MAX_IDENTIFIER = 200


def is_identifier(text: str) -> bool:
    """Whether the text may name something: 1 to `MAX_IDENTIFIER` characters, not only spaces, no lone surrogates."""
    return 1 <= len(text) <= MAX_IDENTIFIER and not text.isspace() and not any("\ud800" <= c <= "\udfff" for c in text)
