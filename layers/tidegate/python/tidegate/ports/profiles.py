"""Where profiles are kept. Conventions: see `ports.runtime`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tidegate.domain.profile_changes import ProfileChange
    from tidegate.domain.profiles import BrokerProfile, CredentialProfile


class ProfileStore(Protocol):
    """Credential profiles and broker profiles. Names are unique per kind."""

    def credential(self, profile_id: str) -> CredentialProfile | None: ...

    def credential_and_secret(self, profile_id: str) -> tuple[CredentialProfile, str | None] | None:
        """A profile and its encrypted secret, of the same moment. The secret is None when there is none."""

    def broker(self, profile_id: str) -> BrokerProfile | None: ...

    def credentials(self) -> Sequence[CredentialProfile]: ...

    def brokers(self) -> Sequence[BrokerProfile]: ...

    def sealed_secret(self, profile_id: str) -> str | None:
        """The encrypted secret of a credential profile. It is never part of the profile itself."""

    def sealed_secrets(self) -> Iterable[tuple[str, str]]:
        """(profile id, encrypted secret) of every credential profile that has one."""

    def replace_sealed(self, profile_id: str, before: str, after: str) -> bool:
        """Put another encryption of the same secret in the place of the one that was read.

        Nothing else of the profile changes, and nobody is told: it is the same secret. Returns False when the stored
        one is not `before`: the secret was changed or encrypted anew meanwhile, or the profile is gone.
        """

    def write_credential(
        self,
        before: CredentialProfile | None,
        after: CredentialProfile,
        sealed_secret: str | None,
        change: ProfileChange | None = None,
    ) -> None:
        """Create or replace, conditional on `revision`. Raises `Conflict`.

        Args:
            sealed_secret: the new secret, encrypted. None keeps the stored one, if `after` has secret keys at all. One
                that `replace_sealed` writes meanwhile is kept, too.
            change: what dashboards have to follow. It is written in the same transaction, so it is never lost. The
                same holds for `write_broker` and `delete`.
        """

    def write_broker(
        self, before: BrokerProfile | None, after: BrokerProfile, change: ProfileChange | None = None
    ) -> None:
        """Create or replace, conditional on `revision`. Raises `Conflict`.

        The broker's use of a credential profile is stored in the same transaction.
        """

    def delete(self, kind: str, profile_id: str, revision: int, change: ProfileChange | None = None) -> None:
        """Delete, conditional on `revision`. Uses stay stored until the dashboards drop them.

        Raises:
            ChangedMeanwhile: the profile has another revision. Nothing was deleted.
        """

    def open_changes(self) -> Sequence[ProfileChange]:
        """Changes that were written and have not ended."""

    def has_followed(self, change: ProfileChange, dashboard_id: str) -> bool:
        """Whether a `DashboardWrite` of this dashboard has followed the change."""

    def end_change(self, change: ProfileChange) -> None:
        """End a change that every dashboard has followed, and remove what was stored for it.

        A process that dies in between leaves the change open, with the note that all have followed.
        """

    def used_by(self, kind: str, profile_id: str, most: int | None = None) -> Sequence[str]:
        """Ids of the dashboards that use the profile; for a credential profile, also through a broker profile.

        `most`: the search ends when it has found so many. None finds all.
        """
