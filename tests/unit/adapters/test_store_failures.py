"""A store that fails says nothing about anybody's rights or limits, however it fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, cast

import pytest

from tests.doubles.platform import CountingIds, ManualClock, MemoryObserver, PlainKeys
from tidegate.adapters.aws.json_client import AwsError, JsonClient
from tidegate.adapters.dynamodb.attempts import DynamoAttempts
from tidegate.adapters.dynamodb.client import DynamoDb
from tidegate.adapters.dynamodb.limits import DynamoCaps, DynamoRates
from tidegate.adapters.dynamodb.upstream_holds import DynamoUpstreamHolds
from tidegate.domain.attempts import AttemptPolicy
from tidegate.domain.limits import FailureMode
from tidegate.errors import LimiterUnavailable, LimitReached, Unavailable
from tidegate.usecases.limits.attempts import Attempts
from tidegate.usecases.limits.rate_limits import RateLimits

LATER = 1e12


class Answers:
    """A client of DynamoDB that answers every call alike."""

    def __init__(self, answer: AwsError | Mapping[str, Any]) -> None:
        self.answer = answer
        self.calls = 0

    def call(self, _operation: str, _payload: Mapping[str, Any], *, deadline: float | None = None) -> Mapping[str, Any]:
        self.calls += 1
        if isinstance(self.answer, AwsError):
            raise self.answer
        return self.answer


def failed(code: str, *, temporary: bool = False, status: int = 400, late: bool = False, **body: Any) -> AwsError:
    return AwsError("dynamodb", "UpdateItem", code, "", temporary, body, status=status, late=late)


def throttled(code: str, *reasons: str, member: str = "ThrottlingReasons") -> AwsError:
    body: dict[str, Any] = {member: [{"reason": reason, "resource": "arn"} for reason in reasons]}
    return failed(code, temporary=True, **body)


#: How a store fails, and the cause that is counted.
FAILURES: dict[str, tuple[AwsError | Mapping[str, Any], str]] = {
    "hang": (failed("NotAnswered", temporary=True, status=0, late=True), "store_timeout"),
    "reset": (failed("NotAnswered", temporary=True, status=0), "store_unreachable"),
    "5xx": (failed("InternalServerError", temporary=True, status=500), "store_failed"),
    "gateway page": (failed("HTTP503", temporary=True, status=503), "store_failed"),
    "throttled": (failed("ThrottlingException", temporary=True), "store_throttled"),
    "out of capacity": (
        throttled("ProvisionedThroughputExceededException", "TableWriteProvisionedThroughputExceeded"),
        "store_throttled",
    ),
    "account": (throttled("ThrottlingException", "TableWriteAccountLimitExceeded"), "store_throttled"),
    "key and account": (
        throttled("ThrottlingException", "TableWriteKeyRangeThroughputExceeded", "TableWriteAccountLimitExceeded"),
        "store_throttled",
    ),
    "reasons of another form": (failed("ThrottlingException", temporary=True, ThrottlingReasons=7), "store_throttled"),
    "access denied": (failed("AccessDeniedException"), "store_denied"),
    "expired credentials": (failed("ExpiredTokenException"), "store_denied"),
    "no such credentials": (failed("UnrecognizedClientException"), "store_denied"),
    "denied by what is in front": (failed("HTTP403", status=403), "store_denied"),
    "table gone": (failed("ResourceNotFoundException"), "store_missing"),
    "no JSON": (failed("HTTP200", status=200), "store_malformed"),
    "an error without a name": (failed("HTTP400"), "store_malformed"),
    "no attributes": ({}, "store_malformed"),
    "attributes of another form": ({"Attributes": 7}, "store_malformed"),
    "a value without a type": ({"Attributes": {"count": "1"}}, "store_malformed"),
    "a value of an unknown type": ({"Attributes": {"count": {"Q": "1"}}}, "store_malformed"),
    "a number that is none": ({"Attributes": {"count": {"N": "x"}}}, "store_malformed"),
    "a count that is a text": ({"Attributes": {"count": {"S": "1"}}}, "store_malformed"),
}
every_failure = pytest.mark.parametrize(("answer", "cause"), FAILURES.values(), ids=FAILURES)


def rates(answer: AwsError | Mapping[str, Any], mode: FailureMode, observer: MemoryObserver) -> RateLimits:
    return rates_of(DynamoRates(database(answer), "limiters"), mode, observer)


def rates_of(store: DynamoRates, mode: FailureMode, observer: MemoryObserver) -> RateLimits:
    return RateLimits(
        store=store,
        keys=PlainKeys(),
        namespace="t",
        failure_mode=mode,
        timeout_ms=3000,
        clock=ManualClock(),
        ids=CountingIds(),
        observer=observer,
    )


def database(answer: AwsError | Mapping[str, Any]) -> DynamoDb:
    return DynamoDb(cast(JsonClient, Answers(answer)))


@pytest.fixture(autouse=True)
def _endless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidegate.adapters.dynamodb.limits.monotonic", lambda: 0.0)


@every_failure
def test_fail_closed_refuses_as_unavailable_and_remembers_nothing(
    answer: AwsError | Mapping[str, Any], cause: str
) -> None:
    observer = MemoryObserver()
    limits = rates(answer, FailureMode.CLOSED, observer)
    for _ in range(2):
        with pytest.raises(LimiterUnavailable, match="temporarily unavailable"):
            limits.consume("s", "k", 5, refusal="Too many")
    assert observer.counts == {("limiter", cause, "backend_error", "s"): 2, ("limiter", "fail_closed", "s"): 2}


@every_failure
def test_fail_open_admits_and_counts(answer: AwsError | Mapping[str, Any], cause: str) -> None:
    observer = MemoryObserver()
    decision = rates(answer, FailureMode.OPEN, observer).consume("s", "k", 5, refusal="Too many")
    assert decision.allowed and not decision.counted
    assert observer.counts == {("limiter", cause, "backend_error", "s"): 1, ("limiter", "fail_open", "s"): 1}


FLOODED = [
    throttled("ThrottlingException", "TableWriteKeyRangeThroughputExceeded"),
    throttled("ThrottlingException", "TableWriteKeyRangeThroughputExceeded", member="throttlingReasons"),
    throttled("ProvisionedThroughputExceededException", "TableWriteKeyRangeThroughputExceeded"),
]


@pytest.mark.parametrize("answer", [failed("ConditionalCheckFailedException"), *FLOODED])
@pytest.mark.parametrize("mode", list(FailureMode))
def test_only_a_condition_or_a_flood_of_the_key_is_a_refusal(mode: FailureMode, answer: AwsError) -> None:
    observer = MemoryObserver()
    with pytest.raises(LimitReached):
        rates(answer, mode, observer).consume("s", "k", 5, refusal="Too many")
    assert observer.counts == {("limiter", "rejected", "s"): 1}
    assert not DynamoCaps(database(answer), "limiters", "t", "connections").take("dash#d", 0, 5, "c")


@every_failure
def test_a_place_in_a_quota_is_not_full_because_its_store_failed(
    answer: AwsError | Mapping[str, Any], cause: str
) -> None:
    with pytest.raises(Unavailable) as unavailable:
        DynamoCaps(database(answer), "limiters", "t", "connections").take("dash#d", 0, 5, "c")
    assert unavailable.value.code == cause


@every_failure
def test_an_upstream_is_not_refused_because_its_store_failed(answer: AwsError | Mapping[str, Any], cause: str) -> None:
    with pytest.raises(Unavailable) as unavailable:
        DynamoUpstreamHolds(database(answer), "limiters", "t").hold("o", "s", 60, 0, 1, LATER)
    assert unavailable.value.code == cause


@pytest.mark.parametrize("answer", FLOODED)
def test_a_flood_of_an_owner_is_refused_for_a_second(answer: AwsError) -> None:
    assert DynamoUpstreamHolds(database(answer), "limiters", "t").hold("o", "s", 60, 7, 1, LATER) == 8


@pytest.mark.parametrize(
    "answer",
    [
        {"Attributes": {"key": {"S": "upstreams#t#o"}}},
        {"Attributes": {"key": {"S": "upstreams#t#o"}, "streams": {"M": {"another": {"N": "60"}}}}},
        {"Attributes": {"key": {"S": "upstreams#t#o"}, "streams": {"M": {"s": {"N": "59"}}}}},
        {"Attributes": {"key": {"S": "upstreams#t#another"}, "streams": {"M": {"s": {"N": "60"}}}}},
        failed("ConditionalCheckFailedException", Item={"streams": {"S": "x"}}),
        failed("ConditionalCheckFailedException", Item={"streams": {"M": {"s": {"S": "x"}}}}),
    ],
)
def test_an_upstream_is_held_only_when_the_answer_says_so(answer: AwsError | Mapping[str, Any]) -> None:
    with pytest.raises(Unavailable) as unavailable:
        DynamoUpstreamHolds(database(answer), "limiters", "t").hold("o", "s", 60, 0, 1, LATER)
    assert unavailable.value.code == "store_malformed"


def test_holds_that_keep_changing_are_given_up() -> None:
    changing = failed("ConditionalCheckFailedException", Item={"streams": {"M": {}}})
    with pytest.raises(Unavailable) as gave_up:
        DynamoUpstreamHolds(database(changing), "limiters", "t").hold("o", "s", 60, 0, 1, LATER)
    assert gave_up.value.code == "store_busy"


@pytest.mark.parametrize("holders", [{"SS": ["somebody else"]}, {"S": "c"}])
def test_a_place_is_taken_only_when_the_answer_says_so(holders: Mapping[str, Any]) -> None:
    key = {"S": "cap#t#dash#d#0"}
    taken = DynamoCaps(
        database({"Attributes": {"key": key, "holders": {"SS": ["c", "d"]}}}), "limiters", "t", "connections"
    )
    assert taken.take("dash#d", 0, 5, "c")
    with pytest.raises(Unavailable) as unavailable:
        DynamoCaps(database({"Attributes": {"key": key, "holders": holders}}), "limiters", "t", "connections").take(
            "dash#d", 0, 5, "c"
        )
    assert unavailable.value.code == "store_malformed"


@pytest.mark.parametrize("answer", FLOODED)
@pytest.mark.parametrize("mode", list(FailureMode))
def test_a_flood_is_refused_for_the_moment_and_not_remembered(mode: FailureMode, answer: AwsError) -> None:
    client = Answers(answer)
    limits = rates_of(DynamoRates(DynamoDb(cast(JsonClient, client)), "limiters"), mode, MemoryObserver())
    for _ in range(2):
        with pytest.raises(LimitReached) as refused:
            limits.consume("s", "k", 5, refusal="Too many")
        assert refused.value.retry_after_ms == 1000
    assert client.calls == 2, "asked again"


@pytest.mark.parametrize("answer", FLOODED)
@pytest.mark.parametrize("mode", list(FailureMode))
def test_a_flood_of_guesses_is_refused_for_the_moment_and_locks_nobody(mode: FailureMode, answer: AwsError) -> None:
    client, observer = Answers(answer), MemoryObserver()
    attempts = Attempts(
        store=DynamoAttempts(DynamoDb(cast(JsonClient, client)), "limiters"),
        rates=rates(answer, mode, observer),
        clock=ManualClock(),
        ids=CountingIds(),
    )
    policy = AttemptPolicy(3, 300, 300)
    for _ in range(2):
        with pytest.raises(LimitReached, match="in 1 second\\.") as refused:
            attempts.begin("s", "k", policy, deadline=attempts.deadline(), refusal="No")
        assert refused.value.retry_after_ms == 1000
    assert client.calls == 2, "asked again"
    assert observer.counts == {("limiter", "rejected", "s"): 2}


@pytest.mark.parametrize(
    "answer",
    [
        {"Attributes": 7},
        {"Attributes": {"key": {"S": "attempts#another"}, "attempts": {"SS": ["x"]}}},
        {"Attributes": {"key": {"S": "attempts#k"}, "attempts": {"S": "x"}}},
        {"Attributes": {"key": {"S": "attempts#k"}, "attempts": {"SS": ["x"]}, "known_until": {"S": "x"}}},
        failed("ConditionalCheckFailedException", Item={"until": {"S": "x"}}),
    ],
)
def test_attempts_that_cannot_be_read_are_not_none(answer: AwsError | Mapping[str, Any]) -> None:
    with pytest.raises(Unavailable) as unavailable:
        DynamoAttempts(database(answer), "limiters").begin("k", "a", AttemptPolicy(3, 60), 0, LATER)
    assert unavailable.value.code == "store_malformed"


@every_failure
@pytest.mark.parametrize("mode", list(FailureMode))
def test_attempts_that_cannot_be_counted_are_for_the_failure_mode(
    answer: AwsError | Mapping[str, Any], cause: str, mode: FailureMode
) -> None:
    observer = MemoryObserver()
    limits = rates(answer, mode, observer)
    store = DynamoAttempts(database(answer), "limiters")
    attempts = Attempts(store=store, rates=limits, clock=ManualClock(), ids=CountingIds())
    deadline = attempts.deadline()
    with nullcontext() if mode is FailureMode.OPEN else pytest.raises(LimiterUnavailable):
        attempt = attempts.begin("s", "k", AttemptPolicy(3, 60), deadline=deadline, refusal="No")
        assert not attempts.wrong(attempt, deadline)
        attempts.give_back(attempt, deadline)
    outcome = "fail_open" if mode is FailureMode.OPEN else "fail_closed"
    assert observer.counts == {("limiter", cause, "backend_error", "s"): 1, ("limiter", outcome, "s"): 1}


OPERATIONS: dict[str, Callable[[DynamoDb], object]] = {
    "get": lambda db: db.get("t", {"key": "k"}),
    "get_many": lambda db: db.get_many("t", [{"key": "k"}]),
    "put": lambda db: db.put("t", {"key": "k"}),
    "update": lambda db: db.update("t", {"key": "k"}, "SET #a = :a", values={"a": 1}),
    "delete": lambda db: db.delete("t", {"key": "k"}),
    "delete_many": lambda db: db.delete_many("t", [{"key": "k"}]),
    "query": lambda db: list(db.query("t", "#key = :key", {"key": "k"})),
    "scan": lambda db: list(db.scan("t", 0, 1)),
    "transact": lambda db: db.transact([{"Put": {}}]),
}
READING = {"update and read": lambda db: db.update("t", {"key": "k"}, "SET #a = :a", values={"a": 1}, returning=True)}
every_operation = pytest.mark.parametrize("call", OPERATIONS.values(), ids=OPERATIONS)


@every_operation
@every_failure
def test_every_operation_of_every_table_fails_alike(
    call: Callable[[DynamoDb], object], answer: AwsError | Mapping[str, Any], cause: str
) -> None:
    if isinstance(answer, AwsError):
        with pytest.raises(Unavailable) as unavailable:
            call(database(answer))
        assert unavailable.value.code == cause


MALFORMED: dict[str, tuple[str, Mapping[str, Any]]] = {
    "get": ("get", {"Item": []}),
    "another item": ("get", {"Item": {"key": {"S": "other"}}}),
    "an item without its key": ("get", {"Item": {"a": {"S": "k"}}}),
    "another of many": ("get_many", {"Responses": {"t": [{"key": {"S": "other"}}]}}),
    "get_many that says nothing": ("get_many", {}),
    "get_many of another table": ("get_many", {"Responses": {"u": []}}),
    "another item updated": ("update and read", {"Attributes": {"key": {"S": "other"}}}),
    "another item deleted": ("delete", {"Attributes": {"key": {"S": "other"}}}),
    "a query that says nothing": ("query", {}),
    "a scan that says nothing": ("scan", {}),
    "get_many": ("get_many", {"Responses": {"t": [7]}}),
    "get_many without a table": ("get_many", {"Responses": 7}),
    "unprocessed keys": ("get_many", {"UnprocessedKeys": []}),
    "unprocessed items": ("delete_many", {"UnprocessedItems": {"t": 7}}),
    "delete": ("delete", {"Attributes": {"a": 7}}),
    "query": ("query", {"Items": [{"a": {"L": 7}}]}),
    "a query without items": ("query", {"Items": 7}),
    "scan": ("scan", {"Items": {"a": 1}}),
}


@pytest.mark.parametrize(("operation", "answer"), MALFORMED.values(), ids=MALFORMED)
def test_an_answer_of_another_form_is_no_answer(operation: str, answer: Mapping[str, Any]) -> None:
    with pytest.raises(Unavailable) as unavailable:
        (OPERATIONS | READING)[operation](database(answer))
    assert unavailable.value.code == "store_malformed"


@pytest.mark.parametrize("reasons", [None, 7, [], [7], [{"Code": "None"}], [{"Code": "Never heard of"}]])
def test_a_cancelled_transaction_without_reasons_is_unavailable(reasons: object) -> None:
    with pytest.raises(Unavailable) as unavailable:
        database(failed("TransactionCanceledException", CancellationReasons=reasons)).transact([{"Put": {}}])
    assert unavailable.value.code == "store_malformed"


CONFLICTS = {
    "TransactionConflict": "store_busy",
    "ThrottlingError": "store_throttled",
    "ProvisionedThroughputExceeded": "store_throttled",
}


@pytest.mark.parametrize(("reason", "cause"), CONFLICTS.items())
def test_a_transaction_that_meets_another_is_tried_again(
    reason: str, cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate.adapters.dynamodb.client.sleep", lambda _s: None)
    client = Answers(failed("TransactionCanceledException", CancellationReasons=[{"Code": "None"}, {"Code": reason}]))
    with pytest.raises(Unavailable) as unavailable:
        DynamoDb(cast(JsonClient, client)).transact([{"Put": {}}, {"Put": {}}])
    assert (unavailable.value.code, client.calls) == (cause, 8)


@every_operation
def test_a_write_that_meets_a_transaction_is_tried_again(
    call: Callable[[DynamoDb], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate.adapters.dynamodb.client.sleep", lambda _s: None)
    client = Answers(failed("TransactionConflictException"))
    with pytest.raises(Unavailable) as unavailable:
        call(DynamoDb(cast(JsonClient, client)))
    assert (unavailable.value.code, client.calls) == ("store_busy", 8)


@every_operation
def test_a_wrong_request_is_a_bug_and_shows(call: Callable[[DynamoDb], object]) -> None:
    with pytest.raises(AwsError, match="ValidationException"):
        call(database(failed("ValidationException")))


@pytest.mark.parametrize(
    ("operation", "answer"),
    [
        ("get_many", {"UnprocessedKeys": {"t": {"Keys": [{"key": {"S": "k"}}]}}}),
        ("delete_many", {"UnprocessedItems": {"t": [{"DeleteRequest": {"Key": {"key": {"S": "k"}}}}]}}),
    ],
)
def test_a_batch_that_is_never_processed_ends(
    operation: str, answer: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("tidegate.adapters.dynamodb.client.monotonic", lambda: now[0])
    monkeypatch.setattr("tidegate.adapters.dynamodb.client.sleep", lambda s: now.__setitem__(0, now[0] + s + 0.01))
    with pytest.raises(Unavailable) as unavailable:
        OPERATIONS[operation](database(answer))
    assert unavailable.value.code == "store_throttled"


class Deadlines:
    """A client that notes by when each call must have ended."""

    def __init__(self) -> None:
        self.given: list[float | None] = []

    def call(self, _operation: str, _payload: Mapping[str, Any], *, deadline: float | None = None) -> dict[str, Any]:
        self.given.append(deadline)
        return {}


def test_cleaning_up_has_a_deadline() -> None:
    client = Deadlines()
    db = DynamoDb(cast(JsonClient, client))
    DynamoAttempts(db, "limiters").right("k", "a", 7.0)
    DynamoCaps(db, "limiters", "t", "connections").release("dash#d", 0, "c", 8.0)
    assert client.given == [7.0, 8.0]
    with pytest.raises(Unavailable, match="in time"):
        DynamoAttempts(db, "limiters").right("k", "a", -1.0)
    with pytest.raises(Unavailable, match="in time"):
        DynamoCaps(db, "limiters", "t", "connections").release("dash#d", 0, "c", -1.0)
    assert len(client.given) == 2
