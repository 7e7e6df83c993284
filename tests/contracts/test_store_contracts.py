"""One contract, two implementations: in memory, and DynamoDB on moto."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from time import monotonic

import pytest

from tests.doubles.stores import (
    MemoryCaps,
    MemoryConnections,
    MemoryFullRevalidationRuns,
    MemoryHistory,
    MemoryLastValues,
    MemoryRemoteAccess,
    MemoryStreams,
    MemorySubscriptions,
    MemoryUpstreamHolds,
)
from tidegate import tables
from tidegate.adapters.dynamodb.access import DynamoRemoteAccess
from tidegate.adapters.dynamodb.attempts import DynamoAttempts
from tidegate.adapters.dynamodb.history import DynamoHistory
from tidegate.adapters.dynamodb.limits import DynamoCaps, DynamoRates
from tidegate.adapters.dynamodb.revocations import DynamoRemoteCursor, DynamoRevocations
from tidegate.adapters.dynamodb.upstream_holds import DynamoUpstreamHolds
from tidegate.adapters.memory_attempts import MemoryAttempts
from tidegate.adapters.memory_rates import MemoryRates
from tidegate.domain import crowds
from tidegate.domain.access import PUBLIC_SUBJECT, Claim, Principal
from tidegate.domain.attempts import AttemptDecision, AttemptPolicy
from tidegate.domain.budgets import ConnectionRoom
from tidegate.domain.crowds import AUDIENCE_SHARDS, COUNTED_S
from tidegate.domain.history import History, Point, point_of
from tidegate.domain.subscriptions import (
    MOST_TOPICS,
    TERMINATION_CLAIM_S,
    Connection,
    Fault,
    LastValue,
    Stream,
    Subscription,
    SubscriptionKey,
    TerminationClaim,
)
from tidegate.domain.switches import SETTLING_S
from tidegate.ports.gateway import (
    CARRIES_MS,
    SETTLE_S,
    WAITS_MS,
    Admission,
    ConnectionStore,
    LastValueStore,
    Reservation,
    StreamStore,
    SubscriptionStore,
    Verdict,
)
from tidegate.ports.history import Group, HistoryStore, Series
from tidegate.ports.limits import AttemptStore
from tidegate.ports.revocation import FullRevalidationRuns, RevalidationRun
from tidegate.providers.control_plane import ControlPlaneProviders

KEY = SubscriptionKey("d", "c=", "s#1")
MARK = TerminationClaim("run", 1000)


@dataclass
class Stores:
    connections: ConnectionStore
    subscriptions: SubscriptionStore
    streams: StreamStore
    last_values: LastValueStore
    history: HistoryStore
    rates: DynamoRates | MemoryRates
    attempts: AttemptStore
    caps: DynamoCaps | MemoryCaps
    holds: DynamoUpstreamHolds | MemoryUpstreamHolds
    #: How many threads may ask at once. moto checks a condition and writes in two steps, so it is asked one by one;
    #: `tests/e2e` asks the emulator, which is atomic, in parallel.
    parallel: int


@pytest.fixture(params=["memory", "dynamodb"])
def stores(request: pytest.FixtureRequest) -> Stores:
    if request.param == "memory":
        connections = MemoryConnections()
        return Stores(
            connections,
            MemorySubscriptions(connections),
            MemoryStreams(),
            MemoryLastValues(),
            MemoryHistory(),
            MemoryRates(),
            MemoryAttempts(),
            MemoryCaps(connections),
            MemoryUpstreamHolds(),
            8,
        )
    env: Mapping[str, str] = request.getfixturevalue("deployed")
    control_plane = ControlPlaneProviders(env)
    return Stores(
        control_plane.connections,
        control_plane.subscriptions,
        control_plane.streams,
        control_plane.last_values,
        control_plane.history,
        DynamoRates(control_plane.db, control_plane.table(tables.LIMITERS)),
        DynamoAttempts(control_plane.db, control_plane.table(tables.LIMITERS)),
        DynamoCaps(
            control_plane.db, control_plane.table(tables.LIMITERS), "t", control_plane.table(tables.CONNECTIONS)
        ),
        DynamoUpstreamHolds(control_plane.db, control_plane.table(tables.LIMITERS), "t"),
        1,
    )


def row(attempt: str = "a", version: int | None = 1, key: SubscriptionKey = KEY, expires_at: int = 100) -> Subscription:
    subject = "user" if version is None else PUBLIC_SUBJECT
    claim = Claim(key.dashboard_id, key.datasource_id, Principal(subject, version), "hash", expires_at)
    return Subscription(key=key, generation=attempt, claim=claim, stream_key="stream")


def opened(stores: Stores, connection_id: str = "c=") -> None:
    stores.connections.open(Connection(connection_id, "ip", 1000, slots=frozenset({"ip#x#0"})))


ROOM = ConnectionRoom(5, 0, 100)


def reserved(stores: Stores, key: SubscriptionKey, room: ConnectionRoom = ROOM, slot: str = "x") -> Reservation:
    """As `Subscribe` asks: with the connection as it was read last, which may be gone by now."""
    seen = stores.connections.get(key.connection_id) or Connection(key.connection_id, "ip", 1000)
    return stores.connections.reserve(key, seen, room, slot)


# --- connections -------------------------------------------------------------------------------------------


def test_a_connection_comes_and_goes(stores: Stores) -> None:
    assert stores.connections.get("c=") is None
    opened(stores)
    assert reserved(stores, KEY, slot="dash#d#0") is Reservation.RESERVED
    opened(stores)  # repeated: keeps what it holds
    connection = stores.connections.get("c=")
    assert connection is not None
    assert dict(connection.subscriptions) == {"s#1": "d"} and connection.slots == {"ip#x#0", "dash#d#0"}
    assert stores.connections.remove("c=") == connection
    assert stores.connections.remove("c=") is None
    assert reserved(stores, KEY) is Reservation.GONE
    assert not stores.connections.note_slot("c=", "x")
    stores.connections.forget_slots("c=", ["x"])
    assert stores.connections.get("c=") is None


def test_the_cap_of_a_connection_is_exact(stores: Stores) -> None:
    opened(stores)
    keys = [SubscriptionKey("d", "c=", f"s{number}") for number in range(20)]
    with ThreadPoolExecutor(stores.parallel) as pool:
        results = list(pool.map(lambda key: reserved(stores, key, ConnectionRoom(7, 0, 100)), keys))
    assert results.count(Reservation.RESERVED) == 7 and results.count(Reservation.FULL) == 13
    held = keys[results.index(Reservation.RESERVED)]
    assert reserved(stores, held, ConnectionRoom(7, 0, 100)) is Reservation.RESERVED
    other = held._replace(dashboard_id="other")
    assert reserved(stores, other, ConnectionRoom(7, 0, 100)) is Reservation.OTHER_DASHBOARD


def test_several_keys_are_reserved_together_or_not_at_all(stores: Stores) -> None:
    stores.connections.open(Connection("c=", "ip", 1000))
    keys = [SubscriptionKey("d", "c=", f"s#{number}") for number in range(50)]
    exact = ConnectionRoom(50, 7, 50)
    assert not stores.connections.reserve_all(keys, ConnectionRoom(49, 7, 50), "dash#d#0")
    assert not stores.connections.reserve_all(keys, ConnectionRoom(50, 7, 49), "dash#d#0")
    assert not stores.connections.reserve_all([SubscriptionKey("d", "none=", "s")], exact, "dash#d#0")
    there = stores.connections.get("c=")
    assert there is not None and not there.subscriptions and not there.begun and not there.slots
    assert stores.connections.reserve_all(keys, exact, "dash#d#0")
    there = stores.connections.get("c=")
    assert there is not None and there.subscriptions == {key.datasource_id: "d" for key in keys}
    assert there.begun == {7: 50} and there.slots == {"dash#d#0"}
    assert not stores.connections.reserve_all(keys[:2], ConnectionRoom(100, 7, 100), "dash#d#0"), "they are there"
    more = SubscriptionKey("d", "c=", "more")
    assert not stores.connections.reserve_all([more], exact, "dash#d#0")
    assert stores.connections.reserve(more, there, exact, "dash#d#0") is Reservation.FULL, "it says why"


def test_new_subscriptions_of_a_window_are_exact(stores: Stores) -> None:
    """Of many at once, no more begin than may begin. Ending one gives nothing back, and the next window is free."""
    opened(stores)
    room = ConnectionRoom(50, 7, 13)
    keys = [SubscriptionKey("d", "c=", f"s{number}") for number in range(30)]
    with ThreadPoolExecutor(stores.parallel) as pool:
        results = list(pool.map(lambda key: reserved(stores, key, room), keys))
    assert results.count(Reservation.RESERVED) == 13 and results.count(Reservation.TOO_OFTEN) == 17
    held = keys[results.index(Reservation.RESERVED)]
    stores.subscriptions.release_key(held)
    assert reserved(stores, held, room) is Reservation.TOO_OFTEN
    assert reserved(stores, held, room._replace(window=8)) is Reservation.RESERVED
    assert reserved(stores, keys[-1], room._replace(at_once=13)) is Reservation.FULL, "that is the older limit"


def test_a_subscription_that_is_there_is_not_counted(stores: Stores) -> None:
    """Whatever was read before: a repetition finds the key, and a key that has gone meanwhile is new."""
    opened(stores)
    before = stores.connections.get("c=")
    assert before is not None
    room = ConnectionRoom(5, 7, 2)
    for _ in range(5):
        assert stores.connections.reserve(KEY, before, room, "x") is Reservation.RESERVED
        assert reserved(stores, KEY, room) is Reservation.RESERVED
    after = stores.connections.get("c=")
    assert after is not None and after.begun == {7: 1}
    stores.subscriptions.release_key(KEY)
    assert stores.connections.reserve(KEY, after, room, "x") is Reservation.RESERVED
    assert reserved(stores, KEY._replace(datasource_id="other"), room) is Reservation.TOO_OFTEN


def test_windows_that_are_over_are_forgotten(stores: Stores) -> None:
    """But for the last one: another process may count in it, because its clock is behind."""
    opened(stores)
    for window in (5, 6, 9, 8, 9):
        stores.subscriptions.release_key(KEY)
        assert reserved(stores, KEY, ConnectionRoom(5, window, 2)) is Reservation.RESERVED
    connection = stores.connections.get("c=")
    assert connection is not None and connection.begun == {8: 1, 9: 2}


def test_slots_are_noted_and_forgotten(stores: Stores) -> None:
    opened(stores)
    assert stores.connections.note_slot("c=", "dash#d#1")
    stores.connections.forget_slots("c=", ["dash#d#1", "never"])
    connection = stores.connections.get("c=")
    assert connection is not None and connection.slots == {"ip#x#0"}


def test_only_an_empty_connection_closes(stores: Stores) -> None:
    opened(stores)
    reserved(stores, KEY)
    assert not stores.connections.close_if_empty("c=")
    stores.subscriptions.release_key(KEY)
    assert stores.connections.close_if_empty("c=") and stores.connections.close_if_empty("c=")
    assert reserved(stores, KEY) is Reservation.GONE
    assert not stores.connections.close_if_empty("unknown")


def test_who_has_subscribed_is_no_longer_unused(stores: Stores) -> None:
    opened(stores)
    opened(stores, "fresh=")
    reserved(stores, KEY)
    assert not stores.connections.close_if_empty("c=", never_subscribed=True)
    stores.subscriptions.release_key(KEY)
    assert not stores.connections.close_if_empty("c=", never_subscribed=True)
    assert stores.connections.close_if_empty("fresh=", never_subscribed=True)
    assert stores.connections.close_if_empty("c=")


def test_a_place_is_given_back_unless_somebody_counts_on_it(stores: Stores) -> None:
    opened(stores)
    reserved(stores, KEY)
    assert stores.caps.take("dash#d", 0, 5, "c=") and stores.caps.take("dash#d", 0, 5, "other=")
    assert stores.connections.note_slot("c=", "dash#d#0")
    busy = stores.connections.get("c=")
    stores.subscriptions.release_key(KEY)
    empty = stores.connections.get("c=")
    assert busy is not None and empty is not None
    assert not stores.caps.give_back(busy, [("dash#d", 0)]), "its keys are others now"
    assert reserved(stores, KEY) is Reservation.RESERVED
    assert not stores.caps.give_back(empty, [("dash#d", 0)]), "a subscribe counts on it"
    stores.subscriptions.release_key(KEY)
    for _ in range(2):
        assert stores.caps.give_back(empty, [("dash#d", 0)])
        now = stores.connections.get("c=")
        assert now is not None and "dash#d#0" not in now.slots
        assert [holder for page in stores.caps.scan(0, 1) for _, _, holder in page.items] == ["other="]
    stores.connections.remove("c=")
    assert not stores.caps.give_back(empty, [("dash#d", 0)])


# --- subscriptions -----------------------------------------------------------------------------------------


def test_a_row_is_hidden_until_made_visible(stores: Stores) -> None:
    opened(stores)
    assert stores.subscriptions.put_hidden(row())
    assert stores.subscriptions.audience("stream").rows == []
    assert stores.subscriptions.make_visible(row()) and stores.subscriptions.make_visible(row())
    assert [row.key for row in stores.subscriptions.audience("stream").rows] == [KEY]
    assert stores.subscriptions.get(KEY) == replace(row(), visible=True)


def test_only_the_own_attempt_is_touched(stores: Stores) -> None:
    stores.subscriptions.put_hidden(row("mine"))
    assert not stores.subscriptions.make_visible(row("other"))
    assert not stores.subscriptions.claim_termination(row("other"), MARK)
    assert not stores.subscriptions.remove(row("other"))
    assert not stores.subscriptions.move_expiry(row("other"), 200)
    assert not stores.subscriptions.move_expiry(row("mine"), 200)  # hidden
    assert stores.subscriptions.get(KEY) == row("mine")


def test_a_put_gives_way_to_higher_versions_and_to_cut_rows(stores: Stores) -> None:
    stores.subscriptions.put_hidden(row("old", 2))
    assert not stores.subscriptions.put_hidden(row("older", 1))
    assert stores.subscriptions.put_hidden(row("same", 2))
    assert stores.subscriptions.put_hidden(row("member", None)), "members and guests may replace each other"
    assert stores.subscriptions.put_hidden(row("guest", 2))
    assert stores.subscriptions.put_hidden(row("new", 3))
    assert stores.subscriptions.claim_termination(row("new", 3), MARK)
    assert not stores.subscriptions.put_hidden(row("newest", 4))
    assert not stores.subscriptions.make_visible(row("new", 3))
    assert stores.subscriptions.remove(replace(row("new", 3), termination=MARK))
    assert stores.subscriptions.put_hidden(row("newest", 4))


def test_a_mark_keeps_others_away_until_it_runs_out(stores: Stores) -> None:
    stores.subscriptions.put_hidden(row())
    assert stores.subscriptions.claim_termination(row(), MARK) and stores.subscriptions.claim_termination(row(), MARK)
    stored = stores.subscriptions.get(KEY)
    assert stored is not None and stored.termination == MARK
    early, late = (
        TerminationClaim("other", MARK.at + TERMINATION_CLAIM_S - 1),
        TerminationClaim("other", MARK.at + TERMINATION_CLAIM_S),
    )
    assert not stores.subscriptions.claim_termination(stored, early)
    assert not stores.subscriptions.remove(row()), "whoever saw it unmarked leaves it alone"
    assert stores.subscriptions.claim_termination(stored, late) and not stores.subscriptions.remove(stored)
    assert stores.subscriptions.remove(replace(stored, termination=late)) and stores.subscriptions.get(KEY) is None


def test_a_put_leaves_a_live_row_of_its_own_authorization_alone(stores: Stores) -> None:
    for first, other in ((row("first", 2), row("other", 3)), (row("member", None), row("guest", 3))):
        stores.subscriptions.put_hidden(first)
        again = replace(first, generation="again")
        assert stores.subscriptions.put_hidden(again), "hidden: its attempt may have died"
        assert stores.subscriptions.make_visible(again)
        assert not stores.subscriptions.put_hidden(replace(first, generation="third"))
        assert stores.subscriptions.get(KEY) == replace(again, visible=True)
        changed = replace(first, generation="third", claim=replace(first.claim, intent_hash="changed"))
        assert stores.subscriptions.put_hidden(changed)
        stores.subscriptions.make_visible(changed)
        assert stores.subscriptions.put_hidden(other)
        assert stores.subscriptions.remove(other)


def test_a_cut_row_leaves_the_audience(stores: Stores) -> None:
    stores.subscriptions.put_hidden(row())
    stores.subscriptions.make_visible(row())
    assert stores.subscriptions.claim_termination(row(), MARK)
    assert stores.subscriptions.audience("stream").rows == []
    assert not stores.subscriptions.move_expiry(row(), 500)


def test_expiry_only_moves_forward(stores: Stores) -> None:
    stores.subscriptions.put_hidden(row())
    stores.subscriptions.make_visible(row())
    for asked, expected in ((150, 150), (120, 150), (150, 150)):
        assert stores.subscriptions.move_expiry(row(), asked)
        stored = stores.subscriptions.get(KEY)
        assert stored is not None and stored.claim.expires_at == expected


def test_the_session_token_kept_is_that_of_the_latest_expiry(stores: Stores) -> None:
    kept = replace(row(), session_token="first")
    assert stores.subscriptions.put_hidden(kept) and stores.subscriptions.make_visible(kept)
    for asked, token in ((300, "newest"), (200, "older"), (400, None)):
        assert stores.subscriptions.move_expiry(kept, asked, token)
    there = stores.subscriptions.get(KEY)
    assert there is not None and (there.claim.expires_at, there.session_token) == (400, "newest")
    without = row("b", key=SubscriptionKey("d", "c2=", "s"))
    stores.subscriptions.put_hidden(without)
    there = stores.subscriptions.get(without.key)
    assert there is not None and there.session_token is None


def test_removing_takes_the_key_along(stores: Stores) -> None:
    opened(stores)
    reserved(stores, KEY)
    stores.subscriptions.put_hidden(row())
    stores.subscriptions.release_key(KEY)  # the row still needs it
    held = stores.connections.get("c=")
    assert held is not None and "s#1" in held.subscriptions
    assert stores.subscriptions.remove(row()) and stores.subscriptions.remove(row())
    held = stores.connections.get("c=")
    assert held is not None and not held.subscriptions
    assert stores.subscriptions.get(KEY) is None


def test_removing_works_without_the_connection(stores: Stores) -> None:
    stores.subscriptions.put_hidden(row())
    assert stores.subscriptions.remove(row())
    assert stores.connections.get("c=") is None, "a removal must not create a connection"
    stores.subscriptions.release_key(KEY)
    assert stores.connections.get("c=") is None


def test_rows_are_found_by_dashboard_user_and_connection(stores: Stores) -> None:
    opened(stores)
    keys = [SubscriptionKey("d", f"c{number}", "s") for number in range(30)]
    for key in keys:
        stores.subscriptions.put_hidden(row(key=key))
    mine = SubscriptionKey("d2", "c=", "t")
    reserved(stores, mine)
    stores.subscriptions.put_hidden(row("a", None, mine))
    assert {row.key for row in stores.subscriptions.of_dashboard("d")} == set(keys)
    assert [row.key for row in stores.subscriptions.of_user("user")] == [mine]
    connection = stores.connections.remove("c=")
    assert connection is not None
    stores.subscriptions.remove_all_of(connection)
    stores.subscriptions.remove_all_of(connection)
    assert stores.subscriptions.get(mine) is None


def test_rows_of_a_dashboard_go_on_behind_a_connection(stores: Stores) -> None:
    """The rows of a connection come together, wherever one begins."""
    for number in range(10):
        for name in ("s", "t#1"):
            stores.subscriptions.put_hidden(row(key=SubscriptionKey("d", f"c{number}=", name)))
    stores.subscriptions.put_hidden(row(key=SubscriptionKey("d2", "c1=", "s")))
    found = [row.key.connection_id for row in stores.subscriptions.of_dashboard("d")]
    order = list(dict.fromkeys(found))
    assert found == [connection for connection in order for _ in range(2)] and len(order) == 10
    for number, connection in list(enumerate(order))[::3]:
        rest = [row.key.connection_id for row in stores.subscriptions.of_dashboard("d", connection)]
        assert list(dict.fromkeys(rest)) == order[number + 1 :] and len(rest) == 2 * (9 - number)


def test_some_rows_of_a_dashboard_are_read_and_no_more(stores: Stores) -> None:
    for number in range(100):
        stores.subscriptions.put_hidden(row(key=SubscriptionKey("d", f"c{number}=", "s")))
    stores.subscriptions.put_hidden(row(key=SubscriptionKey("d2", "c1=", "s")))
    found = stores.subscriptions.some_of_dashboard("d", 1000)
    assert sorted(row.key.connection_id for row in found.rows) == sorted(f"c{number}=" for number in range(100))
    assert not found.more
    some = stores.subscriptions.some_of_dashboard("d", 16)
    assert len(some.rows) == 16 and some.more


def test_what_has_expired_is_found_until_it_is_deleted(stores: Stores) -> None:
    def found(now: float) -> list[Subscription]:
        return [row for group in stores.subscriptions.expired(now) for row in group]

    keys = [SubscriptionKey("d", f"c{number}", "s") for number in range(30)]
    for number, key in enumerate(keys):
        stores.subscriptions.put_hidden(row(key=key, expires_at=100 + number))
    assert found(99.9) == []
    assert {row.key for row in found(114.9)} == set(keys[:15])
    first = row(key=keys[0])
    assert stores.subscriptions.make_visible(first) and stores.subscriptions.move_expiry(first, 500)
    assert {row.key for row in found(129)} == set(keys[1:]), "a refresh takes it out"
    second = row(key=keys[1], expires_at=101)
    assert stores.subscriptions.claim_termination(second, MARK, expired_at=101)
    (claimed,) = found(101)
    assert claimed.key == keys[1] and claimed.termination == MARK, "a run may have died after the claim"
    assert stores.subscriptions.remove(claimed) and found(101) == []


def test_a_crowd_is_read_shard_by_shard_where_the_mark_is(stores: Stores) -> None:
    rows = [row(key=KEY._replace(connection_id=f"{number}=")) for number in range(3 * AUDIENCE_SHARDS)]
    for number, each in enumerate(rows):
        assert stores.subscriptions.put_hidden(each)
        assert stores.subscriptions.make_visible(each, number % AUDIENCE_SHARDS)
    of_shards = [stores.subscriptions.audience_shard("stream", shard).rows for shard in range(AUDIENCE_SHARDS)]
    assert [len(found) for found in of_shards] == [3] * AUDIENCE_SHARDS
    assert {each.key for found in of_shards for each in found} == {each.key for each in rows}
    assert len(stores.subscriptions.audience("stream").rows) == 3, "nobody has marked it"
    for until in (1000, 2000):
        stores.subscriptions.mark_crowd("stream", until)
    found = stores.subscriptions.audience("stream")
    assert {each.key for each in found.rows} == {each.key for each in rows} and found.whole
    assert found == stores.subscriptions.audience("stream", or_first_shard=True), "few are sent to by one"
    scanned = [each for page in stores.subscriptions.scan(0, 1) for each in page.items]
    assert len(scanned) == len(rows), "the mark is no subscription"
    assert stores.subscriptions.claim_termination(rows[-1], MARK)
    assert rows[-1].key not in {each.key for each in stores.subscriptions.audience("stream").rows}


def test_of_too_many_only_the_first_shard_is_read(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowds, "CROWD", 2 * AUDIENCE_SHARDS)
    for number in range(4):
        each = row(key=KEY._replace(connection_id=f"{number}="))
        assert stores.subscriptions.put_hidden(each) and stores.subscriptions.make_visible(each, number // 2)
    assert stores.subscriptions.audience("stream", or_first_shard=True).whole, "no mark, no crowd"
    stores.subscriptions.mark_crowd("stream", 1000)
    first = stores.subscriptions.audience("stream", or_first_shard=True)
    assert len(first.rows) == 2 and not first.whole
    whole = stores.subscriptions.audience("stream")
    assert len(whole.rows) == 4 and whole.whole


# --- streams and values ------------------------------------------------------------------------------------


def stream(key: str = "k", last_requested_at: int = 10, topic: str = "a/+") -> Stream:
    return Stream(key, "mqtt", "json", "a/#", topic, last_requested_at=last_requested_at)


def test_a_new_stream_moves_its_allowed_topics_version(stores: Stores) -> None:
    assert stores.streams.version_of("a/#") == 0
    assert stores.streams.touch(stream()) == stream()
    first = stores.streams.of_source("a/#")
    assert list(first.streams) == [stream()] and first.version == stores.streams.version_of("a/#") > 0
    assert stores.streams.touch(stream(last_requested_at=20)).last_requested_at == 20
    assert stores.streams.touch(stream(last_requested_at=15)).last_requested_at == 20
    assert stores.streams.version_of("a/#") == first.version
    stores.streams.touch(stream("k2"))
    second = stores.streams.of_source("a/#")
    assert second.version > first.version and {stream.stream_key for stream in second.streams} == {"k", "k2"}
    assert list(stores.streams.of_source("b/#").streams) == []


def test_subscribes_of_a_stream_are_counted(stores: Stores) -> None:
    at = [100, 100, 200, 100 + COUNTED_S - 1, 150]  # the last one comes late, and may not be counted
    assert [stores.streams.touch(stream(last_requested_at=now)).subscribes for now in at] == [1, 2, 3, 4, 4]
    anew = [stores.streams.touch(stream(last_requested_at=100 + COUNTED_S + later)) for later in (0, 1)]
    assert [touched.subscribes for touched in anew] == [1, 2]
    stores.streams.note_crowd(stream(), 9000)
    assert stores.streams.touch(stream(last_requested_at=100 + COUNTED_S + 2)).crowd_until == 9000
    stores.streams.note_crowd(stream("gone"), 9000)
    assert stores.streams.of_source("a/#").streams == [stream(last_requested_at=100 + COUNTED_S + 2)]


def test_a_stream_keeps_the_longest_and_finest_history_that_is_asked_for(stores: Stores) -> None:
    def touch(at: int, seconds: int, every_ms: int) -> Stream:
        asked = replace(stream(last_requested_at=at), history=History(seconds, every_ms, at + 1000))
        return stores.streams.touch(asked)

    def listed() -> History | None:
        (found,) = stores.streams.of_source("a/#").streams
        return found.history

    assert stores.streams.touch(stream()).history is None
    version = stores.streams.version_of("a/#")
    assert touch(10, 600, 5000).history == listed() == History(600, 5000, 1010)
    assert stores.streams.version_of("a/#") > version, "whoever delivers has to know of it"
    version = stores.streams.version_of("a/#")
    assert touch(20, 60, 10_000).history == listed() == History(600, 5000, 1020)
    assert stores.streams.version_of("a/#") == version, "it is kept already"
    assert touch(30, 300, 2000).history == listed() == History(600, 2000, 1030)
    assert stores.streams.touch(stream(last_requested_at=40)).history == History(600, 2000, 1030)
    assert touch(35, 700, 3000).history == listed() == History(700, 2000, 1035), "somebody subscribed meanwhile"
    assert touch(2000, 60, 9000).history == listed() == History(60, 9000, 3000), "nobody asked for more since"


def test_a_new_stream_with_a_history_has_it_at_once(stores: Stores) -> None:
    asked = replace(stream(), history=History(600, 5000, 1010))
    assert stores.streams.touch(asked) == asked
    assert list(stores.streams.of_source("a/#").streams) == [asked]


SERIES = Series("k", "a/b")


def kept(stores: Stores, series: Series = SERIES, from_ms: int = 0, to_ms: int = 10**14) -> list[Point]:
    return list(stores.history.read(series, from_ms, to_ms, consistent=True))


def a_point(at_ms: int, payload: str, tie: str = "m") -> Point:
    return point_of(payload, at_ms, f"{at_ms:015d}-{tie}", 1000)


def test_a_bucket_has_the_least_the_most_and_the_last(stores: Stores) -> None:
    for at_ms, payload in ((1000, "5"), (1001, "7.50"), (1002, "-3"), (1004, "6"), (1003, "99")):
        stores.history.add(SERIES, a_point(at_ms, payload), 100)
    assert kept(stores) == [Point(1000, "000000000001004-m", "6", -3, 99)]
    stores.history.add(SERIES, a_point(1002, "-3"), 100)
    assert kept(stores)[0].seq == "000000000001004-m", "a repetition changes nothing"
    stores.history.add(SERIES, a_point(1005, '{"a": 1}'), 100)
    assert kept(stores) == [Point(1000, "000000000001005-m", '{"a": 1}', -3, 99)]
    stores.history.add(SERIES, a_point(1006, f'"{"x" * 600}"'), 100)
    assert kept(stores) == [Point(1000, "000000000001006-m", None, -3, 99)]
    assert kept(stores, Series("k")) == kept(stores, Series("k", "a/c")) == []


def test_buckets_are_read_from_the_newest_back(stores: Stores) -> None:
    for at_ms in (1000, 3000, 2000):
        stores.history.add(SERIES, a_point(at_ms, "1"), 100)
    assert [point.start_ms for point in kept(stores)] == [3000, 2000, 1000]
    assert [point.start_ms for point in kept(stores, from_ms=2000, to_ms=2999)] == [2000]


def test_groups_are_read_point_by_point(stores: Stores) -> None:
    points = [a_point(at_ms, payload) for at_ms, payload in ((1500, "1.50"), (2500, '"\u00e9"'), (3500, "3"))]
    groups = [Group(SERIES, 1500, points[:2], 100), Group(SERIES, 3500, points[2:], 100)]
    groups += [Group(Series("k", str(number)), 1, points[:1], 100) for number in range(60)]
    stores.history.write(groups)
    stores.history.write(groups[:1])
    assert kept(stores) == points[::-1]
    assert kept(stores, Series("k", "59")) == points[:1]


@pytest.mark.parametrize("next_payload", ["9", "1", "5"])
@pytest.mark.parametrize("ahead", [0, 1, 2, 3])
def test_whatever_others_write_meanwhile_a_bucket_is_right(stores: Stores, ahead: int, next_payload: str) -> None:
    """The guess of what a process has seen is wrong, in each of its forms."""
    stores.history.add(SERIES, a_point(1000, "5"), 100)
    other = [a_point(1010, "50"), a_point(1011, "-50"), a_point(1012, "5"), a_point(1013, '"x"')][ahead]
    if isinstance(stores.history, DynamoHistory):
        DynamoHistory(stores.history._db, stores.history._table).add(SERIES, other, 100)
    else:
        stores.history.add(SERIES, other, 100)
    values = [(next_payload, 1015), ("9", 1005), ("1", 1020), ("20", 1021), ("5", 1022), ("4", 1001)]
    for payload, at_ms in values:
        stores.history.add(SERIES, a_point(at_ms, payload), 100)
    numbers = [5, 9, 1, 20, 4] + ([] if other.least is None else [other.least])
    assert kept(stores) == [Point(1000, "000000000001022-m", "5", min(numbers), max(numbers))]


def test_the_relays_version_moves_for_whoever_waits_for_it(stores: Stores) -> None:
    def relayed(key: str, last_requested_at: int) -> Stream:
        return Stream(key, "sse", "json", None, None, last_requested_at=last_requested_at, intent={"url": "u"})

    def version() -> int:
        listed = stores.streams.of_source(None)
        assert listed.version == stores.streams.version_of(None)
        return listed.version

    versions = [version()]
    made = stores.streams.touch(relayed("k", 10))
    assert made.intent == {"url": "u"} and list(stores.streams.of_source(None).streams) == [made]
    versions.append(version())
    stores.streams.touch(relayed("k", 20))
    versions.append(version())
    assert stores.streams.touch(relayed("k", 15)).last_requested_at == 20
    versions.append(version())
    assert versions == sorted(set(versions)), "not connected: a worker has to look"
    assert stores.streams.note_status(made, True)
    assert stores.streams.touch(relayed("k", 30)).connected and version() == versions[-1], "it is served"
    assert not stores.streams.release_if_idle(relayed("k", 20)), "it was wanted again"
    assert stores.streams.of_source(None).streams[0].connected
    assert stores.streams.release_if_idle(relayed("k", 30)) and not stores.streams.of_source(None).streams[0].connected
    stores.streams.touch(relayed("k", 30))
    assert version() > versions[-1]
    assert not stores.streams.release_if_idle(relayed("never announced", 1))
    assert stores.streams.version_of("a/#") == 0


def test_the_status_of_a_stream_is_stored_with_the_number_of_its_changes(stores: Stores) -> None:
    streams = stores.streams
    stream = Stream("k", "sse", "json", None, None, last_requested_at=10, intent={"url": "u"})
    assert streams.relayed("k") is None and not streams.note_status(stream, True), "nobody has asked for it"
    streams.touch(stream)

    def stored() -> tuple[bool, Fault | None, int]:
        there = streams.relayed("k")
        assert there is not None
        return there.connected, there.fault, there.status_number

    began = stored()[2]
    refused, ended = Fault("STREAM_CONNECT_FAILED", "refused"), Fault("STREAM_CONNECT_FAILED", "ended")
    changes = ((True, None), (False, refused), (False, ended), (False, None), (False, refused), (True, None))
    for number, (connected, fault) in enumerate(changes, began + 1):
        assert streams.note_status(stream, connected, fault)
        assert stored() == (connected, fault, number)
        assert not streams.note_status(stream, connected, fault), "it is the stored one"
        assert stored() == (connected, fault, number) == (*stored()[:2], streams.touch(stream).status_number)
    streams.note_status(stream, False, refused)
    assert streams.release_if_idle(stream) and stored() == (False, None, began + len(changes) + 2)
    streams.touch(Stream("of a rule", "mqtt", "json", "a/#", "a/b", last_requested_at=10))
    assert streams.relayed("of a rule") is None


def test_only_newer_values_replace(stores: Stores) -> None:
    assert stores.last_values.get("k") is None
    assert stores.last_values.put_if_newer("k", LastValue("1", 10, "b"))
    assert stores.last_values.put_if_newer("k", LastValue("1", 10, "b")), "a repetition is the same message"
    assert not stores.last_values.put_if_newer("k", LastValue("2", 10, "a"))
    assert not stores.last_values.put_if_newer("k", LastValue("3", 9, "z"))
    assert stores.last_values.put_if_newer("k", LastValue('"ü"', 10, "c"))
    assert stores.last_values.get("k") == LastValue('"ü"', 10, "c")


def test_each_topic_has_a_last_value(stores: Stores) -> None:
    values, long = stores.last_values, "t/" + "ü" * 1_000
    told = [LastValue("1", 10, "m", "t/a"), LastValue("2", 9, "m", "t/b"), LastValue("3", 8, "m", long)]
    for value in told:
        assert values.put_if_newer("k", value)
    assert values.put_if_newer("other", LastValue("4", 11, "m"))
    assert values.newest("k") == told and values.newest("other") == [LastValue("4", 11, "m")]
    assert [values.get("k", value.topic) for value in told] == told and values.get("k") is None
    assert not values.put_if_newer("k", LastValue("0", 8, "m", "t/b")), "its own order"
    gone = LastValue("null", 12, "m", "t/b", deleted=True)
    assert values.put_if_newer("k", gone) and values.newest("k")[0] == gone
    assert not values.put_if_newer("k", LastValue("0", 11, "m", "t/b")), "an older value does not come back"
    assert values.put_if_newer("k", LastValue("5", 13, "m", "t/b")) and not values.newest("k")[0].deleted
    assert values.note_overtaken("k", 100.0, "t/a") and not values.note_overtaken("k", 100.0, "t/a")
    assert values.note_overtaken("k", 100.0, "t/b"), "each topic is settled for itself"
    read = values.get("k", "t/a")
    assert read is not None and read.overtaken == 2 and values.note_settled("k", read, "t/a")


def test_values_of_a_topic_are_sent_apart(stores: Stores) -> None:
    values, now = stores.last_values, 1_000_000

    def admit(number: int, at_ms: int, topic: str | None = "t") -> Admission:
        return values.admit("k", LastValue(str(number), number, "m", topic), at_ms, 100)

    assert admit(1, now) == Admission(Verdict.SEND)
    assert admit(1, now + 1) == Admission(Verdict.SEND), "its answer was lost"
    waiting = admit(3, now + 10)
    assert waiting == Admission(Verdict.WAIT, now + 100)
    assert admit(2, now + 11) == Admission(Verdict.OUTDATED)
    assert admit(4, now + 12) == Admission(Verdict.LEAVE)
    assert admit(1, now + 13, None) == Admission(Verdict.SEND), "another topic"
    assert values.claim("k", "t", waiting, now + 100, 100) == LastValue("4", 4, "m", "t")
    assert values.claim("k", "t", waiting, now + 100, 100) is None, "it is claimed once"
    assert admit(5, now + 101) == Admission(Verdict.WAIT, now + 200), "what comes after the claim waits anew"
    later = now + 200 + WAITS_MS
    assert admit(6, later) == Admission(Verdict.SEND), "whoever waits so long no longer counts"
    waiting = admit(7, later + 1)
    assert waiting == Admission(Verdict.WAIT, later + 100)
    assert admit(8, later + 100) == Admission(Verdict.SEND), "it comes at the moment that is waited for"
    assert values.claim("k", "t", waiting, later + 100, 100) is None, "so nobody waits any longer"


def test_the_parts_of_a_crowd_have_notes_of_their_own(stores: Stores) -> None:
    values, value = stores.last_values, LastValue("1", 10, "a", "t")
    assert values.note_overtaken("k", 100.0, "t", 3), "there is no value"
    values.put_if_newer("k", value)
    assert values.note_overtaken("k", 100.0, "t", 3) and values.note_overtaken("k", 100.0, "t", 4)
    assert values.note_overtaken("k", 100.0, "t"), "nor does the whole audience wait for a part"
    assert not values.note_overtaken("k", 101.0, "t", 3), "somebody sends to it"
    read = values.get("k", "t", 3)
    assert read is not None and read.overtaken == 2 and values.get("k", "t", 5) == value
    values.put_if_newer("k", replace(value, payload="2", timestamp_ms=11))
    assert not values.note_settled("k", read, "t", 3), "there is a newer one"
    read = values.get("k", "t", 3)
    assert not values.note_overtaken("k", 101.0, "t", 3)
    assert not values.note_settled("k", read, "t", 3), "it was noted once more"
    read = values.get("k", "t", 3)
    assert read is not None and read.payload == "2" and values.note_settled("k", read, "t", 3)
    assert values.note_settled("k", read, "t", 3), "another sender has settled it with the same value"
    assert values.note_overtaken("k", 102.0, "t", 3) and not values.note_overtaken("k", 102.0, "t", 4)
    assert values.note_overtaken("k", 100.0 + SETTLE_S, "t", 4), "its sender is relied upon no longer"


def test_of_more_topics_than_are_kept_the_stalest_go(stores: Stores) -> None:
    values = stores.last_values
    for number in range(MOST_TOPICS + 5):
        values.put_if_newer("k", LastValue("1", number, "m", f"t/{number}"))
    assert [value.timestamp_ms for value in values.newest("k")] == list(range(MOST_TOPICS + 4, 4, -1))
    assert values.trim("k") == 5 and values.trim("k") == 0
    assert values.get("k", "t/4") is None and values.get("k", "t/5") is not None


def test_settling_ends_when_nothing_was_noted_or_stored(stores: Stores) -> None:
    values = stores.last_values

    def newest() -> LastValue:
        value = values.get("k")
        assert value is not None
        return value

    assert values.note_overtaken("k", 100.0), "there is no value: nobody settles it"
    assert values.get("k") is None and not values.note_settled("k", None)
    values.put_if_newer("k", LastValue("1", 10, "a"))
    assert values.note_overtaken("k", 100.7), "the first settles"
    read = newest()
    assert read.overtaken == 1 and not values.note_overtaken("k", 101.0), "the second leaves it to the first"
    assert not values.note_settled("k", read), "and is seen"
    read = newest()
    values.put_if_newer("k", LastValue("2", 11, "a"))
    assert newest().overtaken == 2 and not values.note_settled("k", read), "a newer value is seen, and notes stay"
    assert values.note_settled("k", newest()) and newest().overtaken == 0
    assert values.note_settled("k", newest()), "a repetition is no harm"
    assert values.note_overtaken("k", 102.0), "the next one settles again"
    assert not values.note_overtaken("k", 102.0 + SETTLE_S - 1)
    assert values.note_overtaken("k", 102.0 + SETTLE_S), "who began so long ago is not relied upon"
    assert newest().overtaken == 3 and values.note_settled("k", None) and newest().overtaken == 0
    assert newest() == LastValue("2", 11, "a")


def test_one_call_carries_a_topic_until_nothing_newer_is_there(stores: Stores) -> None:
    values, now = stores.last_values, 1_800_000_000_000
    second = now / 1000
    assert values.carry("k", None, "a", now) is None, "there is no value"
    assert values.admit("k", LastValue("1", 10, "m"), now, 100) == Admission(Verdict.SEND)
    waiting = values.admit("k", LastValue("2", 11, "m"), now + 10, 100)
    assert waiting.verdict is Verdict.WAIT
    assert values.carry("k", None, "a", now + 20) == LastValue("2", 11, "m")
    assert values.claim("k", None, waiting, now + 100, 100) is None, "its value was read by who carries"
    assert values.carry("k", None, "a", now + 21) is not None, "its answer was lost"
    assert values.carry("k", None, "b", now + 22) is None, "another carries"
    assert values.admit("k", LastValue("3", 12, "m"), now + 500, 100) == Admission(Verdict.LEAVE)
    sent = LastValue("2", 11, "m")
    assert not values.end_carrying("k", None, "a", sent, now + 600, 100), "a newer value is there"
    read = values.carry("k", None, "a", now + 600)
    assert read == LastValue("3", 12, "m") and not values.note_overtaken("k", second + 1), "who carries settles"
    assert not values.end_carrying("k", None, "a", read, now + 700, 100), "something was noted"
    read = values.carry("k", None, "a", now + 700)
    assert read is not None and read.overtaken == 1
    assert not values.end_carrying("k", None, "b", read, now + 800, 100), "it is not who carries"
    assert values.end_carrying("k", None, "a", read, now + 800, 100)
    assert not values.end_carrying("k", None, "a", read, now + 800, 100)
    newest = values.get("k")
    assert newest is not None and newest.overtaken == 0
    assert values.admit("k", LastValue("4", 13, "m"), now + 850, 100).verdict is Verdict.WAIT
    assert values.admit("k", LastValue("5", 14, "m"), now + 900, 100) == Admission(Verdict.SEND), "the interval is over"


def test_whoever_hands_over_leaves_the_next_value_to_its_own_call(stores: Stores) -> None:
    values, now = stores.last_values, 1_800_000_000_000
    values.admit("k", LastValue("1", 10, "m"), now, 100)
    assert values.carry("k", None, "a", now) and not values.note_overtaken("k", now / 1000)
    newest = values.hand_over("k", None, "a", now + 100)
    assert newest is not None and newest.overtaken == 1, "what was noted stays"
    assert values.hand_over("k", None, "a", now + 100) is None
    assert values.admit("k", LastValue("2", 11, "m"), now + 100, 100) == Admission(Verdict.SEND)
    assert values.note_overtaken("k", now / 1000), "nobody settles"


def test_whoever_dies_carrying_is_not_relied_upon_for_long(stores: Stores) -> None:
    values, now = stores.last_values, 1_800_000_000_000
    values.admit("k", LastValue("1", 10, "m"), now, 100)
    assert values.carry("k", None, "dead", now)
    assert values.admit("k", LastValue("2", 11, "m"), now + CARRIES_MS - 1, 100) == Admission(Verdict.LEAVE)
    assert values.admit("k", LastValue("3", 12, "m"), now + CARRIES_MS, 100) == Admission(Verdict.SEND)
    assert values.carry("k", None, "b", now + CARRIES_MS) == LastValue("3", 12, "m")
    assert values.carry("k", None, "dead", now + CARRIES_MS) is None
    assert values.note_overtaken("k", now / 1000 + 2 * CARRIES_MS / 1000 + 1), "nor does it settle"


# --- limits ------------------------------------------------------------------------------------------------


def counted(stores: Stores, limit: int, now_ms: int = 60_000) -> Callable[[object], bool]:
    def count(request: object) -> bool:
        return stores.rates.count("k", limit, now_ms, 60_000, str(request), monotonic() + 30).allowed

    return count


def test_a_rate_is_exact_under_concurrency(stores: Stores) -> None:
    with ThreadPoolExecutor(stores.parallel) as pool:
        results = list(pool.map(counted(stores, 13), range(40)))
    assert results.count(True) == 13
    assert counted(stores, 13, 120_000)("next window")


def test_a_repeated_request_counts_once(stores: Stores) -> None:
    count = counted(stores, 2)
    assert count("a") and count("a") and count("b") and count("b")
    assert not count("c")


GUESSES = AttemptPolicy(limit=3, window_s=60, lock_s=100)


def begun(stores: Stores, attempt_id: str, now_ms: int = 1000, key: str = "k") -> AttemptDecision:
    return stores.attempts.begin(key, attempt_id, GUESSES, now_ms, monotonic() + 30)


def given_back(stores: Stores, attempt_id: str, known_until_ms: int = 0) -> None:
    stores.attempts.right("k", attempt_id, monotonic() + 30, known_until_ms=known_until_ms)


def was_wrong(stores: Stores, attempt_id: str, now_ms: int) -> bool:
    return stores.attempts.wrong("k", attempt_id, GUESSES, now_ms, monotonic() + 30)


def test_attempts_are_exact_under_concurrency(stores: Stores) -> None:
    with ThreadPoolExecutor(stores.parallel) as pool:
        decisions = list(pool.map(lambda number: begun(stores, f"a{number}"), range(14)))
    assert [decision.allowed for decision in decisions].count(True) == 3
    assert [decision.last for decision in decisions if decision.allowed].count(True) == 1
    assert {decision.retry_after_ms for decision in decisions} == {0, 60_000}


def test_attempts_are_counted_and_given_back_once(stores: Stores) -> None:
    for _ in range(2):
        assert begun(stores, "a").allowed and begun(stores, "b").allowed
    for _ in range(2):
        given_back(stores, "a")
    assert begun(stores, "c").allowed and begun(stores, "d").allowed, "a is free, and b is not"
    assert not begun(stores, "e").allowed
    given_back(stores, "e")
    given_back(stores, "never begun")
    assert not begun(stores, "e").allowed


def test_a_wrong_attempt_that_uses_up_the_window_lengthens_it(stores: Stores) -> None:
    for attempt_id in "abc":
        assert begun(stores, attempt_id).last == (attempt_id == "c")
        assert was_wrong(stores, attempt_id, 2000) == (attempt_id == "c")
    assert was_wrong(stores, "c", 2000), "repeated"
    assert begun(stores, "d", 101_999) == AttemptDecision(False, retry_after_ms=1)
    assert not was_wrong(stores, "d", 3000), "it was never counted"
    assert begun(stores, "d", 102_000).allowed, "and a new window begins"
    assert begun(stores, "e", 102_000).allowed


def test_a_right_attempt_frees_a_window_that_others_used_up(stores: Stores) -> None:
    for attempt_id in "abc":
        begun(stores, attempt_id)
    was_wrong(stores, "c", 2000)
    given_back(stores, "b")
    assert begun(stores, "d", 50_000).allowed and not begun(stores, "e", 50_000).allowed


def test_a_key_is_known_for_a_while(stores: Stores) -> None:
    assert not begun(stores, "a").known
    given_back(stores, "a", known_until_ms=200_000)
    assert begun(stores, "b").known and begun(stores, "c", 199_999).known
    assert not begun(stores, "d", 200_000).known
    assert not begun(stores, "d", 1000, key="other").known


def test_a_cap_is_exact_and_idempotent(stores: Stores) -> None:
    with ThreadPoolExecutor(stores.parallel) as pool:
        results = list(pool.map(lambda holder: stores.caps.take("cap", 0, 5, f"h{holder}"), range(20)))
    assert results.count(True) == 5
    holder = f"h{results.index(True)}"
    assert stores.caps.take("cap", 0, 5, holder), "who holds it already, holds it"
    stores.caps.release("cap", 0, holder)
    stores.caps.release("cap", 0, holder)
    assert stores.caps.take("cap", 0, 5, "new") and not stores.caps.take("cap", 0, 5, holder)
    assert not stores.caps.take("cap", 1, 0, "x")


def test_limits_are_read_as_they_are_counted(stores: Stores) -> None:
    def spent(now_ms: int) -> int:
        return stores.rates.spent("k", now_ms, 60_000, monotonic() + 30)

    assert spent(60_000) == 0
    for request in range(4):
        counted(stores, 3)(request)
    assert (spent(60_000), spent(119_999), spent(120_000)) == (3, 3, 0)

    def in_shard(shard: int) -> int:
        return stores.caps.held("cap", shard, monotonic() + 30)

    assert in_shard(0) == 0
    for holder in ("a=", "b="):
        stores.caps.take("cap", 0, 5, holder)
    assert (in_shard(0), in_shard(1)) == (2, 0)
    for holder in ("a=", "b="):
        stores.caps.release("cap", 0, holder)
    assert in_shard(0) == 0, "an empty set is none"


def test_holds_are_read_as_they_are_decided(stores: Stores) -> None:
    def refused(name: str, now: int = 1000, limit: int = 2) -> int | None:
        return stores.holds.refused("o", name, now, limit, monotonic() + 30)

    assert refused("a") is None
    assert held(stores, "a", 2000, limit=2) is None and refused("b") is None
    assert held(stores, "b", 3000, limit=2) is None
    assert refused("c") == 2000 and refused("c", limit=1) == 3000
    assert refused("c") == 2000, "asking holds nothing"
    assert refused("a") is None and refused("b") is None, "what is held already"
    assert refused("c", now=2000) is None, "one has ended"
    assert held(stores, "c", 4000, limit=2) == 2000, "and the real one says the same"


def test_whole_tables_are_read_for_the_full_revalidation(stores: Stores) -> None:
    opened(stores)
    stores.subscriptions.put_hidden(row())
    stores.caps.take("dash#d", 3, 5, "c=")
    stores.rates.count("k", 5, 0, 60_000, "r", monotonic() + 5)
    for segments in (1, 4):
        parts = range(segments)
        connections = [
            connection
            for part in parts
            for page in stores.connections.scan(part, segments)
            for connection in page.items
        ]
        assert [connection.connection_id for connection in connections] == ["c="]
        rows = [row for part in parts for page in stores.subscriptions.scan(part, segments) for row in page.items]
        assert [row.key for row in rows] == [KEY]
        holders = [holder for part in parts for page in stores.caps.scan(part, segments) for holder in page.items]
        assert holders == [("dash#d", 3, "c=")]


def test_a_scan_goes_on_where_it_was(stores: Stores) -> None:
    for number in range(40):  # more than a page of any store
        stores.connections.open(Connection(f"c{number}", "x" * 35_000, 1000))
    whole, resumed = set(), set()
    for part in range(3):
        position: str | None = None
        for page in stores.connections.scan(part, 3):
            whole |= {connection.connection_id for connection in page.items}
        while True:
            page = next(iter(stores.connections.scan(part, 3, position)))
            resumed |= {connection.connection_id for connection in page.items}
            position = page.position
            if position is None:
                break
    assert resumed == whole and len(whole) == 40


def held(
    stores: Stores, name: str, until: int, *, now: int = 1000, limit: int | None = 3, owner: str = "o"
) -> int | None:
    return stores.holds.hold(owner, name, until, now, limit, monotonic() + 30)


def test_holds_of_an_owner_are_exact_under_concurrency(stores: Stores) -> None:
    with ThreadPoolExecutor(stores.parallel) as pool:
        results = list(pool.map(lambda number: held(stores, f"s{number}", 2000 + number, limit=7), range(20)))
    assert results.count(None) == 7
    first = min(2000 + number for number, result in enumerate(results) if result is None)
    assert {result for result in results if result is not None} == {first}, "then the first of them ends"
    for number, result in enumerate(results):
        if result is None:
            assert held(stores, f"s{number}", 3000, limit=7) is None, "who holds it already, holds it"
    assert held(stores, "of another", 2000, limit=7, owner="p") is None


def test_a_hold_is_only_lengthened(stores: Stores) -> None:
    for until in (2000, 3000, 2500, 3000):
        assert held(stores, "s", until, limit=1) is None
    assert held(stores, "t", 4000, limit=1) == 3000


def test_holds_that_have_ended_make_room(stores: Stores) -> None:
    for number in range(3):
        assert held(stores, f"s{number}", 2000 + number) is None
    assert held(stores, "t", 5000, now=1999) == 2000
    assert held(stores, "t", 5000, now=2000) is None
    assert held(stores, "u", 5000, now=2000) == 2001
    assert held(stores, "s1", 6000, now=2001) is None, "it had ended, and goes on in its place"
    assert held(stores, "u", 5000, now=2001) == 2002


def test_a_hold_that_is_kept_is_never_refused_and_counts(stores: Stores) -> None:
    for number in range(5):
        assert held(stores, f"s{number}", 2000 + number, limit=None) is None
    assert held(stores, "t", 5000) == 2002, "then two of five are left, and the third is free"
    assert held(stores, "t", 5000, now=2002) is None


def test_many_holds_that_have_ended_make_room(stores: Stores) -> None:
    """More than one write removes."""
    for number in range(60):
        assert held(stores, f"s{number}", 2000, limit=None) is None
    assert held(stores, "t", 5000, now=2000, limit=1) is None
    assert held(stores, "u", 5000, now=2000, limit=1) == 5000


# --- the full revalidation -----------------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "dynamodb"])
def passes(request: pytest.FixtureRequest) -> FullRevalidationRuns:
    if request.param == "memory":
        return MemoryFullRevalidationRuns()
    control_plane = ControlPlaneProviders(request.getfixturevalue("deployed"))
    return DynamoRevocations(control_plane.db, control_plane.table(tables.REVOCATIONS), 60)


def test_one_run_at_a_time_when_it_is_due(passes: FullRevalidationRuns) -> None:
    runs = [passes.begin(f"run-{number}", 1000, 300, 50) for number in range(20)]
    assert [run is not None for run in runs].count(True) == 1
    first = next(run for run in runs if run is not None)
    assert passes.begin(first.owner, 1000, 300, 50) == first, "its answer was lost, and it asks again"
    passes.end(first)
    assert passes.begin("b", 1299, 300, 50) is None, "not due"
    assert passes.begin("b", 1300, 300, 500) == RevalidationRun("b", 1300, {})


def test_a_run_that_died_is_continued_by_the_next(passes: FullRevalidationRuns) -> None:
    died = passes.begin("a", 1000, 300, 50)
    assert died is not None and passes.note(died, "s 1", "here") and passes.note(died, "s 2", "")
    assert passes.begin("b", 1050, 300, 50) is None, "its lease still holds"
    goes_on = passes.begin("b", 1051, 300, 50)
    assert goes_on == RevalidationRun("b", 1000, {"s 1": "here", "s 2": ""})
    assert not passes.note(died, "s 1", "further"), "the one that was too slow is told"
    passes.end(died)
    passes.pause(died)
    assert passes.begin("c", 1060, 300, 50) is None and passes.note(goes_on, "s 1", "")
    passes.pause(goes_on)
    assert passes.begin("c", 1060, 300, 50) == RevalidationRun("c", 1000, {"s 1": "", "s 2": ""}), (
        "at once, though not due"
    )


def test_a_pass_that_is_demanded_is_due(passes: FullRevalidationRuns) -> None:
    passes.demand(900)
    first = passes.begin("a", 1000, 300, 50)
    assert first is not None
    passes.demand(1001)  # the one that runs may have been past what this is about
    passes.end(first)
    second = passes.begin("b", 1002, 300, 50)
    assert second == RevalidationRun("b", 1002, {})
    passes.end(second)
    assert passes.begin("c", 1003, 300, 50) is None


def test_other_switches_make_runs_due_until_they_settle(passes: FullRevalidationRuns) -> None:
    first = passes.begin("a", 1000, 300, 50, "on")
    assert first is not None
    assert passes.begin("b", 1001, 300, 50, "off") is None, "the lease of the first holds"
    passes.end(first)
    assert passes.begin("b", 1002, 300, 50, "on") is None, "not due"
    last = 1003 + SETTLING_S
    for owner, now in (("c", 1003), ("d", 1003), ("e", 1063), ("f", last - 60), ("g", last)):  # for late subscribes
        run = passes.begin(owner, now, 300, 50, "off")
        assert run == RevalidationRun(owner, now, {})
        assert passes.begin(owner, now, 300, 50, "off") == run, "its answer was lost, and it asks again"
        passes.end(run)
    assert passes.begin("h", last + 1, 300, 50, "off") is None, "settled"
    back = passes.begin("i", last + 2, 300, 50, "on")
    assert back is not None, "on again"
    passes.pause(back)
    again = RevalidationRun("j", last + 2, {})
    assert passes.begin("j", last + 2, 300, 50, "off") == again, "an open run is carried on"
    passes.end(again)
    assert passes.begin("k", last + 2, 300, 50, "off") is not None, "then it is the turn of the new switches"


def test_the_cursor_moves_from_where_it_was_seen(deployed: Mapping[str, str]) -> None:
    control_plane = ControlPlaneProviders(deployed)
    feed = DynamoRevocations(control_plane.db, control_plane.table(tables.REVOCATIONS), 60)
    assert feed.cursor() is None and feed.move_cursor(None, 3) and not feed.move_cursor(None, 4)
    assert feed.move_cursor(3, 5) and feed.cursor() == 5


def test_expired_marks_give_way_to_a_refresh(stores: Stores) -> None:
    stores.subscriptions.put_hidden(row())
    assert not stores.subscriptions.claim_termination(row(), MARK, expired_at=99)
    assert stores.subscriptions.claim_termination(row(), MARK, expired_at=100)


def test_the_cursor_of_a_remote_feed(deployed: Mapping[str, str]) -> None:
    control_plane = ControlPlaneProviders(deployed)
    table = control_plane.table(tables.REVOCATIONS)
    one, other = (DynamoRemoteCursor(control_plane.db, table, api) for api in ("https://a", "https://b"))
    assert one.cursor() is None and one.move_cursor(None, "x") and not one.move_cursor(None, "y")
    assert not one.move_cursor("y", "z") and one.move_cursor("x", "z") and one.cursor() == "z"
    assert other.cursor() is None, "another API is read from its own beginning"
    feed = DynamoRevocations(control_plane.db, table, 60)
    assert feed.cursor() is None and feed.read(0, 10, 0).head == 0


@pytest.mark.parametrize("kind", ["memory", "dynamodb"])
def test_revoked_versions_only_grow(kind: str, request: pytest.FixtureRequest) -> None:
    access: MemoryRemoteAccess | DynamoRemoteAccess = MemoryRemoteAccess()
    if kind == "dynamodb":
        control_plane = ControlPlaneProviders(request.getfixturevalue("deployed"))
        access = control_plane.remote_access
        assert control_plane.access.read(["d"], []).dashboards == {}, "no item of ours"
    for version in (3, 5, 4, 5):
        access.raise_to("d", version)
    snapshot = access.read(["d", "never", "d"], ["user"])
    assert {dashboard_id: item.share_version for dashboard_id, item in snapshot.dashboards.items()} == {
        "d": 5,
        "never": 0,
    }
    assert all(item.remote for item in snapshot.dashboards.values()) and not snapshot.users
    assert access.read(["d"], []).dashboards["d"].share_version == 5
    assert access.read(["never"], []).dashboards["never"].share_version == 0
    assert access.read([], []).dashboards == {} and access.intent("d", "s") is None
    if kind == "dynamodb":
        assert control_plane.access.read(["d"], []).dashboards == {}, "still none of ours"
