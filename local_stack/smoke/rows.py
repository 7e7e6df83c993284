"""What makes a test a row of the table."""

from __future__ import annotations

import pytest

#: Modules of this folder in the table's order. Those about relay workers take the longest. Those about switches make
#: full revalidations due each minute for a while. The last looks back.
MODULES = (
    "test_gateway",
    "test_devices",
    "test_history",
    "test_relay",
    "test_revocation",
    "test_relay_workers",
    "test_switches",
    "test_demo_data",
)

#: Messages of the latency figure.
SAMPLES = 60


def row(name: str, *, slow: bool = False) -> pytest.MarkDecorator:
    """Mark a test as the row of this name. `slow`: it takes ten seconds to a minute, and `--quick` leaves it out."""
    return pytest.mark.row(name, slow=slow)
