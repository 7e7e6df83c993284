"""The synthesised templates, by type and property; bundling is off, so that synth takes seconds."""

from __future__ import annotations

import functools
import json
import re
import string
import subprocess
import sys
from itertools import permutations
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_s3 as s3
from aws_cdk.assertions import Template

import infra.stage
from infra.app import build
from infra.bridge import POLICY_LIMIT, THING, iot_topics_of, publish_resources, rule_sql
from infra.pages import FIXED_HEADERS, VIEWER_PATHS, content_security_policy, file_of
from infra.stage import StageError, load_stage, names
from local_stack import relay_workers
from tidegate.adapters.aws.json_client import DEFAULT_TIMEOUT_S
from tidegate.domain.client_ip import ORIGIN_HEADER
from tidegate.domain.limits import LIMITED_FUNCTION_S, MOST_LIMITER_MS
from tidegate.domain.secret_names import SECRETS
from tidegate.domain.time_limits import FUNCTION_S, MESSAGE_BUDGET_MS, UPSTREAM_S, function_s
from tidegate.tables import ALL_TABLES, HEALTH_PARTITION
from tidegate.usecases.relay.worker import HANDOVER_S


def template(stage: str, **context: object) -> dict[str, Any]:
    """The template of a stage. It is synthesised once for each text of the stage's file and each context: that takes
    seconds, and the same few are asked for again and again."""
    file = infra.stage.STAGES / f"{stage}.json"
    text = file.read_text() if file.exists() else None
    rendered: dict[str, Any] = json.loads(_synthesised(stage, text, json.dumps(context, sort_keys=True)))
    return rendered


@functools.cache
def _synthesised(stage: str, _file: str | None, context: str) -> str:
    app = cdk.App(context={"stage": stage, "aws:cdk:bundling-stacks": [], **flags(), **json.loads(context)})
    return json.dumps(Template.from_stack(build(app)).to_json())


def flags() -> dict[str, object]:
    flags: dict[str, object] = json.loads((Path(__file__).parents[2] / "cdk.json").read_text())["context"]
    return flags


@pytest.fixture(scope="module")
def production() -> dict[str, Any]:
    return template("production")


@pytest.fixture(scope="module")
def local() -> dict[str, Any]:
    return template("local")


#: How the data of a stage is kept.
KEPT = "RetainExceptOnCreate"
#: Statements that do not fit into a role's own policy are in one that is attached to it.
POLICIES = ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy")


def of_type(rendered: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [resource for resource in rendered["Resources"].values() if resource["Type"] == kind]


def properties(rendered: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [resource["Properties"] for resource in of_type(rendered, kind)]


def test_every_table_is_there_as_declared(production: dict[str, Any]) -> None:
    made = of_type(production, "AWS::DynamoDB::Table")
    assert len(made) == len(ALL_TABLES)
    for resource in made:
        assert resource["DeletionPolicy"] == KEPT
        assert resource["Properties"]["BillingMode"] == "PAY_PER_REQUEST"
        assert resource["Properties"]["SSESpecification"] == {"SSEEnabled": True}
        assert "TableName" not in resource["Properties"], "physical names would block a replacement"
    indexes = {
        (
            index["IndexName"],
            *(key["AttributeName"] for key in index["KeySchema"]),
            index["Projection"]["ProjectionType"],
        )
        for resource in made
        for index in resource["Properties"].get("GlobalSecondaryIndexes", [])
    }
    assert indexes == {
        (
            index.name,
            *(key.name for key in (index.partition, index.sort) if key),
            "INCLUDE" if index.include else index.projection,
        )
        for table in ALL_TABLES
        for index in table.indexes
    }
    assert ("by_expiry", "expiry_shard", "exp", "KEYS_ONLY") in indexes
    backed_up = [
        resource
        for resource in made
        if resource["Properties"]["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"]
    ]
    assert len(backed_up) == sum(table.backed_up for table in ALL_TABLES)
    streams = [
        resource["Properties"]["StreamSpecification"]
        for resource in made
        if "StreamSpecification" in resource["Properties"]
    ]
    assert sorted(stream["StreamViewType"] for stream in streams) == ["NEW_AND_OLD_IMAGES", "NEW_IMAGE"]


def test_a_disposable_stage_leaves_nothing(local: dict[str, Any]) -> None:
    assert {resource["DeletionPolicy"] for resource in of_type(local, "AWS::DynamoDB::Table")} == {"Delete"}


def test_every_function_starts_with_its_own_variables(production: dict[str, Any]) -> None:
    """On Lambda a module builds its services while it is loaded: a variable that is missing stops it there."""
    of_lambda = {"AWS_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none"}
    of_lambda["AWS_LAMBDA_FUNCTION_NAME"] = "under-test"
    root = Path(__file__).parents[2]
    of_lambda["PYTHONPATH"] = f"{root / 'layers/tidegate/python'}:{root}"
    for function in properties(production, "AWS::Lambda::Function"):
        # What only a deployment knows is an expression in the template.
        given = function["Environment"]["Variables"].items()
        variables = {name: value if isinstance(value, str) else "https://known.example/later" for name, value in given}
        module, _, handler = function["Handler"].rpartition(".")
        command = [sys.executable, "-c", f"from {module} import {handler}"]
        done = subprocess.run(command, capture_output=True, text=True, env={**variables, **of_lambda}, cwd=root)
        assert done.returncode == 0, f"{function['Handler']}: {done.stderr[-500:]}"


def test_functions_run_where_they_should(production: dict[str, Any]) -> None:
    functions = properties(production, "AWS::Lambda::Function")
    assert len(functions) == 12
    for resource in functions:
        assert (resource["Runtime"], resource["Architectures"]) == ("python3.13", ["arm64"])
        own_layers = {"functions.api.main.handler": 2, "functions.relay.worker.handler": 1}
        assert len(resource["Layers"]) == 2 + own_layers.get(resource["Handler"], 0)
        assert "LogGroup" in resource["LoggingConfig"]
        assert resource["Environment"]["Variables"]["REALTIME_TRUST_PROXY_HOPS"] == "2"
    assert all(group["RetentionInDays"] == 30 for group in properties(production, "AWS::Logs::LogGroup"))


def test_the_limiters_deadline_ends_before_every_function_that_asks_it(production: dict[str, Any]) -> None:
    waited_for = [
        resource["Timeout"]
        for resource in properties(production, "AWS::Lambda::Function")
        if "TIDEGATE_TABLE_LIMITERS" in resource["Environment"]["Variables"]
        and resource["Handler"].startswith(("functions.api.", "functions.gateway"))
    ]
    assert min(waited_for) == LIMITED_FUNCTION_S and MOST_LIMITER_MS / 1000 + DEFAULT_TIMEOUT_S < LIMITED_FUNCTION_S


def test_functions_run_as_long_as_settings_count_on(production: dict[str, Any]) -> None:
    remote = template("staging", settings={"GATEWAY_API_BASE_URL": "https://api.example.com"})
    for rendered, with_api in ((production, False), (remote, True)):
        limits = {
            resource["Handler"].removeprefix("functions.").removesuffix(".handler"): resource["Timeout"]
            for resource in properties(rendered, "AWS::Lambda::Function")
            if resource["Handler"].startswith("functions.")
        }
        assert limits == {function: function_s(function, remote_api=with_api) for function in FUNCTION_S}
    assert FUNCTION_S["relay.worker"] - HANDOVER_S >= UPSTREAM_S, "its successor is asked for at the end of that"
    assert function_s("gateway_connect.messages", remote_api=True) > MESSAGE_BUDGET_MS / 1000


def test_the_relay_may_start_its_successors_and_read_credentials_but_not_write_them(production: dict[str, Any]) -> None:
    (relay,) = [
        resource
        for resource in properties(production, "AWS::Lambda::Function")
        if resource["Handler"] == "functions.relay.worker.handler"
    ]
    assert (relay["Timeout"], relay["RecursiveLoop"]) == (900, "Allow")
    statements = [
        statement
        for policy in [one for kind in POLICIES for one in properties(production, kind)]
        if policy.get("PolicyName", "").startswith("Relay")
        for statement in policy["PolicyDocument"]["Statement"]
    ]
    actions = {
        action
        for statement in statements
        for action in (statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]])
    }
    assert {"lambda:InvokeFunction", "kms:Decrypt"} <= actions
    assert not {action for action in actions if action.startswith("kms:")} - {"kms:Decrypt"}


def granted(rendered: dict[str, Any], policy: str, action: str) -> set[str]:
    """Names of the keys on which a policy grants an action."""
    statements = [
        statement
        for name, resource in rendered["Resources"].items()
        if resource["Type"] in POLICIES and name.startswith(policy)
        for statement in resource["Properties"]["PolicyDocument"]["Statement"]
        if action in (statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]])
    ]
    resources = [statement["Resource"] for statement in statements]
    return {each["Fn::GetAtt"][0] for some in resources for each in (some if isinstance(some, list) else [some])}


def test_the_newest_credential_key_encrypts_and_all_decrypt(local: dict[str, Any]) -> None:
    """The local stage has two."""
    keys = sorted(name for name, resource in local["Resources"].items() if resource["Type"] == "AWS::KMS::Key")
    assert ["CredentialKey1" in keys[0], "CredentialKey2" in keys[1], len(keys)] == [True, True, 2]
    assert granted(local, "HttpApiRole", "kms:GenerateDataKey") == {keys[1]}
    assert granted(local, "HttpApiRole", "kms:Decrypt") == granted(local, "RelayWorker", "kms:Decrypt") == set(keys)
    for handler in ("functions.api.main.handler", "functions.relay.worker.handler"):
        (function,) = [
            resource for resource in properties(local, "AWS::Lambda::Function") if resource["Handler"] == handler
        ]
        assert function["Environment"]["Variables"]["CREDENTIAL_KEY_ID"] == {"Fn::GetAtt": [keys[1], "Arn"]}
    arns = local["Outputs"]["CredentialKeys"]["Value"]["Fn::Join"][1]
    assert [part["Fn::GetAtt"][0] for part in arns if isinstance(part, dict)] == keys
    assert [part for part in arns if isinstance(part, str)] == ['{"1":"', '","2":"', '"}']


def test_the_relay_may_decrypt_before_the_api_encrypts(local: dict[str, Any]) -> None:
    """Otherwise a secret set during a deployment could not be opened for some seconds."""
    (api,) = [
        resource
        for resource in of_type(local, "AWS::Lambda::Function")
        if resource["Properties"]["Handler"] == "functions.api.main.handler"
    ]
    assert [name for name in api["DependsOn"] if name.startswith("RelayWorker") and "DefaultPolicy" in name]


def test_a_dropped_credential_key_stays_where_data_matters(production: dict[str, Any], local: dict[str, Any]) -> None:
    for rendered, policy in ((production, KEPT), (local, "Delete")):
        assert {key["DeletionPolicy"] for key in of_type(rendered, "AWS::KMS::Key")} == {policy}


def test_no_grant_is_wider_than_needed(production: dict[str, Any]) -> None:
    for policy in [one for kind in POLICIES for one in properties(production, kind)]:
        for statement in policy["PolicyDocument"]["Statement"]:
            actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
            assert not any("*" in action for action in actions), actions
            resources = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
            assert "*" not in resources
            if actions == ["execute-api:ManageConnections"]:
                texts = [json.dumps(resource) for resource in resources]
                assert [method in text for method, text in zip(("POST", "GET", "DELETE"), texts, strict=True)]
                assert all("/@connections/*" in text and '"/live/*' not in text for text in texts)


def test_the_api_may_ask_tables_and_queues_whether_they_answer_and_no_more(production: dict[str, Any]) -> None:
    """What its role has beyond its own work: an item of each table that is never there, and attributes of queues."""
    statements = [
        statement
        for name, resource in production["Resources"].items()
        if resource["Type"] in POLICIES and name.startswith("HttpApiRole")
        for statement in resource["Properties"]["PolicyDocument"]["Statement"]
    ]
    asks, reads = [statement for statement in statements if "Condition" in statement]
    assert asks["Action"] == "dynamodb:GetItem" and len(asks["Resource"]) == len(ALL_TABLES)
    only = {"dynamodb:LeadingKeys": [HEALTH_PARTITION]}
    assert asks["Condition"] == {"ForAllValues:StringEquals": only}
    # For operators it reads the relay's streams and leases.
    assert reads["Action"] == ["dynamodb:GetItem", "dynamodb:Query"] and '"TablesStreams' in json.dumps(reads)
    assert reads["Condition"] == {"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": ["relay", "lease"]}}
    others = json.dumps([statement for statement in statements if "Condition" not in statement])
    assert '"TablesConnections' not in others, "nothing else of it"
    queues = granted(production, "HttpApiRole", "sqs:GetQueueAttributes")
    sends = granted(production, "HttpApiRole", "sqs:SendMessage")
    dead = {queue for queue in map(json.dumps, queues) if "Dead" in queue}
    assert len(dead) == 3 and len(set(map(json.dumps, queues))) == 7
    assert len(set(map(json.dumps, sends))) == 4 and not any("Dead" in json.dumps(queue) for queue in sends)
    for action in ("sqs:ReceiveMessage", "sqs:DeleteMessage"):
        taken = set(map(json.dumps, granted(production, "HttpApiRole", action)))
        assert taken == dead, "it takes messages from nowhere else"
    (api,) = [
        resource["Environment"]["Variables"]
        for resource in properties(production, "AWS::Lambda::Function")
        if resource["Handler"] == "functions.api.main.handler"
    ]
    assert {table.variable for table in ALL_TABLES} <= api.keys()


def test_secrets_are_referred_to_and_never_written(production: dict[str, Any]) -> None:
    assert len(of_type(production, "AWS::SecretsManager::Secret")) == 5
    for function in properties(production, "AWS::Lambda::Function"):
        for name, value in function["Environment"]["Variables"].items():
            if name.endswith("_ARN"):
                assert "Ref" in value, name
    scanning = [
        name
        for name, resource in production["Resources"].items()
        if resource["Type"] in POLICIES and "dynamodb:Scan" in json.dumps(resource)
    ]
    assert sorted(name.partition("Role")[0] for name in scanning) == ["RevalidationSchedule", "RevalidationWorker"], (
        "no request path may scan"
    )


def test_generated_secrets_need_no_quotation_marks(production: dict[str, Any]) -> None:
    """They are letters and digits, also on an emulator that knows excluded characters only."""
    for secret in properties(production, "AWS::SecretsManager::Secret"):
        generated = secret["GenerateSecretString"]
        assert generated["ExcludePunctuation"] and set(string.punctuation) <= set(generated["ExcludeCharacters"])


def test_only_those_who_ask_a_remote_api_get_its_token() -> None:
    def holders(rendered: dict[str, Any]) -> set[str]:
        return {
            resource["Handler"].removeprefix("functions.")
            for resource in properties(rendered, "AWS::Lambda::Function")
            if "GATEWAY_SERVICE_TOKEN_ARN" in resource["Environment"]["Variables"]
        }

    def worker_writes_access(rendered: dict[str, Any]) -> bool:
        (access,) = [name for name in rendered["Resources"] if name.startswith("TablesAccess")]
        statements = [
            statement
            for name, resource in rendered["Resources"].items()
            if resource["Type"] in POLICIES and "RevalidationWorker" in name
            for statement in resource["Properties"]["PolicyDocument"]["Statement"]
        ]
        return any(
            access in json.dumps(statement["Resource"]) and "dynamodb:UpdateItem" in statement["Action"]
            for statement in statements
        )

    tables = template("staging")
    assert holders(tables) == {"api.main.handler"} and not worker_writes_access(tables)
    url = {"GATEWAY_API_BASE_URL": "https://api.example.com"}
    external = template("staging", settings=url)
    assert holders(external) == {
        "api.main.handler",
        "gateway_connect.connect.handler",
        "gateway_connect.messages.handler",
        "relay.worker.handler",
        "revalidate.worker.handler",
    }
    assert worker_writes_access(external)
    for function in properties(external, "AWS::Lambda::Function"):
        assert function["Environment"]["Variables"]["GATEWAY_API_BASE_URL"] == url["GATEWAY_API_BASE_URL"]
    with pytest.raises(StageError, match=r"GATEWAY_API_BASE_URL.*not allowed in production"):
        template("production", settings={"GATEWAY_API_BASE_URL": "http://api.example.com"})


def test_the_gateways_routes(production: dict[str, Any]) -> None:
    (api,) = [
        resource
        for resource in properties(production, "AWS::ApiGatewayV2::Api")
        if resource["ProtocolType"] == "WEBSOCKET"
    ]
    assert api["RouteSelectionExpression"] == "$request.body.type"
    routes = {route["RouteKey"] for route in properties(production, "AWS::ApiGatewayV2::Route")}
    assert routes == {
        "$connect",
        "$disconnect",
        "$default",
        "subscribe",
        "unsubscribe",
        "ping",
        "ANY /api/{proxy+}",
        "ANY /internal/{proxy+}",
    }
    assert not of_type(production, "AWS::ApiGatewayV2::RouteResponse")
    for stage in properties(production, "AWS::ApiGatewayV2::Stage"):
        assert stage["DefaultRouteSettings"]["ThrottlingRateLimit"] > 0
        assert "$context.path" not in stage["AccessLogSettings"]["Format"], "share tokens are part of paths"


def test_a_stage_brings_the_role_its_access_logs_need(production: dict[str, Any], local: dict[str, Any]) -> None:
    (account,) = [
        key for key, resource in production["Resources"].items() if resource["Type"] == "AWS::ApiGateway::Account"
    ]
    assert production["Resources"][account]["DeletionPolicy"] == KEPT, "other APIs of the region may rely on it"
    role, _ = production["Resources"][account]["Properties"]["CloudWatchRoleArn"]["Fn::GetAtt"]
    assert production["Resources"][role]["DeletionPolicy"] == KEPT
    live = [
        resource
        for resource in of_type(production, "AWS::ApiGatewayV2::Stage")
        if resource["Properties"]["StageName"] == "live"
    ]
    assert [account in resource["DependsOn"] for resource in live] == [True]
    assert not of_type(local, "AWS::ApiGateway::Account")


def test_somebody_elses_logging_role_is_left_alone() -> None:
    rendered = template("production", others_logging_role="true")
    assert not of_type(rendered, "AWS::ApiGateway::Account")
    assert not [name for name in rendered["Resources"] if "LoggingRole" in name]
    (live,) = [
        resource
        for resource in of_type(rendered, "AWS::ApiGatewayV2::Stage")
        if resource["Properties"]["StageName"] == "live"
    ]
    assert live["Properties"]["AccessLogSettings"], "with that role it writes its logs"


def test_one_rule_for_each_allowed_topic_below_the_prefix(local: dict[str, Any]) -> None:
    rules = properties(local, "AWS::IoT::TopicRule")
    # The first that covers a topic filter is the one that feeds its streams.
    assert [rule["TopicRulePayload"]["Sql"] for rule in rules] == [rule_sql("demo/+/fast/#"), rule_sql("demo/#")]
    for rule in rules:
        payload = rule["TopicRulePayload"]
        assert "encode(*, 'base64')" in payload["Sql"]
        assert "CloudwatchLogs" in payload["ErrorAction"]
    assert rule_sql("a'b").endswith("'a''b' AS allowed_topic FROM 'a''b'")
    config = properties(local, "AWS::Lambda::EventInvokeConfig")
    limits = [(each["MaximumRetryAttempts"], each["MaximumEventAgeInSeconds"]) for each in config]
    # The bridge comes back once, to make sure that the newest value was the last; AWS waits a minute before it does. A
    # worker of the relay that came back beside its successor would be worse than none.
    assert sorted(limits) == [(0, 60), (1, 180)]


def test_batched_topics_come_through_a_queue() -> None:
    topics = {"REALTIME_MQTT_ALLOWED_TOPICS": "demo/fast/#,demo/slow/#", "REALTIME_MQTT_BATCHED_TOPICS": "demo/fast/#"}
    rendered = template("local", settings=topics)
    fast, slow = sorted(properties(rendered, "AWS::IoT::TopicRule"), key=lambda rule: "slow" in str(rule))
    (to_queue,), (to_bridge,) = (rule["TopicRulePayload"]["Actions"] for rule in (fast, slow))
    assert to_queue.keys() == {"Sqs"} and to_queue["Sqs"]["UseBase64"] is False and to_bridge.keys() == {"Lambda"}
    role, _ = to_queue["Sqs"]["RoleArn"]["Fn::GetAtt"]
    (policy,) = [policy for policy in properties(rendered, "AWS::IAM::Policy") if {"Ref": role} in policy["Roles"]]
    (statement,) = policy["PolicyDocument"]["Statement"]
    queue = to_queue["Sqs"]["QueueUrl"]["Ref"]
    assert statement["Action"] == "sqs:SendMessage" and statement["Resource"] == {"Fn::GetAtt": [queue, "Arn"]}
    (mapping,) = [
        mapping
        for mapping in properties(rendered, "AWS::Lambda::EventSourceMapping")
        if mapping["EventSourceArn"] == {"Fn::GetAtt": [queue, "Arn"]}
    ]
    assert mapping["MaximumBatchingWindowInSeconds"] == 1 and mapping["FunctionResponseTypes"] == [
        "ReportBatchItemFailures"
    ]
    without = template("local", settings={"REALTIME_MQTT_BATCHED_TOPICS": ""})
    assert len(properties(without, "AWS::SQS::Queue")) + 2 == len(properties(rendered, "AWS::SQS::Queue"))


def test_rules_may_write_their_errors(local: dict[str, Any]) -> None:
    payload = properties(local, "AWS::IoT::TopicRule")[0]["TopicRulePayload"]
    role, _ = payload["ErrorAction"]["CloudwatchLogs"]["RoleArn"]["Fn::GetAtt"]
    policies = [policy for policy in properties(local, "AWS::IAM::Policy") if {"Ref": role} in policy["Roles"]]
    actions = {
        action
        for statement in policies
        for what in statement["PolicyDocument"]["Statement"]
        for action in what["Action"]
    }
    assert actions == {"logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"}


def test_an_allowlist_too_long_for_the_device_policy_stops_the_synth() -> None:
    def allow(count: int) -> dict[str, Any]:
        topics = ",".join(f"demo/+/plant-{number:03}/+/telemetry" for number in range(count))
        return template("local", settings={"REALTIME_MQTT_ALLOWED_TOPICS": topics, "REALTIME_MQTT_BATCHED_TOPICS": ""})

    (policy,) = properties(allow(15), "AWS::IoT::Policy")
    assert len(policy["PolicyDocument"]["Statement"][1]["Resource"]) == 15
    with pytest.raises(StageError, match=f"40 entries.*allowed: {POLICY_LIMIT}"):
        allow(40)


def test_a_device_publishes_below_its_own_name_only(local: dict[str, Any], production: dict[str, Any]) -> None:
    """No device can speak for another, in any stage."""
    fast = [f"demo/{THING}/fast/*", f"demo/{THING}/fast"]
    for stage, prefix, further in ((local, "demo", fast), (production, "production", [])):
        (policy,) = properties(stage, "AWS::IoT::Policy")
        connect, publish = policy["PolicyDocument"]["Statement"]
        assert json.dumps(connect["Resource"]).endswith(f'client/{THING}"]]}}')
        assert connect["Action"] == "iot:Connect" and publish["Action"] == "iot:Publish"
        topics = [resource["Fn::Join"][1][-1].partition("topic/")[2] for resource in publish["Resource"]]
        assert topics == [*further, f"{prefix}/{THING}/*", f"{prefix}/{THING}"]


@pytest.mark.parametrize(
    ("allowed_topic", "resources"),
    [
        ("a/b/#", [f"a/b/{THING}/*", f"a/b/{THING}"]),
        ("a/b/+", [f"a/b/{THING}"]),
        ("a/b/+/#", [f"a/b/{THING}/*", f"a/b/{THING}"]),
        ("a/b/+/x", [f"a/b/{THING}/x"]),
        ("a/b/+/+/x/#", [f"a/b/{THING}/*/x/*", f"a/b/{THING}/*/x"]),
        ("a/b/news/#", []),
    ],
)
def test_the_level_after_the_prefix_is_the_thing(allowed_topic: str, resources: list[str]) -> None:
    assert publish_resources(allowed_topic, "a/b") == resources


def test_stages_share_no_topic() -> None:
    """A message that one stage reads from IoT Core reaches no other, also in the same account and region."""
    stages = [load_stage(name) for name in names()]
    for stage in stages:
        rules = iot_topics_of(stage)
        assert rules and all(topic.startswith(f"{stage.settings.iot_topic_prefix}/") for topic in rules)
    prefixes = [f"{stage.settings.iot_topic_prefix}/" for stage in stages]
    assert not any(first.startswith(second) for first, second in permutations(prefixes, 2))


def test_the_edge(production: dict[str, Any], local: dict[str, Any]) -> None:
    assert not of_type(local, "AWS::CloudFront::Distribution")
    (distribution,) = properties(production, "AWS::CloudFront::Distribution")
    config = distribution["DistributionConfig"]
    behaviors = {behavior["PathPattern"]: behavior for behavior in config["CacheBehaviors"]}
    assert set(behaviors) == {"/api/*", "/gateway/realtime", *VIEWER_PATHS}
    disabled, all_but_host = "4135ea2d-6df8-44a3-9df3-4b5a84be39ad", "b689b0a8-53d0-40ab-baf2-68738e2966ac"
    for behavior in (behaviors["/api/*"], behaviors["/gateway/realtime"]):
        assert (behavior["CachePolicyId"], behavior["OriginRequestPolicyId"]) == (disabled, all_but_host)
    assert {response["ErrorCode"] for response in config["CustomErrorResponses"]} == {
        400,
        403,
        404,
        405,
        414,
        500,
        501,
        502,
        503,
        504,
    }
    assert {response["ErrorCachingMinTTL"] for response in config["CustomErrorResponses"]} == {0}
    with_header = [origin for origin in config["Origins"] if origin.get("OriginCustomHeaders")]
    assert len(with_header) == 2
    assert all(not origin.get("OriginPath") for origin in config["Origins"])
    (header,) = {origin["HeaderName"] for origin in with_header for origin in origin["OriginCustomHeaders"]}
    assert header == ORIGIN_HEADER
    assert "resolve:secretsmanager" in json.dumps(with_header)


def test_pages_have_their_headers(production: dict[str, Any]) -> None:
    (distribution,) = properties(production, "AWS::CloudFront::Distribution")
    config = distribution["DistributionConfig"]
    console = _headers_of(production, config["DefaultCacheBehavior"])
    viewers = [_headers_of(production, one) for one in config["CacheBehaviors"] if one["PathPattern"] in VIEWER_PATHS]
    assert len(viewers) == len(VIEWER_PATHS)
    for found in (console, *viewers):
        assert found == {
            **FIXED_HEADERS,
            "Content-Security-Policy": content_security_policy(viewer=False),
            "Strict-Transport-Security": "31536000",
        }
    framed = template("staging", settings='{"CONSOLE_FRAME_ANCESTORS": "https://intranet.example.com"}')
    (distribution,) = properties(framed, "AWS::CloudFront::Distribution")
    config = distribution["DistributionConfig"]
    assert "frame-ancestors 'none'" in _headers_of(framed, config["DefaultCacheBehavior"])["Content-Security-Policy"]
    for behavior in config["CacheBehaviors"]:
        if behavior["PathPattern"] in VIEWER_PATHS:
            policy = _headers_of(framed, behavior)["Content-Security-Policy"]
            assert "frame-ancestors https://intranet.example.com;" in policy


def _headers_of(rendered: dict[str, Any], behavior: dict[str, Any]) -> dict[str, str]:
    policy = rendered["Resources"][behavior["ResponseHeadersPolicyId"]["Ref"]]["Properties"]
    config = policy["ResponseHeadersPolicyConfig"]
    security = config["SecurityHeadersConfig"]
    custom = {item["Header"]: item["Value"] for item in config["CustomHeadersConfig"]["Items"]}
    assert security["ContentTypeOptions"] == {"Override": True}
    return {
        **custom,
        "Content-Security-Policy": security["ContentSecurityPolicy"]["ContentSecurityPolicy"],
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": security["ReferrerPolicy"]["ReferrerPolicy"],
        "Strict-Transport-Security": str(security["StrictTransportSecurity"]["AccessControlMaxAgeSec"]),
    }


def test_addresses_lead_to_the_same_files_as_at_home(production: dict[str, Any]) -> None:
    """CloudFront's function, run by Node, against `pages.file_of`, which the local edge follows."""
    codes = [one["FunctionCode"] for one in properties(production, "AWS::CloudFront::Function")]
    (code,) = [one for one in codes if "/viewer.html" in one]
    addresses = ["/", "/p/abc", "/s/a.b", "/d/x/", "/assets/viewer-1.js", "/icon.svg", "/people", "/a.b/c", "/pp", "/s"]
    asked = f"{json.dumps(addresses)}.map(uri => handler({{request: {{uri}}}}).uri)"
    script = f"{code}\nconsole.log(JSON.stringify({asked}))"
    done = subprocess.run(["node", "-e", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [file_of(address) for address in addresses]


def test_the_local_stack_finds_the_functions_it_handles(local: dict[str, Any]) -> None:
    """It looks functions up by their handlers, which otherwise only a smoke run would notice."""
    handlers = {function["Handler"] for function in properties(local, "AWS::Lambda::Function")}
    named = {relay_workers.RELAY, relay_workers.MESSAGES, relay_workers.API, relay_workers.SCHEDULE}
    assert {f"functions.{name}.handler" for name in named} <= handlers


def test_wrong_context_stops_the_synth() -> None:
    for key in ("domain", "certificate"):
        with pytest.raises(StageError, match=f"`{key}`: allowed: not here; it is '{key}' in infra/stages/staging.json"):
            template("staging", **{key: "live.example.com"})
    with pytest.raises(StageError, match="`created` is 'perhaps'; allowed: true, false"):
        template("staging", created="perhaps")
    with pytest.raises(StageError, match="`settings`: is not JSON"):
        template("local", settings="{REALTIME_ENABLED: false}")
    with pytest.raises(StageError, match="`settings`: must be a JSON object"):
        template("local", settings='["REALTIME_ENABLED"]')
    from_a_command_line = template("local", settings='{"REALTIME_ENABLED": false}')
    for function in properties(from_a_command_line, "AWS::Lambda::Function"):
        assert function["Environment"]["Variables"]["REALTIME_ENABLED"] == "false"


def test_wrong_configuration_stops_the_synth() -> None:
    with pytest.raises(StageError, match="allowed: local, production, staging"):
        load_stage("nowhere")
    with pytest.raises(StageError, match=r"REALTIME_MAX_MESSAGE_BYTES='0'.*1 to 131072"):
        load_stage("local", {"REALTIME_MAX_MESSAGE_BYTES": "0"})
    with pytest.raises(StageError, match="unknown settings"):
        load_stage("local", {"REALTIME_MAX_MESAGE_BYTES": "1"})
    assert names() == ["local", "production", "staging"]


def test_what_nag_finds_stops_the_synth() -> None:
    context = {"stage": "local", "aws:cdk:bundling-stacks": [], **flags()}
    clean = cdk.App(context=context)
    build(clean)
    clean.synth()
    app = cdk.App(context=context)
    s3.Bucket(build(app), "WithoutTls")
    with pytest.raises(RuntimeError, match=r"[Vv]alidation"):
        app.synth()


def test_rotations_find_what_they_need(production: dict[str, Any], local: dict[str, Any]) -> None:
    names = {variable: variable.title().replace("_", "") for variable in SECRETS}
    assert set(names.values()) | {"DistributionId", "SecretWaits"} <= production["Outputs"].keys()
    assert set(names.values()) - local["Outputs"].keys() == {"OriginSecretArn"}, "there is no edge"
    settings = load_stage("production").settings
    shown = json.loads(production["Outputs"]["SecretWaits"]["Value"])
    assert shown["cache"] == settings.secret_cache_seconds and shown.keys() - {"cache"} <= set(SECRETS.values())
    assert (shown["jwt"], shown["jwt-gateway"]) == (
        settings.login_ttl_seconds,
        settings.datasource_session_ttl_seconds,
    )
    for function in (each for each in production["Resources"].values() if each["Type"] == "AWS::Lambda::Function"):
        variables = function["Properties"].get("Environment", {}).get("Variables", {})
        assert {
            name for name in variables if re.fullmatch("(JWT|GATEWAY|LIMITER|ORIGIN)_.*_ARN", name)
        } <= SECRETS.keys()
