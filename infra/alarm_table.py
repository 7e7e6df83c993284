"""What an operator on call is told of. One row is one alarm, or one for each queue or step of functions. No CDK.

Invariant of this file: the runbook of each row is a heading of `docs/operations/runbooks.md`, and says what to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from infra.rollout_table import STEPS
from tidegate.domain.revocations import AGAIN_AFTER_S
from tidegate.domain.time_limits import FUNCTION_S
from tidegate.settings import Settings

#: The namespace of our own metrics: see `tidegate.adapters.json_observer`.
NAMESPACE = "Tidegate"
#: The page that says what to do. The repository has no public address, so this is where the page is in a checkout.
RUNBOOKS = "docs/operations/runbooks.md"
#: Seconds over which a metric is taken together.
PERIOD_S = 60
#: The used part of a quota from which somebody is told, and the part of the send quota that gives way.
_NEARLY_USED, _GIVES_WAY = 0.8, 0.1
#: How late the end of a subscription may be, milliseconds. Ten thousand viewers of one dashboard take half a minute
#: (docs/operations/performance.md, revocation), and an expiry is looked for every ten seconds.
_CHANGE_MS, _EXPIRY_MS = 60_000, 15_000
#: How old a task may be, seconds. One that failed waits in the queue for up to the longest delay. Then it is worked at.
_WAITS_S = max(AGAIN_AFTER_S) + FUNCTION_S["revalidate.worker"]

_OLD_VALUES = "viewers-see-old-values-or-few-of-them"
_NOT_ENDED = "subscriptions-are-not-ended"
_FAILS = "a-function-fails"
_LIMITER_DOWN = "what-happens-when-the-limiter-is-down"

#: Functions that a person or a device waits for, by their path below the stack. What calls the others, calls again.
WAITED_FOR = ("HttpApi-Api", "Gateway-Connect", "Gateway-Messages", "Mqtt-Bridge")
#: Functions whose events Lambda itself keeps until they are carried out, and drops when they cannot be.
ASYNCHRONOUS = ("Mqtt-Bridge", "Relay-Worker")
#: Dead-letter queues of a stage without topics in batches, which have one more.
DEAD_LETTER_QUEUES = 3
#: What the schedule calls.
SCHEDULED = "Revalidation-Schedule"


class Each(StrEnum):
    """What of the platform an alarm looks at. The value is the namespace of its metrics, and what it is."""

    DEAD_LETTER_QUEUE = "AWS/SQS: each dead-letter queue by itself"
    REVALIDATION_QUEUE = "AWS/SQS: the queue of revalidation"
    QUEUE = "AWS/SQS: every queue that a function takes from"
    STEP = "AWS/Lambda: the functions of each step of a deployment together"
    WAITED_FOR = "AWS/Lambda: functions that somebody waits for, together"
    ASYNCHRONOUS = "AWS/Lambda: functions that are called asynchronously, together"
    SCHEDULE = "AWS/Lambda: the function that the schedule calls every minute"
    ACCOUNT = "AWS/Lambda: all functions of the account and region, together"
    HTTP_API = "AWS/ApiGateway: the HTTP API"
    WEBSOCKET_API = "AWS/ApiGateway: the WebSocket API"

    @property
    def namespace(self) -> str:
        """Of its metrics."""
        return self.value.partition(":")[0]


#: How many metrics the alarms of one row look at, in a production stage.
_METRICS: Mapping[Each, int] = {
    Each.DEAD_LETTER_QUEUE: DEAD_LETTER_QUEUES,
    Each.STEP: sum(len(step.functions) for step in STEPS),
    Each.WAITED_FOR: len(WAITED_FOR),
    Each.ASYNCHRONOUS: len(ASYNCHRONOUS),
}


@dataclass(frozen=True, slots=True)
class Alarm:
    """A metric, and from where on somebody is told.

    Attributes:
        name: the alarm's name, behind that of the stack.
        tells: what it says, in a sentence.
        runbook: the anchor of the heading of `RUNBOOKS` that begins with it.
        metric: of `NAMESPACE`, or with `each` of the platform.
        above: the alarm goes off when the metric is above this.
        too_little: it goes off when the metric is not above it, or has no value.
        minutes: in so many of the last five. 1 is one minute, whatever the four before were.
        most: the greatest value of a minute, where it is otherwise the sum.
        where: of the metric's dimensions, those that are looked at. All values of the others are taken together.
        each: what of the platform it looks at. None for a metric of ours.
        reads: of a metric of ours: for how many combinations of its dimensions there is a value while all is well. At
            least 1, because whether a query that finds none is free was not seen on a bill.
    """

    name: str
    tells: str
    runbook: str
    metric: str
    above: float
    minutes: int
    too_little: bool = False
    most: bool = False
    where: Mapping[str, str] = field(default_factory=dict)
    each: Each | None = None
    reads: int = 1

    def query(self, stage: str) -> str:
        """The query of CloudWatch Metrics Insights for a metric of our own, of one stage."""
        query = f'SELECT {"MAX" if self.most else "SUM"}({self.metric}) FROM "{NAMESPACE}"'
        conditions = (f"{name} = '{value}'" for name, value in {**self.where, "stage": stage}.items())
        return f"{query} WHERE {' AND '.join(conditions)}"

    @property
    def namespace(self) -> str:
        """Of the metric."""
        return NAMESPACE if self.each is None else self.each.namespace

    @property
    def description(self) -> str:
        """What the alarm says, with the address of its runbook."""
        return f"{self.tells} Runbook: {RUNBOOKS}#{self.runbook}"

    @property
    def alarms(self) -> int:
        """How many alarms the row makes in a production stage."""
        return {Each.STEP: len(STEPS), Each.DEAD_LETTER_QUEUE: DEAD_LETTER_QUEUES}.get(self.each or Each.ACCOUNT, 1)

    @property
    def metrics(self) -> int:
        """How many metrics they look at, while all is well. That is what CloudWatch charges."""
        return self.reads if self.each is None else _METRICS.get(self.each, 1)


def alarms(settings: Settings, places: int) -> Sequence[Alarm]:
    """All alarms of a stage. With a send quota of 0, which is none, nothing is told of it.

    Args:
        places: how many functions the account may run at the same time.
    """
    quota = settings.max_sends_per_second
    return [
        *(_of_quota(quota) if quota else ()),
        Alarm(
            "handshakes-refused",
            "For five minutes, more handshakes are refused in each than one address may begin.",
            "handshakes-are-refused",
            "handshakes_refused",
            above=settings.connect_rate_limit_ip_per_min,
            minutes=5,
            reads=4,  # the two limits, an origin that is not allowed, and calls around the edge
        ),
        Alarm(
            "concurrency-nearly-used",
            f"Functions of the account take more than {_NEARLY_USED:.0%} of lambda_concurrency.",
            "concurrency-is-nearly-used-up",
            "ConcurrentExecutions",
            above=_NEARLY_USED * places,
            minutes=3,
            most=True,
            each=Each.ACCOUNT,
        ),
        *_ALWAYS,
    ]


def _of_quota(sends_per_second: int) -> Sequence[Alarm]:
    a_minute = sends_per_second * PERIOD_S
    return (
        Alarm(
            "send-quota-nearly-used",
            f"Messages to viewers take more than {_NEARLY_USED:.0%} of REALTIME_MAX_SENDS_PER_SECOND.",
            _OLD_VALUES,
            "sends_granted",
            above=_NEARLY_USED * a_minute,
            minutes=5,
            reads=4,  # the bridge, parts of crowds, catch-ups and the relay
        ),
        Alarm(
            "values-give-way",
            f"Values give way to newer ones, as many as {_GIVES_WAY:.0%} of what may be sent.",
            _OLD_VALUES,
            "frames_conflated_by_quota",
            above=_GIVES_WAY * a_minute,
            minutes=5,
        ),
        Alarm(
            "send-quota-does-not-answer",
            "The send quota cannot be asked, so values wait.",
            _OLD_VALUES,
            "send_quota_unavailable",
            above=0,
            minutes=3,
        ),
    )


_ALWAYS: Sequence[Alarm] = (
    Alarm(
        "limiter-store-down",
        "The store of the limits does not answer, so that requests are refused, or admitted without being counted.",
        _LIMITER_DOWN,
        "limiter",
        above=0,
        minutes=3,
        where={"outcome": "backend_error"},
    ),
    Alarm(
        "limits-not-counted",
        "Requests are admitted without being counted, because the store of the limits fails and fail-open is set.",
        _LIMITER_DOWN,
        "limiter",
        above=0,
        minutes=1,
        where={"outcome": "fail_open"},
    ),
    Alarm(
        "addresses-not-derived",
        "Addresses of clients cannot be derived from X-Forwarded-For, so that limits count the wrong ones.",
        "addresses-are-not-derived",
        "addresses_not_derived",
        above=0,
        minutes=3,
    ),
    Alarm(
        "terminations-late",
        "A subscription whose viewer lost the right was ended more than a minute later.",
        _NOT_ENDED,
        "commit_to_termination",
        above=_CHANGE_MS,
        minutes=1,
        most=True,
    ),
    Alarm(
        "expiries-late",
        "Subscriptions whose token has expired are ended more than 15 seconds later.",
        _NOT_ENDED,
        "expiry_to_termination",
        above=_EXPIRY_MS,
        minutes=3,
        most=True,
    ),
    Alarm(
        "checks-not-made",
        "Subscriptions or connections could not be checked, and were kept.",
        "checks-cannot-be-made",
        "indeterminate",
        above=0,
        minutes=3,
    ),
    Alarm(
        "revalidation-tasks-wait",
        f"A task of revalidation is older than {_WAITS_S // 60} minutes, longer than one that failed may wait.",
        _NOT_ENDED,
        "ApproximateAgeOfOldestMessage",
        above=_WAITS_S,
        minutes=3,
        most=True,
        each=Each.REVALIDATION_QUEUE,
    ),
    Alarm(
        "schedule-stopped",
        "For five minutes the schedule did not call its function, so that nobody looks for what is due.",
        "the-schedule-has-stopped",
        "Invocations",
        above=0,
        minutes=5,
        too_little=True,
        each=Each.SCHEDULE,
    ),
    Alarm(
        "relay-missing",
        "A partition of the relay has streams that somebody watches, and no relay.",
        "a-partition-has-no-relay",
        "relay_partitions_unheld",
        above=0,
        minutes=3,
    ),
    Alarm(
        "dead-letters",
        "Messages failed again and again.",
        "messages-are-in-a-dead-letter-queue",
        "ApproximateNumberOfMessagesVisible",
        above=0,
        minutes=1,
        most=True,
        each=Each.DEAD_LETTER_QUEUE,
    ),
    Alarm(
        "events-dropped",
        "Lambda dropped messages of devices, or starts of relay workers, that it could not carry out in time.",
        "events-were-dropped",
        "AsyncEventsDropped",
        above=0,
        minutes=1,
        each=Each.ASYNCHRONOUS,
    ),
    Alarm(
        "function-fails",
        "Invocations of a function end in an error, or are stopped.",
        _FAILS,
        "Errors",
        above=0,
        minutes=3,
        each=Each.STEP,
    ),
    Alarm(
        "function-throttled",
        "Invocations of a function that somebody waits for are refused, because too many run already.",
        _FAILS,
        "Throttles",
        above=0,
        minutes=3,
        each=Each.WAITED_FOR,
    ),
    Alarm(
        "http-api-fails",
        "Requests of the HTTP API are answered with 5xx.",
        "an-api-answers-with-an-error",
        "5xx",
        above=0,
        minutes=3,
        each=Each.HTTP_API,
    ),
    Alarm(
        "websocket-api-fails",
        "The WebSocket API could not call its functions.",
        "an-api-answers-with-an-error",
        "ExecutionError",
        above=0,
        minutes=3,
        each=Each.WEBSOCKET_API,
    ),
    Alarm("faults", "Requests end in an error that nobody expected.", _FAILS, "faults", above=0, minutes=3, reads=1),
)
