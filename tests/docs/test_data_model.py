"""The page of the data model has every table, key, index, attribute and write of the code, and no other."""

from __future__ import annotations

import ast
import re

import pytest

from tests.docs.pages import PACKAGE, REFERENCE, code_words, rows, section
from tidegate.tables import ALL_TABLES, Key, Table

PAGE = (REFERENCE / "data-model.md").read_text()
ADAPTERS = PACKAGE / "adapters/dynamodb"
#: Modules that read and write a table's items.
MODULES = {
    "streams": ("streams", "relay_leases", "schedule_state"),
    "last_values": ("streams",),
    "limiters": ("limits", "attempts", "send_quota", "upstream_holds"),
}
#: Placeholders of names that are not attributes, but keys inside one.
INSIDE = {"datasource", "step", "stream", "window"}
ACTIONS = {"put", "put_many", "update", "delete", "delete_many", "transact"}
ACTION_FUNCTIONS = {"put_action", "update_action", "delete_action", "check_action"}


def modules(table: Table) -> list[ast.Module]:
    return [ast.parse((ADAPTERS / f"{name}.py").read_text()) for name in MODULES.get(table.name, (table.name,))]


def parts(text: str) -> list[str]:
    """The tables of a text, each as it stands there."""
    return re.findall(r"(?:^\|.*\|\n?)+", text, re.M)


def named(key: Key) -> str:
    return f"`{key.name}` ({key.type})"


@pytest.mark.parametrize("table", ALL_TABLES, ids=lambda table: table.name)
def test_every_table_has_its_keys(table: Table) -> None:
    head = section(PAGE, table.name).strip().split("\n\n")[0]
    assert f"Partition key {named(table.partition)}" in head
    if table.sort:
        assert f"ort key\n{named(table.sort)}" in head or f"ort key {named(table.sort)}" in head
    assert ("Time to live" in head) is table.ttl and ("Streamed" in head) is bool(table.stream)
    (owner,) = [row for row in rows(PAGE.partition("## dashboards")[0]) if f"[`{table.name}`]" in row[0]]
    assert owner[3] == ("yes" if table.backed_up else "no")
    assert {f"adapters/dynamodb/{name}.py" for name in MODULES.get(table.name, (table.name,))} == set(
        code_words(owner[2])
    )


@pytest.mark.parametrize("table", ALL_TABLES, ids=lambda table: table.name)
def test_every_index_has_its_keys_and_what_it_projects(table: Table) -> None:
    tables = [part for part in parts(section(PAGE, table.name)) if part.startswith("| index |")]
    described = {code_words(row[0])[0]: row for row in rows("\n".join(tables))}
    assert described.keys() == {index.name for index in table.indexes}
    for index in table.indexes:
        _, keys, projected, _ = described[index.name]
        assert code_words(keys) == [key.name for key in (index.partition, index.sort) if key]
        assert code_words(projected) == list(index.include)
        assert projected == {"ALL": "everything", "KEYS_ONLY": "keys"}[index.projection] or index.include


def attributes(module: ast.Module) -> set[str]:
    """Attributes that a module names: in expressions as `#name`, and on items that it reads or builds."""
    found: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= (
                set(re.findall(r"#([a-z_]+)\b", node.value)) if re.search(r"(^|[ (,.])#[a-z]", node.value) else set()
            )
        if isinstance(node, ast.Subscript) and getattr(node.value, "id", "") == "item":
            found.add(ast.literal_eval(node.slice))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
            owner = getattr(node.func.value, "id", "")
            literal = owner in ("item", "known") and isinstance(node.args[0], ast.Constant)
            found |= {ast.literal_eval(node.args[0])} if literal else set()
        if isinstance(node, ast.Dict) and len(node.keys) > 4:
            found |= {key.value for key in node.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}
    return found - INSIDE


def described_attributes(text: str) -> set[str]:
    """What the page lists as attributes: in the column of that name, or in a list of attributes with their types."""
    found: set[str] = set()
    for table in parts(text):
        heads = [cell.strip() for cell in table.splitlines()[0].strip("|").split("|")]
        for row in rows(table):
            if heads[0] == "attribute":
                found |= set(code_words(row[0]))
            elif "attributes" in heads:
                found |= set(re.findall(r"`([a-z_]+)` \(", row[heads.index("attributes")]))
    return found


def strings(table: Table) -> str:
    return "\n".join(ast.unparse(module) for module in modules(table))


@pytest.mark.parametrize("table", ALL_TABLES, ids=lambda table: table.name)
def test_every_attribute_on_the_page_is_in_the_code(table: Table) -> None:
    code = strings(table)
    for name in described_attributes(section(PAGE, table.name)):
        assert re.search(rf"['\"#]{name}\b", code) or name == "ttl", name


@pytest.mark.parametrize(
    "owner", sorted({each for table in ALL_TABLES for each in MODULES.get(table.name, (table.name,))})
)
def test_every_attribute_in_the_code_is_on_the_page(owner: str) -> None:
    tables = [table for table in ALL_TABLES if owner in MODULES.get(table.name, (table.name,))]
    keys = {key.name for table in tables for key in (table.partition, table.sort) if key}
    described = set().union(*(described_attributes(section(PAGE, table.name)) for table in tables)) | keys
    if owner == "profiles":  # the parts of its keys
        described |= {"kind", "id"}
    missing = attributes(ast.parse((ADAPTERS / f"{owner}.py").read_text())) - described
    assert not missing - _prefixes(owner)


def _prefixes(owner: str) -> set[str]:
    """Words in keys, which are written with a number sign too."""
    return {"access": {"dash", "user", "intents"}}.get(owner, set())


# --- writes -------------------------------------------------------------------------------------------------


def _calls(function: ast.FunctionDef) -> set[str]:
    """What a function calls, by its last name; `self._db.put` is `db.put`."""
    found = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Attribute):
                owner = called.value.attr if isinstance(called.value, ast.Attribute) else ""
                found.add(f"db.{called.attr}" if owner == "_db" else called.attr)
            elif isinstance(called, ast.Name):
                found.add(called.id)
    return found


def writers(module: ast.Module) -> set[str]:
    """Public functions and methods of a module that write, themselves or through a private one of the module."""
    calls: dict[str, set[str]] = {}
    for node in module.body:
        if isinstance(node, ast.FunctionDef):
            calls[node.name] = _calls(node)
        if isinstance(node, ast.ClassDef):
            methods = [each for each in node.body if isinstance(each, ast.FunctionDef)]
            calls |= {f"{node.name}.{each.name}": _calls(each) for each in methods}
    writing, before = {f"db.{action}" for action in ACTIONS} | ACTION_FUNCTIONS, set[str]()
    while writing != before:
        before = set(writing)
        found = {name for name, called in calls.items() if called & writing}
        writing |= {last for name in found if (last := name.rpartition(".")[2]).startswith("_")}
    return {name for name in found if not name.rpartition(".")[2].startswith("_")}


def described_writers(table: Table) -> set[str]:
    text = section(PAGE, table.name)
    found: set[str] = set()
    for part in parts(text):
        if part.startswith("| write |"):
            found |= {
                name
                for row in rows(part)
                for name in code_words(row[0])
                if re.fullmatch(r"[A-Z]\w+\.\w+|[a-z]+(_[a-z]+)*_actions?|put_\w+", name)
            }
            assert all(row[1] and row[2] for row in rows(part)), "a condition, and who writes"
    return found


@pytest.mark.parametrize(
    "owner", sorted(file.stem for file in ADAPTERS.glob("*.py") if file.stem not in ("__init__", "client"))
)
def test_every_write_is_described_and_no_other(owner: str) -> None:
    tables = [table for table in ALL_TABLES if owner in MODULES.get(table.name, (table.name,))]
    described = set().union(*(described_writers(table) for table in tables))
    beside = {each for each, modules in MODULES.items() if owner in modules and len(modules) > 1}
    others = {each for table in beside for each in MODULES[table] if each != owner}
    others_write = set().union(*(writers(ast.parse((ADAPTERS / f"{each}.py").read_text())) for each in others))
    assert described - others_write == writers(ast.parse((ADAPTERS / f"{owner}.py").read_text()))
