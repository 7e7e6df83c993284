"""Brings new code to the functions' callers: step by step, by canaries, with alarms that take a step back.

A function's alias `live` is what is called. CodeDeploy moves it, and CloudFormation waits for that. When an alarm goes
off, CodeDeploy moves the alias back, and CloudFormation everything else.
"""

from __future__ import annotations

from collections.abc import Mapping

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_codedeploy as codedeploy
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from constructs import Construct, IConstruct

from infra.alarm_table import PERIOD_S
from infra.edge import Edge
from infra.functions import Function, name_of
from infra.rollout_table import LIVE, STEPS, Shift

#: What CodeDeploy may do: read alarms, and move aliases.
DEPLOY_POLICY = "service-role/AWSCodeDeployRoleForLambdaLimited"
#: Of the alarms that are there anyway, those that take a step back. They are of the whole stage.
STAGE_ALARMS = ("faults", "limiter-store-down")


class RollOut(Construct):
    """The order of a deployment, and its canaries.

    It is made last: it looks for functions, alarms and the edge in the stack. The edge comes before any alias moves.
    """

    def __init__(self, scope: Construct, construct_id: str, *, at_once: bool) -> None:
        """
        Args:
            at_once: whether this deployment shifts all calls of a step at once, without a canary.

        Raises:
            ValueError: a function has no place in `rollout_table`, a place has no function, or an alarm is not there.
        """
        functions, found = functions_of(scope), scope.node.find_all()
        alarms = {each.node.id: each for each in found if isinstance(each, cloudwatch.Alarm)}
        if missing := set(STAGE_ALARMS) - alarms.keys():
            raise ValueError(f"alarms that take a deployment back are not in the stack: {sorted(missing)}")
        super().__init__(scope, construct_id)
        self._alarms = [alarms[name] for name in STAGE_ALARMS]
        self._application = codedeploy.LambdaApplication(self, "Application")
        self._role = iam.Role(
            self,
            "Role",
            assumed_by=iam.ServicePrincipal("codedeploy.amazonaws.com"),
            managed_policies=[iam.ManagedPolicy.from_aws_managed_policy_name(DEPLOY_POLICY)],
        )
        before = [each.resource for each in found if isinstance(each, Edge)]
        for step in STEPS:
            aliases = []
            for name, shift in step.functions.items():
                alias = _resource(functions[name])
                for resource in before:
                    alias.add_resource_dependency(resource)
                if shift is Shift.CANARY:
                    # The group, with the alarm of the new version, is there before the alias moves.
                    alias.add_resource_dependency(self._shift(name, functions[name]))
                    if at_once:
                        alias.cfn_options.update_policy = None
                aliases.append(alias)
            before = aliases

    def _shift(self, name: str, function: Function) -> cdk.CfnResource:
        alias = function.live
        assert isinstance(alias, lambda_.Alias)
        group = codedeploy.LambdaDeploymentGroup(
            self,
            name,
            application=self._application,
            alias=alias,
            role=self._role,
            deployment_config=codedeploy.LambdaDeploymentConfig.CANARY_10_PERCENT_5_MINUTES,
            alarms=[self._new_version_fails(name, function), *self._alarms],
            auto_rollback=codedeploy.AutoRollbackConfig(
                failed_deployment=True, stopped_deployment=True, deployment_in_alarm=True
            ),
        )
        resource = group.node.default_child
        assert isinstance(resource, cdk.CfnResource)
        return resource

    def _new_version_fails(self, name: str, function: Function) -> cloudwatch.Alarm:
        """Goes off at the first failure. It counts the new version only, so the old one's failures stop nothing."""
        called = str(function.function.function_name)
        return cloudwatch.Alarm(
            self,
            f"new-version-fails-{name}",
            alarm_name=f"{cdk.Stack.of(self).stack_name}-new-version-fails-{name}",
            alarm_description="Calls of the newest version of a function fail. A deployment that runs goes back. "
            "Runbook: docs/operations/roll-out.md#when-an-alarm-goes-off",
            metric=cloudwatch.Metric(
                namespace="AWS/Lambda",
                metric_name="Errors",
                dimensions_map={
                    "FunctionName": called,
                    "Resource": f"{called}:{LIVE}",
                    "ExecutedVersion": function.function.current_version.version,
                },
                statistic="Sum",
                period=cdk.Duration.seconds(PERIOD_S),
            ),
            threshold=0,
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
            evaluation_periods=1,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )


def functions_of(stack: IConstruct) -> Mapping[str, Function]:
    """All functions, by their path below the stack. Raises `ValueError` when these are not those of `rollout_table`."""
    found = {name_of(each): each for each in stack.node.find_all() if isinstance(each, Function)}
    placed = {name for step in STEPS for name in step.functions}
    if found.keys() != placed:
        raise ValueError(
            f"functions without a place in infra/rollout_table.py, or the reverse: {found.keys() ^ placed}"
        )
    return found


def _resource(function: Function) -> cdk.CfnResource:
    resource = function.live.node.default_child
    assert isinstance(resource, cdk.CfnResource)
    return resource
