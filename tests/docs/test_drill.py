"""The runbooks state what the drill finds: the answers while the limiter is down, and who needs which other table."""

from __future__ import annotations

from tests.docs.pages import DOCS, code_words, rows, section
from tests.drill.expected import LIMITER, NEEDED_BY
from tidegate import tables

PAGE = (DOCS / "operations/runbooks.md").read_text()


def test_the_answers_while_the_limiter_is_down() -> None:
    stated = {
        row[0]: tuple(map(code_words, row[1:])) for row in rows(section(PAGE, "What happens when the limiter is down"))
    }
    assert stated == {call: ([each.closed], [each.open], [each.flooded]) for call, each in LIMITER.items()}


def test_the_tables_that_requests_need() -> None:
    stated = [code_words(row[0])[0] for row in rows(section(PAGE, "What happens when another table fails"))]
    assert sorted(stated) == sorted({*NEEDED_BY, tables.AUDIT.name})
