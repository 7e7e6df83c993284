"""What the stage's dashboard in CloudWatch shows, row by row. No CDK.

Invariant of this file: each metric of ours is one that the code writes, with the dimensions that are named here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from infra.alarm_table import NAMESPACE, Each


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a graph, or one for each of what `each` has.

    Attributes:
        metric: of `NAMESPACE`, or with `each` of the platform.
        where: of the metric's dimensions, those that are looked at. All values of the others are taken together.
        most: the greatest value, where it is otherwise the sum.
        each: what of the platform it looks at. None for a metric of ours.
    """

    metric: str
    where: Mapping[str, str] = field(default_factory=dict)
    most: bool = False
    each: Each | None = None

    @property
    def label(self) -> str:
        """What the line is called."""
        return " ".join([self.metric, *self.where.values()])

    def search(self, stage: str) -> str:
        """The search for a metric of our own, of one stage. A graph takes only one query of Metrics Insights, and any
        number of these."""
        words = {"Namespace": NAMESPACE, "MetricName": self.metric, **self.where, "stage": stage}
        found = " ".join(f'{name}="{value}"' for name, value in words.items())
        return f"MAX(SEARCH('{found}', 'Maximum'))" if self.most else f"SUM(SEARCH('{found}', 'Sum'))"


@dataclass(frozen=True, slots=True)
class Graph:
    """Lines that belong together."""

    title: str
    lines: Sequence[Line]


@dataclass(frozen=True, slots=True)
class Row:
    """Graphs side by side, up to four."""

    title: str
    graphs: Sequence[Graph]


def _each(metric: str, dimension: str, *values: str) -> list[Line]:
    """A line for each value of a dimension."""
    return [Line(metric, {dimension: value}) for value in values]


def _ours(*metrics: str, most: bool = False) -> list[Line]:
    return [Line(metric, most=most) for metric in metrics]


ROWS: Sequence[Row] = (
    Row(
        "Viewers and connections",
        (
            Graph("Connections", _ours("connections_opened", "connections_ended", "connections_cut_off")),
            Graph(
                "Handshakes refused",
                _each(
                    "handshakes_refused",
                    "code",
                    "limit_reached",
                    "cap_reached",
                    "origin_not_allowed",
                    "not_through_edge",
                    "limiter_unavailable",
                ),
            ),
            Graph("Messages of clients", _ours("messages_in", "subscribes", "refusals", "api_refusals", "faults")),
            Graph(
                "Answers with an error",
                (Line("5xx", each=Each.HTTP_API), Line("ExecutionError", each=Each.WEBSOCKET_API)),
            ),
        ),
    ),
    Row(
        "Limits",
        (
            Graph(
                "Decisions",
                _each("limiter", "outcome", "allowed", "rejected", "backend_error", "fail_open", "fail_closed"),
            ),
            Graph("Addresses and places", _ours("addresses_not_derived", "slots_freed", "slots_not_freed")),
        ),
    ),
    Row(
        "Revocation",
        (
            Graph("Lag, milliseconds", _ours("commit_to_termination", "expiry_to_termination", most=True)),
            Graph("Events and ends", _ours("events_pushed", "events_polled", "cursor_lag", "subscriptions_terminated")),
            Graph("Not checked, not told", _ours("indeterminate", "viewers_not_notified", "cursor_expired")),
            Graph("Runs of the schedule", (Line("Invocations", each=Each.SCHEDULE),)),
        ),
    ),
    Row(
        "Delivery and quota",
        (
            Graph(
                "Deliveries", _each("deliveries", "outcome", "delivered", "throttled", "failed", "withheld", "refused")
            ),
            Graph(
                "Send quota",
                _ours("sends_granted", "sends_refused", "frames_conflated_by_quota", "send_quota_unavailable"),
            ),
            Graph("Values", _ours("device_messages", "messages_fanned_out", "values_overtaken")),
            Graph("Catch-ups", _ours("catch_ups", "catch_ups_postponed", "catch_ups_not_queued", "catch_ups_lost")),
        ),
    ),
    Row(
        "Relay",
        (
            Graph("Upstreams", _ours("upstreams_begun", "upstreams_connected", "upstreams_ended", "upstream_faults")),
            Graph("Workers", _ours("relay_partitions_unheld", "relay_workers_overdue", "relay_refreshes_failed")),
        ),
    ),
    Row(
        "Functions and queues",
        (
            Graph("Errors", (Line("Errors", each=Each.STEP),)),
            Graph(
                "Throttled or dropped",
                (Line("Throttles", each=Each.STEP), Line("AsyncEventsDropped", each=Each.ASYNCHRONOUS)),
            ),
            Graph(
                "Concurrency",
                (
                    Line("ConcurrentExecutions", most=True, each=Each.ACCOUNT),
                    Line("ConcurrentExecutions", most=True, each=Each.STEP),
                ),
            ),
            Graph(
                "Age of the oldest message, seconds; dead letters",
                (
                    Line("ApproximateAgeOfOldestMessage", most=True, each=Each.QUEUE),
                    Line("ApproximateNumberOfMessagesVisible", most=True, each=Each.DEAD_LETTER_QUEUE),
                ),
            ),
        ),
    ),
)
