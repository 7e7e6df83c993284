"""Changes of profiles, as the control plane follows them."""

from __future__ import annotations

from typing import NamedTuple


class ProfileChange(NamedTuple):
    """A written change of a profile that the dashboards using it have yet to follow.

    Attributes:
        kind, profile_id: which profile.
        revision: the profile's after the change; a deletion counts as a revision.
        withdrawn: guests of the datasources that use it lose their right. Otherwise only intents changed.
        followed: every dashboard has followed. Only the notes about it are left to be removed.
    """

    kind: str
    profile_id: str
    revision: int
    withdrawn: bool
    followed: bool = False
