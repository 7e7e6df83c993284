"""A stage: a configuration file that is checked. An error in it stops the synth, with a message that names it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.concurrency import KEPT_UNRESERVED, USUAL_PLACES
from infra.stage_file import StageError as StageError
from infra.stage_file import read, variables
from infra.stage_place import KEYS as _PLACE_KEYS
from infra.stage_place import Place, place_of
from tidegate.domain.stage_rules import EXCEPTIONS, HOPS, HOPS_OF, is_production_stage, proxies_of
from tidegate.settings import STAGE_VARIABLES, Settings, SettingsError, documented, load

STAGES = Path(__file__).parent / "stages"
_KINDS = {bool: "true or false", str: "a text", dict: "an object", list: "a list", int: "a whole number"}
_KEYS = {"edge": bool, "disposable": bool, "architecture": str, "settings": dict}
_OPTIONAL = {
    "hops_confirmed": bool,
    "exceptions": dict,
    "credential_keys": list,
    "alarm_topic_arn": str,
    **_PLACE_KEYS,
    "lambda_concurrency": int,
    "connect_concurrency": int,
}
#: Requests a second to viewers where the file says nothing: the half of what an account has.
_SENDS = Settings().max_sends_per_second
_TOPIC = re.compile(r"arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,256}")


@dataclass(frozen=True, slots=True)
class Stage:
    """One deployment.

    Attributes:
        name: `local`, `staging`, `production`, or any other file in `stages/`.
        edge: whether CloudFront is in front. Without it the API's own addresses are used.
        disposable: tables and keys are deleted with the stack. Never set where data matters.
        architecture: `arm64`, or `host` for that of the machine that deploys, which is for the local stack.
        variables: environment variables of the settings: those given, those derived, and what the stage confirms.
        settings: the same settings, checked.
        credential_keys: numbers of the keys that decrypt credentials. The last one encrypts.
        alarm_topic_arn: the SNS topic that is told when an alarm goes off, and when it is over; None for nobody.
        place: account, region, domain, tags and what else belongs to the stage alone.
        lambda_concurrency: how many functions the account may run at the same time.
        connect_concurrency: how many of these places are kept for handshakes; None for none.
    """

    name: str
    edge: bool
    disposable: bool
    architecture: str
    variables: Mapping[str, str]
    settings: Settings
    credential_keys: tuple[int, ...] = (1,)
    alarm_topic_arn: str | None = None
    place: Place = field(default_factory=Place)
    lambda_concurrency: int = USUAL_PLACES
    connect_concurrency: int | None = None

    @property
    def tls(self) -> bool:
        """Whether AWS is reached over TLS. The emulator of the local stack is not."""
        return self.architecture != "host"

    @property
    def versions(self) -> bool:
        """Whether functions are called by an alias, whose traffic is shifted. The emulator has nothing to shift it."""
        return self.architecture != "host"


def names() -> list[str]:
    """The stages that have a file, in alphabetical order."""
    return sorted(path.stem for path in STAGES.glob("*.json"))


def load_stage(name: str, overrides: Mapping[str, object] | None = None) -> Stage:
    """Read and check a stage.

    Args:
        overrides: settings that replace the file's.

    Raises:
        StageError: no such stage, or its file or settings are wrong.
    """
    if name not in names():
        raise StageError(f"Stage {name!r} does not exist; allowed: {', '.join(names())}")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9]{0,31}", name):
        raise StageError(f"Stage {name!r}: allowed as a name: 1 to 32 letters and digits, a letter first")
    place = f"{name}.json"
    raw = read(STAGES / place)
    _check_keys(raw, place)
    given = variables({**raw["settings"], **(overrides or {})}, place)
    if unknown := given.keys() - {setting.variable for setting in documented()}:
        raise StageError(f"{place}: unknown settings {sorted(unknown)}; docs/reference/settings.md lists all")
    if own := given.keys() & STAGE_VARIABLES:
        raise StageError(f"{place}: {', '.join(sorted(own))}: allowed: not under `settings`; the CDK app sets it")
    place_found = place_of(raw, place)
    together = _derived(name, raw, place_found) | given | _stated(raw, place)
    try:
        settings = load(together)
    except SettingsError as error:
        raise StageError(f"{place}: {error}") from error
    keys = _credential_keys(raw, place)
    topic = _alarm_topic(raw, place)
    places, kept = _concurrency(raw, place)
    return Stage(
        name,
        raw["edge"],
        raw["disposable"],
        raw["architecture"],
        together,
        settings,
        keys,
        topic,
        place_found,
        places,
        kept,
    )


def _check_keys(raw: Mapping[str, Any], place: str) -> None:
    for key, kind in {**_KEYS, **_OPTIONAL}.items():
        if key in _OPTIONAL and key not in raw:
            continue
        if not isinstance(raw.get(key), kind) or (kind is int and isinstance(raw[key], bool)):
            raise StageError(f"{place}: {key!r} must be {_KINDS[kind]}")
    if unknown := raw.keys() - _KEYS.keys() - _OPTIONAL.keys():
        raise StageError(f"{place}: unknown keys {sorted(unknown)}; allowed: {sorted([*_KEYS, *_OPTIONAL])}")
    if raw["architecture"] not in ("arm64", "host"):
        raise StageError(f"{place}: architecture={raw['architecture']!r}; allowed: arm64, host")
    if raw["architecture"] == "host" and raw["edge"]:
        raise StageError(f"{place}: edge=true with architecture='host'; allowed: false, the emulator has no CloudFront")


def _credential_keys(raw: Mapping[str, Any], place: str) -> tuple[int, ...]:
    """Rising, so that the newest key is the last one, and a new number is a new key."""
    keys = raw.get("credential_keys", [1])
    whole = all(isinstance(key, int) and not isinstance(key, bool) and 1 <= key <= 9999 for key in keys)
    if not keys or not whole or sorted(set(keys)) != keys:
        raise StageError(
            f"{place}: 'credential_keys' is {str(keys)[:60]}; allowed: rising whole numbers from 1 to 9999, at least "
            "one; the last one encrypts"
        )
    return tuple(keys)


def _alarm_topic(raw: Mapping[str, Any], place: str) -> str | None:
    topic: str | None = raw.get("alarm_topic_arn")
    if topic is not None and not _TOPIC.fullmatch(topic):
        raise StageError(
            f"{place}: 'alarm_topic_arn' is {topic[:60]!r}; allowed: the ARN of an SNS topic, "
            "arn:aws:sns:<region>:<account>:<name>"
        )
    return topic


def _concurrency(raw: Mapping[str, Any], place: str) -> tuple[int, int | None]:
    places: int = raw.get("lambda_concurrency", USUAL_PLACES)
    kept: int | None = raw.get("connect_concurrency")
    if not 10 <= places <= 1_000_000:
        raise StageError(
            f"{place}: 'lambda_concurrency' is {places}; allowed: 10 to 1000000, what the account's quota "
            "`Concurrent executions` says"
        )
    if kept is not None and not 1 <= kept <= places - KEPT_UNRESERVED:
        most = places - KEPT_UNRESERVED
        allowed = f"1 to {most}" if most >= 1 else "none at all"
        raise StageError(
            f"{place}: 'connect_concurrency' is {kept}; allowed: {allowed}, because AWS keeps {KEPT_UNRESERVED} of the "
            f"{places} places of 'lambda_concurrency' free of reservations"
        )
    return places, kept


def _derived(stage: str, raw: Mapping[str, Any], place: Place) -> dict[str, str]:
    """Settings that follow from the stage's name and its file, where the file does not give them."""
    hops = HOPS_OF[proxies_of(edge=raw["edge"], local=raw["architecture"] == "host")]
    # Topics of a stage begin with its name, so that stages in one account and region share nothing.
    sends = {"REALTIME_MAX_SENDS_PER_SECOND": str(place.part(_SENDS))} if "quota_share" in raw else {}
    return {"REALTIME_IOT_TOPIC_PREFIX": stage} | {name: str(hops) for name in HOPS} | sends


def _stated(raw: Mapping[str, Any], place: str) -> dict[str, str]:
    """What the file says of the stage, as the functions are told it. They check the same rules when they start."""
    reasons = raw.get("exceptions", {})
    for name, reason in reasons.items():
        if name not in EXCEPTIONS:
            raise StageError(f"{place}: unknown exception {name!r}; allowed: {', '.join(EXCEPTIONS)}")
        if not isinstance(reason, str) or not reason.strip():
            raise StageError(f"{place}: exception {name}: allowed: a text that gives the reason")
    confirmed = [*reasons, *(HOPS if raw.get("hops_confirmed") else ())]
    proxies = proxies_of(edge=raw["edge"], local=raw["architecture"] == "host")
    production = is_production_stage(disposable=raw["disposable"])
    return {
        "TIDEGATE_PRODUCTION_STAGE": "true" if production else "false",
        "TIDEGATE_PROXIES": proxies.value,
        **({"TIDEGATE_EXCEPTIONS": ",".join(confirmed)} if confirmed else {}),
    }
