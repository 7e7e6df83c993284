"""The feed and its readers on a real table API, with other writers between any two calls, lost answers and retries.

Two kinds of reader go side by side: our own poll, by stored cursor, and a reader of the internal API, who keeps
the cursor it was given. Neither may ever skip an event, unless it was told that its cursor had expired.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from fixtures.tables import create_table
from tests.containers.revalidation import Tasks
from tests.deployment import aws
from tests.doubles.platform import ManualClock, MemoryObserver
from tests.doubles.stores import MemoryFullRevalidationRuns
from tidegate.adapters.dynamodb.client import DynamoDb
from tidegate.adapters.dynamodb.revocations import DynamoRevocations
from tidegate.domain.revocations import Revocation, RevocationReason, Task
from tidegate.errors import Unavailable
from tidegate.providers.control_plane import ControlPlaneProviders
from tidegate.tables import REVOCATIONS
from tidegate.usecases.control_plane.internal_api import ReadRevokedTokens
from tidegate.usecases.revocation.follow_feed import FollowFeed

RETENTION_S = 100
_NAMES = count()


class Between(DynamoDb):
    """The store, with something happening between two calls, and answers that get lost."""

    def __init__(self, real: DynamoDb) -> None:
        super().__init__(real._client)
        self.before_transact: Any = None
        self.lose_transact = self.lose_update = False

    def transact(self, actions: Any, token: str | None = None) -> None:
        happens, self.before_transact = self.before_transact, None
        if happens:
            happens()
        lost, self.lose_transact = self.lose_transact, False
        super().transact(actions, token)
        if lost:
            raise Unavailable("the answer was lost")

    def update(self, *args: Any, **options: Any) -> Any:
        lost, self.lose_update = self.lose_update, False
        answer = super().update(*args, **options)
        if lost:
            raise Unavailable("the answer was lost")
        return answer


class FeedMachine(RuleBasedStateMachine):
    env: Mapping[str, str]

    def __init__(self) -> None:
        super().__init__()
        self.table = f"feed-{next(_NAMES)}"
        create_table(aws(self.env["AWS_ENDPOINT_URL"], "dynamodb"), REVOCATIONS, self.table)
        self.db = Between(ControlPlaneProviders(self.env).db)
        self.feed = DynamoRevocations(self.db, self.table, RETENTION_S)
        self.clock, self.tasks, self.runs = ManualClock(), Tasks(), MemoryFullRevalidationRuns()
        self.written = 0
        self.told: set[str] = set()  # by our poll
        self.heard: set[int] = set()  # by the contract's reader
        self.cursor: str | None = None
        self.lost_for_poll = self.lost_for_reader = 0  # ids up to which an expired cursor excuses

    def teardown(self) -> None:
        self.finish()
        aws(self.env["AWS_ENDPOINT_URL"], "dynamodb").delete_table(TableName=self.table)

    # --- writers ------------------------------------------------------------------------------------------

    def _write(self) -> None:
        """One revocation of a dashboard named like the id it must get."""
        revocation = Revocation(RevocationReason.SHARE_TOKEN_ROTATED, f"d{self.written + 1}", 1)
        with suppress(Unavailable):
            self.feed.write_with([], revocation, int(self.clock.now() * 1000))
        self.written += 1

    @rule()
    def write(self) -> None:
        self._write()

    @rule()
    def write_with_a_lost_answer(self) -> None:
        self.db.lose_transact = True
        self._write()

    @rule()
    def two_writers_at_once(self) -> None:
        """Between the first one's read of the head and its transaction, the second one comes and goes."""
        name = f"d{self.written + 2}"

        def second() -> None:
            self._write()

        self.db.before_transact = second
        revocation = Revocation(RevocationReason.SHARE_TOKEN_ROTATED, name, 1)
        self.feed.write_with([], revocation, int(self.clock.now() * 1000))
        self.written += 1

    # --- readers ------------------------------------------------------------------------------------------

    def _poll(self, batch: int, tasks: Tasks) -> None:
        follow = FollowFeed(
            feed=self.feed,
            cursors=self.feed,
            runs=self.runs,
            tasks=tasks,
            batch=batch,
            clock=self.clock,
            observer=MemoryObserver(),
        )
        try:
            follow()
        finally:
            self.told |= {task.target for task, _ in tasks.queued}
            if self.runs.demanded:
                self.runs.demanded = False
                page = self.feed.read(0, 1000, self.clock.now())
                self.lost_for_poll = max(self.lost_for_poll, page.oldest - 1)

    @rule(batch=st.integers(1, 3))
    def poll(self, batch: int) -> None:
        self._poll(batch, Tasks())

    @rule(batch=st.integers(1, 3))
    def poll_whose_cursor_moved_unheard(self, batch: int) -> None:
        self.db.lose_update = True
        with suppress(Unavailable):
            self._poll(batch, Tasks())
        self.db.lose_update = False

    @rule(batch=st.integers(1, 3), after=st.integers(0, 2))
    def poll_that_dies_while_queueing(self, batch: int, after: int) -> None:
        class Dying(Tasks):
            def queue(self, task: Task, delay_s: int = 0) -> None:
                if len(self.queued) >= after:
                    raise Unavailable("the queue is down")
                super().queue(task, delay_s)

        with suppress(Unavailable):
            self._poll(batch, Dying())

    @rule(limit=st.integers(1, 3), answer_lost=st.booleans())
    def contract_reader(self, limit: int, answer_lost: bool) -> None:
        if answer_lost:
            ReadRevokedTokens(feed=self.feed, max_batch=500, clock=self.clock)(self.cursor, limit)
        else:
            self._read_by_contract(limit)

    def _read_by_contract(self, limit: int) -> None:
        answer = ReadRevokedTokens(feed=self.feed, max_batch=500, clock=self.clock)(self.cursor, limit)
        if answer.cursor_expired or self.cursor is None:  # one that begins has no past to miss
            page = self.feed.read(0, 1000, self.clock.now())
            self.lost_for_reader = max(self.lost_for_reader, page.oldest - 1)
        for event in answer.events:
            assert event["dashboardId"] == f"d{event['eventId']}", "an id tells the order of the writes"
            self.heard.add(int(event["eventId"]))
        self.cursor = answer.next_cursor

    @precondition(lambda self: self.written > 0)
    @rule(seconds=st.sampled_from([1.0, 60.0, RETENTION_S + 1.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    # --- what must hold -----------------------------------------------------------------------------------

    @invariant()
    def ids_have_no_gaps(self) -> None:
        page = self.feed.read(0, 1000, self.clock.now())
        assert page.head == self.written
        assert [event.event_id for event in page.events] == list(range(page.oldest, page.head + 1))

    def finish(self) -> None:
        """After a last poll, everything written was told of, or a full revalidation was demanded for it."""
        self._poll(500, Tasks())
        expected = {f"d{number}" for number in range(self.lost_for_poll + 1, self.written + 1)}
        assert expected <= self.told
        self._read_by_contract(500)
        assert set(range(self.lost_for_reader + 1, self.written + 1)) <= self.heard


@pytest.fixture
def machine(deployed: Mapping[str, str]) -> Iterator[type[FeedMachine]]:
    yield type("DeployedFeedMachine", (FeedMachine,), {"env": deployed})


def test_no_reader_ever_skips_an_event(machine: type[FeedMachine], pytestconfig: pytest.Config) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=100 if pytestconfig.getoption("--full") else 12,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
