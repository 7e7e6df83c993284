from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.errors import (
    Denied,
    LimiterUnavailable,
    LimitReached,
    NotFound,
    PolicyBlocked,
    TidegateError,
    Unauthenticated,
    Unavailable,
)
from tidegate.protocol import messages
from tidegate.protocol.messages import BadMessage, ErrorCode, PingMessage, SubscribeMessage, UnsubscribeMessage, parse

SUBSCRIBE = {"type": "subscribe", "requestId": "r", "dashboardId": "d", "datasourceId": "s", "sessionToken": "t"}


def refusal(text: str, limit: int = 1000) -> dict[str, object]:
    with pytest.raises(BadMessage) as caught:
        parse(text, limit, 0.0)
    return dict(caught.value.answer)


def test_reads_every_type() -> None:
    assert parse(json.dumps(SUBSCRIBE | {"type": " Subscribe ", "requestId": " r "}), 1000, 0) == SubscribeMessage(
        "r", "d", "s", "t"
    )
    assert parse('{"type":"unsubscribe","requestId":"r","datasourceId":"s"}', 1000, 0) == UnsubscribeMessage("r", "s")
    assert parse('{"type":"PING"}', 1000, 0) == PingMessage(None)


@pytest.mark.parametrize(
    ("sent", "taken"), [("7", "7"), ("0", "0"), ("-12", "-12"), ("1.5", "1.5"), ("1790000000000", "1790000000000")]
)
def test_a_number_as_request_id_is_taken_as_its_text(sent: str, taken: str) -> None:
    subscribe = json.dumps(SUBSCRIBE).replace('"r"', sent)
    assert parse(subscribe, 1000, 0) == SubscribeMessage(taken, "d", "s", "t")
    unsubscribe = f'{{"type":"unsubscribe","requestId":{sent},"datasourceId":"s"}}'
    assert parse(unsubscribe, 1000, 0) == UnsubscribeMessage(taken, "s")
    assert parse(f'{{"type":"ping","requestId":{sent}}}', 1000, 0) == PingMessage(taken)


@pytest.mark.parametrize("sent", ["true", "false", "[7]", "{}", "null", "NaN", "Infinity", "1e999"])
def test_what_is_neither_text_nor_a_number_is_no_request_id(sent: str) -> None:
    assert parse(f'{{"type":"ping","requestId":{sent}}}', 1000, 0) == PingMessage(None)


@pytest.mark.parametrize("missing", ["requestId", "dashboardId", "datasourceId", "sessionToken"])
@pytest.mark.parametrize("value", [None, "", "  ", 7, {}, []])
def test_subscribe_needs_all_fields(missing: str, value: object) -> None:
    if missing == "requestId" and value == 7:
        value = [7]  # a number is a request id
    answer = refusal(json.dumps(SUBSCRIBE | {missing: value}))
    assert (answer["type"], answer["ok"], answer["errorCode"]) == ("ack", False, "STREAM_PROTOCOL_ERROR")
    assert answer["requestId"] == (None if missing == "requestId" else "r")


@pytest.mark.parametrize("text", ["", "{", "nonsense", "[" * 100_000])
def test_what_is_not_json(text: str) -> None:
    answer = refusal(text, 200_000)
    assert (answer["errorCode"], answer["message"]) == ("STREAM_PROTOCOL_ERROR", "Malformed realtime message")


@pytest.mark.parametrize("text", ["null", "7", "[]", "{}", '{"type":"x"}', '{"type":7}'])
def test_unknown_types(text: str) -> None:
    assert refusal(text)["message"] == "Unsupported realtime message type"


def test_size_counts_bytes() -> None:
    assert refusal('{"type":"ping","requestId":"ü"}', 31)["errorCode"] == "STREAM_MESSAGE_TOO_LARGE"
    assert parse('{"type":"ping","requestId":"ü"}', 32, 0) == PingMessage("ü")


@given(st.text(max_size=200))
def test_nothing_but_an_answer_comes_of_garbage(text: str) -> None:
    try:
        parse(text, 1000, 0.0)
    except BadMessage as bad:
        messages.encode(bad.answer)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5), st.booleans())
def test_data_frames_carry_the_payload_as_it_is(payload: object, retained: bool) -> None:
    frame = json.loads(messages.data('a"\n', json.dumps(payload), 1.5, "7-a", retained=retained))
    assert frame["payload"] == payload
    assert frame["datasourceId"] == 'a"\n'
    assert frame.get("retained") == (True if retained else None)
    assert frame["timestamp"] == "1970-01-01T00:00:01.500Z" and frame["seq"] == "7-a"


def test_optional_keys_are_absent() -> None:
    assert "errorCode" not in messages.ack(None, None, 0)
    assert "retryable" not in messages.error(None, ErrorCode.PROTOCOL_ERROR, "x", 0)
    assert messages.refused("r", "s", ErrorCode.AUTH_FAILED, "x", 0, False)["retryable"] is False


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (Unauthenticated("a"), ErrorCode.AUTH_FAILED, "a"),
        (Denied("b"), ErrorCode.AUTH_FAILED, "b"),
        (NotFound("c"), ErrorCode.POLICY_BLOCKED, "c"),
        (PolicyBlocked("d"), ErrorCode.POLICY_BLOCKED, "d"),
        (LimitReached("e"), ErrorCode.RATE_LIMITED, "e"),
        (LimiterUnavailable("limiter down"), ErrorCode.RATE_LIMITED, "limiter down"),
        (Unavailable("table x is gone"), ErrorCode.CONNECT_FAILED, "Subscription failed"),
        (TidegateError("inside"), ErrorCode.CONNECT_FAILED, "Subscription failed"),
    ],
)
def test_refusals_map_to_codes_and_hide_faults(error: TidegateError, code: ErrorCode, text: str) -> None:
    assert (messages.code_for(error), messages.text_for(error)) == (code, text)
