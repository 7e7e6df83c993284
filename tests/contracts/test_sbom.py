"""`make sbom`: what it writes is CycloneDX by CycloneDX's own schema, and has what is deployed and nothing else."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import cyclonedx.schema
import pytest
from jsonschema import Draft7Validator
from referencing import Registry, Resource

from scripts import sbom

ROOT = Path(__file__).resolve().parents[2]
#: What the schemas' references are relative to.
BASE = "http://cyclonedx.org/schema/"
SCHEMAS = Path(cyclonedx.schema.__file__).parent / "_res"


@pytest.fixture(scope="module")
def bill() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(sbom.bill())
    return found


def validator() -> Draft7Validator:
    parts = [f"{name}.SNAPSHOT.schema.json" for name in ("spdx", "jsf-0.82")]
    registry: Registry[Any] = Registry().with_resources(
        (BASE + part, Resource.from_contents(json.loads((SCHEMAS / part).read_text()))) for part in parts
    )
    return Draft7Validator(json.loads((SCHEMAS / "bom-1.6.SNAPSHOT.schema.json").read_text()), registry=registry)


def test_it_is_as_cyclonedx_specifies(bill: dict[str, Any]) -> None:
    assert bill["specVersion"] == "1.6"
    assert not [f"{list(wrong.absolute_path)}: {wrong.message}" for wrong in validator().iter_errors(bill)]
    assert not validator().is_valid(bill | {"unheard": 1})
    assert not validator().is_valid(bill | {"components": [{"type": "library"}]})


def test_it_has_what_is_deployed_and_nothing_else(bill: dict[str, Any]) -> None:
    layers = {
        match
        for file in ROOT.glob("layers/*/requirements.txt")
        for match in re.findall(r"^([\w-]+)(?:\[\w+\])?==([\w.]+)(?! ;.*win32)", file.read_text(), re.M)
    }
    python = {(each["name"], each["version"]) for each in bill["components"] if each["purl"].startswith("pkg:pypi/")}
    assert python == layers
    pages = {each["purl"].partition("@")[0] for each in bill["components"]} - {f"pkg:pypi/{name}" for name, _ in layers}
    bundled = json.loads((ROOT / "web/package.json").read_text())["dependencies"]
    assert {f"pkg:npm/{name}" for name in bundled if "@" not in name} <= pages
    assert not any("vite" in each or "pytest" in each for each in pages)


def test_each_part_says_where_it_is_used_and_under_which_licence(bill: dict[str, Any]) -> None:
    for each in bill["components"]:
        assert each["licenses"] and each["properties"], each["name"]
    (root,) = [each for each in bill["dependencies"] if each["ref"] == bill["metadata"]["component"]["bom-ref"]]
    assert len(root["dependsOn"]) == len(bill["components"])


def test_it_is_written_where_it_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["sbom.py", str(tmp_path / "bill.json")])
    assert sbom.main() == 0
    assert json.loads((tmp_path / "bill.json").read_text())["bomFormat"] == "CycloneDX"
