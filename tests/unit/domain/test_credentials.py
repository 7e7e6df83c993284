"""A credential goes to its destinations, in a header or in the query, and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tidegate.domain.credentials import Placement, placement_of
from tidegate.domain.profiles import CredentialProfile, CredentialType
from tidegate.errors import InvalidInput, PolicyBlocked

HOME = ("https://h:443",)
SECRETS = {
    CredentialType.BEARER: {"token": "a&b"},
    CredentialType.BASIC: {"username": "user", "password": "a&b"},
    CredentialType.HEADER: {"headerValue": "a&b"},
}


def placement(
    kind: CredentialType = CredentialType.BEARER, how: str = "header", secret: Mapping[str, str] | None = None
) -> Placement:
    profile = CredentialProfile("c", "c", kind, HOME, header_name="X-Key")
    made = placement_of(profile, secret or SECRETS[kind], how, "k")
    assert made is not None
    return made


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
        ("https://h/x?k=old&a=%20", "https://h/x?a=%20&k=a%26b"),
        ("https://h/x?%6b=old", "https://h/x?k=a%26b"),
    ],
)
def test_a_query_credential_is_in_the_query(url: str, right: str) -> None:
    assert placement(how="query").sent(url, {}, "sse") == (right, {})


@pytest.mark.parametrize("kind", SECRETS)
@pytest.mark.parametrize("how", ["header", "query"])
def test_elsewhere_it_is_not_sent(kind: CredentialType, how: str) -> None:
    made = placement(kind, how)
    assert made.sent("https://h/x", {}, "sse") != ("https://h/x", {})
    for url in ("http://h/x", "https://h:8443/x", "https://h.evil.net/x", "https://xn--h.net/x"):
        assert made.sent(url, {"Accept": "a"}, "sse") == (url, {"Accept": "a"})
    assert "a&b" not in repr(made) and "YWJ" not in repr(made)


def test_a_location_that_repeats_the_parameter_loses_it() -> None:
    made = placement(how="query")
    assert made.sent("https://e/x?a=1&k=a%26b&c=2#k", {}, "sse") == ("https://e/x?a=1&c=2", {})
    assert made.sent("https://e/x?k=a%26b", {}, "sse") == ("https://e/x", {})


@pytest.mark.parametrize("kind", SECRETS)
@pytest.mark.parametrize("place", ["/a&b/x", "/a%26b", "?other=a%26b", "?other=%61%26%62", "#a&b"])
def test_a_location_that_has_the_secret_elsewhere_is_not_followed(kind: CredentialType, place: str) -> None:
    with pytest.raises(PolicyBlocked) as refused:
        placement(kind).sent(f"https://e{place}", {}, "sse")
    assert "a&b" not in refused.value.message and "https" not in refused.value.message


def test_none_sends_nothing() -> None:
    assert placement_of(CredentialProfile("c", "c", CredentialType.NONE), {}, "header", None) is None


def test_a_user_name_with_a_colon_is_not_for_http() -> None:
    with pytest.raises(InvalidInput):
        placement(CredentialType.BASIC, secret={"username": "vhost:user", "password": "p"})
