"""All drills, by name."""

from __future__ import annotations

from local_stack.drills import (
    dead_relay,
    expired_cursor,
    limiter_outage,
    lost_stream_mapping,
    poisoned_task,
    throttled_platform,
)

_MODULES = (limiter_outage, dead_relay, lost_stream_mapping, poisoned_task, throttled_platform, expired_cursor)
DRILLS = {module.DRILL.name: module.DRILL for module in _MODULES}
