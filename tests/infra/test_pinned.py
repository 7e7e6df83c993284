"""What holds data keeps its logical id and its keys. CloudFormation replaces what changes one of them.

`tests/infra/pinned.json` has what is deployed. A table, bucket or secret that is new is added to it by hand, beside the
change. Nothing is ever changed or removed in it, but for indexes: one a release for each table, because CloudFormation
adds or deletes one index of a table in an update. A second one waits for the next release.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ops.stack_policy import NOT_REPLACED, POLICY
from tests.infra.test_templates import template

PINNED: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "pinned.json").read_text())
#: Properties whose change replaces the resource, of those that we set. From "Update requires: Replacement" in the
#: CloudFormation reference. A name that is given later replaces too.
_REPLACE = {
    "AWS::DynamoDB::Table": ("TableName", "KeySchema"),
    "AWS::KMS::Key": ("KeySpec", "KeyUsage", "Origin", "MultiRegion"),
    "AWS::S3::Bucket": ("BucketName",),
    "AWS::SecretsManager::Secret": ("Name",),
}


def holding_data(rendered: dict[str, Any]) -> dict[str, Any]:
    """Logical id -> what must stay, and the indexes of a table."""
    found = {}
    for logical, resource in rendered["Resources"].items():
        if (kind := resource["Type"]) not in _REPLACE:
            continue
        properties = resource["Properties"]
        stays = {name: properties[name] for name in _REPLACE[kind] if name in properties}
        if kind == "AWS::DynamoDB::Table":
            keys = [each["AttributeName"] for each in properties["KeySchema"]]
            types = {each["AttributeName"]: each["AttributeType"] for each in properties["AttributeDefinitions"]}
            stays["Types"] = {key: types[key] for key in keys}
        found[logical] = {"Type": kind, **stays}
        if indexes := properties.get("GlobalSecondaryIndexes"):
            found[logical]["Indexes"] = {each["IndexName"]: [each["KeySchema"], each["Projection"]] for each in indexes}
    return found


def differences(pinned: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What an update of a stage would do to its data. Empty when that is nothing."""
    said = []
    for logical, before in pinned.items():
        after = now.get(logical)
        if after is None:
            said.append(f"{logical} is gone")
        elif {**before, "Indexes": None} != {**after, "Indexes": None}:
            said.append(f"{logical} would be replaced")
        else:
            old, new = before.get("Indexes", {}), after.get("Indexes", {})
            if any(old[name] != new[name] for name in old.keys() & new.keys()):
                said.append(f"an index of {logical} would be replaced; give the new one another name")
            if len(old.keys() ^ new.keys()) > 1:
                said.append(f"{logical}: one index a release")
    return said + [f"{logical} is not in pinned.json" for logical in now.keys() - pinned.keys()]


@pytest.mark.parametrize("stage", sorted(PINNED))
def test_what_holds_data_stays(stage: str) -> None:
    assert differences(PINNED[stage], holding_data(template(stage))) == []


def test_every_cloud_stage_is_pinned() -> None:
    stages = {path.stem for path in (Path(__file__).parents[2] / "infra/stages").glob("*.json")}
    assert set(PINNED) == stages - {"local"}


def test_what_would_lose_data_is_seen() -> None:
    pinned = PINNED["production"]
    table, keys = next((name, each) for name, each in pinned.items() if each.get("Indexes"))
    renamed = {f"{name}X" if name == table else name: each for name, each in pinned.items()}
    assert differences(pinned, renamed) == [f"{table} is gone", f"{table}X is not in pinned.json"]
    other_key = [{"AttributeName": "other", "KeyType": "HASH"}]
    assert differences(pinned, {**pinned, table: {**keys, "KeySchema": other_key}}) == [f"{table} would be replaced"]
    assert differences(pinned, {**pinned, table: {**keys, "TableName": "t"}}) == [f"{table} would be replaced"]
    one, two = ({**keys["Indexes"], **{name: [] for name in names}} for names in (("a",), ("a", "b")))
    assert differences(pinned, {**pinned, table: {**keys, "Indexes": one}}) == []
    assert differences(pinned, {**pinned, table: {**keys, "Indexes": two}}) == [f"{table}: one index a release"]


def test_the_stack_policy_denies_what_is_pinned() -> None:
    kinds = {each["Type"] for stage in PINNED.values() for each in stage.values()}
    assert kinds == set(NOT_REPLACED) == set(_REPLACE)
    statements = json.loads(POLICY)["Statement"]
    assert statements[0] == {"Effect": "Allow", "Action": "Update:*", "Principal": "*", "Resource": "*"}
    denied = {each["Action"]: each["Condition"]["StringEquals"]["ResourceType"] for each in statements[1:]}
    assert set(denied["Update:Replace"]) == kinds
    assert kinds - set(denied["Update:Delete"]) == {"AWS::KMS::Key"}
