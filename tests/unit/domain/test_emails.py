"""One address is one account, however it is written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.domain.emails import MAX_EMAIL, address_or_nobody, normalise_email
from tidegate.errors import InvalidInput


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("a@x.example", "a@x.example"),
        ("  A.B+c@X.Example\t\n", "a.b+c@x.example"),
        ("\uff41\uff20x\uff0eexample", "a@x.example"),
        ("\u212aim@x.example", "kim@x.example"),
        ("a@b\u00fccher.example", "a@xn--bcher-kva.example"),
        ("a@bu\u0308cher.example", "a@xn--bcher-kva.example"),
        ("a@B\u00dcCHER.example", "a@xn--bcher-kva.example"),
        ("a@XN--bcher-KVA.example", "a@xn--bcher-kva.example"),
        ("a@\u0430pple.example", "a@xn--pple-43d.example"),
        ("a@x-y.co.example", "a@x-y.co.example"),
    ],
    ids=ascii,
)
def test_one_spelling(written: str, expected: str) -> None:
    assert normalise_email(written) == expected
    assert normalise_email(expected) == expected


@pytest.mark.parametrize(
    "written",
    [
        *("", "a", "@", "a@", "@x.example", "a@x", "a@@x.example", "a@x..example", "a@.example", "a@x.example."),
        *("a b@x.example", "a\u00a0b@x.example", "a@x. example", "a\x00@x.example", "a\r\n@x.example"),
        *("a\u200b@x.example", "a@x\u200d.example", "\ufeffa@x.example", "a\u00ad@x.example", "a\u202e@x.example"),
        *("\u0430@x.example", "\u03b1@x.example", "stra\u00dfe@x.example", "a\u0301@x.example", "a\ud800@x.example"),
        *("a@stra\u00dfe.example", "a@x\ud800.example", "a@x\u3002example", "a@xn--a.example", "a@xn--.example"),
        *("a@-x.example", "a@x-.example", "a@x_y.example", ".a@x.example", "a.@x.example", "a..b@x.example"),
        *("a" * 65 + "@x.example", "a@" + "x" * 64 + ".example", "a@" + "x." * 130 + "example", "a@" + "\u00fc" * 9999),
    ],
    ids=lambda written: ascii(written[:30]),
)
def test_what_is_refused(written: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        normalise_email(written)
    assert refusal.value.code == "invalid_email"
    assert address_or_nobody(written) == ""


@given(
    st.one_of(st.text(), st.tuples(st.text(min_size=1), st.text(min_size=1)).map(lambda parts: "@".join(parts) + ".de"))
)
def test_any_text_is_one_plain_spelling_or_refused(written: str) -> None:
    if normal := address_or_nobody(written):
        assert normal.isascii() and normal == normal.lower() and len(normal) <= MAX_EMAIL
        assert normalise_email(normal) == normal == normalise_email(f" {normal.upper()} ")
