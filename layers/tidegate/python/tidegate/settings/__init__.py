"""All settings, read once from the environment, checked as a whole, typed, frozen.

Invariant of this package: a value that does not parse or is out of range is an error. The error names the variable,
the value and what is allowed. No wrong value is silently replaced by a default.

The CDK app checks a stage's configuration with this package at synth. The functions read theirs with it at cold start.
The table in the docs is generated from it. The settings themselves are in `settings.groups`.

Secrets are not here. Functions get only their ARNs (see `providers`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any

from tidegate.domain.limits import MAX_GATEWAY_LIMIT, FailureMode
from tidegate.settings.groups import (
    ControlPlaneSettings,
    EgressSettings,
    GatewaySettings,
    LimiterSettings,
    ProcessSettings,
    RemoteApiSettings,
    RevocationSettings,
    UpstreamSettings,
)
from tidegate.settings.groups import (
    Setting as Setting,
)
from tidegate.settings.values import keeps_secrets

#: The groups, in the order of the docs.
GROUPS = (
    ProcessSettings,
    GatewaySettings,
    LimiterSettings,
    RevocationSettings,
    RemoteApiSettings,
    UpstreamSettings,
    EgressSettings,
    ControlPlaneSettings,
)


class SettingsError(ValueError):
    """One or more settings are wrong. The message has a line for each."""


class RuntimeClass(StrEnum):
    """How strict the settings are. `development` and `test` are lenient; every other TIDEGATE_ENV is production."""

    LENIENT = "lenient"
    PRODUCTION = "production"


@dataclass(frozen=True)
class Settings(
    ControlPlaneSettings,
    EgressSettings,
    UpstreamSettings,
    RemoteApiSettings,
    RevocationSettings,
    LimiterSettings,
    GatewaySettings,
    ProcessSettings,
):
    """All groups together. Durations are in the unit that their name ends in."""

    @property
    def runtime_class(self) -> RuntimeClass:
        return runtime_class(self.env)

    @property
    def production(self) -> bool:
        return self.runtime_class is RuntimeClass.PRODUCTION

    @property
    def digest(self) -> str:
        """12 hex characters that are equal for equal settings, in every process."""
        values = repr([(item.name, getattr(self, item.name)) for item in fields(self)])
        return hashlib.sha256(values.encode()).hexdigest()[:12]


def runtime_class(env: str) -> RuntimeClass:
    """The runtime class of a value of TIDEGATE_ENV."""
    lenient = env.strip().lower() in ("development", "test")
    return RuntimeClass.LENIENT if lenient else RuntimeClass.PRODUCTION


def documented() -> tuple[Setting, ...]:
    """Every setting in the order of the docs."""
    return tuple(item.metadata["setting"] for group in GROUPS for item in fields(group))


def load(env: Mapping[str, str]) -> Settings:
    """Read settings from environment variables. An empty value counts as not set.

    Raises:
        SettingsError: a setting is wrong; the message has a line for each.
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
    """Values that are allowed alone but not together, or not in this runtime class."""
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


#: Most time for the calls of a remote API in a subscribe, milliseconds. API Gateway waits 29 s for the answer to a
#: WebSocket message, and the rest of a subscribe needs some of that.
MESSAGE_BUDGET_MS = 25_000


def _remote_api_problems(settings: Settings) -> list[str]:
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
