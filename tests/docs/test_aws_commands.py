"""Every command of the AWS CLI in a page is one: service, operation, options, and what it asks of the answer.

So a misspelt option is found without an account. What the commands do, a run against the emulator shows:
tests/e2e/test_first_device.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.aws_cli import NotACommand, commands_in, read
from tests.docs.commands import LISTED
from tests.docs.pages import PAGES, ROOT, name_of


def commands_of(page: Path) -> Iterator[list[str]]:
    """In blocks of commands, in indented lines, and in code within sentences that has an operation."""
    text = page.read_text().replace("\\\n", " ")
    for block in re.findall(r"^```sh\n(.*?)^```$", text, re.M | re.S):
        yield from commands_in(block)
    rest = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    yield from commands_in("\n".join(re.findall(r"^ {4}(\S.*)$", rest, re.M)))
    yield from commands_in("\n".join(re.findall(r"`(aws [a-z0-9-]+ [^`]+)`", rest)))


#: A command of the CLI's own, which AWS's description of its API does not have.
LOG_IN = ["sso", "login"]
FOUND = [(page, words) for page in PAGES if page != LISTED for words in commands_of(page) if words != LOG_IN]


@pytest.mark.parametrize(
    ("page", "words"), FOUND, ids=lambda part: name_of(part) if isinstance(part, Path) else part[1]
)
def test_a_command_is_one(page: Path, words: list[str]) -> None:
    read(words)


def test_every_command_of_the_device_is_found() -> None:
    page = ROOT / "docs/start/your-first-device.md"
    assert len(list(commands_of(page))) == len(re.findall(r"\baws (?:iot|cloudformation) ", page.read_text()))


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("aws iott create-thing --thing-name x", "iott: no such service"),
        ("aws iot create-things --thing-name x", "iot create-things: no such operation"),
        ("aws iot create-thing --name x", "--name: no such option"),
        ("aws iot create-thing", "missing: thingName"),
        ("aws iot create-thing --thing-name", "--thing-name takes one value"),
        ("aws iot create-thing x", "x: not an option"),
        ("aws iot update-certificate --certificate-id x --new-status OFF", "--new-status OFF; allowed: ACTIVE"),
        ("aws iot describe-endpoint --query endpoint", "DescribeEndpoint has no endpoint"),
        ("aws iot describe-endpoint --output texts", "--output texts; allowed: json, text"),
    ],
)
def test_a_command_that_is_none_is_noticed(line: str, wrong: str) -> None:
    (words,) = commands_in(line)
    with pytest.raises(NotACommand, match=re.escape(wrong)):
        read(words)


def test_commands_are_found_wherever_they_stand() -> None:
    text = (
        "A=$(aws iot list-things --query \"things[?thingName=='$1']\" --output text) && aws sts get-caller-identity\n"
        'f() { aws iot describe-endpoint; }\naws iot attach-policy --policy-name "$(output Name)" --target "$A"\n'
        "the aws cli, laws of aws\n"
    )
    assert commands_in(text) == [
        ["iot", "list-things", "--query", "things[?thingName=='$1']", "--output", "text"],
        ["sts", "get-caller-identity"],
        ["iot", "describe-endpoint"],
        ["iot", "attach-policy", "--policy-name", "$(output Name)", "--target", "$A"],
    ]
