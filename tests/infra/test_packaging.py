"""What is put into layers and functions, and when a layer counts as changed."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_lambda as lambda_
from aws_cdk.assertions import Template

from infra import packaging
from infra.stage import load_stage
from tests.infra.test_templates import flags


def layers() -> dict[str, Any]:
    """Logical ids of the layer versions of a cloud stage, and what a function over the shared one refers to."""
    app = cdk.App(context={"aws:cdk:bundling-stacks": [], **flags()})
    stack, stage = cdk.Stack(app, "Packaging"), load_stage("production")
    shared = packaging.shared_layer(stack, stage)
    packaging.dependency_layer(stack, "Dependencies", "dependencies", stage)
    function = lambda_.Function(
        stack,
        "Function",
        code=packaging.function_code("mqtt_bridge"),
        handler="functions.mqtt_bridge.bridge.handler",
        runtime=packaging.RUNTIME,
        layers=[shared],
    )
    _ = function.current_version
    resources: dict[str, Any] = Template.from_stack(stack).to_json()["Resources"]
    return resources


def assets(resources: dict[str, Any]) -> dict[str, str]:
    """S3 keys of the layers by their descriptions."""
    made = [
        resource["Properties"] for resource in resources.values() if resource["Type"] == "AWS::Lambda::LayerVersion"
    ]
    return {resource["Description"]: resource["Content"]["S3Key"] for resource in made}


def ids(resources: dict[str, Any], kind: str) -> set[str]:
    return {name for name, resource in resources.items() if resource["Type"] == kind}


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what is packaged, that a test may change."""
    for folder in ("layers", "functions", "infra"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(packaging.ROOT / folder, tmp_path / folder, ignore=ignored)
    monkeypatch.setattr(packaging, "ROOT", tmp_path)
    monkeypatch.setattr(packaging, "__file__", str(tmp_path / "infra/packaging.py"))
    return tmp_path


def test_a_changed_byte_of_a_layer_publishes_a_new_version_of_layer_and_function(checkout: Path) -> None:
    before = layers()
    assert assets(layers()) == assets(before)
    with (checkout / "layers/tidegate/python/tidegate/tables.py").open("a") as file:
        file.write("\n")
    after = layers()
    shared, dependencies = "tidegate: shared code", "tidegate: dependencies"
    assert assets(after)[shared] != assets(before)[shared]
    assert assets(after)[dependencies] == assets(before)[dependencies]
    # An alias follows a version: without the flag of cdk.json it would stay on the old code.
    assert not ids(after, "AWS::Lambda::Version") & ids(before, "AWS::Lambda::Version")


def test_changed_requirements_change_their_layer_only(checkout: Path) -> None:
    before = assets(layers())
    with (checkout / "layers/dependencies/requirements.txt").open("a") as file:
        file.write("# changed\n")
    after = assets(layers())
    assert {name for name in before if before[name] != after[name]} == {"tidegate: dependencies"}


def test_machines_that_deploy_to_the_cloud_agree(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for machine in ("x86_64", "aarch64"):
        monkeypatch.setattr(platform, "machine", lambda machine=machine: machine)
        found.append(assets(layers()))
    assert found[0] == found[1]


def test_layers_without_bytecode_are_other_layers(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for interpreter in (None, "python3.13"):
        monkeypatch.setattr(packaging, "_compiler", lambda interpreter=interpreter: interpreter)
        found.append(assets(layers()))
    assert not set(found[0].values()) & set(found[1].values())


def test_a_function_holds_its_own_package_only(tmp_path: Path) -> None:
    app = cdk.App(outdir=str(tmp_path))
    stack = cdk.Stack(app, "Packaging")
    lambda_.Function(
        stack,
        "Function",
        code=packaging.function_code("mqtt_bridge"),
        handler="functions.mqtt_bridge.bridge.handler",
        runtime=packaging.RUNTIME,
    )
    app.synth()
    (asset,) = [path for path in tmp_path.glob("asset.*") if path.is_dir()]
    held = {str(path.relative_to(asset)) for path in asset.rglob("*") if path.is_file()}
    assert {"functions/__init__.py", "functions/mqtt_bridge/bridge.py", "functions/mqtt_bridge/catch_up.py"} <= held
    assert all(name.endswith(".py") and name.split("/")[1] in ("__init__.py", "mqtt_bridge") for name in held)
