"""Where the metrics of the platform are found that alarms and the dashboard look at: their dimensions in this stack."""

from __future__ import annotations

from collections.abc import Mapping

from aws_cdk import aws_sqs as sqs
from constructs import IConstruct

from infra.alarm_table import ASYNCHRONOUS, SCHEDULED, WAITED_FOR, Each
from infra.functions import name_of
from infra.gateway import STAGE_NAME, Gateway
from infra.http_api import HttpApi
from infra.rollout import functions_of
from infra.rollout_table import STEPS

#: Dimensions of a metric.
Dimensions = Mapping[str, str]
#: What -> the name of each group that is taken together, empty where there is one -> name of each of it -> dimensions.
Watched = Mapping[Each, Mapping[str, Mapping[str, Dimensions]]]


def watched(stack: IConstruct, *, gateway: Gateway, http_api: HttpApi, revalidation: sqs.Queue) -> Watched:
    """All of them. It looks for functions and queues in the stack, so these have to be there."""
    functions: Mapping[str, Dimensions] = {
        name: {"FunctionName": str(each.function.function_name)} for name, each in functions_of(stack).items()
    }
    queues = [each for each in stack.node.find_all() if isinstance(each, sqs.Queue)]
    dead = {name_of(each.node.scope): _of_queue(each) for each in queues if each.node.id == "Dead" and each.node.scope}
    live = {name_of(each): _of_queue(each) for each in queues if each.node.id != "Dead"}
    return {
        Each.STEP: {step.name: {name: functions[name] for name in step.functions} for step in STEPS},
        Each.WAITED_FOR: {"": {name: functions[name] for name in WAITED_FOR}},
        Each.ASYNCHRONOUS: {"": {name: functions[name] for name in ASYNCHRONOUS}},
        Each.SCHEDULE: {"": {SCHEDULED: functions[SCHEDULED]}},
        Each.ACCOUNT: {"": {"account": {}}},
        Each.DEAD_LETTER_QUEUE: {name: {name: dimensions} for name, dimensions in dead.items()},
        Each.QUEUE: {"": live},
        Each.REVALIDATION_QUEUE: {"": {"Revalidation": _of_queue(revalidation)}},
        Each.HTTP_API: {"": {"HttpApi": {"ApiId": http_api.api.api_id}}},
        Each.WEBSOCKET_API: {"": {"Gateway": {"ApiId": gateway.api.api_id, "Stage": STAGE_NAME}}},
    }


def _of_queue(queue: sqs.Queue) -> Dimensions:
    return {"QueueName": queue.queue_name}
