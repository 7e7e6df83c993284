"""Credential and broker profiles: what an admin creates so that secrets never reach a browser.

Invariant of this file: a profile object never holds a secret, only which secrets there are. `revision` grows with
every write; `connection_revision` only when what a datasource connects to or with changes (URL, transport,
credential, TLS), so that every intent built from it becomes another intent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class CredentialType(StrEnum):
    """How a credential authenticates."""

    NONE = "none"
    BEARER = "bearer"
    BASIC = "basic"
    HEADER = "header"


class Transport(StrEnum):
    """How an MQTT broker is reached: AWS IoT Core through its rules, any other through the relay."""

    IOT_CORE = "iot-core"
    EXTERNAL = "external"


#: The kinds of profile, as stores name them.
CREDENTIAL = "credential"
BROKER = "broker"


@dataclass(frozen=True, slots=True)
class ProfileUse:
    """A dashboard's use of a profile.

    Attributes:
        kind, profile_id: which profile.
        connection_revision: of the profile when an intent was built from it; None when none was, since the datasource
            that names it does not resolve. It may once the profile changes, so that is a use as well.
    """

    kind: str
    profile_id: str
    connection_revision: int | None = None


@dataclass(frozen=True, slots=True)
class ProfileChange:
    """A written change of a profile that the dashboards using it have yet to follow.

    Attributes:
        kind, profile_id: which profile.
        revision: of the profile after the change; a deletion counts as a revision.
        withdrawn: public viewers lose their right; else only intents changed.
        followed: every dashboard has followed; only the traces are left to be removed.
    """

    kind: str
    profile_id: str
    revision: int
    withdrawn: bool
    followed: bool = False


@dataclass(frozen=True, slots=True)
class CredentialProfile:
    """A credential. `secret_keys` names the parts of the sealed secret; `header_name` is for type `header`."""

    profile_id: str
    name: str
    type: CredentialType
    allow_public_use: bool = False
    description: str = ""
    header_name: str | None = None
    secret_keys: tuple[str, ...] = ()
    connection_revision: int = 1
    revision: int = 1
    created_at_ms: int = 0
    updated_at_ms: int = 0


@dataclass(frozen=True, slots=True)
class BrokerProfile:
    """An MQTT broker.

    Attributes:
        broker_url: normalised `mqtt://` or `mqtts://` URL; None for `iot-core`.
        credential_profile_id: a `basic` credential, external brokers only.
        topic_allowlist: patterns a datasource's topic must be covered by; empty = not restricted here.
        tls: options that add trust (`ca`: PEM text); never one that switches a check off.
    """

    profile_id: str
    name: str
    transport: Transport
    broker_url: str | None = None
    credential_profile_id: str | None = None
    topic_allowlist: tuple[str, ...] = ()
    allow_public_use: bool = False
    description: str = ""
    tls: Mapping[str, str] = field(default_factory=dict)
    connection_revision: int = 1
    revision: int = 1
    created_at_ms: int = 0
    updated_at_ms: int = 0
