"""What becomes of data when a stage goes."""

from __future__ import annotations

import aws_cdk as cdk

from infra.stage import Stage

#: Kept when the stack is deleted or a resource is replaced. But what a first creation made goes when that creation is
#: rolled back. Otherwise each try would leave tables, keys and log groups behind.
KEPT = cdk.RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE


def data_of(stage: Stage) -> cdk.RemovalPolicy:
    """Of tables, keys, secrets, buckets and logs."""
    return cdk.RemovalPolicy.DESTROY if stage.disposable else KEPT
