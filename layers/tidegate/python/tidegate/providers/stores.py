"""Providers of the stores: one adapter per DynamoDB table, or per concern of one."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from tidegate import tables
from tidegate.providers.process import ProcessProviders

if TYPE_CHECKING:
    from tidegate.adapters.dynamodb.access import DynamoAccess, DynamoRemoteAccess
    from tidegate.adapters.dynamodb.client import DynamoDb
    from tidegate.adapters.dynamodb.connections import DynamoConnections
    from tidegate.adapters.dynamodb.history import DynamoHistory
    from tidegate.adapters.dynamodb.profiles import DynamoProfiles
    from tidegate.adapters.dynamodb.relay_leases import DynamoRelayLeases
    from tidegate.adapters.dynamodb.schedule_state import DynamoScheduleState
    from tidegate.adapters.dynamodb.streams import DynamoLastValues, DynamoStreams
    from tidegate.adapters.dynamodb.subscriptions import DynamoSubscriptions


class StoreProviders(ProcessProviders):
    """The tables, each through the adapter that owns it."""

    @cached_property
    def db(self) -> DynamoDb:
        from tidegate.adapters.dynamodb.client import DynamoDb

        return DynamoDb(self.aws("dynamodb", "DynamoDB_20120810", "1.0"))

    @cached_property
    def access(self) -> DynamoAccess:
        from tidegate.adapters.dynamodb.access import DynamoAccess

        return DynamoAccess(self.db, self.table(tables.ACCESS))

    @cached_property
    def remote_access(self) -> DynamoRemoteAccess:
        from tidegate.adapters.dynamodb.access import DynamoRemoteAccess

        return DynamoRemoteAccess(self.db, self.table(tables.ACCESS))

    @cached_property
    def profiles(self) -> DynamoProfiles:
        from tidegate.adapters.dynamodb.profiles import DynamoProfiles

        return DynamoProfiles(self.db, self.table(tables.PROFILES))

    @cached_property
    def connections(self) -> DynamoConnections:
        from tidegate.adapters.dynamodb.connections import DynamoConnections

        return DynamoConnections(self.db, self.table(tables.CONNECTIONS))

    @cached_property
    def subscriptions(self) -> DynamoSubscriptions:
        from tidegate.adapters.dynamodb.subscriptions import DynamoSubscriptions

        return DynamoSubscriptions(self.db, self.table(tables.SUBSCRIPTIONS), self.table(tables.CONNECTIONS))

    @cached_property
    def streams(self) -> DynamoStreams:
        from tidegate.adapters.dynamodb.streams import DynamoStreams

        return DynamoStreams(self.db, self.table(tables.STREAMS))

    @cached_property
    def relay_leases(self) -> DynamoRelayLeases:
        from tidegate.adapters.dynamodb.relay_leases import DynamoRelayLeases

        return DynamoRelayLeases(self.db, self.table(tables.STREAMS))

    @cached_property
    def schedule_state(self) -> DynamoScheduleState:
        from tidegate.adapters.dynamodb.schedule_state import DynamoScheduleState

        return DynamoScheduleState(self.db, self.table(tables.STREAMS))

    @cached_property
    def history(self) -> DynamoHistory:
        from tidegate.adapters.dynamodb.history import DynamoHistory

        return DynamoHistory(self.db, self.table(tables.HISTORY))

    @cached_property
    def last_values(self) -> DynamoLastValues:
        from tidegate.adapters.dynamodb.streams import DynamoLastValues

        return DynamoLastValues(self.db, self.table(tables.LAST_VALUES))
