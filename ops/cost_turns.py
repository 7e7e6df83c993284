"""What can be turned to pay less: each with the load as it is then."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from ops.cost_load import DEVICE, FUNCTION, SERVICE, Load


class Turn(NamedTuple):
    """One change. `key`: for programs. `name`: says what is turned. `load`: the load after it."""

    key: str
    name: str
    load: Load


def turns(load: Load) -> tuple[Turn, ...]:
    """All that change this load. Each by itself."""
    found = [
        Turn("per_second", _slower(load)[0], replace(load, per_second=_slower(load)[1])),
        Turn("batches", "batches: topics by a queue, and batch frames", replace(load, batches=True)),
        Turn("updates", "sources that send half as often", replace(load, updates=load.updates / 2)),
        Turn("history", "no history", replace(load, history=False)),
        Turn("together", "one token for a dashboard", replace(load, together=True)),
        Turn("session_s", "session tokens that live for an hour", replace(load, session_s=3600)),
        Turn("hours", "pages that are closed half of the time", replace(load, hours=load.hours / 2)),
        Turn("log_days", "logs that are kept for a week", replace(load, log_days=min(load.log_days, 7))),
    ]
    if load.protocol == DEVICE:
        found.append(Turn("source_hours", "devices that publish while somebody watches", _watched_only(load)))
    else:
        other = SERVICE if load.relay == FUNCTION else FUNCTION
        found.append(Turn("relay", f"the relay as a {other}", replace(load, relay=other)))
    return tuple(turn for turn in found if turn.load != load)


def _slower(load: Load) -> tuple[str, float]:
    """Conflation to half of what is shown now."""
    half = load.shown / 2
    if half < 1:
        return "", load.per_second  # the setting knows whole numbers
    whole = float(int(half))
    return f"REALTIME_MAX_UPDATES_PER_SECOND={whole:g}", whole


def _watched_only(load: Load) -> Load:
    return replace(load, source_hours=min(load.source_hours, load.hours))
