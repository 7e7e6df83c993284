"""What `make deploy` and `make bootstrap` do, and in which order. The CDK CLI is a record of its calls."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ops import deploy as command
from ops import preflight, protection, rotate_secret
from ops.answers import Answer
from ops.deploy import deploy
from ops.deploy_errors import DeployError
from ops.preflight import Looked
from ops.readiness import lines
from tests.contracts.test_readiness import DENIED, DEPLOYED, GOOD, NOT_THERE, ROLE, role_set
from tests.stage_files import write

ROOT = Path(__file__).resolve().parents[2]

#: What the stack has, and what it is to have: a table, a role, and a name.
BEFORE = {
    "Resources": {
        "Users": {"Type": "AWS::DynamoDB::Table"},
        "Role": {"Type": "AWS::IAM::Role"},
        "Edge": {"Type": "AWS::CloudFront::Distribution", "Properties": {"DistributionConfig": {}}},
    }
}
AFTER = BEFORE
NEW_CODE = {
    "ResourceChange": {
        "Action": "Modify",
        "LogicalResourceId": "Api",
        "ResourceType": "AWS::Lambda::Function",
        "Replacement": "False",
        "Scope": ["Properties"],
    }
}
LOST_TABLE = {
    "ResourceChange": {"Action": "Remove", "LogicalResourceId": "Users", "ResourceType": "AWS::DynamoDB::Table"}
}


class Record:
    """What was done, in order."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.changes: list[dict[str, Any]] | None = [NEW_CODE]
        self.failing, self.code = "", 1

    def cdk(self, arguments: list[str], **given: Any) -> subprocess.CompletedProcess[str]:
        assert arguments[0] == "cdk"
        said = [argument for argument in arguments if "=" in argument and not argument.startswith("stage=")]
        self.done.append(" ".join(["cdk", arguments[1], *said]))
        self.arguments, self.region = arguments, given["env"].get("AWS_REGION")
        return subprocess.CompletedProcess(arguments, self.code if arguments[1] == self.failing else 0)

    def note(self, name: str, answer: Any = None) -> Any:
        def called(*_: object, **__: object) -> Any:
            self.done.append(name)
            return answer

        return called


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Record:
    record = Record()
    monkeypatch.setattr("ops.cdk.subprocess.run", record.cdk)
    monkeypatch.setattr(command, "check_credential_keys", record.note("credential keys"))
    monkeypatch.setattr("ops.deploy.web_build.build", record.note("pages are built", tmp_path))
    monkeypatch.setattr(command, "upload_pages", record.note("pages are uploaded", 0))
    monkeypatch.setattr("ops.deploy.releases.read", record.note("last release is read"))
    monkeypatch.setattr(command, "keep", record.note("release is recorded", 0))
    monkeypatch.setattr(protection, "protect", record.note("protected", ["Tidegate-qa"]))
    monkeypatch.setattr(protection, "allow_repetition", record.note("made repeatable", True))
    monkeypatch.setattr("ops.deploy.cdk.synthesised", lambda stage: AFTER)
    monkeypatch.setattr("ops.deploy.change_set.deployed_template", lambda *_: BEFORE)
    monkeypatch.setattr("ops.deploy.change_set.changes", lambda *_: record.changes)
    monkeypatch.setattr("ops.deploy.change_set.drop", record.note("change set is dropped"))
    return record


def account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, other: Mapping[str, Answer] | None = None) -> None:
    """Let an account answer so, of a stage that keeps its data."""
    made = write(tmp_path, monkeypatch)
    answers = {**GOOD, **(other or {})}
    looked = Looked(lines(made, answers, "eu-west-1"), answers)
    monkeypatch.setattr(preflight, "look", lambda *_: looked)


def test_a_first_deployment_is_protected_when_it_has_succeeded(
    record: Record, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    account(monkeypatch, tmp_path)
    assert deploy("qa", "1") == 0
    assert record.done == [
        "credential keys",
        "pages are built",
        "made repeatable",
        "last release is read",
        "cdk synth",
        "cdk deploy",
        "protected",
        "pages are uploaded",
        "release is recorded",
    ]


def test_what_failed_is_not_protected(record: Record, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    account(monkeypatch, tmp_path)
    record.failing = "deploy"
    assert deploy("qa", "1") == 1
    assert record.done[-1] == "cdk deploy", "it could not be deleted, and so not be tried again"


def test_a_stage_that_is_there_stays_protected_meanwhile(
    record: Record, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    account(monkeypatch, tmp_path, DEPLOYED)
    assert deploy("qa") == 0 and "cdk synth created=true" in record.done


def test_a_disposable_stage_is_never_protected(record: Record, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    account(monkeypatch, tmp_path)
    write(tmp_path, monkeypatch, disposable=True)
    assert deploy("qa", "1") == 0 and "protected" not in record.done


def test_a_role_of_others_is_told_to_the_app(record: Record, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    account(monkeypatch, tmp_path, role_set(role=Answer(ROLE)))
    assert deploy("qa", "1") == 0 and "cdk synth others_logging_role=true" in record.done


def test_an_account_that_is_not_ready_is_not_touched(
    record: Record, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    account(monkeypatch, tmp_path, {"bootstrap": Answer(code="ParameterNotFound")})
    with pytest.raises(DeployError, match="not ready"):
        deploy("qa")
    assert record.done == [] and "make bootstrap STAGE=qa" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["caller", "stack", "resources"])
def test_nothing_is_guessed_of_a_stack_that_cannot_be_read(
    record: Record, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """Taken for one that is not there, it would lose its protection and its logging role."""
    account(monkeypatch, tmp_path, {**DEPLOYED, name: DENIED})
    with pytest.raises(DeployError, match=r"nothing was changed: denied; needs some:Action\."):
        deploy("qa", "1")
    assert record.done == []


def test_no_command_works_in_another_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, moto_url: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_url)
    stage = write(tmp_path, monkeypatch, account="999988887777")
    for attempt in (
        lambda: preflight.clients(stage),
        lambda: command.stage_environment("qa"),
        lambda: rotate_secret.deployed("qa"),
    ):
        with pytest.raises(DeployError, match="of account 123456789012, and stage qa is in 999988887777"):
            attempt()
    assert preflight.clients(write(tmp_path, monkeypatch, account="123456789012"))("sts")


@pytest.mark.parametrize("variable", ["DOMAIN", "CERTIFICATE"])
def test_what_is_in_the_stage_file_now_is_refused_in_the_environment(
    record: Record, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    account(monkeypatch, tmp_path)
    monkeypatch.setenv(variable, "live.example.com")
    with pytest.raises(DeployError) as refused:
        deploy("qa")
    assert f'infra/stages/qa.json as "{variable.lower()}"' in str(refused.value) and record.done == []


def test_a_stack_that_is_not_there_has_no_protection_to_lose() -> None:
    assert NOT_THERE.value is None and protection.allow_repetition(None, "Tidegate-qa", None) is False


# --- asking -------------------------------------------------------------------------------------------------


def at_a_terminal(monkeypatch: pytest.MonkeyPatch, typed: str) -> None:
    monkeypatch.setattr("ops.confirm.sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("builtins.input", lambda prompt: typed)


def without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ops.confirm.sys.stdin", SimpleNamespace(isatty=lambda: False))


PREPARE = "cdk deploy --method=prepare-change-set"
EXECUTE = "cdk deploy --method=execute-change-set"


def test_new_code_is_shown_and_not_asked_about(record: Record, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    account(monkeypatch, tmp_path, DEPLOYED)
    without_a_terminal(monkeypatch)
    assert deploy("qa") == 0
    assert record.done[5:8] == ["cdk diff --method=template", PREPARE, EXECUTE]


def test_a_lost_table_is_asked_about(
    record: Record, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    account(monkeypatch, tmp_path, DEPLOYED)
    record.changes = [NEW_CODE, LOST_TABLE]
    at_a_terminal(monkeypatch, "no")
    with pytest.raises(DeployError, match="Nothing was changed"):
        deploy("qa")
    assert record.done[-2:] == [PREPARE, "change set is dropped"] and EXECUTE not in record.done
    assert "this deployment removes the table Users, and deletes it" in capsys.readouterr().out
    at_a_terminal(monkeypatch, " Yes ")
    assert deploy("qa") == 0 and EXECUTE in record.done


def test_where_nobody_can_be_asked_it_refuses_and_says_what_it_would_have_asked(
    record: Record, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    account(monkeypatch, tmp_path, DEPLOYED)
    record.changes = [LOST_TABLE]
    without_a_terminal(monkeypatch)
    with pytest.raises(DeployError) as refused:
        deploy("qa")
    told = str(refused.value)
    assert "this deployment removes the table Users" in told and "make deploy STAGE=qa YES=1" in told
    assert EXECUTE not in record.done and record.done[-1] == "change set is dropped"
    assert deploy("qa", "1") == 0 and EXECUTE in record.done
    assert "this deployment removes the table Users" in capsys.readouterr().out, "a pipeline's log has it too"
    with pytest.raises(DeployError, match="YES='yes'; allowed: 1"):
        deploy("qa", "yes")


def test_a_first_creation_is_asked_about_because_it_makes_roles(
    record: Record, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    account(monkeypatch, tmp_path)
    without_a_terminal(monkeypatch)
    with pytest.raises(DeployError, match="creates 3 resources, 1 of them say who may do what"):
        deploy("qa")
    assert record.done[-1] == "cdk synth"


def test_without_a_change_the_stack_is_left_alone_and_the_rest_is_done(
    record: Record, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    account(monkeypatch, tmp_path, DEPLOYED)
    record.changes = None
    assert deploy("qa") == 0
    assert record.done[-4:] == ["change set is dropped", "protected", "pages are uploaded", "release is recorded"]


@pytest.mark.parametrize("failing", ["synth", "diff", "deploy"])
def test_what_fails_on_the_way_ends_it(
    record: Record, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, failing: str
) -> None:
    account(monkeypatch, tmp_path, DEPLOYED)
    record.failing = failing
    assert deploy("qa", "1") == 1
    assert EXECUTE not in record.done and "pages are uploaded" not in record.done


# --- bootstrap ----------------------------------------------------------------------------------------------


def test_the_stages_account_and_region_are_bootstrapped(
    record: Record, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, moto_url: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_url)
    write(tmp_path, monkeypatch, region="eu-north-1")
    assert command.bootstrap("qa") == 0
    assert record.arguments == ["cdk", "bootstrap", "aws://123456789012/eu-north-1"] and record.region == "eu-north-1"


@pytest.mark.parametrize("target", ["bootstrap", "preflight", "deploy", "destroy"])
def test_without_credentials_a_newcomer_is_told_in_a_line(target: str) -> None:
    """As it is typed: without a path, and without anything of AWS in the environment."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("AWS_") and key != "PYTHONPATH"}
    nobody = {"AWS_EC2_METADATA_DISABLED": "true", "HOME": "/nowhere", "AWS_CONFIG_FILE": "/nowhere"}
    done = subprocess.run(
        ["make", target, "STAGE=staging"], cwd=ROOT, env={**env, **nobody}, capture_output=True, text=True
    )
    told = done.stdout + done.stderr
    assert done.returncode != 0 and "Traceback" not in told and "No module named" not in told
    assert ("credentials: there are none" in told) is (target != "destroy"), told
    assert ("set AWS_PROFILE, or log in" in told) or "AWS cannot be reached with the current credentials" in told


def test_the_bootstrap_template_is_written_without_credentials() -> None:
    """The CLI reads no app for it, so the module that a newcomer missed is not asked for."""
    path = subprocess.run(
        ["python3", "scripts/setup.py", "--print-path"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    env = {"PATH": f"{path}{os.pathsep}{os.environ['PATH']}", "HOME": os.environ.get("HOME", "/")}
    done = subprocess.run(["cdk", "bootstrap", "--show-template"], cwd=ROOT, env=env, capture_output=True, text=True)
    assert (done.returncode == 0 and "CDKToolkit" in done.stdout + done.stderr) or "BootstrapVersion" in done.stdout
    assert "/cdk-bootstrap/${Qualifier}/version" in done.stdout
