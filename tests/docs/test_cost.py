"""The figures on the page on cost are those that the code reckons, and the stage has what they count."""

from __future__ import annotations

import re

import pytest

from ops.cost_model import ASSUMED_S
from ops.prices import PRICES
from scripts import cost_doc

PAGE = cost_doc.TARGET.read_text()


def test_the_page_is_current() -> None:
    assert cost_doc.render(PAGE) == PAGE, "run: python scripts/cost_doc.py"


def test_all_figures_are_on_the_page() -> None:
    assert sorted(re.findall(r"<!-- figures: (\w+) -->", PAGE)) == sorted(cost_doc.FIGURES)


def test_a_changed_price_changes_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    dearer = {**PRICES, "websocket_message": PRICES["http_request"]}
    monkeypatch.setattr(cost_doc, "PRICES", dearer)
    assert cost_doc.render(PAGE) != PAGE


def test_numbers_in_sentences() -> None:
    """A month of one value a second."""
    message = PRICES["websocket_message"].of(30 * 86_400)
    assert f"${message:.2f}" in PAGE
    assert "`--assume bridge=0.05`" in PAGE and "bridge" in ASSUMED_S
