"""The demo boards: six panes and more, over MQTT, SSE and WebSocket, that move."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from local_stack import plant

#: A quarter of an hour is shown when a board is opened, a point each second.
HISTORY = {"seconds": 900, "everyMs": 1000}

_COMFORT = [
    {"from": 0, "state": "warn", "label": "cold"},
    {"from": 19, "state": "ok", "label": "within 19 to 24"},
    {"from": 24, "state": "warn", "label": "warm"},
    {"from": 27, "state": "critical", "label": "too hot"},
]
_FLOW = [
    {"from": 0, "state": "ok", "label": "normal"},
    {"from": 70, "state": "warn", "label": "above 70"},
    {"from": 85, "state": "critical", "label": "over limit"},
]
_PUMP = {"running": {"state": "ok", "label": "running"}, "over limit": {"state": "critical", "label": "over limit"}}


def documents(broker_id: str, upstreams: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The documents of the boards, by the visibility that each is given.

    Args:
        broker_id: a broker profile of IoT Core, for public use.
        upstreams: the `fake_upstreams` part of `stack.json`.
    """
    sources = [
        _stream("plant", "Heating plant (SSE)", "sse", upstreams["sse_url"]),
        _stream("supply", "District supply (WebSocket)", "websocket", upstreams["websocket_url"]),
        {
            "id": "rooms",
            "title": "Rooms (MQTT)",
            "type": "mqtt",
            "settings": {
                "brokerProfileId": broker_id,
                "topic": f"{plant.OWN}/rooms/+/climate",
                "parser": "json",
                "staleAfterSeconds": 20,
                "history": HISTORY,
            },
        },
    ]
    return {
        "public": _board("Heating, building 3", sources, _heating()),
        "link": _board("Rooms and comfort", sources, _rooms()),
        "private": _board("Plant room", sources, _plant_room()),
    }


def _stream(datasource_id: str, title: str, kind: str, url: str) -> dict[str, Any]:
    settings = {"url": f"{url}?rate=2&plant=1", "staleAfterSeconds": 10, "history": HISTORY}
    return {"id": datasource_id, "title": title, "type": kind, "settings": settings}


def _board(title: str, sources: list[dict[str, Any]], panes: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "schemaVersion": 1,
        "title": title,
        "columns": 12,
        "width": "lg",
        "settings": {"windowSeconds": 600},
        "datasources": sources,
        "panes": panes,
    }


def _pane(title: str, place: tuple[int, int, int, int], kind: str, **settings: Any) -> dict[str, Any]:
    x, y, w, h = place
    pane_id = title.lower().replace(" ", "-").replace(",", "")
    return {
        "id": pane_id,
        "title": title,
        "layout": {"i": pane_id, "x": x, "y": y, "w": w, "h": h},
        "widgets": [{"id": f"{pane_id}-{kind}", "type": kind, "settings": settings}],
    }


def _bind(datasource_id: str, path: str, label: str | None = None, **more: Any) -> dict[str, Any]:
    return {"datasourceId": datasource_id, "path": path, **({"label": label} if label else {}), **more}


def _valve(place: tuple[int, int, int, int]) -> dict[str, Any]:
    return _pane("Valve", place, "gauge", bindings=[_bind("supply", "valve")], unit="%", decimals=0, min=0, max=100)


def _heating() -> list[dict[str, Any]]:
    boiler = "boiler.temperature"
    return [
        _pane(
            "Boiler temperature",
            (0, 0, 3, 3),
            "value",
            bindings=[_bind("plant", boiler)],
            unit="°C",
            decimals=1,
            thresholds=_COMFORT,
        ),
        _pane(
            "Flow",
            (3, 0, 3, 3),
            "gauge",
            bindings=[_bind("plant", "flow")],
            unit="l/min",
            decimals=0,
            min=0,
            max=100,
            thresholds=_FLOW,
        ),
        _pane(
            "Pressure",
            (6, 0, 3, 3),
            "sparkline",
            bindings=[_bind("plant", "boiler.pressure", "plant"), _bind("supply", "boiler.pressure", "supply")],
            unit="bar",
            decimals=2,
        ),
        _valve((9, 0, 3, 3)),
        _pane(
            "Plant and supply, ten minutes",
            (0, 3, 8, 5),
            "series",
            bindings=[_bind("plant", boiler, "plant"), _bind("supply", boiler, "supply")],
            unit="°C",
            decimals=1,
            thresholds=[{"from": 23.5, "state": "warn", "label": "above 23.5 °C"}],
        ),
        _pane(
            "Pumps",
            (8, 3, 4, 5),
            "table",
            bindings=[_bind("plant", "pumps")],
            columns=[
                {"path": "name", "header": "Pump", "format": "text"},
                {"path": "speed", "header": "Hz", "format": "number"},
                {"path": "state", "header": "State", "format": "text"},
            ],
            decimals=1,
        ),
        _pane(
            "State of the pumps",
            (0, 8, 6, 3),
            "status",
            bindings=[_bind("plant", f"pumps[{k}].state", f"pump-{k + 1:02}") for k in range(3)],
            map=_PUMP,
        ),
        _pane(
            "Note",
            (6, 8, 6, 3),
            "text",
            text="Boiler service on 3 December, 08:00 to 10:00.\nValues pause meanwhile.",
        ),
    ]


def _rooms() -> list[dict[str, Any]]:
    return [
        _pane(
            room.capitalize(),
            (4 * place, 0, 4, 3),
            "value",
            bindings=[_bind("rooms", "temperature", topic=plant.topic(room))],
            unit="°C",
            decimals=1,
            thresholds=_COMFORT,
        )
        for place, room in enumerate(plant.ROOMS)
    ] + [
        _pane(
            "Temperature of the rooms",
            (0, 3, 8, 5),
            "series",
            bindings=[_bind("rooms", "temperature", room, topic=plant.topic(room)) for room in plant.ROOMS],
            unit="°C",
            decimals=1,
        ),
        _pane(
            "All rooms",
            (8, 3, 4, 5),
            "table",
            bindings=[_bind("rooms", "")],
            columns=[
                {"path": "temperature", "header": "°C", "format": "number"},
                {"path": "humidity", "header": "%", "format": "number"},
                {"path": "heater", "header": "W", "format": "number"},
            ],
        ),
        _pane("Supply", (0, 8, 4, 3), "sparkline", bindings=[_bind("supply", "flow")], unit="l/min", decimals=0),
        _pane("Mode", (4, 8, 4, 3), "value", bindings=[_bind("plant", "mode")]),
        _valve((8, 8, 4, 3)),
    ]


def _plant_room() -> list[dict[str, Any]]:
    return [
        _pane(
            f"Pump {k + 1}",
            (4 * k, 0, 4, 3),
            "gauge",
            bindings=[_bind("plant", f"pumps[{k}].speed")],
            unit="Hz",
            decimals=1,
            min=0,
            max=60,
            thresholds=[
                {"from": 0, "state": "ok", "label": "running"},
                {"from": 50.5, "state": "critical", "label": "over limit"},
            ],
        )
        for k in range(3)
    ] + [
        _pane(
            "Speed of the pumps",
            (0, 3, 8, 5),
            "series",
            bindings=[_bind("plant", f"pumps[{k}].speed", f"pump-{k + 1:02}") for k in range(3)],
            unit="Hz",
            decimals=1,
        ),
        _pane("Supply pumps", (8, 3, 4, 5), "table", bindings=[_bind("supply", "pumps[*].speed")], unit="Hz"),
        _pane("Attic", (0, 8, 12, 3), "sparkline", bindings=[_bind("rooms", "heater", topic=plant.topic("attic"))]),
    ]
