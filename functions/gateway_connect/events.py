"""Reads API Gateway's WebSocket events, in the same way for every handler here."""

from __future__ import annotations

from typing import Any


class WrongEvent(ValueError):
    """The event is not of the kind that this handler serves: a route points to the wrong function."""


def context_of(event: dict[str, Any], event_type: str) -> dict[str, Any]:
    """The request context of an event of the given type. Raises `WrongEvent`."""
    context: dict[str, Any] = event.get("requestContext") or {}
    if context.get("eventType") != event_type or not context.get("connectionId"):
        raise WrongEvent(f"expected a {event_type} event, got {context.get('eventType')!r}")
    return context


def header_values(event: dict[str, Any], name: str) -> list[str]:
    """All values of a header, in upper or lower case: the platform sends canonical case, emulators lower case.

    `name` is in lower case.
    """
    several: dict[str, list[str]] = event.get("multiValueHeaders") or {}
    values = [value for key, listed in several.items() if key.lower() == name for value in listed]
    if values:
        return values
    single: dict[str, str] = event.get("headers") or {}
    return [value for key, value in single.items() if key.lower() == name]
