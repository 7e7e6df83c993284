from __future__ import annotations

from typing import Any

import pytest

from tests.containers.remote_api import EVERYTHING, MQTT, SSE, WEBSOCKET, RemoteApiContainer
from tests.doubles.platform import PlainKeys
from tidegate.domain.subscriptions import Stream
from tidegate.errors import ApiBusy, Denied, InvalidInput, NotFound, Unauthenticated, Unavailable
from tidegate.ports.relay import Broker, MqttRequest, NobodyListens, UpstreamFault, UpstreamRequest
from tidegate.protocol.messages import ErrorCode
from tidegate.usecases.remote_api.introspection import IntrospectionBudget
from tidegate.usecases.remote_api.upstream_requests import RemoteUpstreamRequests


class UpstreamRequestContainer(RemoteApiContainer):
    """Viewers of a stream of the relay, and the relay's question what it connects to."""

    def __init__(self, answer: dict[str, object] = SSE, *, per_minute: int = 100) -> None:
        super().__init__(policy=EVERYTHING)
        self.api.answer = lambda token: answer
        self.request = RemoteUpstreamRequests(
            introspections=self.api,
            subscriptions=self.subscriptions,
            keys=PlainKeys(),
            limit=IntrospectionBudget(per_minute, self.clock),
            clock=self.clock,
            observer=self.observer,
        )

    def watched(self, *connections: str, **token: Any) -> Stream:
        """The stream of these viewers; what subscribing asked is forgotten."""
        for connection_id in connections:
            self.subscribed(connection_id, **token)
        self.api.asked.clear()
        (stream,) = self.streams.rows.values()
        return stream

    def fault(self, stream: Stream) -> tuple[ErrorCode, str, bool]:
        with pytest.raises(UpstreamFault) as found:
            self.request(stream)
        return found.value.code, found.value.text, found.value.refused


CONNECTS = [
    (
        SSE,
        UpstreamRequest(
            "sse",
            "https://source.example/stream?key=s3cret",
            {"Authorization": "Bearer s3cret", "X-One": "1"},
            (),
            120.0,
        ),
    ),
    (
        WEBSOCKET,
        UpstreamRequest(
            "websocket", "wss://source.example/", {"Authorization": "Bearer s3cret", "X-One": "1"}, ("one",), 120.0
        ),
    ),
    (MQTT, MqttRequest(Broker("b", "mqtts://broker.example:443", "u", "s3cret", "PEM"), "a/b", 1, 60)),
    (
        MQTT | {"username": None, "password": None, "tls": None},
        MqttRequest(Broker("b", "mqtts://broker.example:443", None, None, ""), "a/b", 1, 60),
    ),
]


@pytest.mark.parametrize(("answer", "request_"), CONNECTS, ids=["sse", "websocket", "mqtt", "mqtt without a password"])
def test_what_the_api_says_is_connected_to(answer: dict[str, object], request_: UpstreamRequest | MqttRequest) -> None:
    container = UpstreamRequestContainer(answer)
    stream = container.watched("c")
    assert container.request(stream) == request_ and len(container.api.asked) == 1
    assert "s3cret" not in repr(container.request(stream))


def test_it_is_asked_with_the_token_that_lasts_longest_and_others_when_that_one_is_refused() -> None:
    container = UpstreamRequestContainer()
    container.watched("c1", ttl=100)
    container.watched("c2", ttl=200)
    stream = container.watched("c3", ttl=300, user="member")
    tokens = {row.key.connection_id: row.session_token for row in container.rows()}
    container.request(stream)
    assert container.api.asked == [tokens["c3"]]
    container.api.answer = lambda token: Denied("x") if token == tokens["c3"] else SSE
    container.request(stream)
    assert container.api.asked[1:] == [tokens["c3"], tokens["c2"]], "guests of one version are answered alike"


@pytest.mark.parametrize("error", [Denied("x"), NotFound("x"), Unauthenticated("x"), InvalidInput("x")])
def test_a_stream_nobody_is_granted_is_not_connected_to(error: Exception) -> None:
    container = UpstreamRequestContainer()
    stream = container.watched("c")
    container.watched(*(f"m{number}" for number in range(5)))
    for number in range(5):
        container.subscribed(f"u{number}", user=f"user{number}")
    container.api.asked.clear()
    container.api.answer = lambda token: error
    assert container.fault(stream) == (ErrorCode.AUTH_FAILED, "Dashboard access denied", True)
    assert len(container.api.asked) == 3, "not everybody's token is tried"


@pytest.mark.parametrize("error", [Unavailable("x"), ApiBusy("x")])
def test_an_api_that_does_not_say_is_no_refusal(error: Exception) -> None:
    container = UpstreamRequestContainer()
    stream = container.watched("c")
    container.api.answer = lambda token: error
    with pytest.raises(Unavailable) as found:
        container.request(stream)
    assert not isinstance(found.value, NobodyListens)


@pytest.mark.parametrize("changes", [{"headers": {"Authorization": "Bearer another"}}, {"url": "https://x.example/"}])
def test_a_stream_never_becomes_another_one(changes: dict[str, object]) -> None:
    container = UpstreamRequestContainer()
    stream = container.watched("c")
    container.api.answer = lambda token: SSE | changes
    assert container.fault(stream) == (ErrorCode.POLICY_BLOCKED, "The datasource was changed", True)
    container.api.answer = lambda token: MQTT | {"topic": "a/#/b"}
    assert container.fault(stream)[0] is ErrorCode.POLICY_BLOCKED


def test_nobody_listens_yet_or_any_more() -> None:
    container = UpstreamRequestContainer()
    stream = container.watched("c", ttl=100)
    container.clock.advance(101)
    with pytest.raises(NobodyListens):
        container.request(stream)
    assert not container.api.asked, "an expired token is not asked with"
    container.subscriptions.rows.clear()
    with pytest.raises(NobodyListens):
        container.request(stream)


def test_others_are_left_their_share_of_the_apis_limit() -> None:
    container = UpstreamRequestContainer(per_minute=2)
    stream = container.watched("c", ttl=300)
    container.clock.advance(60 - container.clock.now() % 60)
    for _ in range(2):
        container.request(stream)
    with pytest.raises(Unavailable):
        container.request(stream)
    assert len(container.api.asked) == 2
    container.clock.advance(60)
    container.request(stream)
