"""The first change that CONTRIBUTING.md walks through: it fails and passes where the page says so."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
#: What the tests of documents begin with.
GOOD = {"schemaVersion": 1, "title": "T", "datasources": [{"id": "a", "type": "mqtt", "settings": {}}]}


def documents(source: str) -> Any:
    module = ModuleType("documents")
    exec(compile(source, "documents.py", "exec"), module.__dict__)  # noqa: S102  (the page's own code)
    return module


def test_the_first_change_fails_and_passes_as_the_page_says() -> None:
    test, line = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)
    test_file, file = re.findall(r"In `([^`]+\.py)`", PAGE)
    assert "GOOD = " in (ROOT / test_file).read_text()
    source = (ROOT / file).read_text()
    (old,) = re.findall(r"^_WIDTHS = .*\n", source, re.M)
    (told,) = re.findall(r"It fails with `InvalidDocument`: `([^`]+)`", PAGE)

    def run(module: Any) -> None:
        scope: dict[str, Any] = {"check_document": module.check_document, "GOOD": GOOD}
        exec(compile(test, "CONTRIBUTING.md", "exec"), scope)  # noqa: S102
        scope["test_a_dashboard_may_be_extra_small"]()

    before = documents(source)
    with pytest.raises(before.InvalidDocument, match=re.escape(told)):
        run(before)
    run(documents(source.replace(old, line)))
