"""How many invocations run at the same time, by what calls them. No CDK.

Invariant of this file: what works in the background never takes a place of the account's concurrency that a handshake
needs. So everything that a queue calls has a bound here, and all of them together leave half of the account's places,
wherever the platform's least bound allows that.
"""

from __future__ import annotations

from collections.abc import Mapping

from tidegate.domain.crowds import AUDIENCE_SHARDS
from tidegate.domain.partitions import PARTITIONS
from tidegate.domain.time_limits import FUNCTION_S

#: Places of an account that was not asked for otherwise (quotas of AWS Lambda, concurrent executions). New accounts may
#: have 10 until they ask for more. A stage states its account's with `lambda_concurrency`.
USUAL_PLACES = 1000
#: Places that the platform keeps from reservations (quotas of AWS Lambda, reserved concurrency).
KEPT_UNRESERVED = 100
#: The least and the most that SQS event sources allow as `MaximumConcurrency`.
LEAST, MOST = 2, 1000
#: How often a queue's visibility timeout holds the function's time limit, as AWS recommends: the platform repeats a
#: throttled invocation within it. So a receive is used up only by a throttling that lasts as long.
VISIBILITY = 6
#: From so many places on, the background has all that it can use. Below, each queue has the least.
_PLENTY = 200

#: Handler of `functions/` that a queue calls -> most invocations at the same time.
AT_ONCE: Mapping[str, int] = {
    # Each takes one task. Ten withdrawals at the same time delay each other, and no handshake.
    "revalidate.worker": 10,
    # More would only make each other's conditions fail.
    "revalidate.profiles": 2,
    # Two crowds: each has as many parts as its audience has shards.
    "mqtt_bridge.crowd": 2 * AUDIENCE_SHARDS,
    # A batch has ten catch-ups.
    "mqtt_bridge.catch_up": 5,
    # A batch of device messages takes as long as its messages to viewers do.
    "mqtt_bridge.bridge": 10,
}


def at_once(handler: str, places: int) -> int:
    """The most invocations by a queue at the same time. `places`: the account's concurrency."""
    return AT_ONCE[handler] if places >= _PLENTY else LEAST


def in_background(places: int) -> int:
    """The most that runs at the same time for nobody who waits: by queues, relays with their successors, and the
    schedule."""
    return sum(at_once(handler, places) for handler in AT_ONCE) + 2 * PARTITIONS + 1


def visibility_s(handler: str, window_s: int = 0) -> int:
    """How long SQS keeps a message from others while a function works at it, seconds. `window_s`: for how long messages
    of a batch are gathered."""
    return VISIBILITY * (FUNCTION_S[handler] + window_s)
