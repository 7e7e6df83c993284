"""What is odd in a document, and what of panes is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.domain.document_warnings import MOST_WARNINGS, warnings_of
from tidegate.domain.documents import InvalidDocument, check_document
from tidegate.domain.payload_paths import is_path


def pane(pane_id: str = "p", x: int = 0, y: int = 0, w: int = 1, h: int = 1, *widgets: Any) -> dict[str, Any]:
    return {"id": pane_id, "layout": {"x": x, "y": y, "w": w, "h": h}, "widgets": list(widgets)}


def widget(kind: str = "value", **settings: Any) -> dict[str, Any]:
    return {"id": "w", "type": kind, "settings": settings}


def document(*panes: Any, **more: Any) -> dict[str, Any]:
    sources = [{"id": "s", "type": "sse", "settings": {"url": "https://x.example/"}}]
    return {"schemaVersion": 1, "title": "T", "datasources": sources, "panes": list(panes), **more}


def test_a_document_without_oddities() -> None:
    good = widget(bindings=[{"datasourceId": "s", "path": 'a[0]["b c"][*]'}], columns=[{"path": "a"}])
    made = document(pane("p", 0, 0, 2, 1, good), pane("q", 2, 0), pane("r", 0, 1, 3))
    assert warnings_of(check_document(made)) == []


@pytest.mark.parametrize(
    ("panes", "path", "text"),
    [
        ([{**pane(), "id": None}], "panes[0].id", "has no id"),
        ([{"id": "p"}], "panes[0].layout", "x, y, w and h"),
        ([{"id": "p", "layout": {"x": 0, "y": None, "w": 1, "h": 1}}], "panes[0].layout", "x, y, w and h"),
        ([pane("p", 2, 0, 2)], "panes[0].layout", "leaves the 3 columns"),
        ([pane("p", 0, 0, 2, 2), pane("q", 1, 1)], "panes[1].layout", "overlaps another one, panes[0]"),
        ([pane("p", 0, 0, 1, 1, {"type": "value"})], "panes[0].widgets[0].id", "has no id"),
        ([pane("p", 0, 0, 1, 1, widget("map"))], "panes[0].widgets[0].type", "value, gauge, sparkline"),
        (
            [pane("p", 0, 0, 1, 1, widget(bindings=[{"datasourceId": "none"}]))],
            "panes[0].widgets[0].settings.bindings[0].datasourceId",
            "No datasource",
        ),
        (
            [pane("p", 0, 0, 1, 1, widget(bindings=[{"datasourceId": "s", "path": "a..b"}]))],
            "panes[0].widgets[0].settings.bindings[0].path",
            "Allowed is a path such as",
        ),
        (
            [pane("p", 0, 0, 1, 1, widget("table", columns=[{"path": "a["}]))],
            "panes[0].widgets[0].settings.columns[0].path",
            "Allowed is a path such as",
        ),
    ],
)
def test_what_may_be_saved_and_is_odd(panes: list[Any], path: str, text: str) -> None:
    ((found, message),) = warnings_of(check_document(document(*panes)))
    assert found == path and text in message


@pytest.mark.parametrize(
    ("panes", "path", "allowed"),
    [
        ([1], "panes[0]", "an object"),
        ([pane(), pane("p", 1)], "panes[1].id", "unique; 'p' is there twice"),
        ([{"id": 7}], "panes[0].id", "1 to 200 characters"),
        ([{"id": "p", "layout": []}], "panes[0].layout", "an object"),
        ([pane(x=-1)], "panes[0].layout.x", "an integer from 0 to 11"),
        ([pane(w=13)], "panes[0].layout.w", "an integer from 1 to 12"),
        ([pane(h=101)], "panes[0].layout.h", "an integer from 1 to 100"),
        ([{"id": "p", "layout": {"x": True}}], "panes[0].layout.x", "an integer"),
        ([{"id": "p", "layout": {"y": 0.5}}], "panes[0].layout.y", "an integer from 0 to 10000"),
        ([{"id": "p", "widgets": {}}], "panes[0].widgets", "a list"),
        ([pane("p", 0, 0, 1, 1, "x")], "panes[0].widgets[0]", "an object"),
        ([pane("p", 0, 0, 1, 1, widget(), widget())], "panes[0].widgets[1].id", "unique"),
        ([pane("p", 0, 0, 1, 1, {"settings": 1})], "panes[0].widgets[0].settings", "an object"),
        ([{"widgets": [{}] * 1001}], "panes", "at most 1000 widgets"),
    ],
)
def test_what_cannot_be_drawn_is_refused(panes: list[Any], path: str, allowed: str) -> None:
    with pytest.raises(InvalidDocument) as refused:
        check_document(document(*panes))
    ((found, text),) = refused.value.problems
    assert found == path and allowed in text


def test_documents_of_other_tools_stay_valid() -> None:
    """Panes that leave out what pages can do without, and widgets of kinds that only they draw."""
    foreign = {
        "title": "Other",
        "layout": {"i": "0", "x": 0, "y": 0, "w": 2, "h": 4},
        "widgets": [{"type": "indicator", "settings": {"value": 'datasources["s"].a'}}, {"type": "html"}],
    }
    made = document(foreign, {}, settings={"theme": "dark", "script": ""}, generator={"name": "other"})
    assert check_document(made)["panes"] == [foreign, {}]


def test_panes_beyond_what_a_document_may_have_are_not_compared() -> None:
    assert warnings_of(document(*[pane(f"p{number}", 0, number) for number in range(200)], *[{}] * 10_000)) == []


def test_there_is_an_end_of_warnings() -> None:
    many = [pane(f"p{number}", 0, number, 1, 1, *[{"type": "x"}] * 5) for number in range(100)]
    assert len(warnings_of(document(*many))) == MOST_WARNINGS


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 13) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["id", "type", "layout", "x", "y", "w", "h", "widgets", "settings", "bindings", "columns", "path"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=25,
)


@given(_JSON, _JSON)
def test_any_json_is_checked_without_an_error(panes: Any, datasources: Any) -> None:
    made = {"schemaVersion": 1, "title": "T", "panes": panes, "datasources": datasources}
    for path, message in warnings_of(made):
        assert path and message
    try:
        check_document(made)
    except InvalidDocument as refused:
        assert refused.problems


@pytest.mark.parametrize("text", ["", "a", "a.b", "a[0]", '["a b"].c', "[*]", "a[*].b", "$x-1", "ä.ö", "[0][1]"])
def test_paths(text: str) -> None:
    assert is_path(text)


@pytest.mark.parametrize(
    "text", [".a", "a.", "a..b", "a[", "a[x]", "a b", "[0]b", '["a\\x"]', 'a["b]', "a[-1]", "a.[0]"]
)
def test_what_is_no_path(text: str) -> None:
    assert not is_path(text)
