"""Watch the datasources of a Tidegate dashboard, from a script or a notebook."""

from tidegate_client.api import Session, Source
from tidegate_client.dashboard import Dashboard, DashboardState
from tidegate_client.datasource import Datasource, DatasourceState
from tidegate_client.errors import Ended, Refused
from tidegate_client.series import Sample, Series

__all__ = [
    "Dashboard",
    "DashboardState",
    "Datasource",
    "DatasourceState",
    "Ended",
    "Refused",
    "Sample",
    "Series",
    "Session",
    "Source",
]
