"""The data-model page names every table, index, key, attribute, write and grant that there is, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidegate.tables import ALL_TABLES, TTL_ATTRIBUTE, Table

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/reference/data-model.md").read_text()
ADAPTERS = ROOT / "layers/tidegate/python/tidegate/adapters/dynamodb"
#: The tables whose items a module writes; without an entry, the one of the module's name.
TABLES_OF = {"streams": ("streams", "last_values"), "relay_leases": ("streams",), "limits": ("limiters",)}
#: Aliases of expressions that stand for the key of a map, which is data.
DATA_ALIASES = {"datasource", "step"}
DATABASE_WRITES = {"put", "update", "delete", "delete_many", "transact"}
ACTION_WRITES = {"put_action", "update_action", "delete_action"}
GRANTED_WRITES = {"PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem"}


def section(table: str) -> str:
    found = re.search(rf"^## {table}\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
    assert found, f"the page has no section {table}"
    return found.group(1)


def rows(text: str, header: str) -> list[list[str]]:
    """Cells of every table of the text whose header begins with `header`."""
    found, inside = [], False
    for line in text.splitlines():
        if not line.startswith("|"):
            inside = False
        elif line.startswith(f"| {header} |"):
            inside = True
        elif inside and not line.startswith("|---"):
            found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def attributes_on_the_page(table: str) -> set[str]:
    return {quoted(row[0])[0] for row in rows(section(table), "attribute")}


def modules() -> list[Path]:
    return sorted(path for path in ADAPTERS.glob("*.py") if path.stem not in ("__init__", "client"))


def tables_of(module: Path) -> tuple[str, ...]:
    return TABLES_OF.get(module.stem, (module.stem,))


def attributes_in(module: Path) -> set[str]:
    """What a module names in items and expressions, as far as its text shows it."""
    tree = ast.parse(module.read_text())
    keys: set[str] = set()
    texts = ""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts += node.value + "\n"
        elif isinstance(node, ast.Dict):
            keys |= {key.value for key in node.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}
        elif (
            isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store) and isinstance(node.slice, ast.Constant)
        ):
            keys.add(str(node.slice.value))
    values = set(re.findall(r":([a-z_]+)", texts))
    names = set(re.findall(r"#([a-z_]+)\b", "\n".join(expressions(tree))))
    return (names | (keys - values)) - DATA_ALIASES


def expressions(tree: ast.AST) -> Iterator[str]:
    """The texts that are expressions of DynamoDB: they name an attribute as `#name` in a comparison or an update."""
    for node in ast.walk(tree):
        parts = node.values if isinstance(node, ast.JoinedStr) else [node]
        for part in parts:
            text = part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else ""
            if re.search(r"\bSET\b|\bADD\b|\bREMOVE\b|\bDELETE #|[(]#| (=|<|<=|>|<>) :", text):
                yield text


@pytest.mark.parametrize("table", ALL_TABLES, ids=lambda table: table.name)
def test_every_key_and_index_of_a_table_is_there(table: Table) -> None:
    text = section(table.name)
    keys = next(line for line in text.splitlines() if line.startswith("- Key:"))
    named = [table.partition.name, *([table.sort.name] if table.sort else [])]
    assert quoted(keys)[: len(named)] == named
    assert ("No sort key" in keys) is (table.sort is None)
    indexes = {quoted(line)[0]: quoted(line)[1:] for line in text.splitlines() if line.startswith("- Index")}
    assert indexes == {
        index.name: [index.partition.name, *([index.sort.name] if index.sort else [])] for index in table.indexes
    }
    assert attributes_on_the_page(table.name) >= set(named)
    assert (TTL_ATTRIBUTE in attributes_on_the_page(table.name)) is table.ttl
    assert ("Has `ttl`" in text) is table.ttl


def test_the_page_has_no_section_more() -> None:
    headings = re.findall(r"^## (.+)$", PAGE, re.M)
    assert headings[1:] == [table.name for table in ALL_TABLES]
    assert [quoted(row[0])[0] for row in rows(PAGE.split("\n## ")[0], "table")] == headings[1:]


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.stem)
def test_every_attribute_a_module_writes_is_there(module: Path) -> None:
    known = set().union(*(attributes_on_the_page(table) for table in tables_of(module)))
    assert attributes_in(module) - known == set()


@pytest.mark.parametrize("table", ALL_TABLES, ids=lambda table: table.name)
def test_the_page_names_no_attribute_that_nobody_writes(table: Table) -> None:
    keys = [table.partition, *([table.sort] if table.sort else [])]
    written = {key.name for key in keys} | {
        name for module in modules() if table.name in tables_of(module) for name in attributes_in(module)
    }
    assert attributes_on_the_page(table.name) - written == set()


def writers(module: Path) -> set[str]:
    """The public functions and methods of a module that write, themselves or through a private one of it."""
    calls: dict[str, set[str]] = {}
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.FunctionDef):
            called = [call.func for call in ast.walk(node) if isinstance(call, ast.Call)]
            names = {func.id for func in called if isinstance(func, ast.Name)}
            for func in called:
                if isinstance(func, ast.Attribute):
                    of_database = isinstance(func.value, ast.Attribute) and func.value.attr == "_db"
                    names.add(f"db.{func.attr}" if of_database else func.attr)
            calls[node.name] = calls.get(node.name, set()) | names
    write = {f"db.{name}" for name in DATABASE_WRITES} | ACTION_WRITES
    found: set[str] = set()
    while more := {name for name, called in calls.items() if called & write} - found:
        found |= more
        write |= {name for name in more if name.startswith("_")}
    return {name for name in found if not name.startswith("_")}


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.stem)
def test_every_write_of_a_module_is_there_with_its_condition(module: Path) -> None:
    named = {
        name
        for table in tables_of(module)
        for row in rows(section(table), "write")
        for name in quoted(row[0])
        if row[1]
    }
    assert writers(module) - named == set()
    everywhere = set().union(*(writers(other) for other in modules() if set(tables_of(other)) & set(tables_of(module))))
    assert named - everywhere == set()


def grants() -> dict[tuple[str, str], set[str]]:
    """(table, module of the handler) -> the writing actions that `infra/` grants to it."""
    found: dict[tuple[str, str], set[str]] = {}
    shared: dict[str, ast.Dict] = {}
    trees = [ast.parse(path.read_text()) for path in sorted((ROOT / "infra").glob("*.py"))]
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                if isinstance(node.value, ast.Dict):
                    shared[node.targets[0].id] = node.value
                elif isinstance(node.value, ast.List):
                    shared[node.targets[0].id] = ast.Dict(keys=[None], values=[node.value])

    def actions_in(node: ast.AST) -> set[str]:
        texts = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
        for name in (part.id for part in ast.walk(node) if isinstance(part, ast.Name)):
            if name in shared and shared[name].keys == [None]:
                texts |= actions_in(shared[name].values[0])
        for part in ast.walk(node):  # a table's actions of a shared dictionary, `SHARED[t.TABLE]`
            if isinstance(part, ast.Subscript) and isinstance(part.value, ast.Name) and part.value.id in shared:
                for key, value in zip(shared[part.value.id].keys, shared[part.value.id].values, strict=True):
                    if key is not None and ast.dump(key) == ast.dump(part.slice):
                        texts |= actions_in(value)
        return {str(text) for text in texts} & GRANTED_WRITES

    def per_table(node: ast.expr) -> dict[str, set[str]]:
        if isinstance(node, ast.Name):
            node = shared[node.id]
        assert isinstance(node, ast.Dict)
        tables: dict[str, set[str]] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                tables |= per_table(value)
            else:
                assert isinstance(key, ast.Attribute)
                tables[key.attr.lower()] = actions_in(value)
        return tables

    for tree in trees:
        for call in ast.walk(tree):
            if not isinstance(call, ast.Call):
                continue
            given = {keyword.arg: keyword.value for keyword in call.keywords}
            if isinstance(given.get("handler"), ast.Constant) and "actions" in given:
                package, module, _ = str(ast.literal_eval(given["handler"])).split(".")
                for table, actions in per_table(given["actions"]).items():
                    if actions:
                        found[table, f"functions/{package}/{module}.py"] = actions
    return found


def test_who_may_write_a_table_is_what_the_stack_grants() -> None:
    granted = grants()
    assert granted["subscriptions", "functions/gateway_connect/disconnect.py"] == {"BatchWriteItem"}
    assert ("audit", "functions/api/main.py") in granted
    on_the_page = {
        (table.name, quoted(row[0])[0]): set(row[1].split(", "))
        for table in ALL_TABLES
        for row in rows(section(table.name), "function")
    }
    assert on_the_page == granted
