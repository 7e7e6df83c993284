"""cdk-nag, always on. A finding makes the synth fail unless it is acknowledged here with a reason."""

from __future__ import annotations

import aws_cdk as cdk
from cdk_nag import AwsSolutionsChecks

from infra.gateway import LOGGING_POLICY, STAGE_NAME
from infra.relay import VPC_POLICY
from infra.rollout import DEPLOY_POLICY
from infra.stack import TidegateStack

_REASONS = {
    "AwsSolutions-APIG1": "Access logs are on in every stage but the disposable local one.",
    "AwsSolutions-APIG4": "Login tokens, session tokens and the service token are checked by the handlers; "
    "$connect is open by design, because authentication happens per subscribe.",
    "AwsSolutions-DDB3": "Point-in-time recovery is on for what cannot be rebuilt; the rest heals itself.",
    "AwsSolutions-L1": "Python 3.13 is pinned: layers hold compiled code of that version, tests run on it.",
    "AwsSolutions-SMG4": "Rotation is by command with two accepted versions; there is no service to rotate at.",
    "AwsSolutions-SQS3": "The dead-letter queue itself has none.",
    "AwsSolutions-CFR1": "Who may see a dashboard is decided by sharing, not by country.",
    "AwsSolutions-CFR2": "Limits are the product's own; a web ACL is the operator's choice.",
    "AwsSolutions-CFR3": "Request logs would hold share tokens, which are part of paths.",
    "AwsSolutions-CFR4": "Without a domain of the operator the default certificate is CloudFront's own.",
    "AwsSolutions-CFR7": "The console bucket is read through origin access control.",
    "AwsSolutions-S1": "The console bucket holds public static files only.",
}


_LOGGING = f"AwsSolutions::AwsSolutions-IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/{LOGGING_POLICY}]"
_VPC = f"AwsSolutions::AwsSolutions-IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/{VPC_POLICY}]"
_DEPLOYS = f"AwsSolutions::AwsSolutions-IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/{DEPLOY_POLICY}]"
_CONNECTIONS = "Connection ids are not known before; the grant names the API, its stage and one method."


def check(app: cdk.App, stack: TidegateStack) -> None:
    """Add the checks and the acknowledgements."""
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    cdk.Validations.of(stack).acknowledge(
        *(cdk.Acknowledgment(id=rule, reason=reason) for rule, reason in _REASONS.items()),
        *(
            cdk.Acknowledgment(id="AwsSolutions-SQS4", reason="The emulator is reached over plain HTTP on loopback.")
            for _ in range(0 if stack.stage_settings.tls else 1)
        ),
        cdk.Acknowledgment(id=_DEPLOYS, reason="AWS keeps what CodeDeploy needs in this policy, and says to use it."),
        cdk.Acknowledgment(id=_LOGGING, reason="API Gateway accepts no narrower role for its account's logs."),
        *(
            cdk.Acknowledgment(id=_VPC, reason="Network interfaces have no names before they are made.")
            for _ in range(0 if stack.stage_settings.place.relay_vpc is None else 1)
        ),
        *(cdk.Acknowledgment(id=finding, reason=_CONNECTIONS) for finding in _connection_grants(stack)),
    )


def _connection_grants(stack: TidegateStack) -> list[str]:
    api = stack.gateway.api.node.default_child
    assert isinstance(api, cdk.CfnElement)
    arn = f"arn:<AWS::Partition>:execute-api:<AWS::Region>:<AWS::AccountId>:<{stack.get_logical_id(api)}>"
    return [
        f"AwsSolutions::AwsSolutions-IAM5[Resource::{arn}/{STAGE_NAME}/{method}/@connections/*]"
        for method in ("POST", "GET", "DELETE")
    ]
