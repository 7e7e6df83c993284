"""Saved documents, as the stream of the access table shows them.

The access item is written in the transaction that saves the document, so there is no save without its record. A module
of its own, because only the function that the stream calls needs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tidegate.adapters.dynamodb.client import decode_item
from tidegate.domain.revocations import SavedDocument
from tidegate.tables import ACCESS, DASHBOARD_ACCESS


def is_of_access(record: Mapping[str, Any]) -> bool:
    """Whether a record of a stream is of this table, by the name of its key."""
    try:
        return ACCESS.partition.name in record["dynamodb"]["Keys"]
    except (KeyError, TypeError):
        return False


def read_saved(record: Mapping[str, Any]) -> SavedDocument | None:
    """The document that a change saved. The record has both images.

    Returns:
        None when the change left the document alone, or is of another kind of item.

    Raises:
        ValueError: it is not a record of this table.
    """
    try:
        change = record["dynamodb"]
        was, now = decode_item(change["OldImage"]), decode_item(change["NewImage"])
        if not now["key"].startswith(DASHBOARD_ACCESS) or was["revision"] == now["revision"]:
            return None
        saved_at_ms = int(float(change["ApproximateCreationDateTime"]) * 1000)
        return SavedDocument(now["key"].removeprefix(DASHBOARD_ACCESS), now["revision"], saved_at_ms)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a record of the access table: {type(error).__name__}") from error
