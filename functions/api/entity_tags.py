"""Entity tags of dashboards: which answer a caller has.

A tag is strong. It is made of all that the caller is shown, and not of the revision alone: editors and viewers are
shown different documents, and visibility, rights and share tokens change without a new revision.
"""

from __future__ import annotations

import re
from hashlib import sha256

from functions.api.models import DashboardAnswer

_TAG = re.compile(r'(?:W/)?("[^"]*")')


def entity_tag(answer: DashboardAnswer) -> str:
    """The revision, so that `If-Match` can be the tag as it came, and 128 bits of the SHA-256 of the answer."""
    digest = sha256(answer.model_dump_json(by_alias=True).encode()).hexdigest()[:32]
    return f'"{answer.revision}-{digest}"'


def matches(if_none_match: str | None, tag: str) -> bool:
    """Whether one of the tags in `If-None-Match` is this one, or the header is `*`.

    The comparison is weak, as RFC 9110 wants it here: a proxy that compresses makes a tag weak.
    """
    if if_none_match is None:
        return False
    return if_none_match.strip() == "*" or tag in _TAG.findall(if_none_match)
