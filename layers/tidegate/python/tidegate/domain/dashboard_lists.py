"""Lists of dashboards that are searched or sorted.

Stores list dashboards by id. So for another order all that may be listed are read, up to `MOST_LOOKED_AT`, for each
page anew. A cursor names the last dashboard of a page and its place in the order. The next page begins behind that
place, also when the dashboard is gone or has moved meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tidegate.domain.access import Visibility
from tidegate.domain.dashboards import DashboardSummary
from tidegate.errors import InvalidInput

#: Dashboards that are read for a page. A summary is some 350 bytes, so they are 700 KB, or some 90 read units.
MOST_LOOKED_AT = 2000
#: Characters of a title that order it. A cursor holds them.
_ORDERING = 100
#: Later than any moment, epoch milliseconds. The newest comes first.
_LATEST_MS = 10**14


class Sort(StrEnum):
    """The order of a list: the one that was changed last comes first, or by title."""

    UPDATED = "updated"
    TITLE = "title"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is wanted of a list.

    Attributes:
        query: a part of the title, in whatever case; empty for any.
        visibility: None for any.
    """

    query: str = ""
    visibility: Visibility | None = None
    sort: Sort = Sort.UPDATED

    def found(self, summaries: Iterable[DashboardSummary]) -> list[DashboardSummary]:
        """Those that are wanted, in order."""
        part = self.query.strip().casefold()
        wanted = [
            summary
            for summary in summaries
            if part in summary.title.casefold() and self.visibility in (None, summary.visibility)
        ]
        return sorted(wanted, key=self._place)

    def page(
        self, summaries: Iterable[DashboardSummary], limit: int, cursor: str | None
    ) -> tuple[Sequence[DashboardSummary], str | None]:
        """A page of `found`, and the cursor of the next one; None on the last.

        Raises:
            InvalidInput: the cursor is not one of such a list.
        """
        after = None if cursor is None else _place_of(cursor)
        rest = [summary for summary in self.found(summaries) if after is None or self._place(summary) > after]
        shown = rest[:limit]
        if len(rest) == len(shown):
            return shown, None
        ordering, dashboard_id = self._place(shown[-1])
        return shown, f"{dashboard_id}.{ordering}"

    def _place(self, summary: DashboardSummary) -> tuple[str, str]:
        if self.sort is Sort.TITLE:
            return summary.title.casefold()[:_ORDERING], summary.dashboard_id
        return f"{_LATEST_MS - summary.updated_at_ms:015d}", summary.dashboard_id


def _place_of(cursor: str) -> tuple[str, str]:
    dashboard_id, dot, ordering = cursor.partition(".")
    if not dot:
        raise InvalidInput("cursor: allowed is the cursor of the page before, with the same query, visibility and sort")
    return ordering, dashboard_id
