"""A stage: a configuration file that is checked. An error in it stops the synth, with a message that names it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidegate.settings import Settings, SettingsError, documented, load

STAGES = Path(__file__).parent / "stages"
_KEYS = {"edge": bool, "disposable": bool, "architecture": str, "settings": dict}


class StageError(ValueError):
    """The stage does not exist, or its file is wrong."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One deployment.

    Attributes:
        name: `local`, `staging`, `production`, or any other file in `stages/`.
        edge: whether CloudFront is in front. Without it the API's own addresses are used.
        disposable: tables and keys are deleted with the stack. Never set where data matters.
        architecture: `arm64`, or `host` for that of the machine that deploys, which is for the local stack.
        variables: environment variables of the settings, as given.
        settings: the same settings, checked.
    """

    name: str
    edge: bool
    disposable: bool
    architecture: str
    variables: Mapping[str, str]
    settings: Settings

    @property
    def tls(self) -> bool:
        """Whether AWS is reached over TLS. The emulator of the local stack is not."""
        return self.architecture != "host"


def names() -> list[str]:
    """The stages that have a file, in alphabetical order."""
    return sorted(path.stem for path in STAGES.glob("*.json"))


def load_stage(name: str, overrides: Mapping[str, str] | None = None) -> Stage:
    """Read and check a stage.

    Args:
        overrides: settings that replace the file's.

    Raises:
        StageError: no such stage, or its file or settings are wrong.
    """
    path = STAGES / f"{name}.json"
    if name not in names():
        raise StageError(f"Stage '{name}' does not exist; allowed: {', '.join(names())}")
    try:
        raw: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise StageError(f"{path.name}: not JSON: {error}") from error
    for key, kind in _KEYS.items():
        if not isinstance(raw.get(key), kind):
            raise StageError(f"{path.name}: '{key}' must be a {kind.__name__}")
    if unknown := raw.keys() - _KEYS.keys():
        raise StageError(f"{path.name}: unknown keys {sorted(unknown)}; allowed: {sorted(_KEYS)}")
    if raw["architecture"] not in ("arm64", "host"):
        raise StageError(f"{path.name}: architecture={raw['architecture']!r}; allowed: arm64, host")
    # Topics of a stage begin with its name, so that stages in one account and region share nothing.
    variables = {"REALTIME_IOT_TOPIC_PREFIX": name, **raw["settings"], **(overrides or {})}
    known = {setting.variable for setting in documented()}
    if unknown := variables.keys() - known:
        raise StageError(f"{path.name}: unknown settings {sorted(unknown)}; docs/reference/settings.md lists all")
    try:
        settings = load(variables)
    except SettingsError as error:
        raise StageError(f"{path.name}: {error}") from error
    return Stage(name, raw["edge"], raw["disposable"], raw["architecture"], variables, settings)
