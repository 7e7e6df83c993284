"""Write docs/reference/protocol-messages.md from docs/reference/asyncapi.yaml; the page says how.

A test keeps both equal. Other tests hold the AsyncAPI file to its specification and to the code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from scripts.markdown import table

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "docs/reference/asyncapi.yaml"
TARGET = ROOT / "docs/reference/protocol-messages.md"

_HEAD = """# Messages of the browser protocol

Every message and every field, as [asyncapi.yaml](asyncapi.yaml) has them for programs. What they mean, when they come,
and real examples are in the [protocol](protocol.md).

This page is generated. After a change of `asyncapi.yaml`, run:

    PYTHONPATH=layers/tidegate/python:. .venv/bin/python scripts/asyncapi_doc.py

Tests compare `asyncapi.yaml` with the specification of AsyncAPI, and each message and field of it with what the code
reads and sends.

"""
#: What each operation is for a reader. The file is written as the server sees it.
_DIRECTIONS = {"receive": "What a client sends", "send": "What the server sends"}
#: What the sender of a kind of message may add to it.
_MORE = {"receive": "Further fields are ignored.", "send": "There are no other fields."}


def described() -> dict[str, Any]:
    """The AsyncAPI document."""
    document: dict[str, Any] = yaml.safe_load(SOURCE.read_text())
    return document


def _name(reference: str) -> str:
    return reference.rpartition("/")[2]


def _type(schema: Mapping[str, Any]) -> str:
    """A schema in words."""
    if "$ref" in schema:
        return f"[{_name(schema['$ref'])}](#{_name(schema['$ref']).lower()})"
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            return " or ".join(_type(option) for option in schema[choice])
    if "const" in schema:
        return f"`{schema['const']}`" if isinstance(schema["const"], str) else str(schema["const"]).lower()
    if "enum" in schema:
        return "one of " + ", ".join(f"`{value}`" for value in schema["enum"])
    kind = schema.get("type", "any")
    if kind == "array":
        least = f", at least {schema['minItems']}" if "minItems" in schema else ""
        return f"list of {_type(schema['items'])}{least}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), Mapping):
        return f"object: name to {_type(schema['additionalProperties'])}"
    least = f", at least {schema['minimum']}" if "minimum" in schema else ""
    return (kind if isinstance(kind, str) else " or ".join(kind)) + least


def _fields(schema: Mapping[str, Any]) -> str:
    required = schema.get("required", ())
    rows = [
        [f"`{name}`", _type(field), "always" if name in required else "optional", str(field.get("description", ""))]
        for name, field in schema["properties"].items()
    ]
    return table(["field", "type", "", "meaning"], rows)


def _heading(name: str, schema: Mapping[str, Any]) -> str:
    """The part of the protocol's page on a message: its type, unless the page has one for the message itself."""
    kind = str(schema["properties"]["type"]["const"])
    return kind if kind == name else "subscribe-to-several"


def _message(name: str, message: Mapping[str, Any], document: Mapping[str, Any], action: str) -> str:
    schema = document["components"]["schemas"][_name(message["payload"]["$ref"])]
    text = (
        f"\n### {name}\n\n{message['summary']} [Examples](protocol.md#{_heading(name, schema)}).\n\n{_fields(schema)}"
    )
    without = schema.get("not", {}).get("required", ())
    text += "".join(f"\nNever with `{field}`.\n" for field in without)
    return text + f"\n{_MORE[action]}\n"


def _used(schema: object) -> Iterator[str]:
    """Names of the schemas that a part of the file refers to."""
    if isinstance(schema, Mapping):
        if "$ref" in schema:
            yield _name(str(schema["$ref"]))
        for value in schema.values():
            yield from _used(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _used(value)


def _part(name: str, schema: Mapping[str, Any]) -> str:
    text = f"\n### {name}\n\n"
    if "description" in schema:
        text += f"{schema['description']}\n\n"
    if "properties" in schema:
        return text + _fields(schema)
    pattern = f", matching `{schema['pattern']}`" if "pattern" in schema else ""
    return f"{text}{_type(schema)[0].upper()}{_type(schema)[1:]}{pattern}.\n"


def render() -> str:
    """The whole page."""
    document = described()
    (channel,) = document["channels"].values()
    (server,) = document["servers"].values()
    page = _HEAD + f"The address is `{server['protocol']}://{server['host']}{channel['address']}`. Of its query:\n\n"
    query = channel["bindings"]["ws"]["query"]["properties"]
    page += table(
        ["parameter", "value", "meaning"],
        [[f"`{name}`", _type(each), each["description"]] for name, each in query.items()],
    )
    for operation in document["operations"].values():
        action = operation["action"]
        page += f"\n## {_DIRECTIONS[action]}\n"
        for reference in operation["messages"]:
            name = _name(reference["$ref"])
            page += _message(name, document["components"]["messages"][name], document, action)
    schemas = document["components"]["schemas"]
    parts = sorted({name for name in _used(schemas) if name not in document["components"]["messages"]})
    return page + "\n## Parts\n" + "".join(_part(name, schemas[name]) for name in parts)


if __name__ == "__main__":
    TARGET.write_text(render())
