"""What each path asks of AWS: calls, request units, messages. `make cost` multiplies these figures; tests measure them.

Each figure is measured by a test that runs the path on real tables and counts (`tests/functions/test_units.py`, and the
tests that are named beside it). So a path that comes to cost more fails a test until it is written here, and then every
estimate has it.

A read unit is 4 KB, half of it when the read need not be consistent. A write unit is 1 KB, two in a transaction.
"""

from __future__ import annotations

from typing import NamedTuple


class Units(NamedTuple):
    """Of DynamoDB: calls, read units, write units, and write units of indexes."""

    calls: float = 0
    reads: float = 0
    writes: float = 0
    indexes: float = 0

    def times(self, count: float) -> Units:
        return Units(*(figure * count for figure in self))

    def plus(self, other: Units) -> Units:
        return Units(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


class Path(NamedTuple):
    """What a path costs with so many datasources: `base`, and `each` for each of them."""

    base: Units
    each: Units = Units()

    def of(self, datasources: float) -> Units:
        return self.base.plus(self.each.times(datasources))


# --- a viewer -------------------------------------------------------------------------------------------------------

#: `$connect`: the rate, the place in the quota, the connection.
CONNECT = Path(Units(3, 0, 3))
#: GET of the dashboard.
GET_DASHBOARD = Path(Units(2, 2, 0))
#: A session token of the dashboard, for all of its datasources; and of one datasource.
MINT_SESSION = Path(Units(4, 2, 2))
MINT_DATASOURCE = Path(Units(6, 4, 2))
#: The first `subscribe` of a connection to datasources together, public. Each row is written into two indexes.
SUBSCRIBE = Path(Units(12, 8, 3), Units(4, 2, 3, 2))
#: The catch-up that follows a first `subscribe`, for each datasource.
CATCH_UP = Path(Units(), Units(2, 2, 0))
#: A `subscribe` again, with a new token. An expiry that moves moves its row in an index.
REFRESH = Path(Units(6, 5, 0), Units(1, 1, 1, 3))
#: `$disconnect`: the connection and its two places; each row, and it goes out of two indexes. Rows go 25 in a call.
DISCONNECT = Path(Units(4, 0, 3), Units(0, 0, 1, 2))
#: Messages of a connection for each write of its budget.
MESSAGES_A_WRITE = 20

# --- a value --------------------------------------------------------------------------------------------------------

#: A device's value for one stream, without what is read once a second and without the send quota: version, last value
#: and look; one write for each KB.
DEVICE_VALUE = Units(3, 2, 1)
#: What is read of access for a stream in a second, where values are sent: the dashboard's item and the owner's.
ACCESS_A_SECOND = Units(1, 2, 0)
#: Rows of an audience in 4 KB; a read of them is half a unit, and is used for `AUDIENCE_S`.
ROWS_A_BLOCK = 8
#: The writes that an ask of the send quota is, and how many a sender that goes on makes in a second, as a rule.
QUOTA_ASK = Units(1, 0, 1)
QUOTA_ASKS_A_SECOND = 5
#: A device's value with a history: one write more.
DEVICE_HISTORY = Units(1, 0, 1)
#: A device's value that comes before the interval of its topic is over: a write more. One that waits: a third, and a
#: read.
DEVICE_EARLY = Units(1, 0, 1)
DEVICE_WAITS = Units(2, 1, 1)
#: A batch of device messages for one stream: the version. Each topic of it: the last value, and the look.
BATCH = Units(1, 1, 0)
BATCH_TOPIC = Units(2, 1, 1)
#: SQS calls for a message that a function is given: it is sent, received and deleted; the last two ten at a time.
SQS_SENT, SQS_TAKEN, SQS_AT_ONCE = 1, 2, 10
#: Most messages of a batch of device messages, and how often one comes at least, seconds.
MESSAGES_A_BATCH, BATCH_S = 30, 1.0
#: A value of the relay: the last value.
RELAY_VALUE = Units(1, 0, 1)
#: What the relay keeps of a series in a history: one write for each KB of some seconds.
RELAY_HISTORY_S = 5.0

# --- the relay ------------------------------------------------------------------------------------------------------

#: A partition that a worker holds, a second: the version. And every five seconds the lease.
RELAY_VERSION_A_SECOND = Units(1, 1, 0)
RELAY_LEASE_S = 5.0
#: A Lambda worker's successor runs beside it for so long, of so many seconds.
RELAY_HANDOVER_S, RELAY_FUNCTION_S = 45.0, 900.0
#: CPU of the relay, seconds: of a value, and of a delivery. Measured on the machine of the page on performance.
RELAY_CPU_VALUE_S, RELAY_CPU_DELIVERY_S = 0.0005, 0.000025
#: Memory of functions, MB: of those that are not the usual. The template has the same.
MEMORY_MB = {
    "api.main": 1024,
    "mqtt_bridge.bridge": 1024,
    "mqtt_bridge.crowd": 1024,
    "relay.worker": 1024,
    "revalidate.worker": 1024,
}
USUAL_MEMORY_MB = 512

# --- a stage at rest --------------------------------------------------------------------------------------------------

#: What a production stage has that is charged by its number: price -> how many. The template has as many. Of alarms it
#: is the metrics that they look at.
STANDING = {"secret": 5, "kms_key": 1, "alarm": 52, "cloudwatch_dashboard": 1}
#: Queues that Lambda asks for messages.
POLLED_QUEUES = 4
#: Tasks that the schedule's run of a minute leads to while somebody is connected: looks for what has expired, looks for
#: dead workers, polls of the feed, and a full revalidation. And read units of one of them, on average.
TASKS_A_MINUTE = 6 + 5 + 2 + 1
TASK_READS = 3
#: What a run of the schedule asks while nobody is connected: its state, and whether there is a connection. And what it
#: asks when somebody is: then it writes the state.
IDLE_RUN = Units(2, 2, 0)
ACTIVE_RUN = Units(3, 2, 1)
#: What a run asks that follows changes of profiles when there are none.
FOLLOW = Units(1, 1, 0)
#: Tasks of a day while nobody is connected, and metrics of our own that they write. A metric is charged by the hour.
IDLE_TASKS_A_DAY, IDLE_METRICS, IDLE_HOURS_A_DAY = 4, 3, 2
