"""Pages that scripts write are as the scripts write them."""

from __future__ import annotations

import json

import pytest

from scripts import http_api_doc, settings_doc
from tests.docs.pages import headings


@pytest.mark.parametrize("script", [settings_doc, http_api_doc], ids=lambda script: script.TARGET.name)
def test_a_generated_page_is_current(script: object) -> None:
    target, render = script.TARGET, script.render  # type: ignore[attr-defined]
    assert target.read_text() == render(), f"run: python scripts/{target.stem.replace('-', '_')}_doc.py"


def test_every_public_route_and_type_is_on_the_page() -> None:
    described = http_api_doc.description()
    shown = set(headings(http_api_doc.TARGET.read_text()))
    for path, operations in described["paths"].items():
        for method in operations:
            assert (f"{method.upper()} {path}" in shown) is path.startswith("/api/"), (method, path)
    assert "$ref" not in json.dumps(sorted(shown))


def test_refusals_are_read_from_the_code() -> None:
    assert (409, "email_taken", "A user with this e-mail exists already") in http_api_doc.refusals()
