"""Build the intents of a dashboard's datasources from its document and the profiles they name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tidegate.domain.intents import STREAM_TYPES, Intent, IntentDefaults, build_intent, intent_hash, profile_ids
from tidegate.domain.profiles import BROKER, CREDENTIAL, BrokerProfile, CredentialProfile
from tidegate.errors import TidegateError
from tidegate.ports.control_plane import ProfileStore, ProfileUse


@dataclass(slots=True)
class Resolved:
    """Intents by datasource id, profiles used, and why other datasources have no intent."""

    intents: dict[str, Intent] = field(default_factory=dict)
    uses: set[ProfileUse] = field(default_factory=set)
    problems: dict[str, TidegateError] = field(default_factory=dict)

    @property
    def hashes(self) -> dict[str, str]:
        return {datasource_id: intent_hash(intent) for datasource_id, intent in self.intents.items()}


class ResolveIntents:
    """Resolve datasources; profiles are read once each."""

    def __init__(self, *, profiles: ProfileStore, defaults: IntentDefaults) -> None:
        self._profiles = profiles
        self._defaults = defaults

    def __call__(self, dashboard_id: str, document: Mapping[str, Any]) -> Resolved:
        """Resolve every enabled streaming datasource of a checked document."""
        resolved = Resolved()
        brokers: dict[str, BrokerProfile | None] = {}
        credentials: dict[str, CredentialProfile | None] = {}
        for one in document["datasources"]:
            if str(one["type"]).strip().lower() not in STREAM_TYPES or not one.get("enabled", True):
                continue
            broker_id, credential_id = profile_ids(one)
            broker = None
            if broker_id is not None:
                if broker_id not in brokers:
                    brokers[broker_id] = self._profiles.broker(broker_id)
                broker = brokers[broker_id]
                credential_id = broker.credential_profile_id if broker else None
            credential = None
            if credential_id is not None:
                if credential_id not in credentials:
                    credentials[credential_id] = self._profiles.credential(credential_id)
                credential = credentials[credential_id]
            try:
                resolved.intents[one["id"]] = build_intent(
                    dashboard_id, one, broker=broker, credential=credential, defaults=self._defaults
                )
            except TidegateError as error:
                resolved.problems[one["id"]] = error
                continue
            if broker is not None:
                resolved.uses.add(ProfileUse(BROKER, broker.profile_id, broker.connection_revision))
            if credential is not None:
                resolved.uses.add(ProfileUse(CREDENTIAL, credential.profile_id, credential.connection_revision))
        return resolved
