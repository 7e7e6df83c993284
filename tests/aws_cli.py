"""Commands of the AWS CLI: read, compared with AWS's own description of its API, and run with boto3.

The CLI makes its commands from the same description that botocore has. So a command that this module finds right is one
that the CLI knows. `python -m tests.aws_cli iot create-thing --thing-name x` stands in for the CLI, which the checkout
does not bring: it pins a botocore of its own.
"""

from __future__ import annotations

import functools
import json
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import botocore.session
import jmespath
from botocore import xform_name
from botocore.model import ListShape, OperationModel, ServiceModel, Shape, StructureShape

#: Options of every command that pages use.
GLOBAL = {"--query", "--output", "--region", "--profile"}
OUTPUTS = ("json", "text")
#: Options that the CLI itself adds to a command: where a part of the answer is written (awscli/customizations/iot.py).
OUTFILES = {
    "create-keys-and-certificate": {
        "--certificate-pem-outfile": "certificatePem",
        "--public-key-outfile": "keyPair.PublicKey",
        "--private-key-outfile": "keyPair.PrivateKey",
    }
}


class NotACommand(ValueError):
    """What is wrong with a command, and what is allowed."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command that AWS's description of its API knows.

    Attributes:
        service: such as `iot`.
        operation: such as `CreateThing`.
        parameters: of the call, as boto3 takes them.
        outfiles: path -> where in the answer its content is, as JMESPath.
        query: what of the answer is printed, as JMESPath; None for all of it.
        output: `json` or `text`.
    """

    service: str
    operation: str
    parameters: Mapping[str, Any]
    outfiles: Mapping[str, str]
    query: str | None
    output: str


@functools.cache
def _service(name: str) -> ServiceModel:
    session = botocore.session.get_session()
    if name not in session.get_available_services():
        raise NotACommand(f"{name}: no such service")
    return ServiceModel(session.get_component("data_loader").load_service_model(name, "service-2"), name)


def read(words: Sequence[str]) -> Command:
    """Read a command, without the `aws` before it. Raises `NotACommand`."""
    if len(words) < 2:
        raise NotACommand("a command has a service and an operation")
    service = _service(words[0])
    named = {xform_name(name, "-"): name for name in service.operation_names}
    if words[1] not in named:
        raise NotACommand(f"{words[0]} {words[1]}: no such operation")
    operation = service.operation_model(named[words[1]])
    given = dict(_options(words[2:]))
    outfiles = OUTFILES.get(words[1], {})
    output, query = _one(given, "--output") or "json", _one(given, "--query")
    if output not in OUTPUTS:
        raise NotACommand(f"--output {output}; allowed: {', '.join(OUTPUTS)}")
    if query is not None:
        _check_query(query, operation)
    own = {option: values for option, values in given.items() if option not in {*GLOBAL, *outfiles}}
    written = {_one(given, option): where for option, where in outfiles.items() if option in given}
    return Command(
        words[0],
        operation.name,
        _parameters(own, operation),
        {path: where for path, where in written.items() if path},
        query,
        output,
    )


def _options(words: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Each option with the words up to the next one."""
    at = 0
    while at < len(words):
        if not words[at].startswith("--"):
            raise NotACommand(f"{words[at]}: not an option")
        end = at + 1
        while end < len(words) and not words[end].startswith("--"):
            end += 1
        yield words[at], list(words[at + 1 : end])
        at = end


def _one(given: Mapping[str, list[str]], option: str) -> str | None:
    if option not in given:
        return None
    if len(given[option]) != 1:
        raise NotACommand(f"{option} takes one value")
    return given[option][0]


def _parameters(given: Mapping[str, list[str]], operation: OperationModel) -> dict[str, Any]:
    shape = operation.input_shape
    members = shape.members if isinstance(shape, StructureShape) else {}
    options = {f"--{xform_name(name, '-')}": (name, True) for name in members}
    flags = {
        f"--no-{xform_name(name, '-')}": (name, False) for name, each in members.items() if each.type_name == "boolean"
    }
    found = {}
    for option, values in given.items():
        if option not in options | flags:
            raise NotACommand(f"{option}: no such option; allowed: {', '.join(sorted(options | flags))}")
        name, positive = (options | flags)[option]
        found[name] = _value(option, values, members[name]) if members[name].type_name != "boolean" else positive
    missing = set(shape.required_members if isinstance(shape, StructureShape) else ()) - found.keys()
    if missing:
        raise NotACommand(f"missing: {', '.join(sorted(missing))}")
    return found


def _value(option: str, values: list[str], shape: Shape) -> Any:
    if isinstance(shape, ListShape) and shape.member.type_name == "string":
        return values
    (text,) = values if len(values) == 1 else [None]
    if text is None:
        raise NotACommand(f"{option} takes one value")
    match shape.type_name:
        case "string":
            allowed = getattr(shape, "enum", [])
            if allowed and text not in allowed and not text.startswith("$"):
                raise NotACommand(f"{option} {text}; allowed: {', '.join(allowed)}")
            return text
        case "integer" | "long":
            return int(text)
        case _:
            return json.loads(text)


def _check_query(query: str, operation: OperationModel) -> None:
    """Every field that a query names is one of the answer."""
    known = set(_fields(operation.output_shape, ()))
    for name in _named(jmespath.compile(query).parsed):
        if name not in known:
            raise NotACommand(f"--query {query}: the answer of {operation.name} has no {name}")


def _fields(shape: Shape | None, above: tuple[str, ...]) -> Iterator[str]:
    """Names of all fields of an answer. A shape within itself is looked into once."""
    if shape is None or shape.name in above:
        return
    if isinstance(shape, StructureShape):
        for name, member in shape.members.items():
            yield name
            yield from _fields(member, (*above, shape.name))
    elif isinstance(shape, ListShape):
        yield from _fields(shape.member, (*above, shape.name))


def _named(node: Mapping[str, Any]) -> Iterator[str]:
    if node["type"] == "field":
        yield node["value"]
    for child in node.get("children", ()):
        if isinstance(child, Mapping):
            yield from _named(child)


def commands_in(text: str) -> list[list[str]]:
    """The words of every `aws …` in shell text, also of those within `$(…)`. What is filled in stays as it is written.

    Lines that go on are to be joined before. A description such as `<ARN of the queue>` is one word.
    """
    found = []
    for line in re.sub(r"<(\w[^<>|]*)>", lambda told: told[1].replace(" ", "_"), text).splitlines():
        rest = line
        while (start := _start(rest)) is not None:
            rest = rest[start:]
            words = _words(rest)
            found.append(words[1:])
            rest = rest[len("aws") :]
    return found


def _start(line: str) -> int | None:
    """Where the next command begins: at the start of what the shell reads as one."""
    for at in range(len(line)):
        before = line[:at].rstrip()
        if line.startswith("aws ", at) and (not before or before.endswith(("$(", "{", "|", "&&", ";", "`"))):
            return at
    return None


def _words(text: str) -> list[str]:
    """The words up to where the command ends. An inner command within quotes is one word."""
    reader = shlex.shlex(text, posix=True, punctuation_chars="()|;&")
    reader.whitespace_split = True
    words: list[str] = []
    for word in reader:
        if set(word) <= set("()|;&") or word == "}":
            break
        words.append(word)
    return words


def run(words: Sequence[str]) -> str:
    """Make the call, with the endpoint and the credentials of the environment. Returns what the CLI would print."""
    command = read(words)
    call = getattr(boto3.client(command.service), xform_name(command.operation))  # type: ignore[call-overload]
    answer = call(**command.parameters)
    answer.pop("ResponseMetadata", None)
    for path, where in command.outfiles.items():
        Path(path).write_text(jmespath.search(where, answer))
    shown = answer if command.query is None else jmespath.search(command.query, answer)
    if shown in ({}, None):
        return ""
    if command.output == "text":
        return "\t".join(map(str, shown)) if isinstance(shown, list) else str(shown)
    return json.dumps(shown, indent=4, default=str)


if __name__ == "__main__":
    if printed := run(sys.argv[1:]):
        sys.stdout.write(f"{printed}\n")
