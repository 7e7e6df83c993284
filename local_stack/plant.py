"""The device of the demo boards: it publishes the climate of three rooms until it is stopped.

`python -m local_stack.plant <settings.json>`, where the file holds what `Publisher` takes.
"""

from __future__ import annotations

import json
import math
import sys
import time
from itertools import count
from pathlib import Path

from local_stack.device import PLANT
from local_stack.publisher import Publisher

#: Topics below this are this device's own.
OWN = f"demo/{PLANT}"
ROOMS = ("north", "south", "attic")
#: One room after the other, so that a laptop is not kept busy.
_PAUSE_S = 1.0


def climate(room: str, n: int) -> dict[str, float | int]:
    """What a room says in round `n`: °C, % and W."""
    place = ROOMS.index(room)
    swing = math.sin(n / 40 + place * 2.1)
    return {
        "temperature": round(20.5 + place + 1.6 * swing, 2),
        "humidity": round(46 - 6 * swing + place, 1),
        "heater": round(max(0.0, 900 - 1100 * swing)),
    }


def topic(room: str) -> str:
    return f"{OWN}/rooms/{room}/climate"


def main() -> None:
    with Publisher(json.loads(Path(sys.argv[1]).read_text())) as device:
        for n in count():
            room = ROOMS[n % len(ROOMS)]
            device.publish(topic(room), json.dumps(climate(room, n)))
            time.sleep(_PAUSE_S)


if __name__ == "__main__":
    main()
