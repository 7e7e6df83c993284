"""Every DynamoDB table and index, as data. The CDK app creates the tables from it; the adapters use the names.

Only key attributes are listed here. Everything else an item holds is known to the adapter module that owns the table.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

KeyType = Literal["S", "N", "B"]
Projection = Literal["ALL", "KEYS_ONLY"]
Images = Literal["NEW_IMAGE", "NEW_AND_OLD_IMAGES"]

#: The attribute that DynamoDB's time-to-live reads, in every table that has one: epoch seconds.
TTL_ATTRIBUTE = "ttl"


class Key(NamedTuple):
    """A key attribute and its DynamoDB type."""

    name: str
    type: KeyType = "S"


class Index(NamedTuple):
    """A global secondary index. `include` names attributes projected besides the keys; `projection` is then unused."""

    name: str
    partition: Key
    sort: Key | None = None
    projection: Projection = "KEYS_ONLY"
    include: tuple[str, ...] = ()


class Table(NamedTuple):
    """A table.

    Attributes:
        name: its short name; the environment variable `TIDEGATE_TABLE_<NAME>` holds the deployed one.
        partition, sort: its primary key.
        indexes: its global secondary indexes.
        ttl: whether items expire by `TTL_ATTRIBUTE`.
        stream: what is streamed of each change; None when changes are not.
        backed_up: whether point-in-time recovery is on. It is for data that cannot be rebuilt.
    """

    name: str
    partition: Key
    sort: Key | None = None
    indexes: tuple[Index, ...] = ()
    ttl: bool = False
    stream: Images | None = None
    backed_up: bool = False

    @property
    def variable(self) -> str:
        """The environment variable that holds the deployed table's name."""
        return f"TIDEGATE_TABLE_{self.name.upper()}"


#: The partition of an item that is never there, in every table. Who may ask for it and nothing else learns only whether
#: the table answers.
HEALTH_PARTITION = "!health"


def health_key(table: Table) -> dict[str, str | int]:
    """The key of that item."""
    key: dict[str, str | int] = {table.partition.name: HEALTH_PARTITION}
    if table.sort is not None:
        key[table.sort.name] = 0 if table.sort.type == "N" else HEALTH_PARTITION
    return key


_SUMMARY = ("title", "visibility", "owner_id", "revision", "updated_at_ms")

DASHBOARDS = Table(
    "dashboards",
    Key("dashboard_id"),
    indexes=(
        Index("by_share_token", Key("share_token")),
        Index("by_owner", Key("owner_id"), Key("dashboard_id"), include=_SUMMARY[:2] + _SUMMARY[3:]),
        Index("all", Key("kind"), Key("dashboard_id"), include=_SUMMARY),
    ),
    backed_up=True,
)
#: The prefix of the keys of dashboards' access items. The table's stream shows when one has another revision.
DASHBOARD_ACCESS = "dash#"
ACCESS = Table("access", Key("key"), stream="NEW_AND_OLD_IMAGES", backed_up=True)
PROFILES = Table("profiles", Key("kind"), Key("id"), backed_up=True)
USERS = Table("users", Key("key"), indexes=(Index("all", Key("kind"), Key("email"), projection="ALL"),), backed_up=True)
#: Its indexes have keys only: a row whose count grows writes none of them.
AUDIT = Table(
    "audit",
    Key("month"),
    Key("at"),
    indexes=(
        Index("by_action", Key("action"), Key("at")),
        Index("by_actor", Key("actor_id"), Key("at")),
        Index("by_target", Key("target_id"), Key("at")),
    ),
    ttl=True,
    backed_up=True,
)
#: The partition of the revocations table that holds the events. The table's stream pushes each new event.
REVOCATION_EVENTS = "feed"
REVOCATIONS = Table("revocations", Key("feed"), Key("event_id", "N"), ttl=True, stream="NEW_IMAGE", backed_up=True)
#: The partitions of the streams table that hold the streams of the relay, and the leases of its partitions.
RELAY_STREAMS, RELAY_LEASES = "relay", "lease"
CONNECTIONS = Table("connections", Key("connection_id"), ttl=True)
SUBSCRIPTIONS = Table(
    "subscriptions",
    Key("dashboard_shard"),
    Key("row"),
    indexes=(
        Index("by_stream", Key("audience"), Key("row"), projection="ALL"),
        Index("by_principal", Key("principal"), Key("row")),
        Index("by_expiry", Key("expiry_shard", "N"), Key("exp", "N")),
    ),
    ttl=True,
)
STREAMS = Table("streams", Key("source"), Key("stream_key"), ttl=True)
LAST_VALUES = Table("last_values", Key("stream_key"), Key("topic"), ttl=True)
HISTORY = Table("history", Key("series"), Key("start"), ttl=True)
LIMITERS = Table("limiters", Key("key"), ttl=True)

ALL_TABLES = (
    DASHBOARDS,
    ACCESS,
    PROFILES,
    USERS,
    AUDIT,
    REVOCATIONS,
    CONNECTIONS,
    SUBSCRIPTIONS,
    STREAMS,
    LAST_VALUES,
    HISTORY,
    LIMITERS,
)
