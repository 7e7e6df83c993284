"""What CloudFormation refuses to do to a stage, whoever asks: to replace or delete what holds its data.

`make deploy` sets it when a stage is all there. A stack policy does not keep `make destroy` from deleting the stack.
"""

from __future__ import annotations

import json
from typing import Any

#: Never replaced: another table is an empty one, and another key decrypts nothing.
NOT_REPLACED = ("AWS::DynamoDB::Table", "AWS::KMS::Key", "AWS::S3::Bucket", "AWS::SecretsManager::Secret")
#: Never deleted. A key goes when its number leaves `credential_keys`, which is checked, and stays in the account.
NOT_DELETED = ("AWS::DynamoDB::Table", "AWS::S3::Bucket", "AWS::SecretsManager::Secret")

_ANYBODY = {"Principal": "*", "Resource": "*"}
POLICY = json.dumps(
    {
        "Statement": [
            {"Effect": "Allow", "Action": "Update:*", **_ANYBODY},
            *(
                {"Effect": "Deny", "Action": action, **_ANYBODY, "Condition": {"StringEquals": {"ResourceType": kinds}}}
                for action, kinds in (("Update:Replace", NOT_REPLACED), ("Update:Delete", NOT_DELETED))
            ),
        ]
    }
)


def set_policy(cloudformation: Any, stack: str) -> bool:
    """Set it on the stack. Returns whether it was another one before. An error of AWS is passed on."""
    before = cloudformation.get_stack_policy(StackName=stack).get("StackPolicyBody")
    if before and json.loads(before) == json.loads(POLICY):
        return False
    cloudformation.set_stack_policy(StackName=stack, StackPolicyBody=POLICY)
    return True
