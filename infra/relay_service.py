"""The relay as a service of ECS: tasks on Fargate that run the relay's workers for as long as the stage is there.

Only a stage whose file says so has it. Its image is built from the checkout, which needs a container engine on the
machine that deploys; a synth needs none.
"""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.functions import Function
from infra.packaging import ROOT
from infra.retention import data_of
from infra.stage import Stage
from infra.stage_place import RelayTasks, RelayVpc
from tidegate.domain.relay import KILLED_S

DOCKERFILE = "infra/relay.Dockerfile"
#: What the image is built from. Whatever else changes in the checkout makes no new image.
IMAGE_OF = (
    DOCKERFILE,
    "functions/__init__.py",
    "functions/relay",
    "layers/tidegate/python",
    "layers/dependencies/requirements.txt",
    "layers/relay_dependencies/requirements.txt",
)
#: The process touches this file every five seconds while it is well.
HEALTH_FILE = "/tmp/relay-well"  # noqa: S108 - of the container, which only this process uses
#: What only an invocation has.
_OF_FUNCTION = ("RELAY_ALIAS", "RELAY_SPARE")
_REASONS = {
    "AwsSolutions-ECS2": "The variables are settings and ARNs. Secrets are read by the process itself.",
    "AwsSolutions-ECS4": "Container insights cost more than the task. Logs and the product's metrics say how it is.",
    "AwsSolutions-VPC7": "Nothing listens in this network. What upstreams are reached is in the product's own metrics.",
    "AwsSolutions-IAM5[Resource::*]": "ECR gives its login to no narrower resource.",
}


class RelayService(Construct):
    """Runs the code of the relay's function as tasks, with the settings and the rights of the function.

    Attributes:
        service: what ECS keeps running.
        task_role: what the process may do.
        stopped: the alarm for when no task runs.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, stage: Stage, tasks: RelayTasks, worker: Function
    ) -> None:
        """`worker`: the relay's function."""
        super().__init__(scope, construct_id)
        cdk.Validations.of(self).acknowledge(
            *(cdk.Acknowledgment(id=rule, reason=reason) for rule, reason in _REASONS.items())
        )
        made_vpc = stage.place.relay_vpc is None
        vpc, subnets, groups = self._made() if stage.place.relay_vpc is None else self._given(stage.place.relay_vpc)
        stack = cdk.Stack.of(self)
        of_account = {"StringEquals": {"aws:SourceAccount": stack.account}}
        principal = iam.ServicePrincipal("ecs-tasks.amazonaws.com", conditions=of_account)
        self.task_role = iam.Role(self, "TaskRole", assumed_by=principal)
        for statement in worker.statements:
            self.task_role.add_to_policy(statement)
        definition = ecs.FargateTaskDefinition(
            self,
            "Task",
            cpu=tasks.cpu,
            memory_limit_mib=tasks.memory_mb,
            runtime_platform=ecs.RuntimePlatform(
                cpu_architecture=ecs.CpuArchitecture.ARM64, operating_system_family=ecs.OperatingSystemFamily.LINUX
            ),
            task_role=self.task_role,
            execution_role=iam.Role(self, "ExecutionRole", assumed_by=principal),
        )
        definition.add_container(
            "relay",
            image=self._image(),
            environment={
                **{name: value for name, value in worker.variables.items() if name not in _OF_FUNCTION},
                "AWS_REGION": stack.region,
                "RELAY_HEALTH_FILE": HEALTH_FILE,
            },
            logging=ecs.LogDriver.aws_logs(
                stream_prefix="relay",
                log_group=logs.LogGroup(
                    self, "Logs", retention=logs.RetentionDays.ONE_MONTH, removal_policy=data_of(stage)
                ),
            ),
            health_check=ecs.HealthCheck(
                command=["CMD-SHELL", f'test -n "$(find {HEALTH_FILE} -mmin -0.5)"'],
                interval=cdk.Duration.seconds(10),
                timeout=cdk.Duration.seconds(5),
                retries=3,
                start_period=cdk.Duration.seconds(60),
            ),
            stop_timeout=cdk.Duration.seconds(KILLED_S),
            # So the process is not the first of its container. Signals are given on to it from its beginning.
            linux_parameters=ecs.LinuxParameters(self, "Linux", init_process_enabled=True),
        )
        cluster = ecs.Cluster(self, "Cluster", vpc=vpc)
        self.service = ecs.FargateService(
            self,
            "Service",
            cluster=cluster,
            task_definition=definition,
            desired_count=tasks.tasks,
            vpc_subnets=subnets,
            security_groups=groups,
            # Without a NAT gateway, which would cost more than the task, the way out is an address of its own.
            assign_public_ip=made_vpc,
            # A task that is new, or takes the place of one that is to go, runs before the other is told to end.
            min_healthy_percent=100,
            max_healthy_percent=200,
            circuit_breaker=ecs.DeploymentCircuitBreaker(enable=True, rollback=True),
        )
        # Once nobody asks for the function any more. The alias of the relay's function moves after all others.
        alias = worker.live.node.default_child
        assert isinstance(alias, cdk.CfnResource)
        self.service.node.add_dependency(alias)
        if made_vpc:
            self.service.node.add_dependency(*(each.internet_connectivity_established for each in vpc.public_subnets))
        self.stopped = self._alarm(stack.stack_name, cluster.cluster_name)

    def _made(self) -> tuple[ec2.IVpc, ec2.SubnetSelection, list[ec2.ISecurityGroup]]:
        """A network with a way out and none in."""
        vpc = ec2.Vpc(
            self,
            "Vpc",
            ip_addresses=ec2.IpAddresses.cidr("10.86.0.0/24"),
            max_azs=2,
            nat_gateways=0,
            restrict_default_security_group=False,
            subnet_configuration=[ec2.SubnetConfiguration(name="Public", subnet_type=ec2.SubnetType.PUBLIC)],
        )
        group = ec2.SecurityGroup(
            self, "SecurityGroup", vpc=vpc, description="Tasks of the relay, out only", allow_all_outbound=True
        )
        return vpc, ec2.SubnetSelection(subnet_type=ec2.SubnetType.PUBLIC), [group]

    def _given(self, network: RelayVpc) -> tuple[ec2.IVpc, ec2.SubnetSelection, list[ec2.ISecurityGroup]]:
        """The network that the stage file names."""
        vpc = ec2.Vpc.from_vpc_attributes(self, "Vpc", vpc_id=network.vpc, availability_zones=["not", "looked up"])
        subnets = [ec2.Subnet.from_subnet_id(self, f"Subnet{n}", each) for n, each in enumerate(network.subnets)]
        groups = [
            ec2.SecurityGroup.from_security_group_id(self, f"SecurityGroup{n}", each, mutable=False)
            for n, each in enumerate(network.security_groups)
        ]
        return vpc, ec2.SubnetSelection(subnets=subnets), groups

    @staticmethod
    def _image() -> ecs.ContainerImage:
        folders = {"/".join(path.split("/")[:depth]) for path in IMAGE_OF for depth in range(1, path.count("/") + 1)}
        exclude = ["/*"]
        for folder in sorted(folders):  # a folder is let in before what is in it
            exclude += [f"!/{folder}", f"/{folder}/*"]
        return ecs.ContainerImage.from_asset(
            str(ROOT),
            file=DOCKERFILE,
            ignore_mode=cdk.IgnoreMode.GIT,
            exclude=[*exclude, *(f"!/{path}" for path in IMAGE_OF), "__pycache__"],
            platform=ecr_assets.Platform.LINUX_ARM64,
        )

    def _alarm(self, stack_name: str, cluster_name: str) -> cloudwatch.Alarm:
        """Goes off when no task has reported for three minutes. A deployment leaves no such gap."""
        return cloudwatch.Alarm(
            self,
            "stopped",
            alarm_name=f"{stack_name}-relay-service-stopped",
            alarm_description="No task of the relay's service runs, so upstreams bring nothing. "
            "Runbook: docs/operations/relay-service.md#how-to-see-that-it-is-well",
            metric=cloudwatch.Metric(
                namespace="AWS/ECS",
                metric_name="CPUUtilization",
                dimensions_map={"ClusterName": cluster_name, "ServiceName": self.service.service_name},
                statistic="SampleCount",
                period=cdk.Duration.minutes(1),
            ),
            threshold=1,
            comparison_operator=cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD,
            evaluation_periods=3,
            treat_missing_data=cloudwatch.TreatMissingData.BREACHING,
        )
