"""The page of the HTTP API is as its script writes it, and complete."""

from __future__ import annotations

import json

from scripts import http_api_doc
from tests.docs.pages import headings


def test_the_page_is_current() -> None:
    assert http_api_doc.TARGET.read_text() == http_api_doc.render(), "run: python scripts/http_api_doc.py"


def test_every_public_route_and_type_is_on_the_page() -> None:
    described = http_api_doc.description()
    shown = set(headings(http_api_doc.TARGET.read_text()))
    for path, operations in described["paths"].items():
        for method in operations:
            assert (f"{method.upper()} {path}" in shown) is path.startswith("/api/"), (method, path)
    assert "$ref" not in json.dumps(sorted(shown))


def test_refusals_are_read_from_the_code() -> None:
    assert (409, "email_taken", "A user with this e-mail exists already") in http_api_doc.refusals()
