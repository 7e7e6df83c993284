"""What a caller's JSON may be."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.errors import InvalidInput
from tidegate.protocol.strict_json import loads


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b"[-Infinity]",
        b"1e999",
        b"[-1e999]",
        b"9" * 4301,
        rb'"\ud800"',
        rb'{"\uDFFF": 1}',
        rb'["\ud83d", "\ude00"]',
        b'"\xed\xa0\x80"',
        b'"\xff"',
        '"a"'.encode("utf-16"),
        b"[" * 100_000,
        b"",
        b"{",
    ],
    ids=lambda raw: ascii(raw[:20]),
)
def test_what_is_not_json_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidInput):
        loads(raw)


def test_pairs_of_surrogates_are_characters() -> None:
    assert loads(rb'"\ud83d\ude00 \\ud800"') == "\N{GRINNING FACE} \\ud800"
    assert loads(b"\xef\xbb\xbf[1e308, 12345678901234567890]") == [1e308, 12345678901234567890]


@given(st.text(alphabet=st.sampled_from('\\ud8Dc0{}[]",:1eE-9NaI ')))
def test_what_is_read_can_be_written(text: str) -> None:
    try:
        value = loads(text.encode())
    except InvalidInput:
        return
    json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
