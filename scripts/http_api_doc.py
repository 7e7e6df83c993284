"""Write docs/reference/http-api.md from the API's own description; the page says how.

A test keeps both equal. Routes, fields and limits are the OpenAPI document's, which FastAPI makes from the routes and
models. Codes and messages of refusals are read from the code that raises them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from functions.api import admin_routes, console_routes, routes
from functions.api.app import create_app
from functions.api.deps import optional_user, required_user
from functions.api.wiring import ApiServices
from scripts.markdown import table
from tidegate import errors

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs/reference/http-api.md"
PACKAGE = ROOT / "layers/tidegate/python/tidegate"
#: Where what a caller of `/api` is refused with is raised.
RAISED_IN = ("domain", "usecases/control_plane", "adapters/dynamodb", "adapters/tokens_jwt.py")
#: Errors that only the gateway meets: they answer no call of `/api`.
NOT_HERE = (errors.ApiBusy, errors.ApiTimeout, errors.Disabled, errors.PolicyBlocked, errors.SecretUnreadable)

_HEAD = """# HTTP API

The API under `/api`, at the address of the edge. `/internal` is for other gateways: see
[Internal API](internal-api.md). What a datasource session is good for, the [protocol](protocol.md) says.

With `API_DOCS_ENABLED`, the API serves the same description as OpenAPI at `/api/openapi.json`, and as a page at
`/api/docs`. This page is generated. After a change of the API, run:

    PYTHONPATH=layers/tidegate/python:. .venv/bin/python scripts/http_api_doc.py

- Requests and answers are JSON. A field that the request's table does not have is refused.
- A request is read strictly, as UTF-8. `NaN`, `Infinity`, a number that is too large (`1e999`) and a lone surrogate
  (`"\\ud800"`) are answered with 400.
- An identifier in a path that has more than 200 characters is answered with 404: nothing has it.
- Log in with `POST /api/auth/login`, and send the token as `Authorization: Bearer <token>`. A token that is expired or
  wrong is answered with 401, and never treated as no login.
- Lists come page by page. `cursor` of an answer is where the next page begins, and null on the last one. Send it as it
  is; it has no meaning of its own.
- Times in answers are ISO 8601, UTC, with milliseconds.
- Send a dashboard's `revision`, or its `ETag` as it came, as `If-Match` to replace the document. When somebody else was
  first, the answer is 409 with `currentRevision`.
- The `ETag` of a dashboard is strong, and of the whole answer to this caller. Send it as `If-None-Match` to be answered
  with 304 while nothing of it has changed.
- An admin may do whatever an owner may.
- Every answer, an error too, has `Cache-Control: no-store`, `X-Content-Type-Options: nosniff` and
  `Referrer-Policy: no-referrer`. Only a dashboard without its share token is `private, no-cache`: the caller's browser
  may keep it, and asks each time. The API redirects nowhere: a path with a `/` too many is answered with 404.
- Pages of the origins in `API_ALLOWED_ORIGINS` may call the API (CORS), with a login in `Authorization`. Cookies are
  not used. Pages of other origins may not.

"""
_ERRORS = """## Errors

Every refusal has one form. `retryAfterMs` is there when a limit refused: so long it makes no sense to try again. The
message says it in seconds. `currentRevision` is there when another revision stands.

```json
{"error": {"code": "limit_reached", "message": "Too many login attempts. Try again in 1 second.", "retryAfterMs": 840}}
```

Decide by `code`, and show `message` to people. The codes of each status, when nothing more special is said:

"""
_SPECIAL = """
More special codes. Braces stand for what is filled in:

"""


def description() -> dict[str, Any]:
    """The OpenAPI document. The services are never called for it."""
    services = SimpleNamespace(settings=SimpleNamespace(api_docs_enabled=True))
    return create_app(cast(ApiServices, services)).openapi()


# --- types --------------------------------------------------------------------------------------------------


def _type(schema: Mapping[str, Any]) -> str:
    """A schema in words."""
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_type(option) for option in schema["anyOf"])
    if "const" in schema:
        return f"`{schema['const']}`"
    kind = str(schema.get("type", "any"))
    if kind == "array":
        most = f", at most {schema['maxItems']}" if "maxItems" in schema else ""
        return f"list of {_type(schema['items'])}{most}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), Mapping):
        return f"object: name to {_type(schema['additionalProperties'])}"
    return kind + _bounds(schema)


def _bounds(schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minLength"), schema.get("maxLength")
    if high is not None:
        return f", {low} to {high} characters" if low else f", at most {high} characters"
    if "minimum" in schema:
        return f", {schema['minimum']} to {schema['maximum']}"
    return ""


def _default(name: str, schema: Mapping[str, Any], required: Sequence[str]) -> str:
    if name in required:
        return "required"
    value = schema.get("default")
    shown = {"": "empty", "None": "null", "[]": "empty", "{}": "empty", "False": "false"}.get(str(value), str(value))
    return f"default {shown}"


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    text = f"\n### {name}\n\n"
    if "enum" in schema:
        return text + "One of " + ", ".join(f"`{value}`" for value in schema["enum"]) + ".\n"
    if not str(schema.get("description", "")).startswith("Camel case"):
        text += str(schema["description"]) + "\n\n" if schema.get("description") else ""
    required = schema.get("required", ())
    rows = [
        [f"`{field}`", _type(shape), _default(field, shape, required)] for field, shape in schema["properties"].items()
    ]
    return text + table(["field", "type", ""], rows)


def _used(schema: object) -> Iterator[str]:
    """Names of the schemas that a part of the description refers to."""
    if isinstance(schema, Mapping):
        if "$ref" in schema:
            yield str(schema["$ref"]).rpartition("/")[2]
        for value in schema.values():
            yield from _used(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _used(value)


# --- routes -------------------------------------------------------------------------------------------------


def _depends_on(dependant: Dependant, call: object) -> bool:
    return any(inner.call is call or _depends_on(inner, call) for inner in dependant.dependencies)


def _login(route: APIRoute) -> str:
    if _depends_on(route.dependant, required_user):
        return "A login is needed."
    return "With a login or without." if _depends_on(route.dependant, optional_user) else "No login is needed."


def _operation(method: str, path: str, operation: Mapping[str, Any], login: str) -> str:
    text = f"\n### {method.upper()} {path}\n\n{operation['description']}\n\n{login}"
    rows = [
        [
            f"`{'If-Match' if parameter['name'] == 'if-match' else parameter['name']}`",
            parameter["in"],
            _type(parameter["schema"]),
            _default("", parameter["schema"], ("",) if parameter["required"] else ()),
        ]
        for parameter in operation.get("parameters", ())
        if parameter["name"] != "authorization"
    ]
    if "requestBody" in operation:
        text += f" Request: {_type(operation['requestBody']['content']['application/json']['schema'])}."
    done = min(operation["responses"])
    answer = operation["responses"][done].get("content", {}).get("application/json", {}).get("schema")
    text += f" Answer: {done}, {_type(answer)}.\n" if answer else f" Answer: {done}, without a body.\n"
    return text + ("\n" + table(["parameter", "in", "type", ""], rows) if rows else "")


# --- refusals -----------------------------------------------------------------------------------------------


def _classes() -> list[type[errors.TidegateError]]:
    found = [each for each in vars(errors).values() if isinstance(each, type)]
    return [each for each in found if issubclass(each, errors.TidegateError) and each is not errors.TidegateError]


def refusals() -> list[tuple[int, str, str]]:
    """(status, code, message) of each error that has a code of its own, for callers of the API."""
    statuses = {each.__name__: each.status for each in _classes()}
    found: set[tuple[int, str, str]] = set()
    for place in RAISED_IN:
        files = [PACKAGE / place] if place.endswith(".py") else sorted((PACKAGE / place).rglob("*.py"))
        for file in [*files, *sorted((ROOT / "functions/api").glob("*.py"))]:
            for node in ast.walk(ast.parse(file.read_text())):
                found |= {*_raised(node, statuses), *_declared(node, statuses)}
    return sorted(found)


def _raised(node: ast.AST, statuses: Mapping[str, int]) -> Iterator[tuple[int, str, str]]:
    """A call such as `Denied("text", code="wrong_password")`."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in statuses:
        status = statuses[node.func.id]
        for keyword in node.keywords:
            if keyword.arg == "code" and isinstance(keyword.value, ast.Constant) and status < 500:
                yield status, str(keyword.value.value), _message(node.args[0])


def _declared(node: ast.AST, statuses: Mapping[str, int]) -> Iterator[tuple[int, str, str]]:
    """A class such as `class InvalidDocument(InvalidInput)` with a `code`; its message is what `__init__` gives on."""
    if isinstance(node, ast.ClassDef):
        bases = [base.id for base in node.bases if isinstance(base, ast.Name) and base.id in statuses]
        codes = [
            statement.value.value
            for statement in node.body
            if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "code"
            if isinstance(statement.value, ast.Constant)
        ]
        texts = [
            _message(inner.args[0])
            for inner in ast.walk(node)
            if isinstance(inner, ast.Call) and ast.unparse(inner.func) == "super().__init__"
        ]
        if bases and codes and texts and statuses[bases[0]] < 500:
            yield statuses[bases[0]], str(codes[0]), texts[0]


def _message(node: ast.expr) -> str:
    """The text of an error as it is written down; `{}` where something is filled in."""
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)  # type: ignore[misc]
    return str(node.value) if isinstance(node, ast.Constant) else "{}"


def _error_tables() -> str:
    plain = sorted(
        {(each.status, each.code, str(each.__doc__).split("\n")[0]) for each in _classes() if each not in NOT_HERE}
    )
    own = [
        (403, "not_through_edge", "Use the public address"),
        (405, "method_not_allowed", "Method Not Allowed"),
        (500, "internal_error", "Something went wrong on our side"),
    ]
    rows = [[str(status), f"`{code}`", meaning] for status, code, meaning in plain]
    special = [[str(status), f"`{code}`", text] for status, code, text in sorted([*refusals(), *own])]
    heads = ["status", "code", "meaning"]
    return _ERRORS + table(heads, rows) + _SPECIAL + table(["status", "code", "message"], special)


def render() -> str:
    """The whole page."""
    described = description()
    logins = {
        (method, route.path): _login(route)
        for route in (*routes.router.routes, *console_routes.router.routes, *admin_routes.router.routes)
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }
    by_tag: dict[str, list[str]] = {}
    shown: list[Mapping[str, Any]] = []
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            if path.startswith("/api/"):
                text = _operation(method, path, operation, logins[method.upper(), path])
                by_tag.setdefault(operation["tags"][0], []).append(text)
                good = {status: answer for status, answer in operation["responses"].items() if status < "400"}
                asked = [operation.get("requestBody"), operation.get("parameters")]
                shown.append({"asked": asked, "answers": good})
    page = _HEAD
    for tag, texts in by_tag.items():
        page += f"## {tag.capitalize()}\n" + "".join(texts) + "\n"
    page += _error_tables()
    schemas = described["components"]["schemas"]
    names: set[str] = set()
    new = set(_used(shown))
    while new:
        names |= new
        new = set(_used([schemas[name] for name in names])) - names
    return page + "\n## Types\n" + "".join(_schema(name, schemas[name]) for name in sorted(names))


if __name__ == "__main__":
    TARGET.write_text(render())
