"""Operators' commands with `STAGE=local`, on moto in place of the emulator: they go by what `make up` wrote."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ops import deploy, local_stage, redrive, rotate_secret
from ops.deploy_errors import DeployError
from ops.stack_outputs import output
from tests.deployment import aws
from tidegate.adapters.aws.json_client import AwsError, JsonClient
from tidegate.adapters.aws.queue_watch import SqsDeadLetters
from tidegate.adapters.aws.revalidation_queue import read_task
from tidegate.domain.revocations import Task, TaskKind
from tidegate.domain.secret_names import SECRETS
from tidegate.providers.control_plane import ControlPlaneProviders
from tidegate.tables import ALL_TABLES
from tidegate.usecases.control_plane import dead_letters

_QUEUES = ("CATCH_UP", "CROWD", "REVALIDATION")


def stack_file(folder: Path, url: str) -> None:
    (folder / "stack.json").write_text(json.dumps({"emulator_url": url}))


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TIDEGATE_STATE", str(tmp_path))
    return tmp_path


@pytest.fixture
def stage(deployed: Mapping[str, str], state: Path) -> Iterator[Mapping[str, str]]:
    """A local stage that runs; what its functions have."""
    queues = [f"{name}_{kind}" for name in _QUEUES for kind in ("QUEUE_URL", "DEAD_QUEUE_URL")]
    outputs = {
        "RevalidationQueueUrl": deployed["REVALIDATION_QUEUE_URL"],
        "Queues": json.dumps({name: deployed[name] for name in (*queues, "PROFILES_QUEUE_URL")}),
        "SecretWaits": json.dumps({"cache": 10, "jwt": 60, "jwt-gateway": 60, "limiter-salt": 60}),
        **{output(table.variable): deployed[table.variable] for table in ALL_TABLES},
        **{output(name): deployed[name] for name in SECRETS if name in deployed},
    }
    template = {
        "Resources": {"Any": {"Type": "AWS::SNS::Topic"}},
        "Outputs": {name: {"Value": value} for name, value in outputs.items()},
    }
    cloudformation = aws(deployed["AWS_ENDPOINT_URL"], "cloudformation")
    cloudformation.create_stack(StackName=local_stage.STACK, TemplateBody=json.dumps(template))
    stack_file(state, deployed["AWS_ENDPOINT_URL"])
    yield deployed
    cloudformation.delete_stack(StackName=local_stage.STACK)


def queue(stage: Mapping[str, str]) -> Any:
    return aws(stage["AWS_ENDPOINT_URL"], "sqs")


def full_revalidation(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["deploy", "full-revalidation", "--stage", "local"])
    return deploy.main()


def test_a_full_revalidation_is_asked_for(stage: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert full_revalidation(monkeypatch) == 0
    (message,) = queue(stage).receive_message(QueueUrl=stage["REVALIDATION_QUEUE_URL"])["Messages"]
    assert read_task(message["Body"]).kind is TaskKind.FULL


def test_secrets_are_shown(stage: Mapping[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert rotate_secret.main(["--stage", "local", "--json"]) == 0
    shown = [json.loads(line)["secret"] for line in capsys.readouterr().out.splitlines()]
    assert shown == [name for variable, name in SECRETS.items() if variable in stage]
    assert rotate_secret.main(["--stage", "local", "--name", "none"]) == 1
    assert "NAME='none' is no secret of this stage; it has: jwt," in capsys.readouterr().err


# --- when it does not run -------------------------------------------------------------------------------------


def test_a_stack_that_was_never_started(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: tuple[Callable[[], int], ...] = (
        lambda: full_revalidation(monkeypatch),
        lambda: rotate_secret.main(["--stage", "local"]),
        lambda: redrive.main(["--stage", "local"]),
    )
    for command in commands:
        assert command() == 1
        told = capsys.readouterr().err
        assert "The local stack does not run: there is no" in told and "`make up`" in told


def test_a_stack_that_has_ended_or_cannot_say(state: Path, moto_url: str) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        stack_file(state, f"http://127.0.0.1:{nobody.getsockname()[1]}")
        with pytest.raises(DeployError, match="does not run any more: nothing answers at http://127"):
            local_stage.running()
    stack_file(state, moto_url)
    with pytest.raises(DeployError, match=r"could not be asked at http://127.*does not exist"):
        local_stage.running()


# --- dead letters ---------------------------------------------------------------------------------------------


def bury(stage: Mapping[str, str], count: int) -> None:
    buried = ControlPlaneProviders(stage).buried_tasks
    for number in range(count):
        buried.bury(Task(TaskKind.DASHBOARD, f"d{number}", 7))


def listed(capsys: pytest.CaptureFixture[str]) -> dict[str, int]:
    assert redrive.main(["--stage", "local", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return {row["queue"]: row["messages"] for row in rows}


def test_what_a_queue_holds_goes_back(
    stage: Mapping[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dead_letters, "MOST", 4)  # so that it takes several calls
    bury(stage, 11)
    assert listed(capsys) == {"catch-ups": 0, "crowds": 0, "revalidation": 11}
    assert redrive.main(["--stage", "local", "--queue", "revalidation"]) == 0
    assert "11 were sent back, 0 left" in capsys.readouterr().out
    assert listed(capsys)["revalidation"] == 0
    found = set()
    while messages := queue(stage).receive_message(QueueUrl=stage["REVALIDATION_QUEUE_URL"]).get("Messages"):
        found |= {read_task(message["Body"]).target for message in messages}
    assert found == {f"d{number}" for number in range(11)}
    assert redrive.main(["--stage", "local", "--queue", "revalidation"]) == 0
    assert "revalidation is empty" in capsys.readouterr().out


def test_what_fails_again_meanwhile_is_not_sent_back_once_more(
    stage: Mapping[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dead_letters, "MOST", 2)
    bury(stage, 3)
    move = SqsDeadLetters.move_back

    def failing_again(self: SqsDeadLetters, most: int, deadline: float) -> int:
        moved = move(self, most, deadline)
        bury(stage, moved)
        return moved

    monkeypatch.setattr(SqsDeadLetters, "move_back", failing_again)
    assert redrive.main(["--stage", "local", "--queue", "revalidation", "--json"]) == redrive.LEFT
    assert json.loads(capsys.readouterr().out) == {"queue": "revalidation", "moved": 3, "left": 3}


def test_a_message_without_a_home_stays(stage: Mapping[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    queue(stage).send_message(QueueUrl=stage["REVALIDATION_DEAD_QUEUE_URL"], MessageBody="by hand")
    assert redrive.main(["--stage", "local", "--queue", "revalidation"]) == redrive.LEFT
    assert "0 were sent back, 1 left" in capsys.readouterr().out


def test_errors_of_a_redrive_name_what_is_wrong(
    stage: Mapping[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for given, told in (
        (["--stage", ""], "STAGE is missing; use STAGE=<one of: local, production, staging>"),
        (["--stage", "nowhere"], "Stage 'nowhere' does not exist"),
        (["--stage", "local", "--queue", "profiles"], "allowed: catch-ups, crowds, revalidation"),
    ):
        assert redrive.main(given) == 1
        assert told in capsys.readouterr().err

    def denied(client: JsonClient, operation: str, payload: Mapping[str, Any], **options: Any) -> dict[str, Any]:
        raise AwsError("sqs", operation, "AccessDeniedException", "no", False, {}, status=400)

    monkeypatch.setattr(JsonClient, "call", denied)
    assert redrive.main(["--stage", "local"]) == 1
    assert "AccessDeniedException" in capsys.readouterr().err, "denied is not the same as no answer"


def test_a_stage_of_an_older_release_is_told_to_deploy(
    stage: Mapping[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    older = {name: value for name, value in stage.items() if "DEAD_QUEUE" not in name}
    monkeypatch.setattr(redrive, "stage_environment", lambda name: older)
    assert redrive.main(["--stage", "staging"]) == 1
    assert "run `make deploy STAGE=staging` first" in capsys.readouterr().err
