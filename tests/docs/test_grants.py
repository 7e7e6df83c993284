"""Who may write a table, as the data-model page has it, is what the stack grants."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from tests.docs.pages import REFERENCE, ROOT, code_words, section
from tidegate import tables
from tidegate.tables import ALL_TABLES

PAGE = (REFERENCE / "data-model.md").read_text()
WRITES = {"PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem"}
#: Head of the tables that say who may write.
HEAD = "| function | may write with | for |"


def evaluated(node: ast.expr, names: Mapping[str, object]) -> Any:
    """What an expression comes to; a name that is not known here is a switch of the stage, and on."""
    known: dict[str, object] = defaultdict(lambda: True, names)
    return eval(ast.unparse(node), {}, known)  # noqa: S307  (the project's own text)


def granted_in(tree: ast.Module, names: Mapping[str, object]) -> Iterator[tuple[tuple[str, str], set[str]]]:
    """What the calls `Function(handler=..., actions=...)` of a module grant."""
    for call in ast.walk(tree):
        given = {keyword.arg: keyword.value for keyword in call.keywords} if isinstance(call, ast.Call) else {}
        if {"handler", "actions"} <= given.keys() and isinstance(given["handler"], ast.Constant):
            package, module, _ = str(given["handler"].value).split(".")
            for table, actions in evaluated(given["actions"], names).items():
                yield (table.name, f"functions/{package}/{module}.py"), set(actions) & WRITES


def grants() -> dict[tuple[str, str], set[str]]:
    """(table, module of the handler) -> the writing actions that `infra/` grants to it.

    Read from the text, because the CDK would start a process. What only a gateway with a remote API has is in it.
    """
    trees = [ast.parse(path.read_text()) for path in sorted((ROOT / "infra").glob("*.py"))]
    names: dict[str, object] = {"t": tables}
    for node in [node for tree in trees for node in tree.body]:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict | ast.List):
            with suppress(AttributeError, TypeError):  # of the CDK: no list of actions
                names[ast.unparse(node.targets[0])] = evaluated(node.value, names)
    return {place: actions for tree in trees for place, actions in granted_in(tree, names) if actions}


def described() -> dict[tuple[str, str], set[str]]:
    """The same, as the page says it."""
    found = {}
    for table in ALL_TABLES:
        for line in section(PAGE, table.name).partition(HEAD)[2].strip().splitlines()[1:]:
            function, actions, _ = line.strip("|").split("|")
            found[table.name, code_words(function)[0]] = set(actions.strip().split(", "))
    return found


def test_who_may_write_a_table_is_what_the_stack_grants() -> None:
    granted = grants()
    assert granted["subscriptions", "functions/gateway_connect/disconnect.py"] == {"BatchWriteItem"}
    assert ("audit", "functions/api/main.py") in granted
    assert described() == granted
