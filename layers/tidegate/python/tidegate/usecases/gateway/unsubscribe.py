"""End one subscription because its viewer asks for it. The connection keeps the dashboard's slot until it ends."""

from __future__ import annotations

from tidegate.domain.subscriptions import SubscriptionKey
from tidegate.ports.gateway import ConnectionStore, SubscriptionStore
from tidegate.ports.runtime import Observer


class Unsubscribe:
    """The use case behind `unsubscribe`."""

    def __init__(self, *, connections: ConnectionStore, subscriptions: SubscriptionStore, observer: Observer) -> None:
        self._connections = connections
        self._subscriptions = subscriptions
        self._observer = observer

    def __call__(self, connection_id: str, datasource_id: str) -> bool:
        """Remove the subscription. False when the connection has none for this datasource."""
        connection = self._connections.get(connection_id)
        dashboard_id = connection.subscriptions.get(datasource_id) if connection else None
        if dashboard_id is None:
            return False
        key = SubscriptionKey(dashboard_id, connection_id, datasource_id)
        row = self._subscriptions.get(key)
        if row is None:
            self._subscriptions.release_key(key)
        elif row.termination is None:
            # A row that is being terminated is left to the revalidation that claimed it. If it were removed here, the
            # viewer could subscribe again before being notified of the termination.
            self._subscriptions.remove(row)
        self._observer.count("unsubscribes")
        return row is not None
