"""Points, and how they are put together."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.domain.documents import InvalidDocument, check_document
from tidegate.domain.history import MOST_POINTS, Point, merged, ms_of, newest_points, of_intent, point_of, problem
from tidegate.domain.intents import build_intent, intent_hash, stream_key

#: Few moments and few values, so that points meet and are equal.
VALUES = st.tuples(st.integers(0, 40), st.sampled_from(["1", "2.50", "-3", '"text"', "null", "1e400", '"' + "x" * 600]))
LISTS = st.lists(VALUES, min_size=1, max_size=12, unique_by=lambda value: value[0])


def point(at: int, payload: str, every_ms: int = 1000) -> Point:
    at_ms = at * 250
    return point_of(payload, at_ms, f"{at_ms:015d}-m", every_ms)


@given(LISTS, st.randoms())
def test_points_of_a_bucket_may_be_put_together_in_any_order_and_twice(
    values: list[tuple[int, str]], chance: Any
) -> None:
    points = [point(at % 4, payload) for at, payload in values]
    again = [*points, *points[:3]]
    chance.shuffle(again)

    def together(several: list[Point]) -> Point:
        if len(several) == 1:
            return several[0]
        middle = chance.randrange(1, len(several))
        return merged(together(several[:middle]), together(several[middle:]))

    found = together(again)
    assert found == together(points)
    numbers = [each.least for each in points if each.least is not None]
    assert (found.least, found.most) == (min(numbers, default=None), max(numbers, default=None))
    assert found.seq == max(each.seq for each in points)


@given(LISTS, st.sampled_from([1000, 2000, 3000]))
def test_coarser_points_are_those_of_the_values_themselves(values: list[tuple[int, str]], every_ms: int) -> None:
    expected: dict[int, list[Point]] = defaultdict(list)
    for at, payload in values:
        expected[at * 250 // every_ms * every_ms].append(point(at, payload))
    pieces = sorted((point(at, payload) for at, payload in values), key=lambda each: each.seq, reverse=True)
    found, following = newest_points(pieces, every_ms)
    assert following is None and [each.start_ms for each in found] == sorted(expected, reverse=True)
    for each in found:
        numbers = [inner.least for inner in expected[each.start_ms] if inner.least is not None]
        assert (each.least, each.most) == (min(numbers, default=None), max(numbers, default=None))
        assert each.seq == max(inner.seq for inner in expected[each.start_ms])


@given(st.lists(st.integers(0, 30), min_size=1, unique=True), st.integers(100, 400))
def test_pages_bring_each_point_once(buckets: list[int], most_bytes: int) -> None:
    pieces = [point(number * 4 + part, "1") for number in sorted(buckets, reverse=True) for part in (1, 0)]
    seen: list[Point] = []
    before: int | None = None
    while True:
        page, before = newest_points(pieces, 1000, before_ms=before, most_bytes=most_bytes)
        assert page and len(page) <= most_bytes // 100
        seen += page
        if before is None:
            break
    assert [each.start_ms for each in seen] == [number * 1000 for number in sorted(buckets, reverse=True)]


def test_a_page_has_so_many_points_at_most() -> None:
    page, before = newest_points((point(number * 4, "1") for number in range(3000, 0, -1)), 1000)
    assert len(page) == MOST_POINTS and before == (3000 - MOST_POINTS + 1) * 1000


@pytest.mark.parametrize(
    ("payload", "number"),
    [
        ("21.50", 21.5),
        ("-7", -7),
        (" 3 ", 3),
        ("1e3", 1000),
        ("0", 0),
        ("-0.0", 0),
        ("true", None),
        ('"5"', None),
        ("[1]", None),
        ("NaN", None),
        ("Infinity", None),
        ("1e400", None),
        ("1e126", None),
        ("1e-131", None),
        ("9007199254740993", 9007199254740992),
    ],
)
def test_what_counts_as_a_number(payload: str, number: float | None) -> None:
    found = point(0, payload)
    assert (found.least, found.most, found.last) == (number, number, payload)


def test_a_point_as_text_has_the_digits_of_the_source() -> None:
    assert point(7, "21.50").encode() == (
        '{"at":"1970-01-01T00:00:01.000Z","least":21.5,"most":21.5,"last":21.50,"seq":"000000000001750-m"}'
    )
    assert point(7, '"' + "x" * 511 + '"').encode() == '{"at":"1970-01-01T00:00:01.000Z","seq":"000000000001750-m"}'
    assert json.loads(point(7, '{"a":1}').encode())["last"] == {"a": 1}


@pytest.mark.parametrize("seq", ["", "1", "0000000000017500", "00000000000175x-m", "\u0661" * 15, "-00000000001750"])
def test_what_is_no_seq(seq: str) -> None:
    with pytest.raises(ValueError):
        ms_of(seq)


@pytest.mark.parametrize(
    ("history", "wrong"),
    [
        ({"seconds": 7200, "everyMs": 3600}, None),
        ({"seconds": 2000, "everyMs": 1000}, None),
        ({"seconds": 1, "everyMs": 1000}, None),
        ({"seconds": 7201, "everyMs": 60000}, "datasources[0].settings.history.seconds"),
        ({"seconds": 0, "everyMs": 1000}, "datasources[0].settings.history.seconds"),
        ({"seconds": True, "everyMs": 1000}, "datasources[0].settings.history.seconds"),
        ({"seconds": 60.0, "everyMs": 1000}, "datasources[0].settings.history.seconds"),
        ({"seconds": 60, "everyMs": 999}, "datasources[0].settings.history.everyMs"),
        ({"seconds": 1, "everyMs": 1001}, "datasources[0].settings.history.everyMs"),
        ({"seconds": 60, "everyMs": "1000"}, "datasources[0].settings.history.everyMs"),
        ({"seconds": 2001, "everyMs": 1000}, "datasources[0].settings.history"),
        ({"seconds": 60}, "datasources[0].settings.history"),
        ({"seconds": 60, "everyMs": 1000, "more": 1}, "datasources[0].settings.history"),
        (True, "datasources[0].settings.history"),
        (None, "datasources[0].settings.history"),
    ],
)
def test_what_a_datasource_may_ask_for(history: object, wrong: str | None) -> None:
    source = {"id": "s", "type": "sse", "settings": {"url": "https://a.example/s", "history": history}}
    document = {"schemaVersion": 1, "title": "T", "datasources": [source]}
    if wrong is None:
        assert check_document(document)["datasources"] == [source]
        return
    with pytest.raises(InvalidDocument) as raised:
        check_document(document)
    assert [path for path, _ in raised.value.problems] == [wrong]


def test_a_history_is_part_of_the_intent_and_not_of_the_stream() -> None:
    def intent(history: object) -> dict[str, object]:
        settings = {"url": "https://a.example/s", **({} if history is None else {"history": history})}
        return build_intent("d", {"id": "s", "type": "sse", "settings": settings})

    without, some = intent(None), intent({"seconds": 600, "everyMs": 1000})
    other, broken = intent({"seconds": 600, "everyMs": 2000}), intent({"seconds": 10**9, "everyMs": 1})
    assert of_intent(without) is None and (found := of_intent(some)) is not None
    assert (found.seconds, found.every_ms) == (600, 1000) and problem({"seconds": 600, "everyMs": 1000}) is None
    assert len({intent_hash(each) for each in (without, some, other)}) == 3
    assert len({stream_key(each) for each in (without, some, other)}) == 1
    assert broken == without, "of a document that was stored before there were histories"
