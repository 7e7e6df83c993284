"""What each caller is shown of a dashboard.

Who edits is shown the whole document. Everybody else is shown a projection of it. It is made by an allowlist: a value
is shown when a shape below names its key and the value is of the kind that the shape wants. Nothing else is shown, so
a key that comes later stays hidden until somebody adds it here.

Invariant of this file: what a datasource connects to, and with what, reaches only those who may edit the dashboard; who
else may see it, and its share token, only those who may manage sharing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tidegate.domain import rights
from tidegate.domain.access import Visibility
from tidegate.domain.dashboards import AclEntry, Dashboard, DashboardSummary
from tidegate.domain.users import User


@dataclass(frozen=True, slots=True)
class ShownDashboard:
    """A dashboard as one caller sees it. What is None is not for this caller.

    Attributes:
        dashboard_id, title, visibility, revision: for everybody who may see the dashboard.
        document: whole for who may edit, else the projection.
        can_edit, can_share: what the caller may do.
        owner_id: for who may edit.
        acl, share_token, share_version: for who may manage sharing.
    """

    dashboard_id: str
    title: str
    visibility: Visibility
    revision: int
    document: dict[str, Any]
    can_edit: bool
    can_share: bool
    owner_id: str | None = None
    acl: Mapping[str, AclEntry] | None = None
    share_token: str | None = None
    share_version: int | None = None


def shown_dashboard(dashboard: Dashboard, user: User | None) -> ShownDashboard:
    """The dashboard as `user` sees it. None is a caller without a login, or one whose login does not count, as by link.

    It does not decide whether the caller may see the dashboard at all.
    """
    edit = user is not None and rights.may_edit(dashboard, user)
    share = user is not None and rights.may_share(dashboard, user)
    return ShownDashboard(
        dashboard_id=dashboard.dashboard_id,
        title=dashboard.title,
        visibility=dashboard.visibility,
        revision=dashboard.revision,
        document=dict(dashboard.document) if edit else document_for_viewers(dashboard.document),
        can_edit=edit,
        can_share=share,
        owner_id=dashboard.owner_id if edit else None,
        acl=dashboard.acl if share else None,
        share_token=dashboard.share_token if share else None,
        share_version=dashboard.share_version if share else None,
    )


def shown_owner(summary: DashboardSummary, user: User) -> str | None:
    """The owner's id in a list, for the owner and admins. A list does not know who may edit."""
    return summary.owner_id if rights.may_know_owner(summary, user) else None


def document_for_viewers(document: Mapping[str, Any]) -> dict[str, Any]:
    """The projection of a checked document. It is a valid document itself, and its own projection."""
    shown: dict[str, Any] = _DOCUMENT(document)
    return shown


# --- shapes: each returns what is shown of a value, or _HIDDEN ----------------------------------------------

Shape = Callable[[Any], Any]
_HIDDEN: Any = object()


def _text(value: Any) -> Any:
    return value if isinstance(value, str) else _HIDDEN


def _number(value: Any) -> Any:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else _HIDDEN


def _flag(value: Any) -> Any:
    return value if isinstance(value, bool) else _HIDDEN


def _either(*shapes: Shape) -> Shape:
    return lambda value: next((shown for shape in shapes if (shown := shape(value)) is not _HIDDEN), _HIDDEN)


def _list(shape: Shape) -> Shape:
    def shown(value: Any) -> Any:
        if not isinstance(value, list):
            return _HIDDEN
        return [inner for item in value if (inner := shape(item)) is not _HIDDEN]

    return shown


def _object(shapes: Mapping[str, Shape]) -> Shape:
    def shown(value: Any) -> Any:
        if not isinstance(value, Mapping):
            return _HIDDEN
        found = ((name, shape(value[name])) for name, shape in shapes.items() if name in value)
        return {name: inner for name, inner in found if inner is not _HIDDEN}

    return shown


def _names_to(shape: Shape) -> Shape:
    def shown(value: Any) -> Any:
        return _object(dict.fromkeys(value, shape))(value) if isinstance(value, Mapping) else _HIDDEN

    return shown


#: A datasource's topic, URL, headers and profiles are not here. Neither is a binding's topic, but for its digest.
_BINDING = {
    "datasourceId": _text,
    "path": _text,
    "label": _text,
    "topicDigest": _text,
    "reduce": _text,
    "scale": _number,
    "offset": _number,
}


def topic_digest(topic: str) -> str:
    """Eight hex digits by which a viewer knows a topic again that a `data` frame names: FNV-1a of its UTF-8, 32 bits.

    It tells a few hundred topics apart. It does not hide a topic from whoever guesses it, as frames name it anyway.
    """
    digest = 0x811C9DC5
    for byte in topic.encode():
        digest = (digest ^ byte) * 0x01000193 & 0xFFFFFFFF
    return f"{digest:08x}"


def _binding(value: Any) -> Any:
    shown = _object(_BINDING)(value)
    if shown is not _HIDDEN and isinstance(value.get("topic"), str):
        shown["topicDigest"] = topic_digest(value["topic"])
    return shown


_STATE = {"state": _text, "label": _text}
_WIDGET_SETTINGS = {
    "bindings": _list(_binding),
    "unit": _text,
    "decimals": _number,
    "min": _number,
    "max": _number,
    "thresholds": _list(_object({"from": _number, **_STATE})),
    "windowSeconds": _number,
    "columns": _list(_object({"path": _text, "header": _text, "format": _text})),
    "emptyText": _text,
    "text": _text,
    "map": _names_to(_object(_STATE)),
}
_WIDGET = {"id": _text, "type": _text, "title": _text, "enabled": _flag, "settings": _object(_WIDGET_SETTINGS)}
_LAYOUT = {"i": _either(_text, _number), **dict.fromkeys(("x", "y", "w", "h"), _number)}
_PANE = {"id": _text, "title": _text, "layout": _object(_LAYOUT), "widgets": _list(_object(_WIDGET))}
_DATASOURCE_SETTINGS = {
    "staleAfterSeconds": _number,
    "history": _object({"seconds": _number, "everyMs": _number}),
}
_DATASOURCE = {
    "id": _text,
    "title": _text,
    "type": _text,
    "enabled": _flag,
    "settings": _object(_DATASOURCE_SETTINGS),
}
#: A script, a style and variables may hold anything, an address too.
_SETTINGS = {"theme": _text, "timeZone": _text, "windowSeconds": _number, "kiosk": _flag}
_DOCUMENT = _object(
    {
        "schemaVersion": _number,
        "title": _text,
        "columns": _number,
        "width": _text,
        "settings": _object(_SETTINGS),
        "datasources": _list(_object(_DATASOURCE)),
        "panes": _list(_object(_PANE)),
    }
)
