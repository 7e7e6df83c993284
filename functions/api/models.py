"""Requests and answers of the public API. Their JSON names are in camel case."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from tidegate import VERSION
from tidegate.domain.access import AclLevel, Role, Visibility
from tidegate.domain.audit import UNKNOWN, AuditRow
from tidegate.domain.budgets import new_subscriptions
from tidegate.domain.dashboards import DashboardSummary
from tidegate.domain.destinations import MAX_DESTINATIONS
from tidegate.domain.profiles import BrokerProfile, CredentialProfile, CredentialType, Transport
from tidegate.domain.projection import ShownDashboard, shown_owner
from tidegate.domain.users import User
from tidegate.errors import LimiterUnavailable, TidegateError, Unavailable
from tidegate.protocol import messages
from tidegate.settings import Settings
from tidegate.usecases.control_plane.login import LoggedIn

Name = Annotated[str, Field(min_length=1, max_length=200)]


class ApiModel(BaseModel):
    """Camel case in JSON, snake case in Python. Unknown fields are refused."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class ErrorBody(ApiModel):
    code: str
    message: str
    current_revision: int | None = None
    retry_after_ms: int | None = None


class ErrorAnswer(ApiModel):
    error: ErrorBody


class LoginRequest(ApiModel):
    email: Annotated[str, Field(max_length=254)]
    password: Annotated[str, Field(max_length=256)]


class UserAnswer(ApiModel):
    id: str
    email: str
    role: Role
    active: bool
    must_change_password: bool

    @staticmethod
    def of(user: User) -> UserAnswer:
        return UserAnswer(
            id=user.user_id,
            email=user.email,
            role=user.role,
            active=user.active,
            must_change_password=user.must_change_password,
        )


class LoginAnswer(ApiModel):
    token: str
    expires_at: str
    user: UserAnswer

    @staticmethod
    def of(done: LoggedIn) -> LoginAnswer:
        return LoginAnswer(
            token=done.token, expires_at=messages.timestamp(done.expires_at), user=UserAnswer.of(done.user)
        )


class CreateUser(ApiModel):
    email: Annotated[str, Field(max_length=254)]
    role: Role = Role.VIEWER
    password: Annotated[str, Field(max_length=256)] | None = None


class CreatedUser(ApiModel):
    user: UserAnswer
    one_time_password: str | None


class ChangeUser(ApiModel):
    """What is null stays as it is."""

    role: Role | None = None
    active: bool | None = None


class OneTimePassword(ApiModel):
    one_time_password: str


class ChangePassword(ApiModel):
    current_password: Annotated[str, Field(max_length=256)]
    new_password: Annotated[str, Field(max_length=256)]


class UserList(ApiModel):
    users: list[UserAnswer]
    cursor: str | None


class CredentialRequest(ApiModel):
    """`secret` by type: `bearer` needs `token`, `basic` needs `username` and `password`, `header` needs `headerValue`
    and the name of the header in `headerName`, `none` takes nothing. `headerName` is a token of RFC 9110. `token` and
    `headerValue` have no line breaks or other control characters, and no spaces around.

    `destinations` says where the secret may be sent: each is a scheme, a host or `*.suffix`, and a port if it is not
    the scheme's own, such as `https://api.example.com` or `wss://*.example.com:8443`. Schemes are `https` and `wss`,
    outside production `http` and `ws` too. Without destinations the profile serves no URL, only broker profiles. With
    them, `username` has no colon."""

    name: Name
    type: CredentialType
    destinations: Annotated[list[str], Field(max_length=MAX_DESTINATIONS)] = []
    allow_public_use: bool = False
    description: Annotated[str, Field(max_length=2000)] = ""
    header_name: Annotated[str, Field(max_length=200)] | None = None
    secret: dict[str, Annotated[str, Field(max_length=8192)]] | None = None

    def profile(self) -> CredentialProfile:
        return CredentialProfile(
            profile_id="",
            name=self.name,
            type=self.type,
            destinations=tuple(self.destinations),
            allow_public_use=self.allow_public_use,
            description=self.description,
            header_name=self.header_name,
        )


class CredentialReplacement(CredentialRequest):
    """As `CredentialRequest`; `destinations` must be stated, so that none is lost or gained unsaid."""

    destinations: Annotated[list[str], Field(max_length=MAX_DESTINATIONS)]


class CredentialAnswer(ApiModel):
    """`destinations` have their ports stated. `revision` goes into `If-Match` of a `PUT`."""

    id: str
    revision: int
    name: str
    type: CredentialType
    destinations: list[str]
    allow_public_use: bool
    description: str
    header_name: str | None
    secret: dict[str, Literal["***"]]

    @staticmethod
    def of(profile: CredentialProfile) -> CredentialAnswer:
        return CredentialAnswer(
            id=profile.profile_id,
            revision=profile.revision,
            name=profile.name,
            type=profile.type,
            destinations=list(profile.destinations),
            allow_public_use=profile.allow_public_use,
            description=profile.description,
            header_name=profile.header_name,
            secret=dict.fromkeys(profile.secret_keys, "***"),
        )


class BrokerRequest(ApiModel):
    """`iot-core` is the account's own broker, and takes neither `brokerUrl` nor `credentialProfileId`. `external` needs
    `brokerUrl`, with `mqtt://` or `mqtts://`, and may name a credential profile of type `basic`. `tls` may
    hold a `ca`: PEM text with certificates only, each of which can be read.

    A `brokerUrl` that the egress policy refuses is refused here, with the rule. Topic filters have the limits of MQTT
    (65,535 bytes); those of `iot-core` have AWS IoT Core's (256 bytes, 7 slashes). Shared subscriptions (`$share/`) are
    refused."""

    name: Name
    transport: Transport
    broker_url: Annotated[str, Field(max_length=2048)] | None = None
    credential_profile_id: str | None = None
    topic_allowlist: Annotated[list[str], Field(max_length=100)] = []
    allow_public_use: bool = False
    description: Annotated[str, Field(max_length=2000)] = ""
    tls: dict[str, Annotated[str, Field(max_length=65_536)]] = {}

    def profile(self) -> BrokerProfile:
        return BrokerProfile(
            profile_id="",
            name=self.name,
            transport=self.transport,
            broker_url=self.broker_url,
            credential_profile_id=self.credential_profile_id,
            topic_allowlist=tuple(self.topic_allowlist),
            allow_public_use=self.allow_public_use,
            description=self.description,
            tls=self.tls,
        )


class BrokerReplacement(BrokerRequest):
    """As `BrokerRequest`; `topicAllowlist` must be stated. An empty one opens every topic that the gateway allows."""

    topic_allowlist: Annotated[list[str], Field(max_length=100)]


class BrokerAnswer(ApiModel):
    """`revision` goes into `If-Match` of a `PUT`."""

    id: str
    revision: int
    name: str
    transport: Transport
    broker_url: str | None
    credential_profile_id: str | None
    topic_allowlist: list[str]
    allow_public_use: bool
    description: str
    tls: dict[str, str]

    @staticmethod
    def of(profile: BrokerProfile) -> BrokerAnswer:
        return BrokerAnswer(
            id=profile.profile_id,
            revision=profile.revision,
            name=profile.name,
            transport=profile.transport,
            broker_url=profile.broker_url,
            credential_profile_id=profile.credential_profile_id,
            topic_allowlist=list(profile.topic_allowlist),
            allow_public_use=profile.allow_public_use,
            description=profile.description,
            tls=dict(profile.tls),
        )


class AclAnswer(ApiModel):
    """`email` is null where the user is not there any longer."""

    user_id: str
    email: str | None
    level: AclLevel


class DashboardAnswer(ApiModel):
    """What is null is not for the caller. `ownerId` is for those who may edit. `acl`, `shareToken` and
    `shareTokenVersion` are for those who may manage sharing.

    `document` is whole for those who may edit. Everybody else gets what it takes to draw the dashboard:

    - `schemaVersion`, `title`, `columns`, `width`, and of `settings` `theme`, `timeZone`, `windowSeconds` and `kiosk`;
    - of each datasource `id`, `title`, `type`, `enabled`, and of its `settings` `staleAfterSeconds` and `history`;
    - of each pane `id`, `title`, `layout` and `widgets`; of each widget `id`, `type`, `title`, `enabled`, and of its
      `settings` what says how values are drawn. A binding has `topicDigest` in place of its `topic`.

    Whatever else a document holds is not shown to them: no URL, no header, no topic, no profile.
    """

    id: str
    owner_id: str | None = None
    title: str
    visibility: Visibility
    revision: int
    document: dict[str, Any]
    can_edit: bool
    can_share: bool
    acl: list[AclAnswer] | None = None
    share_token: str | None = None
    share_token_version: int | None = None

    @staticmethod
    def of(shown: ShownDashboard, emails: Mapping[str, str]) -> DashboardAnswer:
        """`emails`: of the users in the ACL, by id."""
        acl = shown.acl
        return DashboardAnswer(
            id=shown.dashboard_id,
            owner_id=shown.owner_id,
            title=shown.title,
            visibility=shown.visibility,
            revision=shown.revision,
            document=shown.document,
            can_edit=shown.can_edit,
            can_share=shown.can_share,
            acl=None
            if acl is None
            else [
                AclAnswer(user_id=name, email=emails.get(name), level=acl[name].level)
                for name in sorted(acl, key=lambda name: (emails.get(name, ""), name))
            ],
            share_token=shown.share_token,
            share_token_version=shown.share_version,
        )


class SummaryAnswer(ApiModel):
    """`ownerId` and `ownerEmail` are null but for the owner and admins. `updatedAt` is the last change of any kind."""

    id: str
    owner_id: str | None = None
    owner_email: str | None = None
    title: str
    visibility: Visibility
    revision: int
    updated_at: str

    @staticmethod
    def of(summary: DashboardSummary, user: User, emails: Mapping[str, str]) -> SummaryAnswer:
        """`emails`: of owners, by id."""
        owner_id = shown_owner(summary, user)
        return SummaryAnswer(
            id=summary.dashboard_id,
            owner_id=owner_id,
            owner_email=None if owner_id is None else emails.get(owner_id),
            title=summary.title,
            visibility=summary.visibility,
            revision=summary.revision,
            updated_at=messages.timestamp(summary.updated_at_ms / 1000),
        )


class DashboardList(ApiModel):
    """`more` says that there are dashboards which a search or another order did not look at."""

    dashboards: list[SummaryAnswer]
    shared: list[SummaryAnswer]
    cursor: str | None
    more: bool


class DocumentRequest(ApiModel):
    document: dict[str, Any]


class VisibilityRequest(ApiModel):
    visibility: Visibility


class AclRequest(ApiModel):
    email: Annotated[str, Field(max_length=254)]
    level: AclLevel


class OwnerRequest(ApiModel):
    email: Annotated[str, Field(max_length=254)]


class SessionRequest(ApiModel):
    """`currentToken` is a valid session token of the same dashboard. With it a public viewer does not count as new."""

    dashboard_id: Name
    datasource_id: Name
    share_token: Annotated[str, Field(max_length=200)] | None = None
    current_token: Annotated[str, Field(max_length=8192)] | None = None


class SessionAnswer(ApiModel):
    token: str
    expires_at: str


class DashboardSessionRequest(ApiModel):
    """`currentToken` is a valid session token of the same dashboard. With it a public viewer does not count as new."""

    share_token: Annotated[str, Field(max_length=200)] | None = None
    current_token: Annotated[str, Field(max_length=8192)] | None = None


class DashboardSessionAnswer(ApiModel):
    """All three times are by the server's clock. `refreshAfter` is when to ask for the next token."""

    token: str
    expires_at: str
    refresh_after: str
    server_time: str


class Verdict(ApiModel):
    """`state` is `allowed`, `refused` or `unavailable`. The last says that it could not be checked, and nothing else.

    The rest is as in a refused `ack` of the protocol, and null where the call would be admitted. `retryAfterMs` is null
    where waiting is not what helps.
    """

    state: Literal["allowed", "refused", "unavailable"]
    error_code: str | None = None
    message: str | None = None
    retryable: bool | None = None
    retry_after_ms: int | None = None

    @staticmethod
    def of(refusal: TidegateError | None) -> Verdict:
        if refusal is None:
            return Verdict(state="allowed")
        unknown = isinstance(refusal, Unavailable)
        hidden = unknown and not isinstance(refusal, LimiterUnavailable)
        return Verdict(
            state="unavailable" if unknown else "refused",
            error_code=messages.code_for(refusal),
            message="It could not be checked" if hidden else messages.text_for(refusal),
            retryable=messages.retryable(refusal),
            retry_after_ms=messages.retry_after_ms(refusal),
        )


class RealtimeLimits(ApiModel):
    """What holds for a client, by the settings. `updatesPerSecond` is 0 where all values are sent."""

    connections_per_address: int
    connects_per_address_per_minute: int
    connections_per_dashboard: int
    subscriptions_per_connection: int
    new_subscriptions_per_connection_per_minute: int
    messages_per_connection_per_minute: int
    message_bytes: int
    unauthenticated_timeout_ms: int
    updates_per_second: int
    session_ttl_seconds: int

    @staticmethod
    def of(settings: Settings) -> RealtimeLimits:
        return RealtimeLimits(
            connections_per_address=settings.max_client_connections_per_ip,
            connects_per_address_per_minute=settings.connect_rate_limit_ip_per_min,
            connections_per_dashboard=settings.max_connections_per_dashboard,
            subscriptions_per_connection=settings.max_subscriptions_per_connection,
            new_subscriptions_per_connection_per_minute=new_subscriptions(settings.max_subscriptions_per_connection),
            messages_per_connection_per_minute=settings.message_rate_limit_connection_per_min,
            message_bytes=settings.max_message_bytes,
            unauthenticated_timeout_ms=settings.unauthenticated_timeout_ms,
            updates_per_second=settings.max_updates_per_second,
            session_ttl_seconds=settings.datasource_session_ttl_seconds,
        )


class RealtimeAnswer(ApiModel):
    """`protocols` are the types of datasources that are switched on. `version` is that of the software.

    `connect` is null where a remote API decides, and `subscribe` is so too where none was asked about.
    """

    enabled: bool
    protocols: list[str]
    limits: RealtimeLimits
    server_time: str
    version: str
    connect: Verdict | None
    subscribe: Verdict | None

    @staticmethod
    def of(settings: Settings, now: float, connect: Verdict | None, subscribe: Verdict | None) -> RealtimeAnswer:
        on = {"sse": settings.sse_enabled, "websocket": settings.ws_enabled, "mqtt": settings.mqtt_enabled}
        return RealtimeAnswer(
            enabled=settings.realtime_enabled,
            protocols=[protocol for protocol in on if on[protocol]],
            limits=RealtimeLimits.of(settings),
            server_time=messages.timestamp(now),
            version=VERSION,
            connect=connect,
            subscribe=subscribe,
        )


class CheckAnswer(ApiModel):
    """One thing that was asked, and how many milliseconds it took. `kind` is `table`, `secret` or `queue`."""

    kind: Literal["table", "secret", "queue"]
    name: str
    ok: bool
    ms: float


class HealthAnswer(ApiModel):
    """`status` is `ok` or `failing`. `checks` is null but for a deep check."""

    status: Literal["ok", "failing"]
    checks: list[CheckAnswer] | None = None


class HistoryPoint(ApiModel):
    """The values of a bucket, `everyMs` long, that begins at `at`.

    `least` and `most` are of those that are numbers; absent when none is. `last` is the last value, as the source wrote
    it; absent when it has more than 512 bytes. `seq` is that of the last value: of two points, the one with the higher
    text is newer.
    """

    at: str
    least: float | None = None
    most: float | None = None
    last: Any = None
    seq: str


class HistoryAnswer(ApiModel):
    """Points, the newest first. `next` is the `until` that brings what is before them; null when there is nothing."""

    points: list[HistoryPoint]
    every_ms: int
    seconds: int
    next: str | None


class AuditAnswer(ApiModel):
    """An event, or how often the same happened in the five minutes that begin at `at`.

    `firstAt` and `lastAt` are when it happened first and last. `targetId` is `unknown` where the caller only named a
    target. `metadata.cut` is true where something was too long to be kept.
    """

    action: str
    actor_id: str | None
    target_type: str
    target_id: str
    at: str
    count: int
    first_at: str
    last_at: str
    metadata: dict[str, Any]

    @staticmethod
    def of(row: AuditRow) -> AuditAnswer:
        event = row.event
        return AuditAnswer(
            action=event.action,
            actor_id=event.actor_id,
            target_type=event.target_type,
            target_id=event.target_id or UNKNOWN,
            at=messages.timestamp(event.at_ms / 1000),
            count=row.count,
            first_at=messages.timestamp(row.first_ms / 1000),
            last_at=messages.timestamp(row.last_ms / 1000),
            metadata=dict(event.metadata),
        )


class AuditList(ApiModel):
    """`cursor` gets the next page, which is older; it is null on the last one."""

    events: list[AuditAnswer]
    cursor: str | None
