"""What the gateway needs of a remote API (`GATEWAY_API_BASE_URL`), as Protocols; conventions as in `ports.runtime`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tidegate.domain.remote_api import Introspection, RemotePage


class Introspections(Protocol):
    """Asks the API about session tokens."""

    def introspect(self, token: str, dashboard_id: str, datasource_id: str) -> Introspection:
        """Whether the token's holder may stream the datasource now, and what it connects to.

        Raises:
            Denied, NotFound, Unauthenticated: the API says no. InvalidInput: it says that the datasource cannot be
            streamed. ApiBusy, ApiTimeout, Unavailable: it did not say.
        """


class RemoteFeed(Protocol):
    """The API's revocations."""

    def read(self, cursor: str | None, limit: int) -> RemotePage:
        """Events after the cursor, at most `limit`; from the oldest retained one without a cursor.

        Repeating changes nothing. Raises `Unavailable`."""


class RevokedVersions(Protocol):
    """Up to where share versions are revoked, per dashboard; what `allowed` reads as an remote access item."""

    def raise_to(self, dashboard_id: str, version: int) -> None:
        """Revoke every share version below `version`. It only ever grows; repeating changes nothing."""


class RemoteCursors(Protocol):
    """Our place in the API's feed."""

    def cursor(self) -> str | None:
        """Up to where events were applied; None before the first."""

    def move_cursor(self, old: str | None, new: str) -> bool:
        """Conditional on the old value. False when another reader moved it."""
