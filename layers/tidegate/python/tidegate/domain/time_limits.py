"""How long each function may run.

Invariant of this file: it is the only place with these limits. The CDK app gives them to the functions, and settings
that a function waits for are checked against them. So no setting can be longer than the function that reads it.
"""

from __future__ import annotations

from collections.abc import Mapping

#: The longest that the platform waits for an answer: to a message of a WebSocket, or to a request. Seconds.
ANSWER_S = 29

#: Module of the handler in `functions/` -> its time limit, seconds.
FUNCTION_S: Mapping[str, int] = {
    "api.main": ANSWER_S,
    "gateway_connect.connect": 15,
    "gateway_connect.disconnect": 15,
    "gateway_connect.messages": 15,
    "mqtt_bridge.bridge": 30,
    "mqtt_bridge.catch_up": 15,
    "mqtt_bridge.crowd": 120,
    "relay.worker": 900,  # the longest there is
    "revalidate.dispatch": 15,
    # What is left over is queued again, so a run need not be long. A message that died in one comes back after six
    # times this.
    "revalidate.profiles": 60,
    "revalidate.schedule": 15,
    "revalidate.worker": 60,
}
#: Limits of functions that ask a remote API while a viewer waits, seconds.
_WITH_REMOTE_API: Mapping[str, int] = {"gateway_connect.messages": ANSWER_S}

#: The functions that ask the limiter while somebody waits.
ASK_LIMITER = ("api.main", "gateway_connect.connect", "gateway_connect.messages")

#: Most time for the calls of a remote API in a subscribe, milliseconds. The rest of a subscribe needs some of the
#: time that the platform waits.
MESSAGE_BUDGET_MS = (ANSWER_S - 4) * 1000

#: How long a preview of a datasource waits for messages, seconds. Checking before and closing after need some of the
#: time that the platform waits for an answer.
PREVIEW_S = 10

#: The longest that one relay worker holds an upstream, seconds. Its last minute is for its successor, which begins
#: anew. So whatever a worker waits for longer than this never comes.
UPSTREAM_S = FUNCTION_S["relay.worker"] - 60


def function_s(function: str, *, remote_api: bool = False) -> int:
    """The time limit of a function, seconds. `remote_api`: whether `GATEWAY_API_BASE_URL` is set."""
    limits = {**FUNCTION_S, **_WITH_REMOTE_API} if remote_api else FUNCTION_S
    return limits[function]
