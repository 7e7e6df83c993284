"""The page of the settings is as its script writes it, and complete."""

from __future__ import annotations

import inspect
import re

import pytest

from scripts import settings_doc
from scripts.settings_readers import CDK_APP, readers
from tests.docs.pages import DOCS, PACKAGE, code_words, headings, section
from tidegate import settings
from tidegate.settings import Setting, together

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
    variables = {setting.variable for setting in settings.documented()}
    checked = set(re.findall(r"[A-Z]+(?:_[A-Z]+)+", inspect.getsource(together))) & variables
    named = {word for word in code_words(section(PAGE, "Values that do not go together")) if word in variables}
    assert named == checked


def test_who_reads_a_setting_is_found_by_building_the_functions() -> None:
    """Samples that somebody can check by reading; the page has all that `readers` finds."""
    found = readers()
    readers_of_rate = ["api.main", "gateway_connect.connect", "the CDK app"]  # an alarm is as high as the rate
    assert found["REALTIME_CONNECT_RATE_LIMIT_IP_PER_MIN"] == readers_of_rate
    assert found["API_TRUST_PROXY_HOPS"] == ["api.main"], "read while a request is served"
    assert found["REALTIME_RECONNECT_MIN_MS"] == ["api.main", "relay.worker"], "read when an upstream is made"
    assert found["REALTIME_PUBLIC_REVALIDATE_INTERVAL_MS"] == ["revalidate.schedule"]
    assert found["GATEWAY_INTROSPECTION_TIMEOUT_MS"], "read with a remote API only"
    assert CDK_APP in found["REALTIME_MQTT_ALLOWED_TOPICS"]
    only_checked = {variable for variable, by in found.items() if not by}
    assert only_checked == settings.STAGE_VARIABLES | {"DB_BACKEND"}, "a setting that nobody reads does nothing"


def test_every_row_has_range_unit_reader_and_how_soon_it_holds() -> None:
    rows = [line.strip("|").split(" | ") for line in PAGE.splitlines() if line.startswith("| `")]
    assert len(rows) == len(settings.documented()) and {len(row) for row in rows} == {7}
    by_name = {row[0].strip(" `"): [cell.strip() for cell in row[1:]] for row in rows}
    assert by_name["AUTH_LOGIN_TTL_SECONDS"][2] == "s" and by_name["AUTH_LOGIN_TTL_SECONDS"][5] == "tokens issued after"
    assert by_name["REALTIME_RECONNECT_MAX_MS"][5] == "two minutes"
    assert by_name["AUTH_LOGIN_MAX_ATTEMPTS"][5] == "at once"


def test_the_example_of_the_recipe_is_in_the_code() -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```$", (DOCS / "start/add-a-setting.md").read_text(), re.M | re.S)
    assert example in (PACKAGE / "settings/groups.py").read_text()
