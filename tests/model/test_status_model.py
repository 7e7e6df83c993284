"""All interleavings of a subscribe, a relay that connects and breaks, a lagging index, and the catch-up: whoever is
subscribed ends with the status of the stream."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest

from tests.doubles.platform import ManualClock, MemoryCatchUpQueue, MemoryObserver
from tests.model.actors import DASHBOARD, DATASOURCE, HASH, NOW, StepSender
from tests.model.explorer import (
    Actor,
    Answer,
    Answers,
    Call,
    Explored,
    Explorer,
    Scene,
    Script,
    State,
    Store,
    Violation,
)
from tidegate.domain.access import PUBLIC_SUBJECT, Claim, Principal
from tidegate.domain.crowds import Audience
from tidegate.domain.subscriptions import (
    TOLD_ALL,
    CatchUpRequest,
    Fault,
    LastValue,
    Stream,
    Subscription,
    SubscriptionKey,
)
from tidegate.ports.delivery import Delivery
from tidegate.ports.gateway import AccessSnapshot
from tidegate.protocol.messages import ErrorCode
from tidegate.usecases.delivery import catch_up as catching_up
from tidegate.usecases.delivery.audiences import Audiences
from tidegate.usecases.delivery.catch_up import CatchUp
from tidegate.usecases.delivery.failures import FailureHandler
from tidegate.usecases.delivery.fan_out import FanOut
from tidegate.usecases.delivery.fresh_access import FreshAccess
from tidegate.usecases.delivery.senders import OneShotSender
from tidegate.usecases.gateway.handle_message import HandleMessage
from tidegate.usecases.gateway.subscribe import Subscribed

STREAM = Stream("stream", "sse", "json", None, None, intent={"url": "u"})
KEY = SubscriptionKey(DASHBOARD, "c", DATASOURCE)
ROW = Subscription(KEY, "g", Claim(DASHBOARD, DATASOURCE, Principal(PUBLIC_SUBJECT, 1), HASH, int(NOW) + 300), "stream")
BROKE = Fault(ErrorCode.CONNECT_FAILED.value, "broke")


@dataclass(frozen=True, slots=True)
class Told:
    """What the stores hold, and what the viewer was told.

    Attributes:
        stream: as stored.
        visible: whether the row is.
        indexed: whether the index shows the row.
        queued: the catch-up that was asked for.
        last: the status that the viewer was sent last; empty before the first.
    """

    stream: Stream = STREAM
    visible: bool = False
    indexed: bool = False
    queued: CatchUpRequest | None = None
    last: str = ""


class Statuses(Scene[Told]):
    def __init__(self, *actors: Actor, forgets: Callable[[CatchUpRequest], CatchUpRequest] = lambda it: it) -> None:
        """`forgets`: a safeguard taken out of the catch-ups."""
        self.actors = actors
        self._forgets = forgets

    def start(self) -> Told:
        return Told()

    def key(self, stores: Told) -> Hashable:
        return repr(stores)

    def environment(self, stores: Told) -> Iterator[tuple[str, Told]]:
        if stores.visible and not stores.indexed:
            yield "the index catches up", replace(stores, indexed=True)

    def perform(self, stores: Told, actor: str, call: Call) -> tuple[Told, Answer, str | None]:
        match call.store, call.method:
            case "streams", "touch" | "relayed":
                return stores, ("got", stores.stream), None
            case "streams", "note_status":
                _, connected, fault = call.args
                number = stores.stream.status_number + 1
                stream = replace(stores.stream, connected=connected, fault=fault, status_number=number)
                return replace(stores, stream=stream), ("got", True), None
            case "subscriptions", "make_visible":
                return replace(stores, visible=True), ("got", True), "visible"
            case "subscriptions", "audience":
                return stores, ("got", Audience([replace(ROW, visible=True)] if stores.indexed else [])), None
            case "catch-ups", "queue":
                # It comes later than an index lags.
                return replace(stores, queued=self._forgets(call.args[0]), indexed=True), ("got", None), "queued"
            case "catch-ups", "take":
                return stores, ("got", stores.queued), None
            case "sender", "post":
                return replace(stores, last=json.loads(call.args[1])["status"]), ("got", Delivery.DELIVERED), None
        raise NotImplementedError(str(call))

    def check_end(self, state: State[Told]) -> None:
        stream = state.stores.stream
        right = "connected" if stream.connected else "error" if stream.fault else "connecting"
        if state.stores.last != right:
            raise Violation(f"the viewer reads {state.stores.last}, and the stream is {right}")


class StatusSender(StepSender):
    """Only the status is a step here."""

    def _post(self, connection_id: str, body: bytes, row: Subscription | None = None) -> Delivery:
        if b'"status"' not in body:
            return Delivery.DELIVERED
        delivery: Delivery = self._answers.ask("sender", "post", connection_id, body)
        return delivery


class Values:
    def newest(self, _stream_key: str) -> Sequence[LastValue]:
        return []


class Allowed(FreshAccess):
    """Rights are not what is explored here."""

    def allows(self, row: Subscription) -> bool:
        return True

    def load(self, rows: Any) -> None: ...


def welcome(answers: Answers) -> str:
    """A subscribe: the stream is registered, then the row is visible, then it is answered."""
    streams: Any = Store(answers, "streams")
    unused: Any = None

    def subscribe(*_args: object) -> Subscribed:
        stream = streams.touch(STREAM)
        answers.ask("subscriptions", "make_visible")
        return Subscribed(ROW, stream, False, ManualClock().monotonic())

    handle = HandleMessage(
        max_message_bytes=4000,
        budget=cast(Any, type("Budget", (), {"spend": lambda *_: None})()),
        subscribe=cast(Any, subscribe),
        unsubscribe=unused,
        streams=streams,
        last_values=cast(Any, Values()),
        catch_ups=cast(Any, Store(answers, "catch-ups")),
        relay_workers=cast(Any, type("Workers", (), {"start": lambda *_: None})()),
        end_connection=unused,
        sender=cast(Any, StatusSender(answers)),
        clock=ManualClock(),
        observer=MemoryObserver(),
    )
    asked = {"type": "subscribe", "requestId": "r", "dashboardId": DASHBOARD, "datasourceId": DATASOURCE}
    handle("c", json.dumps({**asked, "sessionToken": "token"}))
    return "answered"


def relay(*faults: Fault | None) -> Script:
    """An upstream that changes: each change is stored, then told to the audience there is."""

    def script(answers: Answers) -> str:
        streams: Any = Store(answers, "streams")
        for fault in faults:
            fan_out = _fan_out(answers)
            streams.note_status(STREAM, fault is None, fault)
            if fault is None:
                fan_out.connected(STREAM)
            else:
                fan_out.notify(STREAM, ErrorCode(fault.code), fault.text, status=True)
        return "done"

    return script


def _fan_out(answers: Answers) -> FanOut:
    """Each has an audience of its own: the catch-up comes later than an audience is cached."""
    access: Any = None
    return FanOut(
        audiences=Audiences(cast(Any, Store(answers, "subscriptions")).audience, ManualClock()),
        last_values=cast(Any, Values()),
        send=OneShotSender(
            access=Allowed(access, cast(Any, None), ManualClock()),
            sender=cast(Any, StatusSender(answers)),
            failure_handler=FailureHandler(
                catch_ups=MemoryCatchUpQueue(),
                end_connection=cast(Any, None),
                clock=ManualClock(),
                observer=MemoryObserver(),
            ),
            observer=MemoryObserver(),
        ),
        max_message_bytes=1000,
        clock=ManualClock(),
        observer=MemoryObserver(),
    )


def look(answers: Answers) -> str:
    request = answers.ask("catch-ups", "take")
    catch_up = CatchUp(
        subscriptions=cast(Any, type("Rows", (), {"get": lambda *_: replace(ROW, visible=True)})()),
        streams=cast(Any, Store(answers, "streams")),
        last_values=cast(Any, Values()),
        access=cast(Any, Anybody()),
        sender=cast(Any, StatusSender(answers)),
        catch_ups=MemoryCatchUpQueue(),
        end_connection=cast(Any, None),
        clock=ManualClock(),
        observer=MemoryObserver(),
    )
    catch_up(request)
    return "looked"


class Anybody:
    """Access items that admit the viewer."""

    def read(self, *_args: object) -> AccessSnapshot:
        from tests.model.actors import OWNER, USERS
        from tidegate.domain.access import DashboardAccess, Visibility

        access = DashboardAccess(DASHBOARD, 1, Visibility.LINK, OWNER, {}, {DATASOURCE: HASH})
        return AccessSnapshot({DASHBOARD: access}, {OWNER: USERS[OWNER]})


def scene(*faults: Fault | None, **options: Any) -> Statuses:
    return Statuses(
        Actor("subscribe", welcome),
        Actor("relay", relay(*faults)),
        Actor("catch-up", look, after="queued"),
        **options,
    )


SCENES = {
    "the relay connects": (None,),
    "the relay connects, and breaks": (None, BROKE),
    "the relay is refused, and connects": (BROKE, None),
}


def explore(explored: Statuses) -> Explored:
    return Explorer(explored).explore()


@pytest.mark.parametrize("name", list(SCENES))
def test_whoever_subscribes_ends_with_the_status_of_the_stream(
    name: str, record_property: Callable[[str, object], None]
) -> None:
    seen = explore(scene(*SCENES[name]))
    record_property("explored", seen.told(name))
    assert seen.ends


def test_without_a_status_in_the_catch_up_it_does_not_hold() -> None:
    forgetful = scene(None, forgets=lambda request: replace(request, told=TOLD_ALL))
    with pytest.raises(Violation, match="the viewer reads connecting, and the stream is connected"):
        explore(forgetful)


def test_without_reading_again_after_sending_it_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catching_up, "_SENDS", 1)
    with pytest.raises(Violation, match="the viewer reads"):
        explore(scene(None, BROKE))


def test_told_before_it_is_stored_it_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change that is told first, and stored after the catch-up has read, reaches nobody who came in between."""

    def tells_first(answers: Answers) -> str:
        streams: Any = Store(answers, "streams")
        _fan_out(answers).connected(STREAM)
        streams.note_status(STREAM, True, None)
        return "done"

    actors = (Actor("subscribe", welcome), Actor("relay", tells_first), Actor("catch-up", look, after="queued"))
    with pytest.raises(Violation, match="the viewer reads connecting, and the stream is connected"):
        explore(Statuses(*actors))
