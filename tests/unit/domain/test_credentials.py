"""A credential goes to the server, in a header or in the query, and nowhere else."""

from __future__ import annotations

import pytest

from tidegate.domain.credentials import placed
from tidegate.domain.profiles import CredentialProfile, CredentialType

BEARER = CredentialProfile("c", "c", CredentialType.BEARER)


@pytest.mark.parametrize(
    ("url", "right"),
    [
        ("https://h/x", "https://h/x?k=a%26b"),
        ("https://h/x?a=1", "https://h/x?a=1&k=a%26b"),
        ("https://h/x#frag", "https://h/x?k=a%26b"),
        ("https://h/x?a=1#frag?b", "https://h/x?a=1&k=a%26b"),
        ("https://h/x#?b", "https://h/x?k=a%26b"),
        ("https://h/x?", "https://h/x?k=a%26b"),
        ("https://h/x?a=1&", "https://h/x?a=1&k=a%26b"),
    ],
)
def test_a_query_credential_is_in_the_query(url: str, right: str) -> None:
    assert placed(url, {}, BEARER, {"token": "a&b"}, "query", "k") == (right, {})
