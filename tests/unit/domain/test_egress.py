from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.domain.egress import Destination, EgressPolicy, check_addresses, check_url, is_blocked, parse_address
from tidegate.errors import PolicyBlocked

PORTS = (80, 443, 1883, 8883)
OPEN = EgressPolicy((), PORTS, production=False)
PRODUCTION = EgressPolicy(("api.example.com", "*.feeds.example.org"), PORTS)

#: Python 3.13 spells it with dots, 3.11 without.
MAPPED = str(ip_address("::ffff:93.184.216.34"))

HOSTILE_URLS = [
    "http://localhost/",
    "http://LOCALHOST./",
    "http://app.localhost/",
    "http://printer.local/",
    "http://db.internal/",
    "http://metadata.google.internal/computeMetadata/v1/",
    "http://intranet/",
    "http://127.0.0.1/",
    "http://127.1/",
    "http://127.0.1/",
    "http://0/",
    "http://0.0.0.0/",
    "http://0177.0.0.1/",
    "http://0x7f.0.0.1/",
    "http://0x7f000001/",
    "http://2130706433/",
    "http://017700000001/",
    "http://127.0.0.1./",
    "http://1.1.1.1.1/",
    "http://256.1.1.1/",
    "http://10.0.0.1/",
    "http://100.64.0.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://169.254.170.2/v2/credentials",
    "http://172.16.0.1/",
    "http://172.31.255.255/",
    "http://192.0.0.192/",
    "http://192.0.2.1/",
    "http://192.88.99.1/",
    "http://192.168.1.1/",
    "http://198.18.0.1/",
    "http://198.51.100.1/",
    "http://203.0.113.1/",
    "http://224.0.0.1/",
    "http://240.0.0.1/",
    "http://255.255.255.255/",
    "http://[::]/",
    "http://[::1]/",
    "http://[0:0:0:0:0:0:0:1]/",
    "http://[::127.0.0.1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::ffff:a9fe:a9fe]/",
    "http://[::ffff:0:10.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[64:ff9b::169.254.169.254]/",
    "http://[64:ff9b:1::1]/",
    "http://[2002:7f00:1::]/",
    "http://[2002:a9fe:a9fe::1]/",
    "http://[2001::1]/",
    "http://[2001:db8::1]/",
    "http://[fc00::1]/",
    "http://[fd00:ec2::254]/latest/meta-data/",
    "http://[fe80::1]/",
    "http://[fe80::1%25eth0]/",
    "http://[fec0::1]/",
    "http://[ff02::1]/",
    "http://[100::1]/",
    "http://[::1",
    "http://[2606:4700::1111]x/",
    "http://:[2606:4700::1111]/",
    "http://x[2606:4700::1111]/",
    "http://[2606:4700::1111].evil.com/",
    "http://[2606:4700::1111]:80x/",
    "http://[2606:4700::1111%25eth0]/",
    "http://[93.184.216.34]/",
    "http://[v1.fe80::a]/",
    "http://2606:4700::1111/",
    "http://user@example.com/",
    "http://user:secret@example.com/",
    "http://example.com@127.0.0.1/",
    "http://127.0.0.1#@example.com/",
    "http://example.com\\@127.0.0.1/",
    "http:\\\\127.0.0.1\\",
    "http://exa mple.com/",
    "http://example.com\t/",
    "http://example.com/\r\nHost: 127.0.0.1",
    "http://１２７.０.０.１/",
    "http://ｌocalhost/",
    "http://exämple.com/",
    "http://127.0.0.1%2f@example.com/",
    "http://%31%32%37.0.0.1/",
    "http://example..com/",
    "http://-example.com/",
    "http://" + "a" * 64 + ".com/",
    "http:///path",
    "http://:80/",
    "http://example.com:0/",
    "http://example.com:22/",
    "http://example.com:65536/",
    "http://example.com:8o/",
    "ftp://example.com/",
    "file:///etc/passwd",
    "gopher://example.com/",
    "ws://example.com/",
    "//example.com/",
    "example.com",
    "",
]


@pytest.mark.parametrize("url", HOSTILE_URLS)
def test_hostile_urls_are_refused_before_anything_is_asked(url: str) -> None:
    with pytest.raises(PolicyBlocked):
        check_url(url, "sse", OPEN)


@pytest.mark.parametrize(
    "answer",
    [
        [],
        ["127.0.0.1"],
        ["93.184.216.34", "10.0.0.1"],
        ["93.184.216.34", "::1"],
        ["::ffff:192.168.0.1"],
        ["64:ff9b::a00:1"],
        ["fe80::1%eth0"],
        ["not an address"],
        ["0177.0.0.1"],
        ["169.254.169.254"],
    ],
)
def test_hostile_answers_of_the_resolver(answer: list[str]) -> None:
    with pytest.raises(PolicyBlocked):
        check_addresses(answer, OPEN)


@pytest.mark.parametrize(
    ("url", "protocol", "expected"),
    [
        ("https://example.com/stream?x=1", "sse", Destination("https", "example.com", 443)),
        ("HTTP://Example.COM.:80/", "sse", Destination("http", "example.com", 80)),
        ("wss://feed.example.com/", "websocket", Destination("wss", "feed.example.com", 443)),
        ("mqtt://broker.example.com", "mqtt", Destination("mqtt", "broker.example.com", 1883)),
        ("mqtts://broker.example.com", "mqtt", Destination("mqtts", "broker.example.com", 8883)),
        ("http://93.184.216.34/", "sse", Destination("http", "93.184.216.34", 80)),
        ("http://[2606:4700::1111]/", "sse", Destination("http", "2606:4700::1111", 80)),
        ("https://xn--exmple-cua.com/", "sse", Destination("https", "xn--exmple-cua.com", 443)),
        ("http://[::ffff:93.184.216.34]/", "sse", Destination("http", MAPPED, 80)),
    ],
)
def test_good_urls(url: str, protocol: str, expected: Destination) -> None:
    assert check_url(url, protocol, OPEN) == expected


def test_allowlists() -> None:
    for url in ("https://api.example.com/", "https://feeds.example.org/", "https://a.b.feeds.example.org/"):
        check_url(url, "sse", PRODUCTION)
    for url in ("https://example.com/", "https://evilfeeds.example.org/", "https://api.example.com.evil.com/"):
        with pytest.raises(PolicyBlocked, match="allowlist"):
            check_url(url, "sse", PRODUCTION)
    everything = EgressPolicy(("*",), PORTS)
    with pytest.raises(PolicyBlocked, match="allowlist"):
        check_url("https://example.com/", "sse", everything)
    with pytest.raises(PolicyBlocked, match="allowlist"):
        check_url("https://example.com/", "sse", EgressPolicy((), PORTS))
    check_url("https://example.com/", "sse", EgressPolicy(("*",), PORTS, production=False))


@pytest.mark.parametrize(
    ("pattern", "host", "admitted"),
    [
        ("[2606:4700::1111]", "[2606:4700::1111]", True),
        ("2606:4700:0::1111", "[2606:4700::1111]", True),
        ("2606:4700::1111", "[2606:4700:0:0::1111]", True),
        ("[2606:4700::1111]", "[2606:4700::1112]", False),
        ("93.184.216.34", "93.184.216.34", True),
        ("*.216.34", "93.184.216.34", False),
        ("API.Example.com", "api.example.com", True),
        ("*.example.com", "evilexample.com", False),
        ("*.*", "example.com", False),
        ("*.", "example.com", False),
    ],
)
def test_allowlist_entries(pattern: str, host: str, admitted: bool) -> None:
    policy = EgressPolicy((pattern,), PORTS)
    if admitted:
        check_url(f"https://{host}/", "sse", policy)
    else:
        with pytest.raises(PolicyBlocked, match="allowlist"):
            check_url(f"https://{host}/", "sse", policy)


def test_private_destinations_when_they_are_allowed() -> None:
    private = EgressPolicy((), (8090,), allow_private=True, production=False)
    assert check_url("http://127.0.0.1:8090/", "sse", private).host == "127.0.0.1"
    assert check_url("http://sources:8090/", "sse", private).host == "sources"
    assert check_addresses(["10.0.0.1"], private) == ["10.0.0.1"]
    with pytest.raises(PolicyBlocked):
        check_url("http://2130706433:8090/", "sse", private)


@given(st.ip_addresses(v=4))
def test_every_form_of_an_address_is_judged_alike(address: object) -> None:
    text = str(address)
    plain = parse_address(text)
    assert plain is not None
    for form in (f"::ffff:{text}", f"64:ff9b::{text}"):
        carried = parse_address(form)
        assert carried is not None and is_blocked(carried) == is_blocked(plain)


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "169.254.169.254", "169.254.170.2", "224.0.0.1", "255.255.255.255"),  # noqa: S104
        *("::", "fd00:ec2::254", "fd00:ec2::23", "fe80::1", "ff02::1", "64:ff9b:1::a9fe:a9fe"),
        *("::ffff:169.254.169.254", "::ffff:a9fe:a9fe", "::ffff:0:a9fe:a9fe", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::"),
    ],
)
def test_metadata_and_credentials_are_no_private_destination(address: str) -> None:
    url = f"http://[{address}]/" if ":" in address else f"http://{address}/"
    private = EgressPolicy((), PORTS, allow_private=True, production=False)
    for policy in (private, EgressPolicy((address,), PORTS, allow_private=True)):
        with pytest.raises(PolicyBlocked):
            check_url(url, "sse", policy)
        with pytest.raises(PolicyBlocked):
            check_addresses(["10.0.0.1", address], policy)


@pytest.mark.parametrize("address", ["10.0.0.1", "127.0.0.1", "192.168.0.1", "100.64.0.1", "::1", "fd12::1"])
def test_private_addresses_pass_where_they_are_allowed_and_only_there(address: str) -> None:
    private = EgressPolicy((), PORTS, allow_private=True, production=False)
    assert check_addresses([address], private) == [address]
    with pytest.raises(PolicyBlocked):
        check_addresses([address], OPEN)
