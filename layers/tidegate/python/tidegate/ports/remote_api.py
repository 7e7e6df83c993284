"""What the gateway needs of a remote API (`GATEWAY_API_BASE_URL`). Conventions: see `ports.runtime`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tidegate.domain.remote_api import Introspection, RemotePage


class Introspections(Protocol):
    """Asks the remote API about session tokens."""

    def introspect(self, token: str, dashboard_id: str, datasource_id: str) -> Introspection:
        """Ask whether the token's holder may stream the datasource now, and what it connects to.

        Raises:
            Denied, NotFound, Unauthenticated: the API says no.
            InvalidInput: the API says that the datasource cannot be streamed.
            ApiBusy, ApiTimeout, Unavailable: the API did not answer the question.
        """


class RemoteFeed(Protocol):
    """The remote API's feed of revocations."""

    def read(self, cursor: str | None, limit: int) -> RemotePage:
        """Read events after the cursor, at most `limit`. Without a cursor, from the oldest one that is retained.

        Repeating changes nothing. Raises `Unavailable`.
        """


class RevokedVersions(Protocol):
    """Which share versions are revoked, per dashboard. `allowed` reads this as a remote access item."""

    def raise_to(self, dashboard_id: str, version: int) -> None:
        """Revoke every share version below `version`. The stored version only grows; repeating changes nothing."""


class RemoteCursors(Protocol):
    """Our place in the remote API's feed."""

    def cursor(self) -> str | None:
        """The cursor up to which events were applied; None before the first."""

    def move_cursor(self, old: str | None, new: str) -> bool:
        """Store the new cursor, conditional on the old one. False when another reader moved it."""
