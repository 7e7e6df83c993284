"""What each caller is shown of a dashboard, and that nothing else is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.domain.access import AclLevel, Role, Visibility
from tidegate.domain.dashboards import AclEntry, Dashboard, DashboardSummary
from tidegate.domain.documents import check_document
from tidegate.domain.projection import document_for_viewers, shown_dashboard, shown_owner, topic_digest
from tidegate.domain.users import User


def _words(text: str) -> list[str]:
    return text.split()


#: Every place of a document that viewers are shown. `[]` is an item of a list, `*` any name.
SHOWN = _words("""
schemaVersion title columns width
settings.theme settings.timeZone settings.windowSeconds settings.kiosk
datasources[].id datasources[].title datasources[].type datasources[].enabled
datasources[].settings.staleAfterSeconds datasources[].settings.history.seconds datasources[].settings.history.everyMs
panes[].id panes[].title
panes[].layout.i panes[].layout.x panes[].layout.y panes[].layout.w panes[].layout.h
panes[].widgets[].id panes[].widgets[].type panes[].widgets[].title panes[].widgets[].enabled
panes[].widgets[].settings.bindings[].datasourceId panes[].widgets[].settings.bindings[].path
panes[].widgets[].settings.bindings[].label panes[].widgets[].settings.bindings[].reduce
panes[].widgets[].settings.bindings[].scale panes[].widgets[].settings.bindings[].offset
panes[].widgets[].settings.bindings[].topicDigest panes[].widgets[].settings.text
panes[].widgets[].settings.unit panes[].widgets[].settings.decimals panes[].widgets[].settings.min
panes[].widgets[].settings.max panes[].widgets[].settings.thresholds[].from
panes[].widgets[].settings.thresholds[].state panes[].widgets[].settings.thresholds[].label
panes[].widgets[].settings.windowSeconds panes[].widgets[].settings.columns[].path
panes[].widgets[].settings.columns[].header panes[].widgets[].settings.columns[].format
panes[].widgets[].settings.emptyText panes[].widgets[].settings.map.*.state panes[].widgets[].settings.map.*.label
""")
#: What documents have besides, or may have one day.
OTHERS = _words("""
url headers requestHeaders Authorization credentialProfileId brokerProfileId topic protocols authPlacement
queryParamName idleTimeoutMs parser qos keepaliveSeconds script style resources variables value choices name image
generator html original ownerId acl shareToken password x-later
""")
#: Every name at every place, so that a known name at a wrong place is tried as well.
NAMES = sorted({name for path in SHOWN for name in re.findall(r"\w+", path)} | set(OTHERS))

leaves = st.sampled_from(["text", "text", "text", "number", "number", "number", "flag", "null"])
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=5,
)


def some(*fields: str, **shaped: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """An object with these fields, mostly as the form has them, and with a few others."""
    right = dict.fromkeys(fields, leaves) | shaped
    known = st.fixed_dictionaries({name: st.one_of(shape, shape, shape, values) for name, shape in right.items()})
    return st.builds(
        lambda more, said: {**more, **said}, st.dictionaries(st.sampled_from(NAMES), values, max_size=2), known
    )


def listed(*fields: str, **shaped: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(some(*fields, **shaped), min_size=1, max_size=2)


bindings = listed("datasourceId", "path", "label", "topic", "topicDigest", "reduce", "scale", "offset")
widget_settings = some(
    "unit",
    "decimals",
    "emptyText",
    "text",
    bindings=bindings,
    thresholds=listed("from", "state", "label"),
    columns=listed("path", "header", "format"),
    map=st.dictionaries(st.sampled_from(["0", "1"]), some("state", "label"), max_size=2),
)
widgets = listed("id", "type", "title", "enabled", settings=widget_settings)
panes = listed("id", "title", layout=some("i", "x", "y", "w", "h"), widgets=widgets)
datasource_settings = some("url", "topic", "staleAfterSeconds", history=some("seconds", "everyMs"))
datasources = listed("id", "title", "type", "enabled", settings=datasource_settings)
documents = some(
    "schemaVersion", "title", "columns", "width", "image", settings=some("theme", "script"), panes=panes
).flatmap(lambda document: datasources.map(lambda made: {**document, "datasources": made}))


def marked(value: Any, numbers: Iterator[int], path: str, found: dict[str, str]) -> Any:
    """The value with a marker of its own in every leaf. `found`: marker -> path."""
    if isinstance(value, dict):
        at = "*" if path.endswith("settings.map") and path.startswith("panes") else None
        return {
            name: marked(inner, numbers, f"{path}.{at or name}".lstrip("."), found) for name, inner in value.items()
        }
    if isinstance(value, list):
        return [marked(inner, numbers, f"{path}[]", found) for inner in value]
    marker = next(numbers)
    if value == "text":
        found[f"Marker-{marker}"] = path
        return f"Marker-{marker}"
    if value == "number":
        found[str(marker)] = path
        return marker
    return True if value == "flag" else None


@given(documents)
def test_nothing_is_shown_but_what_is_listed(kinds: dict[str, Any]) -> None:
    places: dict[str, str] = {}
    document = marked(kinds, count(100_000), "", places)
    shown = json.dumps(document_for_viewers(document))
    # A digest is made of a topic, and may look like a marker.
    marked_only = re.sub(r'"topicDigest": "[0-9a-f]{8}"', "", shown)
    seen = {places[marker] for marker in re.findall(r"Marker-\d+|(?<![-\d])\d{6,}", marked_only)}
    assert seen <= set(SHOWN)
    assert not set(OTHERS) & set(_names(json.loads(shown)))


def _names(value: Any, *, free: bool = False) -> Iterator[str]:
    """All names of objects, but for those of a `map`, which are values that a widget gives a state to."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if not free:
                yield name
            yield from _names(inner, free=name == "map")
    elif isinstance(value, list):
        for inner in value:
            yield from _names(inner)


FULL: dict[str, Any] = {
    "schemaVersion": 1,
    "title": "T",
    "columns": 4,
    "width": "lg",
    "image": "https://secret.example/picture",
    "generator": "secret",
    "settings": {
        "theme": "dark",
        "timeZone": "UTC",
        "windowSeconds": 60,
        "kiosk": True,
        "script": "secret",
        "variables": [{"name": "line", "value": "secret", "choices": ["secret"]}],
    },
    "datasources": [
        {
            "id": "a",
            "title": "A",
            "type": "sse",
            "enabled": True,
            "settings": {
                "url": "https://secret.example/feed",
                "headers": {"X-Plant": "secret"},
                "credentialProfileId": "secret",
                "staleAfterSeconds": 60,
                "history": {"seconds": 600, "everyMs": 1000},
            },
        },
        {"id": "b", "type": "mqtt", "settings": {"brokerProfileId": "secret", "topic": "secret/topic"}},
    ],
    "panes": [
        {
            "id": "p",
            "title": "P",
            "layout": {"i": "p", "x": 0, "y": 0, "w": 2, "h": 1, "more": "secret"},
            "widgets": [
                {
                    "id": "w",
                    "type": "gauge",
                    "title": "W",
                    "enabled": True,
                    "original": {"html": "secret"},
                    "settings": {
                        "bindings": [
                            {
                                "datasourceId": "a",
                                "path": "x.y[0]",
                                "label": "L",
                                "topic": "secret/topic",
                                "reduce": "max",
                                "scale": 0.1,
                                "offset": -1,
                            },
                            {"datasourceId": "a", "topicDigest": "e40c292c"},
                        ],
                        "unit": "bar",
                        "decimals": 1,
                        "min": 0,
                        "max": 10,
                        "thresholds": [{"from": 5, "state": "warn", "label": "high"}],
                        "windowSeconds": 60,
                        "columns": [{"path": "x", "header": "X", "format": "0.0"}],
                        "emptyText": "nothing yet",
                        "text": "Service on Monday",
                        "map": {"0": {"state": "ok", "label": "off", "more": "secret"}},
                        "html": "secret",
                    },
                }
            ],
        }
    ],
}


def test_what_it_takes_to_draw_a_dashboard_is_shown() -> None:
    places: dict[str, str] = {}
    kinds = json.loads(json.dumps(FULL), parse_int=lambda _: "number", parse_float=lambda _: "number")
    texts = json.loads(re.sub(r'(?<=[:\[] )"(?!number")[^"]*"', '"text"', json.dumps(kinds)))
    shown = json.dumps(document_for_viewers(marked(texts, count(100_000), "", places)))
    seen = {place for marker, place in places.items() if marker in shown}
    flags = {"settings.kiosk", "datasources[].enabled", "panes[].widgets[].enabled"}
    assert seen == set(SHOWN) - flags
    viewed = document_for_viewers(FULL)
    assert viewed["settings"]["kiosk"] and viewed["datasources"][0]["enabled"]
    assert viewed["panes"][0]["widgets"][0]["enabled"]


def test_the_projection_is_a_document_and_its_own_projection() -> None:
    document = check_document(FULL)
    viewed = document_for_viewers(document)
    assert "secret" not in json.dumps(viewed)
    assert check_document(viewed) == viewed == document_for_viewers(viewed)


def test_a_topic_is_shown_as_its_digest() -> None:
    # The values of FNV-1a are those of its authors' test vectors (isthe.com/chongo/tech/comp/fnv).
    digests = [topic_digest(topic) for topic in ("", "a", "foobar", "plant/3/ü")]
    assert digests[:3] == ["811c9dc5", "e40c292c", "bf9cf968"] and len(set(digests)) == 4
    bound = document_for_viewers(FULL)["panes"][0]["widgets"][0]["settings"]["bindings"]
    assert [one["topicDigest"] for one in bound] == [topic_digest("secret/topic"), "e40c292c"]


def test_a_value_of_another_kind_is_not_shown() -> None:
    settings: dict[str, object] = {"staleAfterSeconds": "secret"}
    source = {"id": "a", "type": "sse", "title": {"url": "secret"}, "settings": settings}
    document = check_document(FULL | {"datasources": [source], "panes": []})
    # As it may have been stored before panes and a history were checked.
    document["panes"] = ["secret", {"title": ["secret"], "widgets": 1}]
    settings["history"] = {"seconds": {"url": "secret"}, "everyMs": True, "from": "secret"}
    viewed = document_for_viewers(document)
    assert viewed["datasources"] == [{"id": "a", "type": "sse", "settings": {"history": {}}}]
    assert viewed["panes"] == [{}]


def user(user_id: str, role: Role = Role.VIEWER) -> User:
    return User(user_id, f"{user_id}@x.example", role, True, 1, "hash")


def dashboard() -> Dashboard:
    acl = {level.value: AclEntry(level.value, level, "owner", 0) for level in AclLevel}
    return Dashboard("d", "owner", Visibility.PUBLIC, "share", 3, check_document(FULL), acl)


@pytest.mark.parametrize(
    ("who", "edits", "shares"),
    [
        (None, False, False),
        (user("outsider"), False, False),
        (user("other", Role.EDITOR), False, False),
        (user("viewer"), False, False),
        (user("editor"), True, False),
        (user("manager"), True, True),
        (user("owner"), True, True),
        (user("boss", Role.ADMIN), True, True),
    ],
)
def test_what_each_caller_is_shown(who: User | None, edits: bool, shares: bool) -> None:
    one = dashboard()
    shown = shown_dashboard(one, who)
    assert (shown.can_edit, shown.can_share) == (edits, shares)
    assert shown.document == (one.document if edits else document_for_viewers(one.document))
    assert shown.owner_id == ("owner" if edits else None)
    assert (shown.acl, shown.share_token, shown.share_version) == (
        (one.acl, "share", 3) if shares else (None, None, None)
    )


def test_a_list_names_the_owner_to_the_owner_and_to_admins() -> None:
    summary = DashboardSummary("d", "owner", "T", Visibility.PRIVATE, 1, 0)
    told: Mapping[str, str | None] = {
        who.user_id: shown_owner(summary, who)
        for who in (user("owner"), user("boss", Role.ADMIN), user("other", Role.EDITOR))
    }
    assert told == {"owner": "owner", "boss": "owner", "other": None}
