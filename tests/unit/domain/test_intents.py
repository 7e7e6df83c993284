from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tidegate.domain.intents import build_intent, intent_hash, stream_key
from tidegate.domain.profiles import BrokerProfile, CredentialProfile, CredentialType, Transport
from tidegate.errors import Denied, InvalidInput, NotFound, PolicyBlocked, TidegateError

BROKER = BrokerProfile("b", "broker", Transport.IOT_CORE)
HOME = ("https://x.example:443",)
BEARER = CredentialProfile("c", "bearer", CredentialType.BEARER, HOME)
BASIC = CredentialProfile("c", "basic", CredentialType.BASIC, HOME)


def mqtt(**settings: object) -> dict[str, object]:
    return {"id": "s", "type": "mqtt", "settings": {"brokerProfileId": "b", "topic": "a/b", **settings}}


def sse(**settings: object) -> dict[str, object]:
    return {"id": "s", "type": "sse", "settings": {"url": " https://x.example/s ", **settings}}


def test_equal_intents_share_a_stream_across_dashboards() -> None:
    one = build_intent("d1", mqtt(), broker=BROKER)
    other = build_intent("d2", mqtt(topic=" a/b ", parser="JSON"), broker=BROKER)
    assert intent_hash(one) != intent_hash(other)
    assert stream_key(one) == stream_key(other)


@pytest.mark.parametrize("change", [{"topic": "a/c"}, {"parser": "text"}])
def test_what_matters_changes_the_hash(change: dict[str, object]) -> None:
    assert intent_hash(build_intent("d", mqtt(), broker=BROKER)) != intent_hash(
        build_intent("d", mqtt(**change), broker=BROKER)
    )


def test_a_changed_profile_is_another_intent() -> None:
    changed = BrokerProfile("b", "broker", Transport.IOT_CORE, connection_revision=2)
    before, after = build_intent("d", mqtt(), broker=BROKER), build_intent("d", mqtt(), broker=changed)
    assert intent_hash(before) != intent_hash(after) and stream_key(before) != stream_key(after)
    renamed = BrokerProfile("b", "other name", Transport.IOT_CORE, revision=9, allow_public_use=True)
    assert intent_hash(before) == intent_hash(build_intent("d", mqtt(), broker=renamed))


def test_the_order_of_headers_does_not_matter() -> None:
    one = build_intent("d", sse(headers={"b": "2", "a": "1"}))
    assert intent_hash(one) == intent_hash(build_intent("d", sse(headers='{"a": "1", "b": "2"}')))
    assert one["url"] == "https://x.example/s"
    assert list(one)[:3] == ["protocol", "dashboardId", "datasourceId"]


@pytest.mark.parametrize(
    ("datasource", "profiles", "error"),
    [
        (mqtt(), {}, Denied),
        (mqtt(brokerProfileId=""), {}, InvalidInput),
        (mqtt(topic=" "), {"broker": BROKER}, InvalidInput),
        (mqtt(topic="a/#/b"), {"broker": BROKER}, InvalidInput),
        (sse(url=""), {}, InvalidInput),
        (sse(credentialProfileId="c"), {}, Denied),
        (sse(credentialProfileId="c", authPlacement="query"), {"credential": BEARER}, InvalidInput),
        (sse(credentialProfileId="c", authPlacement="query", queryParamName="k"), {"credential": BASIC}, InvalidInput),
        (sse(credentialProfileId="c"), {"credential": replace(BEARER, destinations=())}, Denied),
        (sse(credentialProfileId="c", url="https://evil.example/"), {"credential": BEARER}, Denied),
        (sse(credentialProfileId="c", url="http://x.example/"), {"credential": BEARER}, Denied),
        (sse(credentialProfileId="c", url="https://x.example@evil.example/"), {"credential": BEARER}, PolicyBlocked),
        (sse(headers="[1"), {}, InvalidInput),
        ({"id": "s", "type": "clock", "settings": {}}, {}, NotFound),
    ],
)
def test_what_cannot_be_an_intent(
    datasource: dict[str, object], profiles: dict[str, Any], error: type[TidegateError]
) -> None:
    with pytest.raises(error):
        build_intent("d", datasource, **profiles)


def test_external_brokers_need_basic_credentials() -> None:
    external = BrokerProfile("b", "x", Transport.EXTERNAL, "mqtt://h", credential_profile_id="c")
    with pytest.raises(InvalidInput, match="basic"):
        build_intent("d", mqtt(), broker=external, credential=BEARER)
    assert build_intent("d", mqtt(qos=1), broker=external, credential=BASIC)["qos"] == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"headers": {"Host: a\t": "x"}},
        {"headers": {"X-A\r\nHost": "x"}},
        {"headers": {"X A": "x"}},
        {"headers": {"Ünicode": "x"}},
        {"headers": {"X-A": "a\r\nHost: b"}},
        {"headers": {"X-A": "a\0"}},
        {"headers": {"X-A": "\ud800"}},
        {"headers": {"X-A": True}},
        {"headers": {"X-A": {"b": 1}}},
        {"headers": {"X-A": None}},
        {"headers": '{"Host: a": "x"}'},
        {"headers": "[" * 100_000},
        {"headers": '{"X-A": NaN}'},
        {"headers": '{"X-A": 1e999}'},
        {"headers": '"\ud800"'},
        {"requestHeaders": {"Host: a": "x"}},
    ],
    ids=lambda settings: ascii(settings)[:40],
)
def test_headers_that_are_no_header_line_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match="headers"):
        build_intent("d", sse(**settings))


def test_headers_are_kept_as_they_are_sent() -> None:
    sent = {" X-A ": " a\tb ", "x_~9": "", "Accept-Language": "de; é", "X-N": 5}
    kept = {"X-A": "a\tb", "x_~9": "", "Accept-Language": "de; é", "X-N": "5"}
    assert build_intent("d", sse(headers=sent))["headers"] == kept


@pytest.mark.parametrize("protocols", ["a, b\r\nHost: c", ["a b"], ["a,b"], ["é"]])
def test_subprotocols_are_tokens(protocols: object) -> None:
    with pytest.raises(InvalidInput, match="protocols"):
        build_intent("d", {"id": "s", "type": "websocket", "settings": {"url": "wss://x", "protocols": protocols}})
