"""Write docs/reference/callers.md: what each kind of caller is answered, found by making every call.

A test makes every call again and compares. The examples are in tests/functions/callers.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.functions import callers

TARGET = Path(__file__).resolve().parent.parent / "docs/reference/callers.md"
HOW = "PYTHONPATH=layers/tidegate/python:. .venv/bin/python scripts/callers_doc.py"

_HEAD = f"""# Who may call what

Every route of the APIs and every message of the gateway, as eight kinds of caller make them. A cell has the status of
the answer, and the code of its error. The [HTTP API](http-api.md) explains the codes, the [protocol](protocol.md) those
of messages.

This page is generated: every call on it was made. After a change of the APIs or of who may do what, read what changes,
and run:

    {HOW}

A new route needs an example in `tests/functions/callers.py`. Without one a test fails, and names the route.

| caller | who |
|---|---|
| anonymous | has no login |
| outsider | has a login, the role `viewer`, and no right on the dashboard |
| ACL viewer, ACL editor, ACL manager | have the role `viewer`, and that level in the dashboard's ACL |
| other editor | has the role `editor`, and no right on the dashboard |
| owner | has the role `editor`, and made the dashboard |
| admin | has the role `admin`, and did not make the dashboard |

Rows are for a dashboard of each visibility. `any` says that the visibility changes nothing. Every request is right in
itself, so a refusal is about who makes it. No limit was reached.
"""


def line(row: callers.Row) -> str:
    """A row of the page."""
    return "| " + " | ".join((row[0], row[1], *row[2])) + " |"


def _table(rows: Iterable[callers.Row]) -> str:
    heads: Sequence[str] = ("call", "dashboard", *callers.CALLERS)
    return "\n".join(["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads), *map(line, rows)]) + "\n"


def render(world: callers.World) -> str:
    """The whole page. It makes every call."""
    routes = [row for route in callers.routes() for row in callers.rows_of_route(world, route)]
    public = [row for row in routes if " /api/" in row[0]]
    internal = [row for row in routes if " /internal/" in row[0]]
    messages = [row for kind in callers.MESSAGES for row in callers.rows_of_message(world, kind)]
    shown = callers.rows_of_parts(world)
    parts = (
        ("HTTP API", public),
        ("What the answer with a dashboard holds", shown),
        ("Internal API", internal),
        ("Messages of the gateway", messages),
    )
    return _HEAD + "".join(f"\n## {title}\n\n{_table(rows)}" for title, rows in parts)


def main() -> None:
    """Make every call over an emulator of its own, and write the page."""
    from moto.server import ThreadedMotoServer

    from tests.deployment import in_one_process
    from tests.servers.management import ManagementServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    management = ManagementServer()
    try:
        host, port = server.get_host_and_port()
        with in_one_process():
            TARGET.write_text(render(callers.World(f"http://{host}:{port}", management)))
    finally:
        management.close()
        server.stop()


if __name__ == "__main__":
    main()
