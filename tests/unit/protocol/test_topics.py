from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.errors import InvalidInput
from tidegate.protocol.topics import IOT_CORE, MQTT, TopicLimits, check_filter, covers, first_covering, matches

levels = st.sampled_from(["a", "b", "$SYS", ""])
topics = st.lists(levels, min_size=1, max_size=4).map("/".join).filter(bool)
filters = (
    st.tuples(st.lists(st.one_of(levels, st.just("+")), max_size=4), st.booleans())
    .map(lambda parts: "/".join([*parts[0], *(["#"] if parts[1] else [])]))
    .filter(bool)
)


@pytest.mark.parametrize(
    ("topic_filter", "topic", "expected"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/B", False),
        ("a/+", "a/b", True),
        ("a/+", "a", False),
        ("a/+", "a/b/c", False),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("#", "a/b", True),
        ("+", "/a", False),
        ("/+", "/a", True),
        ("#", "$SYS/x", False),
        ("+/x", "$SYS/x", False),
        ("$SYS/#", "$SYS/x", True),
        ("a/+/c", "a//c", True),
    ],
)
def test_matches_as_mqtt_says(topic_filter: str, topic: str, expected: bool) -> None:
    assert matches(topic_filter, topic) is expected


@pytest.mark.parametrize(
    ("pattern", "requested", "expected"),
    [
        ("a/+", "a/#", False),
        ("a/#", "a/+", True),
        ("a/#", "a/+/b", True),
        ("a/#", "a", True),
        ("a/+", "a/b", True),
        ("a/b", "a/+", False),
        ("#", "$SYS/x", False),
        ("#", "+/x", True),
        ("a/#", "b/#", False),
    ],
)
def test_an_allowlist_pattern_must_cover_all_of_a_filter(pattern: str, requested: str, expected: bool) -> None:
    assert covers(pattern, requested) is expected


@given(filters, filters, topics)
def test_what_is_covered_never_matches_more(pattern: str, requested: str, topic: str) -> None:
    if covers(pattern, requested) and matches(requested, topic):
        assert matches(pattern, topic)


@given(filters)
def test_every_filter_covers_itself(topic_filter: str) -> None:
    if not (topic_filter.startswith("$") and topic_filter[0] in "+#"):
        assert covers(topic_filter, topic_filter)


@pytest.mark.parametrize("limits", [IOT_CORE, MQTT])
@pytest.mark.parametrize(
    "bad", ["", "a/#/b", "a#", "a/b+", "+a", "a\x00", "$share/g/a", "$share", "$queue/a", "a/\ud800"]
)
def test_malformed_filters_are_refused(bad: str, limits: TopicLimits) -> None:
    with pytest.raises(InvalidInput):
        check_filter(bad, limits)


@pytest.mark.parametrize("long", ["x" * 257, "ä" * 129, "/".join("abcdefghi")])
def test_the_limits_of_iot_core_are_not_those_of_mqtt(long: str) -> None:
    assert check_filter(long, MQTT) == long
    with pytest.raises(InvalidInput):
        check_filter(long, IOT_CORE)
    with pytest.raises(InvalidInput):
        check_filter("x" * 65_536, MQTT)


def test_a_filter_belongs_to_the_first_entry_that_covers_it() -> None:
    assert first_covering(["b/#", "a/+", "a/#"], "a/x") == "a/+"
    assert first_covering(["b/#"], "a/x") is None
