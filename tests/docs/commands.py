"""Finding the commands that the documents tell a reader to run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.docs.pages import PAGES, ROOT, name_of, without_blocks

#: Languages of fenced blocks; those of the first line are commands.
SHELL = ("sh", "bash", "console")
OTHER = ("python", "json", "yaml")
#: What a command in an indented block, or within a sentence, begins with.
PROGRAMS = (
    *("make", "python", "python3", ".venv/bin/python", "pip", "pipx", "pre-commit", "uv", "git", "curl", "wget"),
    *("sh", "bash", "npm", "npx", "node", "cdk", "aws", "docker", "ruff", "mypy", "pytest", "lint-imports", "sudo"),
    *("cd", "export", "rm", "mkdir", "cp", "cat", "tail", "kill"),
)
_ASSIGNMENT = re.compile(r"^(?:[A-Z_]+=\S+ )+")


@dataclass(frozen=True)
class Command:
    """A command as the page has it: on one line, without a comment."""

    page: str
    text: str

    @property
    def plain(self) -> str:
        """Without variables that are set in front of it."""
        return _ASSIGNMENT.sub("", self.text)


def told_pages() -> list[Path]:
    """The pages that tell a reader what to do. The changelog tells of what was."""
    return [page for page in PAGES if page != ROOT / "CHANGELOG.md"]


def fenced(text: str) -> list[tuple[str, str]]:
    """(language, content) of the fenced blocks."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)


def indented(text: str) -> list[str]:
    """Contents of the indented blocks. Text that belongs to the entry of a list is none."""
    found = re.findall(r"(?<=\n\n)((?: {4}.*\n)(?: {4}.*\n|\n(?= {4}))*)", without_blocks(text))
    return [re.sub(r"^ {4}", "", block, flags=re.M) for block in found]


def commands(text: str, page: str = "") -> Iterator[Command]:
    """Every command of a page: of shell blocks, of indented blocks of commands, and within sentences."""
    for language, block in fenced(text):
        if language in SHELL:
            yield from _lines(page, block)
    for block in indented(text):
        if _is_command(block):
            yield from _lines(page, block)
    for word in re.findall(r"`([^`\n]+)`", without_blocks(text)):
        if " " in word and _is_command(word):
            yield Command(page, word)


def of_page(page: Path) -> list[Command]:
    """Every command of a page, in order of the kinds."""
    return list(commands(page.read_text(), name_of(page)))


def _is_command(text: str) -> bool:
    return _ASSIGNMENT.sub("", text).split(maxsplit=1)[0] in PROGRAMS


def _lines(page: str, block: str) -> Iterator[Command]:
    for line in re.sub(r"\s*\\\n\s*", " ", block).splitlines():
        command = re.sub(r"\s{2,}#.*$", "", line).strip()
        if command and not command.startswith("#"):
            yield Command(page, command)
