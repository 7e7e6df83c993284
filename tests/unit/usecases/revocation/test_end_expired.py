"""What has expired is ended by the next run of the schedule: by one run, by several, and after one that died."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import pytest

from tests.containers.gateway import DASHBOARD, DATASOURCE
from tests.containers.remote_api import RemoteApiContainer
from tests.containers.revalidation import KEY, RevalidationContainer
from tests.doubles.platform import Died
from tidegate.adapters.aws.json_client import JsonClient
from tidegate.adapters.dynamodb.client import DynamoDb, encode_item
from tidegate.adapters.dynamodb.subscriptions import EXPIRY_SHARDS, DynamoSubscriptions, _item
from tidegate.domain.revocations import Task, TaskKind
from tidegate.domain.subscriptions import TERMINATION_CLAIM_S, SubscriptionKey, TerminationClaim
from tidegate.domain.switches import Switches
from tidegate.errors import Unavailable

EXPIRED = Task(TaskKind.EXPIRED)


def expired(*names: str, lives_s: int = 10, **options: Any) -> RevalidationContainer:
    """Viewers whose tokens have expired a second ago, and one whose token lives on."""
    container = RevalidationContainer(**options)
    for name in names or ("c",):
        container.subscribed(name, ttl=lives_s)
    container.subscribed("living", user="member")
    container.clock.advance(lives_s + 1)
    return container


def left(container: RevalidationContainer) -> list[str]:
    return [key.connection_id for key in container.subscriptions.rows]


def test_the_viewer_is_told_and_the_living_one_is_left_alone() -> None:
    container = expired()
    assert container.run(EXPIRED) == 1
    error, status = container.sender.sent["c"]
    assert (error["errorCode"], error["message"]) == ("STREAM_AUTH_FAILED", "Datasource session token expired")
    assert (error["reason"], error["retryable"]) == ("expired", True)
    assert (status["status"], status["reason"]) == ("error", "expired")
    assert left(container) == ["living"] and "living" not in container.sender.sent
    assert container.connections.rows["c"].slots == frozenset() and container.sender.closed == []
    assert container.observer.times["expiry_to_termination"] == [1000]
    assert container.observer.counts[("subscriptions_terminated", "expired")] == 1


def test_it_is_told_in_the_second_of_the_expiry_and_not_before() -> None:
    container = RevalidationContainer()
    container.subscribed(ttl=10)
    container.clock.advance(9.9)
    assert container.run(EXPIRED) == 0 and not container.sender.sent
    container.clock.advance(0.1)
    assert container.run(EXPIRED) == 1


def test_running_twice_tells_once() -> None:
    container = expired()
    assert [container.run(EXPIRED) for _ in range(3)] == [1, 0, 0]
    assert len(container.sender.sent["c"]) == 2 and container.tasks.queued == []


def test_what_no_run_ended_for_a_long_time_is_ended_by_the_next() -> None:
    container = expired(*(f"c{number}" for number in range(10)))
    container.clock.advance(280)
    assert container.run(EXPIRED) == 10 and left(container) == ["living"]


def test_without_any_run_the_full_revalidation_ends_it() -> None:
    container = expired()
    assert container.run(Task(TaskKind.FULL)) == 1 and left(container) == ["living"]
    assert container.run(EXPIRED) == 0 and len(container.sender.sent["c"]) == 2


def test_two_runs_at_once_tell_once() -> None:
    container = expired("a", "b")
    post_many, second = container.sender.post_many, []

    def meanwhile(*args: Any, **options: Any) -> Any:
        container.sender.post_many = post_many  # type: ignore[method-assign]
        second.append(container.run(EXPIRED))
        return post_many(*args, **options)

    container.sender.post_many = meanwhile  # type: ignore[method-assign]
    assert container.run(EXPIRED) == 2 and second == [0]
    assert all(len(container.sender.sent[name]) == 2 for name in ("a", "b"))


@pytest.mark.parametrize("answer_lost", [False, True])
@pytest.mark.parametrize(
    ("store", "method"), [("subscriptions", "claim_termination"), ("sender", "post_many"), ("subscriptions", "remove")]
)
def test_what_a_dead_run_left_is_ended_when_its_claim_has_run_out(store: str, method: str, answer_lost: bool) -> None:
    """That takes a minute longer: another run cannot know whether the viewer was told."""
    container = expired()
    target = getattr(container, store)
    original = getattr(target, method)

    def dying(*args: object, **options: object) -> object:
        original(*args, **options)
        setattr(target, method, original)
        raise Unavailable("the answer was lost") if answer_lost else Died

    setattr(target, method, dying)
    with pytest.raises((Unavailable, Died)):
        container.run(EXPIRED)
    container.clock.advance(TERMINATION_CLAIM_S - 1)
    assert container.run(EXPIRED) == 0, "the claim is another run's"
    container.clock.advance(1)
    container.run(EXPIRED)
    assert left(container) == ["living"] and "living" not in container.sender.sent
    assert any(frame["type"] == "error" for frame in container.sender.sent["c"])


def test_a_claim_of_another_run_costs_no_write() -> None:
    container = expired()
    container.subscriptions.claim_termination(
        container.subscriptions.rows[KEY], TerminationClaim("other", int(container.clock.now()))
    )
    container.subscriptions.claim_termination = pytest.fail  # type: ignore[method-assign, assignment]
    assert container.run(EXPIRED) == 0


def test_a_refresh_that_the_index_does_not_show_yet_is_left_alone() -> None:
    container = expired()
    container.subscriptions.lag()
    container.subscribe("c", DASHBOARD, DATASOURCE, container.token())
    assert [list(rows) for rows in container.subscriptions.expired(container.clock.now())] != []
    assert container.run(EXPIRED) == 0 and container.subscriptions.rows[KEY].live and not container.sender.sent


def test_a_refresh_between_reading_and_claiming_wins() -> None:
    container = expired()
    claim, row = container.subscriptions.claim_termination, container.subscriptions.rows[KEY]

    def refreshed_before(*args: Any, **options: Any) -> bool:
        container.subscriptions.move_expiry(row, row.claim.expires_at + 300)
        return claim(*args, **options)

    container.subscriptions.claim_termination = refreshed_before  # type: ignore[method-assign]
    assert container.run(EXPIRED) == 0 and container.subscriptions.rows[KEY].live and not container.sender.sent


def test_what_the_index_does_not_show_yet_is_found_by_the_next_run() -> None:
    container = RevalidationContainer()
    container.subscriptions.lag()
    container.subscribed(ttl=10)
    container.clock.advance(11)
    assert container.run(EXPIRED) == 0 and container.subscriptions.rows[KEY].live
    container.subscriptions.catch_up()
    assert container.run(EXPIRED) == 1


def test_what_the_index_still_shows_is_not_told_again() -> None:
    container = expired()
    container.subscriptions.lag()
    assert container.run(EXPIRED) == 1 and container.run(EXPIRED) == 0
    assert len(container.sender.sent["c"]) == 2


def test_what_time_was_not_enough_for_is_left_to_the_next_run() -> None:
    container = expired(*(f"c{number}" for number in range(10)))
    post_many = container.sender.post_many

    def slowly(*args: Any, **options: Any) -> Any:
        container.clock.advance(3)
        return post_many(*args, **options)

    container.sender.post_many = slowly  # type: ignore[method-assign]
    first = container.run(EXPIRED, seconds=10)
    assert 0 < first < 10 and container.tasks.queued == [], "the schedule brings the next run anyway"
    assert container.run(EXPIRED) == 10 - first and left(container) == ["living"]
    assert all(len(frames) == 2 for frames in container.sender.sent.values())


def test_what_cannot_be_checked_is_kept_and_counted() -> None:
    container = expired()

    def down(*_args: object) -> object:
        raise Unavailable("down")

    container.access.read = down  # type: ignore[method-assign, assignment]
    with pytest.raises(Unavailable):
        container.run(EXPIRED)
    assert container.subscriptions.rows[KEY].live and not container.sender.sent
    assert container.observer.counts[("indeterminate",)] == 1


def test_who_lost_the_right_as_well_is_told_that() -> None:
    container = expired()
    container.revoke()
    assert container.run(EXPIRED) == 1
    assert (
        container.sender.sent["c"][0]["reason"] == "revoked" and "expiry_to_termination" not in container.observer.times
    )


def test_a_hidden_row_that_a_dead_subscribe_left_goes_too() -> None:
    container = expired()
    container.subscriptions.rows[KEY] = replace(container.subscriptions.rows[KEY], visible=False)
    assert container.run(EXPIRED) == 1 and left(container) == ["living"]


def test_a_switch_does_not_hide_the_expiry() -> None:
    container = expired(switches=Switches(realtime=False))
    assert container.run(EXPIRED) == 1 and container.sender.sent["c"][0]["reason"] == "expired"


def test_with_a_remote_api_nothing_is_asked() -> None:
    container = RemoteApiContainer()
    container.subscribed("c", ttl=10)
    container.subscribed("living")
    container.clock.advance(11)
    container.api.asked.clear()
    assert container.run(EXPIRED) == 1 and container.api.asked == []
    assert [row.key for row in container.rows()] == [SubscriptionKey(DASHBOARD, "living", DATASOURCE)]


# --- what it costs ------------------------------------------------------------------------------------------


class IndexedRows:
    """The adapter's reading over rows in memory, which counts what DynamoDB would bill: half a read unit for 4 KB of
    the index that the key condition names, and a whole one for each row that is read again."""

    def __init__(self, container: RevalidationContainer) -> None:
        self._items = [encode_item(_item(row)) for row in container.subscriptions.rows.values()]
        self.calls: Counter[str] = Counter()
        self.read_units = 0.0
        container.subscriptions.expired = DynamoSubscriptions(  # type: ignore[method-assign]
            DynamoDb(cast(JsonClient, self)), "t", "c"
        ).expired

    def call(self, operation: str, request: Mapping[str, Any], **_options: Any) -> dict[str, Any]:
        self.calls[operation] += 1
        if operation == "Query":
            assert request["KeyConditionExpression"] == "#expiry_shard = :shard AND #exp <= :now"
            assert "FilterExpression" not in request, "what a filter leaves out is billed"
            values = request["ExpressionAttributeValues"]
            found = [item for item in self._items if item["expiry_shard"] == values[":shard"]]
            found = [item for item in found if int(item["exp"]["N"]) <= int(values[":now"]["N"])]
            entries = [{name: item[name] for name in ("dashboard_shard", "row", "exp")} for item in found]
            self.read_units += max(1, math.ceil(len(json.dumps(entries)) / 4096)) / 2
            return {"Items": entries}
        assert operation == "BatchGetItem"
        asked = request["RequestItems"]["t"]["Keys"]
        rows = [item for item in self._items if {name: item[name] for name in ("dashboard_shard", "row")} in asked]
        self.read_units += len(rows)
        return {"Responses": {"t": rows}}


def cost(living: int, expired: int) -> tuple[Counter[str], float, int]:
    """Calls and read units to find so many expired rows among living ones, and reads of access items."""
    container = RevalidationContainer()
    for number in range(expired):
        container.subscribed(f"c{number}", ttl=10)
    container.clock.advance(11)
    if living:
        container.subscribed("living")
        (key,) = (key for key in container.subscriptions.rows if key.connection_id == "living")
        row = container.subscriptions.rows[key]
        for number in range(living):
            other = key._replace(connection_id=f"o{number}", dashboard_id=f"d{number % 100}")
            container.subscriptions.rows[other] = replace(row, key=other)
    rows, reads = IndexedRows(container), container.access.reads
    assert container.run(EXPIRED) == expired
    return rows.calls, rows.read_units, container.access.reads - reads


def test_ten_thousand_that_live_cost_nothing() -> None:
    assert cost(10_000, 3) == cost(0, 3)
    assert cost(10_000, 3) == (Counter({"Query": EXPIRY_SHARDS, "BatchGetItem": 1}), EXPIRY_SHARDS / 2 + 3, 1)
    assert cost(10_000, 0) == cost(0, 0) == (Counter({"Query": EXPIRY_SHARDS}), EXPIRY_SHARDS / 2, 0)
