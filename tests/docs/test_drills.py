"""The page on drills has a section for each drill, with all that it printed."""

from __future__ import annotations

import re

from local_stack.drills.catalog import DRILLS
from tests.docs.pages import DOCS, rows

PAGE = (DOCS / "operations/drills.md").read_text()


def test_each_drill_has_a_section_with_what_it_printed() -> None:
    assert re.findall(r"^### (.+)$", PAGE, re.M) == list(DRILLS)
    for name in DRILLS:
        part = PAGE.partition(f"### {name}\n")[2].partition("\n##")[0]
        stated = list(rows(part))
        (count,) = re.findall(r"^(\d+) of \1 expectations held, in \d+ s:$", part, re.M)
        assert len(stated) == int(count) > 5, name
