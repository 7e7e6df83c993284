from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.domain.client_ip import UNKNOWN, client_ip, ip_key, normalise


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" 1.2.3.4 ", "1.2.3.4"),
        ('"1.2.3.4"', "1.2.3.4"),
        ("1.2.3.4:80", "1.2.3.4"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("::FFFF:1.2.3.4", "1.2.3.4"),
        ("nonsense", None),
        ("", None),
        ("1.2.3", None),
    ],
)
def test_addresses_as_proxies_write_them(text: str, expected: str | None) -> None:
    assert normalise(text) == expected


@pytest.mark.parametrize(
    ("forwarded", "hops", "expected", "warned"),
    [
        (["9.9.9.9"], 0, "7.7.7.7", False),
        (["9.9.9.9, 8.8.8.8"], 1, "8.8.8.8", False),
        (["9.9.9.9, 8.8.8.8"], 2, "9.9.9.9", False),
        (["9.9.9.9", "8.8.8.8"], 2, "9.9.9.9", False),
        (["9.9.9.9"], 2, "7.7.7.7", True),
        ([], 1, "7.7.7.7", True),
        ([" , "], 1, "7.7.7.7", True),
        (["9.9.9.9, nonsense"], 2, "7.7.7.7", True),
        (["nonsense, 8.8.8.8"], 2, "7.7.7.7", True),
        (["nonsense, 9.9.9.9, 8.8.8.8"], 2, "9.9.9.9", False),
    ],
)
def test_counted_from_the_right(forwarded: list[str], hops: int, expected: str, warned: bool) -> None:
    found = client_ip("7.7.7.7", forwarded, hops)
    assert (found.address, found.warning is not None) == (expected, warned)


def test_without_any_address_all_share_one_limit() -> None:
    assert client_ip(None, [], 0).address == UNKNOWN


@given(st.text(max_size=60), st.integers(1, 3))
def test_what_a_client_writes_never_chooses_its_address(spoofed: str, hops: int) -> None:
    chain = [f"203.0.113.{number}" for number in range(1, hops + 1)]
    header = ", ".join([spoofed.replace(",", ""), *chain])
    assert client_ip("7.7.7.7", [header], hops).address == chain[0]


def test_an_ipv6_client_is_its_64() -> None:
    assert ip_key("2001:db8:1:2:3:4:5:6") == ip_key("2001:db8:1:2::9") != ip_key("2001:db8:1:3::9")
    assert ip_key("1.2.3.4") == "1.2.3.4"
    assert ip_key(UNKNOWN) == UNKNOWN
