"""Build the intents of a dashboard's datasources from its document and the profiles they name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tidegate.domain.intents import Intent, IntentDefaults, build_intent, intent_hash, profile_ids, streaming
from tidegate.domain.profiles import BROKER, CREDENTIAL, BrokerProfile, CredentialProfile
from tidegate.errors import TidegateError
from tidegate.ports.profiles import ProfileStore
from tidegate.usecases.parallel import in_parallel


@dataclass(slots=True)
class Resolved:
    """Intents by datasource id, and for the datasources without an intent the reason."""

    intents: dict[str, Intent] = field(default_factory=dict)
    problems: dict[str, TidegateError] = field(default_factory=dict)

    @property
    def hashes(self) -> dict[str, str]:
        return {datasource_id: intent_hash(intent) for datasource_id, intent in self.intents.items()}


class ProfilesRead:
    """The profiles that one operation uses. Each is read once; several are read at the same time.

    Attributes:
        brokers, credentials: profile id -> what was read; None when there is no such profile.
    """

    def __init__(self, profiles: ProfileStore) -> None:
        self._profiles = profiles
        self.brokers: dict[str, BrokerProfile | None] = {}
        self.credentials: dict[str, CredentialProfile | None] = {}

    def load(self, datasources: Iterable[Mapping[str, Any]]) -> None:
        """Read the profiles that these datasources name, then the credentials of the brokers. Raises `Unavailable`."""
        named = [profile_ids(datasource) for datasource in datasources]
        brokers = [broker_id for broker_id, _ in named if broker_id is not None]
        self._read(brokers, [credential_id for _, credential_id in named])
        self._read([], [self._credential_of(broker_id) for broker_id in brokers])

    def of(self, datasource: Mapping[str, Any]) -> tuple[BrokerProfile | None, CredentialProfile | None]:
        """The profiles of a loaded datasource. If it names a broker, the credential is that of the broker."""
        broker_id, credential_id = profile_ids(datasource)
        if broker_id is not None:
            credential_id = self._credential_of(broker_id)
        broker = None if broker_id is None else self.brokers[broker_id]
        return broker, None if credential_id is None else self.credentials[credential_id]

    def _credential_of(self, broker_id: str) -> str | None:
        broker = self.brokers[broker_id]
        return broker.credential_profile_id if broker else None

    def _read(self, broker_ids: Iterable[str], credential_ids: Iterable[str | None]) -> None:
        missing = [(BROKER, broker_id) for broker_id in dict.fromkeys(broker_ids) if broker_id not in self.brokers]
        missing += [
            (CREDENTIAL, credential_id)
            for credential_id in dict.fromkeys(credential_ids)
            if credential_id is not None and credential_id not in self.credentials
        ]
        in_parallel(self._read_one, missing)

    def _read_one(self, named: tuple[str, str]) -> None:
        kind, profile_id = named
        if kind == BROKER:
            self.brokers[profile_id] = self._profiles.broker(profile_id)
        else:
            self.credentials[profile_id] = self._profiles.credential(profile_id)


class ResolveIntents:
    """Resolves the datasources of a document into intents."""

    def __init__(self, *, profiles: ProfileStore, defaults: IntentDefaults) -> None:
        self._profiles = profiles
        self._defaults = defaults

    def __call__(
        self, dashboard_id: str, document: Mapping[str, Any], profiles: ProfilesRead | None = None
    ) -> Resolved:
        """Resolve every enabled streaming datasource of a checked document.

        Args:
            profiles: the profiles that the operation has read already. Missing ones are read into it.

        Raises:
            Unavailable: a profile could not be read.
        """
        resolved = Resolved()
        profiles = profiles or ProfilesRead(self._profiles)
        datasources = list(streaming(document))
        profiles.load(datasources)
        for datasource in datasources:
            broker, credential = profiles.of(datasource)
            try:
                resolved.intents[datasource["id"]] = build_intent(
                    dashboard_id, datasource, broker=broker, credential=credential, defaults=self._defaults
                )
            except TidegateError as error:
                resolved.problems[datasource["id"]] = error
        return resolved
