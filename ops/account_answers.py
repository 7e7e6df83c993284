"""Asks an account what a deployment depends on. Nothing is decided here, and nothing is changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from botocore.config import Config

from infra.stage import Stage
from infra.stage_place import Place
from ops.answers import Answer, ask

#: The bootstrap stack's version, with the CDK's own qualifier.
BOOTSTRAP_PARAMETER = "/cdk-bootstrap/hnb659fds/version"
#: Certificates of CloudFront are in this region only.
CERTIFICATES = "us-east-1"
#: Seconds. An address that nobody answers at is told soon, not after boto3's five minutes.
PATIENCE = Config(connect_timeout=5, read_timeout=20, retries={"mode": "standard", "total_max_attempts": 3})


def collect(stage: Stage, session: Any) -> Mapping[str, Answer]:
    """Name -> answer. `session`: boto3's. When the caller is not known, nothing else is asked."""

    def client(service: str, region: str | None = None) -> Any:
        return session.client(service, region_name=region or session.region_name, config=PATIENCE)

    def asked(name: str, action: str, call: Callable[[], Any]) -> Answer:
        answers[name] = ask(action, call)
        return answers[name]

    answers: dict[str, Answer] = {}
    caller = asked(
        "caller", "sts:GetCallerIdentity", client("sts", session.region_name or CERTIFICATES).get_caller_identity
    )
    if not caller.there or not session.region_name:
        return answers
    stack = f"Tidegate-{stage.name}"
    asked(
        "bootstrap",
        "ssm:GetParameter",
        lambda: client("ssm").get_parameter(Name=BOOTSTRAP_PARAMETER)["Parameter"]["Value"],
    )
    described = asked(
        "stack",
        "cloudformation:DescribeStacks",
        lambda: client("cloudformation").describe_stacks(StackName=stack)["Stacks"][0],
    )
    if described.there:
        asked("resources", "cloudformation:ListStackResources", lambda: resources_of(client("cloudformation"), stack))
    asked(
        "concurrency",
        "lambda:GetAccountSettings",
        lambda: client("lambda").get_account_settings()["AccountLimit"]["ConcurrentExecutions"],
    )
    role = role_of(asked("api_gateway", "apigateway:GET", lambda: client("apigateway").get_account()))
    if role is not None:
        asked("role", "iam:GetRole", lambda: client("iam").get_role(RoleName=role.rsplit("/", 1)[-1])["Role"]["Arn"])
    if stage.edge:
        asked("distributions", "cloudfront:ListDistributions", lambda: _distributions(client("cloudfront")))
    for name, action, call in _of_place(stage.place, client):
        asked(name, action, call)
    return answers


def _of_place(place: Place, client: Callable[..., Any]) -> Iterator[tuple[str, str, Callable[[], Any]]]:
    """Name, IAM action and call of what the stage file names in the account."""
    if place.certificate is not None:
        arn = place.certificate
        yield (
            "certificate",
            "acm:DescribeCertificate",
            lambda: client("acm", CERTIFICATES).describe_certificate(CertificateArn=arn)["Certificate"],
        )
    if place.hosted_zone is not None:
        zone = place.hosted_zone
        yield "hosted_zone", "route53:GetHostedZone", lambda: client("route53").get_hosted_zone(Id=zone)["HostedZone"]
    if place.relay_vpc is not None:
        subnets = list(place.relay_vpc.subnets)
        yield "subnets", "ec2:DescribeSubnets", lambda: client("ec2").describe_subnets(SubnetIds=subnets)["Subnets"]


def no_stack(answer: Answer) -> bool:
    """Whether CloudFormation says that there is no such stack, which it says by words only."""
    return answer.code == "ValidationError" and "does not exist" in answer.message


def role_of(answer: Answer) -> str | None:
    """The ARN of the account's logging role of API Gateway; None when it has none, or it is not known."""
    return (answer.value or {}).get("cloudwatchRoleArn") or None


def resources_of(cloudformation: Any, stack: str) -> list[dict[str, Any]]:
    """All resources of a stack. An error of AWS is passed on."""
    pages = cloudformation.get_paginator("list_stack_resources").paginate(StackName=stack)
    return [resource for page in pages for resource in page["StackResourceSummaries"]]


def _distributions(cloudfront: Any) -> list[dict[str, Any]]:
    """Id and names of each distribution of the account."""
    pages = cloudfront.get_paginator("list_distributions").paginate()
    return [
        {"Id": each["Id"], "Aliases": each.get("Aliases", {}).get("Items", [])}
        for page in pages
        for each in page.get("DistributionList", {}).get("Items", [])
    ]
