"""The page of the settings is as its script writes it, and complete."""

from __future__ import annotations

import inspect
import re

import pytest

from scripts import settings_doc
from tests.docs.pages import DOCS, PACKAGE, code_words, headings, section
from tidegate import settings
from tidegate.settings import Setting

PAGE = settings_doc.TARGET.read_text()


def test_the_page_is_current() -> None:
    assert settings_doc.render() == PAGE, "run: python scripts/settings_doc.py"


def test_every_group_has_a_heading_with_its_settings() -> None:
    groups = [settings_doc.heading(group) for group in settings.GROUPS]
    assert headings(PAGE) == ["Settings", *groups, "Values that do not go together"]
    assert "Remote API" in groups and "Control plane" in groups
    assert "`GATEWAY_API_BASE_URL`" in section(PAGE, "Remote API")


def test_a_setting_that_takes_any_text_has_no_place() -> None:
    with pytest.raises(AssertionError, match="ANY takes any text"):
        settings_doc.allowed(Setting("ANY", str, "empty", "Nothing."))
    assert settings_doc.allowed(settings.documented()[0]) == "a word"


def test_values_that_do_not_go_together_are_those_of_the_code() -> None:
    checks = (settings._contradictions, settings._remote_api_problems)
    checked = {
        variable for check in checks for variable in re.findall(r"[A-Z]+(?:_[A-Z]+){2,}", inspect.getsource(check))
    }
    checked -= {"MESSAGE_BUDGET_MS", "MAX_GATEWAY_LIMIT"}
    named = {word for word in code_words(section(PAGE, "Values that do not go together")) if "_" in word}
    assert named == checked


def test_the_example_of_the_recipe_is_in_the_code() -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```$", (DOCS / "start/add-a-setting.md").read_text(), re.M | re.S)
    assert example in (PACKAGE / "settings/groups.py").read_text()
