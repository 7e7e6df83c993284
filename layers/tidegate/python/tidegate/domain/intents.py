"""Intents: the canonical, checked description of what a datasource connects to.

An intent is a flat mapping in a fixed order of keys. At its end are the connection revisions of the profiles it uses,
and the history that the datasource asks for, if any.
Its hash goes into session tokens and subscriptions. When the datasource or a profile's URL changes, the hash
changes too, and tokens and subscriptions of the old intent end. A changed secret changes no intent. A remote API that
mints session tokens hashes intents of its own.

Invariant of this file: equal datasources and profiles give equal bytes, on every Python and in any order of input.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tidegate.domain.destinations import refusal, serves
from tidegate.domain.headers import check_name, check_value, is_token
from tidegate.domain.profiles import (
    BROKER,
    CREDENTIAL,
    BrokerProfile,
    CredentialProfile,
    CredentialType,
    ProfileUse,
    Transport,
)
from tidegate.errors import Denied, InvalidInput, NotFound
from tidegate.protocol import strict_json
from tidegate.protocol.topics import check_filter

#: Types of datasource that stream. Other types, such as a clock or static values, need no session token.
STREAM_TYPES = ("sse", "websocket", "mqtt")

#: Least and greatest allowed values: how long an upstream may be silent, milliseconds, and MQTT keep-alives, seconds.
IDLE_TIMEOUT_MS = (100, 300_000)
KEEPALIVE_S = (5, 3600)

Intent = Mapping[str, object]

#: Keys of an intent that say who asks, and what is kept, not what is connected to.
_NOT_CONNECTED_TO = frozenset({"dashboardId", "datasourceId", "historySeconds", "historyEveryMs"})


class IntentDefaults(NamedTuple):
    """What a datasource gets that states no value of its own. Units are in the names."""

    sse_idle_timeout_ms: int = 120_000
    websocket_idle_timeout_ms: int = 300_000
    mqtt_keepalive_seconds: int = 60


_DEFAULTS = IntentDefaults()


def build_intent(
    dashboard_id: str,
    datasource: Mapping[str, object],
    *,
    broker: BrokerProfile | None = None,
    credential: CredentialProfile | None = None,
    defaults: IntentDefaults = _DEFAULTS,
) -> dict[str, object]:
    """Build the canonical intent of a streaming datasource.

    Args:
        dashboard_id: its dashboard.
        datasource: an entry of the document's `datasources` (`id`, `type`, `settings`).
        broker: the broker profile its settings name; None when they name none or it does not exist.
        credential: the credential profile of the datasource, or of the broker profile.
        defaults: used where the settings state nothing.

    Raises:
        NotFound: the type does not stream.
        InvalidInput: a setting is missing or wrong.
        Denied: a profile it names does not exist, or may not send its credential to this URL.
        PolicyBlocked: a credential is to be sent to a URL that cannot be read.
    """
    settings = datasource.get("settings")
    settings = settings if isinstance(settings, Mapping) else {}
    kind = str(datasource.get("type", "")).strip().lower()
    head: dict[str, object] = {
        "protocol": kind,
        "dashboardId": dashboard_id,
        "datasourceId": str(datasource.get("id", "")),
    }
    if kind == "mqtt":
        return head | _mqtt(settings, broker, credential, defaults) | _history(settings)
    if kind in ("sse", "websocket"):
        idle = defaults.sse_idle_timeout_ms if kind == "sse" else defaults.websocket_idle_timeout_ms
        return head | _http_stream(kind, settings, credential, idle) | _history(settings)
    raise NotFound("Datasource type is not supported by gateway")


def intent_hash(intent: Intent) -> str:
    """SHA-256 (hex) of the intent's compact JSON, keys in the intent's own order."""
    return _digest(intent)


def stream_key(intent: Intent) -> str:
    """The key of the stream: SHA-256 (hex) of what `connection_of` gives.

    Equal intents of different dashboards have the same key, so they share one stream.
    """
    return _digest(connection_of(intent))


def connection_of(intent: Intent) -> dict[str, object]:
    """What an intent connects to: without its dashboard and datasource, and without the history it asks for."""
    return {key: value for key, value in intent.items() if key not in _NOT_CONNECTED_TO}


def profile_ids(datasource: Mapping[str, object]) -> tuple[str | None, str | None]:
    """(broker profile id, credential profile id) that a datasource's settings name; None where they name none."""
    settings = datasource.get("settings")
    settings = settings if isinstance(settings, Mapping) else {}
    if str(datasource.get("type", "")).strip().lower() == "mqtt":
        return _id(settings, "brokerProfileId"), None
    return None, _id(settings, "credentialProfileId")


def streaming(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The datasources of a checked document that get an intent: of a streaming type, and not switched off."""
    for datasource in document.get("datasources", ()):
        if str(datasource["type"]).strip().lower() in STREAM_TYPES and datasource.get("enabled", True):
            yield datasource


def profile_uses(document: Mapping[str, Any], intents: Mapping[str, Intent]) -> frozenset[ProfileUse]:
    """The profiles a dashboard uses: those its document names, and those its intents were built from.

    Args:
        document: checked.
        intents: datasource id -> intent, of this very document.
    """
    revisions: dict[tuple[str, str], int | None] = {}
    for datasource in streaming(document):
        for kind, profile_id in zip((BROKER, CREDENTIAL), profile_ids(datasource), strict=True):
            if profile_id is not None:
                revisions[kind, profile_id] = None
    for intent in intents.values():
        for kind in (BROKER, CREDENTIAL):
            if (built_from := intent.get(f"{kind}ProfileId")) is not None:
                revisions[kind, str(built_from)] = int(str(intent[f"{kind}Revision"]))
    return frozenset(ProfileUse(kind, profile_id, seen) for (kind, profile_id), seen in revisions.items())


def using(kind: str, profile_id: str, document: Mapping[str, Any], *intents: Mapping[str, Intent]) -> frozenset[str]:
    """Ids of the datasources that use a profile: those whose settings name it, and those whose intents do.

    Args:
        kind: of the profile.
        document: checked.
        intents: datasource id -> intent, as they were and as they will be.
    """
    named = {
        str(datasource["id"])
        for datasource in streaming(document)
        if dict(zip((BROKER, CREDENTIAL), profile_ids(datasource), strict=True))[kind] == profile_id
    }
    built = {
        datasource_id
        for each in intents
        for datasource_id, intent in each.items()
        if intent.get(f"{kind}ProfileId") == profile_id
    }
    return frozenset(named | built)


def _mqtt(
    settings: Mapping[str, object],
    broker: BrokerProfile | None,
    credential: CredentialProfile | None,
    defaults: IntentDefaults,
) -> dict[str, object]:
    if _id(settings, "brokerProfileId") is None:
        raise InvalidInput("MQTT datasource requires brokerProfileId")
    if broker is None:
        raise Denied("Broker profile not found")
    topic = _stripped(settings, "topic")
    if not topic:
        raise InvalidInput("MQTT datasource requires topic")
    check_filter(topic, broker.transport.topic_limits)
    if broker.credential_profile_id is not None:
        if credential is None:
            raise Denied("Broker credential profile not found")
        if credential.type is not CredentialType.BASIC:
            raise InvalidInput("MQTT broker credentials must use a basic credential profile")
    intent: dict[str, object] = {
        "brokerProfileId": broker.profile_id,
        "brokerUrl": broker.broker_url,
        "topic": topic,
        "qos": _bounded(settings.get("qos"), 0, 1, 0),
        "parser": _parser(settings),
        "keepaliveSeconds": _bounded(settings.get("keepaliveSeconds"), *KEEPALIVE_S, defaults.mqtt_keepalive_seconds),
        "credentialProfileId": broker.credential_profile_id,
        "transport": broker.transport.value,
        "brokerRevision": broker.connection_revision,
    }
    if broker.transport is Transport.IOT_CORE:
        # An account has one broker. The profile's QoS and keep-alive do not change what the IoT rule delivers.
        intent["qos"], intent["keepaliveSeconds"] = 0, defaults.mqtt_keepalive_seconds
    if credential is not None and broker.credential_profile_id is not None:
        intent["credentialRevision"] = credential.connection_revision
    return intent


def _http_stream(
    kind: str, settings: Mapping[str, object], credential: CredentialProfile | None, idle_default: int
) -> dict[str, object]:
    url = _stripped(settings, "url")
    if not url:
        raise InvalidInput("Datasource URL is required")
    credential_id = _id(settings, "credentialProfileId")
    if credential_id is not None and credential is None:
        raise Denied("Credential profile not found")
    if credential is not None and credential_id is not None and not serves(credential, url, kind):
        raise Denied(refusal(credential, url, kind))
    placement = _stripped(settings, "authPlacement").lower()
    placement = placement if placement in ("header", "query") else "header"
    parameter = _stripped(settings, "queryParamName") if placement == "query" else None
    if credential is not None and placement == "query" and credential.type is not CredentialType.NONE:
        if credential.type is CredentialType.BASIC:
            raise InvalidInput("Basic credential profile cannot be used with query auth placement")
        if not parameter:
            raise InvalidInput("queryParamName is required for query auth placement")
    intent: dict[str, object] = {
        "url": url,
        "parser": _parser(settings),
        "headers": _headers(settings),
        "protocols": _protocols(settings) if kind == "websocket" else [],
        "authPlacement": placement,
        "queryParamName": parameter,
        "idleTimeoutMs": _bounded(settings.get("idleTimeoutMs"), *IDLE_TIMEOUT_MS, idle_default),
        "credentialProfileId": credential_id,
    }
    if credential is not None and credential_id is not None:
        intent["credentialRevision"] = credential.connection_revision
    return intent


def _history(settings: Mapping[str, object]) -> dict[str, object]:
    """Nothing without a history, so that the hash of an intent is the same as before there were any."""
    history = settings.get("history")
    if not isinstance(history, Mapping):
        return {}
    from tidegate.domain.history import problem  # here, because the gateway builds no intents

    if problem(history) is not None:  # of a document that was stored before there were any
        return {}
    return {"historySeconds": history["seconds"], "historyEveryMs": history["everyMs"]}


def _digest(value: Mapping[str, object]) -> str:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _stripped(settings: Mapping[str, object], name: str) -> str:
    value = settings.get(name)
    return value.strip() if isinstance(value, str) else ""


def _id(settings: Mapping[str, object], name: str) -> str | None:
    return _stripped(settings, name) or None


def _parser(settings: Mapping[str, object]) -> str:
    return "text" if _stripped(settings, "parser").lower() == "text" else "json"


def _bounded(value: object, low: int, high: int, default: int) -> int:
    """The value rounded down; the default when it is absent or out of bounds."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value < high + 1:
        return default
    return int(value)


def _headers(settings: Mapping[str, object]) -> dict[str, str]:
    raw = settings.get("headers", settings.get("requestHeaders"))
    if isinstance(raw, str):
        try:
            raw = strict_json.loads(raw.encode()) if raw.strip() else {}
        except (InvalidInput, ValueError) as error:
            raise InvalidInput("headers must be a JSON object") from error
    if raw is None:
        return {}
    if not isinstance(raw, Mapping):
        raise InvalidInput("headers must be a JSON object")
    checked: dict[str, str] = {}
    for name in sorted(raw, key=str):  # so that the order in which a form sent them does not change the intent
        if trimmed := str(name).strip():
            checked[check_name(trimmed, "headers: the name")] = _header_value(trimmed, raw[name])
    return checked


def _header_value(name: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InvalidInput(f"headers: the value of '{name}' must be text")
    return check_value(str(value).strip(" \t"), f"headers: the value of '{name}'")


def _protocols(settings: Mapping[str, object]) -> list[str]:
    raw = settings.get("protocols")
    names = raw.split(",") if isinstance(raw, str) else raw if isinstance(raw, list) else []
    names = [name.strip() for name in names if isinstance(name, str) and name.strip()]
    # They are sent in one header, so a name that is no token could end it.
    if wrong := [name for name in names if not is_token(name)]:
        raise InvalidInput(f"protocols: {wrong[0]!a} is not the name of a subprotocol")
    return names
