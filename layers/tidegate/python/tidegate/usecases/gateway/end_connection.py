"""A connection ended: remove its row, its subscriptions and its slots.

`$disconnect` may never come, or come twice. A 410 on sending means the same. All of them end here, and repeating is
harmless. A process that dies half-way leaves subscriptions without a connection. That harms nobody, because the viewer
is gone, and the full revalidation removes them.
"""

from __future__ import annotations

from tidegate.ports.delivery import Sender
from tidegate.ports.gateway import ConnectionStore, SubscriptionStore
from tidegate.ports.runtime import Observer
from tidegate.usecases.limits.connection_quota import ConnectionQuota, unused_slots


class EndConnection:
    """Remove a connection with everything that belongs to it."""

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
        """Remove a connection that the platform reports as closed. False when there was nothing left to remove.

        The connection's row goes first. From then on no subscribe can end with a live row on it, because every
        subscribe reads the connection again after it has written its row.
        """
        connection = self._connections.remove(connection_id)
        if connection is None:
            return False
        self._subscriptions.remove_all_of(connection)
        self._quota.free(connection.slots, connection_id)
        self._observer.count("connections_ended")
        return True

    def gone(self, connection_id: str) -> None:
        """Remove a connection to which sending answered 410.

        That answer is sometimes wrong, so the platform is also asked to close the connection. A browser that was still
        there then reconnects; otherwise it would wait for data that never comes.
        """
        self.disconnected(connection_id)
        self._sender.close(connection_id)
        self._observer.count("viewers_gone")

    def free_unused(self, connection_id: str) -> None:
        """Free the places of dashboards of which this connection, which stays open, has no subscription any longer.

        Raises `Unavailable` when the connection could not be read.
        """
        connection = self._connections.get(connection_id)
        if connection is not None and (slots := unused_slots(connection)):
            self._quota.give_back(connection, slots)

    def cut_off(self, connection_id: str) -> None:
        """Remove a connection that sent too much, and ask the platform to close it."""
        self.disconnected(connection_id)
        self._sender.close(connection_id)
        self._observer.count("connections_cut_off")
