"""What the operator switched on: realtime as a whole, and each protocol.

A module of its own, because `$connect` needs nothing else of what decides about streams.
"""

from __future__ import annotations

from typing import NamedTuple


def disabled_text(protocol: str) -> str:
    """The message to viewers of a protocol that is switched off."""
    names = {"sse": "SSE", "websocket": "WebSocket", "mqtt": "MQTT"}
    return f"{names.get(protocol, 'This')} protocol is disabled"


REALTIME_OFF = "Realtime is disabled"

#: How long after a change of the switches functions may still have the old ones, seconds: the rest of a deployment.
#: Meanwhile a full revalidation is due each time that the schedule asks for one.
SETTLING_S = 900


class Switches(NamedTuple):
    """What the operator switched on.

    Attributes:
        realtime: false ends everything, whatever its protocol.
        off: protocols that are switched off, of `sse`, `websocket`, `mqtt`.
    """

    realtime: bool = True
    off: frozenset[str] = frozenset()

    def refuse(self, protocol: str) -> bool:
        """Whether no subscription of the protocol may stay."""
        return not self.realtime or protocol in self.off

    def text(self, protocol: str) -> str:
        """The message to viewers of a subscription that is refused."""
        return disabled_text(protocol) if self.realtime else REALTIME_OFF

    @property
    def digest(self) -> str:
        """Equal for equal switches, in every process."""
        return " ".join(
            [f"realtime={str(self.realtime).lower()}", *(f"{protocol}=false" for protocol in sorted(self.off))]
        )


ALL_ON = Switches()
