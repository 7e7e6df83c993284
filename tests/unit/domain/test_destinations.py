"""Where a credential may go: how destinations are written, and which URLs they cover."""

from __future__ import annotations

import pytest

from tidegate.domain.destinations import MAX_DESTINATIONS, check_destinations, covers, refusal, serves
from tidegate.domain.egress import EgressPolicy
from tidegate.domain.profiles import CredentialProfile, CredentialType
from tidegate.errors import InvalidInput

PRODUCTION = EgressPolicy((), (443,))
DEVELOPMENT = EgressPolicy((), (443,), production=False)


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("https://api.example.com", "https://api.example.com:443"),
        ("HTTPS://API.Example.COM.:443/", "https://api.example.com:443"),
        (" wss://*.Example.com:8443 ", "wss://*.example.com:8443"),
        ("https://[2606:4700:0::1]", "https://[2606:4700::1]:443"),
        ("https://93.184.216.34:8443", "https://93.184.216.34:8443"),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example:443"),
    ],
)
def test_destinations_are_stored_in_one_form(written: str, canonical: str) -> None:
    assert check_destinations([written, canonical], PRODUCTION) == (canonical,)


@pytest.mark.parametrize(
    "written",
    [
        "",
        "*",
        "https://",
        "https://*",
        "https://*.",
        "https://*.com",
        "https://*.93.184.216.34",
        "https://*.[2606:4700::1]",
        "https://a.*.example.com",
        "https://api*.example.com",
        "https://user:s3cret@api.example.com",
        "https://api.example.com/s3cret",
        "https://api.example.com?key=s3cret",
        "https://api.example.com#s3cret",
        "https://api.example.com\\@evil.net",
        "https://api.example.com:0",
        "https://api.example.com:65536",
        "https://api.example.com:\u0664\u0664\u0663",
        "https://b\u00fccher.example",
        "https://2130706433",
        "https://0x7f.1",
        "api.example.com",
        "mqtts://broker.example.com",
        "javascript://api.example.com",
        "http://api.example.com",
        "ws://api.example.com",
        "https://" + "a." * 200 + "com",
    ],
)
def test_what_is_no_destination_is_refused_by_its_position(written: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_destinations(["https://good.example.com", written], PRODUCTION)
    assert refused.value.message.startswith("destinations[1]: ")
    assert "s3cret" not in refused.value.message


def test_secrets_go_in_clear_only_where_the_egress_policy_admits_it() -> None:
    private = EgressPolicy((), (80,), allow_private=True)
    for policy in (DEVELOPMENT, private):
        assert check_destinations(["http://h.example", "ws://[::1]:8080"], policy) == (
            "http://h.example:80",
            "ws://[::1]:8080",
        )
    with pytest.raises(InvalidInput, match=r"a scheme \(https, wss\)"):
        check_destinations(["http://h.example"], PRODUCTION)


def test_there_are_not_too_many() -> None:
    with pytest.raises(InvalidInput, match=str(MAX_DESTINATIONS)):
        check_destinations([f"https://h{n}.example" for n in range(MAX_DESTINATIONS + 1)], PRODUCTION)


@pytest.mark.parametrize(
    ("url", "covered"),
    [
        ("https://api.example.com/feed?a=1", True),
        ("https://api.example.com:443/feed", True),
        ("https://API.EXAMPLE.COM./feed", True),
        ("https://api.example.com:8443/feed", False),
        ("http://api.example.com/feed", False),
        ("http://api.example.com:443/feed", False),
        ("https://example.com/feed", False),
        ("https://x.api.example.com/feed", False),
        ("https://api.example.com.evil.net/feed", False),
        ("https://evil-api.example.com/feed", False),
        ("https://evil.net/?https://api.example.com", False),
        ("https://api.example.com@evil.net/", False),
        ("https://evil.net#@api.example.com", False),
        ("https://user@api.example.com/", False),
        ("https://evil.net\\@api.example.com/", False),
        ("https://api.example.com\t.evil.net/", False),
        ("https://api\uff0eexample.com/", False),
        ("https://\u0430pi.example.com/", False),
        ("https://edge.live.example.org:8443/", True),
        ("https://a.b.live.example.org:8443/", True),
        ("https://live.example.org:8443/", True),
        ("https://LIVE.example.org.:8443/", True),
        ("https://edge.live.example.org/", False),
        ("https://evil-live.example.org:8443/", False),
        ("https://example.org:8443/", False),
        ("https://live.example.org.evil.net:8443/", False),
        ("https://*.live.example.org:8443/", False),
        ("https://[2606:4700::1]/", True),
        ("https://[2606:4700:0:0:0:0:0:1]:443/", True),
        ("https://[2606:4700::2]/", False),
        ("https://[::ffff:93.184.216.34]/", False),
        ("https://93.184.216.34/", False),
        ("", False),
        ("api.example.com", False),
        ("wss://api.example.com/feed", False),
    ],
)
def test_only_the_urls_of_a_destination_are_covered(url: str, covered: bool) -> None:
    destinations = ["https://api.example.com", "https://*.live.example.org:8443", "https://[2606:4700::1]"]
    assert covers(check_destinations(destinations, PRODUCTION), url, "sse") is covered


def test_a_websocket_needs_a_destination_of_its_own() -> None:
    both = check_destinations(["wss://api.example.com", "https://web.example.com"], PRODUCTION)
    assert covers(both, "wss://api.example.com/ws", "websocket")
    assert not covers(both, "wss://web.example.com/ws", "websocket")
    assert not covers(both, "https://web.example.com/", "websocket")


def test_only_what_has_a_secret_needs_destinations() -> None:
    url = "https://api.example.com/"
    assert serves(CredentialProfile("p", "p", CredentialType.NONE), url, "sse")
    for kind in (CredentialType.BEARER, CredentialType.BASIC, CredentialType.HEADER):
        assert not serves(CredentialProfile("p", "p", kind), url, "sse")


def test_the_refusal_names_profile_and_rule() -> None:
    key = CredentialProfile("p", "Weather", CredentialType.BEARER, tuple(f"https://h{n}.example:443" for n in range(7)))
    text = refusal(key, "https://evil.net/s3cret?s3cret", "sse")
    assert text.startswith(
        "Credential profile 'Weather' is not for https://evil.net:443; allowed: https://h0.example:443"
    )
    assert text.endswith("and 2 more") and "s3cret" not in text
    nowhere = CredentialProfile("p", "MQTT", CredentialType.BASIC)
    assert "has no destinations, so it serves no URL" in refusal(nowhere, "https://h.example", "sse")
