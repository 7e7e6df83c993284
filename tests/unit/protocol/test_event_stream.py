from __future__ import annotations

import re
import sys
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.protocol.event_stream import MAX_RETRY_MS, EventStream, ServerSentEvent, TooLarge

Event = ServerSentEvent


def events(data: bytes, *, max_bytes: int = 10_000) -> list[ServerSentEvent | TooLarge]:
    return EventStream(max_bytes).feed(data)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        # The examples of the standard.
        (b"data: This is the first message.\n\n", [Event("This is the first message.")]),
        (
            b"data: This is the second message, it\ndata: has two lines.\n\ndata: This is the third message.\n\n",
            [Event("This is the second message, it\nhas two lines."), Event("This is the third message.")],
        ),
        (
            b"event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\nevent: add\ndata: 113411\n\n",
            [Event("73857293", "add"), Event("2153", "remove"), Event("113411", "add")],
        ),
        (b"data: YHOO\ndata: +2\ndata: 10\n\n", [Event("YHOO\n+2\n10")]),
        (
            b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
            [Event("first event", event_id="1"), Event("second event"), Event(" third event")],
        ),
        (b"data\n\ndata\ndata\n\ndata:", [Event(""), Event("\n")]),
        (b"data:test\n\ndata: test\n\n", [Event("test"), Event("test")]),
        # What else it says.
        (b"\xef\xbb\xbfdata: after the mark\n\n", [Event("after the mark")]),
        (b"data: a\r\rdata: b\r\n\r\ndata: c\n\n", [Event("a"), Event("b"), Event("c")]),
        (b"id: 1\0\ndata: x\n\n", [Event("x")]),
        (b"id: 7\n\ndata: x\n\n", [Event("x", event_id="7")]),
        (b"unknown: field\ndata: x\nDATA: y\n\n", [Event("x")]),
        (b"event: lost without data\n\ndata: x\n\n", [Event("x")]),
        (b"data: never ended\n", []),
        (b"data: \xff\n\n", [Event("\ufffd")]),
        (b"data: \xe2\x82\n\n", [Event("\ufffd")]),
        ("data: a\u2028b\u0085c\x0bd\x0ce\x1cf\n\n".encode(), [Event("a\u2028b\u0085c\x0bd\x0ce\x1cf")]),
        (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [Event("a")]),
        (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", []),
        (b"data:\ta\ndata : b\n data: c\n\n", [Event("\ta")]),
        (b"event: x\nevent:\ndata: a:b\n\n", [Event("a:b")]),
    ],
)
def test_what_the_standard_says(data: bytes, expected: list[ServerSentEvent]) -> None:
    assert events(data) == expected


def test_retry_and_the_last_id() -> None:
    stream = EventStream(100)
    stream.feed(b"retry: 250\nretry: soon\nid: a\ndata: x\n\nid: b\n")
    assert stream.retry_ms == 250 and stream.last_event_id == "a", "an id counts when its block has ended"
    assert EventStream(100, "a").feed(b"data: x\n\n") == [Event("x", event_id="a")]


def test_what_is_too_large_is_dropped_and_the_stream_goes_on() -> None:
    stream = EventStream(20)
    found = stream.feed(b"data: " + b"x" * 1000)
    found += stream.feed(b"x" * 1000 + b"\nid: 9\ndata: y\n\ndata: fits\n\n")
    assert found == [TooLarge(), Event("fits")]
    assert EventStream(20).feed(b"data: 12345\ndata: 67890\ndata: 1\n\n") == [TooLarge()], "all lines count together"
    assert EventStream(8).feed("data: ü\n\n".encode()) == [Event("ü")], "bytes, not characters"


blocks = st.lists(
    st.sampled_from(
        [
            b"data: a",
            b"data:\xc3\xbc",
            b"data",
            b"id: 4",
            b"id",
            b"event: e",
            b": c",
            b"retry: 9",
            b"\xf0\x9f\x98\x80",
            b"",
        ]
    ),
    max_size=12,
)
endings = st.sampled_from([b"\n", b"\r", b"\r\n"])


@given(blocks, st.data())
def test_chunks_may_end_anywhere(lines: list[bytes], data: st.DataObject) -> None:
    text = b"".join(line + data.draw(endings) for line in lines) + data.draw(st.sampled_from([b"", b"data: cut"]))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    stream, found = EventStream(1000), []
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        found += stream.feed(text[start:end])
    whole = EventStream(1000)
    assert found == whole.feed(text) == naive(text)
    assert (stream.last_event_id, stream.retry_ms) == (whole.last_event_id, whole.retry_ms)


@given(st.lists(st.binary(max_size=40), max_size=20), st.integers(1, 60))
def test_no_bytes_break_it(chunks: list[bytes], limit: int) -> None:
    stream = EventStream(limit)
    for chunk in chunks:
        for event in stream.feed(chunk):
            assert isinstance(event, TooLarge) or len(event.data.encode("utf-8", "replace")) <= limit


def naive(data: bytes) -> list[ServerSentEvent]:
    """The standard read aloud, over the whole text at once."""
    text = data.decode("utf-8", "replace").removeprefix("\ufeff")
    lines = re.split(r"\r\n|\n|\r", text)[:-1]
    found, kept, kind, last = [], "", "", ""
    for line in lines:
        if line == "":
            if kept:
                found.append(ServerSentEvent(kept.removesuffix("\n"), kind or "message", last))
            kept, kind = "", ""
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            kept += value + "\n"
        elif name == "event":
            kind = value
        elif name == "id" and "\0" not in value:
            last = value
    return found


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"0", 0),
        (b"007", 7),
        (b"3000000000", MAX_RETRY_MS),
        (b"0000000003000", 3000),
        (b"0" * 5000 + b"5", 5),
        (b"9" * 5000, MAX_RETRY_MS),
        (b"", None),
        (b"-1", None),
        (b"1.5", None),
        (b" 1", None),
        (b"1_000", None),
        ("\u0663".encode(), None),
        ("\u00b2".encode(), None),
    ],
)
def test_retry_is_digits_only_and_bounded(value: bytes, expected: int | None) -> None:
    stream = EventStream(10_000)
    stream.feed(b"retry: " + value + b"\n")
    assert stream.retry_ms == expected


def test_comments_that_keep_a_quiet_stream_open_never_add_up() -> None:
    stream = EventStream(10)
    assert stream.feed(b"data: a\n" + b": keep-alive\n" * 1000 + b":" + b"x" * 1000) == []
    assert stream.feed(b"x" * 1000 + b"\n\n") == [Event("a")]
    assert stream.feed(b"x" * 1000) == [TooLarge()], "not a comment"


def test_too_large_is_said_once_where_the_limit_is_passed_and_nothing_is_held() -> None:
    stream = EventStream(10)
    assert stream.feed(b"data: 1234") == []
    assert stream.feed(b"5") == [TooLarge()]
    assert all(stream.feed(b"x" * 1000) == [] for _ in range(100))
    assert sum(len(part) for value in vars(stream).values() if isinstance(value, list) for part in value) <= 1
    assert stream.feed(b"\ndata: more\nevent: e\n\ndata: a\n\n") == [Event("a")]


def test_an_event_too_large_is_not_asked_for_again() -> None:
    stream = EventStream(20)
    assert stream.feed(b"id: 5\ndata: " + b"x" * 30) == [TooLarge()]
    assert stream.last_event_id == "", "not before its block has ended"
    assert stream.feed(b"\n\ndata: a\n\n") == [Event("a", event_id="5")]
    assert stream.last_event_id == "5"


@given(blocks, st.data(), st.integers(1, 30))
def test_the_limit_is_of_one_events_lines_however_they_are_cut(
    lines: list[bytes], data: st.DataObject, limit: int
) -> None:
    text = b"\n".join([*lines, b"", b""])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    stream, found = EventStream(limit), []
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        found += stream.feed(text[start:end])
    expected: list[ServerSentEvent | TooLarge] = []
    last = ""
    for block in re.split(b"(?<=\n)\n+|^\n+", text):
        counted = [line for line in block.split(b"\n") if line and not line.startswith(b":")]
        if sum(map(len, counted)) > limit:
            expected.append(TooLarge())
        else:
            expected += naive(b"id:" + last.encode() + b"\n" + block + b"\n")
        seen, size = last, 0
        for line in counted:
            size += len(line)
            if size <= limit and line.split(b":")[0] == b"id":
                seen = line.partition(b":")[2].strip().decode()
        last = seen
    assert found == expected
    assert stream.last_event_id == last


def steps(text: bytes, size: int) -> int:
    """How many bytecodes run for a text in chunks of a size: work, whatever the machine's speed."""
    count = 0

    def trace(frame: FrameType, kind: str, _: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        count += kind == "opcode"
        return trace

    stream, before = EventStream(10**6), sys.gettrace()
    sys.settrace(trace)
    try:
        for start in range(0, len(text), size):
            stream.feed(text[start : start + size])
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("unit", [b"x", b"x\n", b"\r\n", b"data\n", b":x"])
def test_twice_the_bytes_are_twice_the_work(unit: bytes, size: int) -> None:
    once, twice = (steps(b"data: " + unit * count, size) for count in (1000, 2000))
    assert 0 < once < twice <= 2 * once + 100
