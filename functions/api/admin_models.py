"""Requests and answers of the routes for admins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

from functions.api.models import ApiModel
from tidegate import VERSION
from tidegate.domain.access import Visibility
from tidegate.ports.operations import QueueDepth
from tidegate.ports.revocation import RevocationState
from tidegate.protocol.messages import timestamp
from tidegate.settings import Settings, shown
from tidegate.usecases.control_plane.dead_letters import DeadLetters
from tidegate.usecases.control_plane.operations import Count, RelayPartition, Upstreams
from tidegate.usecases.control_plane.profile_uses import Uses


class UseAnswer(ApiModel):
    id: str
    title: str
    visibility: Visibility


class UsesAnswer(ApiModel):
    """`more` is true when there are dashboards besides these."""

    dashboards: list[UseAnswer]
    more: bool

    @staticmethod
    def of(uses: Uses) -> UsesAnswer:
        return UsesAnswer(
            dashboards=[
                UseAnswer(id=each.dashboard_id, title=each.title, visibility=each.visibility)
                for each in uses.dashboards
            ],
            more=uses.more,
        )


class ConnectionsAnswer(ApiModel):
    """How many connections the last full revalidation found, and when it ended."""

    count: int
    at: str


class CountAnswer(ApiModel):
    """`more` is true when there are more than were counted."""

    count: int
    more: bool


class FailingAnswer(ApiModel):
    """An upstream that is not connected. `source` is what it connects to, without query; `code` is the last fault's."""

    protocol: str
    source: str
    code: str
    text: str


class UpstreamsAnswer(ApiModel):
    """Of the relay. `failing` has 50 at most; `failingCount` is how many there are. `idle` are neither connected nor
    failing: nobody watches them, or they are being connected. `more` is true when there are more than 1000."""

    connected: int
    failing: list[FailingAnswer]
    failing_count: int
    idle: int
    more: bool


class PartitionAnswer(ApiModel):
    """`overdue` says that the worker has most likely died. `until` is when its lease ends, null when nobody has it."""

    partition: int
    state: Literal["held", "overdue", "free"]
    until: str | None
    successor: bool


class RevocationsAnswer(ApiModel):
    """How far our reader is in the feed of revocations. `waitingSince` is when the oldest event was recorded that it
    has not applied; null when there is none. Pushed events take effect before the reader has come to them."""

    newest: int
    applied: int
    waiting_since: str | None


class RevalidationAnswer(ApiModel):
    """The last full revalidation. `running` says that it has begun and not ended. `demanded` says that another was
    asked for."""

    began_at: str | None
    ended_at: str | None
    running: bool
    demanded: bool


class LimiterAnswer(ApiModel):
    """Whether the limiter's table answers. What holds while it does not is among the settings."""

    answers: bool


class QueueAnswer(ApiModel):
    """Messages of a queue, as SQS counts them. All three are null when it could not be checked."""

    name: str
    waiting: int | None
    in_flight: int | None
    delayed: int | None


class DeadLettersAnswer(ApiModel):
    """`sources` are the queues whose messages come here. `messages` is null when it could not be checked. `oldestAt` is
    when the oldest of up to ten was first sent."""

    queue: str
    sources: list[str]
    messages: int | None
    oldest_at: str | None

    @staticmethod
    def of(found: DeadLetters) -> DeadLettersAnswer:
        return DeadLettersAnswer(
            queue=found.queue, sources=list(found.sources), messages=found.messages, oldest_at=_at_ms(found.oldest_ms)
        )


class DeadLettersList(ApiModel):
    queues: list[DeadLettersAnswer]


class RedriveAnswer(ApiModel):
    """`left` is null when it could not be checked."""

    moved: int
    left: int | None


class DemandAnswer(ApiModel):
    asked_at: str


class SettingAnswer(ApiModel):
    """`default` is what holds when the setting is not set. `unit` is empty where there is none."""

    variable: str
    value: str
    default: str
    unit: str


class SummaryOfOperations(ApiModel):
    """What is null could not be checked, and `unchecked` names it. No count is zero for that reason.

    `connections` is also null before the first full revalidation, when `revocations` is not.
    """

    at: str
    version: str
    stage: str
    remote_api: bool
    connections: ConnectionsAnswer | None
    subscriptions: CountAnswer | None
    upstreams: UpstreamsAnswer | None
    relay: list[PartitionAnswer] | None
    revocations: RevocationsAnswer | None
    full_revalidation: RevalidationAnswer | None
    limiter: LimiterAnswer
    queues: list[QueueAnswer]
    dead_letters: list[DeadLettersAnswer]
    settings: list[SettingAnswer]
    unchecked: list[str]

    @staticmethod
    def of(parts: Mapping[str, Any], settings: Settings, now: float) -> SummaryOfOperations:
        count: Count | None = parts["subscriptions"]
        seen: Upstreams | None = parts["upstreams"]
        relay: list[RelayPartition] | None = parts["relay"]
        state: RevocationState | None = parts["revocations"]
        dead: Sequence[DeadLetters] = parts["dead letters"] or ()
        return SummaryOfOperations(
            at=timestamp(now),
            version=VERSION,
            stage=settings.env,
            remote_api=bool(settings.api_base_url),
            connections=None if state is None else _connections(state),
            subscriptions=None if count is None else CountAnswer(**asdict(count)),
            upstreams=None if seen is None else UpstreamsAnswer.model_validate(asdict(seen)),
            relay=None if relay is None else [_partition(each) for each in relay],
            revocations=None if state is None else _revocations(state),
            full_revalidation=None if state is None else _revalidation(state),
            limiter=LimiterAnswer(answers=parts["limiter"] is not None),
            queues=[
                _queue(name.removeprefix("queue "), depth) for name, depth in parts.items() if name.startswith("queue ")
            ],
            dead_letters=[DeadLettersAnswer.of(each) for each in dead],
            settings=[SettingAnswer(**each._asdict()) for each in shown(settings)],
            unchecked=[
                *(name for name, part in parts.items() if part is None),
                *(f"dead letters {each.queue}" for each in dead if each.messages is None),
            ],
        )


def _connections(state: RevocationState) -> ConnectionsAnswer | None:
    if state.connections is None or state.ended is None:
        return None
    return ConnectionsAnswer(count=state.connections, at=timestamp(state.ended))


def _partition(found: RelayPartition) -> PartitionAnswer:
    until = None if found.until is None else timestamp(found.until)
    return PartitionAnswer.model_validate(asdict(found) | {"until": until})


def _revocations(state: RevocationState) -> RevocationsAnswer:
    return RevocationsAnswer(newest=state.newest, applied=state.applied, waiting_since=_at_ms(state.waiting_since_ms))


def _revalidation(state: RevocationState) -> RevalidationAnswer:
    return RevalidationAnswer(
        began_at=None if state.began is None else timestamp(state.began),
        ended_at=None if state.ended is None else timestamp(state.ended),
        running=state.open,
        demanded=state.demanded,
    )


def _queue(name: str, depth: QueueDepth | None) -> QueueAnswer:
    counts = {"waiting": None, "in_flight": None, "delayed": None} if depth is None else asdict(depth)
    return QueueAnswer(name=name, **counts)


def _at_ms(at_ms: int | None) -> str | None:
    return None if at_ms is None else timestamp(at_ms / 1000)
