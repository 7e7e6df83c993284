"""`make rollback`: the plan, and what it does to functions, pages and the record on moto."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra.rollout_table import LIVE, STEPS
from ops import deploy, releases
from ops.pages import upload
from ops.releases import Record, Release
from ops.rollback import Deployed, main
from ops.rollback_plan import Alias, Found, Refused, plan
from tests.deployment import aws

FUNCTIONS = [name for step in STEPS for name in step.functions]
OLD = Release(dict.fromkeys(FUNCTIONS, "1"), {"index.html": "a", "viewer.html": "b"})
NEW = Release({**dict.fromkeys(FUNCTIONS, "2"), "HttpApi-Api": "1"}, {"index.html": "a", "viewer.html": "c"})
RECORD = Record(NEW, OLD)


def found(release: Release = NEW, status: str = "UPDATE_COMPLETE", **aliases: Alias) -> Found:
    there = {name: Alias(version) for name, version in release.functions.items()}
    return Found(status, {**there, **{name.replace("_", "-"): alias for name, alias in aliases.items()}}, release.pages)


# --- the plan ---------------------------------------------------------------------------------------------------


def test_pages_come_first_then_the_steps_from_the_last_to_the_first() -> None:
    actions = [str(action) for action in plan("staging", found(), RECORD)]
    assert actions[:2] == ["put back page viewer.html: c -> b", "move alias Relay-Worker: 2 -> 1"]
    moved = [action.split()[2].rstrip(":") for action in actions[1:]]
    order = [name for step in reversed(STEPS) for name in step.functions if name != "HttpApi-Api"]
    assert moved == order, "what the release did not change stays"


def test_a_plan_that_stopped_on_its_way_goes_on() -> None:
    half = replace(found(Relay_Worker=Alias("1")), pages=OLD.pages)
    assert str(plan("staging", half, RECORD)[0]) == "move alias Mqtt-Bridge: 2 -> 1"
    assert plan("staging", found(OLD), RECORD) == []


def test_a_deployment_that_runs_is_stopped_and_nothing_else_is_done() -> None:
    running = replace(found(status="UPDATE_IN_PROGRESS"), deployments=("d-1", "d-2"))
    assert [str(action) for action in plan("staging", running, None)] == [
        "cancel update",
        "stop deployment d-1",
        "stop deployment d-2",
    ]


@pytest.mark.parametrize(
    "status", ["UPDATE_ROLLBACK_IN_PROGRESS", "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", "UPDATE_FAILED"]
)
def test_a_stack_that_is_at_work_or_broken_is_left_alone(status: str) -> None:
    with pytest.raises(Refused, match=status):
        plan("staging", found(status=status), RECORD)


def test_what_was_taken_back_already_is_not_gone_back_from_unasked() -> None:
    with pytest.raises(Refused, match="OPTIONS=--further"):
        plan("staging", found(status="UPDATE_ROLLBACK_COMPLETE"), RECORD)
    assert plan("staging", found(status="UPDATE_ROLLBACK_COMPLETE"), RECORD, further=True)


@pytest.mark.parametrize("record", [None, Record(NEW), RECORD.after_going_back()])
def test_without_a_release_before_there_is_no_way_back(record: Record | None) -> None:
    with pytest.raises(Refused, match="make deploy STAGE=staging"):
        plan("staging", found(), record)


@pytest.mark.parametrize("alias", [Alias("7"), Alias("2", shifting=True)])
def test_what_somebody_else_moved_is_refused(alias: Alias) -> None:
    with pytest.raises(Refused, match="Mqtt-Bridge is at version"):
        plan("staging", found(Mqtt_Bridge=alias), RECORD)


def test_a_function_that_came_with_the_release_stays_where_it_is() -> None:
    without = {name: version for name, version in OLD.functions.items() if name != "Mqtt-Crowd"}
    actions = plan("staging", found(), Record(NEW, Release(without, OLD.pages)))
    assert "Mqtt-Crowd" not in {action.name for action in actions}


# --- the record -------------------------------------------------------------------------------------------------


def test_the_record_knows_the_release_before_and_forgets_it_after_a_way_back() -> None:
    first = releases.note(None, OLD)
    assert first == Record(OLD) and releases.note(first, OLD) is first
    second = releases.note(first, NEW)
    assert second == RECORD and releases.note(second, NEW) is second, "the same release again"
    back = second.after_going_back()
    assert back == Record(OLD, went_back=True)
    assert releases.note(back, OLD).went_back, "CloudFormation still believes in the other one"
    mended = Release({**OLD.functions, "Relay-Worker": "3"})
    assert releases.note(back, mended) == Record(mended, OLD)
    with pytest.raises(ValueError, match="no release"):
        back.after_going_back()


def test_after_a_way_back_no_canary_brings_the_release_that_was_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHIFT", raising=False)
    assert (deploy.shift_of(None), deploy.shift_of(RECORD)) == (None, None)
    assert deploy.shift_of(RECORD.after_going_back()) == "at-once"
    monkeypatch.setenv("SHIFT", "canary")
    assert deploy.shift_of(RECORD.after_going_back()) == "canary"


# --- on moto ----------------------------------------------------------------------------------------------------


class Stage:
    """A stage on moto: its functions with an alias, its bucket, and a stack that tells of both."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder
        self.asked: list[tuple[str, Mapping[str, Any]]] = []
        self.status = "UPDATE_COMPLETE"
        self.outputs: dict[str, str] = {}
        role = aws(url, "iam").create_role(RoleName=f"r-{id(self)}", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
        client = aws(url, "lambda")
        self.names = {name: f"{name}-{id(self)}" for name in FUNCTIONS}
        for name in self.names.values():
            client.create_function(
                FunctionName=name, Runtime="python3.13", Role=role, Handler="a.b", Code={"ZipFile": zipped("1")}
            )
            version = client.publish_version(FunctionName=name)["Version"]
            client.create_alias(FunctionName=name, Name=LIVE, FunctionVersion=version)
        self.bucket = f"pages-{id(self)}"
        aws(url, "s3").create_bucket(Bucket=self.bucket)
        self.deploy("1")

    def client(self, service: str) -> Any:
        if service in ("cloudformation", "codedeploy"):
            return Asked(self)
        return aws(self.url, service)

    def deploy(self, text: str) -> None:
        """What a deployment does, and what `make deploy` records of it."""
        client = aws(self.url, "lambda")
        if text != "1":
            for name in self.names.values():
                client.update_function_code(FunctionName=name, ZipFile=zipped(text))
                version = client.publish_version(FunctionName=name)["Version"]
                client.update_alias(FunctionName=name, Name=LIVE, FunctionVersion=version)
        (self.folder / "index.html").write_text(f"page {text}")
        upload(aws(self.url, "s3"), self.bucket, self.folder)
        deployed = Deployed(self.client, "staging")
        deployed.note(releases.note(deployed.record(), deployed.release()))

    def versions(self) -> set[str]:
        client = aws(self.url, "lambda")
        return {client.get_alias(FunctionName=name, Name=LIVE)["FunctionVersion"] for name in self.names.values()}

    def page(self) -> str:
        body: bytes = aws(self.url, "s3").get_object(Bucket=self.bucket, Key="index.html")["Body"].read()
        return body.decode()


class Asked:
    """CloudFormation and CodeDeploy, which moto has only in part: they note what they were asked."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def describe_stacks(self, **asked: str) -> dict[str, Any]:
        outputs = {"Functions": json.dumps(self._stage.names), "ConsoleBucket": self._stage.bucket}
        outputs |= self._stage.outputs
        shown = [{"OutputKey": key, "OutputValue": value} for key, value in outputs.items()]
        return {"Stacks": [{**asked, "StackStatus": self._stage.status, "Outputs": shown}]}

    def get_paginator(self, name: str) -> Asked:
        assert name == "list_stack_resources"
        return self

    def paginate(self, **asked: str) -> list[dict[str, Any]]:
        assert asked == {"StackName": "Tidegate-staging"}
        kinds = [("Application", "app"), ("DeploymentGroup", "one"), ("DeploymentGroup", "two")]
        resources = [
            {"ResourceType": f"AWS::CodeDeploy::{kind}", "PhysicalResourceId": physical} for kind, physical in kinds
        ]
        return [{"StackResourceSummaries": resources}]

    def list_deployments(self, **asked: Any) -> dict[str, Any]:
        assert asked["applicationName"] == "app" and "InProgress" in asked["includeOnlyStatuses"]
        return {"deployments": ["d-1"] if asked["deploymentGroupName"] == "two" else []}

    def cancel_update_stack(self, **asked: Any) -> None:
        self._stage.asked.append(("cancel", asked))

    def stop_deployment(self, **asked: Any) -> None:
        self._stage.asked.append(("stop", asked))


def zipped(text: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        file.writestr("a.py", text)
    return made.getvalue()


@pytest.fixture
def stage(moto_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.delenv("YES", raising=False)
    monkeypatch.setenv("YES", "1")
    aws(moto_url, "ssm").put_parameter(Name=releases.parameter("staging"), Value="{}", Type="String", Overwrite=True)
    aws(moto_url, "ssm").delete_parameter(Name=releases.parameter("staging"))
    return Stage(moto_url, tmp_path)


def test_it_says_that_a_service_of_the_relay_stays(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    stage.deploy("2")
    stage.outputs["RelayService"] = "arn:aws:ecs:eu-west-1:111122223333:service/relay"
    assert main(["--stage", "staging"], client=stage.client) == 0
    assert "the relay's service stays at the release that was left" in capsys.readouterr().out.splitlines()[-1]


def test_the_release_before_comes_back_and_then_another_one_goes_out(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.deploy("2")
    assert (stage.versions(), stage.page()) == ({"2"}, "page 2")
    assert main(["--stage", "staging"], client=stage.client) == 0
    assert (stage.versions(), stage.page()) == ({"1"}, "page 1")
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert "planned: move alias Relay-Worker: 2 -> 1" in lines and "done: move alias HttpApi-Api: 2 -> 1" in lines
    assert lines[-1].startswith("the release before is live")
    assert main(["--stage", "staging"], client=stage.client) == 1, "one release is remembered"
    assert "no release before this one is known" in capsys.readouterr().err
    stage.deploy("3")
    assert stage.versions() == {"3"}
    assert main(["--stage", "staging", "--json"], client=stage.client) == 0
    assert stage.versions() == {"1"}, "not 2, which is no release to go back to"
    states = [json.loads(line)["state"] for line in capsys.readouterr().out.splitlines()]
    assert set(states) == {"planned", "done", "end"}


def test_it_asks_before_it_acts(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.deploy("2")
    monkeypatch.delenv("YES")
    assert main(["--stage", "staging"], client=stage.client) == 1
    assert "YES=1" in capsys.readouterr().err
    for answer, code in (("no", 1), ("staging", 0)):
        monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
        monkeypatch.setattr("builtins.input", lambda _question, answer=answer: answer)
        assert main(["--stage", "staging"], client=stage.client) == code
        assert stage.versions() == ({"2"} if code else {"1"})


def test_a_deployment_that_runs_is_stopped_where_it_is(stage: Stage) -> None:
    stage.deploy("2")
    stage.status = "UPDATE_IN_PROGRESS"
    assert main(["--stage", "staging"], client=stage.client) == 0
    assert stage.asked == [
        ("cancel", {"StackName": "Tidegate-staging"}),
        ("stop", {"deploymentId": "d-1", "autoRollbackEnabled": True}),
    ]
    assert stage.versions() == {"2"}, "CodeDeploy moves the aliases"


def test_the_local_stage_has_nothing_to_go_back_to(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--stage", "local"]) == 1
    assert "The local stage is `make up`" in capsys.readouterr().err
