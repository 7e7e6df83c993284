"""Which profiles an author may use. Who is neither editor nor admin, and may edit a dashboard by its ACL, may attach
those that are for public use.

Invariant of this file: what is shown as usable is what `check_author` lets an author attach, as both ask
`rights.may_use`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tidegate.domain import rights
from tidegate.domain.dashboards import Dashboard
from tidegate.domain.intents import profile_ids
from tidegate.domain.profiles import BrokerProfile, CredentialProfile
from tidegate.domain.users import User
from tidegate.errors import Denied
from tidegate.ports.profiles import ProfileStore
from tidegate.usecases.control_plane.resolve_intents import ProfilesRead

#: (user, dashboard id) -> the dashboard, if the user may do with it what is about to be done. Raises `NotFound` when
#: the user may not know of it, and `Denied`.
Opened = Callable[[User, str], Dashboard]


@dataclass(frozen=True, slots=True)
class Usable:
    """The profiles that an author may attach, each list in the order of names."""

    brokers: Sequence[BrokerProfile]
    credentials: Sequence[CredentialProfile]


class UsableProfiles:
    """The profiles that somebody who edits a dashboard may attach to it."""

    def __init__(self, *, editable: Opened, profiles: ProfileStore) -> None:
        self._editable = editable
        self._profiles = profiles

    def __call__(self, user: User, dashboard_id: str) -> Usable:
        """Raises `NotFound`, or `Denied` for who may not edit the dashboard."""
        self._editable(user, dashboard_id)
        brokers = [broker for broker in self._profiles.brokers() if rights.may_use(user, broker)]
        credentials = [one for one in self._profiles.credentials() if rights.may_use(user, one)]
        return Usable(sorted(brokers, key=_name), sorted(credentials, key=_name))


def check_author(user: User, document: Mapping[str, Any], changed: set[str], profiles: ProfilesRead) -> None:
    """Refuse an author who attaches a profile that they may not use.

    Args:
        document: checked.
        changed: ids of the datasources that are new or have changed. The others were attached by somebody who might.
        profiles: those that are missing are read into it.

    Raises:
        Denied: a profile that is not there is refused like one that may not be used, so nobody learns which exist.
    """
    if rights.trusted_author(user):
        return
    numbered = enumerate(document["datasources"])
    datasources = [(index, datasource) for index, datasource in numbered if datasource["id"] in changed]
    profiles.load(datasource for _, datasource in datasources)
    for index, datasource in datasources:
        broker_id, credential_id = profile_ids(datasource)
        named: list[BrokerProfile | CredentialProfile | None] = []
        if broker_id is not None:
            named.append(profiles.brokers[broker_id])
        if credential_id is not None:
            named.append(profiles.credentials[credential_id])
        if any(profile is None or not rights.may_use(user, profile) for profile in named):
            raise Denied(
                f"Datasource at index {index} references a credential or broker profile you are not permitted to use"
            )


def _name(profile: BrokerProfile | CredentialProfile) -> tuple[str, str]:
    return profile.name.casefold(), profile.profile_id
