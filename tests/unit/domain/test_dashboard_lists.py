"""Lists that are searched and sorted: every page goes on where the one before ended."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.domain.access import Visibility
from tidegate.domain.dashboard_lists import Sort, Wanted
from tidegate.domain.dashboards import DashboardSummary
from tidegate.errors import InvalidInput


def summary(
    number: int, title: str = "T", at_ms: int = 0, visibility: Visibility = Visibility.LINK
) -> DashboardSummary:
    return DashboardSummary(f"id{number:04d}", "owner", title, visibility, 1, at_ms)


def test_the_query_is_a_part_of_the_title_in_whatever_case() -> None:
    boards = [summary(1, "Straße 1"), summary(2, "STRASSE"), summary(3, "Kiln")]
    assert [each.dashboard_id for each in Wanted(" strasse ").found(boards)] == ["id0001", "id0002"]
    assert [each.dashboard_id for each in Wanted("k").found(boards)] == ["id0003"]
    public = [summary(4, visibility=Visibility.PUBLIC), *boards]
    assert Wanted(visibility=Visibility.PUBLIC).found(public) == public[:1]


def test_the_orders() -> None:
    boards = [summary(1, "b", 10), summary(2, "A", 30), summary(3, "C", 20)]
    assert [each.title for each in Wanted(sort=Sort.TITLE).found(boards)] == ["A", "b", "C"]
    assert [each.title for each in Wanted().found(boards)] == ["A", "C", "b"]


_BOARDS = st.lists(st.tuples(st.text(max_size=120), st.integers(0, 10**13)), max_size=25).map(
    lambda made: [summary(number, title, at_ms) for number, (title, at_ms) in enumerate(made)]
)


@given(_BOARDS, st.sampled_from(Sort), st.integers(1, 7))
def test_pages_together_are_the_list(boards: list[DashboardSummary], sort: Sort, limit: int) -> None:
    wanted, found, cursor = Wanted(sort=sort), list[DashboardSummary](), None
    for _ in range(len(boards) + 1):
        page, cursor = wanted.page(boards, limit, cursor)
        found += page
        if cursor is None:
            break
        assert len(page) == limit and len(cursor) <= 254
    assert cursor is None and found == wanted.found(boards)


def test_a_page_goes_on_although_its_last_dashboard_is_gone() -> None:
    boards = [summary(number, at_ms=100 - number) for number in range(6)]
    page, cursor = Wanted().page(boards, 2, None)
    following, _ = Wanted().page([each for each in boards if each not in page], 2, cursor)
    assert [each.dashboard_id for each in following] == ["id0002", "id0003"]


def test_a_cursor_of_another_list_is_refused() -> None:
    with pytest.raises(InvalidInput, match="cursor of the page before"):
        Wanted().page([summary(1)], 2, "id0001")
