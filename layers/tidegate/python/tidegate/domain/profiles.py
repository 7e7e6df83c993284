"""Credential and broker profiles. An admin creates them, so that secrets never reach a browser.

Invariant of this file: a profile object never holds a secret, only the names of its parts. `revision` grows with every
write. `connection_revision` grows only when the source is another one, or may be used no longer: when a broker's URL,
transport, credential profile or TLS options change, or a destination is taken away. Then every intent built from the
profile becomes a different intent. `secret_revision` grows when the same source is to be entered otherwise: with
another secret, type or header name. Intents stay, and the relay replaces its connections.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tidegate.protocol.topics import IOT_CORE, MQTT, TopicLimits


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

    @property
    def topic_limits(self) -> TopicLimits:
        """How long its topics may be."""
        return IOT_CORE if self is Transport.IOT_CORE else MQTT


#: The kinds of profile, as stores name them.
CREDENTIAL = "credential"
BROKER = "broker"


@dataclass(frozen=True, slots=True)
class ProfileUse:
    """A dashboard's use of a profile.

    Attributes:
        kind, profile_id: which profile.
        connection_revision: the profile's, when an intent was built from it. None when none could be built. That is
            a use as well: once the profile changes, the datasource may get an intent.
    """

    kind: str
    profile_id: str
    connection_revision: int | None = None


@dataclass(frozen=True, slots=True)
class CredentialProfile:
    """A credential.

    Attributes:
        destinations: where it may be sent, in the canonical form of `domain.destinations`. Empty: it serves no URL,
            only broker profiles.
        header_name: for type `header` only.
        secret_keys: names the parts of the sealed secret.
        secret_revision: grows with every new secret, type or header name. Encrypting the same secret anew is no change.
    """

    profile_id: str
    name: str
    type: CredentialType
    destinations: tuple[str, ...] = ()
    allow_public_use: bool = False
    description: str = ""
    header_name: str | None = None
    secret_keys: tuple[str, ...] = ()
    secret_revision: int = 1
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
        topic_allowlist: topic filters, one of which must cover a datasource's topic. Empty: not restricted here.
        tls: options that add trust (`ca`: PEM text), never one that switches a check off.
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
