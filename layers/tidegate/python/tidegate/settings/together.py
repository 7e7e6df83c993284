"""Values that are allowed alone, but not together, or not in this stage.

Each check returns a line for each problem. A line names the variables, their values and what is allowed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidegate.domain.budgets import HOSTILE_ADDRESSES, connections_for, shared_by_viewers
from tidegate.domain.limits import MAX_GATEWAY_LIMIT, FailureMode
from tidegate.domain.stage_rules import HOPS, HOPS_OF, Proxies, unconfirmed, unneeded
from tidegate.domain.time_limits import MESSAGE_BUDGET_MS
from tidegate.errors import InvalidInput
from tidegate.protocol.topics import IOT_CORE, check_filter
from tidegate.settings.values import keeps_secrets

if TYPE_CHECKING:
    from tidegate.settings import Settings

#: Polls that must fall into the time that the feed keeps an event. One may be late and one may fail.
POLLS_KEPT = 3


def contradictions(settings: Settings) -> list[str]:
    """Every problem of settings that are right one by one."""
    problems = _of_every_stage(settings) + _of_the_stage(settings)
    problems += _of_production(settings) if settings.production else []
    problems += _with_a_remote_api(settings) if settings.api_base_url else []
    return problems


def _of_every_stage(settings: Settings) -> list[str]:
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
    if settings.login_ttl_seconds > settings.login_max_seconds:
        problems.append(
            f"AUTH_LOGIN_TTL_SECONDS={settings.login_ttl_seconds}: must not be above "
            f"AUTH_LOGIN_MAX_SECONDS={settings.login_max_seconds}"
        )
    if settings.login_max_attempts > settings.login_account_max_attempts:
        problems.append(
            f"AUTH_LOGIN_MAX_ATTEMPTS={settings.login_max_attempts}: must not be above "
            f"AUTH_LOGIN_ACCOUNT_MAX_ATTEMPTS={settings.login_account_max_attempts}"
        )
    least_s = -(-POLLS_KEPT * settings.public_revalidate_interval_ms // 1000)
    if settings.revoke_event_retention_seconds < least_s:
        problems.append(
            f"REALTIME_REVOKE_EVENT_RETENTION_SECONDS={settings.revoke_event_retention_seconds}: allowed: at least "
            f"{least_s}, {POLLS_KEPT} times REALTIME_PUBLIC_REVALIDATE_INTERVAL_MS="
            f"{settings.public_revalidate_interval_ms}, because a poll may be late or fail"
        )
    return problems + _topics_of_devices(settings) + _new_viewers(settings)


def _topics_of_devices(settings: Settings) -> list[str]:
    """Allowed topics below the stage's prefix are read from AWS IoT Core, which has limits of its own."""
    problems = []
    of_devices = [topic for topic in settings.mqtt_allowed_topics if topic.startswith(f"{settings.iot_topic_prefix}/")]
    for topic in of_devices:
        try:
            check_filter(topic, IOT_CORE)
        except InvalidInput as error:
            problems.append(
                f"REALTIME_MQTT_ALLOWED_TOPICS: {error.message}; allowed: below "
                f"REALTIME_IOT_TOPIC_PREFIX={settings.iot_topic_prefix}, what AWS IoT Core takes"
            )
    if unknown := [topic for topic in settings.mqtt_batched_topics if topic not in of_devices]:
        problems.append(
            f"REALTIME_MQTT_BATCHED_TOPICS: {', '.join(unknown)}: allowed: entries of REALTIME_MQTT_ALLOWED_TOPICS "
            f"below REALTIME_IOT_TOPIC_PREFIX={settings.iot_topic_prefix}"
        )
    return problems


def _new_viewers(settings: Settings) -> list[str]:
    """Whether all connections of a dashboard may come at once, whatever hostile addresses spend."""
    connections = settings.max_connections_per_dashboard
    if settings.api_base_url:  # its viewers are not counted when their tokens are minted, but here
        variable = "REALTIME_PUBLIC_SUBSCRIBE_RATE_LIMIT_SHARE_TOKEN_PER_MIN"
        shared = settings.public_subscribe_rate_limit_share_token_per_min
    else:
        variable = "DATASOURCE_TOKEN_MINT_RATE_LIMIT_SHARE_TOKEN_PER_MIN"
        shared = settings.mint_rate_limit_share_token_per_min
    if shared >= shared_by_viewers(connections):
        return []
    problem = (
        f"REALTIME_MAX_CONNECTIONS_PER_DASHBOARD={connections} and {variable}={shared}: allowed: at most "
        f"{connections_for(shared)} connections, or at least {shared_by_viewers(connections)} new viewers in a minute, "
        f"because all may come at once while {HOSTILE_ADDRESSES} hostile addresses spend one half"
    )
    return [problem]


def _of_the_stage(settings: Settings) -> list[str]:
    """What the stage file says of itself, against the settings."""
    problems = []
    if settings.production_stage and not settings.production:
        problems.append(
            f"TIDEGATE_ENV={settings.env!r}: not allowed in a production stage (TIDEGATE_PRODUCTION_STAGE=true); "
            "allowed: any other word, or `disposable` in the stage file"
        )
    unusual = _unusual_hops(settings) + (_unusual_in_production(settings) if settings.production else [])
    for name in unneeded(unusual, settings.exceptions):
        confirmed_by = "`hops_confirmed`" if name in HOPS else f"an exception of {name}"
        problems.append(f"TIDEGATE_EXCEPTIONS: {confirmed_by} is not needed; allowed: only what the settings need")
    missing = unconfirmed(unusual, settings.exceptions)
    values = {
        "REALTIME_TRUST_PROXY_HOPS": str(settings.realtime_trust_proxy_hops),
        "API_TRUST_PROXY_HOPS": str(settings.api_trust_proxy_hops),
        "REALTIME_LIMITER_FAILURE_MODE": settings.realtime_limiter_failure_mode.value,
        "SECURITY_LIMITER_FAILURE_MODE": settings.security_limiter_failure_mode.value,
        "EGRESS_ALLOW_PRIVATE_DESTINATIONS": "true",
    }
    for name in missing:
        if name in HOPS:
            problems.append(
                f"{name}={values[name]}: allowed with TIDEGATE_PROXIES={settings.proxies}: "
                f'{HOPS_OF[Proxies(settings.proxies)]}, or "hops_confirmed": true in the stage file'
            )
        else:
            problems.append(
                f"{name}={values[name]}: not allowed in production without a reason; allowed: "
                f'"exceptions": {{"{name}": "the reason"}} in the stage file'
            )
    return problems


def _unusual_hops(settings: Settings) -> list[str]:
    if not settings.proxies:
        return []  # not deployed by the CDK app: nobody knows what is in front
    derived = HOPS_OF[Proxies(settings.proxies)]
    given = (settings.realtime_trust_proxy_hops, settings.api_trust_proxy_hops)
    return [name for name, hops in zip(HOPS, given, strict=True) if hops != derived]


def _unusual_in_production(settings: Settings) -> list[str]:
    unusual = {
        "REALTIME_LIMITER_FAILURE_MODE": settings.realtime_limiter_failure_mode is FailureMode.OPEN,
        "SECURITY_LIMITER_FAILURE_MODE": settings.security_limiter_failure_mode is FailureMode.OPEN,
        "EGRESS_ALLOW_PRIVATE_DESTINATIONS": settings.egress_allow_private_destinations,
    }
    return [name for name, is_so in unusual.items() if is_so]


def _of_production(settings: Settings) -> list[str]:
    problems = []
    if (settings.sse_enabled or settings.ws_enabled) and not settings.egress_allowed_hosts:
        problems.append(
            "EGRESS_ALLOWED_HOSTS='': needed in production, where SSE and WebSocket datasources connect outside; "
            "allowed: names and *.suffix, or REALTIME_SSE_ENABLED=false with REALTIME_WS_ENABLED=false"
        )
    if "*" in settings.egress_allowed_hosts:
        problems.append("EGRESS_ALLOWED_HOSTS='*': not allowed in production; allowed: names and *.suffix")
    if settings.limiter_backend == "memory":
        problems.append("SECURITY_LIMITER_BACKEND='memory': not allowed in production; allowed: dynamodb")
    if settings.egress_allow_insecure_tls:
        problems.append("EGRESS_ALLOW_INSECURE_TLS='true': not allowed in production; allowed: false")
    return problems


def _with_a_remote_api(settings: Settings) -> list[str]:
    problems = []
    if settings.production and not keeps_secrets(settings.api_base_url):
        problems.append(
            f"GATEWAY_API_BASE_URL={settings.api_base_url!r}: not allowed in production, because the service token "
            "would travel in clear; allowed: https://, or http:// on this host"
        )
    together = settings.limiter_timeout_ms + settings.introspection_timeout_ms
    if together > MESSAGE_BUDGET_MS:
        problems.append(
            f"GATEWAY_LIMITER_TIMEOUT_MS and GATEWAY_INTROSPECTION_TIMEOUT_MS: {together} together; "
            f"allowed: at most {MESSAGE_BUDGET_MS}, because a subscribe waits for both"
        )
    limits = {
        "REALTIME_CONNECT_RATE_LIMIT_IP_PER_MIN": settings.connect_rate_limit_ip_per_min,
        "REALTIME_PUBLIC_SUBSCRIBE_RATE_LIMIT_IP_PER_MIN": settings.public_subscribe_rate_limit_ip_per_min,
        "REALTIME_PUBLIC_SUBSCRIBE_RATE_LIMIT_SHARE_TOKEN_PER_MIN": (
            settings.public_subscribe_rate_limit_share_token_per_min
        ),
    }
    for variable, limit in limits.items():
        if limit > MAX_GATEWAY_LIMIT:
            problems.append(
                f"{variable}={limit}: allowed with GATEWAY_API_BASE_URL: at most {MAX_GATEWAY_LIMIT}, "
                "the largest limit that the internal API counts against"
            )
    return problems
