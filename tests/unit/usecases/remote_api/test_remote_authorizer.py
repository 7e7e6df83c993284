from __future__ import annotations

import json

import pytest

from tests.containers.gateway import DASHBOARD, DATASOURCE, GatewayContainer
from tests.containers.remote_api import EVERYTHING, INTENT, KEY, MQTT, SSE, WEBSOCKET, RemoteApiContainer
from tests.doubles.platform import PlainKeys
from tidegate.domain.access import Refusal
from tidegate.domain.limits import FailureMode, RateDecision
from tidegate.domain.partitions import partition_of
from tidegate.domain.remote_api import Introspection
from tidegate.domain.subscriptions import Stream
from tidegate.errors import (
    ApiBusy,
    ApiTimeout,
    Denied,
    InvalidInput,
    NotFound,
    PolicyBlocked,
    TidegateError,
    Unauthenticated,
    Unavailable,
)


def test_a_subscribe_asks_and_keeps_the_token_out_of_sight() -> None:
    container = RemoteApiContainer()
    container.open()
    token = container.token()
    container.subscribe("c", DASHBOARD, DATASOURCE, token)
    row = container.subscriptions.rows[KEY]
    assert container.api.asked == [token] and row.live and row.session_token == token
    assert token not in repr(row) and "pw-7" not in repr(row)
    assert container.publish() == 1
    assert container.observer.counts[("introspections", "authorized")] == 1


def test_a_refresh_keeps_the_newest_token_only() -> None:
    container = RemoteApiContainer()
    container.open()
    first, newest, older = container.token(ttl=100), container.token(ttl=300), container.token(ttl=200)
    for token in (first, newest, older):
        container.subscribe("c", DASHBOARD, DATASOURCE, token)
    row = container.subscriptions.rows[KEY]
    assert row.session_token == newest and row.claim.expires_at == int(container.clock.now()) + 300
    assert len(container.api.asked) == 3, "every refresh is asked about"


@pytest.mark.parametrize(
    "error",
    [
        Denied("x"),
        NotFound("x"),
        Unauthenticated("x"),
        InvalidInput("x"),
        Unavailable("x"),
        ApiTimeout("x"),
        ApiBusy("x"),
    ],
)
def test_a_refusal_admits_nobody_and_ends_nobody(error: TidegateError) -> None:
    container = RemoteApiContainer()
    container.open()
    container.api.answer = lambda token: error
    with pytest.raises(type(error)):
        container.subscribe("c", DASHBOARD, DATASOURCE, container.token())
    assert not container.subscriptions.rows
    container.api.answer = lambda token: INTENT
    container.subscribe("c", DASHBOARD, DATASOURCE, container.token())
    container.api.answer = lambda token: error
    with pytest.raises(type(error)):
        container.subscribe("c", DASHBOARD, DATASOURCE, container.token())
    assert container.subscriptions.rows[KEY].live
    assert container.observer.counts[("introspections", error.code)] == 2


@pytest.mark.parametrize(
    ("error", "code", "text", "retryable"),
    [
        (Unauthenticated("no"), "STREAM_AUTH_FAILED", "no", False),
        (Denied("no"), "STREAM_AUTH_FAILED", "no", False),
        (NotFound("no"), "STREAM_POLICY_BLOCKED", "no", False),
        (InvalidInput("no"), "STREAM_POLICY_BLOCKED", "no", False),
        (ApiBusy("internal"), "STREAM_RATE_LIMITED", "Subscription failed", True),
        (ApiTimeout("internal"), "STREAM_CONNECT_TIMEOUT", "Subscription failed", True),
        (Unavailable("internal"), "STREAM_CONNECT_FAILED", "Subscription failed", True),
    ],
)
def test_what_the_browser_hears(error: TidegateError, code: str, text: str, retryable: bool) -> None:
    container = RemoteApiContainer()
    container.open()
    container.api.answer = lambda token: error
    subscribe = {"type": "subscribe", "requestId": "r", "dashboardId": DASHBOARD, "datasourceId": DATASOURCE}
    container.handle("c", json.dumps(subscribe | {"sessionToken": container.token()}))
    (ack,) = container.frames("ack")
    assert (ack["ok"], ack["errorCode"], ack["message"], ack["retryable"]) == (False, code, text, retryable)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"topic": "elsewhere"}, PolicyBlocked),
        ({"topicAllowlist": ["a/c"]}, PolicyBlocked),
        ({"topic": "a/#/b"}, PolicyBlocked),
        ({"protocol": "http"}, PolicyBlocked),
        (WEBSOCKET, PolicyBlocked),
        (SSE | {"url": "https://127.0.0.1/"}, PolicyBlocked),
        (SSE | {"url": "ftp://source.example/"}, PolicyBlocked),
        (MQTT | {"transport": None, "topic": "elsewhere"}, PolicyBlocked),
        (MQTT | {"transport": None, "topicAllowlist": ["a/c"]}, PolicyBlocked),
        (MQTT | {"transport": "external", "brokerUrl": "mqtts://broker.example:8883"}, PolicyBlocked),
        (SSE | {"url": None}, Unavailable),
        (SSE | {"headers": None}, Unavailable),
        (SSE | {"headers": {"X": 1}}, Unavailable),
        (SSE | {"protocols": None}, Unavailable),
        (SSE | {"idleTimeoutMs": "120000"}, Unavailable),
        (MQTT | {"transport": None, "brokerUrl": None}, Unavailable),
        (MQTT | {"transport": None, "tls": "strict"}, Unavailable),
        (MQTT | {"transport": None, "password": 7}, Unavailable),
        (MQTT | {"transport": None, "qos": None}, Unavailable),
        ({"topic": None}, Unavailable),
        ({"brokerProfileId": 7}, Unavailable),
        ({"topicAllowlist": "a/#"}, Unavailable),
        ({"topicAllowlist": [1]}, Unavailable),
        ({"protocol": None}, Unavailable),
    ],
)
def test_what_an_intent_has_to_be(changes: dict[str, object], kind: type[TidegateError]) -> None:
    container = RemoteApiContainer()
    container.open()
    container.api.answer = lambda token: INTENT | changes
    with pytest.raises(kind):
        container.subscribe("c", DASHBOARD, DATASOURCE, container.token())
    assert not container.subscriptions.rows


def stream_of(intent: dict[str, object]) -> Stream:
    stream = Introspection(intent).stream(EVERYTHING, PlainKeys().key, 0)
    assert stream.stream_key == Introspection(intent).stream_key(PlainKeys().key)
    return stream


def test_secrets_are_no_part_of_a_streams_name_on_our_broker_but_the_profile_is() -> None:
    changes: list[dict[str, object]] = [{}, {"password": "another"}, {"brokerProfileId": "b2"}, {"parser": "text"}]
    keys = [stream_of(INTENT | change).stream_key for change in changes]
    assert keys[0] == keys[1] and len(set(keys)) == 3


@pytest.mark.parametrize(
    ("intent", "others", "same"),
    [
        (
            SSE,
            [
                {"url": "https://source.example/stream?key=another"},
                {"headers": {"Authorization": "Bearer another", "X-One": "1"}},
                {"headers": {"Authorization": "Bearer s3cret"}},
                {"idleTimeoutMs": 5000},
                {"parser": "text"},
            ],
            [{"headers": {"X-One": "1", "Authorization": "Bearer s3cret"}}, {"authPlacement": "query"}],
        ),
        (WEBSOCKET, [{"protocols": ["two"]}, {"protocols": []}, {"url": "wss://source.example/x"}], [{}]),
        (
            MQTT,
            [
                {"password": "another"},
                {"username": None, "password": None},
                {"brokerUrl": "mqtt://broker.example:443"},
                {"brokerProfileId": "b2"},
                {"topic": "a/c"},
                {"qos": 0},
                {"tls": {}},
            ],
            [{"tls": {"ca": "PEM"}}, {"topicAllowlist": ["a/#"]}, {"transport": "external"}],
        ),
    ],
    ids=["sse", "websocket", "mqtt"],
)
def test_a_stream_of_the_relay_is_one_for_equal_intents_and_holds_no_secret(
    intent: dict[str, object], others: list[dict[str, object]], same: list[dict[str, object]]
) -> None:
    stream = stream_of(intent)
    keys = {stream_of(intent | change).stream_key for change in others}
    assert len(keys | {stream.stream_key}) == len(others) + 1
    assert {stream_of(intent | change).stream_key for change in same} == {stream.stream_key}
    assert stream.relayed and stream.protocol == intent["protocol"]
    for told in ("s3cret", "example", "PEM", "Authorization"):
        assert told not in f"{stream!r}{stream.intent}"


def test_streams_of_a_broker_are_of_one_partition() -> None:
    assert len({partition_of(stream_of(MQTT | {"topic": f"a/{number}"})) for number in range(9)}) == 1


def test_a_refresh_after_a_secret_changed_is_a_new_subscription_to_the_new_stream() -> None:
    container = RemoteApiContainer()
    container.open()
    container.api.answer = lambda token: SSE
    container.subscribe("c", DASHBOARD, DATASOURCE, container.token())
    first = container.subscriptions.rows[KEY]
    assert container.subscribe("c", DASHBOARD, DATASOURCE, container.token()).refreshed
    container.api.answer = lambda token: SSE | {"headers": {}}
    again = container.subscribe("c", DASHBOARD, DATASOURCE, container.token())
    assert not again.refreshed and again.row.generation != first.generation and again.row.stream_key != first.stream_key
    assert [row.stream_key for row in container.rows()] == [again.row.stream_key]


def test_a_revocation_that_the_feed_told_beats_an_older_answer() -> None:
    container = RemoteApiContainer()
    container.open()

    def revoked_meanwhile(token: str) -> dict[str, object]:
        container.remote.raise_to(DASHBOARD, 2)
        return INTENT

    container.api.answer = revoked_meanwhile
    with pytest.raises(Denied):
        container.subscribe("c", DASHBOARD, DATASOURCE, container.token())
    assert not container.subscriptions.rows
    container.subscribe("c", DASHBOARD, DATASOURCE, container.token(share_version=2))
    assert container.subscriptions.rows[KEY].live


def test_a_raised_version_withholds_and_cuts_guests_only() -> None:
    container = RemoteApiContainer()
    container.subscribed("guest")
    container.subscribed("member", user="member")
    container.remote.raise_to(DASHBOARD, 2)
    assert container.publish() == 1 and container.sender.data("member") == [1] and container.sender.data("guest") == []
    assert [(row.key.connection_id, why) for row, why in container.evaluate(container.rows())] == [
        ("guest", Refusal.REVOKED)
    ]


def test_a_token_without_an_intent_is_of_the_one_told() -> None:
    container = RemoteApiContainer()
    container.open()
    container.subscribe("c", DASHBOARD, DATASOURCE, container.token(intent_hash=None))
    first = container.subscriptions.rows[KEY]
    container.api.answer = lambda token: INTENT | {"topic": "a/c"}
    container.subscribe("c", DASHBOARD, DATASOURCE, container.token(intent_hash=None))
    second = container.subscriptions.rows[KEY]
    assert first.generation != second.generation and first.stream_key != second.stream_key, (
        "not a refresh: another datasource"
    )


@pytest.mark.parametrize("mode", list(FailureMode))
def test_what_another_admitted_uncounted_is_admitted_and_counted_so(mode: FailureMode) -> None:
    container = GatewayContainer(failure_mode=mode)
    container.rate_store.count = lambda *_args: RateDecision(True, 9, 0, counted=False)  # type: ignore[method-assign]
    assert container.rates.consume("s", "k", 10, refusal="Too many").allowed
    counts = container.observer.counts
    assert counts[("limiter", "api_fail_open", "backend_error", "s")] == counts[("limiter", "fail_open", "s")] == 1
    assert ("limiter", "allowed", "s") not in counts
