"""A connection ended: its row, its subscriptions and its slots go.

`$disconnect` may never come, or come twice, and a 410 on sending says the same; all of them end here, and
repeating it is harmless. A process that dies half-way leaves rows without a connection: they are denied nothing
they had (the viewer is gone) and the full revalidation removes them.
"""

from __future__ import annotations

from tidegate.ports.delivery import Sender
from tidegate.ports.gateway import ConnectionStore, SubscriptionStore
from tidegate.ports.runtime import Observer
from tidegate.usecases.limits.connection_quota import ConnectionQuota


class EndConnection:
    """Remove a connection with everything it holds."""

    def __init__(
        self,
        *,
        connections: ConnectionStore,
        subscriptions: SubscriptionStore,
        quota: ConnectionQuota,
        sender: Sender,
        observer: Observer,
    ) -> None:
        self._connections = connections
        self._subscriptions = subscriptions
        self._quota = quota
        self._sender = sender
        self._observer = observer

    def disconnected(self, connection_id: str) -> bool:
        """The platform says it is closed. False when there was nothing left to remove.

        The connection's row goes first: from then on no attempt can end with a live row on it, because every
        attempt reads the connection again after writing its row.
        """
        connection = self._connections.remove(connection_id)
        if connection is None:
            return False
        self._subscriptions.remove_all_of(connection)
        self._quota.free(connection.slots, connection_id)
        self._observer.count("connections_ended")
        return True

    def gone(self, connection_id: str) -> None:
        """Sending said 410. That is sometimes wrong, so the platform is asked to close it as well: a browser
        that was still there reconnects instead of watching silence."""
        self.disconnected(connection_id)
        self._sender.close(connection_id)
        self._observer.count("viewers_gone")
