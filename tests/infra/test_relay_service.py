"""The relay as a service: what the stage's template has then, and that it has nothing of it otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk.assertions import Template

from functions.relay.process import BEAT_S
from infra.app import build
from infra.packaging import PYTHON_VERSION, ROOT
from infra.relay_service import DOCKERFILE, HEALTH_FILE, IMAGE_OF, RelayService
from infra.stage_place import TASK_MEMORY_MB, RelayTasks
from ops.cost_load import SERVICE_SIZES
from tests.infra.test_place import VPC
from tests.infra.test_templates import POLICIES, flags, of_type, properties
from tests.stage_files import write
from tidegate.domain.relay import ENDED_S

#: What is made of each of these kinds for the service only.
KINDS = ("AWS::ECS::Cluster", "AWS::ECS::Service", "AWS::ECS::TaskDefinition", "AWS::EC2::VPC")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The template of a stage with the service, and the folder that its image is built from."""
    with pytest.MonkeyPatch.context() as patch:
        write(tmp_path_factory.mktemp("stages"), patch, relay={"service": True}, alarm_email="a@example.com")
        app = cdk.App(
            context={"stage": "qa", "aws:cdk:bundling-stacks": [], **flags()},
            outdir=str(tmp_path_factory.mktemp("assembly")),
        )
        rendered: dict[str, Any] = Template.from_stack(build(app)).to_json()
        folder = Path(app.synth().directory)
    (assets,) = folder.glob("*.assets.json")
    (image,) = json.loads(assets.read_text())["dockerImages"].values()
    assert image["source"]["dockerFile"] == DOCKERFILE and image["source"]["platform"] == "linux/arm64"
    return rendered, folder / image["source"]["directory"]


def relay_function(rendered: dict[str, Any]) -> dict[str, Any]:
    found = properties(rendered, "AWS::Lambda::Function")
    (function,) = [each for each in found if each["Handler"] == "functions.relay.worker.handler"]
    return function


def statements(rendered: dict[str, Any], policy: str) -> list[str]:
    found = [
        statement
        for name, each in rendered["Resources"].items()
        if each["Type"] in POLICIES and name.startswith(policy)
        for statement in each["Properties"]["PolicyDocument"]["Statement"]
    ]
    assert found, policy
    return [json.dumps(statement, sort_keys=True) for statement in found]


def test_tasks_run_the_code_settings_and_rights_of_the_function(made: tuple[dict[str, Any], Path]) -> None:
    rendered, _ = made
    (task,) = properties(rendered, "AWS::ECS::TaskDefinition")
    (container,) = task["ContainerDefinitions"]
    given = {each["Name"]: each["Value"] for each in container["Environment"]}
    function = relay_function(rendered)["Environment"]["Variables"]
    assert function.pop("RELAY_SPARE") == "true" and function.pop("RELAY_ALIAS") == "live"
    assert given.pop("AWS_REGION") == {"Ref": "AWS::Region"} and given.pop("RELAY_HEALTH_FILE") == HEALTH_FILE
    assert given == function
    of_task, of_function = (set(statements(rendered, f"Relay{name}RoleDefault")) for name in ("TasksTask", "Worker"))
    assert of_task <= of_function and "lambda:" not in "".join(of_task)
    assert all('"logs:' in statement for statement in of_function - of_task), "its logs are its own"
    (role,) = [each for name, each in rendered["Resources"].items() if name.startswith("RelayTasksTaskRole")][:1]
    (trusted,) = role["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    assert trusted["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}
    assert (task["Cpu"], task["Memory"], task["RuntimePlatform"]["CpuArchitecture"]) == ("256", "512", "ARM64")


def test_nothing_asks_for_the_function(made: tuple[dict[str, Any], Path]) -> None:
    rendered, _ = made
    told = [each["Environment"]["Variables"] for each in properties(rendered, "AWS::Lambda::Function")]
    assert not [variables for variables in told if "RELAY_FUNCTION" in variables]
    assert sum(variables.get("RELAY_SERVICE") == "true" for variables in told) == 3
    starts = [one for kind in POLICIES for one in properties(rendered, kind) if "lambda:InvokeFunction" in str(one)]
    assert [one["PolicyName"].startswith("RelayStartSuccessors") for one in starts if "RelayWorker" in str(one)] == [
        True
    ], "the function itself, for as long as it runs"


def test_a_task_runs_before_another_ends_and_has_the_time_to_end(made: tuple[dict[str, Any], Path]) -> None:
    rendered, _ = made
    (service,) = of_type(rendered, "AWS::ECS::Service")
    told = service["Properties"]["DeploymentConfiguration"]
    assert (told["MinimumHealthyPercent"], told["MaximumPercent"]) == (100, 200)
    assert told["DeploymentCircuitBreaker"] == {"Enable": True, "Rollback": True}
    assert service["Properties"]["DesiredCount"] == 1
    (container,) = properties(rendered, "AWS::ECS::TaskDefinition")[0]["ContainerDefinitions"]
    assert ENDED_S < container["StopTimeout"] <= 120, "ECS allows 120"
    assert container["LinuxParameters"]["InitProcessEnabled"] is True
    assert f"find {HEALTH_FILE} -mmin -0.5" in container["HealthCheck"]["Command"][1] and BEAT_S * 2 < 30
    # The aliases of those who would start functions have moved before: see tests/infra/test_rollout.py.
    (alias,) = [name for name in service["DependsOn"] if rendered["Resources"][name]["Type"] == "AWS::Lambda::Alias"]
    assert alias.startswith("RelayWorker")
    assert [name for name in service["DependsOn"] if rendered["Resources"][name]["Type"] == "AWS::EC2::Route"]


def test_there_is_a_way_out_without_a_gateway_to_pay_and_none_in(made: tuple[dict[str, Any], Path]) -> None:
    rendered, _ = made
    assert not of_type(rendered, "AWS::EC2::NatGateway")
    (group,) = properties(rendered, "AWS::EC2::SecurityGroup")
    assert "SecurityGroupIngress" not in group and not of_type(rendered, "AWS::EC2::SecurityGroupIngress")
    (service,) = properties(rendered, "AWS::ECS::Service")
    network = service["NetworkConfiguration"]["AwsvpcConfiguration"]
    assert network["AssignPublicIp"] == "ENABLED" and len(network["Subnets"]) == 2


def test_somebody_is_told_when_no_task_runs(made: tuple[dict[str, Any], Path]) -> None:
    rendered, _ = made
    alarms = properties(rendered, "AWS::CloudWatch::Alarm")
    (alarm,) = [each for each in alarms if "relay-service-stopped" in json.dumps(each["AlarmName"])]
    assert alarm["TreatMissingData"] == "breaching" and alarm["AlarmActions"]
    assert "docs/operations/relay-service.md" in alarm["AlarmDescription"]


def test_the_image_has_the_code_and_nothing_else_of_the_checkout(made: tuple[dict[str, Any], Path]) -> None:
    _, folder = made
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    allowed = tuple(path if "." in path else f"{path}/" for path in IMAGE_OF)
    assert not [path for path in files if not path.startswith(allowed) or "__pycache__" in path]
    assert {"functions/relay/process.py", "layers/tidegate/python/tidegate/domain/relay.py"} <= files
    docker = (ROOT / DOCKERFILE).read_text()
    assert (
        f"python:{PYTHON_VERSION}-" in docker and '"-m", "functions.relay"' in docker and "--require-hashes" in docker
    )
    copied = [line.split()[1].rstrip("/") for line in docker.splitlines() if line.startswith("COPY ")]
    assert all((folder / path).exists() for path in copied)


def test_the_network_of_the_stage_file_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = write(tmp_path, monkeypatch, relay={"service": True, "tasks": 2}, relay_vpc=VPC)
    assert stage.place.relay_tasks == RelayTasks(2, 256, 512)
    stack = cdk.Stack(cdk.App(context=flags()), "Stack")
    alias = SimpleNamespace(node=SimpleNamespace(default_child=cdk.CfnResource(stack, "Alias", type="A::B::C")))
    worker: Any = SimpleNamespace(statements=[], variables={}, live=alias)
    RelayService(stack, "Tasks", stage=stage, tasks=stage.place.relay_tasks, worker=worker)
    rendered = Template.from_stack(stack).to_json()
    (service,) = properties(rendered, "AWS::ECS::Service")
    network = service["NetworkConfiguration"]["AwsvpcConfiguration"]
    assert network == {
        "AssignPublicIp": "DISABLED",
        "SecurityGroups": VPC["security_groups"],
        "Subnets": VPC["subnets"],
    }
    assert service["DesiredCount"] == 2 and not of_type(rendered, "AWS::EC2::VPC")


def test_a_service_that_is_off_is_no_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        write(tmp_path, monkeypatch, relay={"service": False, "cpu": 512, "memory_mb": 1024}).place.relay_tasks is None
    )


def test_what_make_cost_reckons_with_can_be_had() -> None:
    assert all(memory_mb in TASK_MEMORY_MB[cpu] for cpu, memory_mb in SERVICE_SIZES.items())
    least = RelayTasks()
    assert SERVICE_SIZES[least.cpu] == least.memory_mb
