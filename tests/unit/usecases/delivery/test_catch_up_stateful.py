"""Whoever is subscribed ends with the newest value: any order of subscribing, publishing, time, lagging indexes, cached
audiences, throttled posts, puts whose answer was lost and repeated, and messages that pass during a look."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.containers.gateway import DASHBOARD, DATASOURCE, GatewayContainer
from tidegate.adapters.aws.catch_up_queue import DELAY_S
from tidegate.domain.access import FRESH_S
from tidegate.domain.subscriptions import CatchUpRequest, LastValue, SubscriptionKey
from tidegate.errors import Unavailable
from tidegate.ports.delivery import Delivery

VIEWERS = ("a", "b")
#: An index may lag so long that a catch-up, which comes `DELAY_S` later, still finds what passed meanwhile, seconds.
LONGEST_LAG_S = DELAY_S - FRESH_S


class CatchUpMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.container = GatewayContainer()
        self.lagging_since: float | None = None
        self.published = 0
        self.due: list[tuple[float, CatchUpRequest]] = []
        self.container.catch_ups.queue = self.queue  # type: ignore[method-assign]
        self.before_post: Callable[[], None] | None = None
        deliver = self.container.sender.post

        def post(connection_id: str, body: bytes) -> Delivery:
            happen, self.before_post = self.before_post, None
            if happen is not None:
                happen()
            return deliver(connection_id, body)

        self.container.sender.post = post  # type: ignore[method-assign]

    @initialize()
    def connections(self) -> None:
        for viewer in VIEWERS:
            self.container.open(viewer)

    def queue(self, request: CatchUpRequest) -> None:
        self.due.append((self.container.clock.monotonic() + DELAY_S, request))

    # --- what happens ---------------------------------------------------------------------------------------

    @rule(viewer=st.sampled_from(VIEWERS))
    def subscribe(self, viewer: str) -> None:
        self.handle(viewer, type="subscribe", dashboardId=DASHBOARD, sessionToken=self.container.token(ttl=100_000))

    @rule(viewer=st.sampled_from(VIEWERS))
    def unsubscribe(self, viewer: str) -> None:
        self.handle(viewer, type="unsubscribe")

    @rule(viewer=st.sampled_from(VIEWERS))
    def subscribe_while_a_message_passes(self, viewer: str) -> None:
        """It passes before the first frame that answers."""
        self.before_post = self.publish
        self.subscribe(viewer)
        self.before_post = None

    @rule()
    def publish(self) -> None:
        self.published += 1
        self.container.publish(str(self.published).encode())

    @rule()
    def publish_with_a_lost_answer(self) -> None:
        """The put is done, its answer is lost, and the client repeats it."""
        stored = self.container.last_values
        put = stored.put_if_newer

        def twice(stream_key: str, value: LastValue) -> bool:
            put(stream_key, value)
            return put(stream_key, value)

        stored.put_if_newer = twice  # type: ignore[method-assign]
        self.publish()
        del stored.put_if_newer

    @rule()
    def publish_while_access_items_cannot_be_read_again(self) -> None:
        """What was read for the message ages before it is sent, and the store is down by then."""
        container, read = self.container, self.container.access.read

        def once(*args: Any) -> Any:
            container.access.read = self.down  # type: ignore[method-assign, assignment]
            found = read(*args)
            container.clock.advance(FRESH_S)
            return found

        container.access.read = once  # type: ignore[method-assign, assignment]
        self.publish()
        del container.access.read
        self.catch_up_if_late()

    @staticmethod
    def down(*_args: object) -> Any:
        raise Unavailable("down")

    @rule(seconds=st.sampled_from((0.1, 0.9, 1.0, 3.0)))
    def time_passes(self, seconds: float) -> None:
        for _ in range(round(seconds * 10)):
            self.container.clock.advance(0.1)
            self.catch_up_if_late()

    def catch_up_if_late(self) -> None:
        since = self.lagging_since
        if since is not None and self.container.clock.monotonic() - since >= LONGEST_LAG_S - 0.2:
            self.index_catches_up()

    @precondition(lambda self: self.lagging_since is None)
    @rule()
    def index_lags(self) -> None:
        self.lagging_since = self.container.clock.monotonic()
        self.container.subscriptions.lag()

    @rule()
    def index_catches_up(self) -> None:
        self.lagging_since = None
        self.container.subscriptions.catch_up()

    @rule(viewer=st.sampled_from(VIEWERS), how=st.sampled_from((Delivery.THROTTLED, Delivery.FAILED)))
    def posts_fail(self, viewer: str, how: Delivery) -> None:
        self.container.sender.answers[viewer] = how

    @rule()
    def posts_succeed_again(self) -> None:
        self.container.sender.answers.clear()

    @rule()
    def looks(self) -> None:
        """The queue's due messages; what could not be done comes back."""
        now = self.container.clock.monotonic()
        due = [message for message in self.due if message[0] <= now]
        self.due = [message for message in self.due if message[0] > now]
        for _, request in due:
            try:
                self.container.catch_up(request)
            except Unavailable:
                self.due.append((now + DELAY_S, request))

    @rule()
    def looks_while_a_message_passes(self) -> None:
        """The message is stored and sent between a look's reading and its sending."""
        self.before_post = self.publish
        self.looks()
        self.before_post = None

    # --- what must hold -------------------------------------------------------------------------------------

    def teardown(self) -> None:
        """In the end posts succeed, the index catches up, the queue runs empty."""
        self.posts_succeed_again()
        self.index_catches_up()
        while self.due:
            self.time_passes(float(DELAY_S))
            self.looks()
        for viewer in VIEWERS:
            row = self.container.subscriptions.rows.get(SubscriptionKey(DASHBOARD, viewer, DATASOURCE))
            newest = self.newest()
            if row is not None and row.live and newest is not None:
                assert self.container.sender.data(viewer)[-1:] == [newest], viewer

    def newest(self) -> object:
        """The newest value of the stream; None before the first."""
        stored = list(self.container.last_values.rows.values())
        return json.loads(stored[0].payload) if stored else None

    def handle(self, viewer: str, **message: str) -> None:
        self.container.handle(viewer, json.dumps({"requestId": "r", "datasourceId": DATASOURCE, **message}))


TestCatchUps = CatchUpMachine.TestCase
TestCatchUps.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
