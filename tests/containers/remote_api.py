"""The gateway with a remote API behind it, which tests let say anything."""

from __future__ import annotations

from collections.abc import Callable

from tests.containers.gateway import DASHBOARD, DATASOURCE, EGRESS, GatewayContainer
from tests.containers.revalidation import Tasks
from tests.doubles.platform import PlainKeys
from tests.doubles.stores import MemoryFullRevalidationRuns, MemoryRemoteAccess
from tidegate.domain.access import Refusal
from tidegate.domain.remote_api import Introspection
from tidegate.domain.revocations import Task
from tidegate.domain.stream_policy import StreamPolicy
from tidegate.domain.subscriptions import Subscription, SubscriptionKey
from tidegate.usecases.remote_api.authorizer import RemoteAuthorizer
from tidegate.usecases.remote_api.reintrospect import Reintrospect
from tidegate.usecases.revocation.end_expired import EndExpired
from tidegate.usecases.revocation.evaluate import Evaluate
from tidegate.usecases.revocation.full_revalidation import FullRevalidation
from tidegate.usecases.revocation.revalidate import Revalidate
from tidegate.usecases.revocation.terminate_subscriptions import TerminateSubscriptions

KEY = SubscriptionKey(DASHBOARD, "c", DATASOURCE)
INTENT: dict[str, object] = {
    "protocol": "mqtt",
    "topic": "a/b",
    "brokerProfileId": "b",
    "transport": "iot-core",
    "parser": "json",
    "topicAllowlist": [],
    "username": "u",
    "password": "pw-7",
}
HOUR = 3600.0
POLICY = StreamPolicy(frozenset({"mqtt", "sse"}), ("a/#",), "a", EGRESS)
EVERYTHING = StreamPolicy(frozenset({"mqtt", "sse", "websocket"}), ("a/#",), "a", EGRESS)
#: What the contract says of the relay's sources, secrets in place.
SSE: dict[str, object] = {
    "protocol": "sse",
    "url": "https://source.example/stream?key=s3cret",
    "parser": "json",
    "headers": {"Authorization": "Bearer s3cret", "X-One": "1"},
    "idleTimeoutMs": 120_000,
    "protocols": [],
    "authPlacement": "header",
}
WEBSOCKET = SSE | {"protocol": "websocket", "url": "wss://source.example/", "protocols": ["one"]}
MQTT: dict[str, object] = {
    "protocol": "mqtt",
    "brokerProfileId": "b",
    "brokerUrl": "mqtts://broker.example:443",
    "topic": "a/b",
    "qos": 1,
    "parser": "json",
    "keepaliveSeconds": 60,
    "tls": {"ca": "PEM", "rejectUnauthorized": False},
    "topicAllowlist": [],
    "username": "u",
    "password": "s3cret",
}


class ScriptedIntrospections:
    """`ports.remote_api.Introspections`; `answer` is an intent, or an error to raise."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer: Callable[[str], dict[str, object] | Exception] = lambda token: INTENT

    def introspect(self, token: str, dashboard_id: str, datasource_id: str) -> Introspection:
        self.asked.append(token)
        answer = self.answer(token)
        if isinstance(answer, Exception):
            raise answer
        return Introspection(answer)


class RemoteApiContainer(GatewayContainer):
    """The same gateway, asking `api`."""

    def __init__(self, per_minute: int = 300, policy: StreamPolicy | None = None) -> None:
        super().__init__()
        self.api, self.remote = ScriptedIntrospections(), MemoryRemoteAccess()
        self.subscribe._authorizer = RemoteAuthorizer(
            introspections=self.api,
            access=self.remote,
            policy=policy or POLICY,
            keys=PlainKeys(),
            observer=self.observer,
        )
        self.fresh._access = self.remote
        self.evaluate = Evaluate(access=self.remote, clock=self.clock, observer=self.observer)
        self.again = Reintrospect(
            introspections=self.api, keys=PlainKeys(), per_minute=per_minute, clock=self.clock, observer=self.observer
        )
        self.terminate = TerminateSubscriptions(
            subscriptions=self.subscriptions,
            connections=self.connections,
            sender=self.sender,
            end_connection=self.end_connection,
            clock=self.clock,
            ids=self.ids,
            observer=self.observer,
        )
        self.runs, self.tasks = MemoryFullRevalidationRuns(), Tasks()
        self.full_revalidation = FullRevalidation(
            connections=self.connections,
            subscriptions=self.subscriptions,
            caps=self.caps,
            runs=self.runs,
            access=self.remote,
            terminate=self.terminate,
            end_connection=self.end_connection,
            sender=self.sender,
            tasks=self.tasks,
            interval_s=60,
            idle_timeout_s=60,
            clock=self.clock,
            ids=self.ids,
            observer=self.observer,
            reintrospect=self.again,
        )
        self.revalidate = Revalidate(
            subscriptions=self.subscriptions,
            evaluate=self.evaluate,
            terminate=self.terminate,
            follow_feed=lambda: 0,
            full_revalidation=self.full_revalidation,
            end_expired=EndExpired(
                subscriptions=self.subscriptions,
                evaluate=self.evaluate,
                terminate=self.terminate,
                clock=self.clock,
                observer=self.observer,
            ),
            replace_relay_workers=lambda: 0,
            tasks=self.tasks,
            clock=self.clock,
            observer=self.observer,
            reintrospect=self.again,
        )

    def run(self, task: Task, seconds: float = 100) -> int:
        return self.revalidate(task, self.clock.monotonic() + seconds)

    def rows(self) -> list[Subscription]:
        return list(self.subscriptions.rows.values())

    def check(self, *, anew: bool = False) -> list[tuple[str, Refusal]]:
        """Who would be cut, by connection."""
        evaluated = self.again(self.rows(), self.clock.monotonic() + HOUR, anew=anew)
        return sorted((row.key.connection_id, refusal) for row, refusal in evaluated)
