"""The page of the protocol shows real frames, and the AsyncAPI file describes what the code reads and sends."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

import pytest
from jsonschema import Draft7Validator, ValidationError
from pydantic.alias_generators import to_camel

from scripts import asyncapi_doc
from tests.docs.frames import PAGE, frames, shown, written
from tests.docs.pages import ROOT, code_words, headings, rows, section
from tidegate.domain.history import MOST_VALUE_BYTES, point_of
from tidegate.protocol import batches, messages
from tidegate.protocol.messages import BadMessage, EndReason, ErrorCode, Status
from tidegate.settings import load

TEXT = PAGE.read_text()
EXAMPLES = frames()
API = asyncapi_doc.described()
#: The JSON schema that AsyncAPI publishes of its specification, of the package `@asyncapi/specs`.
SPECIFICATION = ROOT / "node_modules/@asyncapi/specs/schemas" / f"{API['asyncapi']}.json"
SCHEMAS: dict[str, Any] = API["components"]["schemas"]
CLIENT = {
    kind.__name__[0].lower() + kind.__name__[1:].removesuffix("Message"): kind
    for kind in get_args(messages.ClientMessage)
}
#: The type in a client's message, where it is not the message's name.
TYPES = {"subscribeSeveral": "subscribe"}
NOW = 1_800_000_000.0
SEQ = "001800000000000-m"


def validator(name: str) -> Draft7Validator:
    return Draft7Validator({"$ref": f"#/components/schemas/{name}", "components": API["components"]})


def named(message: Mapping[str, Any]) -> str:
    """The name of a message in the AsyncAPI file."""
    return "subscribeSeveral" if "datasourceIds" in message else str(message["type"])


# --- the page -----------------------------------------------------------------------------------------------


def test_the_examples_are_those_of_a_run() -> None:
    assert written(TEXT, EXAMPLES) == TEXT, "run: python -m tests.docs.frames"
    assert sorted(shown(TEXT)) == sorted(EXAMPLES), "each example is shown once"


def test_every_kind_of_message_is_shown_under_its_name() -> None:
    shown_kinds = {named(json.loads(text)) for text in EXAMPLES.values()}
    assert shown_kinds == CLIENT.keys() | server_frames().keys()
    assert {TYPES.get(kind, kind) for kind in shown_kinds} <= set(headings(TEXT))


def test_every_error_code_is_explained() -> None:
    assert {code_words(row[0])[0] for row in rows(section(TEXT, "Error codes"))} == set(ErrorCode)
    assert all(f"`{state}`" in section(TEXT, "status") for state in Status)


# --- the AsyncAPI file --------------------------------------------------------------------------------------


def server_frames() -> dict[str, list[dict[str, Any]]]:
    """Frames of each kind, with the fewest fields and with the most."""
    ack, code, why = messages.ack(None, None, NOW), ErrorCode.AUTH_FAILED, EndReason.EXPIRED
    return {
        "ack": [ack, messages.refused("r", "d", code, "m", NOW, True, 1), messages.ack("r", "d", NOW, True)],
        "status": [
            messages.status("d", Status.CONNECTED, NOW),
            messages.status("d", Status.ERROR, NOW, code, "m", why),
        ],
        "error": [messages.error(None, code, "m", NOW), messages.error("d", code, "m", NOW, True, 1, why)],
        "document": [messages.document("d", 1, NOW)],
        "pong": [messages.pong(None, NOW), messages.pong("r", NOW)],
        "data": [
            json.loads(messages.data("d", "1", NOW, "7")),
            json.loads(messages.data("d", "{}", NOW, "7", retained=True)),
            json.loads(messages.data("d", "null", NOW, "7", topic="a/b", deleted=True)),
        ],
        "history": [
            json.loads(messages.history("d", [], NOW)),
            json.loads(messages.history("d", [point_of("1", 1, SEQ, 1000).encode()], NOW, topic="a/b")),
            json.loads(messages.history("d", [], NOW, recovered=True)),
        ],
        "batch": [json.loads(batches.joined([messages.encode(ack), messages.encode(ack)]))],
    }


def references(part: object) -> Iterator[str]:
    if isinstance(part, dict):
        for key, value in part.items():
            yield from [value] if key == "$ref" else references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def specified() -> Draft7Validator:
    return Draft7Validator(json.loads(SPECIFICATION.read_text()))


def test_the_file_is_as_asyncapi_specifies() -> None:
    assert not [f"{list(wrong.absolute_path)}: {wrong.message}" for wrong in specified().iter_errors(API)]


@pytest.mark.parametrize(
    "place", [(), ("info",), ("channels", "realtime"), ("operations", "toClient"), ("components", "messages", "ack")]
)
def test_the_specification_knows_every_part(place: Sequence[str]) -> None:
    broken = copy.deepcopy(API)
    part: Any = broken
    for step in place:
        part = part[step]
    part["unheard"] = 1
    assert not specified().is_valid(broken)


def test_the_page_of_messages_is_current() -> None:
    assert asyncapi_doc.TARGET.read_text() == asyncapi_doc.render(), "run: python scripts/asyncapi_doc.py"
    assert CLIENT.keys() | server_frames().keys() | SCHEMAS.keys() == set(headings(asyncapi_doc.TARGET.read_text())) - {
        "Messages of the browser protocol",
        "What a client sends",
        "What the server sends",
        "Parts",
    }


def test_the_file_is_whole() -> None:
    for reference in references(API):
        there: Any = API
        for step in reference.removeprefix("#/").split("/"):
            there = there[step]
    for name in SCHEMAS:
        Draft7Validator.check_schema(SCHEMAS[name])


def test_numbers_and_addresses_are_those_of_the_code() -> None:
    most = load({"TIDEGATE_ENV": "development"}).max_subscriptions_per_connection
    assert f"{most} by default" in SCHEMAS["subscribeSeveral"]["properties"]["datasourceIds"]["description"]
    assert f"than {MOST_VALUE_BYTES} bytes" in SCHEMAS["point"]["properties"]["last"]["description"]
    assert SCHEMAS["seq"]["pattern"] == f"^{messages._IS_SEQ.pattern}$"
    channel = API["channels"]["realtime"]
    assert f'"{channel["address"]}": cloudfront.BehaviorOptions' in (ROOT / "infra/edge.py").read_text()
    asked = "".join(f'query.get("{name}") == "{each["const"]}"' for name, each in queried().items())
    handshake = (ROOT / "functions/gateway_connect/connect.py").read_text()
    assert asked in handshake and handshake.count("query.get(") == len(queried())


def queried() -> Mapping[str, Any]:
    """The parameters of the address's query."""
    found: Mapping[str, Any] = API["channels"]["realtime"]["bindings"]["ws"]["query"]["properties"]
    return found


def test_a_point_has_the_fields_of_the_code() -> None:
    largest = json.dumps("x" * MOST_VALUE_BYTES)
    made = [json.loads(point_of(text, 1, SEQ, 1000).encode()) for text in ("1.5", '"x"', largest)]
    assert SCHEMAS["point"]["properties"].keys() == set().union(*made)
    assert set(SCHEMAS["point"]["required"]) == set(made[0]).intersection(*made)


def test_every_message_is_in_the_channel_and_in_one_operation() -> None:
    def named(operation: str) -> list[str]:
        return [each["$ref"].rpartition("/")[2] for each in API["operations"][operation]["messages"]]

    assert named("fromClient") == list(CLIENT)
    assert set(named("toClient")) == server_frames().keys()
    assert set(API["channels"]["realtime"]["messages"]) == set(named("fromClient") + named("toClient"))
    assert set(API["components"]["messages"]) == set(API["channels"]["realtime"]["messages"])
    for name, message in API["components"]["messages"].items():
        assert message["payload"]["$ref"] == f"#/components/schemas/{name}"
        assert SCHEMAS[name]["properties"]["type"] == {"const": TYPES.get(name, name)}


@pytest.mark.parametrize("name", sorted(server_frames()))
def test_frames_have_the_fields_of_the_code(name: str) -> None:
    made = server_frames()[name]
    assert SCHEMAS[name]["properties"].keys() == set().union(*made)
    assert set(SCHEMAS[name]["required"]) == set(made[0]).intersection(*made)
    for frame in made:
        validator(name).validate(frame)


@pytest.mark.parametrize("name", sorted(CLIENT))
def test_client_messages_have_the_fields_of_the_code(name: str) -> None:
    fields = [to_camel(field.name) for field in dataclasses.fields(CLIENT[name])]
    assert SCHEMAS[name]["properties"].keys() == {"type", *fields}
    message: dict[str, Any] = {"type": TYPES.get(name, name)}
    message |= {field: ["x"] if field.endswith("Ids") else "x" for field in fields}
    if "since" in fields:
        message["since"] = {"x": SEQ} if "datasourceIds" in fields else SEQ
    assert type(messages.parse(json.dumps(message), 1000, NOW)) is CLIENT[name]
    for left_out in fields:
        shorter = {key: value for key, value in message.items() if key != left_out}
        blank = message | {left_out: " "}
        if left_out in SCHEMAS[name]["required"]:
            for wrong in (shorter, blank):
                with pytest.raises(BadMessage):
                    messages.parse(json.dumps(wrong), 1000, NOW)
                with pytest.raises(ValidationError):
                    validator(name).validate(wrong)
        else:
            messages.parse(json.dumps(shorter), 1000, NOW)
            validator(name).validate(shorter)


def test_codes_and_states_are_those_of_the_code() -> None:
    assert SCHEMAS["endReason"]["enum"] == list(EndReason)
    reasons = {code_words(row[0])[0] for row in rows(section(TEXT, "How a subscription ends"))}
    assert reasons == set(EndReason), "the page says when each of them comes"
    assert SCHEMAS["errorCode"]["enum"] == list(ErrorCode) and SCHEMAS["state"]["enum"] == list(Status)


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_examples_are_as_the_file_says(name: str) -> None:
    message = json.loads(EXAMPLES[name])
    validator(named(message)).validate(message)
    if message["type"] not in CLIENT:
        with pytest.raises(ValidationError):
            validator(message["type"]).validate(message | {"unheard": 1})
