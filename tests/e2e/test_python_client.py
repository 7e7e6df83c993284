"""The examples of clients/python/README.md, run as they stand there, against a whole stack."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from local_stack.seed import Api, document, stream

ROOT = Path(__file__).resolve().parents[2]
CLIENT = ROOT / "clients/python"
_EXAMPLES = re.findall(r"^```python\n(.*?)^```$", (CLIENT / "README.md").read_text(), re.M | re.S)
_LONGEST_S = 60


@pytest.fixture
def editor(stack: Mapping[str, Any]) -> Api:
    who = stack["users"]["editor"]
    return Api.login(stack["edge_url"], who["email"], who["password"])


@pytest.fixture
def shared(stack: Mapping[str, Any], editor: Api) -> Iterator[dict[str, str]]:
    """A dashboard by link, as the examples are given it: in the environment."""
    counter = stream("sse", stack["fake_upstreams"]["sse_url"] + "?rate=4", None, "counter")
    counter["settings"]["history"] = {"seconds": 600, "everyMs": 1_000}
    made = editor.call("POST", "/api/dashboards", document("Client", [counter]))
    link = editor.call("PUT", f"/api/dashboards/{made['id']}/visibility", {"visibility": "link"})
    yield {"EDGE": stack["edge_url"], "DASHBOARD": made["id"], "SHARE": link["shareToken"]}
    editor.call("DELETE", f"/api/dashboards/{made['id']}")


def begin(example: str, shared: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", example],
        env={**os.environ, **shared, "PYTHONPATH": str(CLIENT / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_values_are_printed_and_the_end_says_why(editor: Api, shared: dict[str, str]) -> None:
    with begin(_EXAMPLES[0], shared) as script:
        assert script.stdout is not None
        lines = [script.stdout.readline() for _ in range(4)]
        assert all(re.match(r"\d{4}-\d\d-\d\dT\S+ \{'n': \d+", line) for line in lines), lines
        editor.call("POST", f"/api/dashboards/{shared['DASHBOARD']}/share-token:rotate")
        rest, _ = script.communicate(timeout=_LONGEST_S)
    assert script.returncode == 0, rest
    assert rest.endswith("over: revoked Stream authorization was revoked\n")


def test_a_history_is_read_and_the_states_are_shown(shared: dict[str, str]) -> None:
    with begin(_EXAMPLES[1], shared) as script:
        said, _ = script.communicate(timeout=_LONGEST_S)
    assert script.returncode == 0, said
    assert re.fullmatch(r"\d+ samples, the newest \{'n': \d+.*\}\nlive live None\n", said), said


def test_there_are_no_other_examples() -> None:
    assert len(_EXAMPLES) == 2
