"""The audit log and the log of whoever runs a command of operators."""

from __future__ import annotations

import sys

from tidegate import tables
from tidegate.adapters.dynamodb.audit import DynamoAudit
from tidegate.adapters.json_observer import JsonObserver
from tidegate.providers.control_plane import ControlPlaneProviders


def observer() -> JsonObserver:
    """It writes to standard error: standard output is for what was asked for."""
    return JsonObserver("operator", "none", write=sys.stderr.write)


def audit(container: ControlPlaneProviders, told: JsonObserver) -> DynamoAudit:
    """The stage's audit log. `told` hears what could not be written into it."""
    return DynamoAudit(container.db, container.table(tables.AUDIT), container.ids, told)
