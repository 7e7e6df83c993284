"""`make rollback`: brings back the release before, in seconds. It asks before it acts; YES=1 answers yes."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import botocore.exceptions

from infra.rollout_table import LIVE
from infra.stage import StageError, load_stage
from ops import pages, preflight, releases
from ops.account_answers import resources_of
from ops.confirm import by_name
from ops.deploy_errors import DeployError, cloud_stage
from ops.releases import Record, Release
from ops.rollback_plan import CANCEL, MOVE, PAGE, STOP, Action, Alias, Found, Refused, plan

Clients = Callable[[str], Any]


class Deployed:
    """A stage in an account. Errors of boto3 are passed on."""

    def __init__(self, client: Clients, stage: str) -> None:
        """`client`: makes boto3's client of a service."""
        self._client = client
        self._stage = stage
        self._stack = f"Tidegate-{stage}"
        (described,) = client("cloudformation").describe_stacks(StackName=self._stack)["Stacks"]
        self._status = str(described["StackStatus"])
        outputs = {output["OutputKey"]: output["OutputValue"] for output in described.get("Outputs", [])}
        #: A function's path below the stack -> its name.
        self.functions: Mapping[str, str] = json.loads(outputs.get("Functions", "{}"))
        self._bucket = outputs.get("ConsoleBucket")
        #: Whether the relay is a service, which no alias moves.
        self.relay_service = "RelayService" in outputs

    def release(self) -> Release:
        """What is live, as far as nothing shifts."""
        return Release({name: alias.version for name, alias in self._aliases().items()}, self._pages())

    def found(self) -> Found:
        return Found(self._status, self._aliases(), self._pages(), tuple(self._deployments()))

    def record(self) -> Record | None:
        return releases.read(self._client("ssm"), self._stage)

    def note(self, record: Record) -> None:
        releases.write(self._client("ssm"), self._stage, record)

    def do(self, action: Action) -> None:
        if action.what == CANCEL:
            self._client("cloudformation").cancel_update_stack(StackName=self._stack)
        elif action.what == STOP:
            self._client("codedeploy").stop_deployment(deploymentId=action.name, autoRollbackEnabled=True)
        elif action.what == PAGE:
            pages.put_back(self._client("s3"), str(self._bucket), action.name, action.to)
        elif action.what == MOVE:
            self._client("lambda").update_alias(
                FunctionName=self.functions[action.name],
                Name=LIVE,
                FunctionVersion=action.to,
                RoutingConfig={"AdditionalVersionWeights": {}},
            )

    def _aliases(self) -> dict[str, Alias]:
        client = self._client("lambda")
        found = {}
        for name, function in self.functions.items():
            alias = client.get_alias(FunctionName=function, Name=LIVE)
            weights = alias.get("RoutingConfig", {}).get("AdditionalVersionWeights", {})
            found[name] = Alias(alias["FunctionVersion"], shifting=bool(weights))
        return found

    def _pages(self) -> Mapping[str, str]:
        return pages.shown(self._client("s3"), self._bucket) if self._bucket else {}

    def _deployments(self) -> Iterator[str]:
        """Ids of those that run. Only while the stack is updated can there be any."""
        if self._status != "UPDATE_IN_PROGRESS":
            return
        resources: dict[str, list[str]] = {}
        for each in resources_of(self._client("cloudformation"), self._stack):
            resources.setdefault(each["ResourceType"], []).append(each.get("PhysicalResourceId", ""))
        client = self._client("codedeploy")
        for application in resources.get("AWS::CodeDeploy::Application", []):
            for group in resources.get("AWS::CodeDeploy::DeploymentGroup", []):
                yield from client.list_deployments(
                    applicationName=application,
                    deploymentGroupName=group,
                    includeOnlyStatuses=["Created", "Queued", "InProgress"],
                )["deployments"]


def main(arguments: list[str] | None = None, *, client: Clients | None = None) -> int:
    """`client`: makes boto3's client of a service; None for the current credentials."""
    parser = argparse.ArgumentParser(prog="python -m ops.rollback", description=__doc__)
    parser.add_argument("--stage", default="")
    parser.add_argument("--json", action="store_true", help="one JSON object in a line for each action")
    parser.add_argument(
        "--further", action="store_true", help="go back although the last deployment was taken back already"
    )
    options = parser.parse_args(arguments)
    try:
        stage = cloud_stage(options.stage)
        return _go_back(
            Deployed(client or preflight.clients(load_stage(stage)), stage),
            stage,
            as_json=options.json,
            further=options.further,
        )
    except Refused as refused:
        print(f"refused: {refused}", file=sys.stderr)
    except (DeployError, StageError) as error:
        print(f"error: {error}", file=sys.stderr)
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
        print(f"error: AWS did not do it: {error}; run the command again to go on", file=sys.stderr)
    return 1


def _go_back(deployed: Deployed, stage: str, *, as_json: bool, further: bool) -> int:
    found, record = deployed.found(), deployed.record()
    actions = plan(stage, found, record, further=further)
    for action in actions:
        _tell("planned", action, as_json)
    if actions:
        _ask(stage, as_json)
    for action in actions:
        deployed.do(action)
        _tell("done", action, as_json)
    if found.status == "UPDATE_IN_PROGRESS":
        _say("CloudFormation takes back what the deployment changed; wait for UPDATE_ROLLBACK_COMPLETE", as_json)
        return 0
    assert record is not None  # or there would be no plan
    deployed.note(record.after_going_back())
    _say("the release before is live. Relay workers hand over within two minutes", as_json)
    if deployed.relay_service:
        _say("the relay's service stays at the release that was left: to move it, deploy the release before", as_json)
    return 0


def _ask(stage: str, as_json: bool) -> None:
    """Go on only when somebody says so. Raises `DeployError`."""
    command = f"make rollback STAGE={stage} YES=1"
    said = os.environ.get("YES") == "1"
    if as_json and not said:
        raise DeployError(f"With --json nobody is asked, so nothing was changed. To go on: {command}")
    by_name(stage, stage if said else "", command)


def _tell(state: str, action: Action, as_json: bool) -> None:
    fields = {"state": state, "what": action.what, "name": action.name, "was": action.was, "to": action.to}
    print(json.dumps(fields) if as_json else f"  {state}: {action}")


def _say(text: str, as_json: bool) -> None:
    print(json.dumps({"state": "end", "what": text}) if as_json else f"  {text}")


if __name__ == "__main__":
    sys.exit(main())
