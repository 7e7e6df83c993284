"""All settings, read once from the environment, checked as a whole, typed, frozen.

Invariant of this package: a value that does not parse or is out of range is an error. The error names the variable,
the value and what is allowed. No wrong value is silently replaced by a default.

The CDK app checks a stage's configuration with this package at synth. The functions read theirs with it at cold start.
The table in the docs is generated from it. The settings themselves are in `settings.groups`, and what does not go
together is in `settings.together`.

Secrets are not here. Functions get only their ARNs (see `providers`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any, NamedTuple

from tidegate.domain.limits import FailureMode
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
from tidegate.settings.together import contradictions
from tidegate.settings.values import as_text, printable

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


#: What the stage file says of the stage. The CDK app sets these, from keys of the file beside `settings`.
STAGE_VARIABLES = frozenset({"TIDEGATE_PRODUCTION_STAGE", "TIDEGATE_PROXIES", "TIDEGATE_EXCEPTIONS"})


class SettingsError(ValueError):
    """One or more settings are wrong. The message has a line for each."""


class RuntimeClass(StrEnum):
    """How strict the settings are. `development` and `test` are lenient; every other TIDEGATE_ENV is production."""

    LENIENT = "lenient"
    PRODUCTION = "production"


@dataclass(frozen=True, eq=False, repr=False)
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


class ShownSetting(NamedTuple):
    """A setting as people read it. `default` is what holds when it is not set, in words where it depends."""

    variable: str
    value: str
    default: str
    unit: str


def shown(settings: Settings) -> tuple[ShownSetting, ...]:
    """Every setting with its value, in the order of the docs. None of them is a secret."""
    return tuple(
        ShownSetting(item.metadata["setting"].variable, as_text(getattr(settings, item.name)), *_of(item.metadata))
        for group in GROUPS
        for item in fields(group)
    )


def _of(metadata: Mapping[str, Any]) -> tuple[str, str]:
    setting: Setting = metadata["setting"]
    return setting.shown_default, setting.unit


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
            values[item.name] = setting.parse(printable(text.strip()))
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
    problems += contradictions(settings)
    if problems:
        raise SettingsError("Settings are wrong:\n  " + "\n  ".join(problems))
    return settings
