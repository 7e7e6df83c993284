"""What a user's dashboards show to guests. It is apart from `dashboards.py`, so that revalidation imports little."""

from __future__ import annotations

from collections.abc import Iterator

from tidegate.adapters.dynamodb.client import DynamoDb
from tidegate.domain.access import Visibility


def shown_by(db: DynamoDb, table: str, owner_id: str) -> Iterator[str]:
    """Ids of the dashboards that the user owns and shows to guests. *Index*, which may lag."""
    for item in db.query(table, "#owner_id = :owner", {"owner": owner_id}, index="by_owner"):
        if item["visibility"] != Visibility.PRIVATE.value:
            yield item["dashboard_id"]
