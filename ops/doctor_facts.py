"""Asks a deployed stage, and the account that it is in, what `make doctor` decides from. Nothing is decided here.

Nothing is changed, but one call is counted in the table of limits, as that of any visitor.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from infra.rollout_table import LIVE
from infra.stage import Stage
from ops.account_answers import resources_of
from ops.answers import Answer, ask
from ops.doctor_checks import TOGGLES, Protection, Receiver, SecretAge, Used
from ops.doctor_probe import Probe
from ops.protection import TABLE, was_created
from ops.stack_outputs import environment, output
from tidegate.domain.secret_names import CURRENT, SECRETS
from tidegate.tables import ACCESS, ALL_TABLES

FUNCTION, TOPIC, SCHEDULE = "AWS::Lambda::Function", "AWS::SNS::Topic", "AWS::Scheduler::Schedule"
#: Pages of a megabyte that are read at most, to find which protocols are used.
_MOST_PAGES = 50


@dataclass(frozen=True, slots=True)
class Target:
    """Where a stage is.

    Attributes:
        client: boto3's client of a service.
        region: None when none is set.
        edge_url: where browsers come to; None for what the stack says.
        address: of whoever asks, as the edge sees it; None when it has to be asked for.
        environment: what a function would see of its AWS: credentials, region and endpoint.
    """

    client: Callable[[str], Any]
    region: str | None
    environment: Callable[[], Mapping[str, str]]
    edge_url: str | None = None
    address: str | None = None


def collect(stage: Stage, target: Target) -> Mapping[str, Answer]:
    """Name -> answer. Nothing else is asked when the caller, the region or the stack is not known."""
    answers = {"caller": ask("sts:GetCallerIdentity", lambda: target.client("sts").get_caller_identity())}
    if not answers["caller"].there or target.region is None:
        return answers
    if stage.place.account not in (None, answers["caller"].value["Account"]):
        return answers
    name = f"Tidegate-{stage.name}"
    cloudformation = target.client("cloudformation")
    answers["stack"] = ask(
        "cloudformation:DescribeStacks", lambda: cloudformation.describe_stacks(StackName=name)["Stacks"][0]
    )
    answers["concurrency"] = ask(
        "lambda:GetAccountSettings",
        lambda: target.client("lambda").get_account_settings()["AccountLimit"]["ConcurrentExecutions"],
    )
    if answers["stack"].there and was_created(answers["stack"].value["StackStatus"]):
        return answers | _Deployed(stage, target, name, answers["stack"].value).answers()
    return answers


class _Deployed:
    """A stage whose stack is there."""

    def __init__(self, stage: Stage, target: Target, name: str, described: Mapping[str, Any]) -> None:
        self._stage = stage
        self._target = target
        self._client = target.client
        self._name = name
        self._described = described
        self._outputs = {each["OutputKey"]: each["OutputValue"] for each in described.get("Outputs", [])}

    def answers(self) -> dict[str, Answer]:
        found = {
            "recovery": ask("dynamodb:DescribeContinuousBackups", self._recovery),
            "secrets": ask("secretsmanager:ListSecretVersionIds", self._secrets),
            "keys": ask("kms:GetKeyRotationStatus", self._keys),
            "used": self._used(),
        }
        listed = ask("cloudformation:ListStackResources", lambda: resources_of(self._cloudformation, self._name))
        if listed.there:
            ids = [(each["ResourceType"], each.get("PhysicalResourceId", "")) for each in listed.value]
            found["environments"] = ask(
                "lambda:GetFunctionConfiguration", lambda: self._environments(of(ids, FUNCTION))
            )
            found["protection"] = self._protection(of(ids, TABLE))
            topic = self._stage.alarm_topic_arn or next(iter(of(ids, TOPIC)), None)
            found["topic"] = ask("sns:GetTopicAttributes", lambda: self._topic(topic))
            found["schedule"] = ask("scheduler:ListSchedules", lambda: self._schedule(of(ids, SCHEDULE)))
        else:
            found |= dict.fromkeys(("environments", "protection", "topic", "schedule"), listed)
        probe = Probe(self._stage, self._target.address, self._environment)
        url = self._target.edge_url or self._outputs.get("EdgeUrl") or self._outputs["HttpApiUrl"]
        found["probed"] = probe.counted(url)
        if self._stage.edge:
            found["around"] = probe.status(self._outputs["HttpApiUrl"])
        return found

    @property
    def _cloudformation(self) -> Any:
        return self._client("cloudformation")

    def _environment(self) -> Mapping[str, str]:
        """What the function of the API sees of its table of limits, and of their salt."""
        salt = {"LIMITER_HASH_SALT_ARN": self._outputs[output("LIMITER_HASH_SALT_ARN")]}
        return {**self._stage.variables, **self._target.environment(), **environment(self._outputs), **salt}

    def _protection(self, tables: list[str]) -> Answer:
        policy = ask(
            "cloudformation:GetStackPolicy",
            lambda: self._cloudformation.get_stack_policy(StackName=self._name).get("StackPolicyBody"),
        )
        if self._stage.disposable:  # it is protected by nothing, and an emulator may not know the calls
            return Answer(Protection(stack=False, policy=None))
        if not policy.there:
            return policy

        def protection() -> Protection:
            dynamodb = self._client("dynamodb")
            off = [
                table
                for table in tables
                if not dynamodb.describe_table(TableName=table)["Table"].get("DeletionProtectionEnabled")
            ]
            return Protection(bool(self._described.get("EnableTerminationProtection")), policy.value, tuple(off))

        return ask("dynamodb:DescribeTable", protection)

    def _recovery(self) -> list[str]:
        """The tables to be backed up for which it is off."""
        dynamodb = self._client("dynamodb")

        def on(name: str) -> bool:
            found = dynamodb.describe_continuous_backups(TableName=name)["ContinuousBackupsDescription"]
            return bool(found.get("PointInTimeRecoveryDescription", {}).get("PointInTimeRecoveryStatus") == "ENABLED")

        backed_up = [table for table in ALL_TABLES if table.backed_up]
        return [table.name for table in backed_up if not on(self._outputs[output(table.variable)])]

    def _secrets(self) -> Mapping[str, SecretAge]:
        found = {}
        for variable, name in SECRETS.items():
            if (arn := self._outputs.get(output(variable))) is not None:
                versions = self._client("secretsmanager").list_secret_version_ids(SecretId=arn)["Versions"]
                labelled = [each for each in versions if each.get("VersionStages")]
                (current,) = [each for each in labelled if CURRENT in each["VersionStages"]]
                age = now() - current["CreatedDate"]
                found[name] = SecretAge(age.total_seconds() / 86_400, beside=len(labelled) > 1)
        return found

    def _keys(self) -> Mapping[str, bool]:
        """Number -> whether KMS rotates it."""
        kms = self._client("kms")
        keys: Mapping[str, str] = json.loads(self._outputs["CredentialKeys"])
        return {
            number: bool(kms.get_key_rotation_status(KeyId=arn)["KeyRotationEnabled"]) for number, arn in keys.items()
        }

    def _environments(self, functions: list[str]) -> Mapping[str, Mapping[str, str]]:
        """A function's name in logs -> the variables of what is called. Functions that are not ours are left out."""
        live = {"Qualifier": LIVE} if self._stage.versions else {}
        found = {}
        for name in functions:
            given = self._client("lambda").get_function_configuration(FunctionName=name, **live)
            environment = given.get("Environment", {}).get("Variables", {})
            if "TIDEGATE_SERVICE" in environment:
                found[environment["TIDEGATE_SERVICE"]] = environment
        return found

    def _topic(self, arn: str | None) -> Receiver | None:
        if arn is None:
            return None
        given = self._client("sns").get_topic_attributes(TopicArn=arn)["Attributes"]
        return Receiver(int(given.get("SubscriptionsConfirmed", 0)), int(given.get("SubscriptionsPending", 0)))

    def _schedule(self, names: list[str]) -> str | None:
        """The state of the stack's schedule; None when it is gone."""
        name = next(iter(names), "")
        found = self._client("scheduler").list_schedules(NamePrefix=name)["Schedules"] if name else []
        return next((str(each["State"]) for each in found if each["Name"] == name), None)

    def _used(self) -> Answer:
        if self._stage.settings.api_base_url:
            return Answer(code="RemoteApi", message="the dashboards are another API's, and are not seen from here")
        return ask("dynamodb:Scan", self._protocols)

    def _protocols(self) -> Used:
        """Protocols of intents. Reading ends as soon as all of them were seen."""
        pages = (
            self._client("dynamodb")
            .get_paginator("scan")
            .paginate(
                TableName=self._outputs[output(ACCESS.variable)],
                FilterExpression="begins_with(#key, :intents)",
                ProjectionExpression="#intents",
                ExpressionAttributeNames={"#key": ACCESS.partition.name, "#intents": "intents"},
                ExpressionAttributeValues={":intents": {"S": "intents#"}},
            )
        )
        used: set[str] = set()
        for number, page in enumerate(pages, 1):
            texts = [each["S"] for item in page["Items"] for each in item.get("intents", {}).get("M", {}).values()]
            used |= {str(json.loads(text)["protocol"]) for text in texts}
            if used >= TOGGLES.keys():
                break
            if number == _MOST_PAGES:
                return Used(used, whole=False)
        return Used(used)


def now() -> datetime:
    return datetime.now(UTC)


def of(ids: list[tuple[str, str]], kind: str) -> list[str]:
    """The names of the resources of a kind."""
    return [physical for each, physical in ids if each == kind and physical]
