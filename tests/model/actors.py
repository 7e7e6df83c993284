"""The actors of the model: real use cases, wired as a bootstrap would, over stores of which every call is one step."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

from tests.doubles.platform import ManualClock, MemoryCatchUpQueue, MemoryObserver
from tests.doubles.stores import MemoryLastValues
from tests.model.explorer import Answers, Script, Store
from tidegate.domain.access import PUBLIC_SUBJECT, Role, UserAccess
from tidegate.domain.client_queues import Batch
from tidegate.domain.revocations import Task, TaskKind
from tidegate.domain.subscriptions import Connection, LastValue, Stream, Subscription, SubscriptionKey
from tidegate.domain.tokens import DASHBOARD_SCOPE, STREAM_SCOPE, SessionClaims
from tidegate.errors import TidegateError
from tidegate.ports.delivery import Delivery, OutboundMessage, OutboundQueue, SendResult
from tidegate.ports.runtime import Clock
from tidegate.usecases.delivery.audiences import Audiences
from tidegate.usecases.delivery.failures import FailureHandler
from tidegate.usecases.delivery.fan_out import FanOut
from tidegate.usecases.delivery.fresh_access import FreshAccess
from tidegate.usecases.delivery.senders import OneShotSender
from tidegate.usecases.gateway.authorizer import Authorization, LocalAuthorizer, _checked
from tidegate.usecases.gateway.end_connection import EndConnection
from tidegate.usecases.gateway.handle_message import HandleMessage
from tidegate.usecases.gateway.subscribe import Subscribe, Subscribed, SubscribePolicy
from tidegate.usecases.gateway.unsubscribe import Unsubscribe
from tidegate.usecases.limits.message_budget import MessageBudget
from tidegate.usecases.revocation.end_expired import EndExpired
from tidegate.usecases.revocation.evaluate import Evaluate
from tidegate.usecases.revocation.revalidate import Revalidate
from tidegate.usecases.revocation.tell_document import TellDocument
from tidegate.usecases.revocation.terminate_subscriptions import TerminateSubscriptions

DASHBOARD, DATASOURCE, HASH, MEMBER, OWNER = "d", "s", "hash", "member", "owner"
#: Of a dashboard with two.
BOTH_DATASOURCES = (DATASOURCE, "s2")
NOW = ManualClock().now()
STREAM = Stream("stream", "mqtt", "json", "a/#", "a/b")
USERS = {user_id: UserAccess(user_id, Role.VIEWER, True, 1) for user_id in (MEMBER, OWNER)}


class AttemptIds:
    def __init__(self, actor: str) -> None:
        self._actor, self._next = actor, 0

    def new_id(self) -> str:
        self._next += 1
        return f"{self._actor}-{self._next}"

    def new_uuid(self) -> str:
        raise NotImplementedError

    def new_share_token(self) -> str:
        raise NotImplementedError


class NotedSlots:
    """Caps are not what is explored here: the slot noted is the slot taken."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    def take(self, *_args: object, noted: frozenset[str], **_options: object) -> str:
        return min(noted)

    def free(self, *_args: object) -> None: ...

    def give_back(self, connection: Connection, slots: Iterable[str]) -> None:
        self._answers.ask("caps", "give_back", connection, tuple(sorted(slots)))


class LaterTasks:
    """What is queued for later only tidies up after a run that died: its rows are marked, and seen by nobody."""

    def queue(self, task: Task, delay_s: int = 0) -> None:
        assert delay_s or task.kind is not TaskKind.DASHBOARD, "nothing was left over, the clock stands still"


class NoRates:
    def deadline(self) -> None:
        return None

    def consume(self, *_args: object, **_options: object) -> None: ...


class OneStream:
    def touch(self, stream: Stream) -> Stream:
        return stream


class Connections(Store):
    """Nothing to forget is nothing to do."""

    def __init__(self, answers: Answers) -> None:
        super().__init__(answers, "connections")

    def forget_slots(self, _connection_id: str, slots: Iterable[str]) -> None:
        assert not slots


class StepSender:
    """Every message that matters is a step: the status after an error says nothing new, closing ends nothing here.
    `row` is whom messages are for that no queue sends."""

    def __init__(self, answers: Answers, row: Subscription | None = None) -> None:
        self._answers = answers
        self._row = row

    def post(self, connection_id: str, body: bytes) -> Delivery:
        return self._post(connection_id, body, self._row)

    def post_many(
        self,
        posts: Iterable[OutboundMessage],
        *,
        before_each: Callable[[OutboundMessage], bool] | None = None,
        deadline: float | None = None,
    ) -> Sequence[SendResult]:
        return [
            SendResult(post, self._post(post.connection_id, post.body, self._row))
            if before_each is None or before_each(post)
            else SendResult(post, Delivery.WITHHELD)
            for post in posts
        ]

    def send(self, outgoing: OutboundQueue[Batch]) -> None:
        while (sending := outgoing.take(0.0)) is not None:
            sent = outgoing.before(sending)
            if sent is not None:
                outgoing.answered(sent, self._post(sent.connection_id, sent.body, sent.frames[0].row))

    def wake(self) -> None: ...

    def end(self) -> None: ...

    def _post(self, connection_id: str, body: bytes, row: Subscription | None = None) -> Delivery:
        if b'"status"' in body:
            return Delivery.DELIVERED
        delivery: Delivery = self._answers.ask("sender", "post", connection_id, body, row)
        return delivery

    def close(self, connection_id: str) -> None: ...


class ShardedRows(Store):
    """A dashboard's rows are several partitions, read one after the other: each connection here has its own."""

    def __init__(self, answers: Answers, connections: Sequence[str]) -> None:
        super().__init__(answers, "subscriptions")
        self._shards = connections

    def of_dashboard(self, dashboard_id: str, after: str = "") -> Iterator[Subscription]:
        for connection in self._shards:
            yield from self._answers.ask("subscriptions", "of_shard", dashboard_id, connection)


class StepAuthorizer(LocalAuthorizer):
    """The decisions of `LocalAuthorizer`; intent and profiles never change here, so they are no steps."""

    def __call__(self, claims: SessionClaims, token: str, now: float) -> Authorization:
        return Authorization(self.check(claims, now).claim, STREAM)

    def of_all(
        self, claims: Sequence[SessionClaims], token: str, now: float
    ) -> Sequence[Authorization | TidegateError]:
        snapshot = self._snapshot(claims[0].dashboard_id, claims[0].principal.subject, claims[0].principal.is_public)

        def one(claim: SessionClaims) -> Authorization | TidegateError:
            try:
                return Authorization(_checked(claim, snapshot, now).claim, STREAM)
            except TidegateError as refusal:
                return refusal

        return [one(claim) for claim in claims]


def subscribe(actor: str, connection: str, version: int | None, ttl: int = 300) -> Script:
    """A subscribe message with a token of that share version; a member's when None. -1: of the version there is when
    the viewer asks for its token."""

    def script(answers: Answers) -> str:
        current = answers.ask("tokens", "mint") if version == -1 else version
        use_case = _subscribing(answers, actor, _claims(current, ttl), ManualClock())
        try:
            done = use_case(connection, DASHBOARD, DATASOURCE, "token")
        except TidegateError as refusal:
            return f"refused: {refusal.code}"
        return f"acked {done.row.version}"

    return script


def subscribe_all(actor: str, connection: str, version: int | None) -> Script:
    """A subscribe message for two datasources, with the dashboard's token of that share version; a member's when
    None."""

    def script(answers: Answers) -> str:
        claims = replace(
            _claims(version, 300), datasource_id="", scope=DASHBOARD_SCOPE, intent_hash=None, viewer_id="viewer"
        )
        use_case = _subscribing(answers, actor, claims, ManualClock())
        try:
            done = use_case.several(connection, DASHBOARD, BOTH_DATASOURCES, "token")
        except TidegateError as refusal:
            return f"refused: {refusal.code}"
        acked = [name for name, outcome in done.items() if isinstance(outcome, Subscribed)]
        return f"acked {-1 if version is None else version} {' '.join(acked)}" if acked else "refused: all"

    return script


def first_value(actor: str, connection: str, version: int) -> Script:
    """A subscribe message with all that it is answered, the newest value included; every step may take long."""
    claims = _claims(version, 300)
    key = SubscriptionKey(DASHBOARD, connection, DATASOURCE)
    row = Subscription(key, actor, claims.claim(HASH), "stream", visible=True)
    asked = {"dashboardId": DASHBOARD, "datasourceId": DATASOURCE, "sessionToken": "token"}

    def script(answers: Answers) -> str:
        clock, unused = StepClock(answers), cast(Any, None)
        handle = HandleMessage(
            max_message_bytes=4000,
            budget=MessageBudget(rates=unused, per_minute=600, clock=ManualClock()),
            subscribe=_subscribing(answers, actor, claims, clock),
            unsubscribe=unused,
            streams=unused,
            last_values=cast(Any, Store(answers, "last values")),
            catch_ups=MemoryCatchUpQueue(),
            relay_workers=unused,
            end_connection=_ending(answers),
            sender=cast(Any, StepSender(answers, row)),
            clock=clock,
            observer=MemoryObserver(),
        )
        handle(connection, json.dumps({"type": "subscribe", "requestId": "r", **asked}))
        return "answered"

    return script


def _claims(version: int | None, ttl: int) -> SessionClaims:
    return SessionClaims(
        subject=MEMBER if version is None else PUBLIC_SUBJECT,
        dashboard_id=DASHBOARD,
        datasource_id=DATASOURCE,
        scope=STREAM_SCOPE,
        issued_at=int(NOW),
        expires_at=int(NOW) + ttl,
        intent_hash=HASH,
        share_version=version,
        session_version=1 if version is None else None,
    )


def _subscribing(answers: Answers, actor: str, claims: SessionClaims, clock: Clock) -> Subscribe:
    tokens: Any = type("Tokens", (), {"verify": lambda *_: claims})()
    access: Any = Store(answers, "access")
    rates: Any = NoRates()
    slots: Any = NotedSlots(answers)
    connections: Any = Connections(answers)
    subscriptions: Any = Store(answers, "subscriptions")
    unused: Any = None
    streams: Any = OneStream()
    return Subscribe(
        policy=SubscribePolicy(50, 1000, 1000, 1000),
        tokens=tokens,
        rates=rates,
        authorizer=StepAuthorizer(access=access, profiles=unused, policy=unused),
        quota=slots,
        upstreams=unused,
        connections=connections,
        subscriptions=subscriptions,
        streams=streams,
        wake_schedule=lambda: None,
        clock=clock,
        ids=AttemptIds(actor),
        observer=MemoryObserver(),
    )


def unsubscribe(connection: str) -> Script:
    def script(answers: Answers) -> str:
        connections: Any = Connections(answers)
        subscriptions: Any = Store(answers, "subscriptions")
        use_case = Unsubscribe(connections=connections, subscriptions=subscriptions, observer=MemoryObserver())
        return _told(lambda: use_case(connection, DATASOURCE))

    return script


def disconnect(connection: str) -> Script:
    def script(answers: Answers) -> str:
        return _told(lambda: _ending(answers).disconnected(connection))

    return script


def revoke(number: int) -> Script:
    """One transaction: version and access item; its event starts a pass."""

    def script(answers: Answers) -> str:
        answers.ask("control", "revoke", number)
        return "done"

    return script


def revalidate(
    actor: str, connections: Sequence[str], tasks: Sequence[Task] = (Task(TaskKind.DASHBOARD, DASHBOARD),)
) -> Script:
    """The incremental pass over the dashboard, or other tasks, some time between them."""

    def script(answers: Answers) -> str:
        clock, observer = ManualClock(), MemoryObserver()
        rows: Any = ShardedRows(answers, connections)
        access: Any = Store(answers, "access")
        stored: Any = Connections(answers)
        sender: Any = StepSender(answers)
        unused: Any = None
        terminate = TerminateSubscriptions(
            subscriptions=rows,
            connections=stored,
            sender=sender,
            end_connection=_ending(answers),
            clock=clock,
            ids=AttemptIds(actor),
            observer=observer,
        )
        evaluate = Evaluate(access=access, clock=clock, observer=observer)
        use_case = Revalidate(
            subscriptions=rows,
            evaluate=evaluate,
            terminate=terminate,
            follow_feed=unused,
            full_revalidation=unused,
            end_expired=EndExpired(
                subscriptions=rows, evaluate=evaluate, terminate=terminate, clock=clock, observer=observer
            ),
            replace_relay_workers=unused,
            tasks=LaterTasks(),
            clock=clock,
            observer=observer,
        )

        def carry_out() -> None:
            for number, task in enumerate(tasks):
                if number:
                    answers.ask("queue", "wait")
                use_case(task, clock.monotonic() + 100)

        return _told(carry_out)

    return script


class StepClock:
    """Looking at the clock is a step of its own, so that time may pass before and after it."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    def now(self) -> float:
        return NOW + float(self._answers.ask("clock", "read"))

    def monotonic(self) -> float:
        return float(self._answers.ask("clock", "read"))


def fan_out(messages: int) -> Script:
    """Several messages by one warm process, which keeps audiences and access items for a while."""

    def script(answers: Answers) -> str:
        rows: Any = Store(answers, "subscriptions")
        access: Any = Store(answers, "access")
        sender: Any = StepSender(answers)
        audiences = Audiences(rows.audience, StepClock(answers))
        use_case = FanOut(
            audiences=audiences,
            last_values=MemoryLastValues(),
            send=OneShotSender(
                access=FreshAccess(access, audiences, StepClock(answers)),
                sender=sender,
                failure_handler=FailureHandler(
                    catch_ups=MemoryCatchUpQueue(),
                    end_connection=_ending(answers),
                    clock=ManualClock(),
                    observer=MemoryObserver(),
                ),
                observer=MemoryObserver(),
            ),
            max_message_bytes=1000,
            clock=StepClock(answers),
            observer=MemoryObserver(),
        )
        for number in range(messages):
            try:
                use_case.deliver(STREAM, LastValue("1", number, ""))
            except TidegateError:
                continue
        return "done"

    return script


def tell(connections: Sequence[str], revision: int) -> Script:
    """The task of a saved document; every step may take long."""

    def script(answers: Answers) -> str:
        rows: Any = ShardedRows(answers, connections)
        access: Any = Store(answers, "access")
        unused: Any = None
        use_case = TellDocument(
            subscriptions=rows,
            connections=unused,
            access=access,
            sender=cast(Any, StepSender(answers)),
            end_connection=_ending(answers),
            tasks=LaterTasks(),
            clock=StepClock(answers),
            observer=MemoryObserver(),
        )
        task = Task(TaskKind.DOCUMENT, DASHBOARD, int(NOW * 1000), revision)
        return _told(lambda: use_case(task, float("inf")))

    return script


def _ending(answers: Answers) -> EndConnection:
    connections: Any = Connections(answers)
    subscriptions: Any = Store(answers, "subscriptions")
    slots: Any = NotedSlots(answers)
    sender: Any = StepSender(answers)
    return EndConnection(
        connections=connections, subscriptions=subscriptions, quota=slots, sender=sender, observer=MemoryObserver()
    )


def _told(work: Callable[[], object]) -> str:
    try:
        work()
    except TidegateError as error:
        return f"failed: {error.code}"
    return "done"
