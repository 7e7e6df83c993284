"""The page of the HTTP API is as its script writes it, and complete."""

from __future__ import annotations

import json
import re

from scripts import http_api_doc
from tests.docs.pages import code_words, headings, section
from tidegate.domain import audit, documents
from tidegate.domain.passwords import MAX_LENGTH, MIN_LENGTH
from tidegate.settings import documented
from tidegate.usecases.control_plane.login import ATTEMPTS_PER_IP
from tidegate.usecases.control_plane.share_guesses import GUESSES_PER_IP


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
    found = http_api_doc.refusals()
    assert (409, "email_taken", "A user with this e-mail exists already") in found
    assert (400, "invalid_document", "Dashboard document failed validation: {}") in found


def test_what_the_routes_say_of_settings_and_numbers_is_true() -> None:
    page = http_api_doc.TARGET.read_text()
    named = {word for word in code_words(page) if word.isupper()}
    assert named <= {setting.variable for setting in documented()} and "AUTH_LOGIN_MAX_ATTEMPTS" in named
    assert f"may try {ATTEMPTS_PER_IP} times in a minute" in section(page, "POST /api/auth/login")
    guesses = f"After {GUESSES_PER_IP} wrong tokens"
    assert guesses in section(page, "GET /api/share/{share_token}")
    assert f"{MIN_LENGTH} to {MAX_LENGTH} characters" in section(page, "POST /api/users/me/password")
    limits = f"{documents.MAX_BYTES} bytes, {documents.MAX_DATASOURCES} datasources and {documents.MAX_PANES} panes"
    assert limits in section(page, "POST /api/dashboards")
    described = section(page, "GET /api/operations/audit")
    assert f"kept {audit.LIFE_S // 86_400} days" in described and audit.WINDOW_MS == 5 * 60_000


def test_every_code_that_a_route_names_is_explained() -> None:
    page = http_api_doc.TARGET.read_text()
    explained = {code_words(line)[0] for line in section(page, "Errors").splitlines() if line.startswith("| 4")}
    named = set(re.findall(r"(?:40\d|429|503)\s+`(\w+)`", page.partition("## Errors")[0]))
    assert "invalid_credentials" in named and named - {"limiter_unavailable"} <= explained
