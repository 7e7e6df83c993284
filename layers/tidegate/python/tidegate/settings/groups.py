"""Every setting: name, meaning, range and default, in groups by concern.

A setting is a field made by `setting`. To add one, write the field in the group it belongs to, use it, and run
the command on the settings page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tidegate.domain.limits import LIMITED_FUNCTION_S, MOST_LIMITER_MS, FailureMode
from tidegate.domain.stage_rules import EXCEPTIONS, HOPS, Proxies
from tidegate.domain.time_limits import FUNCTION_S, MESSAGE_BUDGET_MS, UPSTREAM_S
from tidegate.settings.values import (
    as_text,
    base_url,
    boolean,
    choice,
    failure_mode,
    frame_origins,
    hosts,
    integer,
    matching,
    names,
    origins,
    ports,
    topics,
)


class Setting(NamedTuple):
    """How a variable is read and what it does, as the docs show it.

    Attributes:
        variable: the environment variable.
        parse: makes the value of a text. It raises a `ValueError` whose text says what is allowed.
        shown_default: the default, as people read it.
        effect: what the setting does, in a sentence.
        holds: what a change holds for, where that does not follow from who reads the setting.
    """

    variable: str
    parse: Callable[[str], object]
    shown_default: str
    effect: str
    holds: str = ""

    @property
    def unit(self) -> str:
        """The unit of its value, as its name has it; empty where there is none."""
        return next((unit for ending, unit in _UNITS.items() if self.variable.endswith(ending)), "")


_UNITS = {"_MS": "ms", "_SECONDS": "s", "_PER_MIN": "per minute", "_PER_SECOND": "per second", "_BYTES": "bytes"}


def setting(
    variable: str,
    default: Any,
    parse: Callable[[str], object],
    effect: str,
    *,
    shown: str = "",
    holds: str = "",
) -> Any:
    if not shown:
        shown = as_text(default)
    return field(default=default, metadata={"setting": Setting(variable, parse, shown, effect, holds)})


_count = integer(1, 1_000_000)
_millis = integer(1, 86_400_000)
_ends = f"because a relay worker ends after {FUNCTION_S['relay.worker']} seconds, and its successor begins anew"
_pause_ms = integer(100, UPSTREAM_S * 1000, _ends)
_upstream_ms = integer(1000, UPSTREAM_S * 1000, _ends)
_saved = "datasources saved after"
_issued = "tokens issued after"
_by_class = "production fail-closed, else fail-open"


@dataclass(frozen=True, init=False, repr=False, eq=False)
class ProcessSettings:
    """How strict the process is, and where it keeps state."""

    env: str = setting(
        "TIDEGATE_ENV",
        "production",
        matching(r"[A-Za-z][A-Za-z0-9_-]{0,31}", "a word"),
        "Runtime class: only `development` and `test` are lenient, every other word is production.",
    )
    production_stage: bool = setting(
        "TIDEGATE_PRODUCTION_STAGE",
        False,
        boolean,
        "Whether the stage is a production stage, which keeps its data. Then `TIDEGATE_ENV` must not be lenient. "
        "Set by the CDK app from `disposable`, never under `settings`.",
    )
    proxies: str = setting(
        "TIDEGATE_PROXIES",
        "",
        choice(*Proxies),
        "What is in front: the edge, nothing, or the edge of the local stack. Set by the CDK app from `edge`, never "
        "under `settings`.",
    )
    exceptions: tuple[str, ...] = setting(
        "TIDEGATE_EXCEPTIONS",
        (),
        names(*EXCEPTIONS, *HOPS),
        "Settings whose unusual value the stage file confirms. Set by the CDK app from `exceptions` and "
        "`hops_confirmed`, never under `settings`.",
    )
    secret_cache_seconds: int = setting(
        "SECRET_CACHE_SECONDS",
        300,
        integer(5, 300),
        "How long a process uses a secret before it reads it again. The steps of a rotation wait for it.",
    )
    db_backend: str = setting("DB_BACKEND", "dynamodb", choice("dynamodb"), "Where state is kept.")


@dataclass(frozen=True, init=False, repr=False, eq=False)
class GatewaySettings:
    """The handshake, subscribing, and what one connection may do."""

    realtime_enabled: bool = setting(
        "REALTIME_ENABLED",
        True,
        boolean,
        "Off: the handshake answers 404, subscribes are refused with STREAM_POLICY_BLOCKED, every subscription and "
        "connection is ended within two minutes, and bridge and relay idle.",
        holds="two minutes",
    )
    max_client_connections_per_ip: int = setting(
        "REALTIME_MAX_CLIENT_CONNECTIONS_PER_IP", 25, _count, "Open connections of one address, over all functions."
    )
    max_connections_per_dashboard: int = setting(
        "REALTIME_MAX_CONNECTIONS_PER_DASHBOARD",
        1250,
        _count,
        "Connections that hold a subscription of one dashboard. The default is a thousand viewers, and what ten "
        "addresses may hold that mean harm.",
    )
    max_subscriptions_per_connection: int = setting(
        "REALTIME_MAX_SUBSCRIPTIONS_PER_CONNECTION",
        50,
        integer(1, 500),
        "Subscriptions of one connection. Exact under concurrency.",
    )
    max_upstreams_per_owner: int = setting(
        "REALTIME_MAX_UPSTREAMS_PER_OWNER",
        100,
        integer(1, 1000),
        "Different SSE, WebSocket and external MQTT streams that all dashboards of one owner use at the same time. The "
        "default is two full pages. Not counted with GATEWAY_API_BASE_URL, which names no owner.",
    )
    connect_rate_limit_ip_per_min: int = setting(
        "REALTIME_CONNECT_RATE_LIMIT_IP_PER_MIN", 60, _count, "Handshakes of one address in a minute."
    )
    public_subscribe_rate_limit_ip_per_min: int = setting(
        "REALTIME_PUBLIC_SUBSCRIBE_RATE_LIMIT_IP_PER_MIN",
        2500,
        _count,
        "New subscriptions with public tokens of one address in a minute. A refresh does not spend it.",
    )
    public_subscribe_rate_limit_share_token_per_min: int = setting(
        "REALTIME_PUBLIC_SUBSCRIBE_RATE_LIMIT_SHARE_TOKEN_PER_MIN",
        2500,
        _count,
        "Connections that begin to watch one dashboard and share version in a minute, with public tokens that name no "
        "viewer, as a remote API may mint them. One address gets a twentieth.",
    )
    message_rate_limit_connection_per_min: int = setting(
        "REALTIME_MESSAGE_RATE_LIMIT_CONNECTION_PER_MIN",
        600,
        integer(100, 100_000),
        "Messages of one connection in a minute, garbage included. Above it the connection is closed.",
    )
    realtime_trust_proxy_hops: int = setting(
        "REALTIME_TRUST_PROXY_HOPS",
        0,
        integer(0, 16),
        "Proxies in front that append to X-Forwarded-For. 0 takes the platform's source address. A stage derives it: "
        "2 with the edge in front, 0 without it, 1 on the local stack. Must equal API_TRUST_PROXY_HOPS.",
    )
    unauthenticated_timeout_ms: int = setting(
        "REALTIME_UNAUTHENTICATED_TIMEOUT_MS",
        60_000,
        _millis,
        "A connection that has never begun a subscription is closed after this.",
    )
    max_message_bytes: int = setting(
        "REALTIME_MAX_MESSAGE_BYTES",
        131_072,
        integer(1, 131_072),
        "Largest message in either direction. The default is the platform's own limit.",
    )


@dataclass(frozen=True, init=False, repr=False, eq=False)
class LimiterSettings:
    """Where limits are counted, and what holds when that store does not answer."""

    limiter_backend: str = setting(
        "SECURITY_LIMITER_BACKEND",
        "dynamodb",
        choice("dynamodb", "memory"),
        "Where limits are counted. `memory`, which counts in one process, is allowed outside production only.",
    )
    limiter_namespace: str = setting(
        "SECURITY_LIMITER_NAMESPACE",
        "tidegate",
        matching(r"[a-z0-9:._-]{1,96}", "1 to 96 of a-z 0-9 : . _ -"),
        "First part of every limiter key, so that two deployments may share a table.",
    )
    limiter_timeout_ms: int = setting(
        "GATEWAY_LIMITER_TIMEOUT_MS",
        3000,
        integer(500, MOST_LIMITER_MS, f"because the functions that ask it end after {LIMITED_FUNCTION_S} seconds"),
        "One deadline for all limiter calls of a request, cleaning up included. It stands still between them.",
    )
    realtime_limiter_failure_mode: FailureMode = setting(
        "REALTIME_LIMITER_FAILURE_MODE",
        FailureMode.CLOSED,
        failure_mode,
        "What the gateway does when the limiter's store does not answer.",
        shown=_by_class,
    )
    security_limiter_failure_mode: FailureMode = setting(
        "SECURITY_LIMITER_FAILURE_MODE",
        FailureMode.CLOSED,
        failure_mode,
        "What login, minting of session tokens and the internal API do then.",
        shown=_by_class,
    )


@dataclass(frozen=True, init=False, repr=False, eq=False)
class RevocationSettings:
    """The feed of revocations, and how often subscriptions are checked again."""

    public_revalidate_interval_ms: int = setting(
        "REALTIME_PUBLIC_REVALIDATE_INTERVAL_MS",
        30_000,
        integer(1000, 60_000, "because the schedule polls every minute"),
        "How often the feed is polled for new events. Below 60000, the run of each minute polls several times.",
    )
    public_full_revalidate_interval_ms: int = setting(
        "REALTIME_PUBLIC_FULL_REVALIDATE_INTERVAL_MS",
        300_000,
        integer(60_000, 86_400_000),
        "How often a full revalidation checks every subscription.",
    )
    revoke_event_retention_seconds: int = setting(
        "REALTIME_REVOKE_EVENT_RETENTION_SECONDS",
        86_400,
        integer(60, 31_536_000),
        "How long the feed keeps an event.",
        holds="events written after",
    )
    revoked_tokens_max_batch: int = setting(
        "GATEWAY_REVOKED_TOKENS_MAX_BATCH", 500, integer(1, 1000), "Largest number of events in one answer of the feed."
    )


@dataclass(frozen=True, init=False, repr=False, eq=False)
class RemoteApiSettings:
    """A remote API that the gateway asks, and what our own internal API allows its callers."""

    api_base_url: str = setting(
        "GATEWAY_API_BASE_URL",
        "",
        base_url,
        "When set, the gateway asks that API over HTTP, not the tables. In production it must be https, or this host.",
    )
    introspection_timeout_ms: int = setting(
        "GATEWAY_INTROSPECTION_TIMEOUT_MS",
        5000,
        integer(500, MESSAGE_BUDGET_MS),
        "One deadline for all calls of an introspection. Used with GATEWAY_API_BASE_URL.",
    )
    revoked_tokens_timeout_ms: int = setting(
        "GATEWAY_REVOKED_TOKENS_TIMEOUT_MS",
        5000,
        integer(500, MESSAGE_BUDGET_MS),
        "One deadline for all calls of a read of the feed. Used with GATEWAY_API_BASE_URL.",
    )
    introspection_rate_limit_per_min: int = setting(
        "GATEWAY_INTROSPECTION_RATE_LIMIT_PER_MIN",
        600,
        _count,
        "Introspections of one caller in a minute. With GATEWAY_API_BASE_URL, re-checks spend at most half of it, and "
        "connects of the relay a quarter.",
    )
    revoked_tokens_rate_limit_per_min: int = setting(
        "GATEWAY_REVOKED_TOKENS_RATE_LIMIT_PER_MIN", 600, _count, "Feed polls of one caller in a minute."
    )


@dataclass(frozen=True, init=False, repr=False, eq=False)
class UpstreamSettings:
    """Protocols that are switched on, and how connections to upstreams behave."""

    sse_enabled: bool = setting(
        "REALTIME_SSE_ENABLED",
        True,
        boolean,
        "Off: SSE datasources are refused with STREAM_POLICY_BLOCKED. Subscriptions to them are told so "
        "and end within two minutes.",
    )
    ws_enabled: bool = setting(
        "REALTIME_WS_ENABLED",
        True,
        boolean,
        "Off: WebSocket datasources are refused with STREAM_POLICY_BLOCKED. Subscriptions to them are told so "
        "and end within two minutes.",
    )
    mqtt_enabled: bool = setting(
        "REALTIME_MQTT_ENABLED",
        True,
        boolean,
        "Off: MQTT datasources are refused with STREAM_POLICY_BLOCKED, and the bridge idles. Subscriptions to "
        "them, IoT Core's included, are told so and end within two minutes.",
    )
    sse_idle_timeout_ms: int = setting(
        "REALTIME_SSE_IDLE_TIMEOUT_MS", 120_000, _upstream_ms, "How long an SSE upstream may be silent.", holds=_saved
    )
    ws_idle_timeout_ms: int = setting(
        "REALTIME_WS_IDLE_TIMEOUT_MS",
        300_000,
        _upstream_ms,
        "How long a WebSocket upstream may be silent.",
        holds=_saved,
    )
    ws_ping_interval_ms: int = setting(
        "REALTIME_WS_PING_INTERVAL_MS", 30_000, _upstream_ms, "How often a WebSocket upstream is pinged."
    )
    connect_timeout_ms: int = setting(
        "REALTIME_CONNECT_TIMEOUT_MS",
        10_000,
        integer(500, 300_000),
        "How long connecting to an upstream may take, and each answer of a broker.",
    )
    reconnect_min_ms: int = setting("REALTIME_RECONNECT_MIN_MS", 1000, _pause_ms, "Shortest delay before a reconnect.")
    reconnect_max_ms: int = setting("REALTIME_RECONNECT_MAX_MS", 30_000, _pause_ms, "Longest delay before a reconnect.")
    max_updates_per_second: int = setting(
        "REALTIME_MAX_UPDATES_PER_SECOND",
        10,
        integer(0, 1000),
        "Most values that a stream, or each of its topics, sends in a second: the newest wins (conflation). 0 sends "
        "all.",
    )
    max_sends_per_second: int = setting(
        "REALTIME_MAX_SENDS_PER_SECOND",
        5_000,
        integer(0, 100_000),
        "Most messages with values to viewers in a second, of relay workers, bridge and catch-ups together. API "
        "Gateway counts them in the requests of the account and region, which other APIs share: 10,000 a second, in "
        "some regions 2,500. 0 is no limit, and then nothing is asked.",
    )
    mqtt_allowed_topics: tuple[str, ...] = setting(
        "REALTIME_MQTT_ALLOWED_TOPICS",
        (),
        topics,
        "Topic filters that datasources may use. Each one below the prefix becomes an IoT rule. `iot-core` profiles "
        "need it in every stage.",
    )
    mqtt_batched_topics: tuple[str, ...] = setting(
        "REALTIME_MQTT_BATCHED_TOPICS",
        (),
        topics,
        "Of the allowed topics below the prefix, those that IoT Core brings to the bridge through a queue, in batches "
        "of a second: for topics that are faster than screens.",
    )
    iot_topic_prefix: str = setting(
        "REALTIME_IOT_TOPIC_PREFIX",
        "tidegate",
        matching(r"[A-Za-z0-9_-]{1,64}(/[A-Za-z0-9_-]{1,64}){0,3}", "1 to 4 levels of A-Z a-z 0-9 _ - with / between"),
        "First levels of all topics that are read from IoT Core. The level after them is the thing that publishes. A "
        "stage has its own name here, unless its file says otherwise.",
    )
    mqtt_max_qos: int = setting("REALTIME_MQTT_MAX_QOS", 1, integer(0, 1), "Highest QoS asked of external brokers.")
    mqtt_max_connections_per_broker: int = setting(
        "REALTIME_MQTT_MAX_CONNECTIONS_PER_BROKER",
        10,
        integer(1, 1000),
        "Distinct credentials for each broker profile, over all relay workers.",
    )
    mqtt_idle_disconnect_ms: int = setting(
        "REALTIME_MQTT_IDLE_DISCONNECT_MS",
        300_000,
        integer(1, UPSTREAM_S * 1000, _ends),
        "How long a broker connection without streams is kept.",
    )
    mqtt_keepalive_seconds: int = setting(
        "REALTIME_MQTT_KEEPALIVE_SECONDS",
        60,
        integer(5, UPSTREAM_S, _ends),
        "Keep-alive of broker connections.",
        holds=_saved,
    )
    mqtt_max_message_bytes: int = setting(
        "REALTIME_MQTT_MAX_MESSAGE_BYTES",
        98_304,
        integer(1, 131_072),
        "Largest MQTT payload. The encoded frame is checked against REALTIME_MAX_MESSAGE_BYTES as well.",
    )


@dataclass(frozen=True, init=False, repr=False, eq=False)
class EgressSettings:
    """Where upstreams may be."""

    egress_allowed_hosts: tuple[str, ...] = setting(
        "EGRESS_ALLOWED_HOSTS",
        (),
        hosts,
        "Hosts that upstreams may be on. `*` matches nothing in production.",
    )
    egress_allowed_ports: tuple[int, ...] = setting(
        "EGRESS_ALLOWED_PORTS", (80, 443, 1883, 8883), ports, "Ports that upstreams may be on."
    )
    egress_allow_private_destinations: bool = setting(
        "EGRESS_ALLOW_PRIVATE_DESTINATIONS", False, boolean, "Lets upstreams be on private addresses."
    )
    egress_allow_insecure_tls: bool = setting(
        "EGRESS_ALLOW_INSECURE_TLS", False, boolean, "Skips certificate checks. An error in production."
    )


@dataclass(frozen=True, init=False, repr=False, eq=False)
class ControlPlaneSettings:
    """Tokens, logins, and the HTTP API."""

    session_token_issuer: str = setting(
        "SESSION_TOKEN_ISSUER",
        "tidegate-api",
        matching(r"\S{1,256}", "1 to 256 characters"),
        "`iss` of session tokens.",
    )
    session_token_audience: str = setting(
        "SESSION_TOKEN_AUDIENCE",
        "tidegate-gateway",
        matching(r"\S{1,256}", "1 to 256 characters"),
        "`aud` of session tokens.",
    )
    datasource_session_ttl_seconds: int = setting(
        "DATASOURCE_SESSION_TTL_SECONDS", 300, integer(60, 3600), "Life of a session token.", holds=_issued
    )
    login_ttl_seconds: int = setting(
        "AUTH_LOGIN_TTL_SECONDS",
        7200,
        integer(60, 604_800),
        "Life of a login token that is not renewed.",
        holds=_issued,
    )
    login_max_seconds: int = setting(
        "AUTH_LOGIN_MAX_SECONDS",
        43_200,
        integer(60, 2_592_000),
        "How long a login may be renewed, from signing in on. Not below AUTH_LOGIN_TTL_SECONDS.",
    )
    mint_rate_limit_user_per_min: int = setting(
        "DATASOURCE_TOKEN_MINT_RATE_LIMIT_USER_PER_MIN",
        200,
        _count,
        "Session tokens of one user in a minute. The default is two full pages that open and refresh.",
    )
    mint_rate_limit_public_ip_per_min: int = setting(
        "DATASOURCE_TOKEN_MINT_RATE_LIMIT_PUBLIC_IP_PER_MIN",
        125,
        _count,
        "New public viewers of one address in a minute, and its guesses at dashboards and share tokens. Never more "
        "than a twentieth of DATASOURCE_TOKEN_MINT_RATE_LIMIT_SHARE_TOKEN_PER_MIN.",
    )
    mint_rate_limit_share_token_per_min: int = setting(
        "DATASOURCE_TOKEN_MINT_RATE_LIMIT_SHARE_TOKEN_PER_MIN",
        2500,
        _count,
        "New public viewers of one dashboard and share version in a minute. Who sends a token that is still valid is "
        "not new.",
    )
    login_max_attempts: int = setting(
        "AUTH_LOGIN_MAX_ATTEMPTS",
        5,
        integer(1, 100),
        "Wrong passwords with one e-mail from one address before the lock; also wrong current passwords of one user.",
    )
    login_window_seconds: int = setting(
        "AUTH_LOGIN_WINDOW_SECONDS", 300, integer(1, 86_400), "Window in which they are counted, from the first on."
    )
    login_lock_seconds: int = setting("AUTH_LOGIN_LOCK_SECONDS", 300, integer(1, 86_400), "How long the lock holds.")
    login_account_max_attempts: int = setting(
        "AUTH_LOGIN_ACCOUNT_MAX_ATTEMPTS",
        100,
        integer(1, 500),
        "Wrong passwords with one e-mail from all addresses together, where nobody logged in with it. Not below "
        "AUTH_LOGIN_MAX_ATTEMPTS.",
    )
    login_account_window_seconds: int = setting(
        "AUTH_LOGIN_ACCOUNT_WINDOW_SECONDS", 3600, integer(60, 86_400), "Window in which those are counted."
    )
    login_known_address_seconds: int = setting(
        "AUTH_LOGIN_KNOWN_ADDRESS_SECONDS",
        2_592_000,
        integer(60, 31_536_000),
        "How long, after a login with an e-mail, its address is not held to AUTH_LOGIN_ACCOUNT_MAX_ATTEMPTS.",
    )
    api_trust_proxy_hops: int = setting(
        "API_TRUST_PROXY_HOPS", 0, integer(0, 16), "As REALTIME_TRUST_PROXY_HOPS, for the HTTP API. Both must be equal."
    )
    allowed_origins: tuple[str, ...] = setting(
        "API_ALLOWED_ORIGINS",
        (),
        origins,
        "Origins whose pages may call the API (CORS) and open the WebSocket. Empty: no page of another origin may call "
        "the API, and the handshake does not look at the Origin. When set, a handshake with another Origin answers "
        "403, so the public address has to be in the list too.",
    )
    console_frame_ancestors: tuple[str, ...] = setting(
        "CONSOLE_FRAME_ANCESTORS",
        (),
        frame_origins,
        "Origins whose pages may show a viewer page in a frame. Empty: none may. The console itself is never framed.",
    )
    api_docs_enabled: bool = setting(
        "API_DOCS_ENABLED",
        False,
        boolean,
        "Serves the OpenAPI description at /api/openapi.json, and a page of it at /api/docs.",
    )
