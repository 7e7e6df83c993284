"""Every setting: name, meaning, range and default, in one place. Read once, checked, typed, frozen.

Invariant of this file: a value that does not parse or is out of range is an error that names the variable, the
value and what is allowed; nothing ever falls back to a default silently. The CDK app checks a stage's
configuration with this very module at synth, the functions read theirs with it at cold start, and the table in
docs/settings.md is generated from it.

Secrets are not here: functions get their ARNs (see `providers`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any

from tidegate.domain.limits import FailureMode
from tidegate.settings.values import (
    base_url,
    boolean,
    choice,
    failure_mode,
    hosts,
    integer,
    keeps_secrets,
    matching,
    origins,
    ports,
    topics,
)


class SettingsError(ValueError):
    """One or more settings are wrong; the message has a line for each."""


class RuntimeClass(StrEnum):
    """Only `development` and `test` are lenient; every other word of TIDEGATE_ENV is production."""

    LENIENT = "lenient"
    PRODUCTION = "production"


@dataclass(frozen=True, slots=True)
class Setting:
    """How one variable is read and what it does, as the docs show it.

    Attributes:
        variable: environment variable.
        parse: text -> value; raises `ValueError` whose text says what is allowed.
        shown_default: the default as people read it.
        effect: one sentence.
    """

    variable: str
    parse: Callable[[str], object]
    shown_default: str
    effect: str


def _setting(variable: str, default: Any, parse: Callable[[str], object], effect: str, *, shown: str = "") -> Any:
    if not shown:
        shown = str(default).lower() if isinstance(default, bool) else str(default)
        shown = "empty" if default in ((), "") else shown
        if isinstance(default, tuple) and default:
            shown = ",".join(str(item) for item in default)
    return field(default=default, metadata={"setting": Setting(variable, parse, shown, effect)})


_count = integer(1, 1_000_000)
_millis = integer(1, 86_400_000)
_by_class = "production fail-closed, else fail-open"


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings. Durations keep the unit their name ends in."""

    env: str = _setting(
        "TIDEGATE_ENV",
        "production",
        matching(r"[A-Za-z][A-Za-z0-9_-]{0,31}", "a word"),
        "Runtime class: only `development` and `test` are lenient, every other word is production.",
    )
    realtime_enabled: bool = _setting(
        "REALTIME_ENABLED", True, boolean, "Off: the handshake answers 404, bridge and relay idle."
    )
    max_client_connections_per_ip: int = _setting(
        "REALTIME_MAX_CLIENT_CONNECTIONS_PER_IP", 25, _count, "Open connections of one address, over all functions."
    )
    max_connections_per_dashboard: int = _setting(
        "REALTIME_MAX_CONNECTIONS_PER_DASHBOARD", 1000, _count, "Connections holding a subscription of a dashboard."
    )
    max_subscriptions_per_connection: int = _setting(
        "REALTIME_MAX_SUBSCRIPTIONS_PER_CONNECTION",
        50,
        integer(1, 500),
        "Subscriptions of one connection; exact under concurrency.",
    )
    connect_rate_limit_ip_per_min: int = _setting(
        "REALTIME_CONNECT_RATE_LIMIT_IP_PER_MIN", 60, _count, "Handshakes of one address in a minute."
    )
    public_subscribe_rate_limit_ip_per_min: int = _setting(
        "REALTIME_PUBLIC_SUBSCRIBE_RATE_LIMIT_IP_PER_MIN",
        60,
        _count,
        "Subscribes with public tokens of one address in a minute.",
    )
    public_subscribe_rate_limit_share_token_per_min: int = _setting(
        "REALTIME_PUBLIC_SUBSCRIBE_RATE_LIMIT_SHARE_TOKEN_PER_MIN",
        120,
        _count,
        "Subscribes with public tokens of one dashboard and share version in a minute.",
    )
    realtime_trust_proxy_hops: int = _setting(
        "REALTIME_TRUST_PROXY_HOPS",
        0,
        integer(0, 16),
        "Proxies in front that append to X-Forwarded-For; 0 takes the platform's source address. "
        "With the edge in front 2, without it 0, on the local stack 1. Must equal API_TRUST_PROXY_HOPS.",
    )
    api_trust_proxy_hops: int = _setting(
        "API_TRUST_PROXY_HOPS", 0, integer(0, 16), "The same for the API. Must equal REALTIME_TRUST_PROXY_HOPS."
    )
    realtime_limiter_failure_mode: FailureMode = _setting(
        "REALTIME_LIMITER_FAILURE_MODE",
        FailureMode.CLOSED,
        failure_mode,
        "What the gateway does when the limiter's store does not answer.",
        shown=_by_class,
    )
    limiter_timeout_ms: int = _setting(
        "GATEWAY_LIMITER_TIMEOUT_MS", 3000, integer(500, 25_000), "One deadline for all limiter calls of a decision."
    )
    max_message_bytes: int = _setting(
        "REALTIME_MAX_MESSAGE_BYTES",
        131_072,
        integer(1, 131_072),
        "Largest message in either direction; the platform's own limit is the default.",
    )
    allowed_origins: tuple[str, ...] = _setting(
        "REALTIME_ALLOWED_ORIGINS", (), origins, "When set, a handshake with another Origin answers 403."
    )
    unauthenticated_timeout_ms: int = _setting(
        "REALTIME_UNAUTHENTICATED_TIMEOUT_MS",
        60_000,
        _millis,
        "A connection without any subscription is closed after this.",
    )
    public_revalidate_interval_ms: int = _setting(
        "REALTIME_PUBLIC_REVALIDATE_INTERVAL_MS",
        30_000,
        integer(1000, 3_600_000),
        "Incremental poll of the feed; below 60000 the minute's run polls several times.",
    )
    public_full_revalidate_interval_ms: int = _setting(
        "REALTIME_PUBLIC_FULL_REVALIDATE_INTERVAL_MS",
        300_000,
        integer(60_000, 86_400_000),
        "Full pass over every subscription.",
    )
    revoke_event_retention_seconds: int = _setting(
        "REALTIME_REVOKE_EVENT_RETENTION_SECONDS",
        86_400,
        integer(60, 31_536_000),
        "How long the feed keeps an event.",
    )
    revoked_tokens_max_batch: int = _setting(
        "GATEWAY_REVOKED_TOKENS_MAX_BATCH", 500, integer(1, 1000), "Largest number of events in one answer."
    )
    api_base_url: str = _setting(
        "GATEWAY_API_BASE_URL",
        "",
        base_url,
        "Set: the gateway asks that API over HTTP instead of the tables; production: https, or this host.",
    )
    introspection_timeout_ms: int = _setting(
        "GATEWAY_INTROSPECTION_TIMEOUT_MS",
        5000,
        integer(500, 25_000),
        "One deadline for all calls of an introspection; with GATEWAY_API_BASE_URL.",
    )
    revoked_tokens_timeout_ms: int = _setting(
        "GATEWAY_REVOKED_TOKENS_TIMEOUT_MS",
        5000,
        integer(500, 25_000),
        "One deadline for all calls of a read of the feed; with GATEWAY_API_BASE_URL.",
    )
    sse_enabled: bool = _setting(
        "REALTIME_SSE_ENABLED",
        True,
        boolean,
        "Off: SSE datasources are POLICY_BLOCKED; running streams end within two minutes.",
    )
    ws_enabled: bool = _setting(
        "REALTIME_WS_ENABLED",
        True,
        boolean,
        "Off: WebSocket datasources are POLICY_BLOCKED; running streams end within two minutes.",
    )
    mqtt_enabled: bool = _setting(
        "REALTIME_MQTT_ENABLED",
        True,
        boolean,
        "Off: MQTT datasources are POLICY_BLOCKED and the bridge idles; running streams end within two minutes.",
    )
    sse_idle_timeout_ms: int = _setting(
        "REALTIME_SSE_IDLE_TIMEOUT_MS", 120_000, integer(1000, 3_600_000), "Of a quiet SSE upstream."
    )
    ws_idle_timeout_ms: int = _setting(
        "REALTIME_WS_IDLE_TIMEOUT_MS",
        300_000,
        integer(1000, 3_600_000),
        "Of a quiet WebSocket upstream.",
    )
    ws_ping_interval_ms: int = _setting(
        "REALTIME_WS_PING_INTERVAL_MS", 30_000, integer(1000, 3_600_000), "Pings to the upstream."
    )
    connect_timeout_ms: int = _setting(
        "REALTIME_CONNECT_TIMEOUT_MS", 10_000, integer(500, 300_000), "Of an upstream's connect only."
    )
    reconnect_min_ms: int = _setting(
        "REALTIME_RECONNECT_MIN_MS", 1000, integer(100, 3_600_000), "Least delay of a reconnect."
    )
    reconnect_max_ms: int = _setting(
        "REALTIME_RECONNECT_MAX_MS", 30_000, integer(100, 3_600_000), "Greatest delay of a reconnect."
    )
    max_updates_per_second: int = _setting(
        "REALTIME_MAX_UPDATES_PER_SECOND",
        10,
        integer(0, 1000),
        "Conflation per stream, the newest value wins; 0 = off.",
    )
    mqtt_allowed_topics: tuple[str, ...] = _setting(
        "REALTIME_MQTT_ALLOWED_TOPICS",
        (),
        topics,
        "Topic filters datasources may use; one IoT rule each. `iot-core` profiles need it in every stage.",
    )
    mqtt_max_qos: int = _setting("REALTIME_MQTT_MAX_QOS", 1, integer(0, 1), "Highest QoS asked of external brokers.")
    mqtt_max_connections_per_broker: int = _setting(
        "REALTIME_MQTT_MAX_CONNECTIONS_PER_BROKER",
        10,
        integer(1, 1000),
        "Distinct credentials per broker profile, over all relays.",
    )
    mqtt_idle_disconnect_ms: int = _setting(
        "REALTIME_MQTT_IDLE_DISCONNECT_MS",
        300_000,
        _millis,
        "How long a broker connection without streams lives.",
    )
    mqtt_keepalive_seconds: int = _setting(
        "REALTIME_MQTT_KEEPALIVE_SECONDS", 60, integer(5, 3600), "Keep-alive of broker connections."
    )
    mqtt_max_message_bytes: int = _setting(
        "REALTIME_MQTT_MAX_MESSAGE_BYTES",
        98_304,
        integer(1, 131_072),
        "Largest MQTT payload; the encoded frame is checked against REALTIME_MAX_MESSAGE_BYTES as well.",
    )
    egress_allowed_hosts: tuple[str, ...] = _setting(
        "EGRESS_ALLOWED_HOSTS",
        (),
        hosts,
        "Hosts upstreams may be on: a name, *.suffix; `*` matches nothing in production.",
    )
    egress_allowed_ports: tuple[int, ...] = _setting(
        "EGRESS_ALLOWED_PORTS", (80, 443, 1883, 8883), ports, "Ports upstreams may be on."
    )
    egress_allow_private_destinations: bool = _setting(
        "EGRESS_ALLOW_PRIVATE_DESTINATIONS", False, boolean, "Lets upstreams be on private addresses."
    )
    egress_allow_insecure_tls: bool = _setting(
        "EGRESS_ALLOW_INSECURE_TLS", False, boolean, "Skips certificate checks; an error in production."
    )
    session_token_issuer: str = _setting(
        "SESSION_TOKEN_ISSUER",
        "tidegate-api",
        matching(r"\S{1,256}", "1 to 256 characters"),
        "`iss` of session tokens.",
    )
    session_token_audience: str = _setting(
        "SESSION_TOKEN_AUDIENCE",
        "tidegate-gateway",
        matching(r"\S{1,256}", "1 to 256 characters"),
        "`aud` of session tokens.",
    )
    datasource_session_ttl_seconds: int = _setting(
        "DATASOURCE_SESSION_TTL_SECONDS", 300, integer(60, 3600), "Life of a session token."
    )
    login_ttl_seconds: int = _setting("AUTH_LOGIN_TTL_SECONDS", 7200, integer(60, 604_800), "Life of a login token.")
    mint_rate_limit_user_per_min: int = _setting(
        "DATASOURCE_TOKEN_MINT_RATE_LIMIT_USER_PER_MIN",
        60,
        _count,
        "Session tokens of one user, and of one user on one dashboard, in a minute.",
    )
    mint_rate_limit_public_ip_per_min: int = _setting(
        "DATASOURCE_TOKEN_MINT_RATE_LIMIT_PUBLIC_IP_PER_MIN",
        30,
        _count,
        "Public session tokens of one address in a minute; a refresh of a live subscription does not spend it.",
    )
    mint_rate_limit_share_token_per_min: int = _setting(
        "DATASOURCE_TOKEN_MINT_RATE_LIMIT_SHARE_TOKEN_PER_MIN",
        60,
        _count,
        "Public session tokens of one share token in a minute.",
    )
    introspection_rate_limit_per_min: int = _setting(
        "GATEWAY_INTROSPECTION_RATE_LIMIT_PER_MIN",
        600,
        _count,
        "Introspections of one caller in a minute; with GATEWAY_API_BASE_URL, re-checks spend at most half of it, and "
        "connects of the relay a quarter.",
    )
    revoked_tokens_rate_limit_per_min: int = _setting(
        "GATEWAY_REVOKED_TOKENS_RATE_LIMIT_PER_MIN", 600, _count, "Feed polls of one caller in a minute."
    )
    login_max_attempts: int = _setting(
        "AUTH_LOGIN_MAX_ATTEMPTS", 5, integer(1, 1000), "Failed logins of one e-mail and address before the lock."
    )
    login_window_seconds: int = _setting(
        "AUTH_LOGIN_WINDOW_SECONDS", 300, integer(1, 86_400), "Window in which failed logins are counted."
    )
    login_lock_seconds: int = _setting("AUTH_LOGIN_LOCK_SECONDS", 300, integer(1, 86_400), "How long the lock holds.")
    db_backend: str = _setting("DB_BACKEND", "dynamodb", choice("dynamodb"), "Where state is kept.")
    limiter_backend: str = _setting(
        "SECURITY_LIMITER_BACKEND",
        "dynamodb",
        choice("dynamodb", "memory"),
        "Where limits are counted; `memory` (one process) only outside production.",
    )
    security_limiter_failure_mode: FailureMode = _setting(
        "SECURITY_LIMITER_FAILURE_MODE",
        FailureMode.CLOSED,
        failure_mode,
        "The same for login, mint and the internal contract.",
        shown=_by_class,
    )
    limiter_namespace: str = _setting(
        "SECURITY_LIMITER_NAMESPACE",
        "tidegate",
        matching(r"[a-z0-9:._-]{1,96}", "1 to 96 of a-z 0-9 : . _ -"),
        "First part of every limiter key, so that two deployments may share a table.",
    )
    api_docs_enabled: bool = _setting("API_DOCS_ENABLED", False, boolean, "Serves OpenAPI at /api/docs.")

    @property
    def runtime_class(self) -> RuntimeClass:
        return runtime_class(self.env)

    @property
    def production(self) -> bool:
        return self.runtime_class is RuntimeClass.PRODUCTION

    @property
    def digest(self) -> str:
        """Equal for equal settings, in every process."""
        values = repr([(one.name, getattr(self, one.name)) for one in fields(self)])
        return hashlib.sha256(values.encode()).hexdigest()[:12]


def runtime_class(env: str) -> RuntimeClass:
    """The class of a TIDEGATE_ENV word."""
    lenient = env.strip().lower() in ("development", "test")
    return RuntimeClass.LENIENT if lenient else RuntimeClass.PRODUCTION


def documented() -> tuple[Setting, ...]:
    """Every setting in the order of the docs."""
    return tuple(item.metadata["setting"] for item in fields(Settings))


def load(env: Mapping[str, str]) -> Settings:
    """Read settings from environment variables. An empty value counts as unset.

    Raises:
        SettingsError: one line per wrong setting.
    """
    problems: list[str] = []
    values: dict[str, Any] = {}
    for item in fields(Settings):
        setting: Setting = item.metadata["setting"]
        text = env.get(setting.variable, "")
        if not text.strip():
            continue
        try:
            values[item.name] = setting.parse(text)
        except ValueError as error:
            problems.append(f"{setting.variable}={text!r}: {error}")
    settings = Settings(**values)
    if not settings.production:
        lenient: dict[str, Any] = {
            name: FailureMode.OPEN
            for name in ("realtime_limiter_failure_mode", "security_limiter_failure_mode")
            if name not in values
        }
        settings = replace(settings, **lenient)
    problems += _contradictions(settings)
    if problems:
        raise SettingsError("Settings are wrong:\n  " + "\n  ".join(problems))
    return settings


def _contradictions(settings: Settings) -> list[str]:
    """Values that are each allowed but not together, or not in this runtime class."""
    problems = []
    if settings.realtime_trust_proxy_hops != settings.api_trust_proxy_hops:
        problems.append(
            f"REALTIME_TRUST_PROXY_HOPS={settings.realtime_trust_proxy_hops} and "
            f"API_TRUST_PROXY_HOPS={settings.api_trust_proxy_hops}: must be equal"
        )
    if settings.reconnect_min_ms > settings.reconnect_max_ms:
        problems.append(
            f"REALTIME_RECONNECT_MIN_MS={settings.reconnect_min_ms}: must not be above "
            f"REALTIME_RECONNECT_MAX_MS={settings.reconnect_max_ms}"
        )
    problems += _remote_api_problems(settings) if settings.api_base_url else []
    if settings.production and (settings.sse_enabled or settings.ws_enabled) and not settings.egress_allowed_hosts:
        problems.append(
            "EGRESS_ALLOWED_HOSTS='': needed in production, where SSE and WebSocket datasources connect outside; "
            "allowed: names and *.suffix, or REALTIME_SSE_ENABLED=false with REALTIME_WS_ENABLED=false"
        )
    if settings.production and settings.limiter_backend == "memory":
        problems.append("SECURITY_LIMITER_BACKEND='memory': not allowed in production; allowed: dynamodb")
    if settings.production and settings.egress_allow_insecure_tls:
        problems.append("EGRESS_ALLOW_INSECURE_TLS='true': not allowed in production; allowed: false")
    return problems


#: What API Gateway waits for a WebSocket message's answer is 29 s; the rest of a subscribe needs some of it.
_MESSAGE_BUDGET_MS = 25_000
#: The contract clamps the limits it is asked to count against.
_REMOTE_API_MAX_LIMIT = 10_000


def _remote_api_problems(settings: Settings) -> list[str]:
    problems = []
    if settings.production and not keeps_secrets(settings.api_base_url):
        problems.append(
            f"GATEWAY_API_BASE_URL={settings.api_base_url!r}: not allowed in production, because the service token "
            "would travel in clear; allowed: https://, or http:// on this host"
        )
    together = settings.limiter_timeout_ms + settings.introspection_timeout_ms
    if together > _MESSAGE_BUDGET_MS:
        problems.append(
            f"GATEWAY_LIMITER_TIMEOUT_MS and GATEWAY_INTROSPECTION_TIMEOUT_MS: {together} together; "
            f"allowed: at most {_MESSAGE_BUDGET_MS}, because a subscribe waits for both"
        )
    limits = {
        "REALTIME_CONNECT_RATE_LIMIT_IP_PER_MIN": settings.connect_rate_limit_ip_per_min,
        "REALTIME_PUBLIC_SUBSCRIBE_RATE_LIMIT_IP_PER_MIN": settings.public_subscribe_rate_limit_ip_per_min,
        "REALTIME_PUBLIC_SUBSCRIBE_RATE_LIMIT_SHARE_TOKEN_PER_MIN": (
            settings.public_subscribe_rate_limit_share_token_per_min
        ),
    }
    for variable, limit in limits.items():
        if limit > _REMOTE_API_MAX_LIMIT:
            problems.append(
                f"{variable}={limit}: allowed with GATEWAY_API_BASE_URL: at most {_REMOTE_API_MAX_LIMIT}, "
                "the largest limit the contract counts against"
            )
    return problems
