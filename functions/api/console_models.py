"""Requests and answers of what the console asks while somebody edits or shares a dashboard."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

from pydantic import Field

from functions.api.models import ApiModel, Name
from tidegate.domain.identifiers import MAX_IDENTIFIER
from tidegate.domain.profiles import BrokerProfile, CredentialProfile, CredentialType, Transport
from tidegate.protocol.messages import timestamp
from tidegate.usecases.control_plane.author_profiles import Usable
from tidegate.usecases.control_plane.check_topic import TopicCheck
from tidegate.usecases.control_plane.count_viewers import Watching
from tidegate.usecases.control_plane.preview import Previewed
from tidegate.usecases.control_plane.public_check import Blocker

#: The longest text that could be a topic filter, characters: MQTT allows as many bytes.
MAX_TOPIC = 65_535


class UsableBroker(ApiModel):
    """A broker profile, as much of it as an author needs."""

    id: str
    name: str
    transport: Transport
    allow_public_use: bool
    topic_allowlist: list[str]

    @staticmethod
    def of(profile: BrokerProfile) -> UsableBroker:
        return UsableBroker(
            id=profile.profile_id,
            name=profile.name,
            transport=profile.transport,
            allow_public_use=profile.allow_public_use,
            topic_allowlist=list(profile.topic_allowlist),
        )


class UsableCredential(ApiModel):
    """A credential profile, as much of it as an author needs."""

    id: str
    name: str
    type: CredentialType
    allow_public_use: bool
    destinations: list[str]

    @staticmethod
    def of(profile: CredentialProfile) -> UsableCredential:
        return UsableCredential(
            id=profile.profile_id,
            name=profile.name,
            type=profile.type,
            allow_public_use=profile.allow_public_use,
            destinations=list(profile.destinations),
        )


class UsableProfilesAnswer(ApiModel):
    """Profiles that the caller may attach, in the order of their names."""

    brokers: list[UsableBroker]
    credentials: list[UsableCredential]

    @staticmethod
    def of(usable: Usable) -> UsableProfilesAnswer:
        return UsableProfilesAnswer(
            brokers=[UsableBroker.of(profile) for profile in usable.brokers],
            credentials=[UsableCredential.of(profile) for profile in usable.credentials],
        )


class TopicCheckRequest(ApiModel):
    """`dashboardId` is the dashboard that is edited. Editors and admins may leave it out."""

    broker_profile_id: Name
    topic: Annotated[str, Field(max_length=MAX_TOPIC)]
    dashboard_id: Annotated[str, Field(max_length=MAX_IDENTIFIER)] | None = None


class TopicCheckAnswer(ApiModel):
    """`valid` says whether it is a topic filter of this broker. `problem` says why a datasource with it would show
    nothing; null when nothing stands against it. `wildcard` says whether it may match several topics.

    `coveredBy` is the filter of the profile's `topicAllowlist` that covers it; `#` when the list is empty, null when
    none does. `fedBy` is the filter of the IoT rule that feeds it; null where there is none, and for external brokers.
    """

    valid: bool
    problem: str | None
    wildcard: bool
    covered_by: str | None
    fed_by: str | None

    @staticmethod
    def of(check: TopicCheck) -> TopicCheckAnswer:
        return TopicCheckAnswer(
            valid=check.valid,
            problem=check.problem,
            wildcard=check.wildcard,
            covered_by=check.covered_by,
            fed_by=check.fed_by,
        )


class PreviewRequest(ApiModel):
    """A datasource that is not saved: `type` and `settings` are as in a document."""

    dashboard_id: Name
    type: Name
    settings: Annotated[dict[str, Any], Field(default_factory=dict)]


class PreviewMessage(ApiModel):
    """`payload` is as the source wrote it. `topic` is null but with MQTT."""

    payload: Any
    topic: str | None
    at: str


class PreviewFault(ApiModel):
    """`code` is an error code of the protocol: the one that viewers would be told."""

    code: str
    message: str


class PreviewAnswer(ApiModel):
    """The first messages, the oldest first. `fault` says why there are none, or no more; null when nothing went wrong.
    Without both, nothing came in time."""

    messages: list[PreviewMessage]
    fault: PreviewFault | None


def preview_answer(previewed: Previewed) -> bytes:
    """A `PreviewAnswer`. It is made as text: values have the digits that the source wrote."""
    messages = ",".join(
        f'{{"payload":{message.payload},"topic":{json.dumps(message.topic)},"at":{json.dumps(timestamp(message.at))}}}'
        for message in previewed.messages
    )
    fault = previewed.fault and {"code": previewed.fault.code, "message": previewed.fault.text}
    return f'{{"messages":[{messages}],"fault":{json.dumps(fault)}}}'.encode("utf-8", "replace")


class BlockerAnswer(ApiModel):
    """A datasource that viewers without a right of their own are refused.

    `code` is that of the refusal, or `datasource_unresolved` when there is nothing to connect to.
    """

    datasource_id: str
    title: str
    code: str
    message: str


class PublicCheckAnswer(ApiModel):
    blockers: list[BlockerAnswer]

    @staticmethod
    def of(blockers: list[Blocker]) -> PublicCheckAnswer:
        return PublicCheckAnswer(blockers=[BlockerAnswer.model_validate(asdict(each)) for each in blockers])


class ViewerKinds(ApiModel):
    """Connections of members, and of everybody else. Those are counted as `link` or `public`, by what the dashboard is
    now; of a private one, whose last guests are just being cut, as `link`."""

    member: int
    link: int
    public: int


class WatchedDatasource(ApiModel):
    datasource_id: str
    subscriptions: int


class ViewersAnswer(ApiModel):
    """`datasources` has those that are watched, the most watched first. `more` says that not all was counted: then
    there are more than the answer says."""

    connections: int
    subscriptions: int
    kinds: ViewerKinds
    datasources: list[WatchedDatasource]
    more: bool

    @staticmethod
    def of(found: Watching) -> ViewersAnswer:
        return ViewersAnswer(
            connections=found.connections,
            subscriptions=found.subscriptions,
            kinds=ViewerKinds(member=found.members, link=found.by_link, public=found.public),
            datasources=[
                WatchedDatasource(datasource_id=name, subscriptions=number)
                for name, number in found.datasources.items()
            ],
            more=found.more,
        )


class DocumentProblem(ApiModel):
    """What saving would refuse, and what is allowed there."""

    path: str
    allowed: str


class DocumentWarning(ApiModel):
    """What may be saved, and is likely not meant."""

    path: str
    message: str


class ValidationAnswer(ApiModel):
    problems: list[DocumentProblem]
    warnings: list[DocumentWarning]
